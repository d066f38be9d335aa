//! The cluster as the engine must hear of it. Pure: objects in, events and writes out; no clock, no API, no task.
//!
//! ```text
//!   Node, Pod, Queue ... ──observe──> events ──> Engine ──plan──> perform ──> writes ──> API
//!                           ▲                                                  │
//!                           └──────────── what became of them (written) ───────┘
//! ```
//!
//! * Nodes' GPUs are counts: the engine gives away slots, and which device a slot is, the kubelet decides.
//! * Pods of one gang, or one pod alone, are a *unit*: a job of the engine ([`unit`]).
//! * Objects that wait suspended are jobs of the engine too, and their pods take the seats that these were given ([`adopted`]).
//! * What other schedulers place is capacity that is gone: CPU and memory are left out of the node's, GPUs are held by a job that
//!   is never stopped.

mod adopted;
mod amounts;
mod around;
mod carry;
mod claims;
mod devices;
mod drift;
mod model;
mod nodes;
mod note;
mod overcommit;
mod rest;
mod settle;
mod shared;
mod slots;
mod training;
mod unit;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_api::labels;
use tidegate_core::names::{JobName, ModelName};
use tidegate_core::state::JobSpec;
use tidegate_core::time::At;
use tidegate_core::{Engine, Event};

use crate::facts::pod;
use crate::facts::{Beside, BesideKind, DeviceKind, DeviceObject, NodeFacts, PodFacts, PodKey};
use adopted::Adopted;
use around::Around;
pub use carry::{Failure, Maker, Ours, Write};
use claims::{ClaimJobs, Making};
use devices::Devices;
pub use drift::Listed;
use model::Model;
pub use model::{Replicas, Serving};
use nodes::Nodes;
pub use note::Note;
use overcommit::Episode;
pub use overcommit::Repair;
use shared::Shared;
use training::Training;
pub use training::{Refused, Report};
use unit::{Unit, UnitId};

/// An object was seen, or is gone.
#[derive(Clone, Debug)]
pub enum Change<T, K> {
    Is(T),
    Gone(K),
}

/// A pod and where it counts.
#[derive(Clone, Debug)]
struct Entry {
    /// With what other objects add to what it says.
    facts: PodFacts,
    /// What it says alone, if others may add to it.
    said: Option<Arc<pod::Ours>>,
    unit: Option<UnitId>,
    /// Why it does not run, as it was last told; of one that is bound nobody asks.
    told: Option<Box<Told>>,
}

/// A reason that was told, and in which round.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    message: String,
    round: u32,
}

impl Told {
    /// Whether a message is news: another one than was told. If only its numbers and moments are others, it has time.
    fn is_news(&self, message: &str, round: u32) -> bool {
        self.message != message && (self.has_other_words(message) || round.wrapping_sub(self.round) >= NUMBERS_AFTER)
    }

    /// Whether more than numbers and moments is other than was told.
    fn has_other_words(&self, message: &str) -> bool {
        let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        words(&self.message) != words(message)
    }
}

/// Rounds (see [`Index::ask_again`]) after which other numbers in a reason are told: ten minutes.
const NUMBERS_AFTER: u32 = 40;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Index {
    nodes: Nodes,
    around: Around,
    devices: Devices,
    claim_jobs: ClaimJobs,
    /// Pods of workers and replicas that are not bound yet, since they claim their devices by name.
    making: BTreeMap<PodKey, Making>,
    pods: BTreeMap<PodKey, Entry>,
    /// What pods say of themselves, and what units ask for: that of thousands is alike.
    ours: Shared<pod::Ours>,
    specs: Shared<JobSpec>,
    units: BTreeMap<UnitId, Unit>,
    jobs: BTreeMap<JobName, UnitId>,
    /// Whose waiting pods are to be told why, round and round.
    to_tell: BTreeSet<UnitId>,
    trainings: BTreeMap<PodKey, Training>,
    /// Training jobs whose status may read otherwise now.
    status_due: BTreeSet<PodKey>,
    models: BTreeMap<PodKey, Model>,
    /// Models of one name, the oldest first: it has the name.
    names: BTreeMap<ModelName, BTreeSet<(At, PodKey)>>,
    /// Models whose status may read otherwise now; and whether what routers are told may.
    model_status_due: BTreeSet<PodKey>,
    routes_due: bool,
    serving: Serving,
    /// Objects that wait suspended, by `KIND.GROUP/NAMESPACE/NAME`, and those of them that are to be told why.
    adopted: BTreeMap<Arc<str>, Adopted>,
    adopted_due: BTreeSet<Arc<str>>,
    /// Every kind was listed.
    begun: bool,
    /// Where workers post their progress; absent: nowhere.
    progress_url: Option<String>,
    /// Counts the times that everybody who waits was looked at.
    round: u32,
    /// Starts that wait for volumes.
    held: BTreeSet<UnitId>,
    /// Nodes of which more is asked than they have.
    overcommits: BTreeMap<String, Episode>,
    /// Writes that came of what was seen: of a unit that is being stopped.
    writes: Vec<Write>,
}

