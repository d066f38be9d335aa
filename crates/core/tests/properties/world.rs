//! A world of random behaviour for the engine's property tests: it carries actions out late and in any
//! order that `after` allows, forgets everything but a snapshot now and then, and checks at every step
//! what a real machine would not survive.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::names::{JobName, NodeName};
use tidegate_core::plan::{Action, ActionId, ActionKind, Plan};
use tidegate_core::time::At;
use tidegate_core::{Engine, State};

use super::checks::{self, same_state};
use super::genes::System;
use super::plans;
use super::real::{Attempt, Real, taken};
use super::setup;

/// What really runs, and what was ordered.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub engine: Engine,
    pub now: At,
    pub real: Real,
    pub pending: Vec<Action>,
    pub open: BTreeSet<ActionId>,
    pub queues: usize,
    pub models: usize,
    pub jobs_made: u32,
    pub stops: u64,
    /// Cores and memory that are promised although a node has less by now.
    pub excess: BTreeMap<NodeName, (u64, u64)>,
    /// Jobs whose placement is older than what they or the nodes now say about places.
    pub misplaced: BTreeSet<JobName>,
}

pub fn pick<T: Clone>(all: &[T], index: usize) -> Option<T> {
    all.get(index.checked_rem(all.len())?).cloned()
}

impl World {
    pub fn new(system: &System) -> Self {
        let (queues, models) = (system.queues.len(), system.models);
        let mut world = Self { now: At(1_000_000), queues, models, ..Self::default() };
        world.tell(Event::PolicySet(setup::policy(&system.policy)));
        for (index, gene) in system.nodes.iter().enumerate() {
            world.tell(Event::NodeSet { name: setup::node_name(index), spec: setup::node_spec(gene).into() });
            for device in setup::devices(index, gene) {
                world.tell(Event::DeviceSeen(device));
            }
        }
        // The third namespace is not known at first.
        for index in 0..2 {
            world.tell(setup::namespace(index, Some(index)));
        }
        for (index, gene) in system.queues.iter().enumerate() {
            world.tell(Event::QueueSet { name: setup::queue_name(index), queue: setup::queue(index, gene) });
        }
        for index in 0..system.models {
            world.tell(Event::ModelSet { name: setup::model_name(index), spec: setup::model(index, 1, queues) });
        }
        world.decide();
        world
    }

    pub fn state(&self) -> &State {
        self.engine.state()
    }

    pub fn tell(&mut self, event: Event) {
        self.engine.apply(self.now, event);
    }

    /// Asks the engine, checks what it says, and queues the actions.
    pub fn decide(&mut self) -> Plan {
        let before = self.engine.clone();
        let mut dirty = self.engine.clone();
        dirty.mark_dirty();
        let everything = dirty.decide(self.now);
        let plan = self.engine.decide(self.now);
        // Who looks at what changed alone may look again for a reason that has gone; never too late.
        let in_time = everything.wake_at.is_none_or(|at| plan.wake_at.is_some_and(|wake| wake <= at));
        assert!(
            plan.actions == everything.actions && in_time,
            "a decision that looks at everything is the same decision: {:?} / {:?} but {:?} / {:?}",
            plan.actions,
            plan.wake_at,
            everything.actions,
            everything.wake_at
        );
        same_state(&self.engine, &dirty, "wake_at", "a decision over everything leaves the same state");
        dirty.mark_dirty();
        let again = dirty.decide(self.now);
        assert!(again.actions.is_empty(), "a second decision at the same moment has nothing to add: {again:?}");
        for action in &plan.actions {
            for id in &action.after {
                assert!(self.open.contains(id), "{action:?} waits for an action that is not open");
            }
            self.stops += u64::from(matches!(action.kind, ActionKind::StopJob { .. } | ActionKind::StopReplica { .. }));
            self.open.insert(action.id);
        }
        self.pending.extend(plan.actions.iter().cloned());
        plans::check(&before, &self.engine, &plan, &self.misplaced);
        self.forget_misplaced(&plan);
        self.check();
        plan
    }

    /// A job that starts anew is where it should be.
    fn forget_misplaced(&mut self, plan: &Plan) {
        for action in &plan.actions {
            if let ActionKind::StartJob { job, .. } = &action.kind
                && action.reason.category() != "resume"
            {
                self.misplaced.remove(job);
            }
        }
    }

    /// What must hold at any moment, on the real machines and in the engine's books.
    pub fn check(&mut self) {
        self.real.check(self.engine.state());
        checks::promises(self.engine.state(), &mut self.excess);
        checks::engine(&self.engine);
    }

    /// Carries out the n-th action that may start now.
    pub fn carry_out(&mut self, index: usize) -> bool {
        let Some(action) = pick(&self.ready(), index) else { return false };
        self.pending.retain(|other| other.id != action.id);
        self.perform(&action, true);
        true
    }

