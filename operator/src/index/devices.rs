//! Devices that are given away by their names (Kubernetes' dynamic resource allocation): what drivers publish, which claims hold what,
//! and what the engine was told of it.
//!
//! * A device of the newest complete generation of its pool is a named device of the engine, on its node. One that is not published any
//!   more is lost, but not while a claim holds it: drivers that are made anew publish nothing for a while, and what runs goes on.
//! * What a held device is (class, memory) does not change before it is free: what was counted is given back as it was counted.
//! * Of a device that several claims may have each holds a share; the sum of what they consume is never more than there is.
//! * Of devices that are made of the same GPU the engine knows those whose counters are free ([`counters`]).
//! * Whoever is allocated a device in a claim holds it, whoever wrote that ([`super::claims`]).

mod counters;
mod give;
mod publish;
mod select;
mod shapes;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::Event;
use tidegate_core::ask::Amount;
use tidegate_core::names::DeviceId;

use crate::facts::device::{PoolKey, SliceFacts};
use crate::facts::device_claim::{DeviceClaimFacts, DeviceClassFacts, DeviceUse};
use crate::facts::share::Amounts;
use crate::facts::{DeviceKind, DeviceObject, PodFacts, PodKey};
pub(super) use counters::Lack;
pub(super) use give::{Given, Step, Wanted};
use publish::{Node, Told};
use shapes::{Marked, Shape, ShapeKey};

/// What follows from news.
#[derive(Clone, Debug, Default)]
pub(super) struct Changed {
    pub events: Vec<Event>,
    /// Marks of nodes that change.
    pub marks: Vec<Marked>,
    /// Who is to be looked at again.
    pub askers: BTreeSet<Asker>,
}

impl Changed {
    fn pods(mut self, pods: impl IntoIterator<Item = PodKey>) -> Self {
        self.askers.extend(pods.into_iter().map(Asker::Pod));
        self
    }
}

/// Who asks for devices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asker {
    Pod(PodKey),
    /// A training job, for workers of a group: it waits for its turn without pods.
    Workers(PodKey, u16),
    /// A model, for replicas.
    Replicas(PodKey),
}

/// What a claim holds on a node, in the engine's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub node: String,
    pub devices: Vec<DeviceId>,
    pub shares: Vec<(DeviceId, Amount)>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Devices {
    slices: BTreeMap<String, SliceFacts>,
    /// Slices of a pool, by name.
    pools: BTreeMap<PoolKey, BTreeSet<String>>,
    nodes: BTreeMap<String, Node>,
    /// Where the engine knows a device.
    places: BTreeMap<DeviceId, String>,
    classes: BTreeMap<String, DeviceClassFacts>,
    claims: BTreeMap<String, DeviceClaimFacts>,
    /// Pods that name a claim.
    users: BTreeMap<String, BTreeSet<PodKey>>,
    /// Claims that hold a device.
    held: BTreeMap<DeviceId, BTreeSet<String>>,
    /// Devices of starts of ours, by pod, and all of them.
    promised: BTreeMap<PodKey, Vec<DeviceId>>,
    kept: BTreeSet<DeviceId>,
    shapes: BTreeMap<ShapeKey, Shape>,
    shape_of: BTreeMap<Asker, ShapeKey>,
    /// Shapes there ever were.
    numbers: u64,
    /// Claims whose holder may be another now, and pods that may have ended.
    unsure: BTreeSet<String>,
    touched: BTreeSet<PodKey>,
    /// Partitions are asked for that were not: nodes that have such are to be looked at.
    due: bool,
}

impl Devices {
    /// What an object says now.
    pub fn set(&mut self, object: DeviceObject) -> Changed {
        match object {
            DeviceObject::Class(class) => {
                let name = class.name.clone();
                self.classes.insert(name.clone(), class);
                self.class_changed(&name)
            }
            DeviceObject::Slice(slice) => {
                let gone = self.take_slice(&slice.name);
                let nodes: BTreeSet<String> = gone.into_iter().chain(self.put_slice(slice)).collect();
                self.look(nodes, true)
            }
            DeviceObject::Claim(claim) => {
                let users = users(&self.users, &claim.key);
                let gone = self.take_claim(&claim.key);
                let nodes: BTreeSet<String> = gone.into_iter().chain(self.put_claim(*claim)).collect();
                self.look(nodes, false).pods(users)
            }
        }
    }

