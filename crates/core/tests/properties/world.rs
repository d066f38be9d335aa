//! A world of random behaviour for the engine's property tests: it carries actions out late and in any
//! order that `after` allows, and checks at every step what a real device would not survive.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test support")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidegate_core::demand::{Demand, ServiceTime};
use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::holdings::Holdings;
use tidegate_core::names::{DeviceId, JobName, ModelName, QueueName, ReplicaId};
use tidegate_core::plan::{Action, ActionId, ActionKind, Plan};
use tidegate_core::state::{Amount, Ask, Device, JobSpec, ModelSpec, Phase, Queue};
use tidegate_core::time::At;
use tidegate_core::{Engine, State};

pub const DEVICE_MIB: u64 = 80_000;

#[derive(Clone, Debug)]
pub enum Op {
    Advance(u64),
    Demand { model: usize, rate: u64, held: u64 },
    Submit { priority: i32, min: u32, extra: u32, share: bool, queue: bool },
    Progress(usize),
    Exit { job: usize, succeeded: bool },
    Pause { job: usize, paused: bool },
    Cancel(usize),
    Remove(usize),
    Drain { device: usize, drained: bool },
    Lose(usize),
    ReplicaDies(usize),
    PauseModel { model: usize, paused: bool },
    Upgrade(usize),
    CarryOut(usize),
    FailStart(usize),
}

pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1_u64..20_000).prop_map(Op::Advance),
        5 => (0_usize..3, 0_u64..600, 0_u64..4).prop_map(|(model, rate, held)| Op::Demand { model, rate, held }),
        2 => (-2_i32..3, 1_u32..4, 0_u32..4, any::<bool>(), any::<bool>())
            .prop_map(|(priority, min, extra, share, queue)| Op::Submit { priority, min, extra, share: share && min == 1, queue }),
        2 => any::<usize>().prop_map(Op::Progress),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(job, succeeded)| Op::Exit { job, succeeded }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(job, paused)| Op::Pause { job, paused }),
        1 => any::<usize>().prop_map(Op::Cancel),
        1 => any::<usize>().prop_map(Op::Remove),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(device, drained)| Op::Drain { device, drained }),
        1 => any::<usize>().prop_map(Op::Lose),
        1 => any::<usize>().prop_map(Op::ReplicaDies),
        1 => (0_usize..3, any::<bool>()).prop_map(|(model, paused)| Op::PauseModel { model, paused }),
        1 => (0_usize..3).prop_map(Op::Upgrade),
        8 => any::<usize>().prop_map(Op::CarryOut),
        1 => any::<usize>().prop_map(Op::FailStart),
    ]
}

#[derive(Clone, Debug)]
pub struct Attempt {
    pub number: u32,
    pub devices: Vec<DeviceId>,
    pub mib: u64,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub device: DeviceId,
    pub mib: u64,
}

/// What really runs, and what was ordered.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub engine: Engine,
    pub now: At,
    pub jobs: BTreeMap<JobName, Attempt>,
    pub replicas: BTreeMap<ReplicaId, Server>,
    pub pending: Vec<Action>,
    pub open: BTreeSet<ActionId>,
    pub jobs_made: u32,
    pub stops: u64,
}

fn mib_of(ask: &Ask) -> u64 {
    match ask.amount {
        Amount::Whole(_) => DEVICE_MIB,
        Amount::MemoryMib(mib) => mib,
        Amount::None | Amount::Milli(_) | Amount::Mig(_) => unreachable!("not asked for here"),
    }
}

/// Asserts equality, naming only the parts that differ.
fn same_state(one: &Engine, other: &Engine, what: &str) {
    if one == other {
        return;
    }
    let parts = |engine: &Engine| serde_json::to_value(engine.state()).unwrap();
    let (one, other) = (parts(one), parts(other));
    let differing: Vec<String> = one
        .as_object()
        .unwrap()
        .iter()
        .filter(|(key, value)| other[key.as_str()] != **value)
        .map(|(key, value)| format!("{key}: {value} != {}", other[key.as_str()]))
        .collect();
    panic!("{what}: {}", differing.join("; "));
}

fn pick<T: Clone>(all: &[T], index: usize) -> Option<T> {
    all.get(index.checked_rem(all.len())?).cloned()
}

impl World {
    pub fn new(devices: u32, serving: u32, training: u32) -> Self {
        let mut world = Self { now: At(1_000_000), ..Self::default() };
        for index in 0..devices {
            // Two devices a node.
            let device = Device::new(format!("gpu-{index}"), format!("node-{}", index / 2), "H100-80GB", DEVICE_MIB);
            world.tell(Event::DeviceSeen(device));
        }
        world.tell(Event::QueueSet { name: QueueName::from("serving"), queue: Queue::devices(serving, None) });
        world.tell(Event::QueueSet { name: QueueName::from("training"), queue: Queue::devices(training, Some(devices)) });
        for index in 0..3_u32 {
            world.tell(Event::ModelSet { name: Self::model(index as usize), spec: Self::model_spec(index, 1) });
        }
        world
    }

