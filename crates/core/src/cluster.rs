//! The free capacity of every node, kept as claims come and go, and the best node for each kind of ask.
//!
//! A claim is *firm* or *releasing* (its holder was told to end). New work may be placed on what is not firmly
//! claimed; it then comes after the releases. Every change can be undone ([`Cluster::mark`], [`Cluster::rollback`]),
//! which makes a try as cheap as what it touches. Derived from the state, never serialised.

mod candidates;
mod choose;
mod free;
mod score;
mod topology;

use std::collections::BTreeMap;

pub use candidates::Candidates;
pub use choose::{Choice, milli_of};
pub use free::{Claim, DeviceFree, Holder, NodeFree, bits};
pub use topology::{Level, NOWHERE, Topology};

use crate::ask::{Amount, Ask};
use crate::fragment::{Mix, Shape, WHOLE};
use crate::names::Class;
use crate::node::Node;

/// A kind of ask, interned. Numbers depend on the order of use; nothing may be ordered by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskIx(pub u32);

/// Changed nodes remembered for candidates that look later; beyond this share of the nodes they look at all anew.
const CHANGES_PER_NODE: usize = 4;

/// One change, as it is undone.
#[derive(Clone, Copy, Debug)]
enum Change {
    Claimed(u32, Claim),
    Released(u32, Claim),
    Loosened(u32, Claim, Holder),
    Settled(u32, Claim, Holder),
}

/// Free capacity of all nodes.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    nodes: Vec<NodeFree>,
    topology: Topology,
    /// Devices by class.
    class_counts: BTreeMap<Class, usize>,
    /// Of classes of parts of GPUs: what a device is of one, and how many are that.
    parts: BTreeMap<Class, BTreeMap<u16, usize>>,
    asks: Vec<Candidates>,
    ask_ids: BTreeMap<Ask, AskIx>,
    /// The same when all devices of a worker are on one island.
    island_ids: BTreeMap<Ask, AskIx>,
    mix: Mix,
    /// The state's classes.
    classes: Vec<Class>,
    /// Nodes in the order in which they changed; candidates remember how far they have read.
    changes: Vec<u32>,
    /// Rises when `changes` starts anew.
    epoch: u64,
    log: Vec<Change>,
    /// Nodes whose claims changed since [`Cluster::take_touched`].
    touched: Vec<u32>,
}

impl Cluster {
    /// Takes in what a node is: its devices, labels, health. Claims on it are kept.
    pub fn set_node(&mut self, ix: u32, node: &Node) {
        if self.nodes.len() <= ix as usize {
            self.nodes.resize_with(ix as usize + 1, NodeFree::default);
        }
        let moved = self.topology.set(ix, node);
        if let Some(free) = self.nodes.get_mut(ix as usize) {
            for device in node.devices.iter().skip(free.devices.len()) {
                *self.class_counts.entry(device.class.clone()).or_default() += 1;
            }
            for (class, part) in parts(free) {
                if let Some(counts) = self.parts.get_mut(class)
                    && let Some(count) = counts.get_mut(&part)
                {
                    *count -= 1;
                }
            }
            free.set(node, &self.classes);
            for (class, part) in parts(free) {
                *self.parts.entry(class.clone()).or_default().entry(part).or_default() += 1;
            }
        }
        self.changed(ix);
        if moved {
            self.restart();
        }
    }

