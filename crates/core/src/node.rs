//! A node: what it has, where it stands, what is wrong with its devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::{Class, DeviceId, NodeName};
use crate::time::At;

/// Devices on one node at most: a worker's devices are a mask of this many bits.
pub const MAX_DEVICES: usize = 64;

/// What a node offers beside its devices.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// For our work: what others use is left out. Thousandths of a core.
    pub cpu_milli: u64,
    pub memory_mib: u64,
}

impl Default for NodeSpec {
    /// A node that never lacks CPU or memory.
    fn default() -> Self {
        Self { labels: BTreeMap::new(), taints: Vec::new(), cpu_milli: u64::MAX / 4, memory_mib: u64::MAX / 4 }
    }
}

/// Keeps work away that does not tolerate it, as Kubernetes' taint.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    #[serde(default)]
    pub value: String,
    #[serde(default)]
    pub effect: Effect,
}

/// What a taint does to work that does not tolerate it.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It is not placed there.
    #[default]
    NoSchedule,
    /// It is not placed there, and what runs there is ended by whoever set the taint.
    NoExecute,
}

impl Taint {
    /// A taint of this key without a value.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), value: String::new(), effect: Effect::NoSchedule }
    }
}

/// A node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub spec: Arc<NodeSpec>,
    /// In the order in which they were seen; a device keeps its place.
    pub devices: Vec<Device>,
    /// The node does not answer: everything on it is lost.
    pub gone: bool,
}

/// A device that work can be placed on.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: DeviceId,
    pub node: NodeName,
    pub class: Class,
    pub memory_mib: u64,
    /// Devices of one node with equal islands are joined by `NVLink`.
    pub island: u8,
    /// Can be divided into MIG instances.
    pub mig: bool,
    /// Given away by its name, and only to asks that say so: see [`crate::ask::Ask::named`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub named: bool,
    /// It is a part of a GPU that is given away as it is (a MIG instance that the node's layout fixes), so many thousandths of the
    /// GPU: that is what it counts as in quotas of GPUs of any class, in those of its own class it is one. It is given only to asks that
    /// name its class. Absent: a whole GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u16>,
    pub health: Health,
    /// Since when nothing holds it.
    pub free_since: Option<At>,
}

impl Device {
    /// A healthy device that nothing holds.
    pub fn new(id: impl Into<DeviceId>, node: impl Into<NodeName>, class: impl Into<Class>, memory_mib: u64) -> Self {
        Self {
            id: id.into(),
            node: node.into(),
            class: class.into(),
            memory_mib,
            island: 0,
            mig: false,
            named: false,
            part: None,
            health: Health::Ok,
            free_since: None,
        }
    }
}

/// Thousandths of a GPU that so many thousandths of a device are.
pub fn gpu_milli(part: Option<u16>, milli: u16) -> u16 {
    let of = |part: u16| u16::try_from((u32::from(milli) * u32::from(part)).div_ceil(1000)).unwrap_or(milli);
    part.map_or(milli, of)
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