impl Index {
    /// An empty one, whose training jobs post their progress there, and what replicas are told.
    pub fn new(progress_url: Option<String>, serving: Serving) -> Self {
        Self { serving, progress_url, ..Self::default() }
    }

    /// Every kind was listed: what runs of gangs and training jobs is known.
    pub fn begin(&mut self) -> Vec<Event> {
        self.begun = true;
        // Routers are told what there is, though it be no model: by that they are ready.
        self.routes_due = true;
        let units: Vec<UnitId> = self.units.keys().cloned().collect();
        let mut events: Vec<Event> = units.iter().flat_map(|id| self.settle(id)).collect();
        let keys: Vec<PodKey> = self.trainings.keys().cloned().collect();
        events.extend(keys.iter().flat_map(|key| self.look_at_training(key)));
        let keys: Vec<PodKey> = self.models.keys().cloned().collect();
        events.extend(keys.iter().flat_map(|key| self.look_at_model(key)));
        events.extend(self.begin_adopted());
        self.devices.touch_all();
        events.extend(self.look_at_claims());
        events
    }

    /// A node, or that it is gone.
    pub fn node(&mut self, change: Change<NodeFacts, String>, engine: &Engine) -> Vec<Event> {
        match change {
            Change::Is(facts) => {
                let (name, class) = (facts.name.clone(), facts.labels.get(labels::GPU_CLASS).cloned());
                let mut events = self.nodes.set(facts, engine);
                events.extend(self.node_of_devices(&name, true, class));
                events
            }
            Change::Gone(name) => {
                let mut events = self.nodes.gone(&name);
                events.extend(self.node_of_devices(&name, false, None));
                events
            }
        }
    }

    /// What nodes have ceased to offer goes once it is free; to be told before each decision, which would give it away.
    pub fn lose_free_devices(&mut self, engine: &Engine) -> Vec<Event> {
        self.nodes.lose_free_devices(engine)
    }

    /// A pod, or that it is gone.
    pub fn pod(&mut self, change: Change<PodFacts, PodKey>) -> Vec<Event> {
        match change {
            Change::Is(facts) => {
                // Deleted and made again under the same name between two looks.
                let replaced = self.pods.get(&facts.key).is_some_and(|known| known.facts.uid != facts.uid);
                let mut events = if replaced { self.forget(&facts.key.clone()) } else { Vec::new() };
                events.extend(self.know(facts));
                events.extend(self.look_at_claims());
                events
            }
            Change::Gone(key) => {
                let mut events = self.forget(&key);
                events.extend(self.look_at_claims());
                events
            }
        }
    }

    /// An object beside pods.
    pub fn beside(&mut self, object: Beside) -> Vec<Event> {
        let kind = object.kind();
        let pods = self.around.set(object);
        self.look_around(kind, pods)
    }

    /// An object beside pods is gone.
    pub fn beside_gone(&mut self, kind: BesideKind, key: &str) -> Vec<Event> {
        let pods = self.around.gone(kind, key);
        self.look_around(kind, pods)
    }

