//! The run-ahead: a copy of the engine in a world where everything happens as expected.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::bits;
use crate::engine::Engine;
use crate::event::{Event, JobExit, Outcome};
use crate::names::{JobName, ReplicaId};
use crate::plan::{Action, ActionId, ActionKind, Reason};
use crate::state::{Job, ReplicaPhase, Run, Seat, State};
use crate::time::At;

use super::{Estimate, Limits};

/// The quantile of run times that is taken for what will be: half of all runs are shorter.
const MEDIAN: usize = 50;

/// What happens of itself. Of one moment, in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    /// The attempt has done all its work.
    Ends(JobName, u32),
    /// The attempt has ended because it was told to.
    Stopped(JobName, u32),
    Ready(ReplicaId),
}

/// A job's first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub at: At,
    pub rests_on: Estimate,
}

/// A stop that the engine ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    pub at: At,
    pub job: JobName,
    /// Workers before and after; 0: it waits.
    pub from: u32,
    pub to: u32,
    pub reason: Reason,
}

/// A job's work, in milliseconds at its smallest size.
#[derive(Clone, Copy, Debug)]
struct Work {
    left: u64,
    own: Estimate,
    /// Of the running attempt: since when it works, and what its start rested on.
    begun: At,
    rests_on: Estimate,
}

/// See the module.
pub(crate) struct Ahead {
    pub engine: Engine,
    pub now: At,
    end: At,
    steps_left: u32,
    future: BTreeSet<(At, Fact)>,
    /// By slot: no job is submitted, so no slot is used again.
    work: BTreeMap<u32, Work>,
    /// Outstanding actions that were seen, and what their decision rested on.
    seen: BTreeMap<ActionId, Estimate>,
    /// What it rests on that a device is free, by node and place.
    devices: BTreeMap<(u32, usize), Estimate>,
    /// The weakest of what ended at this moment.
    moment: Estimate,
    /// Taken at the beginning: imagined stops teach nothing.
    stop_ms: u64,
    pub starts: BTreeMap<JobName, Start>,
    started: Vec<JobName>,
    pub stops: Vec<Stopped>,
    exhausted: bool,
}

impl Ahead {
    pub fn new(engine: &Engine, now: At, limits: Limits) -> Self {
        let now = now.max(engine.state().now);
        let mut ahead = Self {
            engine: engine.clone(),
            now,
            end: now.plus(limits.horizon_ms),
            steps_left: limits.steps,
            future: BTreeSet::new(),
            work: BTreeMap::new(),
            seen: BTreeMap::new(),
            devices: BTreeMap::new(),
            moment: Estimate::Certain,
            stop_ms: engine.state().stop_ms,
            starts: BTreeMap::new(),
            started: Vec::new(),
            stops: Vec::new(),
            exhausted: false,
        };
        // What is known at `now`, not at the last event: ages of running work count.
        ahead.engine.decide(now);
        ahead.expect();
        ahead
    }

    /// How far it has looked, or could have.
    pub fn until(&self) -> At {
        if self.exhausted { self.now } else { self.end }
    }

    /// Jobs that started in the last step.
    pub fn just_started(&self) -> &[JobName] {
        &self.started
    }

    /// One moment: all that happens then, and all that is ordered. False when nothing is ahead within the limits.
    pub fn step(&mut self) -> bool {
        self.step_with(|_, _, _| {})
    }

    /// The same; `look` sees the engine after all was ordered, and from when to when it stays so.
    pub fn step_with(&mut self, mut look: impl FnMut(&Engine, At, At)) -> bool {
        self.started.clear();
        if self.steps_left == 0 {
            self.exhausted = true;
            return false;
        }
        self.steps_left -= 1;
        loop {
            self.engine.decide(self.now);
            self.note_orders();
            if !self.carry_out() {
                break;
            }
        }
        let next = self.future.first().map(|(at, _)| *at).into_iter().chain(self.engine.state().wake_at).min();
        let next = next.filter(|at| *at <= self.end);
        look(&self.engine, self.now, next.unwrap_or(self.end));
        let Some(next) = next else { return false };
        self.now = next.max(self.now);
        self.moment = Estimate::Certain;
        while self.future.first().is_some_and(|(at, _)| *at <= self.now) {
            if let Some((_, fact)) = self.future.pop_first() {
                self.happen(fact);
            }
        }
        true
    }

    fn state(&self) -> &State {
        self.engine.state()
    }

    fn tell(&mut self, event: Event) {
        self.engine.apply(self.now, event);
    }

