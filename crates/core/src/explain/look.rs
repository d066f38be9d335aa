//! Where a worker might go and what it finds there: free devices, the best node that was refused, the best domain.

use std::collections::BTreeMap;

use crate::ask::{Amount, Ask};
use crate::books::Books;
use crate::cluster::{Claim, Level, bits};
use crate::engine::Engine;
use crate::names::{Class, JobName};
use crate::state::{Group, JobSpec, State};

use super::words;

/// What the nodes have for an ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// Devices that would do, whoever holds them.
    pub all: u32,
    /// Of these, those that nothing firm is on and that nobody else is promised.
    pub free: u32,
    /// Free ones by class.
    pub by_class: BTreeMap<Class, u32>,
    /// Free devices that are kept for others' reservations.
    pub kept: u32,
    /// The node with the most: its slot, free devices and all that would do.
    pub best: Option<(u32, u32, u32)>,
    /// The most memory, and the most thousandths, free on one device.
    pub room: (u64, u16),
}

/// Devices by node that reservations of other jobs are promised.
pub(super) fn promised(state: &State, besides: Option<u32>) -> BTreeMap<u32, u64> {
    let mut masks = BTreeMap::new();
    for (_, reservation) in state.reservations.iter().filter(|(ix, _)| Some(**ix) != besides) {
        for seat in &reservation.seats {
            *masks.entry(seat.node).or_default() |= seat.mask;
        }
    }
    masks
}

impl Look {
    /// Looks at every node.
    pub fn at(engine: &Engine, ask: &Ask, job: Option<u32>) -> Self {
        let promised = promised(engine.state(), job);
        let mut look = Self::default();
        if ask.amount == Amount::None {
            return look;
        }
        for (ix, node) in (0_u32..).zip(engine.books().cluster.nodes()) {
            let eligible = node.eligible(ask);
            let kept = promised.get(&ix).copied().unwrap_or(0);
            let free = |at: &usize| node.devices.get(*at).is_some_and(|device| device.firm == 0);
            let mask: u64 = bits(eligible).filter(free).map(|at| 1 << at).sum();
            let (all, free) = (eligible.count_ones(), (mask & !kept).count_ones());
            look.all += all;
            look.free += free;
            look.kept += (mask & kept).count_ones();
            for device in bits(eligible & !kept).filter_map(|at| node.devices.get(at)) {
                look.room = (look.room.0.max(device.mib), look.room.1.max(device.milli));
                if device.firm == 0 {
                    *look.by_class.entry(device.class.clone()).or_default() += 1;
                }
            }
            if free > 0 && look.best.is_none_or(|(_, most, _)| free > most) {
                look.best = Some((ix, free, all));
            }
        }
        look
    }
}

/// The books with the free part of other jobs' reservations taken: what the job really finds.
fn without_promised(engine: &Engine, job: Option<u32>) -> Books {
    let mut books = engine.books().clone();
    for (ix, mask) in promised(engine.state(), job) {
        let Some(node) = books.cluster.node(ix).cloned() else { continue };
        for at in bits(mask) {
            let Some(device) = node.devices.get(at).filter(|device| device.firm == 0) else { continue };
            let claim = Claim { mask: 1 << at, slices: 0, milli: device.milli, mib: device.mib, cpu_milli: 0, memory_mib: 0 };
            books.cluster.claim(ix, claim);
        }
    }
    books
}

