//! A training run: real commands that checkpoint, start, stop and change size.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::workers::{SpeedupPoint, SpreadWish, WorkerGroup, WorkerRange};
use super::{GpuAsk, NodeAffinity};

/// A training run of `workers.min` to `workers.max` processes, each with one or more devices of its node (or a share of one), or
/// of several groups of them. All of them run or none does.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "TrainingJob",
    namespaced,
    cel,
    category = "tidegate",
    status = "TrainingJobStatus"
)]
#[kube(validation = Rule::new("self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')").message("metadata.name is not a DNS label; use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"))]
// What runs is counted by these fields, by a leader too that finds its pods: another ask would be another number of GPUs than they hold, other
// groups other pods than the annotations of these mean, and another folder holds no checkpoint.
#[kube(validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.attempts) || oldSelf.status.attempts == 0 || self.spec.template == oldSelf.spec.template").message("spec.template has changed, and the job has started; change it back, or delete the job and apply it anew"))]
#[kube(validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.attempts) || oldSelf.status.attempts == 0 || (self.spec.gpu == oldSelf.spec.gpu && self.spec.cpuMilli == oldSelf.spec.cpuMilli && self.spec.memoryMib == oldSelf.spec.memoryMib)").message("what spec.gpu, spec.cpuMilli and spec.memoryMib ask for has changed, and the job has started; change it back, or delete the job and apply it anew"))]
#[kube(validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.attempts) || oldSelf.status.attempts == 0 || (has(self.spec.groups) == has(oldSelf.spec.groups) && (!has(self.spec.groups) || (self.spec.groups.map(g, g.name) == oldSelf.spec.groups.map(g, g.name) && self.spec.groups.all(g, oldSelf.spec.groups.exists(was, was.name == g.name && has(was.gpu) == has(g.gpu) && (!has(g.gpu) || was.gpu == g.gpu) && has(was.cpuMilli) == has(g.cpuMilli) && (!has(g.cpuMilli) || was.cpuMilli == g.cpuMilli) && has(was.memoryMib) == has(g.memoryMib) && (!has(g.memoryMib) || was.memoryMib == g.memoryMib))))))").message("spec.groups has other names, or another order or ask of them, and the job has started; change only min, max and where they run, or delete the job and apply it anew"))]
#[kube(validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.attempts) || oldSelf.status.attempts == 0 || !has(oldSelf.spec.checkpoint.directory) || (has(self.spec.checkpoint.directory) && self.spec.checkpoint.directory == oldSelf.spec.checkpoint.directory)").message("spec.checkpoint.directory has changed, where the checkpoints of a job that has started are; change it back, or delete the job and apply it anew"))]
#[kube(printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#)]
#[kube(printcolumn = r#"{"name":"Workers","type":"integer","jsonPath":".status.workers"}"#)]
#[kube(printcolumn = r#"{"name":"GPUs","type":"integer","jsonPath":".status.gpus"}"#)]
#[kube(printcolumn = r#"{"name":"Queue","type":"string","jsonPath":".spec.queue"}"#)]
#[kube(printcolumn = r#"{"name":"Why","type":"string","jsonPath":".status.message"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.workers) || !has(self.groups) || self.groups.size() == 0").message("says how many workers twice, in workers and in groups; keep one of the two"))]
pub struct TrainingJobSpec {
    /// The queue whose quota it uses.
    #[schemars(length(max = 63))]
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
    /// How many workers it can use. Absent, with `groups` empty too: one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkerRange>,
    /// Workers by role, where they are not all alike: each group has its own sizes and asks. Instead of `workers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(g, self.exists_one(other, other.name == g.name))").message("has two groups of one name; rename one"))]
    pub groups: Vec<WorkerGroup>,
    /// What each worker asks of a device, unless its group says otherwise.
    #[serde(default)]
    pub gpu: GpuAsk,
    /// CPU of each worker, in thousandths of a core, unless its group says otherwise. Counted, not enforced.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_024_000))]
    pub cpu_milli: u32,
    /// Main memory of each worker, in MiB, unless its group says otherwise. Counted, not enforced.
    #[serde(default)]
    #[schemars(range(min = 0, max = 67_108_864))]
    pub memory_mib: u32,
    /// On which nodes its workers run, unless their group says otherwise. Absent: on any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<NodeAffinity>,
    /// How close together its workers run, or with `groups` its groups. Absent: close where that costs nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<SpreadWish>,
    /// Speed by workers (of all groups) where it is not in proportion to them: elastic jobs grow where a worker speeds up most.
    /// Between two sizes it is a straight line, after the last it stays. Empty: in proportion. Several points of one size may
    /// each name a `choice`: the fastest counts, and the workers are told its choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.all(p, self.exists(q, q.workers == p.workers && self.all(r, r.workers > p.workers || r.speedMilli <= q.speedMilli)))").message("falls with more workers; leave out sizes that are slower than smaller ones"))]
    #[x_kube(validation = Rule::new("self.all(p, self.exists_one(q, p.workers == q.workers && (!has(p.choice) || !has(q.choice) || p.choice == q.choice)))").message("has two points of one size and choice; keep one"))]
    #[x_kube(validation = Rule::new("self.all(p, has(p.choice)) || self.all(p, !has(p.choice))").message("names a choice in some points and none in others; name one in each, or in none"))]
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

/// The process that each worker is. See `docs/training-contract.md` for its environment.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WorkerTemplate {
    /// Program and arguments. A relative program with a `/` is relative to `workingDir`.
    #[schemars(length(min = 1, max = 1024), inner(length(max = 131_072)))]
    #[x_kube(validation = Rule::new("size(self) >= 1 && self[0] != ''").message("must hold a program to run"))]
    pub command: Vec<String>,
    /// Environment beside the contract's. Names that the contract sets are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.all(e, !e.name.startsWith('TIDEGATE_') && !(e.name in ['RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'CUDA_VISIBLE_DEVICES']))").message("must not set a variable of the training contract; remove it"))]
    pub env: Vec<EnvVar>,
    /// Where the command starts. On one box relative to the manifest; absent: the manifest's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub working_dir: Option<String>,
    /// On Kubernetes: the image that the command runs in. One box runs it as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// On Kubernetes: what else each worker's pod needs, as fields of a `PodSpec`: volumes, a service account, tolerations. The
    /// worker is its first container (or one that is added); command, environment, devices, restart policy and grace are set by
    /// Tidegate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub pod_spec: Option<serde_json::Map<String, serde_json::Value>>,
}

