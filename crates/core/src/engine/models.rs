//! Replicas follow demand: surplus ends after the hysteresis, need is placed at once, by reclaim if it must.

use crate::holdings::Holder;
use crate::names::{DeviceId, ModelName, ReplicaId};
use crate::plan::{ActionKind, Claimant, Reason};
use crate::state::{Model, Replica, ReplicaPhase};

use super::decide::Round;
use super::reclaim::Request;

/// Decides for every model, higher priority first.
pub(super) fn decide(round: &mut Round) {
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
fn active(round: &Round, name: &ModelName, model: &Model) -> Vec<(ReplicaId, Replica)> {
    let mut all: Vec<(ReplicaId, Replica)> = round
        .state
        .replicas
        .iter()
        .filter(|(_, replica)| replica.model == *name && replica.stop.is_none())
        .map(|(id, replica)| (id.clone(), replica.clone()))
        .collect();
    let generation = model.spec.generation;
    all.sort_by_key(|(id, replica)| {
        (replica.generation != generation, replica.phase != ReplicaPhase::Ready, replica.since, id.clone())
    });
    all
}

fn drain_surplus(round: &mut Round, name: &ModelName) {
    let Some(model) = round.state.models.get(name).cloned() else { return };
    let target = model.target(round.state.now, &round.state.policy);
    let active = active(round, name, &model);
    let current = active.iter().filter(|(_, replica)| replica.generation == model.spec.generation);
    let replaced = current.clone().filter(|(_, replica)| replica.phase == ReplicaPhase::Ready).count() >= target as usize;
    let have = current.count();
    for (index, (id, replica)) in active.iter().enumerate() {
        let outdated = replica.generation != model.spec.generation;
        if outdated && (replaced || target == 0) {
            round.stop_replica(id, Reason::Replaced { generation: model.spec.generation });
        } else if !outdated && index >= target as usize {
            let have = u32::try_from(have).unwrap_or(u32::MAX);
            round.stop_replica(id, surplus_reason(&model, target, have, round.state.policy.lend_after_ms));
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
        let Some(model) = round.state.models.get(name).cloned() else { return };
        let target = model.target(round.state.now, &round.state.policy);
        let active = active(round, name, &model);
        let have = active.iter().filter(|(_, replica)| replica.generation == model.spec.generation).count();
        let waits = model.not_before.is_some_and(|at| at > round.state.now);
        if have >= target as usize || waits {
            return;
        }
        // What only the hysteresis keeps takes no device from others.
        let needed = have < model.want.max(model.spec.min) as usize;
        let Some(device) = device_for(round, name, &model, needed) else {
            // No room beside the outdated ones: the first of them makes place.
            let outdated = active.iter().find(|(_, replica)| replica.generation != model.spec.generation);
            let Some((id, _)) = outdated else { return };
            round.stop_replica(id, Reason::Replaced { generation: model.spec.generation });
            continue;
        };
        start(round, name, &model, &device, u32::try_from(have).unwrap_or(u32::MAX), target);
    }
}

/// A device for one more replica: free, or, if it is needed, reclaimed from work that owes it.
fn device_for(round: &mut Round, name: &ModelName, model: &Model, needed: bool) -> Option<DeviceId> {
    let ask = &model.spec.ask;
    let milli = round.milli_of(ask)?;
    if !round.within_quota(&model.spec.queue, milli) {
        return None;
    }
    let free = round.holdings.find(round.state, ask, false);
    if free.is_some() || !needed {
        return free;
    }
    let request = Request {
        by: Claimant::Model(name.clone()),
        queue: model.spec.queue.clone(),
        priority: model.spec.priority,
        ask: ask.clone(),
        milli,
    };
    if round.reclaim(&request) { round.holdings.find(round.state, ask, false) } else { None }
}

fn start(round: &mut Round, name: &ModelName, model: &Model, device: &DeviceId, have: u32, target: u32) {
    let id = round.next_id();
    let replica = ReplicaId(format!("{name}-{}", round.state.next_replica));
    round.state.next_replica += 1;
    let after = round.holdings.after(device);
    let reason = if target <= model.spec.min {
        Reason::Minimum { min: model.spec.min }
    } else if have == 0 && model.demand.held > 0 {
        Reason::Wake { held: model.demand.held }
    } else {
        Reason::Demand { milli_rows_per_s: model.demand.milli_rows_per_s, wanted: target, have }
    };
    let holder = Holder::Replica(name.clone(), replica.clone());
    round.holdings.claim(round.state, device, &holder, &model.spec.queue, &model.spec.ask, None);
    round.state.replicas.insert(
        replica.clone(),
        Replica {
            model: name.clone(),
            device: device.clone(),
            generation: model.spec.generation,
            since: round.state.now,
            phase: ReplicaPhase::Starting,
            stop: None,
            start: id,
        },
    );
    round.emit(id, after, ActionKind::StartReplica { model: name.clone(), replica, device: device.clone() }, reason);
}
