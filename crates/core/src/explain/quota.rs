//! What each level of the quota tree says to a claim.

use crate::books::Books;
use crate::names::QueueName;
use crate::quota::{Limit, NodeIx, ResourceIx};
use crate::state::{JobSpec, State};

use super::words;

/// Above this an amount is no limit: the pool itself owns all there is.
const BOUNDLESS: i64 = i64::MAX / 16;

/// The levels that refuse a gang, from its queue up, and what each would allow.
pub(super) fn refusing(books: &Books, spec: &JobSpec) -> Vec<String> {
    let Some(queue) = books.tree.node(&spec.queue) else { return Vec::new() };
    let mut told = Vec::new();
    for (resource, need) in books.need(spec) {
        if !spec.preemptible && books.counts(resource) {
            told.extend(own_only(books, spec, queue, resource, need));
        }
        for level in books.tree.levels(queue, resource).filter(|level| level.available < need && level.available < BOUNDLESS) {
            told.push(limit(books, level.node, resource, level.limit));
        }
    }
    told
}

/// Work that may not be stopped uses only what is its queue's own.
fn own_only(books: &Books, spec: &JobSpec, queue: NodeIx, resource: ResourceIx, need: i64) -> Option<String> {
    let (used, own) = (books.tree.usage(queue, resource), books.tree.guaranteed(queue, resource));
    let what = books.resource(resource);
    (used.saturating_add(need) > own).then(|| {
        format!(
            "it is not preemptible, so it may use only what is its queue's own: queue {} uses {} of {} {}, it needs {}",
            spec.queue,
            words::number(&what, used),
            words::number(&what, own),
            words::unit(&what),
            words::number(&what, need)
        )
    })
}

/// One level's limit and how much of it is used.
pub(super) fn limit(books: &Books, node: NodeIx, resource: ResourceIx, limit: Limit) -> String {
    let tree = &books.tree;
    let what = books.resource(resource);
    let name = tree.queue(node).map_or_else(|| QueueName::from(""), |queue| queue.name.clone());
    let (used, own) = (tree.usage(node, resource), tree.guaranteed(node, resource));
    let borrowed = if limit == Limit::Borrowing { tree.quota(node, resource).borrowing_limit.unwrap_or(0) } else { 0 };
    let most = own.saturating_add(borrowed);
    let which = words::queue(&name);
    format!("{which} uses {} of its limit of {} {}", words::number(&what, used), words::number(&what, most), words::unit(&what))
}

/// The queue, or the one above it, whose budget is spent.
pub(super) fn spent(state: &State, books: &Books, queue: &QueueName) -> Option<String> {
    let node = books.tree.node(queue)?;
    let mut path = books.tree.path(node).filter_map(|node| books.tree.queue(node)).map(|queue| &queue.name);
    let told = |name: &QueueName| {
        let (budget, used) = (state.queues.get(name)?.budget_ms?, state.usage.decayed_ms.get(name).copied().unwrap_or(0));
        let hours = |ms: u64| ms / 3_600_000;
        (used > budget).then(|| {
            format!(
                "queue {name} has used {} of its budget of {} GPU-hour(s): it waits for others and takes from nobody",
                hours(used),
                hours(budget)
            )
        })
    };
    path.find_map(told)
}

/// What a queue uses beyond its own, in thousandths of devices.
pub(super) fn above_own(books: &Books, queue: &QueueName) -> Option<(i64, i64)> {
    let node = books.tree.node(queue)?;
    let used = books.tree.own_usage(node, crate::books::GPU);
    let above = used - books.tree.quota(node, crate::books::GPU).nominal;
    (above > 0).then_some((used, above))
}

/// The levels that refuse one more worker.
pub(super) fn refusing_one_more(books: &Books, spec: &JobSpec, ask: &crate::ask::Ask) -> Vec<String> {
    let Some(queue) = books.tree.node(&spec.queue) else { return Vec::new() };
    let amounts = books.least_amounts(ask);
    let mut told = Vec::new();
    for (resource, need) in amounts.as_slice() {
        if !spec.preemptible && books.counts(*resource) {
            told.extend(own_only(books, spec, queue, *resource, *need));
        }
        let levels = books.tree.levels(queue, *resource);
        told.extend(levels.filter(|level| level.available < *need).map(|level| limit(books, level.node, *resource, level.limit)));
    }
    told
}
