//! What a unit is: one command that `tidegate up` runs (a training worker, a replica, the router), as a folder.
//!
//! ```text
//! DATA/units/<unit-id>/
//!   spec.json   what to run                        written by the world, once
//!   lock        held while its shim lives; the shim's pid is inside
//!   run.json    what runs now                      written by the shim at every start
//!   stop.json   the wish that it ends              written by the world
//!   exit.json   how it ended                       written last, by the shim (or by the world that found the shim dead)
//!   log, log.1  its output, bounded; log.base: where `log` starts in the whole stream
//!   shim.log    what the shim itself had to say; empty but for bugs
//! ```
//!
//! Every file is replaced whole (written beside, then renamed), so a reader never sees half of one.
//! The folder is the unit's identity: a unit runs at most once, whatever is killed when.

pub mod folder;
pub mod log;
pub mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Tells a child which unit it is.
pub const UNIT_ENV: &str = "TIDEGATE_UNIT";
/// The unit's folder, absolute. Every descendant inherits it, so what a killed shim left behind is found by it.
pub const UNIT_DIR_ENV: &str = "TIDEGATE_UNIT_DIR";

/// Longest [`UnitId`] in bytes: a file name has at most 255, and other names grow from it.
const MAX_ID_BYTES: usize = 128;

/// Name of a unit and of its folder: `[a-z0-9._-]`, 1 to 128 bytes, not starting with a dot.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(try_from = "String", into = "String")]
pub struct UnitId(String);

/// A text that cannot be a [`UnitId`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unit id {0:?}: use 1 to 128 of a-z, 0-9, '.', '_' and '-', not starting with '.'")]
pub struct BadUnitId(String);

impl UnitId {
    /// Checks `id`.
    pub fn new(id: impl Into<String>) -> Result<Self, BadUnitId> {
        let id = id.into();
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let good = !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.starts_with('.') && id.bytes().all(allowed);
        if good { Ok(Self(id)) } else { Err(BadUnitId(id)) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UnitId {
    type Error = BadUnitId;

    fn try_from(id: String) -> Result<Self, BadUnitId> {
        Self::new(id)
    }
}

impl From<UnitId> for String {
    fn from(id: UnitId) -> Self {
        id.0
    }
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to run, and how.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct UnitSpec {
    /// Name of the unit.
    pub id: UnitId,
    /// Program and arguments. A relative program with a `/` is relative to `working_dir`, one without is looked up in `PATH`.
    pub command: Vec<String>,
    /// Set beside the environment that the world has at the time of the start.
    pub env: BTreeMap<String, String>,
    /// Where the command starts.
    pub working_dir: PathBuf,
    /// Most bytes that `log` and `log.1` take together.
    pub log_max_bytes: u64,
    /// What to do when the command ends by itself.
    pub restart: Restart,
    /// The command gets a listening TCP socket as descriptor 3, with `LISTEN_FDS=1`.
    pub listen_fd: bool,
    /// For the world's own use; the unit does not see them.
    pub labels: BTreeMap<String, String>,
}

/// What a shim does when its command ends and nobody asked for that.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    /// The unit has ended.
    Never,
    /// Starts it again, at once or after a back-off; see [`crate::shim::backoff`].
    Always,
}

/// One running command, as in `run.json`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The shim.
    pub shim_pid: u32,
    /// Start of the shim; tells a process from a later one with its pid.
    pub shim_start_ticks: u64,
    /// The command, leader of its own process group.
    pub pid: u32,
    /// Start of the command.
    pub start_ticks: u64,
    /// When it was started.
    pub started_ms: u64,
    /// How many runs were before this one.
    pub restarts: u32,
    /// How the run before this one ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_exit: Option<Exit>,
}

/// How a unit ended, as in `exit.json`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, when it ended by itself. 127: the program was not found, 126: it could not be started.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When the last of its processes was gone.
    pub at_ms: u64,
    /// The grace ran out: SIGKILL ended it, or something that it had started.
    pub killed: bool,
    /// A stop was asked for before it ended.
    pub requested: bool,
    /// Its shim was killed, so nobody saw how it ended. All that was left of it has been killed.
    pub lost: bool,
    /// Why the command could not be started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// The wish that a unit ends, as in `stop.json`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopRequest {
    /// From SIGTERM to SIGKILL.
    pub grace_ms: u64,
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_the_folder_are_refused() {
        for bad in ["", ".", "..", ".hidden", "a/b", "A", "a b", "é", &"x".repeat(129)] {
            assert!(UnitId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "job-digits-3-0", "router", "replica_1.b", &"x".repeat(128)] {
            assert!(UnitId::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn an_id_is_checked_when_it_is_read_from_a_file() {
        assert!(serde_json::from_str::<UnitId>("\"../etc\"").is_err());
        assert_eq!(serde_json::from_str::<UnitId>("\"a-1\"").unwrap().as_str(), "a-1");
    }
}
