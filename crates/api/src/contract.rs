//! Names of the training contract, the same on one box and on Kubernetes. `docs/training-contract.md`
//! says what each means.

use serde::{Deserialize, Serialize};

/// Index of this worker, from 0.
pub const RANK: &str = "RANK";
/// Number of workers of this attempt.
pub const WORLD_SIZE: &str = "WORLD_SIZE";
/// Index of this worker on its node.
pub const LOCAL_RANK: &str = "LOCAL_RANK";
/// Host of rank 0.
pub const MASTER_ADDR: &str = "MASTER_ADDR";
/// Port that rank 0 may listen on.
pub const MASTER_PORT: &str = "MASTER_PORT";
/// Name of the job.
pub const JOB: &str = "TIDEGATE_JOB";
/// Attempt, from 1; it rises with every start.
pub const ATTEMPT: &str = "TIDEGATE_ATTEMPT";
/// Folder for checkpoints, the same in every attempt.
pub const CHECKPOINT_DIR: &str = "TIDEGATE_CHECKPOINT_DIR";
/// Where progress is posted, with a token of this attempt.
pub const PROGRESS_URL: &str = "TIDEGATE_PROGRESS_URL";
/// Devices of this worker, set by whoever injects them.
pub const CUDA_VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";
/// Set to the class of the device when it is simulated; a worker may then keep to its pace.
pub const SIMULATED_DEVICE: &str = "TIDEGATE_SIMULATED_DEVICE";

/// Thousandths of its one device that this process asked for, when it shares it with others.
pub const DEVICE_MILLI: &str = "TIDEGATE_DEVICE_MILLI";
/// Which of the job's own settings to take, when it offers a choice.
pub const CHOICE: &str = "TIDEGATE_CHOICE";
/// Name of this worker's group, when the job has groups.
pub const GROUP: &str = "TIDEGATE_GROUP";
/// Index of this worker in its group, from 0.
pub const GROUP_RANK: &str = "TIDEGATE_GROUP_RANK";
/// Number of workers of its group in this attempt.
pub const GROUP_SIZE: &str = "TIDEGATE_GROUP_SIZE";

/// One line of a progress report.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Named figures, for instance `loss`.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub metrics: std::collections::BTreeMap<String, f64>,
    /// How far it is, from 0 to 1 of all its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<f64>,
    /// Set when a checkpoint is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointDone>,
}

impl Progress {
    /// How far it is in millionths, if it says so.
    pub fn done_ppm(&self) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 10^6")]
        let ppm = |done: f64| (done.clamp(0.0, 1.0) * 1e6).round() as u32;
        self.done.map(ppm)
    }
}

/// The answer to a progress report of a job that offers a choice.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is best for its present size now: it may change over without a restart.
    pub choice: u32,
}

/// A checkpoint that a restart can continue from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CheckpointDone {
    /// The step that it holds.
    pub step: u64,
}
