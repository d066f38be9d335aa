//! Whether an amount fits, and if not, which limit at which level of the tree stands in the way.
//!
//! What is available at a queue is the least of what each level from it to the root allows, each seen from the queue; so
//! the level with the least is the binding constraint, and [`Tree::levels`] tells all of them.

use serde::{Deserialize, Serialize};

use super::{NONE, NodeIx, ResourceIx, Tree};

/// What kind of limit a level sets.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The node may not use more than is guaranteed to it: its borrowing limit is 0, or only nominal quota was asked for.
    Nominal,
    /// The node would borrow more than its borrowing limit.
    Borrowing,
    /// The root has no more: everything that was brought in and lent is in use.
    Capacity,
}

/// What one level allows, seen from the queue that asks.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub node: NodeIx,
    pub limit: Limit,
    /// The queue could use so much more if this level alone set a limit. Below 0 after a quota was cut under its usage.
    pub available: i64,
}

/// Why an amount does not fit.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The node whose limit binds: the queue itself or one above it. The lowest of equals.
    pub node: NodeIx,
    pub resource: ResourceIx,
    /// What was asked for.
    pub need: i64,
    /// What the queue could get now, by this limit.
    pub available: i64,
    pub limit: Limit,
}

impl Tree {
    /// What each level that sets a limit allows, from the queue up to the root.
    pub fn levels(&self, queue: NodeIx, resource: ResourceIx) -> impl Iterator<Item = Level> + '_ {
        let mut room = 0_i64;
        self.path(queue).filter_map(move |node| {
            let cell = self.cell(node, resource);
            if node == self.root() {
                let available = room.saturating_add(cell.subtree.saturating_sub(cell.usage));
                return Some(Level { node, limit: Limit::Capacity, available });
            }
            room = room.saturating_add(cell.room());
            let beyond = cell.beyond;
            let limit = if beyond == cell.subtree - cell.local { Limit::Nominal } else { Limit::Borrowing };
            let available = room.saturating_add(beyond.saturating_sub(cell.above()));
            (beyond < i64::MAX).then_some(Level { node, limit, available })
        })
    }

    /// How much more the queue may use: Kueue's `available`. Below 0 after a quota was cut under its usage.
    ///
    /// The least of [`Tree::levels`], in one plain walk: this is asked for every waiting job.
    pub fn available(&self, queue: NodeIx, resource: ResourceIx) -> i64 {
        let (mut at, mut room, mut least) = (queue.0, 0_i64, i64::MAX);
        loop {
            let (Some(parent), cell) = (self.parents.get(at as usize), self.cell(NodeIx(at), resource)) else { return 0 };
            if *parent == NONE {
                return least.min(room.saturating_add(cell.subtree.saturating_sub(cell.usage)));
            }
            room = room.saturating_add(cell.room());
            least = least.min(room.saturating_add(cell.beyond.saturating_sub(cell.above())));
            at = *parent;
        }
    }

    /// How much the queue could use if nobody used anything: Kueue's `potentialAvailable`. What asks for more never runs.
    pub fn potential_available(&self, queue: NodeIx, resource: ResourceIx) -> i64 {
        let mut kept = 0_i64;
        let mut least = i64::MAX;
        for node in self.path(queue) {
            let cell = self.cell(node, resource);
            if node == self.root() {
                return least.min(kept.saturating_add(cell.subtree));
            }
            kept = kept.saturating_add(cell.local);
            least = least.min(kept.saturating_add(cell.beyond));
        }
        0
    }

    /// Whether all amounts fit now; the first resource that does not is told with its binding limit.
    pub fn fits(&self, queue: NodeIx, amounts: &[(ResourceIx, i64)]) -> Result<(), Binding> {
        amounts.iter().try_for_each(|(resource, need)| self.fits_one(queue, *resource, *need))
    }

    fn fits_one(&self, queue: NodeIx, resource: ResourceIx, need: i64) -> Result<(), Binding> {
        if need <= self.available(queue, resource) {
            return Ok(());
        }
        let nothing = Level { node: queue, limit: Limit::Capacity, available: 0 };
        let binding = self.levels(queue, resource).min_by_key(|level| level.available).unwrap_or(nothing);
        let Level { node, limit, available } = binding;
        Err(Binding { node, resource, need, available, limit })
    }

    /// Whether all amounts stay within what is guaranteed to the queue, whoever else borrows now: the room of work that is
    /// never stopped.
    pub fn fits_nominal(&self, queue: NodeIx, amounts: &[(ResourceIx, i64)]) -> Result<(), Binding> {
        amounts.iter().try_for_each(|(resource, need)| {
            let cell = self.cell(queue, *resource);
            let (resource, need, available) = (*resource, *need, cell.subtree.saturating_sub(cell.usage));
            let binding = Binding { node: queue, resource, need, available, limit: Limit::Nominal };
            if need <= available { Ok(()) } else { Err(binding) }
        })
    }

    /// Whether all amounts could ever fit.
    pub fn fits_empty(&self, queue: NodeIx, amounts: &[(ResourceIx, i64)]) -> bool {
        amounts.iter().all(|(resource, need)| *need <= self.potential_available(queue, *resource))
    }

    /// The lowest node, from the queue up, whose own guaranteed quota would cover its usage with `amount` more: nothing
    /// has to be borrowed from outside of it. The root when none does. With its height above the queue.
    ///
    /// A queue that needs no more than itself (height 0) does not borrow.
    pub fn lowest_cover(&self, queue: NodeIx, resource: ResourceIx, amount: i64) -> (NodeIx, usize) {
        let mut rest = amount;
        for (height, node) in self.path(queue).enumerate() {
            let cell = self.cell(node, resource);
            if cell.usage.saturating_add(rest) <= cell.subtree || node == self.root() {
                return (node, height);
            }
            rest = rest.saturating_sub(cell.room()).max(0);
        }
        (self.root(), 0)
    }
}
