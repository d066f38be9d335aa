//! With reservations no head of a queue starves, whatever is submitted after it: in a world where runs end as expected it starts
//! no later than the last of those that ran when it became the head.
//!
//! One queue whose quota does not bind, jobs of equal priority that cannot be stopped and run for as long as their kind always
//! did. `PROPTEST_CASES` sets how many worlds.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate_core::Engine;
use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::names::{JobName, NodeName, QueueName};
use tidegate_core::plan::{ActionKind, Reason};
use tidegate_core::policy::Policy;
use tidegate_core::state::{Ask, Device, JobSpec, NodeSpec, Phase, Queue};
use tidegate_core::time::At;

/// Kinds of runs by how long they last, in seconds.
const KINDS: [u64; 5] = [10, 35, 90, 240, 700];
/// As many as a prediction needs.
const KNOWN: usize = 6;

#[derive(Clone, Debug)]
struct Job {
    after_s: u64,
    workers: u32,
    devices: u32,
    kind: usize,
}

fn job() -> impl Strategy<Value = Job> {
    let after_s = prop_oneof![2 => Just(0_u64), 3 => 0_u64..60];
    (after_s, 1_u32..4, 1_u32..5, 0..KINDS.len()).prop_map(|(after_s, workers, devices, kind)| Job {
        after_s,
        workers,
        devices,
        kind,
    })
}

struct World {
    engine: Engine,
    now: At,
    /// When what runs ends.
    ends: BTreeMap<JobName, At>,
    lasts: BTreeMap<JobName, u64>,
    /// The head, and when it must have started.
    head: Option<(JobName, At)>,
    /// How often a head had to wait for a promise, so that the test is known to test something.
    waited: u32,
}

impl World {
    fn new(nodes: &[u32], strict: bool, reservations: u32) -> Self {
        let mut world = Self {
            engine: Engine::default(),
            now: At(1_000_000),
            ends: BTreeMap::new(),
            lasts: BTreeMap::new(),
            head: None,
            waited: 0,
        };
        world.tell(Event::PolicySet(Policy { max_reservations: reservations, ..Policy::default() }));
        for (node, devices) in nodes.iter().enumerate() {
            let name = NodeName::from(format!("n{node}"));
            world.tell(Event::NodeSet { name: name.clone(), spec: NodeSpec::default().into() });
            for device in 0..*devices {
                world.tell(Event::DeviceSeen(Device::new(format!("n{node}:{device}"), name.clone(), "H100", 80_000)));
            }
        }
        let discipline =
            if strict { tidegate_core::state::Discipline::StrictFifo } else { tidegate_core::state::Discipline::BestEffort };
        let queue = Queue { discipline, ..Queue::devices(64, None) };
        world.tell(Event::QueueSet { name: QueueName::from("q"), queue });
        world.teach();
        world
    }

    fn tell(&mut self, event: Event) {
        self.engine.apply(self.now, event);
    }

    /// Every kind has run before, for as long as it always does.
    fn teach(&mut self) {
        for (kind, seconds) in KINDS.iter().enumerate() {
            for turn in 0..KNOWN {
                let name = JobName::from(format!("known-{kind}-{turn}"));
                self.tell(Event::JobSet { name: name.clone(), spec: spec(1, 1, kind).into() });
                self.engine.decide(self.now);
                self.carry_out();
                self.now = self.now.plus(seconds * 1_000);
                self.tell(Event::JobExited { name, attempt: 1, exit: JobExit::Succeeded });
            }
        }
        self.ends.clear();
    }

    fn carry_out(&mut self) {
        let actions: Vec<_> = self.engine.outstanding().cloned().collect();
        for action in actions {
            let ActionKind::StartJob { job, attempt, .. } = action.kind else { panic!("nobody is stopped here: {action:?}") };
            self.tell(Event::Outcome { id: action.id, outcome: Outcome::Done });
            self.tell(Event::JobStarted { name: job.clone(), attempt });
            let lasts = self.lasts.get(&job).copied().unwrap_or(0);
            self.ends.insert(job, self.now.plus(lasts));
        }
    }

    /// Decides, starts what is ordered, and looks at the head.
    fn decide(&mut self) {
        let plan = self.engine.decide(self.now);
        for action in &plan.actions {
            // What is let in before a reservation is done before it is due.
            if let (Reason::Backfill { before, .. }, ActionKind::StartJob { job, .. }) = (&action.reason, &action.kind) {
                let ix = self.engine.state().jobs.ix(before).unwrap();
                let due = self.engine.state().reservations[&ix].at;
                assert!(self.now.plus(self.lasts[job]) <= due, "{job} goes before {before} and ends after {due:?}");
            }
        }
        self.carry_out();
        self.watch();
    }

