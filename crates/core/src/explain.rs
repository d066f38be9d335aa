//! Why something is as it is, and what would change it: facts from the state, counterfactuals from the
//! same engine run on a changed copy of it.

use crate::engine::Engine;
use crate::holdings::Holdings;
use crate::names::{Class, DeviceId, JobName, ModelName};
use crate::plan::ActionKind;
use crate::state::{Device, End, Health, Job, Phase, State};
use crate::time::At;

/// How many added devices a counterfactual tries.
const MAX_ADDED: u32 = 16;

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// One sentence.
    pub status: String,
    /// What binds, most important first.
    pub because: Vec<String>,
    /// What would change it.
    pub would_change: Vec<String>,
}

/// Why a waiting job waits, in one sentence.
pub fn waiting(state: &State, name: &JobName, job: &Job) -> String {
    let Phase::Waiting { not_before, .. } = &job.phase else { return String::new() };
    if job.paused {
        return "paused by a person; `resume` lets it run".to_owned();
    }
    if let Some(at) = not_before.filter(|at| *at > state.now) {
        let (failures, limit) = (job.failures, job.spec.backoff_limit);
        return format!(
            "attempt {} failed ({failures} in a row, limit {limit}); the next starts in {} s",
            job.attempts,
            at.since(state.now).div_ceil(1000)
        );
    }
    let suits = state.devices.values().filter(|device| device.health == Health::Ok && job.spec.ask.suits(device)).count();
    if suits < job.spec.min as usize && job.spec.ask.amount == crate::state::Amount::Whole {
        return format!("needs {} device(s) of its classes, {suits} are usable", job.spec.min);
    }
    let Some(queue) = state.queues.get(&job.spec.queue) else { return format!("queue {} does not exist", job.spec.queue) };
    let holdings = Holdings::of(state);
    let used = holdings.queue_milli(&job.spec.queue);
    if let Some(borrowing) = queue.borrowing_limit {
        let limit = u64::from(queue.nominal) + u64::from(borrowing);
        if used + u64::from(job.spec.min) * 1000 > limit * 1000 {
            return format!("queue {} uses {} of its limit of {limit} device(s)", job.spec.queue, used.div_ceil(1000));
        }
    }
    if state.eviction_cap_reached {
        return "the cap on evictions per minute is reached".to_owned();
    }
    let holders = holdings.by_holder();
    let models: Vec<&str> = holders.keys().filter(|holder| holder.starts_with("model/")).map(String::as_str).collect();
    let jobs: Vec<&str> = holders
        .keys()
        .filter(|holder| **holder != format!("job/{name}") && holder.starts_with("job/"))
        .map(String::as_str)
        .collect();
    let free = state.devices.iter().filter(|(id, device)| device.health == Health::Ok && holdings.claims(id).is_empty()).count();
    let mut who = models;
    who.extend(jobs);
    format!(
        "needs {} device(s), {free} of {} are free; {} hold the rest",
        job.spec.min,
        state.devices.len(),
        if who.is_empty() { "none".to_owned() } else { who.join(", ") }
    )
}

/// Explains a job; `None` if there is none of this name.
pub fn job(engine: &Engine, name: &JobName, now: At) -> Option<Explanation> {
    let state = engine.state();
    let job = state.jobs.get(name)?;
    let mut answer = Explanation::default();
    match &job.phase {
        Phase::Waiting { .. } => {
            answer.status = format!("job/{name} waits");
            answer.because.push(waiting(state, name, job));
            answer.because.extend(before_it(state, name, job));
            answer.would_change.extend(starts_if(engine, name, now));
        }
        Phase::Running(run) => {
            let on: Vec<&str> = run.devices.iter().map(|id| id.0.as_str()).collect();
            answer.status =
                format!("job/{name} runs attempt {} with {} worker(s) on {}", run.attempt, run.devices.len(), on.join(", "));
            match &run.stop {
                Some(stop) => answer.because.push(format!("it is being stopped: {}", stop.reason)),
                None => answer.because.extend(size(state, job, run.devices.len())),
            }
            answer
                .would_change
                .push(format!("if it had to give way now it would lose {} device-seconds", job.lost_work_ms(now) / 1000));
        }
        Phase::Finished(end) => {
            answer.status = match end {
                End::Succeeded { .. } => format!("job/{name} has succeeded"),
                End::Failed { .. } => {
                    format!("job/{name} has failed: {} failures in a row, limit {}", job.failures, job.spec.backoff_limit)
                }
                End::Cancelled { .. } => format!("job/{name} was cancelled"),
            };
        }
    }
    Some(answer)
}

/// Jobs that wait before it.
fn before_it(state: &State, name: &JobName, job: &Job) -> Option<String> {
    let key = |name: &JobName, job: &Job| (-job.spec.priority, job.submitted, name.clone());
    let waits = |job: &Job| matches!(job.phase, Phase::Waiting { .. }) && !job.is_unwanted();
    let before = state.jobs.iter().filter(|(other, rival)| waits(rival) && key(other, rival) < key(name, job)).count();
    (before > 0).then(|| format!("{before} job(s) wait before it (higher priority, or older)"))
}

