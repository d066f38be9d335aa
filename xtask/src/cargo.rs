//! Cargo, always with one selection: `--release --workspace`. Any other selection changes the features of
//! shared dependencies, and tract would be compiled again (minutes).

use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::{env, ffi::OsString};

use anyhow::{Context, Result};

use crate::{cache, command};

/// `cargo SUBCOMMAND --release --workspace`, in the root of the clone.
pub fn whole_workspace(subcommand: &str) -> Command {
    cargo(&[subcommand, "--release", "--workspace"])
}

/// The cargo that runs us, in the root of the clone. It does not see what cargo told *us* about our own package:
/// build scripts such as ring's look at those variables, and all above them would be compiled anew for each chore.
fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(cache::workspace()).args(arguments);
    cargo
}

/// Builds every package.
pub fn build() -> Result<()> {
    command::run(&mut whole_workspace("build"))
}

/// Builds every package, then runs a binary of `tidegate-tests`, with variables beside, whose standard output is ours.
pub fn run_program(binary: &str, arguments: &[String], environment: &[(&str, PathBuf)]) -> Result<ExitCode> {
    build()?;
    let mut program = Command::new(built(binary)?);
    let what = command::line(&program);
    program.current_dir(cache::workspace()).args(arguments).envs(environment.iter().cloned());
    Ok(ended(program.status().with_context(|| format!("cannot run `{what}`"))?))
}

/// As a program ended, so do we.
fn ended(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Builds and runs a benchmark of the workspace, whose standard output is ours.
pub fn run_bench(target: &str, arguments: &[String]) -> Result<ExitCode> {
    let mut bench = cargo(&["bench", "--profile", "release", "--workspace", "--bench", target, "--"]);
    let what = command::line(&bench);
    Ok(ended(bench.args(arguments).status().with_context(|| format!("cannot run `{what}`"))?))
}

/// A binary that [`build`] made. It lies beside the running xtask: the same profile of the same target folder.
pub fn built(binary: &str) -> Result<PathBuf> {
    let here = env::current_exe().context("cannot find the target folder")?;
    Ok(here.with_file_name(binary))
}
