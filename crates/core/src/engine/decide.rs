//! One round of decisions over a transaction: what must go, what models need, what jobs may have.

use crate::holdings::{Holder, Holdings};
use crate::names::{DeviceId, JobName, QueueName, ReplicaId};
use crate::plan::{Action, ActionId, ActionKind, Reason};
use crate::state::{Ask, EVICTION_WINDOW_MS, End, Health, Phase, ReplicaPhase, ReplicaStop, State, Stop};
use crate::time::At;

use super::{jobs, models};

/// A replica that is not ready by then is given up; far above any load seen, so that only a hung one meets it.
const LOAD_TIMEOUT_MS: u64 = 120_000;

/// Who is displaced may be owed a device of somebody else: passes until nobody is, and never more than this
/// (each displacement goes down in priority or towards the nominal quota, so a few are enough).
const MAX_PASSES: u32 = 16;

/// A round: the state, the claims as they will be, and the actions so far.
pub(super) struct Round<'a> {
    pub state: &'a mut State,
    pub holdings: Holdings,
    pub actions: Vec<Action>,
}

/// Decides everything that is due.
pub(super) fn run(state: &mut State) -> Vec<Action> {
    state.eviction_cap_reached = false;
    let holdings = Holdings::of(state);
    let mut round = Round { state, holdings, actions: Vec::new() };
    round.settle_wishes();
    round.leave_devices();
    round.give_up_loading();
    for _ in 0..MAX_PASSES {
        let before = round.actions.len();
        models::decide(&mut round);
        jobs::decide(&mut round);
        if round.actions.len() == before {
            break;
        }
    }
    round.actions
}

/// The next moment at which something may change by itself.
pub(super) fn next_wake(state: &State) -> Option<At> {
    let now = state.now;
    let models = state.models.values().filter_map(|model| model.next_change(now, &state.policy));
    let backoffs = state.jobs.values().filter_map(|job| match &job.phase {
        Phase::Waiting { not_before, .. } => *not_before,
        Phase::Running(_) | Phase::Finished(_) => None,
    });
    let loading = state.replicas.values().filter(|replica| replica.phase == ReplicaPhase::Starting && replica.stop.is_none());
    let timeouts = loading.map(|replica| replica.since.plus(LOAD_TIMEOUT_MS));
    let cap = state.evictions.first().filter(|_| state.eviction_cap_reached).map(|at| at.plus(EVICTION_WINDOW_MS));
    models.chain(backoffs).chain(timeouts).chain(cap).chain(jobs::next_growth(state)).filter(|at| *at > now).min()
}

