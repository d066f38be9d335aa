//! Bad rows: counted and shown with their line numbers; whether they stop the run is the user's choice (`--skip-bad`).

use std::fmt;

use crate::Error;

/// How many messages are kept.
const SHOWN: usize = 10;

/// What was wrong with a trace's rows.
#[derive(Debug, Default)]
pub struct Bad {
    skip: bool,
    rows: u64,
    first: Vec<String>,
}

impl Bad {
    /// The first bad row ends the reading, after the rest was looked through so that all bad rows are counted.
    pub fn stops() -> Self {
        Self::default()
    }

    /// By the flag `--skip-bad`.
    pub fn new(skip: bool) -> Self {
        Self { skip, ..Self::default() }
    }

    /// Whether bad rows are left out.
    pub fn is_skipping(&self) -> bool {
        self.skip
    }

    /// Bad rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The first ten, each with line, column, what was found and the remedy.
    pub fn first(&self) -> &[String] {
        &self.first
    }

    pub(crate) fn note(&mut self, error: &Error) {
        self.rows += 1;
        if self.first.len() < SHOWN {
            self.first.push(match error {
                Error::Row { line, field, found, remedy, .. } => format!("line {line}: {field} is {found:?}: {remedy}"),
                other => other.to_string(),
            });
        }
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bad {}", self.rows, if self.rows == 1 { "row" } else { "rows" })?;
        for line in &self.first {
            write!(f, "\n  {line}")?;
        }
        let more = self.rows.saturating_sub(self.first.len() as u64);
        if more > 0 {
            write!(f, "\n  and {more} more")?;
        }
        Ok(())
    }
}
