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

/// A checkpoint that a restart can continue from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CheckpointDone {
    /// The step that it holds.
    pub step: u64,
}
