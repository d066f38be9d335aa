//! Who may use how much.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NamespaceSelector;
use super::condition::Condition;

/// A team's or a purpose's claim on the pool. Every job and every model names one.
///
/// What a queue uses above its nominal is borrowed: it is lent only while its owners do not need it,
/// and they reclaim it up to their own nominal. Queues form a tree by `parent`: what a queue does not use is lent to
/// its siblings first, then through its parent to the rest of the pool.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(group = "tidegate.dev", version = "v1alpha1", kind = "Queue", cel, category = "tidegate", status = "QueueStatus")]
#[kube(validation = Rule::new("self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')").message("metadata.name is not a DNS label; use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"))]
#[kube(validation = Rule::new("!has(self.spec.parent) || self.spec.parent != self.metadata.name").message("spec.parent names the queue itself; name another Queue, or leave it out"))]
#[kube(printcolumn = r#"{"name":"Parent","type":"string","jsonPath":".spec.parent"}"#)]
#[kube(printcolumn = r#"{"name":"GPUs used","type":"string","jsonPath":".status.gpusUsed"}"#)]
#[kube(printcolumn = r#"{"name":"GPUs owned","type":"string","jsonPath":".status.gpusOwned"}"#)]
#[kube(printcolumn = r#"{"name":"Running","type":"integer","jsonPath":".status.running"}"#)]
#[kube(printcolumn = r#"{"name":"Waiting","type":"integer","jsonPath":".status.waiting"}"#)]
#[kube(printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].status"}"#)]
#[kube(printcolumn = r#"{"name":"Why","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].message"}"#)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.nominal) || has(self.borrowingLimit)) || !has(self.quotas) || self.quotas.all(q, q.resource != 'gpu')").message("gives the quota of gpu twice, by nominal or borrowingLimit and in quotas; keep one of the two"))]
pub struct QueueSpec {
    /// The queue above it. Absent: right below the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self != ''").message("must name a Queue; or leave it out"))]
    pub parent: Option<String>,
    /// Devices of any class that are this queue's own: short for `quotas: [{resource: gpu, nominal: N}]`. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub nominal: Option<u32>,
    /// Devices that it may use above `nominal` while others do not need them. Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub borrowing_limit: Option<u32>,
    /// Quotas by resource. Of a resource that is not listed the queue owns nothing and may borrow all; but if it has quotas of
    /// `gpu/CLASS` and none of `gpu`, it owns as many `gpu` as of these together, since a device counts as both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(q, self.exists_one(other, other.resource == q.resource))").message("has two quotas of one resource; keep one"))]
    pub quotas: Vec<ResourceQuota>,
    /// Its share of what is left over, against those of its siblings.
    #[serde(default = "weight")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
    /// Among its siblings, of what is beyond their quotas: the higher goes first and gives back last.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// Namespaces whose work it and those below take. Absent, unlike in Kueue: every namespace's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<NamespaceSelector>,
    /// In which order jobs of equal priority are let in.
    #[serde(default)]
    pub discipline: Discipline,
    /// GPU-hours that work of it and of those below may use before it waits for others and takes from nobody. What was used
    /// counts half after a day. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub budget_gpu_hours: Option<u64>,
}

/// What a queue brings in, may borrow and may lend of one resource: in devices for `gpu` and `gpu/CLASS`, in cores for
/// `cpu`, in MiB for `memory`.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ResourceQuota {
    /// `gpu` (devices of any class), `gpu/CLASS` (of one class, for instance `gpu/H100-80GB`), `cpu` or `memory`.
    #[schemars(length(min = 3, max = 67))]
    #[x_kube(validation = Rule::new("self in ['gpu', 'cpu', 'memory'] || self.matches('^gpu/[A-Za-z0-9][A-Za-z0-9.-]*$')").message("is not a resource; write gpu, gpu/CLASS, cpu or memory"))]
    pub resource: String,
    /// What is the queue's own.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    pub nominal: u64,
    /// How much it and those below may use above what they own together. Absent: as much as there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    pub borrowing_limit: Option<u64>,
    /// How much of what it and those below own is lent when they do not need it. Absent: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    pub lending_limit: Option<u64>,
}

/// In which order a queue's jobs of equal priority are let in.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discipline {
    /// The oldest, or nobody.
    StrictFifo,
    /// The oldest that can start; the first that cannot is given a reservation.
    #[default]
    BestEffort,
    /// Those first that are expected to be done soonest, and running ones yield to them.
    Responsive,
}

/// How a queue stands, as the operator writes it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// GPUs that work of it and of those below uses, for instance `3` or `2.5`; of those below what they own and never lend is
    /// left out.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub gpus_used: String,
    /// GPUs that it and those below own together.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub gpus_owned: String,
    /// Jobs and gangs of this very queue that run.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub running: u32,
    /// Those that wait.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub waiting: u32,
    /// The generation of the specification that this is about.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: i64,
    /// `Accepted`: work may use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}

fn weight() -> u32 {
    1
}