/// Why it has the size that it has.
fn size(state: &State, job: &Job, size: usize) -> Vec<String> {
    let holdings = Holdings::of(state);
    let nominal = state.queues.get(&job.spec.queue).map_or(0, |queue| u64::from(queue.nominal) * 1000);
    let used = holdings.queue_milli(&job.spec.queue);
    let mut because = Vec::new();
    if used > nominal {
        because.push(format!(
            "queue {} uses {} device(s), {} above its own: these are lent and go back on demand",
            job.spec.queue,
            used.div_ceil(1000),
            (used - nominal).div_ceil(1000)
        ));
    }
    if size < job.spec.max as usize {
        let held: Vec<String> =
            holdings.by_holder().into_iter().map(|(holder, milli)| format!("{holder} {}", milli.div_ceil(1000))).collect();
        because.push(format!("it could use {} workers and has {size}; devices are held by: {}", job.spec.max, held.join(", ")));
    }
    because
}

/// The smallest change of the state with which the same engine would start the job.
fn starts_if(engine: &Engine, name: &JobName, now: At) -> Option<String> {
    let job = engine.state().jobs.get(name)?;
    let starts = |state: State| {
        let mut changed = Engine::from(state);
        changed.mark_all_dirty();
        let plan = changed.decide(now);
        plan.actions.iter().any(|action| matches!(&action.kind, ActionKind::StartJob { job, .. } if job == name))
    };
    let template = engine.state().devices.values().find(|device| job.spec.ask.suits(device)).cloned();
    let class = job.spec.ask.classes.first().cloned();
    let template = template
        .or_else(|| class.map(|class| Device { class, memory_mib: u64::MAX / 2, health: Health::Ok, free_since: None }))?;
    (1..=MAX_ADDED).find_map(|added| {
        let mut state = engine.state().clone();
        for index in 0..added {
            state.devices.insert(DeviceId(format!("what-if-{index}")), template.clone());
        }
        let Class(class) = &template.class;
        starts(state).then(|| format!("would start now with {added} more {class}"))
    })
}

/// Explains a model; `None` if there is none of this name.
pub fn model(engine: &Engine, name: &ModelName, now: At) -> Option<Explanation> {
    let state = engine.state();
    let model = state.models.get(name)?;
    let replicas: Vec<_> = state.replicas.values().filter(|replica| replica.model == *name && replica.stop.is_none()).collect();
    let target = model.target(now, &state.policy);
    let mut answer = Explanation {
        status: format!("model/{name} should have {target} replica(s) and has {}", replicas.len()),
        ..Explanation::default()
    };
    let demand = &model.demand;
    let rate = format!("{}.{} rows/s", demand.milli_rows_per_s / 1000, demand.milli_rows_per_s % 1000 / 100);
    match demand.service {
        Some(service) => {
            let slo_us = model.spec.slo_ms * 1000;
            let batch = service.largest_batch(slo_us, model.spec.max_rows);
            let capacity = service.capacity_milli_rows_per_s(slo_us, model.spec.max_rows);
            answer.because.push(format!(
                "{rate} arrive; a batch of n takes {} ms + {} ms * n, so with an SLO of {} ms a device takes batches of {batch}, that is {} rows/s; head-room is {} %",
                service.base_us / 1000, service.per_row_us / 1000, model.spec.slo_ms, capacity / 1000, state.policy.headroom_percent
            ));
        }
        None => answer.because.push(format!("{rate} arrive; its service time is not measured yet")),
    }
    if target > model.want {
        let why = if model.past_wants.iter().any(|(until, _)| now.since(*until) < state.policy.lend_after_ms) {
            format!("the rest stays until it was not needed for {} s", state.policy.lend_after_ms / 1000)
        } else {
            format!("its last request keeps one for {} s", model.spec.zero_after_ms / 1000)
        };
        answer.because.push(format!("its demand asks for {} now; {why}", model.want));
    }
    if replicas.len() < target as usize {
        answer.because.push(lacking(state, model));
    }
    if let Some(at) = model.next_change(now, &state.policy) {
        answer.would_change.push(format!("without more requests it is looked at again in {} s", at.since(now).div_ceil(1000)));
    }
    Some(answer)
}

fn lacking(state: &State, model: &crate::state::Model) -> String {
    if let Some(at) = model.not_before.filter(|at| *at > state.now) {
        return format!(
            "{} replicas failed in a row; the next starts in {} s",
            model.failures,
            at.since(state.now).div_ceil(1000)
        );
    }
    if state.eviction_cap_reached {
        return "the cap on evictions per minute is reached".to_owned();
    }
    let Some(queue) = state.queues.get(&model.spec.queue) else { return format!("queue {} does not exist", model.spec.queue) };
    let used = Holdings::of(state).queue_milli(&model.spec.queue).div_ceil(1000);
    format!(
        "no device is free, and queue {} uses {used} of its own {}: it may take no more from others",
        model.spec.queue, queue.nominal
    )
}
