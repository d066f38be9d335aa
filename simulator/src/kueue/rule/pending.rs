//! The workloads that wait in one queue: those to be tried (in order) and those set aside until capacity moves.
//!
//! Kueue's `pkg/cache/queue/cluster_queue.go`: priority, then age; the preemptor whose victims are still leaving stays
//! at the head (#6929, #7101); a verdict "does not fit" holds for all of the same shape (KEP-9694).

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::super::{Ms, WorkloadIx};

/// Whether the head of a queue holds up the rest.
#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    StrictFifo,
    BestEffortFifo,
}

/// Sorts as the queue does: the first is the head.
pub type Rank = (Reverse<i32>, Ms, WorkloadIx);

/// A workload that waits: its rank and its class, which is its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    pub rank: Rank,
    pub class: u16,
}

/// Why a head was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Another took its place in this cycle: it is tried at once.
    Overtaken,
    /// Its victims are leaving: it stays at the head.
    Preempting,
    /// It does not fit and nobody may be preempted for it.
    NoFit,
}

/// The waiting workloads of one queue.
#[derive(Clone, Debug)]
pub struct Pending {
    strategy: Strategy,
    hashing: bool,
    active: BTreeSet<Waiting>,
    aside: Vec<Waiting>,
    /// Shapes that do not fit until capacity moves.
    hopeless: BTreeSet<u16>,
    /// The preemptor at the head.
    sticky: Option<Waiting>,
}

impl Pending {
    /// An empty queue.
    pub fn new(strategy: Strategy, hashing: bool) -> Self {
        Self { strategy, hashing, active: BTreeSet::new(), aside: Vec::new(), hopeless: BTreeSet::new(), sticky: None }
    }

    /// A workload that was created or evicted.
    pub fn push(&mut self, waiting: Waiting) {
        if self.strategy == Strategy::BestEffortFifo && self.hopeless.contains(&waiting.class) {
            self.aside.push(waiting);
        } else {
            self.active.insert(waiting);
        }
    }

    /// Whether a cycle would find a head.
    pub fn has_head(&self) -> bool {
        self.sticky.is_some() || !self.active.is_empty()
    }

    /// Takes the head.
    pub fn pop(&mut self) -> Option<Waiting> {
        self.sticky.take().or_else(|| self.active.pop_first())
    }

    /// Puts a head back that was not admitted.
    pub fn put_back(&mut self, waiting: Waiting, why: Why) {
        match (why, self.strategy) {
            (Why::Preempting, Strategy::BestEffortFifo) => self.sticky = Some(waiting),
            (Why::NoFit, Strategy::BestEffortFifo) => {
                self.aside.push(waiting);
                if self.hashing {
                    self.set_alike_aside(waiting.class);
                }
            }
            _ => {
                self.active.insert(waiting);
            }
        }
    }

    fn set_alike_aside(&mut self, class: u16) {
        self.hopeless.insert(class);
        let (aside, active) = std::mem::take(&mut self.active).into_iter().partition(|waiting| waiting.class == class);
        self.active = active;
        self.aside.extend::<BTreeSet<Waiting>>(aside);
    }

    /// Capacity moved: all are tried again.
    pub fn retry(&mut self) {
        self.hopeless.clear();
        self.active.extend(self.aside.drain(..));
    }
}
