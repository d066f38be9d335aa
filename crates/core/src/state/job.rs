//! A training job and its attempts.

use serde::{Deserialize, Serialize};

use super::Ask;
use crate::names::{DeviceId, QueueName};
use crate::plan::{ActionId, Reason};
use crate::time::At;

/// What a user asked for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    pub queue: QueueName,
    pub priority: i32,
    /// Workers: never fewer while it runs, never more.
    pub min: u32,
    pub max: u32,
    pub ask: Ask,
    /// What a restart costs each worker beside the work since the checkpoint.
    pub restart_ms: u64,
    /// Failures in a row after which it is failed.
    pub backoff_limit: u32,
}

/// A job.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub spec: JobSpec,
    pub submitted: At,
    pub phase: Phase,
    /// The number of the last attempt; 0 before the first.
    pub attempts: u32,
    /// Failures since the last new checkpoint.
    pub failures: u32,
    pub progress: Progress,
    /// A person's wishes.
    pub paused: bool,
    pub cancelled: bool,
    pub removed: bool,
}

/// How far it got.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub step: u64,
    pub checkpoint_step: u64,
    pub checkpoint_at: Option<At>,
}

/// Where it stands.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Holds nothing, except `keep` for the moment between two attempts.
    Waiting {
        since: At,
        not_before: Option<At>,
        keep: Vec<DeviceId>,
    },
    Running(Run),
    Finished(End),
}

/// One attempt.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub attempt: u32,
    /// Worker i runs on `devices[i]`.
    pub devices: Vec<DeviceId>,
    pub since: At,
    /// Set when its workers were seen running; until then it is assumed.
    pub observed: bool,
    pub stop: Option<Stop>,
}

/// An attempt that was told to end.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub action: ActionId,
    pub since: At,
    /// What the next attempt starts on.
    pub keep: Vec<DeviceId>,
    pub reason: Reason,
}

/// How it ended for good.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Succeeded { at: At },
    Failed { at: At },
    Cancelled { at: At },
}

impl Job {
    /// A job that was just submitted.
    pub fn new(spec: JobSpec, at: At) -> Self {
        Self {
            spec,
            submitted: at,
            phase: Phase::Waiting { since: at, not_before: None, keep: Vec::new() },
            attempts: 0,
            failures: 0,
            progress: Progress::default(),
            paused: false,
            cancelled: false,
            removed: false,
        }
    }

    /// The running attempt.
    pub fn run(&self) -> Option<&Run> {
        match &self.phase {
            Phase::Running(run) => Some(run),
            Phase::Waiting { .. } | Phase::Finished(_) => None,
        }
    }

    /// Whether a person wants it not to run.
    pub fn is_unwanted(&self) -> bool {
        self.paused || self.cancelled || self.removed
    }

    /// Device-milliseconds that stopping it now loses: work since the checkpoint (or the start), and the restart.
    pub fn lost_work_ms(&self, now: At) -> u64 {
        let Some(run) = self.run() else { return 0 };
        let since = self.progress.checkpoint_at.map_or(run.since, |at| at.max(run.since));
        (now.since(since) + self.spec.restart_ms) * run.devices.len() as u64
    }
}

impl Run {
    /// What it holds once a stop in progress is over; all of it when there is none.
    pub fn kept(&self) -> &[DeviceId] {
        self.stop.as_ref().map_or(&self.devices, |stop| &stop.keep)
    }
}
