//! Nodes: what they have, less what others' pods use of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_api::labels;
use tidegate_core::ask::Term;
use tidegate_core::names::NodeName;
use tidegate_core::node::NodeSpec;
use tidegate_core::{Engine, Event};

use super::amounts::Amounts;
use super::slots::Slots;
use crate::facts::node::FREE_STORAGE_LABEL;
use crate::facts::seat::HOSTNAME;
use crate::facts::{HostPort, NodeFacts, PodFacts, PodKey};

/// One node.
#[derive(Clone, Debug, Default)]
struct Node {
    facts: Option<NodeFacts>,
    /// CPU and memory of pods that others placed.
    foreign: (u64, u64),
    /// Pods that hold something there, or are being bound there, whoever placed them; what they hold of what the engine does not
    /// know.
    pods: u64,
    storage_mib: u64,
    ports: BTreeMap<HostPort, u32>,
    /// What pods that are bound there and have not ended ask for in all, whoever bound them.
    asked: Amounts,
    /// Labels of the engine alone: see [`super::devices`].
    marks: BTreeSet<String>,
    /// What the engine was told.
    told: Option<Arc<NodeSpec>>,
    slots: Slots,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    all: BTreeMap<String, Node>,
    /// Pods that are being bound: they count before they are seen there.
    coming: BTreeMap<PodKey, Counted>,
    /// Host ports that pods of ours ask for, and how many pods do: of these the engine is told where they are taken.
    wanted: BTreeMap<HostPort, u32>,
    /// Nodes of which more is asked than they have.
    full: BTreeSet<String>,
    /// Nodes on which more devices are held than they offer.
    over: BTreeSet<String>,
}

/// Why pods cannot be on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// What one of them asks for has gone to others since it was decided, and the engine was told of that: it decides again.
    Late,
    /// It would decide the same again.
    Lasting(String),
}

impl Nodes {
    pub fn set(&mut self, facts: NodeFacts, engine: &Engine) -> Vec<Event> {
        let name = facts.name.clone();
        let node = self.all.entry(name.clone()).or_default();
        node.facts = Some(facts);
        let mut events = node.spec_events(&name, &self.wanted);
        events.extend(self.offer(&name, engine));
        self.note_full(&name);
        events
    }

    /// Devices that nodes do not offer any more, and that are free by now, are lost.
    pub fn lose_free_devices(&mut self, engine: &Engine) -> Vec<Event> {
        let over: Vec<String> = self.over.iter().cloned().collect();
        over.iter().flat_map(|name| self.offer(name, engine)).collect()
    }

    fn offer(&mut self, name: &str, engine: &Engine) -> Vec<Event> {
        let Some(node) = self.all.get_mut(name) else { return Vec::new() };
        let Some(facts) = &node.facts else {
            self.over.remove(name);
            return Vec::new();
        };
        let events = node.slots.set(name, &facts.devices, engine);
        if node.slots.is_over() {
            self.over.insert(name.to_owned());
        } else {
            self.over.remove(name);
        }
        events
    }

    /// Of these nodes more is asked than they have, and how much more.
    pub fn overcommitted(&self) -> impl Iterator<Item = (String, Amounts)> {
        self.full.iter().filter_map(|name| Some((name.clone(), self.all.get(name)?.over())))
    }

    fn note_full(&mut self, name: &str) {
        if self.all.get(name).is_some_and(|node| !node.over().is_none()) {
            self.full.insert(name.to_owned());
        } else {
            self.full.remove(name);
        }
    }

    /// Adds up what pods that are bound ask for.
    fn add_up(&mut self, was: Option<&PodFacts>, is: Option<&PodFacts>) {
        let (before, after) = (was.and_then(bound), is.and_then(bound));
        if before == after {
            return;
        }
        if let Some((name, amounts)) = before {
            self.all.entry(name.to_owned()).and_modify(|node| node.asked = node.asked.less(amounts));
        }
        if let Some((name, amounts)) = after {
            let node = self.all.entry(name.to_owned()).or_default();
            node.asked = node.asked.plus(amounts);
        }
        before.into_iter().chain(after).for_each(|(name, _)| self.note_full(name));
    }

