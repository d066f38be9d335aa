//! What drivers publish, told to the engine and shown to shapes.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::Event;
use tidegate_core::names::{Class, DeviceId, NodeName};
use tidegate_core::node::{self, MAX_DEVICES};

use super::counters;
use super::select::Bench;
use super::shapes::{Marked, Offer, ShapeKey};
use super::{Changed, Devices};
use crate::facts::device::{Counters, DeviceFacts, PoolKey, SliceFacts};
use crate::facts::device_claim::Allocation;
use crate::facts::node::UNKNOWN_MIB;
use crate::facts::share::Shared;

/// The class of a device that is held and that nobody publishes.
const UNPUBLISHED: &str = "unpublished";

/// One node.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// The node itself is known.
    pub known: bool,
    /// What class its label says its GPUs are of.
    pub label: Option<String>,
    /// Pools that have devices of it.
    pub pools: BTreeSet<PoolKey>,
    /// Claims that are allocated there.
    pub claims: BTreeSet<String>,
    pub told: BTreeMap<DeviceId, Told>,
    /// Some of its devices consume counters.
    pub is_divided: bool,
}

impl Node {
    pub fn is_forgotten(&self) -> bool {
        !self.known && self.pools.is_empty() && self.claims.is_empty() && self.told.is_empty()
    }
}

/// What the engine knows of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    class: String,
    memory_mib: u64,
    part: Option<u16>,
    pub shared: Option<Shared>,
    pub consumes: Counters,
    lost: bool,
}

impl Told {
    /// Of a device that is held and that nobody publishes.
    fn unpublished() -> Self {
        let class = UNPUBLISHED.to_owned();
        Self { class, memory_mib: UNKNOWN_MIB, part: None, shared: None, consumes: Counters::new(), lost: false }
    }
}

impl Devices {
    /// Devices of a node, of the newest generation of each pool whose slices are all there.
    fn published(&self, node: &str) -> Vec<(&PoolKey, &DeviceFacts)> {
        let mut all = Vec::new();
        for pool in self.nodes.get(node).into_iter().flat_map(|node| &node.pools) {
            let slices = || self.pools.get(pool).into_iter().flatten().filter_map(|name| self.slices.get(name));
            let Some(newest) = slices().map(|slice| slice.generation).max() else { continue };
            let slices: Vec<&SliceFacts> = slices().filter(|slice| slice.generation == newest).collect();
            let is_whole = slices.first().is_some_and(|first| i64::try_from(slices.len()).is_ok_and(|there| there == first.of));
            let devices = slices.into_iter().filter(|_| is_whole).flat_map(|slice| &slice.devices);
            all.extend(devices.filter(|device| device.node.as_deref() == Some(node)).map(|device| (pool, device)));
        }
        all
    }

    /// Looks at nodes again: what the engine is to be told of them, and what shapes find there.
    /// `published`: what is published there may be something else.
    pub(super) fn look(&mut self, nodes: BTreeSet<String>, published: bool) -> Changed {
        let mut changed = Changed::default();
        let mut bench = None;
        for name in nodes {
            let Some(node) = self.nodes.get(&name) else { continue };
            let (known, label, claims) = (node.known, node.label.clone(), node.claims.clone());
            let mut events = if known { self.tell(&name, label.as_deref()) } else { Vec::new() };
            if published || !events.is_empty() {
                self.unsure.extend(claims);
                for key in self.shapes.keys().cloned().collect::<Vec<_>>() {
                    self.look_for(&key, &name, bench.get_or_insert_with(Bench::new), &mut changed);
                }
                if known && self.nodes.get(&name).is_some_and(|node| node.is_divided) {
                    // Which of them are asked for is known now.
                    events.extend(self.tell(&name, label.as_deref()));
                }
            }
            changed.events.extend(events);
            if self.nodes.get(&name).is_some_and(Node::is_forgotten) {
                self.nodes.remove(&name);
            }
        }
        changed
    }

    /// Looks at nodes whose partitions others ask for now.
    pub fn look_due(&mut self) -> Changed {
        let due = std::mem::take(&mut self.due);
        if due {
            self.look(self.nodes.iter().filter(|(_, node)| node.is_divided).map(|(name, _)| name.clone()).collect(), false)
        } else {
            Changed::default()
        }
    }

    /// What the engine is to hear of a node's devices.
    fn tell(&mut self, name: &str, label: Option<&str>) -> Vec<Event> {
        let wanted = self.wanted_on(name, label);
        let told = self.nodes.get(name).map(|node| node.told.clone()).unwrap_or_default();
        let mut now = told.clone();
        let mut events = Vec::new();
        let may_change = |id: &DeviceId| told.get(id).is_none_or(|told| told.lost) || !self.is_busy(id);
        // Those that go make room for those that come.
        for (id, was) in told.iter().filter(|(id, was)| !was.lost && !wanted.contains_key(id) && may_change(id)) {
            events.push(Event::DeviceLost(id.clone()));
            now.insert(id.clone(), Told { lost: true, ..was.clone() });
        }
        for (id, is) in wanted.iter().filter(|(id, is)| told.get(id) != Some(is) && may_change(id)) {
            let device = node::Device::new(id.clone(), NodeName::from(name), Class::from(is.class.as_str()), is.memory_mib);
            events.push(Event::DeviceSeen(node::Device { named: true, part: is.part, ..device }));
            now.insert(id.clone(), is.clone());
        }
        let is_divided = self.published(name).iter().any(|(_, device)| !device.consumes.is_empty());
        self.places.extend(now.keys().map(|id| (id.clone(), name.to_owned())));
        if let Some(node) = self.nodes.get_mut(name) {
            (node.told, node.is_divided) = (now, is_divided);
        }
        events
    }

