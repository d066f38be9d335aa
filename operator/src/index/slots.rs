//! Devices that a node gives away by count: a device is a slot of its node, and which one it is, the kubelet decides.
//!
//! * Of a kind there are as many slots as the node says. Of those that are too many the free ones go: which device is gone is not
//!   known. One that is held goes when it is free: who holds it may be well, and a device plug-in that is made anew offers nothing for a while.
//! * A node whose layout changes (MIG instances of another profile) keeps its slots: one that is lost and free becomes one of another kind.

use tidegate_core::cluster::NodeFree;
use tidegate_core::names::{Class, DeviceId, NodeName};
use tidegate_core::node::{Device, MAX_DEVICES, Node};
use tidegate_core::{Engine, Event};

use crate::facts::node::Counted;

/// The slots of a node that were ever told; a slot keeps its number.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    /// Some that are held are too many.
    over: bool,
}

#[derive(Clone, Debug)]
struct Slot {
    /// What the engine was told that it is.
    kind: Kind,
    lost: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kind {
    class: Class,
    memory_mib: u64,
    part: Option<u16>,
}

impl Kind {
    fn of(counted: &Counted) -> Self {
        Self { class: counted.class.clone(), memory_mib: counted.memory_mib, part: counted.part }
    }

    /// Whole GPUs are one kind, whatever their class is called: a label of the node may change. Parts are one by their class.
    fn is_like(&self, other: &Self) -> bool {
        match (self.part, other.part) {
            (None, None) => true,
            (Some(_), Some(_)) => self.class == other.class,
            _ => false,
        }
    }

    fn seen(&self, node: &str, index: usize) -> Event {
        let device = Device::new(slot(node, index), NodeName::from(node), self.class.clone(), self.memory_mib);
        Event::DeviceSeen(Device { part: self.part, ..device })
    }
}

/// The engine's name of a slot.
fn slot(node: &str, index: usize) -> DeviceId {
    DeviceId::from(format!("{node}/{index}"))
}

impl Slots {
    /// Whether some go once they are free.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The node gives away these.
    pub fn set(&mut self, node: &str, devices: &[Counted], engine: &Engine) -> Vec<Event> {
        let ix = engine.state().nodes.ix(&NodeName::from(node));
        let known = ix.and_then(|ix| Some((engine.state().nodes.at(ix)?, engine.books().cluster.node(ix)?)));
        let is_free = |index: usize| {
            let id = slot(node, index);
            let held = |(node, free): (&Node, &NodeFree)| {
                node.devices.iter().position(|device| device.id == id).is_some_and(|place| !free.is_free(place))
            };
            !known.is_some_and(held)
        };
        let mut events = self.lose(node, devices, &is_free);
        for counted in devices {
            events.extend(self.have(node, counted, &is_free));
        }
        events
    }

    /// Takes away what is too much of each kind.
    fn lose(&mut self, node: &str, devices: &[Counted], is_free: &impl Fn(usize) -> bool) -> Vec<Event> {
        let mut left: Vec<(Kind, u32)> = devices.iter().map(|counted| (Kind::of(counted), counted.count)).collect();
        let there = self.all.iter().enumerate().filter(|(_, slot)| !slot.lost);
        let mut order: Vec<usize> = there.map(|(index, _)| index).collect();
        order.sort_by_key(|index| (is_free(*index), *index));
        let mut events = Vec::new();
        self.over = false;
        for index in order {
            let Some(of) = self.all.get_mut(index) else { continue };
            if let Some((_, count)) = left.iter_mut().find(|(kind, count)| *count > 0 && kind.is_like(&of.kind)) {
                *count -= 1;
            } else if is_free(index) {
                of.lost = true;
                events.push(Event::DeviceLost(slot(node, index)));
            } else {
                self.over = true;
            }
        }
        events
    }

    /// Adds what is missing of a kind, and tells anew what is of the kind and was told otherwise.
    fn have(&mut self, node: &str, counted: &Counted, is_free: &impl Fn(usize) -> bool) -> Vec<Event> {
        let kind = Kind::of(counted);
        let mut events = Vec::new();
        let mut there = 0;
        for (index, slot) in self.all.iter_mut().enumerate().filter(|(_, slot)| !slot.lost && slot.kind.is_like(&kind)) {
            there += 1;
            if slot.kind != kind {
                slot.kind = kind.clone();
                events.push(kind.seen(node, index));
            }
        }
        for _ in there..counted.count {
            let Some(index) = self.vacancy(&kind, is_free) else { break };
            events.push(kind.seen(node, index));
            let slot = Slot { kind: kind.clone(), lost: false };
            match self.all.get_mut(index) {
                Some(known) => *known = slot,
                None => self.all.push(slot),
            }
        }
        events
    }

    /// A slot that comes back, one that becomes one of the kind, or a new one.
    fn vacancy(&self, kind: &Kind, is_free: &impl Fn(usize) -> bool) -> Option<usize> {
        let lost = || self.all.iter().enumerate().filter(|(_, slot)| slot.lost);
        let back = lost().find(|(_, slot)| slot.kind.is_like(kind));
        let found = back.or_else(|| lost().find(|(index, _)| is_free(*index))).map(|(index, _)| index);
        found.or_else(|| (self.all.len() < MAX_DEVICES).then_some(self.all.len()))
    }
}
