//! Everything the engine knows and remembers: integers only, so that equal means equal.

mod job;
mod model;
mod usage;

pub use job::{End, Job, JobSpec, Phase, Progress, Run, Stop};
pub use model::{Model, ModelSpec, Replica, ReplicaPhase, ReplicaStop};
pub use usage::Usage;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{Class, DeviceId, JobName, ModelName, QueueName, ReplicaId};
use crate::plan::{Action, ActionId};
use crate::policy::Policy;
use crate::time::At;

/// The window of the cap on evictions.
pub const EVICTION_WINDOW_MS: u64 = 60_000;

/// Version of the snapshot's format.
pub const VERSION: u32 = 1;

/// The whole state. Serialised, it is the snapshot.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub version: u32,
    /// The latest moment that an event or a decision named.
    pub now: At,
    pub policy: Policy,
    pub devices: BTreeMap<DeviceId, Device>,
    pub queues: BTreeMap<QueueName, Queue>,
    pub jobs: BTreeMap<JobName, Job>,
    pub models: BTreeMap<ModelName, Model>,
    pub replicas: BTreeMap<ReplicaId, Replica>,
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
            devices: BTreeMap::new(),
            queues: BTreeMap::new(),
            jobs: BTreeMap::new(),
            models: BTreeMap::new(),
            replicas: BTreeMap::new(),
            actions: BTreeMap::new(),
            next_action: 1,
            next_replica: 1,
            evictions: Vec::new(),
            eviction_cap_reached: false,
            stop_ms: 1_000,
            usage: Usage::default(),
            dirty: true,
            wake_at: None,
        }
    }
}

/// A device that work can be placed on.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub class: Class,
    pub memory_mib: u64,
    pub health: Health,
    /// Since when nothing holds it.
    pub free_since: Option<At>,
}

/// Whether a device takes work.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Ok,
    /// Taken out of use by a person.
    Draining,
    /// Gone or broken.
    Lost,
}

/// A node of the quota, in devices.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    pub nominal: u32,
    /// Above nominal; absent: all there is.
    pub borrowing_limit: Option<u32>,
}

/// What one worker or replica asks of one device.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub amount: Amount,
    /// Classes that will do; empty: any.
    pub classes: Vec<Class>,
}

/// How much of a device.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// All of it.
    Whole,
    /// A share of its memory.
    MemoryMib(u64),
}

impl Ask {
    /// Whether the device's class and size would do, whoever holds it.
    pub fn suits(&self, device: &Device) -> bool {
        let class = self.classes.is_empty() || self.classes.contains(&device.class);
        class && self.mib_on(device) <= device.memory_mib
    }

    /// Memory that it takes of this device.
    pub fn mib_on(&self, device: &Device) -> u64 {
        match self.amount {
            Amount::Whole => device.memory_mib,
            Amount::MemoryMib(mib) => mib,
        }
    }

    /// Thousandths of this device, at least 1.
    pub fn milli_on(&self, device: &Device) -> u64 {
        match self.amount {
            Amount::Whole => 1000,
            Amount::MemoryMib(mib) => (mib * 1000).div_ceil(device.memory_mib.max(1)).clamp(1, 1000),
        }
    }
}
