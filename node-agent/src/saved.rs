//! What survives a restart of the agent: findings that only an event told, in a small file (`--state`). A fatal XID is no
//! less fatal because the agent was upgraded meanwhile. Signs are not kept: the next reading shows them again.
//!
//! Remembered is what was found under this boot of the machine; another driver than then is another load of it, which
//! ends such findings as ever. The file is replaced whole, by renaming. One that is not ours is neither read nor replaced:
//! that is said once, and nothing is kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidegate_nvml::GpuUuid;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::collect::Shared;
use crate::health::{Cause, Health};
use crate::node::Node;

const VERSION: u32 = 1;
/// Far above 64 GPUs with every finding and its evidence.
const MOST_BYTES: u64 = 1 << 20;
/// A change is written no later than this after it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Findings that began earlier begin here: nobody asks for the month.
const LONGEST_PAST: Duration = Duration::from_hours(30 * 24);

/// The file.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct State {
    version: u32,
    /// `/proc/sys/kernel/random/boot_id`.
    boot: String,
    /// Version of the driver, if it was known.
    driver: Option<String>,
    gpus: BTreeMap<GpuUuid, Vec<Saved>>,
}

/// One finding.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Saved {
    cause: Cause,
    /// Milliseconds of Unix time.
    since_ms: u64,
    seen_ms: u64,
    evidence: String,
}

/// What is remembered of the time before this process.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The driver's version then.
    pub driver: Option<String>,
    pub gpus: BTreeMap<GpuUuid, Health>,
}

/// The file as it was found, and where it is kept.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    state: State,
    /// Not ours: leave it alone.
    foreign: bool,
}

impl Kept {
    /// Reads the file. None is fine, and so is one that cannot be used: that is said.
    pub fn open(path: PathBuf, proc: &Path) -> Self {
        let boot = fs::read_to_string(proc.join("sys/kernel/random/boot_id")).unwrap_or_default().trim().to_owned();
        let fresh = State { version: VERSION, boot, ..State::default() };
        match read(&path) {
            Ok(Some(state)) if state.boot == fresh.boot => Self { path, state, foreign: false },
            Ok(_) => Self { path, state: fresh, foreign: false },
            Err(error) => {
                let file = path.display();
                tracing::warn!(%error, %file, "the file of --state cannot be used, so findings will not survive a restart; delete it or name another one");
                Self { path, state: fresh, foreign: true }
            }
        }
    }

    /// How long before `now` (since the Unix epoch) the oldest of it began.
    pub fn past(&self, now: Duration) -> Duration {
        let oldest = self.state.gpus.values().flatten().map(|saved| Duration::from_millis(saved.since_ms)).min();
        oldest.map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest).min(LONGEST_PAST))
    }

    /// What is remembered, in a time that begins at `began` since the Unix epoch.
    pub fn remembered(&self, began: Duration) -> Remembered {
        let at = |ms: u64| Duration::from_millis(ms).saturating_sub(began);
        let health = |all: &Vec<Saved>| {
            let mut health = Health::default();
            for saved in all.iter().filter(|saved| saved.cause.rule().by_event) {
                health.remember(saved.cause, at(saved.since_ms), at(saved.seen_ms), saved.evidence.clone());
            }
            health
        };
        let gpus = self.state.gpus.iter().map(|(uuid, all)| (uuid.clone(), health(all)));
        Remembered { driver: self.state.driver.clone(), gpus: gpus.collect() }
    }

    /// What is to be kept of the machine as it is now; of GPUs that have not shown themselves yet, what is known.
    fn next(&self, node: &Node) -> State {
        let driver = node.driver.as_ref().and_then(|driver| driver.driver.known().cloned());
        let began = Duration::from_secs_f64(node.began_unix.max(0.0));
        let of = |health: &Health| {
            let lasting = health.findings().filter(|(cause, _)| cause.rule().by_event);
            let saved = lasting.map(|(cause, finding)| Saved {
                cause,
                since_ms: millis(began + finding.since),
                seen_ms: millis(began + finding.seen),
                evidence: finding.evidence.clone(),
            });
            saved.collect::<Vec<_>>()
        };
        let gpus = node.gpus.iter().map(|(uuid, gpu)| (uuid, &gpu.health)).chain(&node.remembered.gpus);
        let gpus = gpus.map(|(uuid, health)| (uuid.clone(), of(health))).filter(|(_, saved)| !saved.is_empty());
        State {
            version: VERSION,
            boot: self.state.boot.clone(),
            driver: driver.or_else(|| self.state.driver.clone()),
            gpus: gpus.collect(),
        }
    }
}

