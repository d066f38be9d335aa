//! How many workers a training run has, in which groups, how close together, and how fast.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GpuAsk, NodeAffinity};

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

/// Workers of one role.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("min must not be above max; lower min or raise max"))]
pub struct WorkerGroup {
    /// The role: its workers find it in `TIDEGATE_GROUP`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("is not a DNS label; use a-z, 0-9 and -, beginning and ending with a letter or digit"))]
    pub name: String,
    /// Never fewer.
    #[schemars(range(min = 1, max = 100_000))]
    pub min: u32,
    /// Never more.
    #[schemars(range(min = 1, max = 100_000))]
    pub max: u32,
    /// What each of its workers asks of a device. Absent: as the job's `gpu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuAsk>,
    /// CPU of each of its workers, in thousandths of a core. Absent: as the job's `cpuMilli`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_024_000))]
    pub cpu_milli: Option<u32>,
    /// Main memory of each of its workers, in MiB. Absent: as the job's `memoryMib`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 67_108_864))]
    pub memory_mib: Option<u32>,
    /// On which nodes its workers run. Absent: as the job's `nodeAffinity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<NodeAffinity>,
    /// How close together its workers run. Absent: close where that costs nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<SpreadWish>,
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
    /// Which of the job's own settings, a batch size for instance, has this speed: a number that the workers find in
    /// `TIDEGATE_CHOICE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub choice: Option<u32>,
}