    /// An object is gone.
    pub fn gone(&mut self, kind: DeviceKind, key: &str) -> Changed {
        match kind {
            DeviceKind::Class => {
                self.classes.remove(key);
                self.class_changed(key)
            }
            DeviceKind::Slice => {
                let nodes = self.take_slice(key);
                self.look(nodes, true)
            }
            DeviceKind::Claim => {
                let nodes = self.take_claim(key);
                self.look(nodes, false).pods(users(&self.users, key))
            }
        }
    }

    /// Keys of all objects of a kind.
    pub fn keys(&self, kind: DeviceKind) -> Vec<String> {
        match kind {
            DeviceKind::Class => self.classes.keys().cloned().collect(),
            DeviceKind::Slice => self.slices.keys().cloned().collect(),
            DeviceKind::Claim => self.claims.keys().cloned().collect(),
        }
    }

    /// A node is there, or gone, and what its label says of its GPUs' class.
    pub fn node(&mut self, name: &str, known: bool, label: Option<String>) -> Changed {
        if !known && !self.nodes.contains_key(name) {
            return Changed::default();
        }
        let node = self.nodes.entry(name.to_owned()).or_default();
        if (node.known, &node.label) == (known, &label) {
            return Changed::default();
        }
        (node.known, node.label) = (known, label);
        self.look([name.to_owned()].into(), true)
    }

    pub fn claim(&self, key: &str) -> Option<&DeviceClaimFacts> {
        self.claims.get(key)
    }

    pub fn claims(&self) -> impl Iterator<Item = &DeviceClaimFacts> {
        self.claims.values()
    }

    /// Pods that name a claim.
    pub fn users_of(&self, claim: &str) -> impl Iterator<Item = &PodKey> {
        self.users.get(claim).into_iter().flatten()
    }

    /// Something has happened to a pod by which others may hold its claims.
    pub fn touch(&mut self, pod: &PodFacts) {
        let used = pod.needs.as_ref().map_or(&[][..], |needs| &needs.devices);
        if !used.is_empty() {
            self.unsure.extend(used.iter().filter_map(|used| used.key.clone()));
            self.touched.insert(pod.key.clone());
        }
    }

    /// What a pod was promised may not be promised to it any more.
    pub fn touch_pod(&mut self, pod: &PodKey) {
        self.touched.insert(pod.clone());
    }

    /// As whom a training job asks.
    pub fn workers_of(&self, job: &PodKey) -> Vec<Asker> {
        let all = Asker::Workers(job.clone(), 0)..=Asker::Workers(job.clone(), u16::MAX);
        self.shape_of.range(all).map(|(asker, _)| asker.clone()).collect()
    }

    /// Every claim is to be looked at.
    pub fn touch_all(&mut self) {
        self.unsure.extend(self.claims.keys().cloned());
    }

    /// A claim is to be looked at.
    pub fn unsure_of(&mut self, claim: &str) {
        self.unsure.insert(claim.to_owned());
    }

    /// The next pod to which something has happened.
    pub fn next_touched(&mut self) -> Option<PodKey> {
        self.touched.pop_first()
    }

    /// The next claim of which it is not sure who holds it.
    pub fn next_unsure(&mut self) -> Option<String> {
        self.unsure.pop_first()
    }

    /// A pod was that and is this: it names these claims.
    pub fn count(&mut self, was: Option<&PodFacts>, is: Option<&PodFacts>) {
        let named = |pod: Option<&PodFacts>| -> Vec<String> {
            let needs = pod.and_then(|pod| pod.needs.as_ref());
            needs.iter().flat_map(|needs| &needs.devices).filter_map(|used| used.key.clone()).collect()
        };
        let Some(pod) = was.or(is).map(|pod| pod.key.clone()) else { return };
        for claim in named(was) {
            if let Some(pods) = self.users.get_mut(&claim) {
                pods.remove(&pod);
                if pods.is_empty() {
                    self.users.remove(&claim);
                }
            }
        }
        for claim in named(is) {
            self.users.entry(claim).or_default().insert(pod.clone());
        }
    }

