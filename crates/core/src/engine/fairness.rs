//! Taking back for fairness: between two queues of which neither is owed anything, what is above nominal is shared by weight.
//!
//! A resource is *contended* below a node of the tree when the queues right below it ask for more than they can have. Then each
//! of them has a fair share (`quota/fair.rs`: guaranteed first, the rest by priority and weight, like water), and a claimant's
//! side that stays within its own takes from a side that stays at or above its own after the removal (KAI tests the value
//! before). With a past (`history_percent`), weights shift towards who used less.
//!
//! **Promise.** Requests count all jobs that run or could, at their largest size, so that shares do not move when work starts or
//! stops. Taking then raises the sum over all sides of `min(usage, fair share)`, and nobody falls below what is guaranteed, so
//! with time frozen nobody goes in a circle. As time goes on the past moves shares: with one, a side gives only when it is above
//! its share by more than one unit, so that a share that drifts does not move work to and fro.

use std::collections::BTreeSet;

use crate::ask::{Amount, Ask};
use crate::books::{Amounts, Books, CPU, GPU, MEMORY};
use crate::names::QueueName;
use crate::quota::decay::{self, SATURATED_PPM};
use crate::quota::fair::Standing;
use crate::quota::{NodeIx, ResourceIx, Tree};
use crate::state::{JobSpec, State};
use crate::time::At;

use super::desk::{Desk, Lists};
use super::rights::{self, Right};
use super::round::Round;

/// Memory of a device, for what a share in MiB asks for before it is placed.
const USUAL_DEVICE_MIB: u64 = 81_920;

/// Fair shares of all contended resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fair {
    /// By resource and node; absent where nobody has less than it asks for.
    shares: Vec<Vec<Option<i64>>>,
    /// A side gives only when it is above its share by more than so many units.
    margin: i64,
}

/// Computes the shares anew; everything is looked at again when they have changed.
pub(super) fn refresh(round: &mut Round) {
    round.desk.fair = round.state.policy.fair_reclaim.then(|| {
        let barred = round.barred_kinds();
        Fair::of(round.state, round.desk, &barred)
    });
}

/// When the past has faded so far that shares may differ, if it counts and somebody waits.
pub(super) fn next_look(state: &State, desk: &Desk) -> Option<At> {
    let counts = state.policy.fair_reclaim && state.policy.history_percent > 0;
    let waits = counts && desk.queues.iter().any(|lists| !lists.waiting.is_empty());
    waits.then(|| state.next_fade())
}

impl Fair {
    fn of(state: &State, desk: &mut Desk, barred: &BTreeSet<u32>) -> Self {
        let [gpu, cpu, memory] = desk.capacity();
        let books = &desk.books;
        let tree = &books.tree;
        let requests = requests(state, desk, barred);
        let standings = standings(state, tree, gpu);
        let shares = (0..tree.resources()).map(|resource| {
            let (capacity, unit) = match resource {
                GPU => (gpu, 1000),
                CPU => (cpu, 1000),
                MEMORY => (memory, 1024),
                class => (of_class(books, class), 1000),
            };
            let requests: Vec<i64> = requests.iter().map(|of| of.get(usize::from(resource)).copied().unwrap_or(0)).collect();
            contended(tree, resource, &requests, &tree.fair_shares(resource, capacity, unit, &requests, &standings))
        });
        Self { shares: shares.collect(), margin: i64::from(state.policy.history_percent > 0) }
    }

    fn share(&self, node: NodeIx, resource: ResourceIx) -> Option<i64> {
        self.shares.get(usize::from(resource))?.get(node.0 as usize).copied().flatten()
    }

    /// What a node keeps when others take for fairness: its share, and what is guaranteed to it.
    fn floor(&self, books: &Books, node: NodeIx, resource: ResourceIx) -> Option<i64> {
        let guaranteed = books.is_shared(node, resource).then(|| books.tree.guaranteed(node, resource));
        self.share(node, resource).max(guaranteed)
    }

