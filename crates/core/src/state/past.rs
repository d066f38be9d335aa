//! What is remembered of jobs and models and no object of a world says. After a restart it waits in the state for its object to be
//! seen again; of nodes, devices and who holds them nothing is in here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Job, Model, Phase, Progress};
use crate::demand::{Budget, Demand, Need};
use crate::names::{JobName, ModelName};
use crate::time::At;

/// An object that was not seen again for an hour does not come back.
pub const FORGOTTEN_AFTER_MS: u64 = 3_600_000;

/// What waits for its object.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// From then on it is forgotten.
    pub until: At,
    pub jobs: BTreeMap<JobName, JobPast>,
    pub models: BTreeMap<ModelName, ModelPast>,
}

impl Remembered {
    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.models.is_empty()
    }

    /// What is remembered of the job that was submitted then; of a namesake nothing is.
    pub fn job(&mut self, name: &JobName, submitted: At) -> Option<JobPast> {
        self.jobs.remove(name).filter(|past| past.submitted == submitted)
    }
}

/// Of a job.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct JobPast {
    /// By which it is known from a namesake.
    pub submitted: At,
    pub served_ms: u64,
    pub waited_ms: u64,
    pub disruptions: Vec<At>,
    pub progress: Progress,
    /// The end of its pause after a failure.
    pub not_before: Option<At>,
    /// Up to when what that attempt ran is in `served_ms`.
    pub counted: Option<(u32, At)>,
}

impl JobPast {
    /// What is worth remembering of a job; nothing of one that runs for the first time.
    pub fn of(job: &Job, now: At) -> Option<Self> {
        let not_before = match &job.phase {
            Phase::Waiting { not_before, .. } => *not_before,
            Phase::Running(_) => None,
            Phase::Finished(_) => return None,
        };
        let past = Self {
            submitted: job.submitted,
            served_ms: job.served_ms,
            waited_ms: job.waited_ms(now),
            disruptions: job.disruptions.clone(),
            progress: job.progress.clone(),
            not_before,
            counted: job.run().map(|run| (run.attempt, run.counted)),
        };
        let is_new = past.served_ms == 0 && past.disruptions.is_empty() && past.progress == Progress::default();
        (!is_new || job.run().is_none()).then_some(past)
    }

    /// Adds it to what the job knows of itself by now.
    pub fn enter(&self, job: &mut Job) {
        job.served_ms = job.served_ms.saturating_add(self.served_ms);
        job.waited_ms = job.waited_ms.saturating_add(self.waited_ms);
        job.disruptions.splice(0..0, self.disruptions.iter().copied());
        if job.progress == Progress::default() {
            job.progress = self.progress.clone();
        }
        if let Phase::Waiting { not_before, .. } = &mut job.phase {
            *not_before = (*not_before).max(self.not_before);
        }
    }

    /// What its running attempt ran before counts once: it is in what was entered.
    pub fn resume(&self, job: &mut Job) {
        if let (Phase::Running(run), Some((attempt, at))) = (&mut job.phase, self.counted)
            && run.attempt == attempt
        {
            run.counted = run.counted.max(at);
        }
    }
}

/// Of a model.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ModelPast {
    pub want: u32,
    pub want_sharers: u32,
    pub past_wants: Vec<(At, Need)>,
    pub budget: Budget,
    pub peak_want: u32,
    pub last_request: Option<At>,
    pub load_ms: u64,
    /// The fitted service time and how unevenly rows came; what waited then does not any more.
    pub demand: Demand,
    pub failures: u32,
    pub not_before: Option<At>,
}

impl ModelPast {
    pub fn of(model: &Model) -> Self {
        let Demand { service, burst_milli, .. } = model.demand;
        Self {
            want: model.want,
            want_sharers: model.want_sharers,
            past_wants: model.past_wants.clone(),
            budget: model.budget.clone(),
            peak_want: model.peak_want,
            last_request: model.last_request,
            load_ms: model.load_ms,
            demand: Demand { service, burst_milli, ..Demand::default() },
            failures: model.failures,
            not_before: model.not_before,
        }
    }

    /// A model that was just added goes on where it was.
    pub fn enter(self, model: &mut Model) {
        let Self { want, want_sharers, past_wants, budget, peak_want, last_request, load_ms, demand, failures, not_before } =
            self;
        let want = want.clamp(model.spec.min, model.spec.max.max(model.spec.min));
        (model.want, model.want_sharers, model.past_wants) = (want, want_sharers, past_wants);
        (model.budget, model.peak_want, model.last_request) = (budget, peak_want, last_request);
        (model.load_ms, model.demand, model.failures, model.not_before) = (load_ms, demand, failures, not_before);
    }
}
