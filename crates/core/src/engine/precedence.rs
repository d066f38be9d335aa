//! A queue's own priority. It orders siblings in what is beyond guarantees: of two queues that would borrow the higher goes
//! first, and borrowed work of the lower is taken back first. It is compared from the top level of the tree down, so that it
//! means nothing beyond its parent. It gives nobody a right to take, so it can send nobody in a circle.

use crate::quota::{NodeIx, Tree};
use crate::state::State;

use super::desk::LEVELS;
use super::displace::Want;
use super::rights::Right;

/// Priorities of a queue and those above it, from the top level down; of those below the levels that are told apart the highest.
pub(super) type Precedence = [i32; LEVELS];

/// Of a queue.
pub(super) fn of(state: &State, tree: &Tree, queue: NodeIx) -> Precedence {
    let priority = |node: NodeIx| tree.queue(node).and_then(|of| state.queues.get(&of.name)).map_or(0, |queue| queue.priority);
    let path: Vec<i32> = tree.path(queue).filter(|node| *node != tree.root()).map(priority).collect();
    let mut all = Precedence::default();
    for (height, priority) in path.iter().rev().enumerate() {
        match all.get_mut(height) {
            Some(slot) => *slot = *priority,
            None => all[LEVELS - 1] = all[LEVELS - 1].max(*priority),
        }
    }
    all
}

/// Of a victim: that of the queue that gives.
pub(super) fn of_victim(state: &State, tree: &Tree, want: &Want, right: Right) -> Precedence {
    match right {
        Right::Quota { queue, .. } | Right::Fair { queue, .. } => of(state, tree, queue),
        Right::Priority | Right::ShrinkOnly | Right::Overstayed | Right::Yield | Right::Surplus => of(state, tree, want.queue),
    }
}
