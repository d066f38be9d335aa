//! Runs outside programs so that a failure names the command that failed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, io};

use anyhow::{Context, Result, bail, ensure};

/// Any of them: the longest builds the kubelet from empty caches, ten minutes on two idle cores. A registry that does not answer
/// would take for ever.
const ENDS_WITHIN: Duration = Duration::from_hours(2);
/// How often a command with a deadline is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs `command` with its output on our standard error; an error names the command and how it ended.
pub fn run(command: &mut Command) -> Result<()> {
    run_within(ENDS_WITHIN, command)
}

/// Runs `command` with its output on our standard error. How it ended.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    status_within(ENDS_WITHIN, command)
}

fn run_within(limit: Duration, command: &mut Command) -> Result<()> {
    let status = status_within(limit, command)?;
    ensure!(status.success(), "`{}` failed: {status}", line(command));
    Ok(())
}

/// At the limit it is ended.
#[expect(clippy::disallowed_methods, reason = "nothing else runs here")]
fn status_within(limit: Duration, command: &mut Command) -> Result<ExitStatus> {
    let what = line(command);
    eprintln!("+ {what}");
    let mut child = command.stdout(io::stderr()).spawn().with_context(|| format!("cannot run `{what}`"))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for `{what}`"))? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            drop(child.kill());
            drop(child.wait());
            bail!("`{what}` did not end within {limit:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether `command` succeeds; says nothing.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The first of `names` that is a file on `PATH`.
pub fn find(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| is_program(file)))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_with_its_arguments() {
        let error = run(Command::new("false").arg("--really")).unwrap_err().to_string();
        assert!(error.contains("`false --really` failed"), "{error}");
        let error = run(&mut Command::new("/nonexistent/program")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/program"), "{error}");
    }

    #[test]
    fn a_command_that_does_not_end_in_time_is_ended_and_named() {
        let error = run_within(Duration::from_millis(200), Command::new("sleep").arg("3600")).unwrap_err().to_string();
        assert!(error.contains("`sleep 3600` did not end within 200ms"), "{error}");
        run_within(Duration::from_mins(1), &mut Command::new("true")).unwrap();
        let error = run_within(Duration::from_mins(1), &mut Command::new("false")).unwrap_err().to_string();
        assert!(error.contains("`false` failed"), "{error}");
    }

    #[test]
    fn programs_are_found_on_the_path_in_the_order_asked() {
        assert!(find(&["no-such-program-anywhere", "sh"]).is_some_and(|found| found.ends_with("sh")));
        assert_eq!(find(&["no-such-program-anywhere"]), None);
    }
}
