//! Second looks: who was refused in a pass and is tried again in the same pass, because of what was decided since.
//!
//! Every pass looks at every queue, and the last pass of a decision orders nothing. So nobody is forgotten for lack of a second
//! look: without it somebody who stands lower, and is tried later in the pass, would have the devices first.

use std::collections::BTreeSet;

use crate::time::At;

/// Queues by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Wakes {
    /// Of which somebody was refused in this pass.
    refused: BTreeSet<u32>,
    /// Of those, the ones that use less than their own: others may come to hold what is owed to them.
    owed: BTreeSet<u32>,
    /// To be tried again in this pass.
    again: BTreeSet<u32>,
    /// When somebody who was refused may fare better only because time has passed.
    retry: Option<At>,
}

impl Wakes {
    /// A pass begins: all queues are looked at.
    pub fn begin_pass(&mut self) {
        *self = Self::default();
    }

    /// Somebody of the queue was refused.
    pub fn refused(&mut self, queue: u32, owed: bool) {
        self.refused.insert(queue);
        if owed {
            self.owed.insert(queue);
        }
    }

    /// Somebody who was refused may fare better then, if nothing happens before.
    pub fn retry(&mut self, at: At) {
        self.retry = Some(self.retry.map_or(at, |known| known.min(at)));
    }

    /// The moment of [`Self::retry`].
    pub fn moment(&self) -> Option<At> {
        self.retry
    }

    /// Somebody of the queue who had been let in is not any more.
    pub fn look_again(&mut self, queue: u32) {
        self.again.insert(queue);
    }

    /// Devices or quota came free, or are promised otherwise.
    pub fn came_free(&mut self) {
        self.again.append(&mut self.refused);
    }

    /// Somebody has more than its own: those who are owed may take it.
    pub fn borrowed(&mut self) {
        self.again.append(&mut self.owed);
    }

    /// Queues to try again, and none after.
    pub fn take(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.again)
    }
}
