//! Who may use how much.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A team's or a purpose's claim on the pool. Every job and every model names one.
///
/// What a queue uses above `nominal` is borrowed: it is lent only while its owners do not need it,
/// and they reclaim it up to their own nominal.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(group = "tidegate.dev", version = "v1alpha1", kind = "Queue", cel, category = "tidegate")]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// Devices that are this queue's own.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub nominal: u32,
    /// Devices that it may use above `nominal` while others do not need them. Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub borrowing_limit: Option<u32>,
}
