//! When refused work is looked at again. A refusal rests on facts; its queue is put down under each of them, and the change of
//! a fact makes dirty whoever is put down under it.
//!
//! **Promise.** A decision over the dirty queues alone is the decision over all of them (the property tests compare the two at
//! every step). So whatever a refusal rests on must be a field of [`Facts`], or a moment for [`Wakes::retry`]. What is known to
//! be missing is in `docs/scheduling.md`, "Not yet".

use std::collections::{BTreeMap, BTreeSet};

use crate::quota::NodeIx;
use crate::time::At;

/// What a refusal rests on.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states")]
pub(super) struct Facts {
    /// The queue of the path that has no more.
    pub quota: Option<NodeIx>,
    /// Devices are not free, or those who hold them are too few or may not be displaced.
    pub devices: bool,
    /// The queue uses less than its own: others may come to hold what is owed to it.
    pub owed: bool,
    /// Where others are: a search over several groups, or one that moves others, is greedy, so that it may even succeed because
    /// somebody else took what misled it; and who is refused by the quota of a class lacks devices once others have these.
    pub places: bool,
    /// The cap on evictions, or the order of victims: every decision looks again.
    pub always: bool,
}

/// Queues by number, and the facts that they wait for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wakes {
    /// Queues to be looked at; with `all`, every one.
    dirty: BTreeSet<u32>,
    all: bool,
    /// Of those, the ones that may fare better because of what has happened since they were looked at.
    woken: BTreeSet<u32>,
    for_quota: BTreeMap<NodeIx, BTreeSet<u32>>,
    /// The same by queue.
    short_at: BTreeMap<u32, BTreeSet<NodeIx>>,
    for_devices: BTreeSet<u32>,
    owed: BTreeSet<u32>,
    for_places: BTreeSet<u32>,
    always: BTreeSet<u32>,
    /// When a queue that was refused may fare better only because time has passed.
    retries: BTreeMap<u32, At>,
}

impl Wakes {
    /// Somebody of the queue was refused.
    pub fn sleep(&mut self, queue: u32, facts: Facts) {
        if let Some(node) = facts.quota {
            self.for_quota.entry(node).or_default().insert(queue);
            self.short_at.entry(queue).or_default().insert(node);
        }
        let sets = [
            (facts.devices, &mut self.for_devices),
            (facts.owed, &mut self.owed),
            (facts.places, &mut self.for_places),
            (facts.always, &mut self.always),
        ];
        for (_, set) in sets.into_iter().filter(|(rests, _)| *rests) {
            set.insert(queue);
        }
    }

    /// The queue is looked at then, if nothing happens before.
    pub fn retry(&mut self, queue: u32, at: At) {
        let known = self.retries.entry(queue).or_insert(at);
        *known = at.min(*known);
    }

    /// The moments of [`Self::retry`].
    pub fn moments(&self) -> impl Iterator<Item = At> {
        self.retries.values().copied()
    }

    /// The queue must be looked at.
    pub fn mark(&mut self, queue: u32) {
        self.dirty.insert(queue);
    }

    /// Every queue must be looked at.
    pub fn mark_all(&mut self) {
        self.all = true;
    }

    /// Somebody of the queue who had been let in is not any more.
    pub fn look_again(&mut self, queue: u32) {
        self.wake(BTreeSet::from([queue]));
    }

    /// Devices came free on some node.
    pub fn devices_came_free(&mut self) {
        let waiting = std::mem::take(&mut self.for_devices);
        self.wake(waiting);
    }

    /// Less is used at this node of the quota tree.
    pub fn quota_came_free(&mut self, node: NodeIx) {
        if let Some(waiting) = self.for_quota.remove(&node) {
            for queue in &waiting {
                self.short_at.get_mut(queue).map(|nodes| nodes.remove(&node));
            }
            self.wake(waiting);
        }
    }

    /// Somebody has more than its own: those who are owed may take it.
    pub fn borrowed(&mut self) {
        let waiting = std::mem::take(&mut self.owed);
        self.wake(waiting);
    }

    /// Work is, or may be, placed otherwise than before.
    pub fn places_changed(&mut self) {
        let waiting = std::mem::take(&mut self.for_places);
        self.wake(waiting);
    }

    fn wake(&mut self, queues: BTreeSet<u32>) {
        self.woken.extend(queues.iter().copied());
        self.dirty.extend(queues);
    }

    /// Queues that may fare better than when they were looked at in this round.
    pub fn take_woken(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.woken)
    }

    /// Queues to look at, of so many in all, and none after.
    pub fn take_dirty(&mut self, queues: usize) -> Vec<u32> {
        if self.all {
            *self = Self::default();
            return (0..u32::try_from(queues).unwrap_or(u32::MAX)).collect();
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.append(&mut self.always);
        self.woken.clear();
        for queue in &dirty {
            self.forget(*queue);
        }
        dirty.into_iter().collect()
    }

    /// What a queue was refused for does not count any more when it is looked at anew.
    fn forget(&mut self, queue: u32) {
        for node in self.short_at.remove(&queue).unwrap_or_default() {
            self.for_quota.get_mut(&node).map(|waiting| waiting.remove(&queue));
        }
        for set in [&mut self.for_devices, &mut self.owed, &mut self.for_places] {
            set.remove(&queue);
        }
        self.retries.remove(&queue);
    }
}
