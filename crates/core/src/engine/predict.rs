//! When running work is expected to end and which waiting work is expected to be short: from history alone.

use std::collections::BTreeMap;

use crate::books::GPU;
use crate::claim::{self, Claim};
use crate::eta::Estimate;
use crate::history::Like;
use crate::names::QueueName;
use crate::quota::{NodeIx, Tree};
use crate::state::{Discipline, Job, State};
use crate::time::At;

use super::desk::{Desk, Lists};

/// The rank of a run of which nothing is known, at least.
const UNKNOWN_RANK_MS: u64 = 1_800_000;

/// Assumed of a run without an estimate and without history.
const UNKNOWN_MS: u64 = 24 * 3_600_000;

/// A run that has outlived its estimate is expected to last as long again as this share of its age, in percent.
const OUTLIVED_PERCENT: u64 = 50;

impl State {
    /// Milliseconds, at its smallest size, that a job is expected to run in all; at the given quantile of its kind.
    pub fn expected_total_ms(&self, job: &Job, percent: usize) -> u64 {
        self.expected(job, percent).0
    }

    /// The same, and what says so. A run that knows its end and how far it is says more than its kind, its kind more than whoever
    /// submitted it, and these more than runs of another kind.
    pub fn expected(&self, job: &Job, percent: usize) -> (u64, Estimate) {
        let served = job.served_ms(self.now);
        if let Some(ppm) = job.progress.done_ppm.filter(|ppm| *ppm >= 10_000) {
            return (served.saturating_mul(1_000_000) / u64::from(ppm), Estimate::Progress);
        }
        let spec = &job.spec;
        let past = |like| {
            let known = self.history.quantile(&spec.owner, &spec.recipe, served, percent, like);
            known.map(|ms| (ms, Estimate::History))
        };
        let told = || spec.expected_ms.map(|ms| (ms, Estimate::User));
        let said = past(Like::Recipe).or_else(told).or_else(|| past(Like::Other)).unwrap_or((UNKNOWN_MS, Estimate::Unknown));
        let outlived = served.saturating_add(served / 100 * OUTLIVED_PERCENT);
        if said.0 < outlived { (outlived, Estimate::Unknown) } else { said }
    }

    /// Milliseconds, at its smallest size, that it has still to run.
    pub fn expected_left_ms(&self, job: &Job, percent: usize) -> u64 {
        self.expected_total_ms(job, percent).saturating_sub(job.served_ms(self.now)).max(1)
    }

    /// When a job that starts now with so many workers is expected to end.
    pub(super) fn end_with(&self, job: &Job, workers: usize) -> At {
        let least = job.spec.speed_milli(job.spec.size().0).max(1);
        let speed = job.spec.speed_milli(u32::try_from(workers).unwrap_or(u32::MAX)).max(1);
        let left = self.expected_left_ms(job, self.policy.predict_percent as usize);
        self.now.plus(left.saturating_mul(least) / speed)
    }

    /// What a queue used in the past, as a share of all GPUs over one half-life, in millionths, weighed by the policy.
    pub(super) fn past_share_ppm(&self, queue: &QueueName, capacity_milli: i64) -> u64 {
        if self.policy.history_percent == 0 {
            return 0;
        }
        let used = self.usage.settled_ms.get(queue).copied().unwrap_or(0);
        let all = u64::try_from(capacity_milli).unwrap_or(0).saturating_mul(self.policy.half_life_ms) / 1000;
        used.saturating_mul(1_000_000).checked_div(all).unwrap_or(0) * u64::from(self.policy.history_percent) / 100
    }
}

/// Whether a queue, or one above it, has used more than its budget: it waits for others, and takes from nobody.
pub(super) fn is_over_budget(state: &State, desk: &Desk, node: NodeIx) -> bool {
    if !desk.rules.has_budget(node) {
        return false;
    }
    let tree = &desk.books.tree;
    let spent = |name: &QueueName| {
        let budget = state.queues.get(name).and_then(|queue| queue.budget_ms);
        budget.is_some_and(|budget| state.usage.decayed_ms.get(name).copied().unwrap_or(0) > budget)
    };
    tree.path(node).filter_map(|node| tree.queue(node)).any(|queue| spent(&queue.name))
}

/// When a queue in which somebody waits may be within its budget again: the past fades in steps. Whether it is over it now does
/// not matter, since that comes with time alone.
pub(super) fn next_within_budget(state: &State, desk: &Desk) -> Option<At> {
    let counted = |node: NodeIx| desk.rules.has_budget(node);
    let waits = desk.queues.iter().any(|lists| !lists.waiting.is_empty() && lists.node.is_some_and(counted));
    waits.then(|| state.next_fade())
}

/// Where a job that begins to wait stands among those of its queue and priority: lower goes first.
pub(super) fn turn_key(state: &State, job: &Job) -> u64 {
    let discipline = state.queues.get(&job.spec.queue).map(|queue| queue.discipline).unwrap_or_default();
    match discipline {
        Discipline::StrictFifo | Discipline::BestEffort => job.submitted.0,
        Discipline::Responsive => claim::turn(claim_of(state, job, &mut BTreeMap::new())),
    }
}