    fn look_around(&mut self, kind: BesideKind, pods: Vec<PodKey>) -> Vec<Event> {
        let mut events = self.look_again(pods);
        if matches!(kind, BesideKind::Claim | BesideKind::Volume) {
            events.extend(self.look_at_users_of_volumes());
            events.extend(self.look_at_models_with_volumes());
        }
        events.extend(self.look_at_adopted_around(kind));
        events.extend(self.look_at_claims());
        events
    }

    /// An object that says something of devices.
    pub fn device(&mut self, object: DeviceObject) -> Vec<Event> {
        let changed = self.devices.set(object);
        self.devices_changed(changed)
    }

    /// An object that said something of devices is gone.
    pub fn device_gone(&mut self, kind: DeviceKind, key: &str) -> Vec<Event> {
        let changed = self.devices.gone(kind, key);
        self.devices_changed(changed)
    }

    /// Keys of all known objects of a kind.
    pub fn device_keys(&self, kind: DeviceKind) -> Vec<String> {
        self.devices.keys(kind)
    }

    /// Keys of all known objects of a kind.
    pub fn beside_keys(&self, kind: BesideKind) -> Vec<String> {
        self.around.keys(kind)
    }

    /// What is to be written because of what was seen.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// Keys of all pods that are known: what a fresh list does not hold is gone.
    pub fn pod_keys(&self) -> impl Iterator<Item = &PodKey> {
        self.pods.keys()
    }