    /// What the engine should know of a node's devices: those that can be given away, and those that are held though nobody publishes
    /// them. Of devices that consume counters those that are held, and those that somebody asks for and whose counters are free: there may be many
    /// more than a node can have.
    fn wanted_on(&self, name: &str, label: Option<&str>) -> BTreeMap<DeviceId, Told> {
        let published = self.published(name);
        let mut left = BTreeMap::<&PoolKey, Counters>::new();
        let mut wanted = BTreeMap::new();
        let mut more = Vec::new();
        let mut of_class = BTreeMap::<String, u32>::new();
        for (pool, device) in published.iter().copied().filter(|(_, device)| device.barred.is_none()) {
            let id = pool.device(&device.name);
            let is = Self::as_told(&published, pool, device, label);
            if device.consumes.is_empty() || self.is_busy(&id) {
                wanted.insert(id, is);
            } else if counters::fits(left.entry(pool).or_insert_with(|| self.counters_left(pool)), &device.consumes)
                && (is.part.is_none() || self.shapes.values().any(|shape| shape.wants(name, &id)))
            {
                // Some of each kind, if not all have room.
                let number = of_class.entry(is.class.clone()).or_default();
                *number += 1;
                more.push((is.part.is_some(), *number, id, is));
            }
        }
        let all: BTreeSet<DeviceId> = published.iter().map(|(pool, device)| pool.device(&device.name)).collect();
        for device in self.held_on(name).into_iter().filter(|device| !all.contains(device)) {
            wanted.entry(device).or_insert_with(Told::unpublished);
        }
        more.sort_by(|(part, number, id, _), (other_part, other, other_id, _)| {
            (part, number, id).cmp(&(other_part, other, other_id))
        });
        let room = MAX_DEVICES.saturating_sub(wanted.len());
        wanted.extend(more.into_iter().take(room).map(|(.., id, is)| (id, is)));
        wanted
    }

    fn as_told(published: &[(&PoolKey, &DeviceFacts)], pool: &PoolKey, device: &DeviceFacts, label: Option<&str>) -> Told {
        let part = if device.consumes.is_empty() {
            None
        } else {
            let of_pool: Vec<&DeviceFacts> =
                published.iter().filter(|(other, _)| *other == pool).map(|(_, facts)| *facts).collect();
            counters::part(device, &of_pool)
        };
        Told {
            class: device.engine_class(label, part.is_some()),
            memory_mib: device.memory_mib,
            part,
            shared: device.shared.clone(),
            consumes: device.consumes.clone(),
            lost: false,
        }
    }

    /// Devices that claims hold on a node.
    fn held_on(&self, node: &str) -> Vec<DeviceId> {
        let claims = self.nodes.get(node).into_iter().flat_map(|node| &node.claims).filter_map(|claim| self.claims.get(claim));
        claims.filter_map(|claim| claim.allocation.as_ref()).flat_map(Allocation::all).cloned().collect()
    }

    /// Devices of a node as shapes see them. Of a node that is not known there are none.
    fn offers<'a>(&'a self, name: &str) -> Vec<Offer<'a>> {
        let Some(node) = self.nodes.get(name).filter(|node| node.known) else { return Vec::new() };
        let published = self.published(name);
        let offer = |(pool, facts): &(&'a PoolKey, &'a DeviceFacts)| {
            let id = pool.device(&facts.name);
            // One that is held may be of another class to the engine than it would be now.
            let told = node.told.get(&id).filter(|_| facts.consumes.is_empty() || self.is_busy(&id));
            let class = told.map(|told| told.class.clone());
            let class = class.unwrap_or_else(|| Self::as_told(&published, pool, facts, node.label.as_deref()).class);
            Offer { id, class, driver: &pool.driver, facts }
        };
        published.iter().map(offer).collect()
    }

    fn look_for(&mut self, key: &ShapeKey, name: &str, bench: &Bench, changed: &mut Changed) {
        let Some(mut shape) = self.shapes.remove(key) else { return };
        let before = (shape.answer(), shape.share());
        changed.marks.extend(shape.look(name, &self.offers(name), bench));
        if (shape.answer(), shape.share()) != before {
            changed.askers.extend(shape.users.iter().cloned());
        }
        self.shapes.insert(key.clone(), shape);
    }

    pub(super) fn class_changed(&mut self, name: &str) -> Changed {
        let mut changed = Changed::default();
        self.due = true;
        let keys: Vec<ShapeKey> = self.shapes.keys().filter(|key| key.class == name).cloned().collect();
        for key in keys {
            changed.marks.extend(self.evaluate(&key));
            let users = self.shapes.get(&key).map(|shape| shape.users.clone());
            changed.askers.extend(users.unwrap_or_default());
        }
        changed
    }

    /// Looks at all nodes for a shape whose selectors are new.
    pub(super) fn evaluate(&mut self, key: &ShapeKey) -> Vec<Marked> {
        let class = self.classes.get(&key.class).cloned();
        let Some(mut shape) = self.shapes.remove(key) else { return Vec::new() };
        shape.compile(class.as_ref());
        let bench = Bench::new();
        let marks = self.nodes.keys().flat_map(|name| shape.look(name, &self.offers(name), &bench)).collect();
        self.shapes.insert(key.clone(), shape);
        marks
    }
}
