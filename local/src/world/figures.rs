//! Figures since the data directory was made: what the scenario and the example's summary are made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_api::view;
use tidegate_core::names::JobName;
use tidegate_core::plan::{Action, ActionKind, Reason};
use tidegate_core::{JobExit, State};

/// Entries kept of each list: a long-lived box forgets the oldest.
const KEPT: usize = 10_000;

/// Counters that the engine does not keep.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub(super) struct Figures {
    reclaims: u64,
    reclaim_ms: Vec<u64>,
    steps_lost: BTreeMap<String, Vec<u64>>,
    checkpoints: BTreeMap<String, u64>,
    resizes: BTreeMap<String, u64>,
    /// Size of each job's last attempt.
    sizes: BTreeMap<String, usize>,
    /// Reclaims under way: since when.
    reclaiming: BTreeMap<String, u64>,
    double_runs: u64,
}

impl Figures {
    pub fn from_json(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The engine decided.
    pub fn decided(&mut self, action: &Action, state: &State) {
        match &action.kind {
            ActionKind::StopJob { job, .. } => {
                if matches!(action.reason, Reason::Reclaim { .. } | Reason::FairShare { .. }) {
                    self.reclaims += 1;
                    self.reclaiming.insert(job.to_string(), state.now.0);
                }
            }
            ActionKind::StartJob { job, workers, .. } => {
                let former = self.sizes.insert(job.to_string(), workers.len());
                if former.is_some_and(|size| size != workers.len()) {
                    *self.resizes.entry(job.to_string()).or_default() += 1;
                }
            }
            ActionKind::StartReplica { .. } | ActionKind::StopReplica { .. } => {}
        }
    }

    /// An attempt is over; the engine does not know it yet, so its progress is still that of the attempt.
    pub fn attempt_ended(&mut self, job: &JobName, state: &State, exit: JobExit, now_ms: u64) {
        if let Some(since) = self.reclaiming.remove(job.as_str()) {
            push(&mut self.reclaim_ms, now_ms.saturating_sub(since));
        }
        if exit == JobExit::Succeeded {
            return;
        }
        if let Some(progress) = state.jobs.get(job).map(|job| &job.progress) {
            let lost = progress.step.saturating_sub(progress.checkpoint_step);
            push(self.steps_lost.entry(job.to_string()).or_default(), lost);
        }
    }

    /// A checkpoint was reported complete.
    pub fn checkpoint(&mut self, job: &JobName) {
        *self.checkpoints.entry(job.to_string()).or_default() += 1;
    }

    /// A worker was found that should not run any more.
    pub fn double_run(&mut self) {
        self.double_runs += 1;
    }

    /// All figures, with the engine's own.
    pub fn report(&self, state: &State) -> view::Report {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        view::Report {
            device_seconds: seconds(state.usage.device_ms),
            lent_gpu_seconds: seconds(state.usage.lent_ms),
            held_gpu_seconds: state.held_ms().into_iter().map(|(holder, ms)| (holder, seconds(ms))).collect(),
            reclaims: self.reclaims,
            reclaim_ms: self.reclaim_ms.clone(),
            steps_lost: self.steps_lost.clone(),
            checkpoints: self.checkpoints.clone(),
            resizes: self.resizes.clone(),
            peak_wanted: state.models.iter().map(|(name, model)| (name.to_string(), model.peak_want)).collect(),
            double_runs: self.double_runs,
        }
    }
}

fn push(list: &mut Vec<u64>, value: u64) {
    if list.len() >= KEPT {
        list.remove(0);
    }
    list.push(value);
}

#[cfg(test)]
mod tests {
    use tidegate_core::plan::{ActionId, Claimant};

    use super::*;

    #[test]
    fn what_is_taken_back_by_quota_or_by_fair_share_is_a_reclaim_and_what_a_priority_takes_is_none() {
        let by = || Claimant::Job(JobName::from("owed"));
        let reasons = [
            Reason::Reclaim { by: by(), from: 1, to: 0, lost_ms: 0 },
            Reason::FairShare { by: by(), from: 1, to: 0, lost_ms: 0 },
            Reason::Preempt { by: by(), from: 1, to: 0, lost_ms: 0 },
        ];
        let mut figures = Figures::default();
        for reason in reasons {
            let kind = ActionKind::StopJob { job: JobName::from("lent"), attempt: 1, resume_with: 0 };
            figures.decided(&Action { id: ActionId(1), after: Vec::new(), kind, reason }, &State::default());
        }
        assert_eq!(figures.report(&State::default()).reclaims, 2);
    }
}
