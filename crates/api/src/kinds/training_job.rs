//! A training run: real commands that checkpoint, start, stop and change size.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GpuAsk;

/// A training run of `workers.min` to `workers.max` processes, each with one or more devices of its node (or a share of one).
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
    /// Who runs it. How long runs of an owner and recipe took before tells how long this one may take.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub owner: String,
    /// What kind of run it is; runs that take about as long share one. Absent: the job's name without a number at its end,
    /// so that `night-1` and `night-2` are of one kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub recipe: Option<String>,
    /// How many workers it can use.
    #[serde(default)]
    pub workers: WorkerRange,
    /// What each worker asks of a device.
    #[serde(default)]
    pub gpu: GpuAsk,
    /// CPU of each worker, in thousandths of a core. Counted, not enforced.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_024_000))]
    pub cpu_milli: u32,
    /// Main memory of each worker, in MiB. Counted, not enforced.
    #[serde(default)]
    #[schemars(range(min = 0, max = 67_108_864))]
    pub memory_mib: u32,
    /// How close together its workers run. Absent: close where that costs nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<SpreadWish>,
    /// Speed by workers where it is not in proportion to them: elastic jobs grow where a worker speeds up most. Between two
    /// points it is a straight line, after the last it stays. Empty: in proportion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.all(p, self.all(q, p.workers >= q.workers || p.speedMilli <= q.speedMilli))").message("falls with more workers; leave out sizes that are slower than smaller ones"))]
    #[x_kube(validation = Rule::new("self.all(p, self.exists_one(q, p.workers == q.workers))").message("has two points of one size; keep one"))]
    pub speedup: Vec<SpeedupPoint>,
    /// May be stopped for others; only then may it use what its queue borrows. `false`: it waits until its queue's own quota
    /// has room, and then runs to its end.
    #[serde(default = "preemptible")]
    pub preemptible: bool,
    /// Once started it is not stopped for others before it ran this long.
    #[serde(default)]
    #[schemars(range(min = 0, max = 604_800))]
    pub min_runtime_seconds: u32,
    /// Times that it may be stopped for others in any hour. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_disruptions_per_hour: Option<u32>,
    /// If not all workers run this long after its start, it is stopped and waits again.
    #[serde(default = "gang_timeout_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub gang_timeout_seconds: u32,
    /// Your estimate of its run time with `workers.min` workers; used while too few runs have finished to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub expected_seconds: Option<u32>,
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

/// A wish to be close together.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SpreadWish {
    /// `island` (devices joined by `NVLink`), `node`, or one of the pool's `topologyLevels`.
    #[schemars(length(min = 1, max = 317))]
    pub level: String,
    /// Rather wait than be apart. Without it: as close as there is room.
    #[serde(default)]
    pub required: bool,
}

/// How fast a size is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SpeedupPoint {
    /// The size.
    #[schemars(range(min = 1, max = 100_000))]
    pub workers: u32,
    /// Its speed in thousandths of that of one worker.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub speed_milli: u32,
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

fn preemptible() -> bool {
    true
}

fn gang_timeout_seconds() -> u32 {
    600
}