    pub fn gone(&mut self, name: &str) -> Vec<Event> {
        let Some(node) = self.all.get_mut(name) else { return Vec::new() };
        (node.facts, node.told) = (None, None);
        self.full.remove(name);
        vec![Event::NodeLost(NodeName::from(name))]
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter(|(_, node)| node.facts.is_some()).map(|(name, _)| name.as_str())
    }

    /// Whether the node says that its GPUs are simulated.
    pub fn is_simulated(&self, name: &str) -> bool {
        let facts = self.all.get(name).and_then(|node| node.facts.as_ref());
        facts.is_some_and(|facts| facts.labels.get(labels::SIMULATED).is_some_and(|value| value == "true"))
    }

    /// Why these pods cannot all be on the node beside what is there, as far as the engine does not know it.
    pub fn refuses(&self, name: &str, pods: &[&PodFacts]) -> Option<Refusal> {
        let gone = || Refusal::Lasting(format!("node {name} is gone"));
        let Some(node) = self.all.get(name) else { return Some(gone()) };
        let Some(facts) = &node.facts else { return Some(gone()) };
        if node.pods + pods.len() as u64 > facts.pods {
            return Some(Refusal::Lasting(format!("node {name} takes no more pods")));
        }
        let free = node.free_storage(facts);
        let late = |pod: &&PodFacts| pod.requests.storage_mib > free || ports(pod).iter().any(|port| node.is_taken(port));
        if pods.iter().any(late) {
            return Some(Refusal::Late);
        }
        let storage = pods.iter().fold(0_u64, |sum, pod| sum.saturating_add(pod.requests.storage_mib));
        if storage > free {
            return Some(Refusal::Lasting(format!("node {name} has no {storage} MiB of ephemeral storage free")));
        }
        let mut taken: Vec<&HostPort> = Vec::new();
        for port in pods.iter().flat_map(|pod| ports(pod)) {
            if taken.iter().any(|other| port.collides(other)) {
                return Some(Refusal::Lasting(format!("host port {port} of node {name} can be had only once")));
            }
            taken.push(port);
        }
        None
    }

    /// On how many nodes a pod finds not what only it and few others ask for, in words; and whether it finds something of that
    /// on none, which then is all there is to say.
    pub fn lacks(&self, pod: &PodFacts) -> Option<(String, bool)> {
        let there = || self.all.values().filter_map(|node| Some((node, node.facts.as_ref()?)));
        let all = there().count();
        let (mut told, mut nowhere) = (Vec::new(), false);
        for port in ports(pod) {
            let taken = there().filter(|(node, _)| node.is_taken(port)).count();
            nowhere |= taken == all;
            told.push(format!("host port {port} is taken on {taken} of {all} nodes"));
        }
        let storage = pod.requests.storage_mib;
        if storage > 0 {
            let free = there().filter(|(node, facts)| node.free_storage(facts) >= storage).count();
            nowhere |= free == 0;
            told.push(format!("{storage} MiB of ephemeral storage are free on {free} of {all} nodes"));
        }
        (!told.is_empty()).then(|| (told.join(", "), nowhere))
    }

    /// Whether one of the terms holds on a node; without any all nodes will do.
    pub fn has_one_of(&self, name: &str, terms: &[Term]) -> bool {
        let labels = self.all.get(name).and_then(|node| node.facts.as_ref()).map(|facts| &facts.labels);
        terms.is_empty() || labels.is_some_and(|labels| terms.iter().any(|term| term.holds(labels)))
    }

    /// A node has a mark, or has it no more.
    pub fn mark(&mut self, name: &str, mark: String, on: bool) -> Vec<Event> {
        let node = self.all.entry(name.to_owned()).or_default();
        let changed = if on { node.marks.insert(mark) } else { node.marks.remove(&mark) };
        if changed { self.look(name) } else { Vec::new() }
    }

