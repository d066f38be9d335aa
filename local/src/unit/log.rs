//! A unit's output on disk, bounded: `log`, and the older half in `log.1`.
//!
//! Readers address it by the offset in the whole stream, so that following survives rotation: `log.base` holds where
//! `log` starts. The writer moves `log` to `log.1`, then writes `log.base`, then makes a new `log`; a reader that opens
//! `log.1` before `log` and finds the same base before and after has a consistent pair.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use serde::{Deserialize, Serialize};

use super::folder::{Folder, replace};

/// How often a reader tries again while the writer rotates. Rotation takes microseconds.
const READ_ATTEMPTS: usize = 100;

/// Appends and rotates. An error of the disk loses output, never the unit; the loss is noted in the log when it works again.
#[derive(Debug)]
pub struct LogWriter {
    folder: Folder,
    file: Option<File>,
    /// Where `file` starts in the whole stream.
    base: u64,
    /// The same, as last written to `log.base`.
    recorded_base: u64,
    size: u64,
    /// Half of the bound: `log` and `log.1` are at most this long each.
    half: u64,
    lost_bytes: u64,
}

impl LogWriter {
    /// Continues the log in `folder`, with at most `max_bytes` on disk.
    pub fn open(folder: &Folder, max_bytes: u64) -> Self {
        let (base, half) = (read_base(folder), (max_bytes / 2).max(1));
        let mut log = Self { folder: folder.clone(), file: None, base, recorded_base: base, size: 0, half, lost_bytes: 0 };
        // Tried again at the first write.
        drop(log.reopen());
        log
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.lost_bytes > 0 {
            let note = format!("\ntidegate: {} bytes of output were lost here\n", self.lost_bytes);
            if self.append(note.as_bytes()).is_err() {
                self.lost_bytes += bytes.len() as u64;
                return;
            }
            self.lost_bytes = 0;
        }
        let before = self.base + self.size;
        if self.append(bytes).is_err() {
            self.lost_bytes += bytes.len() as u64 - (self.base + self.size - before);
        }
    }

    /// Appends a line of the shim's own.
    pub fn note(&mut self, text: &str) {
        self.write(format!("tidegate: {text}\n").as_bytes());
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.size >= self.half {
                self.rotate()?;
            }
            let room = usize::try_from(self.half - self.size).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            if self.file.is_none() {
                self.reopen()?;
            }
            let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
            let result = file.write_all(now);
            // What of a failed write reached the disk is part of the stream.
            self.size = file.metadata().map_or(self.size, |m| m.len());
            result?;
            bytes = later;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(self.folder.file("log"), self.folder.file("log.1"))?;
        (self.file, self.base, self.size) = (None, self.base + self.size, 0);
        self.reopen()
    }

    fn reopen(&mut self) -> io::Result<()> {
        if self.recorded_base != self.base {
            replace(&self.folder.file("log.base"), self.base.to_string().as_bytes())?;
            self.recorded_base = self.base;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.folder.file("log"))?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }
}

fn read_base(folder: &Folder) -> u64 {
    fs::read_to_string(folder.file("log.base")).ok().and_then(|t| t.parse().ok()).unwrap_or(0)
}

/// A piece of a unit's output.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct LogChunk {
    /// Offset of the first byte in the whole stream; above what was asked for when that is no longer kept.
    pub start: u64,
    /// The bytes; empty at the end of what there is.
    pub bytes: Vec<u8>,
}

impl LogChunk {
    /// Where to read on.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// Both files, consistent with each other.
struct Pair {
    old: Option<(File, u64)>,
    new: Option<(File, u64)>,
    /// Where `new` starts.
    base: u64,
}

impl Pair {
    fn open(folder: &Folder) -> io::Result<Self> {
        for _ in 0..READ_ATTEMPTS {
            let base = read_base(folder);
            let old = open_sized(folder, "log.1")?;
            let new = open_sized(folder, "log")?;
            if read_base(folder) == base && new.is_some() {
                return Ok(Self { old, new, base });
            }
        }
        // No `log`: nothing was written yet, or the shim was killed while it rotated.
        Ok(Self { old: open_sized(folder, "log.1")?, new: None, base: read_base(folder) })
    }

    fn oldest(&self) -> u64 {
        self.base - self.old.as_ref().map_or(0, |(_, size)| (*size).min(self.base))
    }

