//! Replicas follow demand: need is placed at once, by reclaim if it must; what is not needed stays loaded until somebody wants
//! its device.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ask::Ask;
use crate::names::{ModelName, ReplicaId};
use crate::plan::{ActionKind, Claimant, Reason};
use crate::state::{JobSpec, Model, Replica, ReplicaPhase, Seat};

use super::admission;
use super::displace::Want;
use super::elastic;
use super::round::{Round, placed};

/// Decides for every model, higher priority first.
pub(super) fn decide(round: &mut Round) {
    round.desk.model_retry = None;
    let mut order: Vec<(i32, ModelName)> =
        round.state.models.iter().map(|(name, model)| (model.spec.priority, name.clone())).collect();
    order.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let mut surplus = BTreeSet::new();
    for (_, name) in &order {
        drain(round, name, &mut surplus);
    }
    round.desk.surplus = surplus;
    for (_, name) in &order {
        place(round, name);
    }
}

/// Its replicas that were not told to end: those that are what it asks for now first, then the readiest, then the oldest.
fn active(round: &Round, name: &ModelName, model: &Model, ask: &Ask) -> Vec<u32> {
    let all = round.desk.by_model.get(name).into_iter().flatten();
    let mut all: Vec<_> = all
        .filter_map(|ix| round.state.replicas.at(*ix).map(|replica| (*ix, replica)))
        .filter(|(_, replica)| replica.stop.is_none())
        .map(|(ix, replica)| {
            let ready = replica.phase == ReplicaPhase::Ready;
            (!is_what(replica, model, ask), !ready, replica.since, ix)
        })
        .collect();
    all.sort_unstable();
    all.into_iter().map(|(.., ix)| ix).collect()
}

fn is_what(replica: &Replica, model: &Model, ask: &Ask) -> bool {
    replica.generation == model.spec.generation && replica.ask.amount == ask.amount
}

fn is_current(round: &Round, ix: u32, model: &Model, ask: &Ask) -> bool {
    round.state.replicas.at(ix).is_some_and(|replica| is_what(replica, model, ask))
}

/// Ends what was replaced and what may not stay; what is not needed and may stay is `surplus`.
fn drain(round: &mut Round, name: &ModelName, surplus: &mut BTreeSet<u32>) {
    let (now, policy) = (round.state.now, &round.state.policy);
    let Some(model) = round.state.models.get(name) else { return };
    let (target, ask) = (model.target(now, policy) as usize, model.ask(now, policy));
    let active = active(round, name, model, &ask);
    if active.len() <= target && active.iter().all(|ix| is_current(round, *ix, model, &ask)) {
        return;
    }
    // Scale to zero, a pause or a removal are not asked about.
    let most = if policy.keep_surplus && target > 0 { model.spec.max as usize } else { target };
    let model = model.clone();
    let ready = |ix: &&u32| round.state.replicas.at(**ix).is_some_and(|replica| replica.phase == ReplicaPhase::Ready);
    let current: Vec<u32> = active.iter().copied().filter(|ix| is_current(round, *ix, &model, &ask)).collect();
    let replaced = current.iter().filter(ready).count() >= target;
    for ix in active.iter().skip(current.len()).filter(|_| replaced || target == 0) {
        round.stop_replica(*ix, replaced_by(round, *ix, &model));
    }
    for ix in current.iter().skip(most) {
        round.stop_replica(*ix, surplus_reason(round, &model, current.len()));
    }
    surplus.extend(current.iter().take(most).skip(target));
}

/// Why a replica gives way to those that the model asks for now.
fn replaced_by(round: &Round, ix: u32, model: &Model) -> Reason {
    if round.state.replicas.at(ix).is_some_and(|replica| replica.generation == model.spec.generation) {
        Reason::Reshaped { milli: 1000 / u64::from(model.sharers(round.state.now, &round.state.policy).max(1)) }
    } else {
        Reason::Replaced { generation: model.spec.generation }
    }
}

fn surplus_reason(round: &Round, model: &Model, have: usize) -> Reason {
    let target = model.target(round.state.now, &round.state.policy);
    if model.removed {
        Reason::Removed
    } else if model.paused {
        Reason::Paused
    } else if target == 0 {
        Reason::Asleep { after_ms: model.spec.zero_after_ms }
    } else {
        let have = u32::try_from(have).unwrap_or(u32::MAX);
        Reason::Surplus { wanted: target, have, for_ms: round.state.policy.lend_after_ms }
    }
}

