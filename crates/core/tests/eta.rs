//! Expected starts: in a world that behaves exactly as estimated they are the real ones. `PROPTEST_CASES` sets how many.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidegate_core::demand::{Demand, ServiceTime};
use tidegate_core::eta::{self, Estimate, Limits};
use tidegate_core::names::{JobName, ModelName, Namespace, NodeName, QueueName, ReplicaId};
use tidegate_core::plan::{Action, ActionKind};
use tidegate_core::policy::Policy;
use tidegate_core::state::{Ask, Device, Discipline, JobSpec, ModelSpec, Phase, Queue};
use tidegate_core::what_if::{self, Change};
use tidegate_core::{At, Engine, Event, JobExit, Outcome, explain};

const SECOND: u64 = 1_000;

#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    Demand(u64),
    Submit { queue: usize, priority: i32, min: u32, extra: u32, gpus: u32, expected_s: Option<u64>, percent: u64, flags: u8 },
    Pause { job: usize, paused: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1_u64..400_000).prop_map(Op::Advance),
        1 => (0_u64..500).prop_map(Op::Demand),
        6 => (0_usize..3, 0_i32..3, 1_u32..4, 0_u32..3, 1_u32..3, prop::option::weighted(0.9, 10_u64..2_000), 40_u64..250, any::<u8>())
            .prop_map(|(queue, priority, min, extra, gpus, expected_s, percent, flags)| Op::Submit { queue, priority, min, extra, gpus, expected_s, percent, flags }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(job, paused)| Op::Pause { job, paused }),
    ]
}

/// What happens of itself: of one moment, ends before stops before loads, by name.
type Happening = (At, u8, String, u32);

const ENDS: u8 = 0;
const STOPPED: u8 = 1;
const READY: u8 = 2;

/// A world that carries out everything at once.
struct Real {
    engine: Engine,
    now: At,
    /// Work left, in milliseconds at the smallest size; and since when the running attempt works.
    left: BTreeMap<JobName, u64>,
    begun: BTreeMap<JobName, At>,
    coming: BTreeSet<Happening>,
    stop_ms: u64,
    started: BTreeMap<JobName, At>,
    submitted: u32,
}

fn speeds(spec: &JobSpec, workers: usize) -> (u64, u64) {
    (spec.speed_milli(spec.size().0), spec.speed_milli(u32::try_from(workers).unwrap()))
}

impl Real {
    fn new(nodes: &[u32], strict: bool) -> Self {
        let mut this = Self {
            engine: Engine::default(),
            now: At(1_000_000_000),
            left: BTreeMap::new(),
            begun: BTreeMap::new(),
            coming: BTreeSet::new(),
            stop_ms: 1_000,
            started: BTreeMap::new(),
            submitted: 0,
        };
        this.tell(Event::PolicySet(Policy { headroom_percent: 0, ..Policy::default() }));
        let mut all = 0;
        for (index, gpus) in nodes.iter().enumerate() {
            all += gpus;
            for gpu in 0..*gpus {
                let class = if index % 2 == 0 { "H100" } else { "A100" };
                this.tell(Event::DeviceSeen(Device::new(format!("n{index}-{gpu}"), format!("n{index}"), class, 81_920)));
            }
        }
        let discipline = if strict { Discipline::StrictFifo } else { Discipline::BestEffort };
        let own = Queue { discipline, ..Queue::devices(all / 2, None) };
        this.tell(Event::QueueSet { name: QueueName::from("q0"), queue: own });
        this.tell(Event::QueueSet { name: QueueName::from("q1"), queue: Queue::devices(all - all / 2, Some(all / 2)) });
        this.tell(Event::QueueSet { name: QueueName::from("q2"), queue: Queue::devices(0, None) });
        let spec = ModelSpec {
            queue: QueueName::from("q1"),
            namespace: Namespace::default(),
            priority: 0,
            ask: Ask::whole(1),
            slo_ms: 250,
            min: 0,
            max: 2,
            zero_after_ms: 60_000,
            max_rows: 16,
            max_sharers: 1,
            memory: None,
            generation: 1,
        };
        this.tell(Event::ModelSet { name: ModelName::from("m"), spec });
        this
    }