    pub fn model(index: usize) -> ModelName {
        ModelName(format!("m{index}"))
    }

    pub fn model_spec(index: u32, generation: u64) -> ModelSpec {
        let amount = if index == 2 { Amount::MemoryMib(20_000) } else { Amount::Whole(1) };
        ModelSpec {
            queue: QueueName::from("serving"),
            priority: i32::try_from(index).unwrap(),
            ask: Ask { amount, ..Ask::default() },
            slo_ms: 250,
            min: u32::from(index == 1),
            max: 4,
            zero_after_ms: 20_000,
            max_rows: 16,
            generation,
        }
    }

    pub fn tell(&mut self, event: Event) {
        self.engine.apply(self.now, event);
    }

    /// Asks the engine, checks what it says, and queues the actions.
    pub fn decide(&mut self) -> Plan {
        let mut dirty = self.engine.clone();
        dirty.mark_all_dirty();
        let everything = dirty.decide(self.now);
        let plan = self.engine.decide(self.now);
        assert!(
            plan == everything,
            "a decision that looks at everything is the same decision: {:?} / {:?} but {:?} / {:?}",
            plan.actions,
            plan.wake_at,
            everything.actions,
            everything.wake_at
        );
        same_state(&self.engine, &dirty, "a decision over everything leaves the same state");
        dirty.mark_all_dirty();
        let again = dirty.decide(self.now);
        assert!(again.actions.is_empty(), "a second decision at the same moment has nothing to add: {again:?}");
        for action in &plan.actions {
            assert!(!action.reason.to_string().is_empty());
            self.check_action(action);
            self.open.insert(action.id);
        }
        self.pending.extend(plan.actions.iter().cloned());
        self.check();
        plan
    }

    fn check_action(&mut self, action: &Action) {
        for id in &action.after {
            assert!(self.open.contains(id), "{action:?} waits for an action that is not open");
        }
        match &action.kind {
            ActionKind::StartJob { job, workers, .. } => {
                let spec = &self.engine.state().jobs[job].spec;
                for (number, group) in spec.groups.iter().enumerate() {
                    let size = workers.iter().filter(|worker| usize::from(worker.group) == number).count();
                    let whole = (group.min as usize..=group.max as usize).contains(&size);
                    assert!(whole, "a gang is never partial: {action:?}");
                }
            }
            ActionKind::StopJob { .. } | ActionKind::StopReplica { .. } => self.stops += 1,
            ActionKind::StartReplica { .. } => {}
        }
    }

    /// What must hold at any moment, on the real devices and in the engine's books.
    pub fn check(&self) {
        let state = self.engine.state();
        let mut used: BTreeMap<&DeviceId, u64> = BTreeMap::new();
        for attempt in self.jobs.values() {
            for device in &attempt.devices {
                *used.entry(device).or_default() += attempt.mib;
            }
        }
        for server in self.replicas.values() {
            *used.entry(&server.device).or_default() += server.mib;
        }
        for (device, mib) in used {
            assert!(mib <= DEVICE_MIB, "{device} really holds {mib} MiB of {DEVICE_MIB}");
        }
        let holdings = Holdings::of(state);
        for (id, claims) in &holdings.devices {
            let firm: u64 = claims.iter().filter(|claim| claim.releasing.is_none()).map(|claim| claim.mib).sum();
            assert!(firm <= DEVICE_MIB, "{id} is promised {firm} MiB of {DEVICE_MIB}: {claims:?}");
        }
        if let Err(difference) = self.engine.is_consistent() {
            panic!("the desk drifted from the state: {difference}");
        }
        let restored = Engine::restore(&self.engine.snapshot().unwrap()).unwrap();
        same_state(&restored, &self.engine, "a restored snapshot is the engine");
    }

    /// Carries out the n-th action that may start now.
    pub fn carry_out(&mut self, index: usize) -> bool {
        let ready: Vec<Action> = self.ready();
        let Some(action) = pick(&ready, index) else { return false };
        self.pending.retain(|other| other.id != action.id);
        self.perform(&action);
        true
    }

    fn ready(&self) -> Vec<Action> {
        self.pending.iter().filter(|action| action.after.iter().all(|id| !self.open.contains(id))).cloned().collect()
    }

    fn close(&mut self, id: ActionId, outcome: Outcome) {
        self.open.remove(&id);
        self.tell(Event::Outcome { id, outcome });
    }