    /// By what label a node is chosen.
    pub fn hostname(&self, name: &str) -> String {
        let labels = self.all.get(name).and_then(|node| node.facts.as_ref()).map(|facts| &facts.labels);
        labels.and_then(|labels| labels.get(HOSTNAME)).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// Nodes to which pods are on their way.
    pub fn awaited(&self) -> impl Iterator<Item = &str> {
        self.coming.values().map(|counted| counted.node.as_str())
    }

    /// A pod is being bound there.
    pub fn comes(&mut self, pod: &PodFacts, name: &str) -> Vec<Event> {
        let mut events = self.came(&pod.key);
        let counted = Counted::beside(pod, name.to_owned());
        self.all.entry(name.to_owned()).or_default().add(&counted, 1);
        self.coming.insert(pod.key.clone(), counted);
        events.extend(self.look(name));
        events
    }

    /// It is there, or will not come.
    pub fn came(&mut self, pod: &PodKey) -> Vec<Event> {
        self.leave(pod).map(|name| self.look(&name)).unwrap_or_default()
    }

    fn leave(&mut self, pod: &PodKey) -> Option<String> {
        let counted = self.coming.remove(pod)?;
        self.all.get_mut(&counted.node)?.add(&counted, -1);
        Some(counted.node)
    }

    fn look(&mut self, name: &str) -> Vec<Event> {
        self.all.get_mut(name).map(|node| node.spec_events(name, &self.wanted)).unwrap_or_default()
    }

    /// A pod was that and is this.
    pub fn count(&mut self, was: Option<&PodFacts>, is: Option<&PodFacts>) -> Vec<Event> {
        self.add_up(was, is);
        let mut names = self.want(was, is);
        if let Some(pod) = was.or(is).filter(|_| is.is_none_or(|is| is.node.is_some() || is.phase.is_over())) {
            names.extend(self.leave(&pod.key));
        }
        let (before, after) = (was.and_then(counted), is.and_then(counted));
        if before != after {
            for (counted, sign) in before.iter().map(|counted| (counted, -1)).chain(after.iter().map(|counted| (counted, 1))) {
                self.all.entry(counted.node.clone()).or_default().add(counted, sign);
            }
            names.extend(before.into_iter().chain(after).map(|counted| counted.node));
        }
        names.iter().flat_map(|name| self.look(name)).collect()
    }

    /// Counts the ports that pods of ours ask for; the nodes of which the engine is to be told more, or less.
    fn want(&mut self, was: Option<&PodFacts>, is: Option<&PodFacts>) -> BTreeSet<String> {
        let asked = |pod: Option<&PodFacts>| pod.filter(|pod| pod.ours.is_some()).map_or(Vec::new(), |pod| ports(pod).to_vec());
        let (before, after) = (asked(was), asked(is));
        let mut changed = Vec::new();
        if before != after {
            for port in &after {
                let count = self.wanted.entry(port.clone()).or_default();
                *count += 1;
                changed.extend((*count == 1).then(|| port.clone()));
            }
            for port in before {
                if decrease(&mut self.wanted, &port) {
                    changed.push(port);
                }
            }
        }
        if changed.is_empty() {
            return BTreeSet::new();
        }
        let holds = |node: &Node| changed.iter().any(|port| node.is_taken(port));
        self.all.iter().filter(|(_, node)| holds(node)).map(|(name, _)| name.clone()).collect()
    }
}

/// Where a pod is bound, and what it asks for there.
fn bound(pod: &PodFacts) -> Option<(&str, Amounts)> {
    let node = pod.node.as_deref().filter(|_| pod.holds())?;
    Some((node, Amounts::of_pod(&pod.requests)))
}

/// Host ports of a pod.
fn ports(pod: &PodFacts) -> &[HostPort] {
    pod.needs.as_ref().map_or(&[], |needs| &needs.ports)
}

/// One less; whether none is left.
fn decrease(counts: &mut BTreeMap<HostPort, u32>, port: &HostPort) -> bool {
    let Some(count) = counts.get_mut(port) else { return false };
    *count -= 1;
    let none = *count == 0;
    if none {
        counts.remove(port);
    }
    none
}

/// What a pod takes of a node beside what the engine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    node: String,
    cpu_milli: u64,
    memory_mib: u64,
    storage_mib: u64,
    ports: Vec<HostPort>,
}

