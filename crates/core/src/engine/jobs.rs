//! Jobs in order: priority, then age. Each gets its minimum or nothing; what is left is shared out, smallest first.

use std::collections::BTreeMap;

use crate::holdings::{Holder, Holdings};
use crate::names::{DeviceId, JobName, QueueName};
use crate::plan::{ActionId, ActionKind, Claimant, Reason};
use crate::state::{Health, Job, Phase, Run, State};
use crate::time::At;

use super::decide::Round;
use super::reclaim::Request;

/// Why a gang that was chosen in this round starts. Its devices are reserved in its own state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fresh,
    Resumed,
}

/// Decides for every job.
pub(super) fn decide(round: &mut Round) {
    shrink_to_limit(round);
    let mut chosen = Vec::new();
    for name in waiting_in_order(round.state) {
        if let Some(kind) = resume(round, &name).or_else(|| gang(round, &name)) {
            chosen.push((name, kind));
        }
    }
    share_out(round, &chosen);
    for (name, kind) in chosen {
        start(round, &name, kind);
    }
    round.holdings = Holdings::of(round.state);
    grow(round);
}

/// Jobs that wait and may start now: higher priority, then older, then by name.
fn waiting_in_order(state: &State) -> Vec<JobName> {
    let mut order: Vec<(&JobName, &Job)> = state.jobs.iter().filter(|(_, job)| may_start(state, job)).collect();
    order.sort_by(|(a, x), (b, y)| (-x.spec.priority, x.submitted, a).cmp(&(-y.spec.priority, y.submitted, b)));
    order.into_iter().map(|(name, _)| name.clone()).collect()
}

fn may_start(state: &State, job: &Job) -> bool {
    let Phase::Waiting { not_before, .. } = &job.phase else { return false };
    !job.is_unwanted() && not_before.is_none_or(|at| at <= state.now)
}

/// A job whose limit was lowered gives back the rest.
fn shrink_to_limit(round: &mut Round) {
    let large = |job: &Job| job.run().filter(|run| run.kept().len() > job.spec.max as usize).cloned();
    let runs: Vec<(JobName, u32, Run)> =
        round.state.jobs.iter().filter_map(|(name, job)| large(job).map(|run| (name.clone(), job.spec.max, run))).collect();
    for (name, max, run) in runs {
        let from = u32::try_from(run.kept().len()).unwrap_or(u32::MAX);
        let keep = run.kept().iter().take(max as usize).cloned().collect();
        round.stop_job(&name, keep, Reason::TooLarge { from, to: max });
    }
}

/// Devices reserved for the next attempt of a waiting job.
fn reserved<'a>(state: &'a State, name: &JobName) -> &'a [DeviceId] {
    match state.jobs.get(name).map(|job| &job.phase) {
        Some(Phase::Waiting { keep, .. }) => keep,
        Some(Phase::Running(_) | Phase::Finished(_)) | None => &[],
    }
}

/// Reserves devices for the next attempt of a waiting job, and derives the claims anew.
fn reserve(round: &mut Round, name: &JobName, devices: Vec<DeviceId>) {
    if let Some(Phase::Waiting { keep, .. }) = round.state.jobs.get_mut(name).map(|job| &mut job.phase) {
        *keep = devices;
    }
    round.holdings = Holdings::of(round.state);
}

/// Continues on what it kept from its last attempt, if that still makes a gang.
fn resume(round: &mut Round, name: &JobName) -> Option<Kind> {
    let kept = reserved(round.state, name).to_vec();
    let job = round.state.jobs.get(name)?;
    let usable = |id: &DeviceId| round.state.devices.get(id).is_some_and(|device| device.health == Health::Ok);
    if kept.len() >= job.spec.min as usize && kept.len() <= job.spec.max as usize && kept.iter().all(usable) {
        return Some(Kind::Resumed);
    }
    reserve(round, name, Vec::new());
    None
}

