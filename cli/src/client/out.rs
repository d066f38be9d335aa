//! Standard output as a place that can go away: `tidegate logs .. | head` ends quietly.

use std::io::{self, Write};

use serde::Serialize;

use super::Error;

/// Writes `text` and makes it visible at once.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
}

/// Writes a value as JSON for scripts.
pub fn json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Output(e.into()))?;
    print(&(text + "\n"))
}
