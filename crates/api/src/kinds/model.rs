//! A model that answers requests inside its SLO.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::training_job::any_object;
use super::{Condition, GpuAsk, NodeAffinity};
use crate::model_info::ModelInfo;

/// A model served by as many replicas as its traffic needs.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "Model",
    namespaced,
    cel,
    category = "tidegate",
    status = "ModelStatus"
)]
#[kube(validation = Rule::new("self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')").message("metadata.name is not a DNS label; use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"))]
#[kube(printcolumn = r#"{"name":"Ready","type":"integer","jsonPath":".status.ready"}"#)]
#[kube(printcolumn = r#"{"name":"Wanted","type":"integer","jsonPath":".status.wanted"}"#)]
#[kube(printcolumn = r#"{"name":"GPUs","type":"integer","jsonPath":".status.gpus"}"#)]
#[kube(printcolumn = r#"{"name":"Queue","type":"string","jsonPath":".spec.queue"}"#)]
#[kube(printcolumn = r#"{"name":"Why","type":"string","jsonPath":".status.message"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.maxSharers == 1 || !(has(self.gpu.memoryMib) || has(self.gpu.milli) || has(self.gpu.mig))").message("shares a whole device by maxSharers, but gpu asks for a part of one; keep one of the two"))]
#[x_kube(validation = Rule::new("!has(self.memory) || self.maxSharers > 1").message("gives memory, which counts only for a model that shares its device; set maxSharers above 1, or remove memory"))]
pub struct ModelSpec {
    /// The queue whose quota its replicas use.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self != ''").message("must name a Queue"))]
    pub queue: String,
    /// Higher goes first among models, and may take devices from lower of the same queue.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// What it is loaded from.
    pub source: Source,
    /// Set for a text encoder: it then answers `/v1/embeddings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Embedding>,
    /// What each replica asks of a device: one device whole, or a share of one.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!has(self.count) || self.count == 1").message("count is not 1, and a replica uses one device; remove count, or ask for a share"))]
    pub gpu: GpuAsk,
    /// On which nodes its replicas run. Absent: on any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<NodeAffinity>,
    /// Models that may take turns on one device, this one included. While its traffic fits a slice so small, its one replica has a
    /// device together with others; else it has devices of its own. 1: it never shares.
    #[serde(default = "max_sharers")]
    #[schemars(range(min = 1, max = 64))]
    pub max_sharers: u32,
    /// What a replica that shares takes of its device's memory. Absent: as large a part as of its compute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ModelMemory>,
    /// The promise: a request is answered within this time, or refused at once.
    #[schemars(range(min = 1, max = 600_000))]
    pub slo_milliseconds: u32,
    /// How long a request may be held while the model has no ready replica. Absent: the SLO.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600_000))]
    pub cold_start_budget_milliseconds: Option<u32>,
    /// Smallest and largest replica count.
    #[serde(default)]
    pub replicas: ReplicaRange,
    /// With `replicas.min: 0`: seconds without a request after which the last replica is stopped.
    #[serde(default = "scale_to_zero_after_seconds")]
    #[schemars(range(min = 1, max = 604_800))]
    pub scale_to_zero_after_seconds: u32,
    /// How requests are packed.
    #[serde(default)]
    pub batching: Batching,
    /// The speed that a simulated device declares for this model; real devices take the time they take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simulated_pace: Option<Pace>,
    /// On Kubernetes: what else each replica's pod needs, as fields of a `PodSpec`: the volume that holds the model, an image with the
    /// model in it, tolerations. The replica is its first container (or one that is added); command, devices, probes, restart policy and
    /// grace are set by Tidegate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub pod_spec: Option<serde_json::Map<String, serde_json::Value>>,
}

/// How a model stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// Replicas that answer.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub ready: u32,
    /// Replicas that are being started.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub starting: u32,
    /// Replicas that its traffic asks for now, within its limits.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub wanted: u32,
    /// GPUs that its replicas hold.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub gpus: u32,
    /// Why it has not what it wants, or cannot be served.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// What the model file says of itself, as a replica has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<ModelInfo>,
    /// The generation of the specification that this is about.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: i64,
    /// `Accepted`: it can be served as it is written. `Ready`: some replica answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}

/// Device memory of one replica: `weightsMib` and, for each of `batching.maxRows` rows, `perRowKib`. Counted, not enforced.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ModelMemory {
    /// What stays loaded, in MiB.
    #[schemars(range(min = 1, max = 4_194_304))]
    pub weights_mib: u32,
    /// What each row of a batch takes beside it, in KiB.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_073_741_824))]
    pub per_row_kib: u32,
}

/// Where a model comes from.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Path of an ONNX file: on one box relative to the manifest, on Kubernetes in the replica's container.
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new("self != ''").message("must be the path of an ONNX file"))]
    pub onnx: String,
}

/// How text becomes the model's inputs.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Embedding {
    /// Path of a `tokenizer.json`: on one box relative to the manifest, on Kubernetes in the router's container.
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new("self != ''").message("must be the path of a tokenizer.json"))]
    pub tokenizer: String,
    /// Longer texts are cut to this many tokens.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1, max = 131_072))]
    pub max_tokens: u32,
}

/// Smallest and largest replica count. `min: 0` lets the model sleep.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("min must not be above max; lower replicas.min or raise replicas.max"))]
pub struct ReplicaRange {
    /// Never fewer.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub min: u32,
    /// Never more.
    #[serde(default = "max_replicas")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max: u32,
}

impl Default for ReplicaRange {
    fn default() -> Self {
        Self { min: 0, max: max_replicas() }
    }
}

/// Limits of a batch and of the queue before it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Batching {
    /// Rows (items along the batch dimension) in one batch.
    #[serde(default = "max_rows")]
    #[schemars(range(min = 1, max = 65_536))]
    pub max_rows: u32,
    /// Rows times the longest row after padding. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_tokens: Option<u32>,
    /// Requests that may wait; one more is refused at once.
    #[serde(default = "max_queued_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queued_requests: u32,
    /// Memory of the tensors that may wait, in MiB.
    #[serde(default = "max_queued_mib")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_queued_mib: u32,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            max_rows: max_rows(),
            max_tokens: None,
            max_queued_requests: max_queued_requests(),
            max_queued_mib: max_queued_mib(),
        }
    }
}

/// Service time of a batch on a simulated device: `perBatch + perRow * rows`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pace {
    /// Microseconds for any batch.
    #[schemars(range(min = 0, max = 60_000_000))]
    pub per_batch_micros: u32,
    /// Microseconds for each row of it.
    #[schemars(range(min = 0, max = 60_000_000))]
    pub per_row_micros: u32,
}

fn scale_to_zero_after_seconds() -> u32 {
    60
}

fn max_tokens() -> u32 {
    256
}

fn max_replicas() -> u32 {
    8
}

fn max_sharers() -> u32 {
    1
}

fn max_rows() -> u32 {
    32
}

fn max_queued_requests() -> u32 {
    1024
}

fn max_queued_mib() -> u32 {
    256
}
