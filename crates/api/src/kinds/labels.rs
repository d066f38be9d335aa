//! Choosing by labels in Kubernetes' words, so that what was written for a Pod or a Kueue queue can be copied: queues choose
//! namespaces, work chooses nodes. More than the bounds allow is refused, never cut.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which namespaces: those whose labels satisfy all of it. Empty: every namespace.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.matchExpressions) || self.matchExpressions.all(e, !(e.operator in ['Gt', 'Lt']))").message("compares namespaces by Gt or Lt, which only nodeAffinity knows; write In, NotIn, Exists or DoesNotExist"))]
pub struct NamespaceSelector {
    /// Labels that a namespace must have, each with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.all(key, key.size() <= 317)").message("has a key that no label can have; use at most 317 characters"))]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub match_labels: BTreeMap<String, String>,
    /// More that its labels must satisfy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// Which nodes, by their labels: where it must run, and where it would rather run. Kubernetes' `nodeAffinity`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeAffinity {
    /// It runs on no other nodes. Absent: any node will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
    /// Of nodes that can start it as soon on as fast devices, the one with the largest sum of weights is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub preferred_during_scheduling_ignored_during_execution: Vec<PreferredTerm>,
}

/// Nodes that satisfy one of its terms at least.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// The terms.
    #[schemars(length(min = 1, max = 16))]
    pub node_selector_terms: Vec<NodeTerm>,
}

/// Nodes whose labels satisfy all of its expressions.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeTerm {
    /// The expressions.
    #[schemars(length(min = 1, max = 32))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// A wish for nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PreferredTerm {
    /// How much it counts beside the others.
    #[schemars(range(min = 1, max = 100))]
    pub weight: u32,
    /// The nodes.
    pub preference: NodeTerm,
}

/// What one label must be.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)").message("lists no values; In and NotIn need at least one"))]
#[x_kube(validation = Rule::new("!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || self.values.size() == 0").message("lists values, which Exists and DoesNotExist do not look at; remove them"))]
#[x_kube(validation = Rule::new("!(self.operator in ['Gt', 'Lt']) || (has(self.values) && self.values.size() == 1 && self.values[0].matches('^-?[0-9]{1,18}$'))").message("compares with something else than one number; give Gt and Lt one value, a whole number in quotes"))]
pub struct LabelRequirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label is compared with `values`.
    pub operator: LabelOperator,
    /// At least one for `In` and `NotIn`, one whole number for `Gt` and `Lt`, none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOperator {
    /// It is there, with one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is there and a number above the value. Nodes only.
    Gt,
    /// It is there and a number below the value. Nodes only.
    Lt,
}