    fn perform(&mut self, action: &Action) {
        match &action.kind {
            ActionKind::StartJob { job, attempt, workers } => {
                let state = self.engine.state();
                let current = state.jobs.get(job).and_then(|job| job.run()).is_some_and(|run| run.attempt == *attempt);
                if !current {
                    return self.close(action.id, Outcome::Dropped);
                }
                let mib = mib_of(&state.jobs[job].spec.groups[0].ask);
                let devices: Vec<DeviceId> = workers.iter().flat_map(|worker| worker.devices.clone()).collect();
                assert!(!self.jobs.contains_key(job), "{job} runs already");
                self.jobs.insert(job.clone(), Attempt { number: *attempt, devices, mib });
                self.close(action.id, Outcome::Done);
                self.tell(Event::JobStarted { name: job.clone(), attempt: *attempt });
            }
            ActionKind::StopJob { job, attempt, .. } => {
                let start = self.pending.iter().find(|other| matches!(&other.kind, ActionKind::StartJob { job: of, attempt: at, .. } if of == job && at == attempt)).cloned();
                if let Some(start) = start {
                    // It never ran: the start is dropped.
                    self.pending.retain(|other| other.id != start.id);
                    self.close(start.id, Outcome::Dropped);
                } else if self.jobs.get(job).is_some_and(|run| run.number == *attempt) {
                    self.jobs.remove(job);
                    self.tell(Event::JobExited { name: job.clone(), attempt: *attempt, exit: JobExit::Stopped });
                }
                self.close(action.id, Outcome::Done);
            }
            ActionKind::StartReplica { model, replica, place } => {
                if !self.engine.state().replicas.contains_key(replica) {
                    return self.close(action.id, Outcome::Dropped);
                }
                let mib = mib_of(&self.engine.state().models[model].spec.ask);
                let device = &place.devices[0];
                self.replicas.insert(replica.clone(), Server { device: device.clone(), mib });
                self.close(action.id, Outcome::Done);
                self.tell(Event::ReplicaReady { id: replica.clone(), load_ms: 1_500 });
            }
            ActionKind::StopReplica { replica, .. } => {
                let start = self
                    .pending
                    .iter()
                    .find(|other| matches!(&other.kind, ActionKind::StartReplica { replica: of, .. } if of == replica))
                    .cloned();
                if let Some(start) = start {
                    self.pending.retain(|other| other.id != start.id);
                    self.close(start.id, Outcome::Dropped);
                } else if self.replicas.remove(replica).is_some() {
                    self.tell(Event::ReplicaExited { id: replica.clone(), failed: false });
                }
                self.close(action.id, Outcome::Done);
            }
        }
    }

    pub fn step(&mut self, op: &Op) {
        match op {
            Op::Advance(ms) => self.now = self.now.plus(*ms),
            Op::Demand { model, rate, held } => {
                let service = Some(ServiceTime { base_us: 20_000, per_row_us: 5_000 });
                let demand = Demand { milli_rows_per_s: rate * 1000, queued: *held, held: *held, service, ..Demand::default() };
                self.tell(Event::Demand { model: Self::model(*model), demand });
            }
            Op::Submit { priority, min, extra, share, queue } => self.submit(*priority, *min, *extra, *share, *queue),
            Op::Progress(index) => {
                if let Some((name, run)) = self.running(*index) {
                    let step = self.now.0 / 1000;
                    self.tell(Event::JobProgress { name, attempt: run.number, step, checkpoint: Some(step), done_ppm: None });
                }
            }
            Op::Exit { job, succeeded } => {
                if let Some((name, run)) = self.running(*job) {
                    self.jobs.remove(&name);
                    let exit = if *succeeded { JobExit::Succeeded } else { JobExit::Failed };
                    self.tell(Event::JobExited { name, attempt: run.number, exit });
                }
            }
            Op::Pause { job, paused } => self.wish(*job, |name| Event::JobPaused { name, paused: *paused }),
            Op::Cancel(job) => self.wish(*job, Event::JobCancelled),
            Op::Remove(job) => self.wish(*job, Event::JobRemoved),
            Op::Drain { device, drained } => {
                let ids: Vec<DeviceId> = self.engine.state().devices().map(|device| device.id.clone()).collect();
                let id = pick(&ids, *device).unwrap();
                self.tell(Event::DeviceDrained { id, drained: *drained });
            }
            Op::Lose(device) => {
                let ids: Vec<DeviceId> = self.engine.state().devices().map(|device| device.id.clone()).collect();
                let id = pick(&ids, *device).unwrap();
                let device = self.engine.state().device(&id).unwrap().clone();
                self.tell(Event::DeviceLost(id));
                self.decide();
                self.tell(Event::DeviceSeen(device));
            }
            Op::ReplicaDies(index) => {
                let ids: Vec<ReplicaId> = self.replicas.keys().cloned().collect();
                if let Some(id) = pick(&ids, *index) {
                    self.replicas.remove(&id);
                    self.tell(Event::ReplicaExited { id, failed: true });
                }
            }
            Op::PauseModel { model, paused } => self.tell(Event::ModelPaused { name: Self::model(*model), paused: *paused }),
            Op::Upgrade(model) => {
                let name = Self::model(*model);
                let generation = self.engine.state().models[&name].spec.generation + 1;
                let spec = Self::model_spec(u32::try_from(*model).unwrap(), generation);
                self.tell(Event::ModelSet { name, spec });
            }
            Op::CarryOut(index) => drop(self.carry_out(*index)),
            Op::FailStart(index) => {
                let starts: Vec<Action> = self
                    .ready()
                    .into_iter()
                    .filter(|action| matches!(action.kind, ActionKind::StartJob { .. } | ActionKind::StartReplica { .. }))
                    .collect();
                if let Some(action) = pick(&starts, *index) {
                    self.pending.retain(|other| other.id != action.id);
                    self.close(action.id, Outcome::Failed("no such program".to_owned()));
                }
            }
        }
        self.decide();
    }

