//! Node affinity on one box: what it requires must be true of the only node there is.

use tidegate_api::convert;
use tidegate_api::kinds::{ModelSpec, NodeAffinity, TrainingJobSpec};
use tidegate_api::manifest::Problem;
use tidegate_core::node::NodeSpec;

use super::problem;
use crate::manifests::Sourced;

/// The first affinity of a job's workers that selects other nodes.
pub(super) fn of_job(node: &NodeSpec, sourced: &Sourced, spec: &TrainingJobSpec) -> Option<Problem> {
    let groups = spec.groups.iter().enumerate();
    let groups = groups.filter_map(|(index, group)| Some((format!("spec.groups[{index}]"), group.node_affinity.as_ref()?)));
    // What every group overrides binds nobody.
    let job = spec
        .node_affinity
        .as_ref()
        .filter(|_| spec.groups.is_empty() || spec.groups.iter().any(|group| group.node_affinity.is_none()));
    let job = job.map(|affinity| ("spec".to_owned(), affinity));
    job.into_iter().chain(groups).find_map(|(of, affinity)| elsewhere(node, sourced, &of, affinity))
}

/// The same of a model's replicas.
pub(super) fn of_model(node: &NodeSpec, sourced: &Sourced, spec: &ModelSpec) -> Option<Problem> {
    elsewhere(node, sourced, "spec", spec.node_affinity.as_ref()?)
}

fn elsewhere(node: &NodeSpec, sourced: &Sourced, of: &str, affinity: &NodeAffinity) -> Option<Problem> {
    if convert::affinity(affinity).allows(&node.labels) {
        return None;
    }
    let required = &affinity.required_during_scheduling_ignored_during_execution;
    let value = serde_json::to_string(required).unwrap_or_default();
    let has: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    let field = format!("{of}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    let remedy = format!("ask for labels that it has ({}), or remove it", has.join(", "));
    Some(problem(sourced, &field, &value, "does not select this box", &remedy))
}