    /// Devices that the claims of a pod hold, if all of them are allocated.
    pub fn all_of(&self, pod: &PodFacts) -> Option<Vec<DeviceId>> {
        let held = self.held_by(pod.needs.as_ref().map_or(&[][..], |needs| &needs.devices))?;
        let devices =
            held.into_iter().flat_map(|held| held.devices.into_iter().chain(held.shares.into_iter().map(|(device, _)| device)));
        Some(devices.collect::<Vec<_>>()).filter(|all| !all.is_empty())
    }

    /// What the claims of a pod hold together, as far as it is of one kind: devices, or one share. The engine knows no other pods: what else such
    /// claims hold (others have allocated it) they hold themselves.
    pub fn amount_of(&self, used: &[DeviceUse]) -> Option<Amount> {
        let keys: BTreeSet<&String> = used.iter().filter_map(|used| used.key.as_ref()).collect();
        let held: Vec<Held> = keys.into_iter().filter_map(|key| self.holds(self.claims.get(key)?)).collect();
        let devices: usize = held.iter().map(|held| held.devices.len()).sum();
        match held.iter().flat_map(|held| &held.shares).collect::<Vec<_>>().as_slice() {
            [] if devices == 0 => Some(Amount::None),
            [] => Some(Amount::Whole(u32::try_from(devices).unwrap_or(u32::MAX))),
            [(_, amount)] if devices == 0 => Some(*amount),
            _ => None,
        }
    }

    fn held_by(&self, used: &[DeviceUse]) -> Option<Vec<Held>> {
        let keys: BTreeSet<&String> = used.iter().filter_map(|used| used.key.as_ref()).collect();
        keys.into_iter().map(|key| self.holds(self.claims.get(key)?)).collect()
    }

    /// What a claim holds, and where, as far as the engine is told of it: devices that are parts it does not know.
    pub fn holds(&self, claim: &DeviceClaimFacts) -> Option<Held> {
        let allocation = claim.allocation.as_ref()?;
        let node = allocation.node.clone().or_else(|| self.node_of(allocation.all().next()?))?;
        let told = &self.nodes.get(&node)?.told;
        let known = |device: &&DeviceId| told.contains_key(*device);
        let devices: Vec<DeviceId> = allocation.devices.iter().filter(known).cloned().collect();
        let amount = |told: &Told, consumed: &Amounts| {
            // Of one that nobody publishes it is not known how much a share is.
            told.shared.as_ref().map_or(Amount::MemoryMib(1), |shared| shared.amount(consumed))
        };
        let shares = allocation.shares.iter();
        let shares: Vec<_> = shares.filter_map(|(id, consumed)| Some((id.clone(), amount(told.get(id)?, consumed)))).collect();
        (!devices.is_empty() || !shares.is_empty()).then_some(Held { node, devices, shares })
    }

    /// Whether other claims leave a claim what it is given of a device: all of it, or a share.
    pub fn is_left_for(&self, claim: &str, device: &DeviceId, share: Option<&Amounts>) -> bool {
        let others = self.held.get(device).into_iter().flatten().filter(|other| *other != claim);
        let others: Vec<_> = others.filter_map(|other| self.claims.get(other)?.allocation.as_ref()).collect();
        let Some(share) = share else { return others.is_empty() };
        let told = self.places.get(device).and_then(|node| self.nodes.get(node)?.told.get(device));
        let shared = told.and_then(|told| told.shared.as_ref());
        let consumed: Option<Vec<_>> = others.into_iter().map(|allocation| allocation.consumes(device)).collect();
        shared
            .zip(consumed)
            .is_some_and(|(shared, consumed)| shared.has_room(&consumed.into_iter().flatten().collect::<Vec<_>>(), share))
    }

    /// A start of ours is given these.
    pub fn promise(&mut self, pod: &PodKey, devices: Vec<DeviceId>) -> Changed {
        self.kept.extend(devices.iter().cloned());
        let divided = |device: &DeviceId| {
            self.places.get(device).filter(|node| self.nodes.get(*node).is_some_and(|node| node.is_divided)).cloned()
        };
        let nodes = devices.iter().filter_map(divided).collect();
        self.promised.insert(pod.clone(), devices);
        self.look(nodes, false)
    }

