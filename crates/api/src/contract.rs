//! Names of the training contract, the same on one box and on Kubernetes. `docs/training-contract.md`
//! says what each means.

mod environment;
mod progress;

pub use environment::Attempt;
pub use progress::{CheckpointDone, Progress, Told, parse_progress};

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
