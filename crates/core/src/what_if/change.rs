//! A change as events, and what is wrong with it.

use std::sync::Arc;

use thiserror::Error;

use crate::engine::Engine;
use crate::event::Event;
use crate::explain::{self, words};
use crate::labels;
use crate::names::{Namespace, NodeName};
use crate::node::{Device, MAX_DEVICES, Node};
use crate::policy::Policy;
use crate::state::JobSpec;
use crate::time::At;

use super::{Amount, Change};

/// Nodes of one change at most: more than the largest clusters that are simulated, so that a slip of the keyboard is caught.
const MOST_NODES: u32 = 4_096;

/// A change that makes no sense. `index` counts from 0.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WhatIfError {
    /// A name that nothing has.
    #[error("change {index}: `{field}` names {kind} `{name}`, which does not exist; there are: {known}")]
    Unknown { index: usize, field: &'static str, kind: &'static str, name: String, known: String },
    /// A number out of range.
    #[error("change {index}: `{field}` is {found}; give a number from {least} to {most}")]
    Range { index: usize, field: &'static str, found: i64, least: i64, most: i64 },
    /// A job that would be submitted twice.
    #[error("change {index}: `name` is `{name}`, and such a job exists; choose another name, or remove that job first")]
    JobExists { index: usize, name: String },
    /// A node without devices has nothing to drain.
    #[error("change {index}: `node` is `{node}`, which has no devices to drain; use `remove_node`")]
    NothingToDrain { index: usize, node: String },
    #[error("change {index}: `field` is `{field}`, which the policy does not have; it has: {known}")]
    NoPolicyField { index: usize, field: String, known: String },
    #[error("change {index}: `value` of `{field}` is {found}, which it cannot be ({why}); now it is {now}")]
    PolicyValue { index: usize, field: String, found: String, why: String, now: String },
    #[error("the horizon is 0 ms; give at least 1, for instance 86400000 for a day")]
    NoHorizon,
}

impl WhatIfError {
    /// Bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown",
            Self::Range { .. } => "range",
            Self::JobExists { .. } => "job_exists",
            Self::NothingToDrain { .. } => "nothing_to_drain",
            Self::NoPolicyField { .. } => "no_policy_field",
            Self::PolicyValue { .. } => "policy_value",
            Self::NoHorizon => "no_horizon",
        }
    }
}

/// Tells a copy of the engine one change.
pub(super) fn apply(engine: &mut Engine, now: At, index: usize, change: &Change) -> Result<(), WhatIfError> {
    for event in (Facts { engine, index }).events(change)? {
        engine.apply(now, event);
    }
    Ok(())
}

/// The engine as the earlier changes have made it.
struct Facts<'a> {
    engine: &'a Engine,
    index: usize,
}