/// Expected time to completion by owner, recipe and age, asked for once.
type Ranks<'a> = BTreeMap<(&'a str, &'a str, u64), u64>;

fn claim_of<'a>(state: &State, job: &'a Job, ranks: &mut Ranks<'a>) -> Claim {
    let (served, spec) = (job.served_ms(state.now), &job.spec);
    let left = *ranks.entry((&spec.owner, &spec.recipe, served)).or_insert_with(|| {
        let known = job.progress.done_ppm.is_some();
        if known {
            return state.expected_left_ms(job, 50);
        }
        let past = |like| state.history.rank(&spec.owner, &spec.recipe, served, like);
        let told = || spec.expected_ms?.checked_sub(served).filter(|left| *left > 0);
        // Where nothing is known, as long again as it ran (Lindy), at least half an hour.
        let unknown = || served.max(UNKNOWN_RANK_MS);
        past(Like::Recipe).or_else(told).or_else(|| past(Like::Other)).unwrap_or_else(unknown)
    });
    claim::claim(served, job.waited_ms(state.now), left)
}

/// Puts the jobs of responsive queues in order, when it is time for that; everything is looked at again then.
pub(super) fn rank(state: &mut State, desk: &mut Desk) {
    desk.ranked = next_rank(state, desk).is_some_and(|at| at <= state.now);
    if !desk.ranked {
        return;
    }
    state.ranked_at = state.now;
    let mut ranks = Ranks::new();
    let mut claims = BTreeMap::new();
    for ix in responsive(state, desk) {
        if let Some(job) = state.jobs.at(ix) {
            claims.insert(ix, claim_of(state, job, &mut ranks));
        }
    }
    for (ix, claim) in &claims {
        let Some(job) = state.jobs.at_mut(*ix).filter(|job| job.run().is_none()) else { continue };
        let turn = claim::turn(*claim);
        if job.turn != turn {
            job.turn = turn;
            desk.list(state, *ix);
        }
    }
    for lists in &mut desk.queues {
        lists.weakest = lists.holders.iter().filter_map(|ix| claims.get(ix)).max().copied();
    }
    desk.claims = claims;
}

/// When jobs are put in order next: only while some wait in a responsive queue, or are elastic there.
pub(super) fn next_rank(state: &State, desk: &Desk) -> Option<At> {
    let any = |lists: &Lists| (!lists.waiting.is_empty() || lists.elastic > 0) && is_responsive(state, &lists.name);
    desk.queues.iter().any(any).then(|| state.ranked_at.plus(state.policy.rank_every_ms.max(1)))
}

/// The first that waits after a time in which nobody did is put in order with those that come a little later.
pub(super) fn begin_ranks(state: &mut State, desk: &Desk) {
    if next_rank(state, desk).is_some_and(|at| at <= state.now) {
        state.ranked_at = state.now;
    }
}

pub(super) fn is_responsive(state: &State, queue: &QueueName) -> bool {
    state.queues.get(queue).is_some_and(|queue| queue.discipline == Discipline::Responsive)
}

/// Jobs that wait or run in responsive queues.
fn responsive(state: &State, desk: &Desk) -> Vec<u32> {
    let queues = desk.queues.iter().filter(|lists| is_responsive(state, &lists.name));
    queues.flat_map(|lists| lists.waiting.values().flatten().map(|turn| turn.2).chain(lists.holders.iter().copied())).collect()
}

/// Keeps the rates by which what each queue used is remembered, if anything counts it.
pub(super) fn note_used(state: &mut State, tree: &Tree) {
    let counted = state.policy.history_percent > 0 || state.queues.values().any(|queue| queue.budget_ms.is_some());
    let nodes = tree.bottom_up().iter().filter(|node| counted && **node != tree.root());
    let used = nodes.filter_map(|node| {
        let milli = u64::try_from(tree.usage(*node, GPU)).unwrap_or(0);
        tree.queue(*node).map(|queue| (queue.name.clone(), milli))
    });
    state.usage.used_milli = used.filter(|(_, milli)| *milli > 0).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Ask;
    use crate::state::JobSpec;

    #[test]
    fn a_users_estimate_gives_way_to_runs_of_its_recipe_alone() {
        let mut state = State::default();
        for _ in 0..4 {
            state.history.add("ann", "short", 10_000);
        }
        let expected = |recipe: &str, expected_ms| {
            let spec = JobSpec {
                owner: "ann".to_owned(),
                recipe: recipe.to_owned(),
                expected_ms,
                ..JobSpec::workers("q", 1, 1, Ask::whole(1))
            };
            state.expected(&Job::new(spec, At(0)), 50)
        };
        assert_eq!(expected("short", Some(7_200_000)), (10_000, Estimate::History));
        assert_eq!(expected("long", Some(7_200_000)), (7_200_000, Estimate::User), "whatever else has ended");
        assert_eq!(expected("long", None), (10_000, Estimate::History), "better than nothing");
    }
}
