//! Who holds what a job needs, and why it may keep it.

use std::collections::BTreeMap;

use crate::ask::Ask;
use crate::cluster::{Holder, bits};
use crate::engine::Engine;
use crate::names::JobName;
use crate::state::{HOUR_MS, Job, State};
use crate::time::At;

use super::{quota, words};

/// Holders told one by one.
const MOST_TOLD: usize = 5;

/// Thousandths of devices that would do for an ask, by who holds them firmly.
pub(super) fn holders(engine: &Engine, ask: &Ask) -> BTreeMap<Holder, u64> {
    let state = engine.state();
    let nodes = engine.books().cluster.nodes();
    let mut held = BTreeMap::new();
    crate::claims::each(state, |claim| {
        let Some(node) = nodes.get(claim.seat.node as usize).filter(|_| claim.releasing.is_none()) else { return };
        let wanted = node.eligible(ask) & claim.seat.mask;
        let milli = bits(wanted)
            .filter_map(|at| node.devices.get(at))
            .map(|device| u64::from(crate::cluster::milli_of(claim.ask, device)));
        let milli: u64 = milli.sum();
        if milli > 0 {
            *held.entry(claim.holder).or_default() += milli;
        }
    });
    held
}

/// `job/NAME` or `model/NAME`.
pub(super) fn name(state: &State, holder: Holder) -> String {
    match holder {
        Holder::Job(ix) => state.jobs.name(ix).map(|name| format!("job/{name}")).unwrap_or_default(),
        Holder::Replica(ix) => state.replicas.at(ix).map(|replica| format!("model/{}", replica.model)).unwrap_or_default(),
    }
}

/// Names of the holders: models before jobs, each once.
pub(super) fn names(state: &State, holders: &BTreeMap<Holder, u64>) -> Vec<String> {
    let mut all: Vec<String> = holders.keys().map(|holder| name(state, *holder)).collect();
    all.sort_by_key(|name| (name.starts_with("job/"), name.clone()));
    all.dedup();
    all
}

/// The largest holders, each with why nothing is taken from it.
pub(super) fn protected(engine: &Engine, claimant: &JobName, ask: &Ask, now: At) -> Vec<String> {
    let state = engine.state();
    let mut by_name: BTreeMap<String, (u64, Holder)> = BTreeMap::new();
    for (holder, milli) in holders(engine, ask) {
        by_name.entry(name(state, holder)).or_insert((0, holder)).0 += milli;
    }
    let mut all: Vec<(String, (u64, Holder))> = by_name.into_iter().collect();
    all.sort_by_key(|(name, (milli, _))| (std::cmp::Reverse(*milli), name.clone()));
    let told = all.iter().take(MOST_TOLD).map(|(name, (milli, holder))| {
        let held = words::milli(i64::try_from(*milli).unwrap_or(i64::MAX));
        format!("{name} holds {held} device(s) and keeps them: {}", keeps(engine, claimant, *holder, now))
    });
    told.collect()
}

/// Why the holder keeps what it has from the claimant.
fn keeps(engine: &Engine, claimant: &JobName, holder: Holder, now: At) -> String {
    let state = engine.state();
    let Some(mine) = state.jobs.get(claimant) else { return String::new() };
    let (queue, protection) = match holder {
        Holder::Job(ix) => {
            let Some(job) = state.jobs.at(ix) else { return String::new() };
            (&job.spec.queue, shielded(job, now))
        }
        Holder::Replica(ix) => {
            let model = state.replicas.at(ix).and_then(|replica| state.models.get(&replica.model));
            let Some(model) = model else { return String::new() };
            (&model.spec.queue, None)
        }
    };
    if let Some(protection) = protection {
        return protection;
    }
    if *queue != mine.spec.queue {
        return across(engine, claimant, mine, queue);
    }
    match holder {
        Holder::Job(ix) => state.jobs.at(ix).map(|job| inside(mine, job)).unwrap_or_default(),
        Holder::Replica(_) => "it serves requests in the same queue".to_owned(),
    }
}

/// What keeps a job from being stopped, whoever asks.
pub(super) fn shielded(job: &Job, now: At) -> Option<String> {
    if !job.spec.preemptible {
        return Some("it is not preemptible".to_owned());
    }
    let until = job.protected_until(now)?;
    let least = job.run().map(|run| run.since.plus(job.spec.min_runtime_ms)).filter(|at| *at > now);
    if least == Some(until) {
        return Some(format!(
            "it may not be stopped before it ran {}, until {}",
            words::span(job.spec.min_runtime_ms),
            words::clock(until, now)
        ));
    }
    let stops = job.disruptions.iter().filter(|at| now.since(**at) < HOUR_MS).count();
    Some(format!(
        "it was stopped for others {stops} time(s) in the last hour, its limit is {}; that lifts at {}",
        job.spec.max_disruptions_per_hour,
        words::clock(until, now)
    ))
}

/// The rule between two queues.
fn across(engine: &Engine, claimant: &JobName, mine: &Job, theirs: &crate::names::QueueName) -> String {
    if engine.may_reclaim(claimant, theirs) {
        return format!("queue {theirs} uses more than its own, but what may be taken from it is not enough");
    }
    if let Some((used, above)) = quota::above_own(engine.books(), theirs) {
        let queue = &mine.spec.queue;
        let node = engine.books().tree.node(queue);
        let own = node.map_or(0, |node| engine.books().tree.guaranteed(node, crate::books::GPU));
        return format!(
            "queue {theirs} uses {} device(s), {} above its own, but queue {queue} would be above its own {} too: it may use only what is free",
            words::milli(used),
            words::milli(above),
            words::milli(own)
        );
    }
    format!("queue {theirs} uses no more than its own")
}

/// The rule inside one queue.
fn inside(mine: &Job, theirs: &Job) -> String {
    let (own, other) = (mine.spec.priority, theirs.spec.priority);
    match own.cmp(&other) {
        std::cmp::Ordering::Less => format!("its priority {other} is higher"),
        std::cmp::Ordering::Equal if theirs.spec.is_elastic() => {
            "its priority is the same: it may be made smaller, but that is not enough".to_owned()
        }
        std::cmp::Ordering::Equal => "its priority is the same".to_owned(),
        std::cmp::Ordering::Greater => "its priority is lower, but what may be taken is not enough".to_owned(),
    }
}
