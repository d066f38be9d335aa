//! Whether the engine believes what the objects say, compared with a fresh list now and then. What is on its way differs rightly:
//! nodes with pods that have changed since, or that are being started or stopped, are left out.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::Engine;
use tidegate_core::plan::ActionKind;

use super::Index;
use crate::facts::{PodFacts, PodKey};

/// What a fresh list says of a pod: of all pods of a cluster at once, so no more than is compared.
#[derive(Clone, Debug)]
pub struct Listed {
    key: PodKey,
    resource_version: String,
    /// Where it is, or room is made for it.
    node: Option<String>,
    /// GPUs that it holds there.
    devices: u32,
}

impl From<&PodFacts> for Listed {
    fn from(pod: &PodFacts) -> Self {
        Self {
            key: pod.key.clone(),
            resource_version: pod.resource_version.clone(),
            node: place(pod).map(str::to_owned),
            devices: if pod.phase.is_over() { 0 } else { pod.requests.devices().0 },
        }
    }
}

/// Where a pod is, or another scheduler makes room for it.
fn place(pod: &PodFacts) -> Option<&str> {
    pod.node.as_deref().or(pod.nominated.as_deref())
}

impl Index {
    /// Nodes on which the engine counts other GPUs as held than the pods of a fresh list hold, in a sentence each.
    pub fn drift(&self, engine: &Engine, listed: &[Listed]) -> Vec<String> {
        let keys: BTreeSet<&PodKey> = listed.iter().map(|pod| &pod.key).collect();
        let mut unsettled: BTreeSet<&str> = self.nodes.awaited().collect();
        let mut held = BTreeMap::<String, u64>::new();
        for pod in listed {
            let known = self.pods.get(&pod.key).map(|entry| &entry.facts);
            if known.is_none_or(|known| known.resource_version != pod.resource_version) {
                // Where it was when the list was made, and where it is known to be by now.
                unsettled.extend(pod.node.as_deref().into_iter().chain(known.and_then(place)));
            } else if let Some(node) = pod.node.clone() {
                *held.entry(node).or_default() += u64::from(pod.devices);
            }
        }
        let (claimed, unsure) = self.claimed();
        for (node, devices) in claimed {
            *held.entry(node).or_default() += devices;
        }
        unsettled.extend(unsure);
        let gone = self.pods.values().map(|entry| &entry.facts).filter(|known| !keys.contains(&known.key));
        unsettled.extend(gone.filter_map(place));
        let state = engine.state();
        let counted = counted(engine);
        for action in state.actions.values() {
            let seats = match &action.kind {
                ActionKind::StartJob { job, .. } | ActionKind::StopJob { job, .. } => {
                    state.jobs.get(job).and_then(|job| job.run()).map_or(&[][..], |run| &run.seats)
                }
                ActionKind::StartReplica { replica, .. } | ActionKind::StopReplica { replica, .. } => {
                    state.replicas.get(replica).map_or(&[][..], |replica| std::slice::from_ref(&replica.seat))
                }
            };
            unsettled
                .extend(seats.iter().filter_map(|seat| state.nodes.name(seat.node)).map(tidegate_core::names::NodeName::as_str));
        }
        let mut names: BTreeSet<&str> = held.keys().map(String::as_str).collect();
        names.extend(counted.keys().copied());
        let differs = |node: &&str| {
            let (is, should) = (counted.get(node).copied().unwrap_or_default(), held.get(*node).copied().unwrap_or_default());
            (is != should && !unsettled.contains(node)).then(|| format!("node {node}: {should} GPUs are held, and {is} counted"))
        };
        names.iter().filter_map(differs).collect()
    }
}

/// GPUs of each node that running work holds, as the engine has it.
fn counted(engine: &Engine) -> BTreeMap<&str, u64> {
    let state = engine.state();
    let mut counted = BTreeMap::new();
    for job in state.jobs.values() {
        for seat in job.run().map_or(&[][..], |run| &run.seats) {
            let gpus = job.spec.groups.get(usize::from(seat.group)).map_or(0, |group| group.ask.devices());
            if let Some(node) = state.nodes.name(seat.node) {
                *counted.entry(node.as_str()).or_default() += u64::from(gpus);
            }
        }
    }
    for replica in state.replicas.values() {
        if let Some(node) = state.nodes.name(replica.seat.node) {
            *counted.entry(node.as_str()).or_default() += u64::from(replica.ask.devices());
        }
    }
    counted
}