    /// What a start was given is given back, or held by its claims alone.
    pub fn release(&mut self, pod: &PodKey) -> Changed {
        let Some(devices) = self.promised.remove(pod) else { return Changed::default() };
        let nodes = devices.iter().filter_map(|device| self.places.get(device).cloned()).collect();
        for device in &devices {
            // Others may be given shares of it.
            if !self.promised.values().flatten().any(|other| other == device) {
                self.kept.remove(device);
            }
        }
        self.look(nodes, false)
    }

    /// Where a device is published.
    fn node_of(&self, device: &DeviceId) -> Option<String> {
        let published = self.slices.values().flat_map(|slice| slice.devices.iter().map(move |facts| (&slice.pool, facts)));
        let found =
            published.filter(|(pool, facts)| pool.device(&facts.name) == *device).find_map(|(_, facts)| facts.node.clone());
        found.or_else(|| self.places.get(device).cloned())
    }

    fn is_busy(&self, device: &DeviceId) -> bool {
        self.held.contains_key(device) || self.kept.contains(device)
    }

    /// Takes a slice out; nodes that it concerns.
    fn take_slice(&mut self, name: &str) -> BTreeSet<String> {
        let Some(pool) = self.slices.get(name).map(|slice| slice.pool.clone()) else { return BTreeSet::new() };
        let nodes = self.nodes_of_pool(&pool);
        self.slices.remove(name);
        if let Some(slices) = self.pools.get_mut(&pool) {
            slices.remove(name);
            if slices.is_empty() {
                self.pools.remove(&pool);
            }
        }
        self.note_pool(&pool, &nodes);
        nodes
    }

    fn put_slice(&mut self, slice: SliceFacts) -> BTreeSet<String> {
        let pool = slice.pool.clone();
        self.pools.entry(pool.clone()).or_default().insert(slice.name.clone());
        self.slices.insert(slice.name.clone(), slice);
        let nodes = self.nodes_of_pool(&pool);
        self.note_pool(&pool, &nodes);
        nodes
    }

    fn nodes_of_pool(&self, pool: &PoolKey) -> BTreeSet<String> {
        let slices = self.pools.get(pool).into_iter().flatten().filter_map(|name| self.slices.get(name));
        slices.flat_map(|slice| &slice.devices).filter_map(|device| device.node.clone()).collect()
    }

    /// These nodes have devices of the pool, or had.
    fn note_pool(&mut self, pool: &PoolKey, nodes: &BTreeSet<String>) {
        let now = self.nodes_of_pool(pool);
        for name in nodes {
            let node = self.nodes.entry(name.clone()).or_default();
            if now.contains(name) {
                node.pools.insert(pool.clone());
            } else {
                node.pools.remove(pool);
            }
        }
    }

    /// Takes a claim out; nodes that it concerns.
    fn take_claim(&mut self, key: &str) -> BTreeSet<String> {
        self.unsure.insert(key.to_owned());
        let Some(claim) = self.claims.remove(key) else { return BTreeSet::new() };
        let Some(allocation) = claim.allocation else { return BTreeSet::new() };
        let node = allocation.node.clone().or_else(|| self.node_of(allocation.all().next()?));
        if let Some(node) = node.and_then(|node| self.nodes.get_mut(&node)) {
            node.claims.remove(key);
        }
        for device in allocation.all() {
            if let Some(claims) = self.held.get_mut(device) {
                claims.remove(key);
                if claims.is_empty() {
                    self.held.remove(device);
                }
            }
        }
        allocation.all().filter_map(|device| self.places.get(device).cloned()).collect()
    }

    fn put_claim(&mut self, claim: DeviceClaimFacts) -> BTreeSet<String> {
        let mut nodes = BTreeSet::new();
        if let Some(allocation) = &claim.allocation {
            for device in allocation.all() {
                self.held.entry(device.clone()).or_default().insert(claim.key.clone());
            }
            let node = allocation.node.clone().or_else(|| self.node_of(allocation.all().next()?));
            if let Some(node) = node.filter(|_| allocation.all().next().is_some()) {
                self.nodes.entry(node.clone()).or_default().claims.insert(claim.key.clone());
                nodes.insert(node);
            }
        }
        self.claims.insert(claim.key.clone(), claim);
        nodes
    }
}

fn users(of: &BTreeMap<String, BTreeSet<PodKey>>, claim: &str) -> Vec<PodKey> {
    of.get(claim).into_iter().flatten().cloned().collect()
}