    fn tell(&mut self, event: Event) {
        self.engine.apply(self.now, event);
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Advance(ms) => self.run_until(self.now.plus(*ms)),
            Op::Demand(rate) => {
                let service = Some(ServiceTime { base_us: 20_000, per_row_us: 5_000 });
                let demand = Demand { milli_rows_per_s: rate * 1000, service, ..Demand::default() };
                self.tell(Event::Demand { model: ModelName::from("m"), demand });
            }
            Op::Submit { queue, priority, min, extra, gpus, expected_s, percent, flags } => {
                let ask = Ask::whole(*gpus);
                let spec = JobSpec {
                    priority: *priority,
                    owner: format!("user{}", flags >> 6),
                    recipe: "r".to_owned(),
                    preemptible: flags & 3 != 0,
                    min_runtime_ms: u64::from(flags >> 2 & 1) * 200 * SECOND,
                    max_disruptions_per_hour: if flags & 8 == 0 { u32::MAX } else { 1 },
                    restart_ms: 3_000,
                    expected_ms: expected_s.map(|seconds| seconds * SECOND),
                    ..JobSpec::workers(format!("q{queue}"), *min, min + extra, ask)
                };
                self.submitted += 1;
                let name = JobName::from(format!("j{}", self.submitted));
                self.left.insert(name.clone(), expected_s.unwrap_or(3_600) * SECOND * percent / 100);
                self.tell(Event::JobSet { name, spec: spec.into() });
            }
            Op::Pause { job, paused } => {
                let names: Vec<JobName> = self.engine.state().jobs.keys().cloned().collect();
                if let Some(index) = job.checked_rem(names.len()) {
                    self.tell(Event::JobPaused { name: names[index].clone(), paused: *paused });
                }
            }
        }
    }

    /// From now on everything takes as long as is expected of it now.
    fn behave_as_estimated(&mut self) {
        self.engine.decide(self.now);
        let state = self.engine.state().clone();
        self.stop_ms = state.stop_ms;
        self.coming.clear();
        let ordered: BTreeSet<JobName> = self
            .engine
            .outstanding()
            .filter_map(|action| if let ActionKind::StartJob { job, .. } = &action.kind { Some(job.clone()) } else { None })
            .collect();
        for (name, job) in state.jobs.iter() {
            let left = state.expected_total_ms(job, 50).saturating_sub(job.served_ms(self.now)).max(1);
            self.left.insert(name.clone(), left);
            let Phase::Running(run) = &job.phase else { continue };
            if !ordered.contains(name) {
                self.begun.insert(name.clone(), self.now);
                self.end_comes(name, &job.spec, run.seats.len(), run.attempt);
                if let Some(stop) = &run.stop {
                    let at = stop.since.plus(self.stop_ms).max(self.now);
                    self.coming.insert((at, STOPPED, name.to_string(), run.attempt));
                }
            }
        }
        for (id, replica) in state.replicas.iter() {
            let at = replica.since.plus(state.models[&replica.model].load_ms).max(self.now);
            self.coming.insert((at, READY, id.to_string(), 0));
        }
        self.started.clear();
    }

    fn end_comes(&mut self, name: &JobName, spec: &JobSpec, workers: usize, attempt: u32) {
        let (least, speed) = speeds(spec, workers);
        let ms = (self.left[name] * least / speed).max(1);
        self.coming.insert((self.begun[name].plus(ms), ENDS, name.to_string(), attempt));
    }

    fn run_until(&mut self, end: At) {
        loop {
            loop {
                self.engine.decide(self.now);
                if !self.carry_out() {
                    break;
                }
            }
            let next = self.coming.first().map(|happening| happening.0).into_iter().chain(self.engine.state().wake_at).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = next.max(self.now);
            while self.coming.first().is_some_and(|happening| happening.0 <= self.now) {
                let happening = self.coming.pop_first().unwrap();
                self.happen(happening);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, (_, kind, name, attempt): Happening) {
        if kind == READY {
            let id = ReplicaId::from(name);
            if self.engine.state().replicas.get(&id).is_some_and(|replica| replica.stop.is_none()) {
                let load_ms = self.engine.state().models[&ModelName::from("m")].load_ms;
                self.tell(Event::ReplicaReady { id, load_ms });
            }
            return;
        }
        let name = JobName::from(name);
        let Some(job) = self.engine.state().jobs.get(&name).cloned() else { return };
        let Some(run) = job.run().filter(|run| run.attempt == attempt) else { return };
        if kind == STOPPED {
            let (least, speed) = speeds(&job.spec, run.seats.len());
            let did = self.now.since(self.begun[&name]) * speed / least;
            let left = self.left.get_mut(&name).unwrap();
            *left = left.saturating_sub(did).max(1);
        }
        let exit = if kind == ENDS { JobExit::Succeeded } else { JobExit::Stopped };
        self.tell(Event::JobExited { name, attempt, exit });
    }

    fn carry_out(&mut self) -> bool {
        let mut told = false;
        for action in self.engine.outstanding().cloned().collect::<Vec<Action>>() {
            if self.engine.outstanding().any(|other| other.id == action.id) {
                told |= self.perform(&action);
            }
        }
        told
    }

    fn start_of(&self, subject: &str) -> Option<Action> {
        let starts = |action: &&Action| match &action.kind {
            ActionKind::StartJob { job, .. } => job.as_str() == subject,
            ActionKind::StartReplica { replica, .. } => replica.as_str() == subject,
            _ => false,
        };
        self.engine.outstanding().find(starts).cloned()
    }

    fn perform(&mut self, action: &Action) -> bool {
        let waits = action.after.iter().any(|id| self.engine.outstanding().any(|other| other.id == *id));
        match &action.kind {
            ActionKind::StopJob { job, attempt, .. } => {
                if let Some(start) = self.start_of(&job.0) {
                    self.tell(Event::Outcome { id: start.id, outcome: Outcome::Dropped });
                    return true;
                }
                let since = self.engine.state().jobs[job].run().unwrap().stop.as_ref().unwrap().since;
                self.coming.insert((since.plus(self.stop_ms).max(self.now), STOPPED, job.to_string(), *attempt));
                false
            }
            ActionKind::StopReplica { replica, .. } => {
                match self.start_of(&replica.0) {
                    Some(start) => self.tell(Event::Outcome { id: start.id, outcome: Outcome::Dropped }),
                    None => self.tell(Event::ReplicaExited { id: replica.clone(), failed: false }),
                }
                true
            }
            ActionKind::StartJob { job, attempt, workers, .. } if !waits => {
                let known = self.engine.state().jobs[job].clone();
                if known.run().unwrap().stop.is_some() {
                    return false;
                }
                let pause = if known.served_ms > 0 { known.spec.restart_ms } else { 0 };
                self.begun.insert(job.clone(), self.now.plus(pause));
                self.end_comes(job, &known.spec, workers.len(), *attempt);
                self.started.entry(job.clone()).or_insert(self.now);
                self.tell(Event::Outcome { id: action.id, outcome: Outcome::Done });
                self.tell(Event::JobStarted { name: job.clone(), attempt: *attempt });
                true
            }
            ActionKind::StartReplica { replica, model, .. } if !waits => {
                if self.engine.state().replicas[replica].stop.is_some() {
                    return false;
                }
                let load_ms = self.engine.state().models[model].load_ms;
                self.coming.insert((self.now.plus(load_ms), READY, replica.to_string(), 0));
                self.tell(Event::Outcome { id: action.id, outcome: Outcome::Done });
                true
            }
            ActionKind::StartJob { .. } | ActionKind::StartReplica { .. } => false,
        }
    }
}

fn cases() -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u32>().ok());
    let seed = number("PROPTEST_SEED").unwrap_or(20_261_124);
    eprintln!("PROPTEST_SEED={seed}");
    ProptestConfig {
        cases: number("PROPTEST_CASES").map_or(256, |cases| (cases / 4).max(1)),
        rng_seed: proptest::test_runner::RngSeed::Fixed(u64::from(seed)),
        failure_persistence: None,
        max_shrink_iters: 5_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_job_starts_when_it_was_expected_to_in_a_world_that_behaves_as_estimated(
        nodes in prop::collection::vec(1_u32..5, 1..4),
        strict in any::<bool>(),
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let mut real = Real::new(&nodes, strict);
        for op in &ops {
            real.step(op);
        }
        let before = real.engine.clone();
        let limits = Limits { horizon_ms: 10 * 86_400_000, steps: 5_000 };
        let expected = eta::all(&real.engine, real.now, limits);
        prop_assert!(real.engine == before, "asking changes nothing");
        for (name, eta) in &expected {
            let told = explain::job(&real.engine, name, real.now).unwrap();
            prop_assert!(!told.because.is_empty() || eta.at == Some(real.now), "{}: {:?}", name, told);
            prop_assert!(!told.because.iter().chain(&told.would_change).any(String::is_empty), "{:?}", told);
            prop_assert!(real.engine == before, "explaining changes nothing");
        }
        let same = what_if::run(&real.engine, &[], real.now, 86_400_000).unwrap();
        prop_assert!(same.is_none(), "nothing changes, but {same}");
        let more = Change::AddNodes { like: NodeName::from("n0"), count: 1 };
        let more = what_if::run(&real.engine, &[more], real.now, 86_400_000).unwrap();
        prop_assert_eq!(more.after.gpus, more.before.gpus + u64::from(nodes[0]));
        prop_assert!(!more.to_string().is_empty());
        prop_assert!(real.engine == before, "what if changes nothing");
        real.behave_as_estimated();
        let until = expected.values().map(|eta| eta.until).min().unwrap_or(real.now);
        let last = expected.values().filter_map(|eta| eta.at).max().unwrap_or(real.now);
        real.run_until(until.max(last));
        for (name, eta) in &expected {
            prop_assert_eq!(real.started.get(name).copied().filter(|at| *at <= until.max(last)), eta.at, "{}: {:?}", name, eta);
        }
    }
}