    /// The topology's label keys, the widest first.
    pub fn set_levels<'a>(&mut self, levels: &[String], nodes: impl Iterator<Item = (u32, &'a Node)>) {
        self.topology = Topology::new(levels);
        for (ix, node) in nodes {
            self.topology.set(ix, node);
        }
        self.restart();
    }

    /// What work is typical: placements are judged by what they leave for it.
    pub fn set_mix(&mut self, mix: Mix) {
        self.mix = mix;
        self.restart();
    }

    /// The classes of devices that are known, by number. Call it before a node with a new one is set.
    pub fn set_classes(&mut self, classes: &[Class]) {
        self.classes = classes.to_vec();
    }

    /// Devices by class, in the order of the classes' numbers.
    pub fn class_gpus(&self) -> Vec<u64> {
        self.classes.iter().map(|class| self.class_counts.get(class).copied().unwrap_or(0) as u64).collect()
    }

    /// Thousandths of a GPU that a device is at least which suits the ask.
    pub fn least_part(&self, ask: &Ask) -> u16 {
        let least = |class: &Class| {
            let counts = self.parts.get(class)?;
            counts.iter().find(|(_, count)| **count > 0).map(|(part, _)| *part)
        };
        let all = ask.classes.iter().map(|wish| least(&wish.class).unwrap_or(WHOLE));
        all.min().unwrap_or(WHOLE)
    }

    /// What an ask is to the mix.
    pub fn shape(&self, ask: &Ask) -> Shape {
        score::shape(ask, &self.classes)
    }

    /// The number of an ask.
    pub fn intern(&mut self, ask: &Ask) -> AskIx {
        self.intern_as(ask, false)
    }

    /// The same; with `island`, for workers whose devices are all on one island.
    pub fn intern_as(&mut self, ask: &Ask, island: bool) -> AskIx {
        let ids = if island { &mut self.island_ids } else { &mut self.ask_ids };
        if let Some(ix) = ids.get(ask) {
            return *ix;
        }
        let ix = AskIx(u32::try_from(self.asks.len()).unwrap_or(u32::MAX));
        let shape = score::shape(ask, &self.classes);
        self.asks.push(Candidates::new(ask.clone(), shape, island, self.topology.depth()));
        ids.insert(ask.clone(), ix);
        ix
    }

    /// A node's free capacity.
    pub fn node(&self, ix: u32) -> Option<&NodeFree> {
        self.nodes.get(ix as usize)
    }

    /// All nodes.
    pub fn nodes(&self) -> &[NodeFree] {
        &self.nodes
    }

    /// The topology.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The candidates for an ask, up to date.
    pub fn candidates(&mut self, ask: AskIx) -> &Candidates {
        let Self { nodes, topology, asks, mix, changes, epoch, .. } = self;
        let index = (ask.0 as usize).min(asks.len().saturating_sub(1));
        if let Some(candidates) = asks.get_mut(index) {
            candidates.refresh(nodes, topology, mix, changes, *epoch);
        }
        &self.asks[index]
    }

    /// The node of a domain for the next of `left` workers: the fullest that takes them all, else the emptiest. The
    /// candidates must be up to date.
    pub fn best_in(&self, ask: AskIx, level: usize, domain: u32, left: u32) -> Option<u32> {
        let candidates = self.asks.get(ask.0 as usize)?;
        let nodes = self.topology.nodes(level, domain).iter().copied().filter(|node| candidates.fit(*node) > 0);
        nodes.min_by_key(|node| {
            let fit = candidates.fit(*node);
            let tightness = if fit >= left { fit } else { u32::MAX - fit };
            (fit < left, tightness, candidates.rank(*node), *node)
        })
    }

    /// Classes of devices that there are.
    pub fn classes(&self) -> Vec<Class> {
        self.class_counts.keys().cloned().collect()
    }

    /// The ask of a number.
    pub fn ask(&self, ask: AskIx) -> &Ask {
        self.asks[ask.0 as usize].ask()
    }

    /// Which devices of the node one more worker would take.
    pub fn choose(&self, ask: AskIx, node: u32) -> Option<Choice> {
        let candidates = self.asks.get(ask.0 as usize)?;
        let wish = candidates.wish();
        choose::choose(wish, self.nodes.get(node as usize)?, candidates.eligible(node), &self.mix)
    }

    /// Devices of a worker that runs on the node already, whatever the node's labels and what is left of its CPU: such as nobody
    /// holds, healthy ones first.
    pub fn choose_for_running(&self, ask: &Ask, node: u32) -> Option<Choice> {
        let free = self.nodes.get(node as usize)?;
        let ask = Ask { cpu_milli: 0, memory_mib: 0, ..ask.clone() };
        let shape = self.shape(&ask);
        let wish = choose::Wish { ask: &ask, shape: &shape, island: false };
        let runs_on = runs_on(&ask, free);
        let mask = |usable: bool| {
            let may = |device: &DeviceFree| (device.usable || !usable) && runs_on(device);
            let may = free.devices.iter().enumerate().filter(|(_, device)| may(device));
            may.map(|(at, _)| 1 << at).sum()
        };
        choose::choose(wish, free, mask(true), &self.mix).or_else(|| choose::choose(wish, free, mask(false), &self.mix))
    }

    /// Of whole devices that a running worker asks for and that are not all free, those that are.
    pub fn free_for_running(&self, ask: &Ask, node: u32) -> u64 {
        let Some(free) = self.nodes.get(node as usize).filter(|_| matches!(ask.amount, Amount::Whole(_))) else { return 0 };
        let runs_on = runs_on(ask, free);
        let found = free.devices.iter().enumerate().filter(|(_, device)| runs_on(device) && device.firm == 0);
        found.take(ask.devices() as usize).map(|(at, _)| 1 << at).sum()
    }

    /// Whether a worker of the ask may hold these devices of the node beside those who hold them already.
    pub fn is_free_for(&self, ask: &Ask, node: u32, mask: u64, slices: u8) -> bool {
        let Some(free) = self.nodes.get(node as usize) else { return false };
        mask != 0 && bits(mask).all(|at| free.devices.get(at).is_some_and(|device| choose::is_free_for(ask, device, slices)))
    }

    /// Claims firmly.
    pub fn claim(&mut self, node: u32, claim: Claim) {
        self.apply(node, |free| free.claim(&claim));
        self.log.push(Change::Claimed(node, claim));
    }

    /// Ends a firm claim.
    pub fn release(&mut self, node: u32, claim: Claim) {
        self.apply(node, |free| free.release(&claim));
        self.log.push(Change::Released(node, claim));
    }

    /// A firm claim becomes one that its holder is about to give up.
    pub fn loosen(&mut self, node: u32, claim: Claim, holder: Holder) {
        self.apply(node, |free| free.loosen(&claim, holder));
        self.log.push(Change::Loosened(node, claim, holder));
    }

    /// A claim that is releasing from the start: the state says so.
    pub fn enter_releasing(&mut self, node: u32, claim: Claim, holder: Holder) {
        self.apply(node, |free| free.unsettle(&claim, holder));
    }

    /// A releasing claim is over.
    pub fn settle(&mut self, node: u32, claim: Claim, holder: Holder) {
        self.apply(node, |free| free.settle(&claim, holder));
        self.log.push(Change::Settled(node, claim, holder));
    }

    /// Where the log of changes stands.
    pub fn mark(&self) -> usize {
        self.log.len()
    }

    /// Undoes everything since `mark`.
    pub fn rollback(&mut self, mark: usize) {
        while self.log.len() > mark {
            match self.log.pop() {
                Some(Change::Claimed(node, claim)) => self.apply(node, |free| free.release(&claim)),
                Some(Change::Released(node, claim)) => self.apply(node, |free| free.claim(&claim)),
                Some(Change::Loosened(node, claim, holder)) => self.apply(node, |free| free.unloosen(&claim, holder)),
                Some(Change::Settled(node, claim, holder)) => self.apply(node, |free| free.unsettle(&claim, holder)),
                None => return,
            }
        }
    }

    /// What was done is done: it cannot be undone any more.
    pub fn commit(&mut self) {
        self.log.clear();
    }

    /// Nodes whose claims changed since the last call.
    pub fn take_touched(&mut self) -> Vec<u32> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    fn apply(&mut self, node: u32, change: impl FnOnce(&mut NodeFree)) {
        if let Some(free) = self.nodes.get_mut(node as usize) {
            change(free);
        }
        self.touched.push(node);
        self.changed(node);
    }

    fn changed(&mut self, node: u32) {
        if self.changes.len() > CHANGES_PER_NODE * self.nodes.len() + 1024 {
            self.restart();
        }
        self.changes.push(node);
    }

    fn restart(&mut self) {
        self.epoch += 1;
        self.changes.clear();
    }
}

/// Whether a worker of the ask that runs on a node may have a device of it: a part of a GPU if it names such a class and the node has one.
fn runs_on(ask: &Ask, node: &NodeFree) -> impl Fn(&DeviceFree) -> bool {
    let is_part = |device: &DeviceFree| device.part.is_some() && ask.class_suits(&device.class, true);
    let of_parts = node.devices.iter().any(is_part);
    move |device| device.named == ask.named && if of_parts { is_part(device) } else { device.part.is_none() }
}

/// Devices of a node that are parts of GPUs.
fn parts(node: &NodeFree) -> impl Iterator<Item = (&Class, u16)> {
    node.devices.iter().filter_map(|device| Some((&device.class, device.part?)))
}
