//! A cgroup of a node's own, in each hierarchy of version 1 or in the only one of version 2, so that nodes do not meet.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result};

use super::{block_until, leftovers};

const MOUNT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "tidegate-test-";
/// The kernel takes a moment to take killed processes out of their cgroups.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// The cgroup; dropped, it is removed with those below it.
pub struct Cgroups {
    name: String,
}

impl Cgroups {
    /// Makes it.
    pub fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}{}", leftovers::prefix(PREFIX), NEXT.fetch_add(1, Ordering::Relaxed));
        let made = Self { name };
        for hierarchy in hierarchies()? {
            for left in leftovers::find(&hierarchy, PREFIX) {
                drop(remove(&left));
            }
            let folder = hierarchy.join(&made.name);
            fs::create_dir(&folder).with_context(|| format!("make the cgroup {}", folder.display()))?;
        }
        Ok(made)
    }

    /// Its name, which no other has.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for hierarchy in hierarchies().unwrap_or_default() {
            let folder = hierarchy.join(&self.name);
            block_until(GONE_WITHIN, || !folder.exists() || remove(&folder).is_ok());
        }
    }
}

/// Where cgroups can be made.
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return Ok(vec![mount.to_owned()]);
    }
    // A name for two controllers of one hierarchy is a link to it.
    let folders = fs::read_dir(mount)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.map(|entry| entry.path()).collect())
}

/// Leaves first; the files of a cgroup go with it.
fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path())?;
    }
    fs::remove_dir(folder)
}