    /// Whether a claimant may take from some work of another queue because that has more than its fair share.
    pub fn across(&self, books: &Books, claimant: NodeIx, victim: NodeIx, need: &[(ResourceIx, i64)]) -> Option<Right> {
        let tree = &books.tree;
        let (mine, theirs) = rights::sides(tree, claimant, victim)?;
        let owed = need.iter().all(|(resource, amount)| {
            self.share(mine, *resource).is_none_or(|fair| tree.usage(mine, *resource).saturating_add(*amount) <= fair)
        });
        let gives = |node: NodeIx, resource: ResourceIx| {
            let margin = self.margin * if resource == MEMORY { 1024 } else { 1000 };
            self.floor(books, node, resource).is_none_or(|floor| tree.usage(node, resource) > floor.saturating_add(margin))
        };
        let over = need.iter().any(|(resource, amount)| {
            let contended = *amount > 0 && self.share(theirs, *resource).is_some();
            contended && rights::upto(books, victim, theirs).all(|node| gives(node, *resource))
        });
        (owed && over).then_some(Right::Fair { queue: victim, side: theirs })
    }

    /// Whether the victim's queue and those above it up to the side still have their fair shares, of all that was taken.
    pub fn holds_after(&self, books: &Books, queue: NodeIx, side: NodeIx, taken: &[Amounts]) -> bool {
        let holds =
            |node, resource| self.floor(books, node, resource).is_none_or(|floor| books.tree.usage(node, resource) >= floor);
        let mut path = rights::upto(books, queue, side);
        path.all(|node| taken.iter().flat_map(Amounts::as_slice).all(|(resource, _)| holds(node, *resource)))
    }
}

impl Round<'_> {
    /// By which right of quota or fairness a claimant may take from another queue.
    pub(super) fn across(&self, claimant: NodeIx, victim: NodeIx, need: &[(ResourceIx, i64)]) -> Option<Right> {
        let books = &self.desk.books;
        let fair = || self.desk.fair.as_ref().and_then(|fair| fair.across(books, claimant, victim, need));
        rights::across(books, claimant, victim, need).or_else(fair)
    }

    /// Whether what was taken leaves the victim's side with what the right leaves to it.
    pub(super) fn holds_after(&self, right: Right, taken: &[Amounts]) -> bool {
        let books = &self.desk.books;
        match right {
            Right::Fair { queue, side } => {
                self.desk.fair.as_ref().is_some_and(|fair| fair.holds_after(books, queue, side, taken))
            }
            right => rights::holds_after(books, right, taken),
        }
    }
}

/// The shares of nodes that stand beside one that has less than it asks for.
fn contended(tree: &Tree, resource: ResourceIx, requests: &[i64], shares: &[i64]) -> Vec<Option<i64>> {
    let wanted = tree.requestable(resource, requests);
    let at = |values: &[i64], node: NodeIx| values.get(node.0 as usize).copied().unwrap_or(0);
    let mut found = vec![None; tree.len()];
    for parent in tree.bottom_up() {
        let children = tree.children(*parent);
        if children.iter().all(|node| at(shares, *node) >= at(&wanted, *node)) {
            continue;
        }
        for node in children {
            found.iter_mut().skip(node.0 as usize).take(1).for_each(|slot| *slot = Some(at(shares, *node)));
        }
    }
    found
}