/// Keeps the file until `shutdown`, and once more then.
pub async fn keep(shared: Arc<Shared>, mut kept: Kept, shutdown: CancellationToken) {
    let mut failing = false;
    while !kept.foreign {
        let next = kept.next(&shared.node.lock());
        if next != kept.state {
            let (path, state) = (kept.path.clone(), next.clone());
            // A slow disk must not keep scrapes waiting.
            let written = tokio::task::spawn_blocking(move || write(&path, &state)).await;
            match written.map_err(io::Error::other).flatten() {
                Ok(()) => (kept.state, failing) = (next, false),
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    let file = kept.path.display();
                    tracing::warn!(%error, %file, "the file of --state cannot be written; trying again");
                }
                Err(_) => {}
            }
        }
        if shutdown.is_cancelled() {
            return;
        }
        // Cut short by the end, and then it looks once more.
        shutdown.run_until_cancelled(sleep(LOOK_EVERY)).await;
    }
}

/// Now, since the Unix epoch.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Absent if there is no file.
fn read(path: &Path) -> io::Result<Option<State>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(MOST_BYTES + 1).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("it is larger than any of ours"));
    }
    let state: State = serde_json::from_str(&text).map_err(|e| io::Error::other(format!("it is not ours: {e}")))?;
    if state.version == VERSION { Ok(Some(state)) } else { Err(io::Error::other("it is of another version")) }
}

/// Replaces the file whole.
fn write(path: &Path, state: &State) -> io::Result<()> {
    let beside = path.with_added_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    file.sync_all()?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(boot: &str) -> State {
        let saved = Saved { cause: Cause::FatalXid, since_ms: 5_000, seen_ms: 7_000, evidence: "XID 48".into() };
        let gpus = BTreeMap::from([(GpuUuid::from("GPU-1".to_owned()), vec![saved])]);
        State { version: VERSION, boot: boot.into(), driver: Some("580.1".into()), gpus }
    }

    fn proc(boot: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sys/kernel/random")).unwrap();
        fs::write(dir.path().join("sys/kernel/random/boot_id"), format!("{boot}\n")).unwrap();
        dir
    }

    #[test]
    fn what_was_written_is_remembered_under_the_same_boot_and_forgotten_under_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write(&path, &state("a")).unwrap();
        let kept = Kept::open(path.clone(), proc("a").path());
        assert_eq!(kept.past(Duration::from_secs(9)), Duration::from_secs(4));
        let remembered = kept.remembered(Duration::from_secs(5));
        let (cause, finding) = remembered.gpus.values().next().unwrap().findings().next().unwrap();
        assert_eq!((cause, finding.since, finding.seen), (Cause::FatalXid, Duration::ZERO, Duration::from_secs(2)));
        let rebooted = Kept::open(path, proc("b").path());
        assert!(rebooted.remembered(Duration::ZERO).gpus.is_empty() && !rebooted.foreign);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let other_version = serde_json::to_string(&State { version: 2, ..state("a") }).unwrap();
        let large = " ".repeat(usize::try_from(MOST_BYTES).unwrap() + 1);
        for text in ["", "{}", "dear diary", &other_version, &large] {
            fs::write(&path, text).unwrap();
            let kept = Kept::open(path.clone(), proc("a").path());
            assert!(kept.foreign && kept.remembered(Duration::ZERO).gpus.is_empty(), "{text:.40}");
        }
    }
}
