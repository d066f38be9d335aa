//! Replicas follow demand: surplus ends after the hysteresis, need is placed at once, by reclaim if it must.

use crate::names::{ModelName, ReplicaId};
use crate::plan::{ActionKind, Claimant, Reason};
use crate::state::{JobSpec, Model, Replica, ReplicaPhase, Seat};

use super::displace::Want;
use super::round::{Round, placed};

/// Decides for every model, higher priority first.
pub(super) fn decide(round: &mut Round) {
    round.desk.model_retry = None;
    let mut order: Vec<(i32, ModelName)> =
        round.state.models.iter().map(|(name, model)| (model.spec.priority, name.clone())).collect();
    order.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    for (_, name) in &order {
        drain_surplus(round, name);
    }
    for (_, name) in &order {
        place(round, name);
    }
}

/// Its replicas that were not told to end: of the current generation first, then the readiest, then the oldest.
fn active(round: &Round, name: &ModelName, model: &Model) -> Vec<u32> {
    let generation = model.spec.generation;
    let all = round.desk.by_model.get(name).into_iter().flatten();
    let mut all: Vec<_> = all
        .filter_map(|ix| round.state.replicas.at(*ix).map(|replica| (*ix, replica)))
        .filter(|(_, replica)| replica.stop.is_none())
        .map(|(ix, replica)| {
            let ready = replica.phase == ReplicaPhase::Ready;
            (replica.generation != generation, !ready, replica.since, round.state.replicas.name(ix).cloned(), ix)
        })
        .collect();
    all.sort();
    all.into_iter().map(|(.., ix)| ix).collect()
}

fn is_current(round: &Round, ix: u32, model: &Model) -> bool {
    round.state.replicas.at(ix).is_some_and(|replica| replica.generation == model.spec.generation)
}

fn drain_surplus(round: &mut Round, name: &ModelName) {
    let Some(model) = round.state.models.get(name) else { return };
    let target = model.target(round.state.now, &round.state.policy);
    let active = active(round, name, model);
    if active.len() <= target as usize && active.iter().all(|ix| is_current(round, *ix, model)) {
        return;
    }
    let model = model.clone();
    let ready = |ix: &&u32| round.state.replicas.at(**ix).is_some_and(|replica| replica.phase == ReplicaPhase::Ready);
    let current = active.iter().filter(|ix| is_current(round, **ix, &model));
    let replaced = current.clone().filter(ready).count() >= target as usize;
    let have = current.count();
    for (index, ix) in active.iter().enumerate() {
        let outdated = !is_current(round, *ix, &model);
        if outdated && (replaced || target == 0) {
            round.stop_replica(*ix, Reason::Replaced { generation: model.spec.generation });
        } else if !outdated && index >= target as usize {
            let have = u32::try_from(have).unwrap_or(u32::MAX);
            round.stop_replica(*ix, surplus_reason(&model, target, have, round.state.policy.lend_after_ms));
        }
    }
}

fn surplus_reason(model: &Model, target: u32, have: u32, lend_after_ms: u64) -> Reason {
    if model.removed {
        Reason::Removed
    } else if model.paused {
        Reason::Paused
    } else if target == 0 {
        Reason::Asleep { after_ms: model.spec.zero_after_ms }
    } else {
        Reason::Surplus { wanted: target, have, for_ms: lend_after_ms }
    }
}

fn place(round: &mut Round, name: &ModelName) {
    loop {
        let Some(model) = round.state.models.get(name) else { return };
        let target = model.target(round.state.now, &round.state.policy);
        let active = active(round, name, model);
        let have = active.iter().filter(|ix| is_current(round, **ix, model)).count();
        let waits = model.not_before.is_some_and(|at| at > round.state.now);
        if have >= target as usize || waits {
            return;
        }
        let model = model.clone();
        // What only the hysteresis keeps takes no device from others.
        let needed = have < model.want.max(model.spec.min) as usize;
        let Some(seat) = seat_for(round, name, &model, needed) else {
            // No room beside the outdated ones: the first of them makes place.
            let outdated = active.iter().find(|ix| !is_current(round, **ix, &model));
            let Some(ix) = outdated else { return };
            round.stop_replica(*ix, Reason::Replaced { generation: model.spec.generation });
            continue;
        };
        start(round, name, &model, seat, u32::try_from(have).unwrap_or(u32::MAX), target);
    }
}

/// A place for one more replica: free, or, if it is needed, reclaimed from work that owes it. The books hold it.
fn seat_for(round: &mut Round, name: &ModelName, model: &Model, needed: bool) -> Option<Seat> {
    let queue = round.desk.books.tree.node(&model.spec.queue)?;
    let spec =
        JobSpec { priority: model.spec.priority, ..JobSpec::workers(model.spec.queue.clone(), 1, 1, model.spec.ask.clone()) };
    let want = Want { by: Claimant::Model(name.clone()), job: None, queue, spec };
    let allowed = round.desk.books.quota_allows(want.gang()).is_ok();
    if allowed && let Ok(seats) = round.desk.books.place_gang(want.gang()) {
        return seats.first().copied();
    }
    if !needed {
        return None;
    }
    round.displace(&want).ok()?.first().copied()
}

fn start(round: &mut Round, name: &ModelName, model: &Model, seat: Seat, have: u32, target: u32) {
    let id = round.next_id();
    let replica = ReplicaId(format!("{name}-{}", round.state.next_replica));
    round.state.next_replica += 1;
    let mut after = round.releases(&seat);
    after.sort_unstable();
    after.dedup();
    let reason = if target <= model.spec.min {
        Reason::Minimum { min: model.spec.min }
    } else if have == 0 && model.demand.held > 0 {
        Reason::Wake { held: model.demand.held }
    } else {
        Reason::Demand { milli_rows_per_s: model.demand.milli_rows_per_s, wanted: target, have }
    };
    let ix = round.state.replicas.insert(
        replica.clone(),
        Replica {
            model: name.clone(),
            seat,
            generation: model.spec.generation,
            since: round.state.now,
            phase: ReplicaPhase::Starting,
            stop: None,
            start: id,
        },
    );
    round.desk.list_replica(round.state, ix);
    round.desk.quota_was_used(&model.spec.queue);
    let place = placed(round.state, &seat);
    round.emit(id, after, ActionKind::StartReplica { model: name.clone(), replica, place }, reason);
}
