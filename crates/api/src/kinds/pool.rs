//! How devices are shared out between inference and training.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::Condition;

/// A pool of devices and the policy by which they flow. One box has one pool.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(group = "tidegate.dev", version = "v1alpha1", kind = "Pool", cel, category = "tidegate", status = "PoolStatus")]
#[kube(validation = Rule::new("self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')").message("metadata.name is not a DNS label; use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"))]
#[kube(printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".status.nodes"}"#)]
#[kube(printcolumn = r#"{"name":"GPUs","type":"integer","jsonPath":".status.gpus"}"#)]
#[kube(printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].status"}"#)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// Capacity kept above the forecast inference demand, in percent of it.
    #[serde(default = "headroom_percent")]
    #[schemars(range(min = 0, max = 400))]
    pub headroom_percent: u32,
    /// Capacity kept above the forecast is at least so many standard deviations of the load, in hundredths: more in proportion
    /// for small models and for those whose requests come in bursts. 0: `headroomPercent` alone counts.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub burst_sigmas_percent: u32,
    /// How long a model must need fewer devices than it has before the surplus is lent.
    #[serde(default = "lend_after_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub lend_after_seconds: u32,
    /// How long a device must be idle before a running job grows onto it.
    #[serde(default = "grow_after_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub grow_after_seconds: u32,
    /// Stops of running work per minute that the engine may order; at the cap it waits, says so and alerts.
    #[serde(default = "max_evictions_per_minute")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_evictions_per_minute: u32,
    /// Label keys of nodes that say where they stand, the widest first, for instance a block's and a rack's. Together with
    /// `node` and `island` these are the levels that `spread` of a job may name. One box is one place at each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 317)))]
    #[x_kube(validation = Rule::new("self.all(l, !(l in ['', 'node', 'island']) && self.exists_one(other, other == l))").message("must hold label keys, each once; node and island are levels without being listed"))]
    pub topology_levels: Vec<String>,
    /// What a queue used counts half after this long. Acts with `historyPercent`.
    #[serde(default = "half_life_seconds")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub half_life_seconds: u32,
    /// How much a queue's past use weighs beside what it uses now when what is left over is shared out, in percent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub history_percent: u32,
    /// Who borrows more than its fair share gives back to who borrows less. Off: only what is somebody's own is taken back.
    #[serde(default)]
    pub fair_reclaim: bool,
    /// Jobs that cannot start for lack of devices hold at most so many reservations; 0: large jobs may starve.
    #[serde(default = "max_reservations")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_reservations: u32,
    /// How careful run times are predicted from those of the past: the quantile, in percent, that is taken for the end of
    /// running work and of what is let in before a reservation.
    #[serde(default = "predict_percent")]
    #[schemars(range(min = 1, max = 99))]
    pub predict_percent: u32,
    /// Running jobs may be moved to other devices, at the price of a restart, when that makes room for one that waits.
    #[serde(default)]
    pub consolidate: bool,
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            headroom_percent: headroom_percent(),
            burst_sigmas_percent: 0,
            lend_after_seconds: lend_after_seconds(),
            grow_after_seconds: grow_after_seconds(),
            max_evictions_per_minute: max_evictions_per_minute(),
            topology_levels: Vec::new(),
            half_life_seconds: half_life_seconds(),
            history_percent: 0,
            fair_reclaim: false,
            max_reservations: max_reservations(),
            predict_percent: predict_percent(),
            consolidate: false,
        }
    }
}

/// How a pool stands, as the operator writes it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Nodes that are there.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub nodes: u32,
    /// GPUs of them that take work.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub gpus: u32,
    /// The generation of the specification that this is about.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: i64,
    /// `Accepted`: it is the policy by which devices flow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}

fn headroom_percent() -> u32 {
    25
}

fn lend_after_seconds() -> u32 {
    10
}

fn grow_after_seconds() -> u32 {
    5
}

fn max_evictions_per_minute() -> u32 {
    30
}

fn half_life_seconds() -> u32 {
    86_400
}

fn max_reservations() -> u32 {
    4
}

fn predict_percent() -> u32 {
    75
}
