//! The facts about one node's GPUs, as its agent writes them.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One node's GPUs. The node agent makes one for its node and writes its status; nobody wishes anything of it yet.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(group = "tidegate.dev", version = "v1alpha1", kind = "GpuNode", cel, category = "tidegate", status = "GpuNodeStatus")]
#[kube(printcolumn = r#"{"name":"GPUs","type":"integer","jsonPath":".status.gpuCount"}"#)]
#[kube(printcolumn = r#"{"name":"Health","type":"string","jsonPath":".status.health"}"#)]
#[kube(printcolumn = r#"{"name":"Observed","type":"date","jsonPath":".status.observedAt"}"#)]
#[serde(rename_all = "camelCase")]
pub struct GpuNodeSpec {}

/// What the agent saw.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GpuNodeStatus {
    /// When, in RFC 3339.
    #[schemars(length(max = 40))]
    pub observed_at: String,
    /// Version of the kernel driver. Absent while NVML is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub driver: Option<String>,
    /// Why no GPU can be seen, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub closed: Option<String>,
    /// How many GPUs are listed.
    #[schemars(range(min = 0, max = 64))]
    pub gpu_count: u32,
    /// The worst health of all GPUs.
    pub health: GpuHealth,
    /// The GPUs by index.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub gpus: Vec<GpuStatus>,
}

/// One GPU.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GpuStatus {
    /// Its lasting name.
    #[schemars(length(min = 1, max = 96))]
    pub uuid: String,
    /// NVML's index.
    #[schemars(range(min = 0, max = 255))]
    pub index: u32,
    /// The class that workloads ask for, for instance `H100-80GB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub class: Option<String>,
    /// PCI address as sysfs writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub pci_bus_id: Option<String>,
    /// NUMA node of the host memory next to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4096))]
    pub numa_node: Option<u32>,
    /// Memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_194_304))]
    pub memory_mib: Option<u32>,
    /// Its health.
    pub health: GpuHealth,
    /// What is wrong, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub findings: Vec<GpuFinding>,
    /// Its MIG instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub mig: Vec<MigStatus>,
}

/// One thing that is wrong.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GpuFinding {
    /// One of the causes of `docs/node-agent.md`, for instance `remap_pending`.
    #[schemars(length(min = 1, max = 63))]
    pub cause: String,
    /// What was seen.
    #[schemars(length(max = 256))]
    pub evidence: String,
    /// Since when, in RFC 3339.
    #[schemars(length(max = 40))]
    pub since: String,
}

/// One MIG instance.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MigStatus {
    /// Its lasting name.
    #[schemars(length(min = 1, max = 96))]
    pub uuid: String,
    /// For instance `1g.10gb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub profile: Option<String>,
}

/// How a GPU is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuHealth {
    /// Nothing is wrong.
    #[default]
    Healthy,
    /// It works; something needs attention.
    Degraded,
    /// No work should start on it.
    Sick,
    /// It does not answer.
    Lost,
}