/// Reserves devices for the job's minimum, free or reclaimed; all or nothing.
fn gang(round: &mut Round, name: &JobName) -> Option<Kind> {
    let job = round.state.jobs.get(name)?.clone();
    let saved = (round.state.clone(), round.holdings.clone(), round.actions.len());
    for _ in 0..job.spec.min {
        let Some(device) = worker_device(round, name, &job) else {
            let capped = round.state.eviction_cap_reached;
            (*round.state, round.holdings) = (saved.0, saved.1);
            round.actions.truncate(saved.2);
            round.state.eviction_cap_reached |= capped;
            return None;
        };
        let devices = reserved(round.state, name).iter().cloned().chain([device]).collect();
        reserve(round, name, devices);
    }
    Some(Kind::Fresh)
}

/// A device for one more worker.
fn worker_device(round: &mut Round, name: &JobName, job: &Job) -> Option<DeviceId> {
    let milli = round.milli_of(&job.spec.ask)?;
    if !round.within_quota(&job.spec.queue, milli) {
        return None;
    }
    if let Some(device) = round.holdings.find(round.state, &job.spec.ask, false) {
        return Some(device);
    }
    let request = Request {
        by: Claimant::Job(name.clone()),
        queue: job.spec.queue.clone(),
        priority: job.spec.priority,
        ask: job.spec.ask.clone(),
        milli,
    };
    if round.reclaim(&request) { round.holdings.find(round.state, &job.spec.ask, false) } else { None }
}

/// Shares out devices that are free now among the starting gangs, smallest first. A running job that is
/// smaller still is left its turn (a claim in the transaction only): it grows after the hysteresis.
fn share_out(round: &mut Round, chosen: &[(JobName, Kind)]) {
    let mut running: BTreeMap<JobName, usize> = growable(round.state);
    loop {
        let starting = chosen.iter().map(|(name, _)| (reserved(round.state, name).len(), false, name.clone()));
        let waiting = running.iter().map(|(name, size)| (*size, true, name.clone()));
        let smallest = starting.chain(waiting).filter(|(size, _, name)| *size > 0 && wants_more(round, name, *size)).min();
        let Some((_, runs, name)) = smallest else { return };
        let Some(job) = round.state.jobs.get_mut(&name) else { return };
        let (ask, queue) = (job.spec.ask.clone(), job.spec.queue.clone());
        let Some(device) = round.holdings.find(round.state, &ask, true) else { return };
        round.holdings.claim(round.state, &device, &Holder::Job(name.clone()), &queue, &ask, None);
        if runs {
            *running.entry(name).or_default() += 1;
        } else if let Some(Phase::Waiting { keep, .. }) = round.state.jobs.get_mut(&name).map(|job| &mut job.phase) {
            keep.push(device);
        }
    }
}

/// Whether the job may have one more worker, and a device is free for it.
fn wants_more(round: &Round, name: &JobName, size: usize) -> bool {
    let Some(job) = round.state.jobs.get(name) else { return false };
    let quota = round.milli_of(&job.spec.ask).is_some_and(|milli| round.within_quota(&job.spec.queue, milli));
    size < job.spec.max as usize && quota && round.holdings.find(round.state, &job.spec.ask, true).is_some()
}

fn start(round: &mut Round, name: &JobName, kind: Kind) {
    let devices = reserved(round.state, name).to_vec();
    let Some(job) = round.state.jobs.get(name) else { return };
    // A later claimant may have been owed what this gang had reserved.
    if devices.len() < job.spec.min as usize {
        return;
    }
    let mut after: Vec<ActionId> = devices.iter().flat_map(|device| round.holdings.after(device)).collect();
    after.sort_unstable();
    after.dedup();
    let reason = start_reason(round, name, devices.len(), kind);
    let id = round.next_id();
    let now = round.state.now;
    let Some(job) = round.state.jobs.get_mut(name) else { return };
    job.attempts += 1;
    let attempt = job.attempts;
    job.phase = Phase::Running(Run { attempt, devices: devices.clone(), since: now, observed: false, stop: None });
    round.emit(id, after, ActionKind::StartJob { job: name.clone(), attempt, devices }, reason);
}

