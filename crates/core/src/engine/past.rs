//! The part of the state that is history: what an engine that is built from objects alone cannot know. It outlives the process in a
//! world whose objects are the truth for what runs (a cluster with a ledger); `snapshot` is for worlds that have no such objects.
//!
//! **Guarantees**, tested on random systems: an engine that remembers counts as held what one without a past counts, and no more;
//! run times, use of the past, times to stop and to load are those of the engine that they were taken of, faded by the time between.
//!
//! **Assumptions**: told once, early; later it is added to what was learned meanwhile.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Engine, RestoreError};
use crate::engine::desk::Desk;
use crate::fragment;
use crate::history::History;
use crate::names::{Class, JobName, ModelName, QueueName};
use crate::quota::decay;
use crate::state::{EVICTION_WINDOW_MS, FORGOTTEN_AFTER_MS, HOUR_MS, JobPast, ModelPast, Phase, State, VERSION};
use crate::time::At;

/// Sets of classes have as many bits.
const MOST_CLASSES: usize = 64;

/// See the module.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// That of the snapshot's format.
    pub version: u32,
    /// When it was taken.
    pub at: At,
    stop_ms: u64,
    evictions: Vec<At>,
    /// What queues used, which fades by this half-life.
    decayed_ms: BTreeMap<QueueName, u64>,
    half_life_ms: u64,
    history: History,
    /// Classes by number, as `asked` and `mix` mean them.
    classes: Vec<Class>,
    asked: fragment::History,
    mix: fragment::Mix,
    asked_since: u64,
    jobs: BTreeMap<JobName, JobPast>,
    models: BTreeMap<ModelName, ModelPast>,
}

impl Past {
    /// Reads what [`Past::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, RestoreError> {
        let found = super::version_of(text)?;
        if found != VERSION {
            return Err(RestoreError::Version { found });
        }
        serde_json::from_str(text).map_err(RestoreError::Unreadable)
    }

    /// As versioned JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    fn of(state: &State) -> Self {
        // What has not come back yet may still come back to the next one.
        let mut jobs = state.remembered.jobs.clone();
        let known = |(name, job): (&JobName, &crate::state::Job)| Some((name.clone(), JobPast::of(job, state.now)?));
        jobs.extend(state.jobs.iter().filter_map(known));
        let mut models = state.remembered.models.clone();
        models.extend(state.models.iter().map(|(name, model)| (name.clone(), ModelPast::of(model))));
        Self {
            version: VERSION,
            at: state.now,
            stop_ms: state.stop_ms,
            evictions: state.evictions.clone(),
            decayed_ms: state.usage.decayed_ms.clone(),
            half_life_ms: state.policy.half_life_ms,
            history: state.history.clone(),
            classes: state.classes.clone(),
            asked: state.asked.clone(),
            mix: state.mix.clone(),
            asked_since: state.asked_since,
            jobs,
            models,
        }
    }

    /// Moments of the future come of another machine's clock: they are now.
    fn not_after(mut self, now: At) -> Self {
        let clamp = |at: &mut At| *at = (*at).min(now);
        clamp(&mut self.at);
        self.evictions.iter_mut().for_each(clamp);
        self.evictions.retain(|at| now.since(*at) < EVICTION_WINDOW_MS);
        for job in self.jobs.values_mut() {
            job.disruptions.iter_mut().for_each(clamp);
            job.disruptions.retain(|at| now.since(*at) < HOUR_MS);
            job.progress.checkpoint_at.iter_mut().for_each(clamp);
            job.counted.iter_mut().for_each(|(_, at)| clamp(at));
        }
        for model in self.models.values_mut() {
            model.past_wants.iter_mut().for_each(|(until, _)| clamp(until));
            model.last_request.iter_mut().for_each(clamp);
        }
        self
    }
}

impl Engine {
    /// What it has learned, without what objects say.
    pub fn past(&self) -> Past {
        Past::of(&self.state)
    }

    /// Goes on with what another engine had learned. Jobs and models hear of theirs when they are seen, jobs known by the moment of
    /// their submission.
    pub fn remember(&mut self, now: At, past: Past) {
        self.state.advance(now);
        enter(&mut self.state, past.not_after(now));
        self.state.dirty = true;
        self.desk = Desk::of(&self.state);
    }
}

fn enter(state: &mut State, past: Past) {
    let now = state.now;
    let Past { at, stop_ms, evictions, decayed_ms, half_life_ms, history, jobs, models, .. } = &past;
    state.stop_ms = *stop_ms;
    state.evictions.extend(evictions);
    state.evictions.sort_unstable();
    for (queue, used) in decayed_ms {
        let sum = state.usage.decayed_ms.entry(queue.clone()).or_default();
        *sum = sum.saturating_add(decay::faded(*used, *at, now, *half_life_ms));
    }
    state.usage.settled_ms.clone_from(&state.usage.decayed_ms);
    if state.history.is_shorter(history) {
        state.history = history.clone();
    }
    state.remembered.until = now.plus(FORGOTTEN_AFTER_MS);
    state.remembered.jobs.extend(jobs.clone());
    state.remembered.models.extend(models.clone());
    learned(state, past);
    recall(state);
}

/// Typical work, if classes have the same numbers.
fn learned(state: &mut State, past: Past) {
    if past.classes.starts_with(&state.classes) && past.classes.len() <= MOST_CLASSES {
        (state.classes, state.asked, state.mix) = (past.classes, past.asked, past.mix);
        state.asked_since = past.asked_since;
    }
}

/// Of those that are here already.
fn recall(state: &mut State) {
    let here: Vec<u32> = state.jobs.slots().map(|(ix, _, _)| ix).collect();
    for ix in here {
        let Some((name, job)) = state.jobs.name(ix).cloned().zip(state.jobs.at_mut(ix)) else { continue };
        let Some(past) = state.remembered.job(&name, job.submitted) else { continue };
        if !matches!(job.phase, Phase::Finished(_)) {
            past.enter(job);
            past.resume(job);
        }
    }
    for (name, model) in &mut state.models {
        if let Some(past) = state.remembered.models.remove(name).filter(|_| model.last_request.is_none()) {
            past.enter(model);
        }
    }
}
