//! Counts tests from what their runners print.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::command;

/// Tests that passed and that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
}

impl Tally {
    /// One check that is not a test of a runner.
    pub fn one(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs a test command, shows its output as it comes, and counts with `count`.
/// A command that fails without saying that a test failed (it did not compile, it crashed) counts as one failure.
pub fn run(test: &mut Command, count: impl Fn(&str) -> Tally) -> Result<Tally> {
    let what = command::line(test);
    eprintln!("+ {what}");
    let mut child = test.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{what}`"))?;
    let mut tally = Tally::default();
    if let Some(output) = child.stdout.take() {
        echo(output, io::stderr(), |line| tally += count(line)).with_context(|| format!("cannot read what `{what}` prints"))?;
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{what}`"))?;
    if !status.success() && tally.failed == 0 {
        eprintln!("xtask: `{what}` failed: {status}");
        tally.failed = 1;
    }
    Ok(tally)
}

/// Copies lines to `sink` and shows each to `see`.
fn echo(output: impl Read, mut sink: impl Write, mut see: impl FnMut(&str)) -> io::Result<()> {
    let mut reader = BufReader::new(output);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        sink.write_all(&bytes)?;
        see(&String::from_utf8_lossy(&bytes));
        bytes.clear();
    }
    Ok(())
}

/// `test result: ok. 12 passed; 0 failed; ...`, and `test NAME ... ignored`: an ignored test counts as failed, so that
/// nothing is skipped silently. `ignored, helper of ...` is no test but a process that one starts.
pub fn of_runner(line: &str) -> Tally {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("test result: ") {
        return Tally { passed: number_before(rest, " passed"), failed: number_before(rest, " failed") };
    }
    let ignored = line.starts_with("test ") && line.contains(" ... ignored") && !line.contains(" ... ignored, helper of ");
    Tally { passed: 0, failed: u64::from(ignored) }
}

fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split_once(word).map_or("", |(before, _)| before);
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_and_ignored_tests_count_as_failed_but_not_helpers() {
        let line = "test result: FAILED. 12 passed; 3 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.10s\n";
        assert_eq!(of_runner(line), Tally { passed: 12, failed: 3 });
        assert_eq!(of_runner("test slow ... ignored\n"), Tally { passed: 0, failed: 1 });
        assert_eq!(of_runner("test slow ... ignored, takes an hour"), Tally { passed: 0, failed: 1 });
        assert_eq!(of_runner("test it ... ignored, helper of the test below"), Tally::default());
        assert_eq!(of_runner("test result_of_mine ... ok"), Tally::default());
    }

    #[test]
    fn a_command_that_fails_before_any_test_counts_as_one_failure() {
        assert_eq!(run(&mut Command::new("false"), of_runner).unwrap(), Tally { passed: 0, failed: 1 });
    }

    #[test]
    fn output_with_broken_utf8_is_still_counted() {
        let mut seen = Tally::default();
        echo(&b"\xff\xfe\ntest result: ok. 1 passed; 0 failed; 0 ignored\n"[..], io::sink(), |line| seen += of_runner(line))
            .unwrap();
        assert_eq!(seen, Tally { passed: 1, failed: 0 });
    }
}
