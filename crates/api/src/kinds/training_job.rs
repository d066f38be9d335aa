//! A training run: real commands that checkpoint, start, stop and change size.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GpuAsk;

/// A training run of `workers.min` to `workers.max` processes, each with one device (or a share of one).
/// All of them run or none does.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(group = "tidegate.dev", version = "v1alpha1", kind = "TrainingJob", namespaced, cel, category = "tidegate")]
#[serde(rename_all = "camelCase")]
pub struct TrainingJobSpec {
    /// The queue whose quota it uses.
    #[x_kube(validation = Rule::new("self != ''").message("must name a Queue"))]
    pub queue: String,
    /// Higher goes first, and may take devices from lower of the same queue.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// How many workers it can use.
    #[serde(default)]
    pub workers: WorkerRange,
    /// What each worker asks of a device.
    #[serde(default)]
    pub gpu: GpuAsk,
    /// The command of every worker.
    pub template: WorkerTemplate,
    /// What it promises about checkpoints.
    #[serde(default)]
    pub checkpoint: CheckpointSpec,
    /// Failures in a row (without a new checkpoint between them) after which the job is failed.
    #[serde(default = "backoff_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: u32,
}

/// Smallest and largest worker count. Equal: the job is not elastic.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("min must not be above max; lower workers.min or raise workers.max"))]
pub struct WorkerRange {
    /// Never fewer.
    #[schemars(range(min = 1, max = 100_000))]
    pub min: u32,
    /// Never more.
    #[schemars(range(min = 1, max = 100_000))]
    pub max: u32,
}

impl Default for WorkerRange {
    fn default() -> Self {
        Self { min: 1, max: 1 }
    }
}

/// The process that each worker is. See `docs/training-contract.md` for its environment.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WorkerTemplate {
    /// Program and arguments. A relative program with a `/` is relative to `workingDir`.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("size(self) >= 1 && self[0] != ''").message("must hold a program to run"))]
    pub command: Vec<String>,
    /// Environment beside the contract's. Names that the contract sets are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.all(e, !e.name.startsWith('TIDEGATE_') && !(e.name in ['RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'CUDA_VISIBLE_DEVICES']))").message("must not set a variable of the training contract; remove it"))]
    pub env: Vec<EnvVar>,
    /// Where the command starts. On one box relative to the manifest; absent: the manifest's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
}

/// One environment variable.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// What a job promises about its checkpoints.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointSpec {
    /// Seconds from SIGTERM in which a worker writes a checkpoint and ends; then SIGKILL.
    #[serde(default = "grace_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub grace_seconds: u32,
    /// What a restart costs beside the work since the last checkpoint, in seconds of each worker. Weighs in the choice of victims.
    #[serde(default = "restart_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub restart_seconds: u32,
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self { grace_seconds: grace_seconds(), restart_seconds: restart_seconds() }
    }
}

fn backoff_limit() -> u32 {
    6
}

fn grace_seconds() -> u32 {
    10
}

fn restart_seconds() -> u32 {
    5
}