    fn end(&self) -> u64 {
        self.base + self.new.as_ref().map_or(0, |(_, size)| *size)
    }

    fn read(&mut self, offset: u64, max_bytes: usize) -> io::Result<LogChunk> {
        let start = offset.clamp(self.oldest(), self.end());
        let (oldest, base) = (self.oldest(), self.base);
        let mut bytes = Vec::new();
        if let Some((file, _)) = self.old.as_mut().filter(|_| start < base) {
            file.seek(SeekFrom::Start(start - oldest))?;
            file.take((base - start).min(max_bytes as u64)).read_to_end(&mut bytes)?;
        }
        if let Some((file, _)) = &mut self.new {
            file.seek(SeekFrom::Start(start.saturating_sub(base)))?;
            file.take((max_bytes - bytes.len()) as u64).read_to_end(&mut bytes)?;
        }
        Ok(LogChunk { start, bytes })
    }
}

fn open_sized(folder: &Folder, name: &str) -> io::Result<Option<(File, u64)>> {
    match File::open(folder.file(name)) {
        Ok(file) => {
            let size = file.metadata()?.len();
            Ok(Some((file, size)))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads up to `max_bytes` from `offset` of the whole stream, or from the oldest that is kept.
pub fn read(folder: &Folder, offset: u64, max_bytes: usize) -> io::Result<LogChunk> {
    Pair::open(folder)?.read(offset, max_bytes)
}

/// The last `max_bytes` of the output.
pub fn tail(folder: &Folder, max_bytes: usize) -> io::Result<LogChunk> {
    let mut pair = Pair::open(folder)?;
    let start = pair.end().saturating_sub(max_bytes as u64);
    pair.read(start, max_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_disk(folder: &Folder) -> u64 {
        ["log", "log.1"].iter().map(|n| fs::metadata(folder.file(n)).map_or(0, |m| m.len())).sum()
    }

    #[test]
    fn a_follower_sees_every_byte_across_rotations_and_the_disk_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let mut log = LogWriter::open(&folder, 100);
        let mut seen = Vec::new();
        let mut written = Vec::new();
        for i in 0..200u32 {
            let line = format!("line {i}\n");
            log.write(line.as_bytes());
            written.extend_from_slice(line.as_bytes());
            let chunk = read(&folder, seen.len() as u64, 1000).unwrap();
            assert_eq!(chunk.start, seen.len() as u64);
            seen.extend(chunk.bytes);
            assert!(on_disk(&folder) <= 100);
        }
        assert_eq!(seen, written);
        assert!(written.ends_with(&tail(&folder, 30).unwrap().bytes));
        assert_eq!(tail(&folder, 30).unwrap().bytes.len(), 30);
    }

    #[test]
    fn a_reader_that_comes_too_late_starts_at_the_oldest_that_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let mut log = LogWriter::open(&folder, 20);
        log.write(b"0123456789abcdefghijABCDE");
        let chunk = read(&folder, 3, 100).unwrap();
        assert_eq!((chunk.start, chunk.bytes.as_slice()), (10, b"abcdefghijABCDE".as_slice()));
        assert_eq!(chunk.end(), 25);
        assert_eq!(read(&folder, 25, 100).unwrap(), LogChunk { start: 25, bytes: vec![] });
        assert_eq!(read(&folder, 8_000, 100).unwrap().start, 25);
        assert_eq!(read(&folder, 18, 4).unwrap().bytes, b"ijAB");
    }

    #[test]
    fn a_reopened_log_continues_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        LogWriter::open(&folder, 20).write(b"0123456789ab");
        LogWriter::open(&folder, 20).write(b"cd");
        assert_eq!(tail(&folder, 100).unwrap(), LogChunk { start: 0, bytes: b"0123456789abcd".to_vec() });
    }

    #[test]
    fn a_log_that_was_never_written_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(tail(&Folder::new(dir.path()), 10).unwrap(), LogChunk::default());
    }

    #[test]
    fn a_disk_that_fails_loses_output_and_says_how_much() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("gone"));
        let mut log = LogWriter::open(&folder, 1000);
        log.write(b"lost");
        folder.create().unwrap();
        log.write(b"kept\n");
        assert_eq!(tail(&folder, 100).unwrap().bytes, b"\ntidegate: 4 bytes of output were lost here\nkept\n");
    }
}