    /// What runs and what loads is expected to end and to be ready.
    fn expect(&mut self) {
        let starting: BTreeSet<JobName> = self.engine.outstanding().filter_map(|action| started_job(&action.kind)).collect();
        let loading: BTreeSet<ReplicaId> = self.engine.outstanding().filter_map(|action| started_replica(&action.kind)).collect();
        let jobs: Vec<(u32, JobName, Job)> =
            self.state().jobs.slots().map(|(ix, name, job)| (ix, name.clone(), job.clone())).collect();
        for (ix, name, job) in jobs {
            let (total, own) = self.state().expected(&job, MEDIAN);
            let left = total.saturating_sub(job.served_ms(self.now)).max(1);
            self.work.insert(ix, Work { left, own, begun: self.now, rests_on: Estimate::Certain });
            let Some(run) = job.run().filter(|_| !starting.contains(&name)) else { continue };
            self.expect_end(ix, &name, &job, run);
            // The order may have its outcome already, while the end is still to be seen.
            if let Some(stop) = &run.stop {
                self.future.insert((stop.since.plus(self.stop_ms).max(self.now), Fact::Stopped(name.clone(), run.attempt)));
            }
            if !run.observed {
                self.tell(Event::JobStarted { name, attempt: run.attempt });
            }
        }
        let ending = self.state().replicas.iter().filter(|(id, replica)| replica.stop.is_some() && !loading.contains(id));
        for id in ending.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.tell(Event::ReplicaExited { id, failed: false });
        }
        let replicas: Vec<(ReplicaId, At)> = self
            .state()
            .replicas
            .iter()
            .filter_map(|(id, replica)| {
                let loads = replica.phase == ReplicaPhase::Starting && !loading.contains(id);
                let load_ms = self.state().models.get(&replica.model).map_or(0, |model| model.load_ms);
                loads.then(|| (id.clone(), replica.since.plus(load_ms).max(self.now)))
            })
            .collect();
        self.future.extend(replicas.into_iter().map(|(id, at)| (at, Fact::Ready(id))));
    }

    fn expect_end(&mut self, ix: u32, name: &JobName, job: &Job, run: &Run) {
        let Some(work) = self.work.get(&ix) else { return };
        let (least, speed) = speeds(job, run.seats.len());
        let ms = (work.left.saturating_mul(least) / speed).max(1);
        self.future.insert((work.begun.plus(ms), Fact::Ends(name.clone(), run.attempt)));
    }

    /// Remembers what new orders rest on: on what ended at this moment.
    fn note_orders(&mut self) {
        let orders: Vec<Action> =
            self.engine.outstanding().filter(|action| !self.seen.contains_key(&action.id)).cloned().collect();
        for action in orders {
            let mut rests_on = self.moment;
            if let ActionKind::StopJob { job, resume_with, .. } = &action.kind
                && let Some(ix) = self.state().jobs.ix(job)
            {
                // That it overstays is known only by what it was expected to take.
                if matches!(action.reason, Reason::Overstayed { .. }) {
                    rests_on = rests_on.max(self.work.get(&ix).map_or(Estimate::Unknown, |work| work.own));
                }
                let from = self.state().jobs.at(ix).and_then(Job::run).map_or(0, |run| run.seats.len());
                let from = u32::try_from(from).unwrap_or(u32::MAX);
                self.stops.push(Stopped {
                    at: self.now,
                    job: job.clone(),
                    from,
                    to: *resume_with,
                    reason: action.reason.clone(),
                });
            }
            self.seen.insert(action.id, rests_on);
        }
    }

    /// Carries out what may start now; true if the engine was told anything.
    fn carry_out(&mut self) -> bool {
        let orders: Vec<Action> = self.engine.outstanding().cloned().collect();
        let mut told = false;
        for action in orders {
            // An earlier one of this pass may have settled it.
            if self.state().actions.contains_key(&action.id) {
                told |= self.perform(&action);
            }
        }
        let outstanding = &self.engine.state().actions;
        self.seen.retain(|id, _| outstanding.contains_key(id));
        told
    }

    fn perform(&mut self, action: &Action) -> bool {
        match &action.kind {
            ActionKind::StopJob { job, attempt, .. } => self.stop_job(action.id, job, *attempt),
            ActionKind::StartJob { job, attempt, .. } => self.is_free(action) && self.start_job(action, job, *attempt),
            ActionKind::StopReplica { replica, .. } => self.stop_replica(replica),
            ActionKind::StartReplica { replica, .. } => self.is_free(action) && self.start_replica(action.id, replica),
        }
    }

    /// Whether all that comes before it is done.
    fn is_free(&self, action: &Action) -> bool {
        !action.after.iter().any(|id| self.state().actions.contains_key(id))
    }

    fn outcome(&mut self, id: ActionId, outcome: Outcome) -> bool {
        self.tell(Event::Outcome { id, outcome });
        true
    }

    fn stop_job(&mut self, id: ActionId, name: &JobName, attempt: u32) -> bool {
        let run = self.state().jobs.get(name).and_then(Job::run).filter(|run| run.attempt == attempt);
        let Some(stop) = run.and_then(|run| run.stop.clone()) else { return self.outcome(id, Outcome::Dropped) };
        let start =
            self.engine.outstanding().find(|action| started_job(&action.kind).as_ref() == Some(name)).map(|action| action.id);
        if let Some(start) = start {
            // It never ran.
            return self.outcome(start, Outcome::Dropped);
        }
        self.future.insert((stop.since.plus(self.stop_ms).max(self.now), Fact::Stopped(name.clone(), attempt)));
        false
    }

    fn start_job(&mut self, action: &Action, name: &JobName, attempt: u32) -> bool {
        let Some(ix) = self.state().jobs.ix(name) else { return self.outcome(action.id, Outcome::Dropped) };
        let job = self.state().jobs.at(ix).cloned();
        let Some((job, run)) = job.and_then(|job| job.run().filter(|run| run.attempt == attempt).cloned().map(|run| (job, run)))
        else {
            return self.outcome(action.id, Outcome::Dropped);
        };
        if run.stop.is_some() {
            return false;
        }
        let decided = self.seen.get(&action.id).copied().unwrap_or_default();
        let rests_on =
            places(&run.seats).filter_map(|place| self.devices.get(&place)).fold(decided, |weakest, one| weakest.max(*one));
        let again = job.served_ms > 0;
        if let Some(work) = self.work.get_mut(&ix) {
            work.begun = self.now.plus(if again { job.spec.restart_ms } else { 0 });
            work.rests_on = rests_on;
        }
        self.expect_end(ix, name, &job, &run);
        if !self.starts.contains_key(name) {
            self.starts.insert(name.clone(), Start { at: self.now, rests_on });
            self.started.push(name.clone());
        }
        self.outcome(action.id, Outcome::Done);
        self.tell(Event::JobStarted { name: name.clone(), attempt });
        true
    }

    fn stop_replica(&mut self, id: &ReplicaId) -> bool {
        let start =
            self.engine.outstanding().find(|action| started_replica(&action.kind).as_ref() == Some(id)).map(|action| action.id);
        if let Some(start) = start {
            return self.outcome(start, Outcome::Dropped);
        }
        self.tell(Event::ReplicaExited { id: id.clone(), failed: false });
        true
    }

    fn start_replica(&mut self, action: ActionId, id: &ReplicaId) -> bool {
        let Some(replica) = self.state().replicas.get(id) else { return self.outcome(action, Outcome::Dropped) };
        if replica.stop.is_some() {
            return false;
        }
        let load_ms = self.state().models.get(&replica.model).map_or(0, |model| model.load_ms);
        self.future.insert((self.now.plus(load_ms), Fact::Ready(id.clone())));
        self.outcome(action, Outcome::Done)
    }

    fn happen(&mut self, fact: Fact) {
        match fact {
            Fact::Ends(name, attempt) => self.job_exits(name, attempt, JobExit::Succeeded),
            Fact::Stopped(name, attempt) => self.job_exits(name, attempt, JobExit::Stopped),
            Fact::Ready(id) => {
                let replica = self.state().replicas.get(&id).filter(|replica| replica.stop.is_none());
                let Some(load_ms) =
                    replica.and_then(|replica| self.state().models.get(&replica.model)).map(|model| model.load_ms)
                else {
                    return;
                };
                self.tell(Event::ReplicaReady { id, load_ms });
            }
        }
    }

    fn job_exits(&mut self, name: JobName, attempt: u32, exit: JobExit) {
        let Some(ix) = self.state().jobs.ix(&name) else { return };
        let Some(job) = self.state().jobs.at(ix).cloned() else { return };
        let Some(run) = job.run().filter(|run| run.attempt == attempt) else { return };
        let Some(work) = self.work.get_mut(&ix) else { return };
        let rests_on = if exit == JobExit::Succeeded {
            self.moment = self.moment.max(work.rests_on).max(work.own);
            work.rests_on.max(work.own)
        } else {
            let (least, speed) = speeds(&job, run.seats.len());
            work.left = work.left.saturating_sub(self.now.since(work.begun).saturating_mul(speed) / least).max(1);
            let ordered = run.stop.as_ref().and_then(|stop| self.seen.get(&stop.action)).copied().unwrap_or_default();
            self.moment = self.moment.max(ordered);
            ordered
        };
        self.devices.extend(places(&run.seats).map(|place| (place, rests_on)));
        self.tell(Event::JobExited { name, attempt, exit });
    }
}

/// Speed at the smallest size and with so many workers.
fn speeds(job: &Job, workers: usize) -> (u64, u64) {
    let least = job.spec.speed_milli(job.spec.size().0).max(1);
    (least, job.spec.speed_milli(u32::try_from(workers).unwrap_or(u32::MAX)).max(1))
}

/// Node and place of every device of the seats.
fn places(seats: &[Seat]) -> impl Iterator<Item = (u32, usize)> {
    seats.iter().flat_map(|seat| bits(seat.mask).map(|at| (seat.node, at)))
}

fn started_job(kind: &ActionKind) -> Option<JobName> {
    if let ActionKind::StartJob { job, .. } = kind { Some(job.clone()) } else { None }
}

fn started_replica(kind: &ActionKind) -> Option<ReplicaId> {
    if let ActionKind::StartReplica { replica, .. } = kind { Some(replica.clone()) } else { None }
}