    /// Actions that may start now.
    pub fn ready(&self) -> Vec<Action> {
        self.pending.iter().filter(|action| action.after.iter().all(|id| !self.open.contains(id))).cloned().collect()
    }

    /// Tells an outcome; a world that died before it could say so stays silent.
    pub fn close(&mut self, id: ActionId, outcome: Outcome) {
        self.open.remove(&id);
        self.tell(Event::Outcome { id, outcome });
    }

    /// Everything but the snapshot is forgotten; what was carried out without a word was carried out all the same.
    pub fn crash(&mut self, silent: Option<usize>) {
        if let Some(action) = silent.and_then(|index| pick(&self.ready(), index)) {
            self.perform(&action, false);
        }
        self.engine = Engine::restore(&self.engine.snapshot().unwrap()).unwrap();
        self.pending = self.engine.outstanding().cloned().collect();
        self.open = self.pending.iter().map(|action| action.id).collect();
    }

    /// Does what an action says, once however often it is asked; says so unless it dies before.
    pub fn perform(&mut self, action: &Action, tells: bool) {
        match &action.kind {
            ActionKind::StartJob { job, attempt, workers, .. } => self.start_job(action, job, *attempt, workers, tells),
            ActionKind::StopJob { job, attempt, .. } => self.stop_job(action, job, *attempt, tells),
            ActionKind::StartReplica { replica, place, .. } => {
                let state = self.engine.state();
                if !state.replicas.contains_key(replica) {
                    return if tells {
                        self.close(action.id, Outcome::Dropped);
                    };
                }
                let taken = taken(state, &state.replicas[replica].ask, place);
                self.real.replicas.insert(replica.clone(), taken);
                if tells {
                    self.close(action.id, Outcome::Done);
                    self.tell(Event::ReplicaReady { id: replica.clone(), load_ms: 1_500 });
                }
            }
            ActionKind::StopReplica { replica, .. } => {
                let starts =
                    |other: &Action| matches!(&other.kind, ActionKind::StartReplica { replica: of, .. } if of == replica);
                let ran = self.real.replicas.remove(replica).is_some();
                if !tells {
                    return;
                }
                let start = self.pending.iter().find(|other| starts(other)).map(|other| other.id);
                self.pending.retain(|other| !starts(other));
                match start {
                    Some(start) if !ran => self.close(start, Outcome::Dropped),
                    _ => self.tell(Event::ReplicaExited { id: replica.clone(), failed: false }),
                }
                self.open.extend(start.filter(|_| false));
                self.close(action.id, Outcome::Done);
                start.map(|start| self.open.remove(&start));
            }
        }
        if tells {
            self.real.check(self.engine.state());
        }
    }

    fn start_job(&mut self, action: &Action, job: &JobName, attempt: u32, workers: &[tidegate_core::plan::Placed], tells: bool) {
        let state = self.engine.state();
        let current = state.jobs.get(job).and_then(|job| job.run()).is_some_and(|run| run.attempt == attempt);
        if !current {
            return if tells {
                self.close(action.id, Outcome::Dropped);
            };
        }
        let groups = &state.jobs[job].spec.groups;
        let workers = workers.iter().map(|worker| taken(state, &groups[usize::from(worker.group)].ask, worker)).collect();
        if let Some(running) = self.real.jobs.get(job) {
            assert_eq!(running.number, attempt, "{job} runs already as another attempt");
        }
        self.real.jobs.insert(job.clone(), Attempt { number: attempt, workers });
        if tells {
            self.close(action.id, Outcome::Done);
            self.tell(Event::JobStarted { name: job.clone(), attempt });
        }
    }

    fn stop_job(&mut self, action: &Action, job: &JobName, attempt: u32, tells: bool) {
        let starts = |other: &Action| matches!(&other.kind, ActionKind::StartJob { job: of, attempt: at, .. } if of == job && *at == attempt);
        let ran = self.real.jobs.get(job).is_some_and(|run| run.number == attempt);
        if ran {
            self.real.jobs.remove(job);
        }
        if !tells {
            return;
        }
        let start = self.pending.iter().find(|other| starts(other)).map(|other| other.id);
        self.pending.retain(|other| !starts(other));
        let current = self.state().jobs.get(job).and_then(|job| job.run()).is_some_and(|run| run.attempt == attempt);
        match start {
            // It never ran: the start is dropped.
            Some(start) if !ran => self.close(start, Outcome::Dropped),
            _ if ran || current => self.exit(job, attempt, JobExit::Stopped),
            _ => {}
        }
        if let Some(start) = start {
            self.open.remove(&start);
        }
        self.close(action.id, Outcome::Done);
    }

    /// The attempt is over, whoever ended it.
    pub fn exit(&mut self, name: &JobName, attempt: u32, exit: JobExit) {
        self.real.jobs.remove(name);
        self.tell(Event::JobExited { name: name.clone(), attempt, exit });
    }
}
