//! Who may use how much: a tree of queues with quotas that are lent, borrowed and guaranteed.
//!
//! ```text
//!   subtree(n)     = nominal(n) + sum over children of (subtree(c) - local(c))    what n and those below bring in
//!   local(n)       = lending limit? max(0, subtree(n) - limit) : 0                what n never lends to its parent
//!   room(n)        = max(0, local(n) - usage(n))                                  what only n sees
//!   available(n)   = root: subtree(n) - usage(n)
//!                    else: room(n) + min(available(parent), borrowing limit?
//!                            subtree(n) - local(n) - max(0, usage(n) - local(n)) + limit : unlimited)
//!   usage(n)       = own(n) + sum over children of max(0, usage(c) - local(c))
//! ```
//!
//! The algebra is Kueue's (`pkg/cache/scheduler/resource_node.go`), for any depth and with work allowed at every node.
//!
//! **Guarantees.** `usage` is the identity above after any order of [`Tree::add_usage`] and [`Tree::remove_usage`]; adding
//! and removing the same amount is exactly undone; what was added only after [`Tree::fits`] said yes stays within quota and
//! borrowing at every node; a tree restored from its serialised form equals the one that was saved.
//!
//! **Assumptions.** Amounts are thousandths (of a GPU, of a core) or any other integer unit, one per resource; a resource is
//! a dense index that the caller gives, for instance one per GPU class, one for CPU, one for memory. Sums saturate.
//!
//! **Roots.** Queues without a parent hang below one root that nobody writes down, named `""`, with nominal 0: they share
//! what they lend, unless their lending and borrowing limits are 0. A queue that is itself named `""` is that root written
//! down, to give it a quota of its own; a second one is refused.

pub mod build;
pub mod decay;
pub mod fair;
pub mod fit;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::QueueName;
pub use build::QuotaError;
pub use fit::{Binding, Level, Limit};

/// A resource: a dense index below the number given to [`Tree::build`].
pub type ResourceIx = u16;

/// A node of the tree: the position of its queue in the list given to [`Tree::build`]; the root that nobody wrote down
/// comes after the last.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(transparent)]
pub struct NodeIx(pub u32);

/// What a queue brings in, may lend and may borrow of one resource. Amounts in the resource's unit, never negative.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// What is the queue's own.
    pub nominal: i64,
    /// At most so much beyond the subtree's quota; absent: as much as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub borrowing_limit: Option<i64>,
    /// At most so much of the subtree's quota is lent to the parent; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lending_limit: Option<i64>,
}

impl Quota {
    /// A quota that neither lends nor borrows: a tree of its own.
    pub fn closed(nominal: i64) -> Self {
        Self { nominal, borrowing_limit: Some(0), lending_limit: Some(0) }
    }
}

/// One queue as its owner wrote it down.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct QueueQuota {
    pub name: QueueName,
    /// Absent: below the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<QueueName>,
    /// Share of what is left over among siblings, in thousandths; 1000 when nobody says otherwise. Never 0.
    pub weight_milli: u32,
    /// Each resource at most once. A resource that is not listed: nominal 0, borrowing and lending without limit.
    pub quotas: Vec<(ResourceIx, Quota)>,
}

/// The numbers of one node and resource that every walk needs, side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    usage: i64,
    /// Nominal quota with what the children lend.
    subtree: i64,
    /// The part of `subtree` that the parent never sees.
    local: i64,
    /// At most so much may be used beyond `local`; `i64::MAX` without a borrowing limit.
    beyond: i64,
}

impl Cell {
    /// Usage that counts at the parent.
    fn above(&self) -> i64 {
        self.usage.saturating_sub(self.local).max(0)
    }

    /// Quota that only this node sees and that is free.
    fn room(&self) -> i64 {
        self.local.saturating_sub(self.usage).max(0)
    }
}

/// The tree with its usage.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(try_from = "build::Saved", into = "build::Saved")]
pub struct Tree {
    resources: ResourceIx,
    queues: Vec<QueueQuota>,
    index: BTreeMap<QueueName, NodeIx>,
    /// Per node; the root's is [`NONE`].
    parents: Vec<u32>,
    children: Vec<Vec<NodeIx>>,
    /// Children before parents.
    order: Vec<NodeIx>,
    root: NodeIx,
    /// Row per node, column per resource.
    cells: Vec<Cell>,
}

/// No parent.
const NONE: u32 = u32::MAX;

impl Tree {
    /// The number of resources.
    pub fn resources(&self) -> ResourceIx {
        self.resources
    }

    /// The number of nodes, the root counted.
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// Never: there is a root.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The one node without a parent.
    pub fn root(&self) -> NodeIx {
        self.root
    }

    /// All nodes, children before their parents.
    pub fn bottom_up(&self) -> &[NodeIx] {
        &self.order
    }

