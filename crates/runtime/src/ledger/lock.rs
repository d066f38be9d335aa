//! One process at a time: an advisory lock that the kernel releases however its holder ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::Error;

/// Longest text of a lock file that is read: a pid has at most 7 digits.
const MAX_PID_BYTES: u64 = 32;

/// Makes `dir` and takes `DIR/lock` for as long as the file is open. Writes the own pid inside. `place` is for messages.
pub fn take(dir: &Path, place: &str) -> Result<File, Error> {
    let failed = |source| Error::Folder { place: place.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join("lock"));
    let mut file = open.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::Held { place: place.to_owned(), pid: holder(&file) }),
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes())).map_err(failed)?;
    Ok(file)
}

fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_PID_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