    fn watch(&mut self) {
        let waiting = self.engine.state().jobs.iter().filter(|(_, job)| matches!(job.phase, Phase::Waiting { .. }));
        let first = waiting.min_by_key(|(_, job)| job.submitted).map(|(name, _)| name.clone());
        if let Some((head, until)) = &self.head
            && first.as_ref() == Some(head)
        {
            assert!(self.now < *until, "{head} still waits at {:?}, the last of those before it ended at {until:?}", self.now);
            return;
        }
        self.head = first.map(|name| (name, self.ends.values().max().copied().unwrap_or(self.now.plus(1))));
        self.waited += u32::from(self.head.is_some());
    }

    /// Moves on to a moment; whatever ends before it ends.
    fn until(&mut self, at: At) {
        while let Some(end) = self.ends.values().min().copied() {
            let wake = self.engine.state().wake_at.filter(|wake| *wake > self.now && *wake < end);
            let next = wake.unwrap_or(end);
            if next > at {
                break;
            }
            self.now = next;
            for (name, _) in self.ends.clone().into_iter().filter(|(_, end)| *end <= next) {
                self.ends.remove(&name);
                let attempt = self.engine.state().jobs[&name].attempts;
                self.tell(Event::JobExited { name, attempt, exit: JobExit::Succeeded });
            }
            self.decide();
        }
        self.now = self.now.max(at);
    }

    fn submit(&mut self, number: usize, job: &Job) {
        let name = JobName::from(format!("j{number}"));
        self.lasts.insert(name.clone(), KINDS[job.kind] * 1_000);
        self.now = self.now.plus(1);
        self.tell(Event::JobSet { name, spec: spec(job.workers, job.devices, job.kind).into() });
        self.decide();
    }
}

fn spec(workers: u32, devices: u32, kind: usize) -> JobSpec {
    let plain = JobSpec::workers("q", workers, workers, Ask::whole(devices));
    JobSpec { recipe: format!("kind-{kind}"), preemptible: false, ..plain }
}

/// Whether the job could run on the empty cluster.
fn fits(nodes: &[u32], job: &Job) -> bool {
    nodes.iter().map(|devices| devices / job.devices).sum::<u32>() >= job.workers
}

fn cases() -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u32>().ok());
    let seed = number("PROPTEST_SEED").unwrap_or(20_261_124);
    eprintln!("PROPTEST_SEED={seed}");
    ProptestConfig {
        cases: (number("PROPTEST_CASES").unwrap_or(1_000) / 4).max(1),
        rng_seed: proptest::test_runner::RngSeed::Fixed(u64::from(seed)),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_head_of_a_queue_starts_when_the_last_of_those_before_it_has_ended(
        nodes in prop::collection::vec(1_u32..5, 1..5),
        strict in any::<bool>(),
        reservations in 1_u32..4,
        jobs in prop::collection::vec(job(), 1..30),
    ) {
        let mut world = World::new(&nodes, strict, reservations);
        for (number, job) in jobs.iter().filter(|job| fits(&nodes, job)).enumerate() {
            let at = world.now.plus(job.after_s * 1_000);
            world.until(at);
            world.submit(number, job);
        }
        world.until(world.now.plus(1_000_000_000));
        prop_assert!(world.head.is_none(), "all of them ran: {:?}", world.head);
    }
}

#[test]
fn without_reservations_a_large_gang_starves() {
    let mut world = World::new(&[4], false, 0);
    let small = Job { after_s: 0, workers: 1, devices: 1, kind: 2 };
    for number in 0..3 {
        world.submit(number, &small);
    }
    world.submit(3, &Job { after_s: 0, workers: 1, devices: 4, kind: 0 });
    world.head = None;
    let since = world.now;
    for number in 4..40 {
        // The bound would have been met long ago.
        world.head = None;
        world.until(world.now.plus(25_000));
        world.head = None;
        world.submit(number, &small);
    }
    let waits = matches!(world.engine.state().jobs[&JobName::from("j3")].phase, Phase::Waiting { .. });
    assert!(waits && world.now.since(since) > 800_000, "the test of the bound can fail");
}