impl Round<'_> {
    /// Records an action: from here on it is assumed.
    pub fn emit(&mut self, id: ActionId, after: Vec<ActionId>, kind: ActionKind, reason: Reason) {
        let action = Action { id, after, kind, reason };
        self.state.actions.insert(id, action.clone());
        self.actions.push(action);
    }

    /// The id of the next action.
    pub fn next_id(&mut self) -> ActionId {
        let id = ActionId(self.state.next_action);
        self.state.next_action += 1;
        id
    }

    /// Whether `queue` may use `milli` thousandths of devices more.
    pub fn within_quota(&self, queue: &QueueName, milli: u64) -> bool {
        let Some(quota) = self.state.queues.get(queue) else { return false };
        let limit = quota.borrowing_limit.map(|borrowing| (u64::from(quota.nominal) + u64::from(borrowing)) * 1000);
        limit.is_none_or(|limit| self.holdings.queue_milli(queue) + milli <= limit)
    }

    /// Tells a running job to end and, unless `keep` is empty, to start again on `keep`.
    /// A job that is ending already only keeps less.
    pub fn stop_job(&mut self, name: &JobName, keep: Vec<DeviceId>, reason: Reason) {
        let now = self.state.now;
        let id = ActionId(self.state.next_action);
        let Some(job) = self.state.jobs.get_mut(name) else { return };
        let Phase::Running(run) = &mut job.phase else { return };
        let attempt = run.attempt;
        let resume_with = u32::try_from(keep.len()).unwrap_or(u32::MAX);
        let order = run.stop.is_none();
        match &mut run.stop {
            Some(stop) => stop.keep = keep,
            None => run.stop = Some(Stop { action: id, since: now, keep, reason: reason.clone() }),
        }
        self.holdings = Holdings::of(self.state);
        if order {
            let id = self.next_id();
            self.emit(id, Vec::new(), ActionKind::StopJob { job: name.clone(), attempt, resume_with }, reason);
        }
    }

    /// Tells a replica to finish what it has and end.
    pub fn stop_replica(&mut self, id: &ReplicaId, reason: Reason) {
        let action = ActionId(self.state.next_action);
        let Some(replica) = self.state.replicas.get_mut(id).filter(|replica| replica.stop.is_none()) else { return };
        replica.stop = Some(ReplicaStop { action, reason: reason.clone() });
        let holder = Holder::Replica(replica.model.clone(), id.clone());
        let kind = ActionKind::StopReplica { model: replica.model.clone(), replica: id.clone() };
        let device = replica.device.clone();
        self.holdings.release(&device, &holder, action);
        let action = self.next_id();
        self.emit(action, Vec::new(), kind, reason);
    }

    /// Thousandths of a device that `ask` would use, on the smallest device that suits it.
    pub fn milli_of(&self, ask: &Ask) -> Option<u64> {
        self.state.devices.values().filter(|device| ask.suits(device)).map(|device| ask.milli_on(device)).max()
    }

    /// Carries out what people asked for: pause, cancel, delete.
    fn settle_wishes(&mut self) {
        let now = self.state.now;
        let unwanted: Vec<JobName> =
            self.state.jobs.iter().filter(|(_, job)| job.is_unwanted()).map(|(name, _)| name.clone()).collect();
        for name in unwanted {
            let Some(job) = self.state.jobs.get_mut(&name) else { continue };
            let reason = match (job.removed, job.cancelled) {
                (true, _) => Reason::Removed,
                (false, true) => Reason::Cancelled,
                (false, false) => Reason::Paused,
            };
            match &mut job.phase {
                Phase::Running(_) => self.stop_job(&name, Vec::new(), reason),
                Phase::Waiting { .. } | Phase::Finished(_) if job.removed => drop(self.state.jobs.remove(&name)),
                Phase::Waiting { .. } if job.cancelled => job.phase = Phase::Finished(End::Cancelled { at: now }),
                Phase::Waiting { keep, .. } => keep.clear(),
                Phase::Finished(_) => {}
            }
        }
        let replicas = &self.state.replicas;
        self.state.models.retain(|name, model| !model.removed || replicas.values().any(|replica| replica.model == *name));
        self.holdings = Holdings::of(self.state);
    }

    /// Moves work off devices that are drained or lost.
    fn leave_devices(&mut self) {
        let out: Vec<DeviceId> =
            self.state.devices.iter().filter(|(_, device)| device.health != Health::Ok).map(|(id, _)| id.clone()).collect();
        for device in out {
            let reason = Reason::DeviceOut { device: device.clone() };
            for holder in self.holdings.claims(&device).iter().map(|claim| claim.holder.clone()).collect::<Vec<_>>() {
                match holder {
                    Holder::Replica(_, id) => self.stop_replica(&id, reason.clone()),
                    Holder::Job(name) => self.leave_device(&name, &device, reason.clone()),
                }
            }
        }
    }

    fn leave_device(&mut self, name: &JobName, device: &DeviceId, reason: Reason) {
        let Some(job) = self.state.jobs.get_mut(name) else { return };
        let min = job.spec.min as usize;
        let enough = |kept: &[DeviceId]| {
            let rest: Vec<DeviceId> = kept.iter().filter(|id| *id != device).cloned().collect();
            if rest.len() >= min { rest } else { Vec::new() }
        };
        match &mut job.phase {
            Phase::Running(run) if run.kept().contains(device) => {
                let keep = enough(run.kept());
                self.stop_job(name, keep, reason);
            }
            Phase::Waiting { keep, .. } if keep.contains(device) => {
                *keep = enough(keep);
                self.holdings = Holdings::of(self.state);
            }
            Phase::Running(_) | Phase::Waiting { .. } | Phase::Finished(_) => {}
        }
    }

    /// Ends replicas that hang while loading.
    fn give_up_loading(&mut self) {
        let now = self.state.now;
        let hung = |replica: &crate::state::Replica| {
            replica.phase == ReplicaPhase::Starting && replica.stop.is_none() && now.since(replica.since) >= LOAD_TIMEOUT_MS
        };
        let ids: Vec<ReplicaId> =
            self.state.replicas.iter().filter(|(_, replica)| hung(replica)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.stop_replica(&id, Reason::LoadTimeout { after_ms: LOAD_TIMEOUT_MS });
        }
    }
}