/// The best place of each level that the group wishes to stay in, when it cannot hold all workers: "rack r2 fits 6 of 8 workers".
pub(super) fn best_domains(engine: &Engine, name: &JobName, spec: &JobSpec, group: &Group) -> Vec<String> {
    let spread = group.spread.as_ref().or(spec.spread.as_ref());
    let mut books = without_promised(engine, engine.state().jobs.ix(name));
    let ask = books.cluster.intern(&group.ask);
    let depth = books.cluster.topology().depth();
    let wished = spread.and_then(|spread| books.cluster.topology().level(&spread.level));
    let levels = match wished {
        Some(Level::Label(level)) => vec![level],
        Some(Level::Node | Level::Island) => Vec::new(),
        None => (0..depth).rev().collect(),
    };
    let mut told = Vec::new();
    if wished == Some(Level::Node) {
        let fits = |ix: &u32, books: &mut Books| books.cluster.candidates(ask).fit(*ix);
        let nodes = 0..u32::try_from(books.cluster.nodes().len()).unwrap_or(0);
        let best = nodes.map(|ix| (fits(&ix, &mut books), std::cmp::Reverse(ix))).max();
        if let Some((fit, std::cmp::Reverse(ix))) = best.filter(|(fit, _)| *fit < group.min) {
            told.push(format!("node {} fits {fit} of {} workers", node_name(engine.state(), ix), group.min));
        }
    }
    for level in levels {
        let domains = books.cluster.topology().domains(level);
        let candidates = books.cluster.candidates(ask);
        let best = (0..domains).map(|domain| (candidates.in_domain(level, domain), std::cmp::Reverse(domain))).max();
        let Some((fit, std::cmp::Reverse(domain))) = best else { continue };
        if fit < u64::from(group.min) {
            let key = engine.state().policy.levels.get(level).cloned().unwrap_or_default();
            let value = domain_value(engine, &key, level, domain);
            told.push(format!("{key} {value} fits {fit} of {} workers, no other fits more", group.min));
        }
    }
    told
}

fn domain_value(engine: &Engine, key: &str, level: usize, domain: u32) -> String {
    let first = engine.books().cluster.topology().nodes(level, domain).first();
    let node = first.and_then(|ix| engine.state().nodes.at(*ix));
    node.and_then(|node| node.spec.labels.get(key)).cloned().unwrap_or_default()
}

/// A node by its slot.
pub(super) fn node_name(state: &State, ix: u32) -> String {
    state.nodes.name(ix).map(ToString::to_string).unwrap_or_default()
}

/// What the best node has for one worker, when none has enough.
pub(super) fn best_node(engine: &Engine, name: &JobName, group: &Group, look: &Look) -> Option<String> {
    let state = engine.state();
    match group.ask.amount {
        Amount::Whole(devices) => {
            let Some((ix, free, all)) = look.best else {
                return (devices > 1).then(|| "no node has a free device for it".to_owned());
            };
            let node = node_name(state, ix);
            if free >= devices {
                return lacks_beside(engine, name, group);
            }
            Some(format!("a worker needs {devices} device(s) of one node; the best node {node} has {free} of {all} free"))
        }
        Amount::MemoryMib(mib) | Amount::Slice { mib, .. } if look.room.0 < mib => {
            Some(format!("the emptiest device has {} free", words::memory(look.room.0)))
        }
        Amount::Milli(share) | Amount::Slice { milli: share, .. } if look.room.1 < share => {
            Some(format!("the emptiest device has {} free", words::milli(i64::from(look.room.1))))
        }
        Amount::Mig(_) => Some("no device has free slices in a row where such an instance may start".to_owned()),
        Amount::MemoryMib(_) | Amount::Milli(_) | Amount::Slice { .. } | Amount::None => lacks_beside(engine, name, group),
    }
}

/// CPU or memory that is short where devices are not.
fn lacks_beside(engine: &Engine, name: &JobName, group: &Group) -> Option<String> {
    if group.ask.cpu_milli == 0 && group.ask.memory_mib == 0 {
        return None;
    }
    let mut books = without_promised(engine, engine.state().jobs.ix(name));
    let bare = Ask { cpu_milli: 0, memory_mib: 0, ..group.ask.clone() };
    let (bare, full) = (books.cluster.intern(&bare), books.cluster.intern(&group.ask));
    let without = books.cluster.candidates(bare).total();
    let with = books.cluster.candidates(full).total();
    if without <= with {
        return None;
    }
    let suits = |node: &&crate::cluster::NodeFree| node.eligible(&group.ask) != 0;
    let most = books.cluster.nodes().iter().filter(suits).map(|node| (node.cpu_milli, node.memory_mib)).max()?;
    Some(format!(
        "a worker needs {} beside its devices; the node with the most has {} core(s) and {} free",
        words::beside(&group.ask),
        words::milli(most.0),
        words::memory(u64::try_from(most.1).unwrap_or(0))
    ))
}
