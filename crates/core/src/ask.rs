//! What one worker or replica asks of a node: GPUs or a part of one, CPU, memory, and which nodes will do.

pub mod affinity;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mig::Profile;
use crate::names::Class;
use crate::node::{Device, Effect, NodeSpec, Taint, gpu_milli};

pub use affinity::{Affinity, Preference, Term};

/// What one worker asks for. All of it is on one node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask {
    pub amount: Amount,
    /// Classes that will do and how fast each is; empty: any.
    pub classes: Vec<ClassWish>,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// Node labels: each key must have one of the values.
    pub selector: BTreeMap<String, Vec<String>>,
    /// Taints that it puts up with.
    pub tolerations: Vec<Toleration>,
    /// Node labels by expressions: where it must be, and where it would rather be.
    #[serde(default)]
    pub affinity: Affinity,
    /// It is given devices by their names (a claim of a cluster names them), or such as are given away as a number. A node may have
    /// both, and what is given in one way is never given in the other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub named: bool,
}

/// A GPU class that will do.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassWish {
    pub class: Class,
    /// Throughput on it, in thousandths of the reference; faster is preferred.
    pub speed_milli: u32,
    /// Whole devices of it that do what the ask wants of others (three T4 for one V100); 0: as many as the ask says.
    #[serde(default)]
    pub devices: u32,
}

/// Taints that work puts up with, as Kubernetes' toleration: what is absent is any.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Toleration {
    pub key: Option<String>,
    pub value: Option<String>,
    pub effect: Option<Effect>,
}

impl Toleration {
    /// Every taint of this key.
    pub fn of(key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// Whether it puts up with the taint.
    pub fn covers(&self, taint: &Taint) -> bool {
        self.key.as_ref().is_none_or(|key| *key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
            && self.effect.is_none_or(|effect| effect == taint.effect)
    }
}

/// How much GPU.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Amount {
    /// CPU and memory alone.
    None,
    /// This many whole devices of one node.
    Whole(u32),
    /// A share of one device's memory; compute is shared in proportion.
    MemoryMib(u64),
    /// Thousandths of one device, of its compute and of its memory (a time slice or an MPS share).
    Milli(u16),
    /// Thousandths of one device's compute beside MiB of its memory: what a model needs that takes turns with others.
    Slice { milli: u16, mib: u64 },
    /// A MIG instance.
    Mig(Profile),
}

impl Default for Amount {
    fn default() -> Self {
        Self::Whole(1)
    }
}

impl Ask {
    /// Whole devices of any class, and nothing else.
    pub fn whole(devices: u32) -> Self {
        Self { amount: Amount::Whole(devices), ..Self::default() }
    }

    /// Some of one device's memory.
    pub fn memory(mib: u64) -> Self {
        Self { amount: Amount::MemoryMib(mib), ..Self::default() }
    }

    /// Whether nodes with these labels and taints will do.
    pub fn suits_node(&self, node: &NodeSpec) -> bool {
        let labels = self.selector.iter().all(|(key, values)| node.labels.get(key).is_some_and(|value| values.contains(value)));
        let tolerated = |taint: &Taint| self.tolerations.iter().any(|toleration| toleration.covers(taint));
        labels && self.affinity.allows(&node.labels) && node.taints.iter().all(tolerated)
    }

    /// Whether the device's class and size would do, whoever holds it.
    pub fn suits(&self, device: &Device) -> bool {
        self.class_suits(&device.class, device.part.is_some())
            && self.named == device.named
            && match self.amount {
                Amount::MemoryMib(mib) | Amount::Slice { mib, .. } => mib <= device.memory_mib,
                Amount::Mig(_) => device.mig,
                Amount::None | Amount::Whole(_) | Amount::Milli(_) => true,
            }
    }

    /// Whether the class is wished for: a part of a GPU ([`Device::part`]) only by its name.
    pub fn class_suits(&self, class: &Class, is_part: bool) -> bool {
        (self.classes.is_empty() && !is_part) || self.classes.iter().any(|wish| wish.class == *class)
    }

    /// Throughput on a class, in thousandths of the reference.
    pub fn speed_milli(&self, class: &Class) -> u32 {
        self.classes.iter().find(|wish| wish.class == *class).map_or(1000, |wish| wish.speed_milli)
    }

    /// The same ask on one class alone.
    #[must_use]
    pub fn on_class(&self, class: &Class) -> Self {
        let known = self.classes.iter().find(|wish| wish.class == *class).cloned();
        let wish = known.unwrap_or_else(|| ClassWish::from(class.clone()));
        let amount = match self.amount {
            Amount::Whole(_) if wish.devices > 0 => Amount::Whole(wish.devices),
            amount => amount,
        };
        Self { amount, classes: vec![wish], ..self.clone() }
    }

    /// The same ask on nodes that fulfil its heaviest wish alone: for gangs, whose nodes are chosen by how many workers fit.
    pub fn where_preferred(&self) -> Option<Self> {
        let wishes = self.affinity.preferred.iter().rev();
        let Term(wish) = &wishes.max_by_key(|wish| wish.weight)?.term;
        let both = |Term(required): &Term| Term([required.as_slice(), wish.as_slice()].concat());
        let required = self.affinity.required.iter().map(both).collect::<Vec<_>>();
        let required = if required.is_empty() { vec![Term(wish.clone())] } else { required };
        Some(Self { affinity: Affinity { required, ..self.affinity.clone() }, ..self.clone() })
    }

    /// Devices that it touches.
    pub fn devices(&self) -> u32 {
        match self.amount {
            Amount::None => 0,
            Amount::Whole(devices) => devices,
            Amount::MemoryMib(_) | Amount::Milli(_) | Amount::Slice { .. } | Amount::Mig(_) => 1,
        }
    }

    /// Whether it takes whole devices (or none): no other holder may be on them.
    pub fn is_exclusive(&self) -> bool {
        matches!(self.amount, Amount::Whole(_) | Amount::None)
    }

    /// Thousandths of a GPU that it takes of each device that it touches.
    pub fn milli_on(&self, device: &Device) -> u16 {
        let milli = match self.amount {
            Amount::None => 0,
            Amount::Whole(_) => 1000,
            Amount::Milli(milli) | Amount::Slice { milli, .. } => milli.clamp(1, 1000),
            Amount::Mig(profile) => profile.milli(),
            Amount::MemoryMib(mib) => {
                u16::try_from((mib * 1000).div_ceil(device.memory_mib.max(1)).clamp(1, 1000)).unwrap_or(1000)
            }
        };
        gpu_milli(device.part, milli)
    }

    /// Memory that it takes of each device that it touches.
    pub fn mib_on(&self, device: &Device) -> u64 {
        match self.amount {
            Amount::None => 0,
            Amount::Whole(_) => device.memory_mib,
            Amount::MemoryMib(mib) | Amount::Slice { mib, .. } => mib,
            Amount::Milli(milli) => device.memory_mib * u64::from(milli.min(1000)) / 1000,
            Amount::Mig(profile) => device.memory_mib * u64::from(profile.memory_slices()) / 8,
        }
    }
}

impl From<Class> for ClassWish {
    fn from(class: Class) -> Self {
        Self { class, speed_milli: 1000, devices: 0 }
    }
}