impl Round<'_> {
    /// Why a replica that its model does not need is given up.
    pub(super) fn surplus_reason(&self, ix: u32) -> Option<Reason> {
        let name = &self.state.replicas.at(ix)?.model;
        let model = self.state.models.get(name)?;
        let ask = model.ask(self.state.now, &self.state.policy);
        Some(surplus_reason(self, model, active(self, name, model, &ask).len()))
    }
}

/// Gives up what nothing needs where running jobs would grow onto it: they do once the devices stayed free.
pub(super) fn yield_to_growth(round: &mut Round) {
    if round.desk.surplus.is_empty() || round.desk.growable.is_empty() {
        return;
    }
    let spare: Vec<(u32, Seat)> =
        round.desk.surplus.iter().filter_map(|ix| Some((*ix, round.state.replicas.at(*ix)?.seat))).collect();
    let wanted = elastic::would_take(round, &spare);
    let overlaps = |seat: &Seat| wanted.iter().any(|other| other.node == seat.node && other.mask & seat.mask != 0);
    for (ix, _) in spare.iter().filter(|(_, seat)| overlaps(seat)) {
        if let Some(reason) = round.surplus_reason(*ix) {
            round.stop_replica(*ix, reason);
        }
    }
}

fn place(round: &mut Round, name: &ModelName) {
    let (now, policy) = (round.state.now, &round.state.policy);
    let Some(model) = round.state.models.get(name) else { return };
    let target = model.target(now, policy) as usize;
    if target == 0 || model.not_before.is_some_and(|at| at > now) {
        return;
    }
    let ask = model.ask(now, policy);
    let refused = admission::refuses(round.state, round.desk, &model.spec.queue, &model.spec.namespace);
    if refused.is_some() || ask.affinity.check().is_err() {
        return;
    }
    let active = active(round, name, model, &ask);
    let mut have = active.iter().filter(|ix| is_current(round, **ix, model, &ask)).count();
    if have >= target {
        return;
    }
    let model = model.clone();
    let older = |ix: &u32| round.state.replicas.at(*ix).is_some_and(|of| of.generation != model.spec.generation);
    let mut older = active.iter().copied().filter(older).collect::<Vec<_>>().into_iter();
    // What is larger than a slice serves until that is loaded.
    let mut serving = if ask.amount == model.spec.ask.amount { have } else { active.len() };
    while have < target {
        // What only the hysteresis keeps takes no device from others.
        let needed = serving < model.want.max(model.spec.min) as usize;
        if let Some(seat) = seat_for(round, name, &model, &ask, needed) {
            start(round, name, &model, ask.clone(), seat, have, target);
            (have, serving) = (have + 1, serving + 1);
        } else {
            // No room beside those of an older generation: the first of them makes place.
            let Some(ix) = older.next() else { return };
            round.stop_replica(ix, Reason::Replaced { generation: model.spec.generation });
        }
    }
}

/// A place for one more replica: free, or, if it is needed, reclaimed from work that owes it. The books hold it.
fn seat_for(round: &mut Round, name: &ModelName, model: &Model, ask: &Ask, needed: bool) -> Option<Seat> {
    let there = round.state.queues.contains_key(&model.spec.queue);
    let queue = round.desk.books.tree.node(&model.spec.queue).filter(|_| there)?;
    let spec = JobSpec { priority: model.spec.priority, ..JobSpec::workers(model.spec.queue.clone(), 1, 1, ask.clone()) };
    let want = Want { by: Claimant::Model(name.clone()), job: None, queue, spec: Arc::new(spec) };
    let allowed = round.desk.books.quota_allows(want.gang()).is_ok();
    if allowed && let Ok(seats) = round.desk.books.place_gang(want.gang()) {
        return seats.first().copied();
    }
    if !needed {
        return None;
    }
    round.displace(&want).ok()?.first().copied()
}

fn start(round: &mut Round, name: &ModelName, model: &Model, ask: Ask, seat: Seat, have: usize, target: usize) {
    let (have, target) = (u32::try_from(have).unwrap_or(u32::MAX), u32::try_from(target).unwrap_or(u32::MAX));
    let id = round.next_id();
    let replica = ReplicaId::from(format!("{name}-{}", round.state.next_replica));
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
            ask,
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
