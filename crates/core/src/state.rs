//! Everything the engine knows and remembers: integers only, so that equal means equal.

mod job;
mod model;
mod overcommit;
mod past;
mod usage;

pub use job::{End, Group, HOUR_MS, Job, JobSpec, Phase, Progress, Run, Seat, SpeedPoint, Spread, Stop};
pub use model::{Model, ModelMemory, ModelSpec, Replica, ReplicaPhase, ReplicaStop};
pub use overcommit::{Overcommit, Scarce};
pub use past::{FORGOTTEN_AFTER_MS, JobPast, ModelPast, Remembered};
pub use usage::Usage;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::arena::Arena;
pub use crate::ask::{Affinity, Amount, Ask, ClassWish, Preference, Term, Toleration};
use crate::fragment;
use crate::history::History;
use crate::labels::{Labels, Selector};
use crate::names::{Class, DeviceId, JobName, ModelName, Namespace, NodeName, QueueName, ReplicaId};
pub use crate::node::{Device, Health, Node, NodeSpec, Taint};
use crate::plan::{Action, ActionId};
use crate::policy::Policy;
pub use crate::quota::Quota;
use crate::time::At;

/// The window of the cap on evictions.
pub const EVICTION_WINDOW_MS: u64 = 60_000;

/// Namespaces that are known at most, and labels of one: what is beyond stays unknown.
pub const MOST_NAMESPACES: usize = 16_384;
/// See [`MOST_NAMESPACES`].
pub const MOST_LABELS: usize = 128;

/// Version of the snapshot's format.
pub const VERSION: u32 = 4;

/// The whole state. Serialised, it is the snapshot.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub version: u32,
    /// The latest moment that an event or a decision named.
    pub now: At,
    pub policy: Policy,
    pub nodes: Arena<NodeName, Node>,
    /// Node slot and place on it, of each device.
    #[serde(skip)]
    pub(crate) places: BTreeMap<DeviceId, (u32, u32)>,
    pub queues: BTreeMap<QueueName, Queue>,
    /// Queues that are not there, by whose name something runs that may be stopped: nothing is guaranteed to them, all they use
    /// is borrowed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<QueueName>,
    /// Namespaces and their labels, for the selectors of queues.
    pub namespaces: BTreeMap<Namespace, Labels>,
    pub jobs: Arena<JobName, Job>,
    pub models: BTreeMap<ModelName, Model>,
    pub replicas: Arena<ReplicaId, Replica>,
    /// Assumed: ordered, and no outcome yet.
    pub actions: BTreeMap<ActionId, Action>,
    pub next_action: u64,
    pub next_replica: u64,
    /// Stops of running work ordered in the last minute.
    pub evictions: Vec<At>,
    /// Work waits because of the cap on evictions.
    pub eviction_cap_reached: bool,
    /// How long an attempt took to end after it was told to, decayed average.
    pub stop_ms: u64,
    pub usage: Usage,
    pub history: History,
    /// Classes of devices in the order in which they were seen: sets of classes are by this number.
    pub classes: Vec<Class>,
    /// What was asked for so far, and the typical work by which placements are judged.
    pub asked: fragment::History,
    pub mix: fragment::Mix,
    /// Asks since the mix was fitted.
    pub asked_since: u64,
    /// When jobs of responsive queues were put in order.
    pub ranked_at: At,
    /// By job: what will be its own when it starts.
    pub reservations: BTreeMap<u32, Reservation>,
    /// By node: who must leave it at the next decision.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overcommitted: BTreeMap<NodeName, Overcommit>,
    /// What an earlier engine knew of objects that were not seen again yet.
    #[serde(default, skip_serializing_if = "Remembered::is_empty")]
    pub remembered: Remembered,
    /// Something changed since the last decision.
    pub dirty: bool,
    pub wake_at: Option<At>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            now: At::default(),
            policy: Policy::default(),
            nodes: Arena::default(),
            places: BTreeMap::new(),
            queues: BTreeMap::new(),
            gone: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            jobs: Arena::default(),
            models: BTreeMap::new(),
            replicas: Arena::default(),
            actions: BTreeMap::new(),
            next_action: 1,
            next_replica: 1,
            evictions: Vec::new(),
            eviction_cap_reached: false,
            stop_ms: 1_000,
            usage: Usage::default(),
            history: History::default(),
            classes: Vec::new(),
            asked: fragment::History::default(),
            mix: fragment::Mix::default(),
            asked_since: 0,
            ranked_at: At::default(),
            reservations: BTreeMap::new(),
            overcommitted: BTreeMap::new(),
            remembered: Remembered::default(),
            dirty: true,
            wake_at: None,
        }
    }
}

