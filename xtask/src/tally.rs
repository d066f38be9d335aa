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

/// Runs a test command, shows its output as it comes, counts with `count`, and repeats at the end what tests that failed had printed.
/// A command that fails without saying that a test failed (it did not compile, it crashed) counts as one failure.
pub fn run(test: &mut Command, count: impl Fn(&str) -> Tally) -> Result<Tally> {
    let what = command::line(test);
    eprintln!("+ {what}");
    let mut child = test.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{what}`"))?;
    let mut tally = Tally::default();
    let mut failures = Failures::default();
    if let Some(output) = child.stdout.take() {
        let see = |line: &str| {
            tally += count(line);
            failures.see(line);
        };
        echo(output, io::stderr(), see).with_context(|| format!("cannot read what `{what}` prints"))?;
    }
    eprint!("{}", failures.said);
    let status = child.wait().with_context(|| format!("cannot wait for `{what}`"))?;
    if !status.success() && tally.failed == 0 {
        eprintln!("xtask: `{what}` failed: {status}");
        tally.failed = 1;
    }
    Ok(tally)
}

/// What failed tests of a Rust runner had printed: the sections that begin with `---- NAME stdout ----`, which may be thousands of lines
/// above the end. Of each the beginning.
#[derive(Default)]
struct Failures {
    said: String,
    /// Lines of the present section that are still kept.
    left: usize,
}

impl Failures {
    /// Lines of one section.
    const MOST: usize = 40;

    fn see(&mut self, line: &str) {
        if line.starts_with("---- ") && line.trim_end().ends_with(" stdout ----") {
            self.left = Self::MOST;
        } else if line.trim_end() == "failures:" || line.starts_with("test result: ") {
            self.left = 0;
        }
        if self.left > 0 {
            self.left -= 1;
            self.said.push_str(line);
        }
    }
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
    fn what_failed_tests_printed_is_kept_and_nothing_else() {
        let printed = "test it ... FAILED\n\nfailures:\n\n---- it stdout ----\npanicked at x.rs:1:\nthat\n\nfailures:\n    it\n\ntest result: FAILED. 0 passed; 1 failed\n";
        let mut failures = Failures::default();
        printed.split_inclusive('\n').for_each(|line| failures.see(line));
        assert_eq!(failures.said, "---- it stdout ----\npanicked at x.rs:1:\nthat\n\n");
        let mut failures = Failures::default();
        failures.see("---- long stdout ----\n");
        (0..100).for_each(|_| failures.see("more\n"));
        assert_eq!(failures.said.lines().count(), Failures::MOST, "of each the beginning");
    }

    #[test]
    fn output_with_broken_utf8_is_still_counted() {
        let mut seen = Tally::default();
        echo(&b"\xff\xfe\ntest result: ok. 1 passed; 0 failed; 0 ignored\n"[..], io::sink(), |line| seen += of_runner(line))
            .unwrap();
        assert_eq!(seen, Tally { passed: 1, failed: 0 });
    }
}
