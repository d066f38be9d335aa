//! Jobs and models as the page shows them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tidegate_api::eta::Etas;
use tidegate_api::view;
use tidegate_core::names::{JobName, ModelName};
use tidegate_core::state::{Job, Model, Phase, ReplicaPhase};
use tidegate_core::{State, explain};

use super::reasons;
use crate::world::Scene;

/// Of those that wait, and of those that run: who is first and who came last. A reason costs a pass over the nodes.
const MOST: usize = 200;
/// Jobs of pods that others have placed.
const OTHERS: &str = "foreign/";

/// Those that wait, in their order, then those that run, the youngest first; and how many more there are.
pub(super) fn jobs(scene: &Scene, etas: &Etas) -> (Vec<view::Job>, usize) {
    let state = scene.engine.state();
    let ours = state.jobs.iter().filter(|(name, job)| !name.0.starts_with(OTHERS) && !matches!(job.phase, Phase::Finished(_)));
    let (mut waiting, mut running): (Vec<_>, Vec<_>) = ours.partition(|(_, job)| job.run().is_none());
    waiting.sort_by_key(|(_, job)| (Reverse(job.spec.priority), job.turn));
    running.sort_by_key(|(_, job)| Reverse(job.run().map(|run| run.since)));
    let more = waiting.len().saturating_sub(MOST) + running.len().saturating_sub(MOST);
    let reasons = reasons(scene);
    let shown = waiting.into_iter().take(MOST).chain(running.into_iter().take(MOST));
    (shown.map(|(name, job)| view_of(scene, name, job, &reasons, etas)).collect(), more)
}

fn view_of(scene: &Scene, name: &JobName, job: &Job, reasons: &BTreeMap<&str, &str>, etas: &Etas) -> view::Job {
    let last = || reasons.get(format!("job/{name}").as_str()).map_or_else(String::new, |reason| (*reason).to_owned());
    let (phase, reason) = match &job.phase {
        Phase::Running(run) => match &run.stop {
            Some(stop) => ("stopping", stop.reason.to_string()),
            None if run.observed => ("running", last()),
            None => ("starting", last()),
        },
        Phase::Waiting { .. } | Phase::Finished(_) => ("waiting", explain::waiting(&scene.engine, name)),
    };
    let (min, max) = job.spec.size();
    view::Job {
        name: name.to_string(),
        queue: job.spec.queue.to_string(),
        priority: job.spec.priority,
        phase: phase.to_owned(),
        reason,
        workers: job.run().map_or(0, |run| u32::try_from(run.seats.len()).unwrap_or(u32::MAX)),
        min,
        max,
        attempt: job.attempts,
        failures: job.failures,
        step: job.progress.step,
        checkpoint_step: job.progress.checkpoint_step,
        done: job.progress.done_ppm.map(|ppm| f64::from(ppm) / 1e6),
        submitted_ms: job.submitted.0,
        eta: etas.get(name.as_str()).filter(|_| phase == "waiting").cloned(),
        ..view::Job::default()
    }
}

pub(super) fn models(scene: &Scene) -> Vec<view::Model> {
    let reasons = reasons(scene);
    let state = scene.engine.state();
    state.models.iter().map(|(name, model)| model_view(scene, state, name, model, &reasons)).collect()
}

fn model_view(scene: &Scene, state: &State, name: &ModelName, model: &Model, reasons: &BTreeMap<&str, &str>) -> view::Model {
    let replicas = || state.replicas.values().filter(|replica| replica.model == *name);
    let stays = |phase| replicas().filter(|replica| replica.stop.is_none() && replica.phase == phase).count();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (ready, starting) = (count(stays(ReplicaPhase::Ready)), count(stays(ReplicaPhase::Starting)));
    let wanted = model.target(scene.at, &state.policy);
    let phase = match (model.paused, ready, starting, wanted) {
        (true, ..) => "paused",
        (_, 1.., ..) => "serving",
        (_, 0, 1.., _) => "waking",
        (_, 0, 0, 0) => "asleep",
        (_, 0, 0, _) => "starved",
    };
    let fit = model.demand.service;
    view::Model {
        name: name.to_string(),
        queue: model.spec.queue.to_string(),
        priority: model.spec.priority,
        phase: phase.to_owned(),
        reason: reasons.get(format!("model/{name}").as_str()).map_or_else(String::new, |reason| (*reason).to_owned()),
        slo_ms: model.spec.slo_ms,
        wanted,
        ready,
        starting,
        draining: count(replicas().filter(|replica| replica.stop.is_some()).count()),
        arrival_per_s: model.demand.milli_rows_per_s as f64 / 1000.0,
        fit_base_ms: fit.map_or(0.0, |fit| fit.base_us as f64 / 1000.0),
        fit_per_row_ms: fit.map_or(0.0, |fit| fit.per_row_us as f64 / 1000.0),
        ..view::Model::default()
    }
}
