//! The free capacity of one node and its devices.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ask::{Amount, Ask};
use crate::names::Class;
use crate::node::{Health, Node, NodeSpec};

/// Who holds a claim: a slot of the state's jobs or replicas.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    Job(u32),
    Replica(u32),
}

/// What one worker takes of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its devices, by bit.
    pub mask: u64,
    /// MIG slices of its one device.
    pub slices: u8,
    /// Thousandths and memory of each of its devices.
    pub milli: u16,
    pub mib: u64,
    pub cpu_milli: u64,
    pub memory_mib: u64,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFree {
    pub class: Class,
    /// The class's number in the state.
    pub class_ix: u16,
    pub memory_mib: u64,
    pub island: u8,
    pub mig: bool,
    pub named: bool,
    /// See [`crate::node::Device::part`].
    pub part: Option<u16>,
    /// Takes new work.
    pub usable: bool,
    /// Not firmly claimed.
    pub milli: u16,
    pub mib: u64,
    /// MIG slices that are firmly claimed.
    pub slices: u8,
    /// Firm claims, and claims that are about to end.
    pub firm: u16,
    pub releasing: u16,
    /// Slices that are about to be free.
    pub releasing_slices: u8,
}

/// A claim that is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Releasing {
    pub holder: Holder,
    pub claim: Claim,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFree {
    pub spec: Arc<NodeSpec>,
    /// It was seen and is not gone.
    pub present: bool,
    /// What its description allows less what is firmly claimed; negative after a cut.
    pub cpu_milli: i64,
    pub memory_mib: i64,
    pub devices: Vec<DeviceFree>,
    /// Free thousandths by device, 0 for one that takes no work: what the fragmentation score reads.
    pub free: Vec<u16>,
    pub releasing: Vec<Releasing>,
    /// Rises when anything but the claims changes.
    pub revision: u32,
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

impl NodeFree {
    /// Takes in what the node is; claims are kept.
    pub fn set(&mut self, node: &Node, classes: &[Class]) {
        self.cpu_milli = self.cpu_milli.saturating_add(signed(node.spec.cpu_milli)).saturating_sub(self.base_cpu());
        self.memory_mib = self.memory_mib.saturating_add(signed(node.spec.memory_mib)).saturating_sub(self.base_memory());
        self.present = !node.gone;
        for (index, device) in node.devices.iter().enumerate() {
            let usable = device.health == Health::Ok && !node.gone;
            let class_ix = classes.iter().position(|class| *class == device.class);
            let class_ix = class_ix.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX);
            if let Some(known) = self.devices.get_mut(index) {
                let used = known.memory_mib.saturating_sub(known.mib);
                known.mib = device.memory_mib.saturating_sub(used);
                (known.memory_mib, known.class, known.class_ix) = (device.memory_mib, device.class.clone(), class_ix);
                (known.island, known.mig, known.usable) = (device.island, device.mig, usable);
                (known.named, known.part) = (device.named, device.part);
            } else {
                self.devices.push(DeviceFree {
                    class: device.class.clone(),
                    class_ix,
                    memory_mib: device.memory_mib,
                    island: device.island,
                    mig: device.mig,
                    named: device.named,
                    part: device.part,
                    usable,
                    milli: 1000,
                    mib: device.memory_mib,
                    slices: 0,
                    firm: 0,
                    releasing: 0,
                    releasing_slices: 0,
                });
            }
        }
        self.spec = node.spec.clone();
        self.revision += 1;
        self.read_free(u64::MAX);
    }

    /// Zero for a node that was never seen.
    fn base_cpu(&self) -> i64 {
        if self.revision == 0 { 0 } else { signed(self.spec.cpu_milli) }
    }

    fn base_memory(&self) -> i64 {
        if self.revision == 0 { 0 } else { signed(self.spec.memory_mib) }
    }

    fn read_free(&mut self, mask: u64) {
        self.free.resize(self.devices.len(), 0);
        for (index, device) in self.devices.iter().enumerate() {
            if mask >> index & 1 == 1 {
                self.free[index] = if device.usable { device.milli } else { 0 };
            }
        }
    }

    fn each(&mut self, claim: &Claim, change: impl Fn(&mut DeviceFree)) {
        for index in bits(claim.mask) {
            if let Some(device) = self.devices.get_mut(index) {
                change(device);
            }
        }
        self.read_free(claim.mask);
    }

    pub(super) fn claim(&mut self, claim: &Claim) {
        self.cpu_milli -= signed(claim.cpu_milli);
        self.memory_mib -= signed(claim.memory_mib);
        self.each(claim, |device| {
            device.milli = device.milli.saturating_sub(claim.milli);
            device.mib = device.mib.saturating_sub(claim.mib);
            device.slices |= claim.slices;
            device.firm += 1;
        });
    }

    pub(super) fn release(&mut self, claim: &Claim) {
        self.cpu_milli += signed(claim.cpu_milli);
        self.memory_mib += signed(claim.memory_mib);
        self.each(claim, |device| {
            device.milli += claim.milli;
            device.mib += claim.mib;
            device.slices &= !claim.slices;
            device.firm -= 1;
        });
    }

    pub(super) fn loosen(&mut self, claim: &Claim, holder: Holder) {
        self.release(claim);
        self.unsettle(claim, holder);
    }

    pub(super) fn unloosen(&mut self, claim: &Claim, holder: Holder) {
        self.settle(claim, holder);
        self.claim(claim);
    }

    pub(super) fn settle(&mut self, claim: &Claim, holder: Holder) {
        let mine = |releasing: &Releasing| releasing.holder == holder && releasing.claim == *claim;
        if let Some(at) = self.releasing.iter().rposition(mine) {
            self.releasing.swap_remove(at);
        }
        // A claim that was placed on slices that are about to be free may be about to end too: slices of both overlap.
        for index in bits(claim.mask) {
            let others = self.releasing.iter().filter(|other| other.claim.mask >> index & 1 == 1);
            let slices = others.fold(0, |slices, other| slices | other.claim.slices);
            if let Some(device) = self.devices.get_mut(index) {
                device.releasing -= 1;
                device.releasing_slices = slices;
            }
        }
        self.read_free(claim.mask);
    }

    pub(super) fn unsettle(&mut self, claim: &Claim, holder: Holder) {
        self.releasing.push(Releasing { holder, claim: *claim });
        self.each(claim, |device| {
            device.releasing += 1;
            device.releasing_slices |= claim.slices;
        });
    }

    /// Devices that suit the ask and take work, whoever holds them; 0 when the node itself will not do.
    pub fn eligible(&self, ask: &Ask) -> u64 {
        if !self.present || !ask.suits_node(&self.spec) {
            return 0;
        }
        let suits = |device: &DeviceFree| {
            device.usable
                && ask.class_suits(&device.class, device.part.is_some())
                && ask.named == device.named
                && match ask.amount {
                    Amount::MemoryMib(mib) | Amount::Slice { mib, .. } => mib <= device.memory_mib,
                    Amount::Mig(_) => device.mig,
                    Amount::None | Amount::Whole(_) | Amount::Milli(_) => true,
                }
        };
        let mask = self.devices.iter().enumerate().filter(|(_, device)| suits(device)).map(|(index, _)| 1 << index).sum();
        // An ask without devices suits every node: the mask only says so.
        if ask.amount == Amount::None { u64::MAX } else { mask }
    }

    /// CPU and memory that are free only after the releases.
    pub fn releasing_cpu_memory(&self) -> (i64, i64) {
        self.releasing.iter().fold((0, 0), |(cpu, memory), releasing| {
            (cpu + signed(releasing.claim.cpu_milli), memory + signed(releasing.claim.memory_mib))
        })
    }

    /// Whether CPU or memory is firmly claimed.
    pub fn is_used(&self) -> bool {
        self.cpu_milli < signed(self.spec.cpu_milli) || self.memory_mib < signed(self.spec.memory_mib)
    }

    /// Whether nothing claims the device.
    pub fn is_free(&self, index: usize) -> bool {
        self.devices.get(index).is_some_and(|device| device.firm == 0 && device.releasing == 0)
    }
}

/// The set bits of a mask, ascending.
pub fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let index = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            index
        })
    })
}
