//! When running work is expected to end and which waiting work is expected to be short: from history alone.

use crate::books::GPU;
use crate::names::QueueName;
use crate::quota::Tree;
use crate::state::{Discipline, Job, State};
use crate::time::At;

/// Assumed of a run without an estimate and without history.
const UNKNOWN_MS: u64 = 24 * 3_600_000;

/// A run that has outlived its estimate is expected to last as long again as this share of its age, in percent.
const OUTLIVED_PERCENT: u64 = 50;

impl State {
    /// Milliseconds, at its smallest size, that a job is expected to run in all; at the given quantile of its kind.
    pub fn expected_total_ms(&self, job: &Job, percent: usize) -> u64 {
        let served = job.served_ms(self.now);
        // A run that knows its end and how far it is says more than its kind.
        if let Some(ppm) = job.progress.done_ppm.filter(|ppm| *ppm >= 10_000) {
            return served.saturating_mul(1_000_000) / u64::from(ppm);
        }
        let spec = &job.spec;
        let known = self.history.quantile(&spec.owner, &spec.recipe, served, percent).or(spec.expected_ms);
        known.unwrap_or(UNKNOWN_MS).max(served.saturating_add(served / 100 * OUTLIVED_PERCENT))
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
        let used = self.usage.decayed_ms.get(queue).copied().unwrap_or(0);
        let all = u64::try_from(capacity_milli).unwrap_or(0).saturating_mul(self.policy.half_life_ms) / 1000;
        used.saturating_mul(1_000_000).checked_div(all).unwrap_or(0) * u64::from(self.policy.history_percent) / 100
    }
}

/// Where a job stands among those of its queue and priority: lower goes first.
pub(super) fn turn_key(state: &State, job: &Job) -> u64 {
    let discipline = state.queues.get(&job.spec.queue).map(|queue| queue.discipline).unwrap_or_default();
    match discipline {
        Discipline::StrictFifo | Discipline::BestEffort => job.submitted.0,
        Discipline::Responsive => state.expected_left_ms(job, 50),
    }
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
