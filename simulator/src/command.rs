//! `tidegate simulate`: packs, jobs, studies and generators, as a user calls them.
//!
//! Everything is printed to the given writer; files only where a flag names one.

mod format;
mod jobs;
mod line;
mod shared;
mod span;
mod studies;
mod trace;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;

use crate::{Error, generate, pack};

/// Virtual time: what the same engine would have done with a trace.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// One pod after another onto a fixed cluster; nothing ever leaves.
    Pack(pack::Args),
    /// Jobs of a trace on a cluster under one or several policies.
    Jobs(jobs::Args),
    /// A published experiment, done again: published | peers' rule | ours | goal.
    Study(studies::Args),
    /// Writes a synthetic trace in a public format.
    Generate(generate::Args),
}

/// How a simulation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Well,
    /// A goal was missed, or a baseline did not come out: exit 1.
    Missed,
}

/// Runs one command.
///
/// # Errors
/// When the input is wrong; the text names the flag or the file and the line. A reader that has gone is no error.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Ended, Error> {
    match carry_out(&args.command, out) {
        Err(error) if error.is_closed_pipe() => Ok(Ended::Well),
        ended => ended,
    }
}

fn carry_out(command: &Command, out: &mut dyn Write) -> Result<Ended, Error> {
    match command {
        Command::Pack(args) => {
            let report = pack::run(args, pack::clock::thread_cpu_time)?;
            let text = if args.json { json(&report)? } else { report.to_string() };
            print(out, &text)?;
            Ok(Ended::Well)
        }
        Command::Jobs(args) => jobs::run(args, out).map(|()| Ended::Well),
        Command::Study(args) => studies::run(args, out),
        Command::Generate(args) => generate::run(args, out).map(|()| Ended::Well),
    }
}

/// Indented JSON.
fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string_pretty(value).map_err(|error| Error::Usage(format!("the figures cannot be written as JSON: {error}")))
}

fn print(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    writeln!(out, "{}", text.trim_end())
        .and_then(|()| out.flush())
        .map_err(|source| Error::Write { path: PathBuf::from("-"), source })
}

/// Writes a file that a flag names.
fn save(path: &std::path::Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let mut file = io::BufWriter::new(std::fs::File::create(path).map_err(failed)?);
    write(&mut file).and_then(|()| file.flush()).map_err(failed)
}
