//! What can be wrong with a simulation's input.

use std::path::PathBuf;

use thiserror::Error;

/// Why a simulation did not run to its end.
#[derive(Debug, Error)]
pub enum Error {
    /// A flag or a settings file is wrong. The text names it, its value and the remedy. Exit 64.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written. Exit 73.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A row of a trace does not parse. Exit 64.
    #[error("{path}, line {line}: {field} is {found:?}: {remedy}; --skip-bad leaves such rows out and counts them")]
    Row {
        /// The file.
        path: PathBuf,
        /// 1-based, the header counted.
        line: u64,
        /// The column.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it must say.
        remedy: &'static str,
    },
    /// A file is cut off or not of its format at all: there is no row to leave out. Exit 64.
    #[error("{path}, line {line}: {field} is {found:?}: {remedy}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: u64,
        /// What of it: a column, a key, the header, the compressed data.
        field: String,
        /// What is there.
        found: String,
        /// What must be there.
        remedy: String,
    },
    /// A policy ordered what cannot be, or let a job wait for ever: a fault of the program. Exit 70.
    #[error("policy {policy}, job {job}, at {at_ms} ms: {what}")]
    Policy {
        /// As on the command line.
        policy: &'static str,
        /// Its name in the trace.
        job: String,
        /// Virtual time.
        at_ms: u64,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// The same where rows cannot be left out.
    #[must_use]
    pub fn without_skip_bad(self) -> Self {
        match self {
            Self::Row { path, line, field, found, remedy } => {
                Self::Layout { path, line, field: field.to_owned(), found, remedy: remedy.to_owned() }
            }
            other => other,
        }
    }

    /// Whether whoever read our output has gone (`| head`): nothing is wrong.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// The process exit code (sysexits: 64 is a usage error, 66 no input, 70 our fault, 73 cannot create).
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Row { .. } | Self::Layout { .. } => 64,
            Self::Read { .. } => 66,
            Self::Write { .. } => 73,
            Self::Policy { .. } => 70,
        }
    }
}
