//! The fields of Kueue's kinds that are looked at. Those that are only told of are kept as they came.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde_json::Value;

use crate::kinds::NamespaceSelector;

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterQueue {
    pub resource_groups: Vec<ResourceGroup>,
    /// `cohort` in v1beta1.
    #[serde(alias = "cohort")]
    pub cohort_name: Option<String>,
    pub queueing_strategy: QueueingStrategy,
    pub namespace_selector: Option<NamespaceSelector>,
    pub fair_sharing: FairSharing,
    pub flavor_fungibility: Option<Value>,
    pub preemption: Option<Value>,
    pub admission_checks: Option<Value>,
    pub admission_checks_strategy: Option<Value>,
    pub stop_policy: StopPolicy,
    pub admission_scope: Option<Value>,
    pub concurrent_admission_policy: Option<Value>,
    pub exclude_resource_prefixes: Option<Value>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Cohort {
    /// `parent` in v1beta1.
    #[serde(alias = "parent")]
    pub parent_name: Option<String>,
    pub resource_groups: Vec<ResourceGroup>,
    pub fair_sharing: FairSharing,
}

#[derive(Deserialize, Clone, Debug)]
pub struct ResourceGroup {
    pub flavors: Vec<FlavorQuotas>,
}

#[derive(Deserialize, Clone, Debug)]
pub struct FlavorQuotas {
    pub name: String,
    pub resources: Vec<ResourceQuota>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct ResourceQuota {
    pub name: String,
    pub nominal_quota: Quantity,
    pub borrowing_limit: Option<Quantity>,
    pub lending_limit: Option<Quantity>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct FairSharing {
    pub weight: Option<Quantity>,
}

#[derive(Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueingStrategy {
    #[serde(rename = "StrictFIFO")]
    Strict,
    #[default]
    #[serde(rename = "BestEffortFIFO")]
    BestEffort,
}

#[derive(Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopPolicy {
    #[default]
    None,
    Hold,
    HoldAndDrain,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalQueue {
    pub cluster_queue: Option<String>,
    pub stop_policy: StopPolicy,
    pub fair_sharing: Option<Value>,
    pub wall_time_policy: Option<Value>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceFlavor {
    pub node_labels: BTreeMap<String, String>,
    pub node_taints: Option<Value>,
    pub tolerations: Option<Value>,
    pub topology_name: Option<Value>,
    pub resource_weights: Option<Value>,
}