fn submit(real: &mut Real, name: &str, gpus: u32, expected_s: Option<u64>) {
    let spec = JobSpec { expected_ms: expected_s.map(|s| s * SECOND), ..JobSpec::workers("q2", 1, 1, Ask::whole(gpus)) };
    real.left.insert(JobName::from(name), u64::MAX / 1_000_000);
    real.tell(Event::JobSet { name: JobName::from(name), spec: spec.into() });
    real.run_until(real.now);
}

#[test]
fn an_expected_start_says_what_it_rests_on_along_the_whole_chain() {
    let mut real = Real::new(&[2], false);
    let now = real.now;
    submit(&mut real, "a", 2, Some(600));
    submit(&mut real, "b", 2, Some(60));
    submit(&mut real, "guess", 2, None);
    submit(&mut real, "last", 2, Some(60));
    submit(&mut real, "never", 3, Some(60));
    let expected = eta::all(&real.engine, now, Limits::default());
    let of = |name: &str| expected[&JobName::from(name)];
    assert_eq!((of("b").at, of("b").rests_on), (Some(now.plus(600 * SECOND)), Estimate::User));
    assert_eq!((of("guess").at, of("guess").rests_on), (Some(now.plus(660 * SECOND)), Estimate::User));
    assert_eq!((of("last").at, of("last").rests_on), (Some(now.plus(660 * SECOND + 86_400 * SECOND)), Estimate::Unknown));
    assert_eq!(of("never").at, None);
    assert_eq!(
        eta::of(&real.engine, &JobName::from("b"), now),
        Some(of("b")).map(|eta| eta::Eta { until: now.plus(14 * 86_400 * SECOND), ..eta })
    );
    assert_eq!(eta::of(&real.engine, &JobName::from("a"), now), None, "it runs");
    let told = explain::job(&real.engine, &JobName::from("b"), now).unwrap();
    assert_eq!(
        told.would_change.last().unwrap(),
        "starts at about 13:56 UTC (in 10 min), as things stand; this rests on run times that users named"
    );
}

#[test]
fn a_look_ahead_that_is_cut_short_says_how_far_it_saw() {
    let mut real = Real::new(&[2], false);
    let now = real.now;
    submit(&mut real, "a", 2, Some(600));
    submit(&mut real, "b", 2, Some(60));
    let near = eta::all(&real.engine, now, Limits { horizon_ms: 100 * SECOND, steps: 1_000 });
    assert_eq!(near[&JobName::from("b")].at, None);
    assert_eq!(near[&JobName::from("b")].until, now.plus(100 * SECOND));
    let short = eta::all(&real.engine, now, Limits { horizon_ms: 86_400 * SECOND, steps: 1 });
    assert!(short[&JobName::from("b")].at.is_none() && short[&JobName::from("b")].until < now.plus(86_400 * SECOND));
}
