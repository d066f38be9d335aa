//! The nodes that would do for one kind of ask, best first, and how many workers fit where.
//!
//! A node is looked at again when it changed since the last look, so a decision costs what changed and not what there is.

use std::collections::BTreeSet;

use super::choose;
use super::free::NodeFree;
use super::topology::{NOWHERE, Topology};
use crate::ask::Ask;
use crate::fragment::{Mix, Shape};

/// Best first: what can start now, the fastest class, the preferred node, the best score, the tightest fit.
pub type Rank = u64;

/// Counts of fitting workers that are told apart; nodes that take more are alike.
const BUCKETS: usize = 65;

fn bucket(fit: u32) -> usize {
    (fit as usize).min(BUCKETS - 1)
}

/// What is known of one node.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The node's revision when `eligible` was read.
    revision: u32,
    eligible: u64,
    /// How far the node is from what the ask prefers, read with `eligible`.
    distance: u8,
    /// Workers that fit.
    fit: u32,
    rank: Rank,
}

/// Nodes for one ask.
#[derive(Clone, Debug)]
pub struct Candidates {
    ask: Ask,
    shape: Shape,
    island: bool,
    entries: Vec<Entry>,
    /// Nodes by the number of workers that fit (the last: that many or more), best first.
    by_fit: Vec<BTreeSet<(Rank, u32)>>,
    /// Workers that fit, over all nodes and by level and domain.
    total: u64,
    domains: Vec<Vec<u64>>,
    epoch: u64,
    /// How far the log of changes was read.
    read: usize,
}

impl Candidates {
    pub(super) fn new(ask: Ask, shape: Shape, island: bool, depth: usize) -> Self {
        let domains = vec![Vec::new(); depth];
        let by_fit = vec![BTreeSet::new(); BUCKETS];
        Self { ask, shape, island, entries: Vec::new(), by_fit, total: 0, domains, epoch: u64::MAX, read: 0 }
    }

