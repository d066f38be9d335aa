//! What a rule can see of a node; equal nodes are one state.

use std::collections::HashMap;

use tidegate_core::fragment::{Gpus, NodeView, Shape, WHOLE};

use crate::pack::openb::{MOST_GPUS, Node};
use crate::pack::rules::Taken;

/// A node as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::pack) struct State {
    pub(in crate::pack) cpu_milli: i64,
    pub(in crate::pack) class: u16,
    /// Needs of GPU that it hosts pods of: bit 0 a fraction, bits 1 to 4 up to 1, 2, 4, more whole GPUs.
    pub(in crate::pack) hosts: u8,
    gpus: u8,
    free: [u16; MOST_GPUS as usize],
}

/// Index of a known state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StateIx(u32);

impl StateIx {
    pub(super) const UNKNOWN: Self = Self(u32::MAX);
}

/// All states met so far.
#[derive(Default)]
pub(super) struct Known {
    states: Vec<State>,
    index: HashMap<State, StateIx>,
}

impl Known {
    pub(super) fn add(&mut self, state: State) -> StateIx {
        let Self { states, index } = self;
        *index.entry(state).or_insert_with(|| {
            states.push(state);
            StateIx(u32::try_from(states.len() - 1).unwrap_or(u32::MAX))
        })
    }

    pub(super) fn get(&self, at: StateIx) -> Option<&State> {
        self.states.get(usize::try_from(at.0).unwrap_or(usize::MAX))
    }
}

impl State {
    pub(in crate::pack) fn empty(node: &Node) -> Self {
        let mut free = [0; MOST_GPUS as usize];
        free.iter_mut().take(node.gpus).for_each(|free| *free = WHOLE);
        Self { cpu_milli: node.cpu_milli, class: node.class, hosts: 0, gpus: u8::try_from(node.gpus).unwrap_or(0), free }
    }

    /// Free thousandths of each GPU.
    pub(in crate::pack) fn free(&self) -> &[u16] {
        self.free.get(..usize::from(self.gpus)).unwrap_or_default()
    }

    /// Free thousandths of all GPUs.
    pub(in crate::pack) fn idle(&self) -> u64 {
        self.free().iter().map(|&free| u64::from(free)).sum()
    }

    pub(in crate::pack) fn view(&self) -> NodeView<'_> {
        NodeView { cpu_milli: self.cpu_milli, memory_mib: None, class: self.class, free: self.free() }
    }

    /// Whether the class is one that `shape` may use.
    pub(in crate::pack) fn is_allowed(&self, shape: &Shape) -> bool {
        shape.gpus == Gpus::None || shape.classes & (1 << self.class) != 0
    }

    /// Whether CPU, class and GPUs suffice; memory is the caller's.
    pub(in crate::pack) fn fits(&self, shape: &Shape) -> bool {
        let (gpus, milli) = shape.gpus.each();
        self.cpu_milli >= shape.cpu_milli
            && self.is_allowed(shape)
            && self.free().iter().filter(|&&free| free >= milli).count() >= usize::from(gpus)
    }

    /// The node with a pod of this shape more, whole GPUs taken by lowest index; nothing if it does not fit.
    pub(in crate::pack) fn after(&self, shape: &Shape, device: Option<usize>, keep: Taken) -> Option<Self> {
        let mut after = Self { cpu_milli: self.cpu_milli - shape.cpu_milli, ..*self };
        if !self.fits(shape) {
            return None;
        }
        let free = after.free.get_mut(..usize::from(self.gpus))?;
        match shape.gpus {
            Gpus::None => {}
            Gpus::Fraction(milli) => {
                let left = free.get_mut(device?)?;
                *left = left.checked_sub(milli)?;
            }
            Gpus::Whole(gpus) => {
                free.iter_mut().filter(|free| **free == WHOLE).take(usize::from(gpus)).for_each(|free| *free = 0);
            }
        }
        if !keep.order {
            free.sort_unstable();
        }
        if keep.hosts {
            after.hosts |= host_bit(shape.gpus);
        }
        Some(after)
    }
}

/// The bit of [`State::hosts`] for a need of GPU; none for CPU-only work.
pub(in crate::pack) fn host_bit(gpus: Gpus) -> u8 {
    match gpus {
        Gpus::None | Gpus::Whole(0) => 0,
        Gpus::Fraction(_) => 1,
        Gpus::Whole(1) => 2,
        Gpus::Whole(2) => 4,
        Gpus::Whole(3..=4) => 8,
        Gpus::Whole(_) => 16,
    }
}