/// Devices that are kept for a job which cannot start yet.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// When what holds them is expected to be over.
    pub at: At,
    pub made: At,
    pub seats: Vec<Seat>,
}

/// A node of the quota tree.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Absent: right below the pool.
    pub parent: Option<QueueName>,
    pub quotas: BTreeMap<Resource, Quota>,
    /// Share of what is left over among siblings, in thousandths.
    pub weight_milli: u32,
    /// Among siblings, of what is beyond guarantees: the higher goes first and gives back last.
    pub priority: i32,
    pub discipline: Discipline,
    /// GPU-milliseconds that work of it and of those below may have used (what is as old as [`Policy::half_life_ms`] counts
    /// half); above, it waits for others and takes from nobody. Absent: no limit.
    pub budget_ms: Option<u64>,
    /// Namespaces that may submit here and below; absent: all.
    pub namespaces: Option<Selector>,
}

/// What quota is counted in: thousandths of a GPU, thousandths of a core, MiB.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(into = "String", from = "String")]
pub enum Resource {
    /// GPUs of any class.
    Gpu,
    /// GPUs of one class.
    Class(Class),
    Cpu,
    Memory,
}

impl From<Resource> for String {
    fn from(resource: Resource) -> Self {
        match resource {
            Resource::Gpu => "gpu".to_owned(),
            Resource::Class(Class(class)) => format!("gpu/{class}"),
            Resource::Cpu => "cpu".to_owned(),
            Resource::Memory => "memory".to_owned(),
        }
    }
}

impl From<String> for Resource {
    fn from(text: String) -> Self {
        match text.as_str() {
            "gpu" => Self::Gpu,
            "cpu" => Self::Cpu,
            "memory" => Self::Memory,
            other => Self::Class(other.strip_prefix("gpu/").unwrap_or(other).into()),
        }
    }
}

/// In which order a queue's jobs of equal priority are let in.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discipline {
    /// The oldest, or nobody.
    StrictFifo,
    /// The oldest that can start; the first that cannot is given a reservation.
    #[default]
    BestEffort,
    /// Those first that are expected to be done soonest, and running ones yield to them; age decides in the end.
    Responsive,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            parent: None,
            quotas: BTreeMap::new(),
            weight_milli: 1000,
            priority: 0,
            discipline: Discipline::BestEffort,
            budget_ms: None,
            namespaces: None,
        }
    }
}

impl Queue {
    /// Devices of any class: its own, and above them (absent: all there is).
    pub fn devices(nominal: u32, borrowing_limit: Option<u32>) -> Self {
        let quota = Quota {
            nominal: i64::from(nominal) * 1000,
            borrowing_limit: borrowing_limit.map(|limit| i64::from(limit) * 1000),
            lending_limit: None,
        };
        Self { quotas: BTreeMap::from([(Resource::Gpu, quota)]), ..Self::default() }
    }

    /// Thousandths of devices of any class that are its own.
    pub fn nominal_milli(&self) -> u64 {
        self.quotas.get(&Resource::Gpu).map_or(0, |quota| u64::try_from(quota.nominal).unwrap_or(0))
    }
}

impl State {
    /// All devices in the order of their nodes' names.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.nodes.values().flat_map(|node| &node.devices)
    }

    /// The device of an id.
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        let (node, index) = self.places.get(id)?;
        self.nodes.at(*node)?.devices.get(*index as usize)
    }

    /// The devices of a seat.
    pub fn devices_of(&self, seat: &Seat) -> impl Iterator<Item = &Device> {
        let devices = self.nodes.at(seat.node).map_or(&[][..], |node| &node.devices);
        crate::cluster::bits(seat.mask).filter_map(|index| devices.get(index))
    }

    /// Rebuilds what is derived from the rest: where each device is.
    pub(crate) fn index_devices(&mut self) {
        let all = self.nodes.slots().flat_map(|(ix, _, node)| {
            (0_u32..).zip(&node.devices).map(move |(index, device)| (device.health, device.id.clone(), (ix, index)))
        });
        // A device that was moved is listed as lost where it was.
        let (lost, here): (Vec<_>, Vec<_>) = all.partition(|(health, ..)| *health == Health::Lost);
        self.places = lost.into_iter().chain(here).map(|(_, id, place)| (id, place)).collect();
    }
}