impl Facts<'_> {
    fn events(&self, change: &Change) -> Result<Vec<Event>, WhatIfError> {
        let state = self.engine.state();
        match change {
            Change::Quota { queue, resource, nominal } => {
                let known = state.queues.get(queue);
                let mut changed = known.cloned().ok_or_else(|| self.unknown("queue", "queue", &queue.0, state.queues.keys()))?;
                let quota = changed.quotas.entry(resource.clone()).or_default();
                quota.nominal = match nominal {
                    Amount::By(by) => quota.nominal.saturating_add(*by),
                    Amount::To(to) => *to,
                };
                self.range("nominal", quota.nominal, 0, i64::MAX / 1_000_000)?;
                Ok(vec![Event::QueueSet { name: queue.clone(), queue: changed }])
            }
            Change::AddNodes { like, count } => self.add(self.node("like", like)?, *count),
            Change::NewNodes { class, gpus, memory_mib, count } => {
                self.range("gpus", i64::from(*gpus), 1, i64::try_from(MAX_DEVICES).unwrap_or(i64::MAX))?;
                self.range("memory_mib", i64::try_from(*memory_mib).unwrap_or(i64::MAX), 1, i64::from(u32::MAX))?;
                let device = |gpu: u32| Device::new(format!("{gpu}"), "", class.as_str(), *memory_mib);
                let node = Node { spec: Arc::default(), devices: (0..*gpus).map(device).collect(), gone: false };
                self.add(&node, *count)
            }
            Change::RemoveNode { node } => self.node("node", node).map(|_| vec![Event::NodeLost(node.clone())]),
            Change::DrainNode { node } => {
                let devices = &self.node("node", node)?.devices;
                if devices.is_empty() {
                    return Err(WhatIfError::NothingToDrain { index: self.index, node: node.to_string() });
                }
                Ok(devices.iter().map(|device| Event::DeviceDrained { id: device.id.clone(), drained: true }).collect())
            }
            Change::SubmitJob { name, spec } => {
                if state.jobs.contains_key(name) {
                    return Err(WhatIfError::JobExists { index: self.index, name: name.to_string() });
                }
                self.check(spec)?;
                let job = Event::JobSet { name: name.clone(), spec: JobSpec::clone(spec).into() };
                Ok(self.new_namespace(&spec.namespace).into_iter().chain([job]).collect())
            }
            Change::RemoveJob { name } => {
                let known = state.jobs.contains_key(name).then(|| vec![Event::JobRemoved(name.clone())]);
                known.ok_or_else(|| self.unknown("name", "job", &name.0, state.jobs.keys()))
            }
            Change::Priority { job, priority } => {
                let known = state.jobs.get(job).ok_or_else(|| self.unknown("job", "job", &job.0, state.jobs.keys()))?;
                let spec = JobSpec { priority: *priority, ..JobSpec::clone(&known.spec) };
                Ok(vec![Event::JobSet { name: job.clone(), spec: spec.into() }])
            }
            Change::Policy { field, value } => Ok(vec![Event::PolicySet(self.policy(field, value)?)]),
        }
    }

    fn unknown<'k, K: std::fmt::Display + 'k>(
        &self,
        field: &'static str,
        kind: &'static str,
        name: &str,
        known: impl Iterator<Item = &'k K>,
    ) -> WhatIfError {
        let known: Vec<String> = known.map(ToString::to_string).collect();
        let known = if known.is_empty() { "none".to_owned() } else { words::list(&known) };
        WhatIfError::Unknown { index: self.index, field, kind, name: name.to_owned(), known }
    }

    fn range(&self, field: &'static str, found: i64, least: i64, most: i64) -> Result<(), WhatIfError> {
        if (least..=most).contains(&found) {
            return Ok(());
        }
        Err(WhatIfError::Range { index: self.index, field, found, least, most })
    }

    fn node(&self, field: &'static str, name: &NodeName) -> Result<&Node, WhatIfError> {
        let nodes = &self.engine.state().nodes;
        nodes.get(name).filter(|node| !node.gone).ok_or_else(|| self.unknown(field, "node", &name.0, nodes.keys()))
    }

    fn add(&self, node: &Node, count: u32) -> Result<Vec<Event>, WhatIfError> {
        self.range("count", i64::from(count), 1, i64::from(MOST_NODES))?;
        let name = |number: u32| format!("what-if-{}-{number}", self.index);
        Ok((0..count).flat_map(|number| explain::copy_of(node, &name(number))).collect())
    }

    /// A namespace that is not known yet would be made, with the label that every one has, before work is submitted there.
    fn new_namespace(&self, name: &Namespace) -> Option<Event> {
        let known = name.0.is_empty() || self.engine.state().namespaces.contains_key(name);
        (!known).then(|| Event::NamespaceSeen { name: name.clone(), labels: labels::of_namespace(name) })
    }

    fn check(&self, spec: &JobSpec) -> Result<(), WhatIfError> {
        let queues = &self.engine.state().queues;
        if !queues.contains_key(&spec.queue) {
            return Err(self.unknown("spec.queue", "queue", &spec.queue.0, queues.keys()));
        }
        self.range("spec.groups", i64::try_from(spec.groups.len()).unwrap_or(i64::MAX), 1, i64::from(u16::MAX))?;
        for group in &spec.groups {
            self.range("spec.groups.min", i64::from(group.min), 1, i64::from(u32::MAX))?;
            self.range("spec.groups.max", i64::from(group.max), i64::from(group.min), i64::from(u32::MAX))?;
        }
        Ok(())
    }

    /// The policy with one field set. By its serialised form, so that a field that is added later can be asked about too.
    fn policy(&self, field: &str, value: &serde_json::Value) -> Result<Policy, WhatIfError> {
        let (index, field) = (self.index, field.to_owned());
        let refused = |now: String, why: String| WhatIfError::PolicyValue {
            index,
            field: field.clone(),
            found: value.to_string(),
            why,
            now,
        };
        let whole = serde_json::to_value(&self.engine.state().policy)
            .map_err(|error| refused("unknown".to_owned(), error.to_string()))?;
        let serde_json::Value::Object(mut fields) = whole else {
            return Err(refused("unknown".to_owned(), "not an object".to_owned()));
        };
        let Some(known) = fields.get_mut(&field) else {
            let known: Vec<String> = fields.keys().cloned().collect();
            return Err(WhatIfError::NoPolicyField { index, field, known: known.join(", ") });
        };
        let now = std::mem::replace(known, value.clone()).to_string();
        serde_json::from_value(serde_json::Value::Object(fields)).map_err(|error| refused(now, error.to_string()))
    }
}

/// The change in few words.
pub(super) fn told(change: &Change) -> String {
    match change {
        Change::Quota { queue, resource, nominal } => {
            let signed = |by: i64| if by < 0 { words::number(resource, by) } else { format!("+{}", words::number(resource, by)) };
            let to = match nominal {
                Amount::By(by) => signed(*by),
                Amount::To(to) => words::number(resource, *to),
            };
            format!("quota of {queue}: {to} {}", words::unit(resource))
        }
        Change::AddNodes { like, count } => format!("{count} more node(s) like {like}"),
        Change::NewNodes { class, gpus, count, .. } => format!("{count} more node(s) of {gpus} {class}"),
        Change::RemoveNode { node } => format!("without node {node}"),
        Change::DrainNode { node } => format!("node {node} drained"),
        Change::SubmitJob { name, spec } => format!("job/{name} submitted to {}", spec.queue),
        Change::RemoveJob { name } => format!("without job/{name}"),
        Change::Priority { job, priority } => format!("job/{job} with priority {priority}"),
        Change::Policy { field, value } => format!("policy {field} {value}"),
    }
}