fn start_reason(round: &Round, name: &JobName, workers: usize, kind: Kind) -> Reason {
    let workers = u32::try_from(workers).unwrap_or(u32::MAX);
    let Some(job) = round.state.jobs.get(name) else { return Reason::Turn { workers } };
    match lender(round.state, &round.holdings, &job.spec.queue) {
        _ if kind == Kind::Resumed => Reason::Resume { workers },
        Some(owner) => Reason::Lent { workers, owner },
        None => Reason::Turn { workers },
    }
}

/// The queue whose unused devices `queue` uses above its own nominal: the one with most to lend.
fn lender(state: &State, holdings: &Holdings, queue: &QueueName) -> Option<QueueName> {
    let nominal = |name: &QueueName| state.queues.get(name).map_or(0, |queue| u64::from(queue.nominal) * 1000);
    if holdings.queue_milli(queue) <= nominal(queue) {
        return None;
    }
    let spare = |name: &QueueName| nominal(name).saturating_sub(holdings.queue_milli(name));
    let others = state.queues.keys().filter(|name| *name != queue && spare(name) > 0);
    others.max_by_key(|name| (spare(name), std::cmp::Reverse((*name).clone()))).cloned()
}

/// Running jobs that could use more, with their sizes.
fn growable(state: &State) -> BTreeMap<JobName, usize> {
    let elastic = |job: &Job| {
        let run = job.run().filter(|run| run.stop.is_none())?;
        (!job.is_unwanted() && run.devices.len() < job.spec.max as usize).then_some(run.devices.len())
    };
    state.jobs.iter().filter_map(|(name, job)| elastic(job).map(|size| (name.clone(), size))).collect()
}

/// Since when a run has paid for its last restart: growing sooner would cost more than it brings.
fn settled_at(state: &State, job: &Job, run: &Run) -> At {
    run.since.plus(2 * job.spec.restart_ms + state.policy.grow_after_ms)
}

/// Restarts running jobs larger, on devices that were free long enough.
fn grow(round: &mut Round) {
    let now = round.state.now;
    let idle_long = |state: &State, id: &DeviceId| {
        let free = state.devices.get(id).and_then(|device| device.free_since);
        free.is_some_and(|since| now.since(since) >= state.policy.grow_after_ms)
    };
    let mut sizes = growable(round.state);
    let mut extra: BTreeMap<JobName, Vec<DeviceId>> = BTreeMap::new();
    // Claims of jobs that may not grow yet are virtual: they hold the device for the job's turn.
    loop {
        let candidates = sizes.iter().filter(|(name, size)| wants_more(round, name, **size));
        let Some((_, name)) = candidates.map(|(name, size)| (*size, name.clone())).min() else { break };
        let Some(job) = round.state.jobs.get(&name).cloned() else { break };
        let Some(device) = round.holdings.find(round.state, &job.spec.ask, true) else { break };
        round.holdings.claim(round.state, &device, &Holder::Job(name.clone()), &job.spec.queue, &job.spec.ask, None);
        *sizes.entry(name.clone()).or_default() += 1;
        if idle_long(round.state, &device) {
            extra.entry(name).or_default().push(device);
        }
    }
    for (name, devices) in extra {
        let Some(job) = round.state.jobs.get(&name).cloned() else { continue };
        let Some(run) = job.run() else { continue };
        if !run.observed || settled_at(round.state, &job, run) > now {
            continue;
        }
        let from = u32::try_from(run.devices.len()).unwrap_or(u32::MAX);
        let keep: Vec<DeviceId> = run.devices.iter().cloned().chain(devices).collect();
        let to = u32::try_from(keep.len()).unwrap_or(u32::MAX);
        round.stop_job(&name, keep, Reason::Grow { from, to });
    }
}

/// Moments at which a running job may grow onto a device that is free now.
pub(super) fn next_growth(state: &State) -> Vec<At> {
    let free = state.devices.values().filter(|device| device.health == Health::Ok);
    let free: Vec<At> = free.filter_map(|device| device.free_since).map(|at| at.plus(state.policy.grow_after_ms)).collect();
    if free.is_empty() {
        return Vec::new();
    }
    let settled = growable(state).into_keys().filter_map(|name| {
        let job = state.jobs.get(&name)?;
        job.run().map(|run| settled_at(state, job, run))
    });
    settled.chain(free.iter().copied()).collect()
}
