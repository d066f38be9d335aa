//! Whether work may be taken from, by quota and priority.
//!
//! *Across queues*, with `a` and `b` the ancestors (or selves) of claimant and victim right below their lowest common one:
//! the claimant's side `a` must stay within what is guaranteed to it, and `b` and every queue from the victim's up to it must
//! use at least what is guaranteed to it *after* the removal too. Each such taking raises the sum over all sides of
//! `min(usage, guaranteed)`, so no chain of them comes back to where it began. *Inside a queue* a higher priority takes from a lower one; an equal one may
//! make an elastic job smaller, never end it.

use crate::books::{Amounts, Books};
use crate::claim;
use crate::quota::{NodeIx, ResourceIx, Tree};
use crate::state::{Job, State};

use super::desk::Desk;

/// By which rule a victim gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Its queue uses what others are owed; it and all above it up to the side stay above their guarantees.
    Quota { queue: NodeIx, side: NodeIx },
    /// Its queue uses more than its fair share, and the claimant's less; see [`super::fairness`].
    Fair { queue: NodeIx, side: NodeIx },
    /// It stands lower in the claimant's own queue.
    Priority,
    /// As high, but elastic: it may become smaller.
    ShrinkOnly,
    /// It was let in ahead of the claimant's reservation.
    Overstayed,
    /// The claimant is expected to be done much sooner, and the stop is cheap.
    Yield,
    /// A replica that its model does not need.
    Surplus,
}

impl Right {
    /// Whether the victim may end altogether.
    pub fn may_end(self) -> bool {
        self != Self::ShrinkOnly
    }
}

/// Sides of two queues right below their lowest common ancestor; `None` for one queue, or one above the other.
pub(super) fn sides(tree: &Tree, claimant: NodeIx, victim: NodeIx) -> Option<(NodeIx, NodeIx)> {
    let below = |node: NodeIx, of: NodeIx| tree.path(node).find(|node| tree.parent(*node) == Some(of));
    let common = tree.path(victim).find(|node| tree.path(claimant).any(|other| other == *node))?;
    Some((below(claimant, common)?, below(victim, common)?))
}

/// Whether there may be a queue from which `claimant` may take: some side of it stays within what is guaranteed to it.
pub(super) fn is_owed(books: &Books, claimant: NodeIx, need: &[(ResourceIx, i64)]) -> bool {
    let sides = books.tree.path(claimant).filter(|node| *node != books.tree.root());
    sides
        .into_iter()
        .any(|side| stays_within(books, side, need) && need.iter().any(|(resource, _)| books.is_shared(side, *resource)))
}

/// Whether a side with so much more stays within what is guaranteed to it, of what its siblings or itself were given any of.
fn stays_within(books: &Books, side: NodeIx, need: &[(ResourceIx, i64)]) -> bool {
    let tree = &books.tree;
    need.iter().all(|(resource, amount)| {
        tree.usage(side, *resource).saturating_add(*amount) <= tree.guaranteed(side, *resource)
            || !books.is_shared(side, *resource)
    })
}

/// Whether `claimant` may take from some work of queue `victim`, which is another one.
pub(super) fn across(books: &Books, claimant: NodeIx, victim: NodeIx, need: &[(ResourceIx, i64)]) -> Option<Right> {
    let tree = &books.tree;
    let lends = |node, resource| !books.is_shared(node, resource) || tree.borrowing(node, resource);
    // Most queues owe nothing: no need to know where they stand.
    if !need.iter().any(|(resource, _)| lends(victim, *resource)) {
        return None;
    }
    let (mine, theirs) = sides(tree, claimant, victim)?;
    // Of what nobody was given quota, nobody has more than is theirs.
    let over = need.iter().any(|(resource, _)| {
        books.is_shared(theirs, *resource) && upto(books, victim, theirs).all(|node| lends(node, *resource))
    });
    (stays_within(books, mine, need) && over).then_some(Right::Quota { queue: victim, side: theirs })
}

/// A queue and those above it, up to `side`.
pub(super) fn upto(books: &Books, queue: NodeIx, side: NodeIx) -> impl Iterator<Item = NodeIx> + '_ {
    let above = books.tree.parent(side);
    books.tree.path(queue).take_while(move |node| Some(*node) != above)
}

/// Whether the victim's side still uses at least what is guaranteed to it, of all that was taken.
pub(super) fn holds_after(books: &Books, right: Right, taken: &[Amounts]) -> bool {
    let Right::Quota { queue, side } = right else { return true };
    let tree = &books.tree;
    let holds =
        |node, resource| !books.is_shared(node, resource) || tree.usage(node, resource) >= tree.guaranteed(node, resource);
    upto(books, queue, side).all(|node| taken.iter().flat_map(Amounts::as_slice).all(|(resource, _)| holds(node, *resource)))
}

/// Whether a claimant of this priority may take from a job of its own queue.
pub(super) fn within(priority: i32, job: &Job) -> Option<Right> {
    match priority.cmp(&job.spec.priority) {
        std::cmp::Ordering::Greater => Some(Right::Priority),
        std::cmp::Ordering::Equal => Some(Right::ShrinkOnly),
        std::cmp::Ordering::Less => None,
    }
}

/// Whether a running job of a responsive queue yields to a waiting one of it and of its priority. Looked at when jobs are put in
/// order, not between.
pub(super) fn yields(state: &State, desk: &Desk, claimant: Option<u32>, ix: u32, job: &Job) -> bool {
    let now = state.now;
    let again = claimant.and_then(|ix| state.jobs.at(ix)).is_some_and(|waiter| waiter.served_ms > 0);
    let more = if again { state.policy.again_doublings } else { 0 };
    let claims = claimant.and_then(|claimant| desk.claims.get(&claimant)).zip(desk.claims.get(&ix));
    let outweighs = desk.ranked && claims.is_some_and(|(waiter, runner)| claim::outweighs(*waiter, *runner, more));
    outweighs && job.run().is_some_and(|run| claim::is_cheap(now.since(run.since), job.stop_cost_ms(now)))
}

/// Whether the job was let in ahead of a reservation that is due now.
pub(super) fn overstays(state: &State, job: &Job) -> bool {
    job.run().and_then(|run| run.backfilled_until).is_some_and(|until| until <= state.now)
}