    /// Names of all nodes that are known and not gone.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        self.nodes.names()
    }

    /// Pods that are known, how many of them are ours, and how many of those wait.
    pub fn counts(&self) -> Counts {
        let ours = || self.pods.values().filter(|entry| entry.facts.ours.is_some());
        Counts {
            pods: self.pods.len(),
            ours: ours().count(),
            waiting: ours().filter(|entry| entry.facts.node.is_none() && !entry.facts.phase.is_over()).count(),
            units: self.units.len(),
            replicas: self.replicas(),
        }
    }

    /// Whether a pod is bound and has not ended.
    fn holds(&self, pod: &PodKey) -> bool {
        self.pods.get(pod).is_some_and(|entry| entry.facts.holds())
    }

    /// As what the engine knows a pod.
    pub fn known_as(&self, pod: &PodKey) -> Option<Known> {
        let Entry { facts, unit, .. } = self.pods.get(pod)?;
        if let Some(unit) = unit {
            return self.units.get(unit).map(|unit| Known::Job(unit.job()));
        }
        let replica = facts.replica.as_ref().map(|of| Known::Model(ModelName::from(of.model.name())));
        let worker = || facts.worker.as_ref().map(|of| Known::Job(training::name(&of.job)));
        let seat = || self.job_of_seat(&facts.seat.as_ref()?.object).map(Known::Job);
        replica.or_else(worker).or_else(seat)
    }

    fn look_again(&mut self, pods: Vec<PodKey>) -> Vec<Event> {
        let mut events = Vec::new();
        let held: BTreeSet<UnitId> = pods.iter().filter_map(|key| self.pods.get(key)?.unit.clone()).collect();
        for key in pods {
            let said = |entry: &Entry| PodFacts { ours: entry.said.clone(), ..entry.facts.clone() };
            let facts = self.pods.get(&key).filter(|entry| entry.said.is_some()).map(said);
            events.extend(facts.map(|facts| self.know(facts)).unwrap_or_default());
        }
        for id in held.intersection(&self.held.clone()) {
            events.extend(self.look_at_held(id));
        }
        events
    }

    /// What the pod says of itself is kept once, if others say the same.
    pub fn share(&mut self, pod: &mut PodFacts) {
        pod.ours = pod.ours.take().map(|ours| self.ours.share(ours));
    }

    fn know(&mut self, mut facts: PodFacts) -> Vec<Event> {
        let key = facts.key.clone();
        let said = facts.needs.as_ref().and_then(|_| facts.ours.clone());
        self.around.complete(&mut facts);
        let mut events = self.complete_devices(&mut facts);
        self.share(&mut facts);
        events.extend(self.regroup(&facts));
        let known = self.pods.remove(&key);
        let was = known.as_ref().and_then(|known| known.unit.clone());
        let told = known.as_ref().and_then(|known| known.told.clone()).filter(|_| facts.node.is_none());
        let touched = self.around.count(known.as_ref().map(|known| &known.facts), Some(&facts));
        self.devices.count(known.as_ref().map(|known| &known.facts), Some(&facts));
        events.extend(self.nodes.count(known.as_ref().map(|known| &known.facts), Some(&facts)));
        let unit = was.filter(|unit| self.units.get(unit).is_some_and(|unit| unit.has(&key)));
        // One that is over holds nothing, whoever sees it for the first time.
        let unit = unit.or_else(|| UnitId::of(&facts).filter(|_| !facts.phase.is_over()));
        let has_problem = facts.ours.as_ref().is_some_and(|ours| ours.problem.is_some()) && facts.node.is_none();
        self.to_tell.extend(unit.clone().filter(|_| has_problem));
        let worker = facts.worker.clone().filter(|_| unit.is_none());
        let replica = facts.replica.clone().filter(|_| unit.is_none());
        self.devices.touch(&facts);
        let seat = facts.seat.as_ref().map(|seat| seat.object.clone()).filter(|_| unit.is_none());
        self.pods.insert(key.clone(), Entry { facts, said, unit: None, told });
        if let Some(id) = unit {
            events.extend(self.enter(&key, &id));
        } else if let Some(of) = worker {
            events.extend(self.worker_seen(&key, &of));
        } else if let Some(of) = replica {
            events.extend(self.replica_seen(&key, &of));
        } else if let Some(object) = seat {
            events.extend(self.seat_seen(&key, &object));
        }
        events.extend(self.look_again(touched));
        events
    }

    /// The pod is one of a unit.
    fn enter(&mut self, key: &PodKey, id: &UnitId) -> Vec<Event> {
        if let Some(entry) = self.pods.get_mut(key) {
            entry.unit = Some(id.clone());
        }
        self.units.entry(id.clone()).or_insert_with(|| Unit::new(id)).members.insert(key.clone(), ());
        self.settle(id)
    }

    /// A pod that waits and is of another gang now, or of none any more, leaves the one that it was of.
    fn regroup(&mut self, facts: &PodFacts) -> Vec<Event> {
        let gang = |facts: &PodFacts| facts.ours.as_ref().and_then(|ours| Some(ours.gang.as_ref()?.name.clone()));
        let known = self.pods.get(&facts.key).filter(|known| !known.facts.holds() && gang(&known.facts) != gang(facts));
        let Some(id) = known.and_then(|known| known.unit.clone()) else { return Vec::new() };
        let Some(unit) = self.units.get_mut(&id) else { return Vec::new() };
        if unit.run().is_some_and(|run| run.placed.contains_key(&facts.key)) {
            return Vec::new();
        }
        unit.members.remove(&facts.key);
        self.settle(&id)
    }

    fn forget(&mut self, key: &PodKey) -> Vec<Event> {
        let Some(entry) = self.pods.remove(key) else { return Vec::new() };
        let touched = self.around.count(Some(&entry.facts), None);
        self.devices.count(Some(&entry.facts), None);
        self.devices.touch(&entry.facts);
        let mut events = self.nodes.count(Some(&entry.facts), None);
        events.extend(self.leave_devices(key));
        self.making.remove(key);
        if let Some(id) = entry.unit {
            if let Some(unit) = self.units.get_mut(&id) {
                unit.members.remove(key);
            }
            events.extend(self.settle(&id));
        } else if let Some(of) = &entry.facts.worker {
            events.extend(self.worker_gone(key, of));
        } else if let Some(of) = &entry.facts.replica {
            events.extend(self.replica_gone(key, of));
        } else if let Some(seat) = &entry.facts.seat {
            events.extend(self.seat_gone(key, &seat.object));
        }
        events.extend(self.look_again(touched));
        events
    }
}

/// See [`Index::known_as`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    Job(JobName),
    Model(ModelName),
}

/// See [`Index::counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub pods: usize,
    pub ours: usize,
    pub waiting: usize,
    pub units: usize,
    pub replicas: Replicas,
}

#[cfg(test)]
mod tests;
