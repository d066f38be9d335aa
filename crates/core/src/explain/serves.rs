//! Why a model has the replicas that it has.

use crate::engine::Engine;
use crate::names::ModelName;
use crate::state::{JobSpec, Model, State};
use crate::time::At;

use super::look::Look;
use super::{Explanation, claims, counter, quota, words};

/// Explains a model.
pub(super) fn explain(engine: &Engine, name: &ModelName, now: At) -> Option<Explanation> {
    let state = engine.state();
    let model = state.models.get(name)?;
    let has = state.replicas.values().filter(|replica| replica.model == *name && replica.stop.is_none()).count();
    let target = model.target(now, &state.policy);
    let mut answer =
        Explanation { status: format!("model/{name} should have {target} replica(s) and has {has}"), ..Explanation::default() };
    if model.paused {
        answer.because.push("paused by a person; `resume` lets it serve".to_owned());
        return Some(answer);
    }
    answer.because.push(rate(state, model));
    answer.because.extend(above_want(state, model, target, now));
    if has < target as usize {
        answer.because.push(lacking(engine, model, now));
        if model.not_before.is_none_or(|at| at <= now) {
            answer.would_change.extend(counter::of_model(engine, name, now));
        }
    }
    if let Some(at) = model.next_change(now, &state.policy) {
        answer.would_change.push(format!("without more requests it is looked at again in {} s", at.since(now).div_ceil(1000)));
    }
    Some(answer)
}

/// What arrives and what one device can do.
fn rate(state: &State, model: &Model) -> String {
    let demand = &model.demand;
    let rate = format!("{}.{} rows/s", demand.milli_rows_per_s / 1000, demand.milli_rows_per_s % 1000 / 100);
    let Some(service) = demand.service else { return format!("{rate} arrive; its service time is not measured yet") };
    let slo_us = model.spec.slo_ms * 1000;
    let batch = service.largest_batch(slo_us, model.spec.max_rows);
    let capacity = service.capacity_milli_rows_per_s(slo_us, model.spec.max_rows);
    format!(
        "{rate} arrive; a batch of n takes {} ms + {} ms * n, so with an SLO of {} ms a device takes batches of {batch}, that is {} rows/s; head-room is {} %",
        service.base_us / 1000,
        service.per_row_us / 1000,
        model.spec.slo_ms,
        capacity / 1000,
        state.policy.headroom_percent
    )
}

/// Why it keeps more than its demand asks for.
fn above_want(state: &State, model: &Model, target: u32, now: At) -> Option<String> {
    if target <= model.want {
        return None;
    }
    let why = if model.past_wants.iter().any(|(until, _)| now.since(*until) < state.policy.lend_after_ms) {
        format!("the rest stays until it was not needed for {} s", state.policy.lend_after_ms / 1000)
    } else {
        format!("its last request keeps one for {} s", model.spec.zero_after_ms / 1000)
    };
    Some(format!("its demand asks for {} now; {why}", model.want))
}

/// Why it has fewer than it should.
pub(super) fn lacking(engine: &Engine, model: &Model, now: At) -> String {
    let state = engine.state();
    if let Some(at) = model.not_before.filter(|at| *at > now) {
        return format!("{} replicas failed in a row; the next starts in {} s", model.failures, at.since(now).div_ceil(1000));
    }
    if state.eviction_cap_reached {
        return "the cap on evictions per minute is reached".to_owned();
    }
    let queue = &model.spec.queue;
    if let Some(problem) = engine.books().broken.get(queue) {
        return problem.clone();
    }
    let Some(node) = engine.books().tree.node(queue).filter(|_| state.queues.contains_key(queue)) else {
        return format!("queue {queue} does not exist: create it or name another");
    };
    if let Some(refused) = engine.refuses_namespace(queue, &model.spec.namespace) {
        return refused;
    }
    if let Err(problem) = model.spec.ask.affinity.check() {
        return problem.to_string();
    }
    let look = Look::at(engine, &model.spec.ask, None);
    if look.all == 0 && model.spec.ask.devices() > 0 {
        return format!(
            "needs {} device(s){}, no usable one would do",
            model.spec.ask.devices(),
            words::of_classes(&model.spec.ask)
        );
    }
    let limits = quota::refusing(engine.books(), &JobSpec::workers(queue.clone(), 1, 1, model.spec.ask.clone()));
    if !limits.is_empty() {
        return limits.join("; ");
    }
    let tree = &engine.books().tree;
    let (used, own) = (tree.own_usage(node, crate::books::GPU), tree.quota(node, crate::books::GPU).nominal);
    let who = claims::names(state, &claims::holders(engine, &model.spec.ask));
    format!(
        "no device is free, and queue {queue} uses {} of its own {}: it may take no more from others ({} hold them)",
        words::milli(used),
        words::milli(own),
        if who.is_empty() { "none".to_owned() } else { words::list(&who) }
    )
}
