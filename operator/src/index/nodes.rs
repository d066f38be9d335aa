//! Nodes: what they have, less what others' pods use of it.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::names::{Class, DeviceId, NodeName};
use tidegate_core::node::{Device, NodeSpec};
use tidegate_core::{Engine, Event};

use crate::facts::{NodeFacts, PodFacts, PodKey};

/// One node.
#[derive(Clone, Debug, Default)]
struct Node {
    facts: Option<NodeFacts>,
    /// CPU and memory of pods that others placed.
    foreign: (u64, u64),
    /// Pods that hold something there.
    pods: u64,
    /// What the engine was told.
    told: Option<NodeSpec>,
    /// Slots for GPUs that were ever told, and those of them that are lost.
    slots: u32,
    lost: BTreeSet<u32>,
    class: (String, u64),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    all: BTreeMap<String, Node>,
    /// Where pods are being bound: they count for the node's number of pods before they are seen there.
    coming: BTreeMap<PodKey, String>,
}

/// The engine's name of a slot for a GPU.
fn slot(node: &str, index: u32) -> DeviceId {
    DeviceId(format!("{node}/{index}"))
}

impl Nodes {
    pub fn set(&mut self, facts: NodeFacts, engine: &Engine) -> Vec<Event> {
        let name = facts.name.clone();
        let node = self.all.entry(name.clone()).or_default();
        node.facts = Some(facts);
        let mut events = node.spec_events(&name);
        events.extend(node.gpu_events(&name, engine));
        events
    }

    pub fn gone(&mut self, name: &str) -> Vec<Event> {
        let Some(node) = self.all.get_mut(name) else { return Vec::new() };
        (node.facts, node.told) = (None, None);
        vec![Event::NodeLost(NodeName::from(name))]
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter(|(_, node)| node.facts.is_some()).map(|(name, _)| name.as_str())
    }

    /// Whether so many more pods may be on the node.
    pub fn takes(&self, name: &str, more: u64) -> bool {
        let coming = self.coming.values().filter(|node| *node == name).count() as u64;
        let limit = self.all.get(name).and_then(|node| Some((node.pods, node.facts.as_ref()?.pods)));
        limit.is_some_and(|(pods, most)| pods + coming + more <= most)
    }

    /// Nodes to which pods are on their way.
    pub fn awaited(&self) -> impl Iterator<Item = &str> {
        self.coming.values().map(String::as_str)
    }

    /// A pod is being bound there.
    pub fn comes(&mut self, pod: &PodKey, name: &str) {
        self.coming.insert(pod.clone(), name.to_owned());
    }

    /// It is there, or will not come.
    pub fn came(&mut self, pod: &PodKey) {
        self.coming.remove(pod);
    }

    /// A pod was that and is this.
    pub fn count(&mut self, was: Option<&PodFacts>, is: Option<&PodFacts>) -> Vec<Event> {
        if let Some(pod) = was.or(is).filter(|_| is.is_none_or(|is| is.node.is_some())) {
            self.came(&pod.key);
        }
        let (before, after) = (was.and_then(counted), is.and_then(counted));
        if before == after {
            return Vec::new();
        }
        for (counted, sign) in [(&before, -1), (&after, 1)] {
            if let Some(counted) = counted {
                self.all.entry(counted.node.clone()).or_default().add(counted, sign);
            }
        }
        let names: BTreeSet<String> = before.into_iter().chain(after).map(|counted| counted.node).collect();
        let mut events = Vec::new();
        for name in names {
            events.extend(self.all.get_mut(&name).map(|node| node.spec_events(&name)).unwrap_or_default());
        }
        events
    }
}

/// What a pod takes of a node beside what the engine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    node: String,
    cpu_milli: u64,
    memory_mib: u64,
}

/// What other schedulers have bound, or are about to; of ours, whose sums the engine keeps, only that it is there.
fn counted(pod: &PodFacts) -> Option<Counted> {
    if pod.phase.is_over() {
        return None;
    }
    if pod.ours.is_some() {
        return pod.node.clone().map(|node| Counted { node, cpu_milli: 0, memory_mib: 0 });
    }
    let node = pod.node.clone().or_else(|| pod.nominated.clone())?;
    // With GPUs it is a job of the engine, which has all of it.
    let (cpu_milli, memory_mib) = if pod.requests.gpus > 0 { (0, 0) } else { (pod.requests.cpu_milli, pod.requests.memory_mib) };
    Some(Counted { node, cpu_milli, memory_mib })
}

impl Node {
    fn add(&mut self, counted: &Counted, sign: i64) {
        let sum = |sum: u64, more: u64| if sign > 0 { sum.saturating_add(more) } else { sum.saturating_sub(more) };
        self.foreign = (sum(self.foreign.0, counted.cpu_milli), sum(self.foreign.1, counted.memory_mib));
        self.pods = sum(self.pods, 1);
    }

    /// Labels, taints, CPU and memory, if they are not as told.
    fn spec_events(&mut self, name: &str) -> Vec<Event> {
        let Some(facts) = &self.facts else { return Vec::new() };
        let spec = NodeSpec {
            labels: facts.labels.clone(),
            taints: facts.taints.clone(),
            cpu_milli: facts.cpu_milli.saturating_sub(self.foreign.0),
            memory_mib: facts.memory_mib.saturating_sub(self.foreign.1),
        };
        if self.told.as_ref() == Some(&spec) {
            return Vec::new();
        }
        self.told = Some(spec.clone());
        vec![Event::NodeSet { name: NodeName::from(name), spec }]
    }

    /// As many slots as there are GPUs. Of those that are too many the free ones go first: which device is gone is not known.
    fn gpu_events(&mut self, name: &str, engine: &Engine) -> Vec<Event> {
        let Some(facts) = &self.facts else { return Vec::new() };
        let class = (facts.class.clone(), facts.gpu_mib);
        let anew = self.class != class;
        self.class = class;
        let usable = self.slots - u32::try_from(self.lost.len()).unwrap_or(u32::MAX);
        let mut seen = BTreeSet::new();
        let mut events = Vec::new();
        if usable > facts.gpus {
            let free = |slot: &u32| {
                let ix = engine.state().nodes.ix(&NodeName::from(name));
                let node = ix.and_then(|ix| engine.books().cluster.node(ix));
                node.is_some_and(|node| node.is_free(*slot as usize))
            };
            let mut there: Vec<u32> = (0..self.slots).filter(|slot| !self.lost.contains(slot)).collect();
            there.sort_by_key(|slot| (!free(slot), std::cmp::Reverse(*slot)));
            for index in there.into_iter().take((usable - facts.gpus) as usize) {
                self.lost.insert(index);
                events.push(Event::DeviceLost(slot(name, index)));
            }
        }
        for _ in usable..facts.gpus {
            let index = self.lost.pop_first().unwrap_or(self.slots);
            self.slots = self.slots.max(index + 1);
            seen.insert(index);
        }
        if anew {
            seen.extend((0..self.slots).filter(|slot| !self.lost.contains(slot)));
        }
        let (class, mib) = (Class(self.class.0.clone()), self.class.1);
        events.extend(
            seen.into_iter()
                .map(|index| Event::DeviceSeen(Device::new(slot(name, index), NodeName::from(name), class.clone(), mib))),
        );
        events
    }
}
