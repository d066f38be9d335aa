//! How devices are shared out between inference and training.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A pool of devices and the policy by which they flow. One box has one pool.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(group = "tidegate.dev", version = "v1alpha1", kind = "Pool", cel, category = "tidegate")]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// Capacity kept above the forecast inference demand, in percent of it.
    #[serde(default = "headroom_percent")]
    #[schemars(range(min = 0, max = 400))]
    pub headroom_percent: u32,
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
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            headroom_percent: headroom_percent(),
            lend_after_seconds: lend_after_seconds(),
            grow_after_seconds: grow_after_seconds(),
            max_evictions_per_minute: max_evictions_per_minute(),
        }
    }
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
