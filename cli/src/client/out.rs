//! Standard output as a place that can go away: `tidegate logs .. | head` ends quietly.

use std::io::{self, Write};

use super::Error;

/// Writes `text` and makes it visible at once.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
}