    /// The ask.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// What is asked for, for choosing devices.
    pub(super) fn wish(&self) -> choose::Wish<'_> {
        choose::Wish { ask: &self.ask, shape: &self.shape, island: self.island }
    }

    /// Devices of the node that suit the ask.
    pub fn eligible(&self, node: u32) -> u64 {
        self.entries.get(node as usize).map_or(0, |entry| entry.eligible)
    }

    /// Workers that fit on the node.
    pub fn fit(&self, node: u32) -> u32 {
        self.entries.get(node as usize).map_or(0, |entry| entry.fit)
    }

    /// Workers that fit on all nodes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Workers that fit in a domain.
    pub fn in_domain(&self, level: usize, domain: u32) -> u64 {
        self.domains.get(level).and_then(|sums| sums.get(domain as usize)).copied().unwrap_or(0)
    }

    /// The best node.
    pub fn best(&self) -> Option<u32> {
        self.by_fit.iter().filter_map(BTreeSet::first).min().map(|(_, node)| *node)
    }

    /// The best of the fullest nodes that take `count` workers.
    pub fn tightest(&self, count: u32) -> Option<u32> {
        let enough = self.by_fit.get((count as usize).min(BUCKETS - 1)..)?;
        let found = enough.iter().find_map(BTreeSet::first).map(|(_, node)| *node)?;
        if self.fit(found) >= count {
            return Some(found);
        }
        let last = self.by_fit.last()?;
        last.iter().map(|(_, node)| *node).filter(|node| self.fit(*node) >= count).min_by_key(|node| (self.fit(*node), *node))
    }

    /// The best of the emptiest nodes.
    pub fn emptiest(&self) -> Option<u32> {
        self.by_fit.iter().rev().find_map(BTreeSet::first).map(|(_, node)| *node)
    }

    /// The node's rank; lower is better.
    pub fn rank(&self, node: u32) -> Rank {
        self.entries.get(node as usize).map_or(Rank::MAX, |entry| entry.rank)
    }

    /// Whether a worker could start at once on the best node.
    pub fn is_settled(rank: Rank) -> bool {
        rank >> 63 == 0
    }

    pub(super) fn refresh(&mut self, nodes: &[NodeFree], topology: &Topology, mix: &Mix, changes: &[u32], epoch: u64) {
        if self.epoch == epoch {
            for node in &changes[self.read..] {
                self.look(*node, nodes, topology, mix);
            }
        } else {
            self.restart(nodes, topology, mix);
            self.epoch = epoch;
        }
        self.read = changes.len();
    }

    fn restart(&mut self, nodes: &[NodeFree], topology: &Topology, mix: &Mix) {
        self.total = 0;
        self.domains = (0..topology.depth()).map(|level| vec![0; topology.domains(level) as usize]).collect();
        self.entries.resize(nodes.len(), Entry::default());
        let mut by_fit = vec![Vec::new(); BUCKETS];
        for (index, free) in nodes.iter().enumerate() {
            let node = u32::try_from(index).unwrap_or(u32::MAX);
            let entry = self.read_node(node, free, mix);
            self.entries[index] = entry;
            self.count(node, topology, 0, entry.fit);
            if entry.fit > 0 {
                by_fit[bucket(entry.fit)].push((entry.rank, node));
            }
        }
        self.by_fit = by_fit.into_iter().map(|nodes| nodes.into_iter().collect()).collect();
    }

    fn look(&mut self, node: u32, nodes: &[NodeFree], topology: &Topology, mix: &Mix) {
        let Some(free) = nodes.get(node as usize) else { return };
        if self.entries.len() < nodes.len() {
            self.entries.resize(nodes.len(), Entry::default());
        }
        let new = self.read_node(node, free, mix);
        let old = std::mem::replace(&mut self.entries[node as usize], new);
        if (old.fit, old.rank) == (new.fit, new.rank) {
            return;
        }
        if old.fit > 0 {
            self.by_fit[bucket(old.fit)].remove(&(old.rank, node));
        }
        if new.fit > 0 {
            self.by_fit[bucket(new.fit)].insert((new.rank, node));
        }
        self.count(node, topology, old.fit, new.fit);
    }

    fn count(&mut self, node: u32, topology: &Topology, old: u32, new: u32) {
        self.total = self.total + u64::from(new) - u64::from(old);
        for (level, sums) in self.domains.iter_mut().enumerate() {
            let domain = topology.domain(level, node);
            if domain == NOWHERE {
                continue;
            }
            if sums.len() <= domain as usize {
                sums.resize(domain as usize + 1, 0);
            }
            sums[domain as usize] = sums[domain as usize] + u64::from(new) - u64::from(old);
        }
    }

    fn read_node(&self, node: u32, free: &NodeFree, mix: &Mix) -> Entry {
        let known = self.entries[node as usize];
        let (eligible, distance) = if known.revision == free.revision && known.revision > 0 {
            (known.eligible, known.distance)
        } else {
            (free.eligible(&self.ask), self.ask.affinity.distance(&free.spec.labels))
        };
        let wish = self.wish();
        let fit = choose::fit(wish, free, eligible);
        let rank = if fit == 0 { Rank::MAX } else { rank(wish, free, eligible, distance, mix) };
        Entry { revision: free.revision, eligible, distance, fit, rank }
    }
}

/// See [`Rank`]: 1 bit, 7 bits of speed, 7 bits of preference, 8 bits of score, 41 bits of what is left.
fn rank(wish: choose::Wish<'_>, node: &NodeFree, eligible: u64, distance: u8, mix: &Mix) -> Rank {
    let Some((choice, placement)) = choose::rated(wish, node, eligible, mix) else { return Rank::MAX };
    let ask = wish.ask;
    let unsettled = u64::from(!choice.settled) << 63;
    let slowness = u64::from(slowness(ask, node, choice.mask)) << 56;
    unsettled | slowness | u64::from(distance) << 49 | super::score::key(placement.as_ref())
}

/// 0 for the fastest class that was asked for, 127 for one of no speed.
fn slowness(ask: &Ask, node: &NodeFree, mask: u64) -> u32 {
    let Some(fastest) = ask.classes.iter().map(|wish| wish.speed_milli).max() else { return 0 };
    let class = super::free::bits(mask).next().and_then(|at| node.devices.get(at)).map(|device| &device.class);
    let speed = class.map_or(fastest, |class| ask.speed_milli(class));
    127 - speed.saturating_mul(127) / fastest.max(1)
}
