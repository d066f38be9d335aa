//! Reading and writing a unit's folder. Replaces files whole; keeps them to the owner (the environment in a spec may hold tokens).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::process::Process;
use super::{Exit, Run, StopRequest, UnitSpec};

/// Largest JSON file that is read; a spec is bounded by the kernel's limit on arguments and environment, and below this.
const MAX_JSON_BYTES: u64 = 8 << 20;

/// Name of `run.json`, for watchers.
pub const RUN_FILE: &str = "run.json";

/// The folder of one unit.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Names it; nothing is read.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the folder, mode 0700. Fine when it is there.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// Takes the lock for as long as the file is open, `None` when another process has it. Writes the shim that holds it
    /// inside; a world that only clears up is not one.
    pub fn lock(&self, shim: Option<Process>) -> io::Result<Option<File>> {
        let mut file = self.open_lock()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        file.set_len(0)?;
        if let Some(shim) = shim {
            file.write_all(serde_json::to_string(&shim)?.as_bytes())?;
        }
        Ok(Some(file))
    }

    /// The shim that holds the lock, if one does. `Some(None)`: held, but the holder has not written its pid (yet).
    pub fn holder(&self) -> io::Result<Option<Option<Process>>> {
        let mut file = self.open_lock()?;
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                Ok(Some(serde_json::from_str(&text).ok()))
            }
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn open_lock(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(self.file("lock"))
    }

    /// `spec.json`.
    pub fn spec(&self) -> io::Result<Option<UnitSpec>> {
        self.read("spec.json")
    }

    /// Writes `spec.json`.
    pub fn write_spec(&self, spec: &UnitSpec) -> io::Result<()> {
        self.write("spec.json", spec)
    }

    /// `run.json`.
    pub fn run(&self) -> io::Result<Option<Run>> {
        self.read(RUN_FILE)
    }

    /// Writes `run.json`.
    pub fn write_run(&self, run: &Run) -> io::Result<()> {
        self.write(RUN_FILE, run)
    }

    /// `stop.json`.
    pub fn stop(&self) -> io::Result<Option<StopRequest>> {
        self.read("stop.json")
    }

    /// Writes `stop.json`.
    pub fn write_stop(&self, stop: StopRequest) -> io::Result<()> {
        self.write("stop.json", &stop)
    }

    /// `exit.json`.
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        self.read("exit.json")
    }

    /// Writes `exit.json`.
    pub fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        self.write("exit.json", exit)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let file = match File::open(self.file(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::new();
        file.take(MAX_JSON_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        replace(&self.file(name), &serde_json::to_vec(value)?)
    }
}

/// Replaces the file at `path` whole. Survives the end of any process, not of the machine: then all units are gone too.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("unit"));
        folder.create().unwrap();
        (dir, folder)
    }

    #[test]
    fn a_lock_is_held_once_and_names_its_holder() {
        let (_dir, folder) = folder();
        let me = Process::current().unwrap();
        assert_eq!(folder.holder().unwrap(), None);
        let held = folder.lock(Some(me)).unwrap();
        assert!(held.is_some());
        assert!(folder.lock(None).unwrap().is_none());
        assert_eq!(folder.holder().unwrap(), Some(Some(me)));
        drop(held);
        assert_eq!(folder.holder().unwrap(), None);
    }

    #[test]
    fn what_was_written_is_read_and_what_was_not_is_absent() {
        let (_dir, folder) = folder();
        assert_eq!(folder.stop().unwrap(), None);
        folder.write_stop(StopRequest { grace_ms: 5 }).unwrap();
        assert_eq!(folder.stop().unwrap(), Some(StopRequest { grace_ms: 5 }));
        fs::write(folder.file("exit.json"), b"{").unwrap();
        assert!(folder.exit().is_err());
    }
}