impl Counted {
    /// Of a pod whose CPU and memory the engine knows.
    fn beside(pod: &PodFacts, node: String) -> Self {
        Self { node, cpu_milli: 0, memory_mib: 0, storage_mib: pod.requests.storage_mib, ports: ports(pod).to_vec() }
    }
}

/// What other schedulers have bound, or are about to; of ours what the engine, which keeps the other sums, does not know.
fn counted(pod: &PodFacts) -> Option<Counted> {
    if pod.phase.is_over() {
        return None;
    }
    if pod.ours.is_some() || pod.is_of_another() {
        return pod.node.clone().map(|node| Counted::beside(pod, node));
    }
    let node = pod.node.clone().or_else(|| pod.nominated.clone())?;
    // With GPUs it is a job of the engine, which has all of it.
    let (cpu_milli, memory_mib) =
        if pod.requests.devices().0 > 0 { (0, 0) } else { (pod.requests.cpu_milli, pod.requests.memory_mib) };
    Some(Counted { cpu_milli, memory_mib, ..Counted::beside(pod, node) })
}

impl Node {
    fn add(&mut self, counted: &Counted, sign: i64) {
        let sum = |sum: u64, more: u64| if sign > 0 { sum.saturating_add(more) } else { sum.saturating_sub(more) };
        self.foreign = (sum(self.foreign.0, counted.cpu_milli), sum(self.foreign.1, counted.memory_mib));
        self.pods = sum(self.pods, 1);
        self.storage_mib = sum(self.storage_mib, counted.storage_mib);
        for port in &counted.ports {
            if sign > 0 {
                *self.ports.entry(port.clone()).or_default() += 1;
            } else {
                decrease(&mut self.ports, port);
            }
        }
    }

    fn is_taken(&self, port: &HostPort) -> bool {
        self.ports.keys().any(|taken| taken.collides(port))
    }

    /// How much more is asked than there is.
    fn over(&self) -> Amounts {
        self.facts.as_ref().map_or_else(Amounts::default, |facts| self.asked.beyond(Amounts::of_node(facts)))
    }

    fn free_storage(&self, facts: &NodeFacts) -> u64 {
        facts.storage_mib.saturating_sub(self.storage_mib)
    }

    /// Labels, taints, CPU and memory, if they are not as told.
    fn spec_events(&mut self, name: &str, wanted: &BTreeMap<HostPort, u32>) -> Vec<Event> {
        let Some(facts) = &self.facts else { return Vec::new() };
        let mut labels = facts.labels.clone();
        labels.insert(FREE_STORAGE_LABEL.to_owned(), self.free_storage(facts).to_string());
        labels.extend(self.marks.iter().map(|mark| (mark.clone(), String::new())));
        labels.extend(wanted.keys().filter(|port| self.is_taken(port)).map(|port| (port.mark(), String::new())));
        let spec = Arc::new(NodeSpec {
            labels,
            taints: facts.taints.clone(),
            cpu_milli: facts.cpu_milli.saturating_sub(self.foreign.0),
            memory_mib: facts.memory_mib.saturating_sub(self.foreign.1),
        });
        if self.told.as_ref() == Some(&spec) {
            return Vec::new();
        }
        self.told = Some(spec.clone());
        vec![Event::NodeSet { name: NodeName::from(name), spec }]
    }
}
