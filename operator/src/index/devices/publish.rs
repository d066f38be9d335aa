//! What drivers publish, told to the engine and shown to shapes.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::Event;
use tidegate_core::names::{Class, DeviceId, NodeName};
use tidegate_core::node;

use super::select::Bench;
use super::shapes::{Marked, Offer, ShapeKey};
use super::{Changed, Devices};
use crate::facts::device::{DeviceFacts, PoolKey, SliceFacts};
use crate::facts::node::UNKNOWN_MIB;

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
    lost: bool,
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
            let events = if known { self.tell(&name, label.as_deref()) } else { Vec::new() };
            if published || !events.is_empty() {
                self.unsure.extend(claims);
                for key in self.shapes.keys().cloned().collect::<Vec<_>>() {
                    self.look_for(&key, &name, bench.get_or_insert_with(Bench::new), &mut changed);
                }
            }
            changed.events.extend(events);
            if self.nodes.get(&name).is_some_and(Node::is_forgotten) {
                self.nodes.remove(&name);
            }
        }
        changed
    }

    /// What the engine is to hear of a node's devices.
    fn tell(&mut self, name: &str, label: Option<&str>) -> Vec<Event> {
        let wanted = self.wanted_on(name, label);
        let told = self.nodes.get(name).map(|node| node.told.clone()).unwrap_or_default();
        let mut now = told.clone();
        let mut events = Vec::new();
        let may_change = |id: &DeviceId| told.get(id).is_none_or(|told| told.lost) || !self.is_busy(id);
        for (id, is) in wanted.iter().filter(|(id, is)| told.get(id) != Some(is) && may_change(id)) {
            let device = node::Device::new(id.clone(), NodeName::from(name), Class(is.class.clone()), is.memory_mib);
            events.push(Event::DeviceSeen(node::Device { named: true, ..device }));
            now.insert(id.clone(), is.clone());
        }
        for (id, was) in told.iter().filter(|(id, was)| !was.lost && !wanted.contains_key(id) && may_change(id)) {
            events.push(Event::DeviceLost(id.clone()));
            now.insert(id.clone(), Told { lost: true, ..was.clone() });
        }
        self.places.extend(now.keys().map(|id| (id.clone(), name.to_owned())));
        if let Some(node) = self.nodes.get_mut(name) {
            node.told = now;
        }
        events
    }

    /// What the engine should know of a node's devices: those that can be given away, and those that are held though nobody publishes
    /// them.
    fn wanted_on(&self, name: &str, label: Option<&str>) -> BTreeMap<DeviceId, Told> {
        let published = self.published(name);
        let told = |class: String, memory_mib: u64| Told { class, memory_mib, lost: false };
        let offered = published.iter().filter(|(_, device)| device.barred.is_none());
        let mut wanted: BTreeMap<DeviceId, Told> = offered
            .map(|(pool, device)| (pool.device(&device.name), told(device.engine_class(label), device.memory_mib)))
            .collect();
        let all: BTreeSet<DeviceId> = published.iter().map(|(pool, device)| pool.device(&device.name)).collect();
        for device in self.held_on(name).into_iter().filter(|device| !all.contains(device)) {
            wanted.entry(device).or_insert_with(|| told(UNPUBLISHED.to_owned(), UNKNOWN_MIB));
        }
        wanted
    }

    /// Devices that claims hold on a node.
    fn held_on(&self, node: &str) -> Vec<DeviceId> {
        let claims = self.nodes.get(node).into_iter().flat_map(|node| &node.claims).filter_map(|claim| self.claims.get(claim));
        claims.filter_map(|claim| claim.allocation.as_ref()).flat_map(|allocation| &allocation.devices).cloned().collect()
    }

    /// Devices of a node as shapes see them. Of a node that is not known there are none.
    fn offers<'a>(&'a self, name: &str) -> Vec<Offer<'a>> {
        let Some(node) = self.nodes.get(name).filter(|node| node.known) else { return Vec::new() };
        let offer = |(pool, facts): (&'a PoolKey, &'a DeviceFacts)| {
            let id = pool.device(&facts.name);
            // One that is held may be of another class to the engine than it would be now.
            let class = node.told.get(&id).map_or_else(|| facts.class.clone(), |told| told.class.clone());
            Offer { id, class, driver: &pool.driver, facts }
        };
        self.published(name).into_iter().map(offer).collect()
    }

    fn look_for(&mut self, key: &ShapeKey, name: &str, bench: &Bench, changed: &mut Changed) {
        let Some(mut shape) = self.shapes.remove(key) else { return };
        let before = shape.answer();
        changed.marks.extend(shape.look(name, &self.offers(name), bench));
        if shape.answer() != before {
            changed.pods.extend(shape.users.iter().cloned());
        }
        self.shapes.insert(key.clone(), shape);
    }

    pub(super) fn class_changed(&mut self, name: &str) -> Changed {
        let mut changed = Changed::default();
        let keys: Vec<ShapeKey> = self.shapes.keys().filter(|key| key.class == name).cloned().collect();
        for key in keys {
            changed.marks.extend(self.evaluate(&key));
            let users = self.shapes.get(&key).map(|shape| shape.users.clone());
            changed.pods.extend(users.unwrap_or_default());
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