/// An object of Kubernetes, which is checked when it is used.
pub(super) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// One environment variable.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[ -<>-~]+$')").message("cannot be the name of a variable; use letters, digits and _"))]
    pub name: String,
    /// Its value.
    #[serde(default)]
    #[schemars(length(max = 131_072))]
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
    /// On Kubernetes: the folder of the checkpoints in the worker's container, on a volume that outlives pods
    /// (`template.podSpec`). Absent: workers are told of none, and begin anew at each start. One box has a folder of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub directory: Option<String>,
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self { grace_seconds: grace_seconds(), restart_seconds: restart_seconds(), directory: None }
    }
}

/// How it stands, as the operator writes it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TrainingJobStatus {
    /// Where it stands.
    #[serde(default)]
    pub phase: TrainingPhase,
    /// Workers of the attempt that runs.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_600_000))]
    pub workers: u32,
    /// GPUs that they hold.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub gpus: u32,
    /// Starts so far.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub attempts: u32,
    /// Failures in a row.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub failures: u32,
    /// Steps done, of which the last report told.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub step: Option<u64>,
    /// The step of the last complete checkpoint.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub checkpoint_step: Option<u64>,
    /// Why it stands there.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// The generation of the specification that this is about.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: i64,
    /// `Accepted`: it makes sense on this cluster. `Complete`: it has succeeded or failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}

/// Where a training job stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrainingPhase {
    /// It waits for its turn.
    #[default]
    Waiting,
    /// Its workers are being started.
    Starting,
    /// All its workers run.
    Running,
    /// Its workers were told to end.
    Stopping,
    /// All its workers have ended well.
    Succeeded,
    /// It has failed more often than it may.
    Failed,
    /// It cannot run on this cluster as it is written.
    Refused,
}

impl TrainingPhase {
    /// It holds pods, or is about to.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping)
    }

    /// It will not run again.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
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