    /// The node of a queue.
    pub fn node(&self, name: &QueueName) -> Option<NodeIx> {
        self.index.get(name).copied()
    }

    /// What its owner wrote down; absent for an index of another tree.
    pub fn queue(&self, node: NodeIx) -> Option<&QueueQuota> {
        self.queues.get(node.0 as usize)
    }

    /// The node above; absent for the root.
    pub fn parent(&self, node: NodeIx) -> Option<NodeIx> {
        self.parents.get(node.0 as usize).filter(|parent| **parent != NONE).map(|parent| NodeIx(*parent))
    }

    /// The nodes right below, in the order of the list.
    pub fn children(&self, node: NodeIx) -> &[NodeIx] {
        self.children.get(node.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// The node and those above it, up to the root.
    pub fn path(&self, node: NodeIx) -> impl Iterator<Item = NodeIx> + '_ {
        std::iter::successors(self.queue(node).map(|_| node), |node| self.parent(*node))
    }

    /// What the node itself is given, with its limits.
    pub fn quota(&self, node: NodeIx, resource: ResourceIx) -> Quota {
        let quotas = self.queue(node).map_or(&[][..], |queue| &queue.quotas);
        quotas.iter().find(|(listed, _)| *listed == resource).map_or_else(Quota::default, |(_, quota)| *quota)
    }

    /// What the node and all below it use, less what the quotas below that are never lent cover.
    pub fn usage(&self, node: NodeIx, resource: ResourceIx) -> i64 {
        self.cell(node, resource).usage
    }

    /// What was added at this very node.
    pub fn own_usage(&self, node: NodeIx, resource: ResourceIx) -> i64 {
        let below = self.children(node).iter().map(|child| self.cell(*child, resource).above());
        below.fold(self.usage(node, resource), i64::saturating_sub)
    }

    /// The quota of the node and what those below lend to it: the share that reclaim may never cut into.
    pub fn guaranteed(&self, node: NodeIx, resource: ResourceIx) -> i64 {
        self.cell(node, resource).subtree
    }

    /// What is free of the quota that the node never lends: usage so far is not seen by its parent.
    pub fn room(&self, node: NodeIx, resource: ResourceIx) -> i64 {
        self.cell(node, resource).room()
    }

    /// Whether the node uses more than is guaranteed to it.
    pub fn borrowing(&self, node: NodeIx, resource: ResourceIx) -> bool {
        let cell = self.cell(node, resource);
        cell.usage > cell.subtree
    }

    /// Counts `amount` (0 or more) at the node and, beyond what it never lends, at those above. Costs one step per level.
    pub fn add_usage(&mut self, node: NodeIx, resource: ResourceIx, amount: i64) {
        let (mut at, mut amount) = (node.0, amount);
        while let Some(cell) = self.cell_mut(at, resource) {
            let room = cell.room();
            cell.usage = cell.usage.saturating_add(amount);
            amount = amount.saturating_sub(room);
            if amount <= 0 {
                return;
            }
            at = self.parents.get(at as usize).copied().unwrap_or(NONE);
        }
    }

    /// Undoes [`Tree::add_usage`]; `amount` is at most what was added at this node.
    pub fn remove_usage(&mut self, node: NodeIx, resource: ResourceIx, amount: i64) {
        let (mut at, mut amount) = (node.0, amount);
        while let Some(cell) = self.cell_mut(at, resource) {
            let above = cell.above();
            cell.usage = cell.usage.saturating_sub(amount);
            amount = amount.min(above);
            if amount <= 0 {
                return;
            }
            at = self.parents.get(at as usize).copied().unwrap_or(NONE);
        }
    }

    /// [`Tree::add_usage`] of several resources.
    pub fn add(&mut self, node: NodeIx, amounts: &[(ResourceIx, i64)]) {
        for (resource, amount) in amounts {
            self.add_usage(node, *resource, *amount);
        }
    }

    /// [`Tree::remove_usage`] of several resources.
    pub fn remove(&mut self, node: NodeIx, amounts: &[(ResourceIx, i64)]) {
        for (resource, amount) in amounts {
            self.remove_usage(node, *resource, *amount);
        }
    }

    /// The cell, all zeros for a node or resource of another tree.
    fn cell(&self, node: NodeIx, resource: ResourceIx) -> Cell {
        self.slot(node.0, resource).and_then(|slot| self.cells.get(slot)).copied().unwrap_or_default()
    }

    fn cell_mut(&mut self, node: u32, resource: ResourceIx) -> Option<&mut Cell> {
        let slot = self.slot(node, resource)?;
        self.cells.get_mut(slot)
    }

    fn slot(&self, node: u32, resource: ResourceIx) -> Option<usize> {
        let known = node != NONE && resource < self.resources;
        known.then(|| node as usize * usize::from(self.resources) + usize::from(resource))
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