/// What the work at each node itself asks for, by node and resource.
fn requests(state: &State, desk: &Desk, barred: &BTreeSet<u32>) -> Vec<Vec<i64>> {
    let books = &desk.books;
    let mut all = vec![vec![0_i64; usize::from(books.tree.resources())]; books.tree.len()];
    let mut add = |node: NodeIx, amounts: Amounts| {
        let Some(row) = all.get_mut(node.0 as usize) else { return };
        for (resource, amount) in amounts.as_slice() {
            let cell = row.iter_mut().skip(usize::from(*resource)).take(1);
            cell.for_each(|sum| *sum = sum.saturating_add(*amount));
        }
    };
    let mut add_jobs = |node: NodeIx, spec: &JobSpec, jobs: usize| {
        let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
        spec.groups.iter().for_each(|group| add(node, asked(books, &group.ask).times(group.max.saturating_mul(jobs))));
    };
    for lists in &desk.queues {
        let Some(node) = lists.node else { continue };
        let may_start = |kind: &u32| !barred.contains(kind) && state.queues.contains_key(&lists.name);
        for (kind, turns) in lists.waiting.iter().filter(|(kind, _)| may_start(kind)) {
            if let Some(spec) = desk.spec(*kind) {
                add_jobs(node, &spec, turns.len());
            }
        }
        holders(state, lists).for_each(|spec| add_jobs(node, spec, 1));
    }
    for model in state.models.values() {
        if let Some(node) = books.tree.node(&model.spec.queue) {
            add(node, asked(books, &model.ask(state.now, &state.policy)).times(model.target(state.now, &state.policy)));
        }
    }
    all
}

fn holders<'a>(state: &'a State, lists: &'a Lists) -> impl Iterator<Item = &'a JobSpec> {
    lists.holders.iter().filter_map(|ix| state.jobs.at(*ix)).map(|job| &*job.spec)
}

/// What one worker counts as; a share in MiB as of a usual device.
fn asked(books: &Books, ask: &Ask) -> Amounts {
    match ask.amount {
        Amount::MemoryMib(mib) => {
            let milli = u16::try_from((mib * 1000).div_ceil(USUAL_DEVICE_MIB).clamp(1, 1000)).unwrap_or(1000);
            books.least_amounts(&Ask { amount: Amount::Milli(milli), ..ask.clone() })
        }
        Amount::None | Amount::Whole(_) | Amount::Milli(_) | Amount::Slice { .. } | Amount::Mig(_) => books.least_amounts(ask),
    }
}

/// Priority and weight of each node among its siblings, after its past.
fn standings(state: &State, tree: &Tree, capacity_milli: i64) -> Vec<Standing> {
    let weight = |node: NodeIx| tree.queue(node).map_or(1000, |queue| u64::from(queue.weight_milli));
    let mut all = vec![Standing::default(); tree.len()];
    for parent in tree.bottom_up() {
        let sum: u64 = tree.children(*parent).iter().map(|node| weight(*node)).sum();
        for node in tree.children(*parent) {
            let Some(queue) = tree.queue(*node) else { continue };
            let part = weight(*node) * 1_000_000 / sum.max(1);
            let used = used_ppm(state, &queue.name, capacity_milli);
            let weight = decay::weight_after_usage(part, used, state.policy.history_percent.saturating_mul(10));
            let priority = state.queues.get(&queue.name).map_or(i32::MIN, |queue| queue.priority);
            all.iter_mut().skip(node.0 as usize).take(1).for_each(|slot| *slot = Standing { priority, weight });
        }
    }
    all
}

/// What a queue used in the past, of all that it could have, in millionths.
fn used_ppm(state: &State, queue: &QueueName, capacity_milli: i64) -> u64 {
    let used = u128::from(state.usage.settled_ms.get(queue).copied().unwrap_or(0));
    let capacity = u128::from(capacity_milli.max(0).unsigned_abs()) * u128::from(state.policy.half_life_ms) / 1000;
    let all = capacity * u128::from(SATURATED_PPM) / 1_000_000;
    u64::try_from((used * 1_000_000).checked_div(all).unwrap_or(0)).unwrap_or(1_000_000).min(1_000_000)
}

/// Thousandths of usable devices of a class.
fn of_class(books: &Books, resource: ResourceIx) -> i64 {
    let crate::state::Resource::Class(class) = books.resource(resource) else { return 0 };
    let nodes = books.cluster.nodes().iter().filter(|node| node.present);
    let devices = nodes.flat_map(|node| &node.devices).filter(|device| device.usable && device.class == class);
    i64::try_from(devices.count()).unwrap_or(0).saturating_mul(1000)
}