    fn submit(&mut self, priority: i32, min: u32, extra: u32, share: bool, serving: bool) {
        self.jobs_made += 1;
        let amount = if share { Amount::MemoryMib(30_000) } else { Amount::Whole(1) };
        let queue = if serving && priority < 0 { "serving" } else { "training" };
        let ask = Ask { amount, ..Ask::default() };
        let spec = JobSpec { priority, restart_ms: 2_000, backoff_limit: 3, ..JobSpec::workers(queue, min, min + extra, ask) };
        self.tell(Event::JobSet { name: JobName(format!("j{}", self.jobs_made)), spec });
    }

    fn running(&self, index: usize) -> Option<(JobName, Attempt)> {
        let all: Vec<(JobName, Attempt)> = self.jobs.iter().map(|(name, run)| (name.clone(), run.clone())).collect();
        pick(&all, index)
    }

    fn wish(&mut self, index: usize, event: impl Fn(JobName) -> Event) {
        let names: Vec<JobName> = self.engine.state().jobs.keys().cloned().collect();
        if let Some(name) = pick(&names, index) {
            self.tell(event(name));
        }
    }

    /// Lets everything that was ordered happen, and time pass, until the engine wants nothing more.
    pub fn settle(&mut self) -> u64 {
        let (before, began) = (self.stops, self.now);
        for round in 0..300 {
            while self.carry_out(0) {
                self.decide();
            }
            let plan = self.decide();
            assert!(
                self.pending.iter().all(|action| !action.after.is_empty()) || !self.pending.is_empty() || plan.actions.is_empty()
            );
            match plan.wake_at {
                // Nothing ends by itself here: a reservation is renewed for ever, later each time.
                Some(at) if plan.actions.is_empty() && at.since(began) > 30 * 86_400_000 => return self.stops - before,
                Some(at) if plan.actions.is_empty() => self.now = at,
                None if plan.actions.is_empty() && self.pending.is_empty() => return self.stops - before,
                _ => {}
            }
            assert!(round < 299, "the engine never comes to rest: {:?} {:?}", self.pending, plan);
        }
        0
    }
}

/// The engine that a world builds after a restart: the ledger's snapshot, and everything observed told again.
pub fn rebuilt(world: &World) -> Engine {
    let mut engine = Engine::restore(&world.engine.snapshot().unwrap()).unwrap();
    let state: State = engine.state().clone();
    let now = world.now;
    for device in state.devices() {
        engine.apply(now, Event::DeviceSeen(device.clone()));
    }
    for (name, queue) in &state.queues {
        engine.apply(now, Event::QueueSet { name: name.clone(), queue: queue.clone() });
    }
    for (name, job) in state.jobs.iter() {
        engine.apply(now, Event::JobSet { name: name.clone(), spec: job.spec.clone() });
    }
    for (name, model) in &state.models {
        if !model.removed {
            engine.apply(now, Event::ModelSet { name: name.clone(), spec: model.spec.clone() });
        }
    }
    for (name, run) in &world.jobs {
        engine.apply(now, Event::JobStarted { name: name.clone(), attempt: run.number });
    }
    for id in world.replicas.keys() {
        engine.apply(now, Event::ReplicaReady { id: id.clone(), load_ms: 1_500 });
    }
    engine
}

pub fn is_running(state: &State, name: &JobName) -> bool {
    state.jobs.get(name).is_some_and(|job| matches!(job.phase, Phase::Running(_)))
}
