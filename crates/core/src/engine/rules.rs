//! What queues say beside their quotas, by node of the tree, so that the order of queues is found without names.
//!
//! *Precedence*: a queue's own priority. It orders siblings in what is beyond guarantees: of two queues that would borrow the
//! higher goes first, and borrowed work of the lower is taken back first. It is compared from the top level of the tree down, so
//! that it means nothing beyond its parent. It gives nobody a right to take, so it can send nobody in a circle.

use crate::quota::{NodeIx, Tree};
use crate::state::{Queue, State};

use super::desk::LEVELS;
use super::displace::Want;
use super::rights::Right;

/// Priorities of a queue and those above it, from the top level down; of those below the levels that are told apart the highest.
pub(super) type Precedence = [i32; LEVELS];

/// Of one node and those above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rule {
    precedence: Precedence,
    has_budget: bool,
    selects_namespaces: bool,
}

/// By node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    /// Of the queues as they are now.
    pub fn of(state: &State, tree: &Tree) -> Self {
        let nodes = (0..tree.len()).map(|at| NodeIx(u32::try_from(at).unwrap_or(u32::MAX)));
        Self(nodes.map(|node| rule(state, tree, node)).collect())
    }

    fn at(&self, node: NodeIx) -> Rule {
        self.0.get(node.0 as usize).copied().unwrap_or_default()
    }

    /// Of a queue.
    pub fn precedence(&self, node: NodeIx) -> Precedence {
        self.at(node).precedence
    }

    /// Whether the queue or one above it has a budget.
    pub fn has_budget(&self, node: NodeIx) -> bool {
        self.at(node).has_budget
    }

    /// Whether the queue or one above it takes only work of some namespaces.
    pub fn selects_namespaces(&self, node: NodeIx) -> bool {
        self.at(node).selects_namespaces
    }

    /// Of a victim: that of the queue that gives.
    pub fn of_victim(&self, want: &Want, right: Right) -> Precedence {
        match right {
            Right::Quota { queue, .. } | Right::Fair { queue, .. } => self.precedence(queue),
            Right::Priority | Right::ShrinkOnly | Right::Overstayed | Right::Yield | Right::Surplus => {
                self.precedence(want.queue)
            }
        }
    }
}

fn rule(state: &State, tree: &Tree, node: NodeIx) -> Rule {
    let queue = |node: NodeIx| tree.queue(node).and_then(|of| state.queues.get(&of.name));
    let any = |says: fn(&Queue) -> bool| tree.path(node).filter_map(queue).any(says);
    let path: Vec<NodeIx> = tree.path(node).filter(|node| *node != tree.root()).collect();
    let mut precedence = Precedence::default();
    for (height, node) in path.iter().rev().enumerate() {
        // Of those that are gone it is taken back first.
        let priority = queue(*node).map_or(i32::MIN, |queue| queue.priority);
        match precedence.get_mut(height) {
            Some(slot) => *slot = priority,
            None => precedence[LEVELS - 1] = precedence[LEVELS - 1].max(priority),
        }
    }
    Rule {
        precedence,
        has_budget: any(|queue| queue.budget_ms.is_some()),
        selects_namespaces: any(|queue| queue.namespaces.is_some()),
    }
}
