//! Elastic jobs of a responsive queue get their sizes by shares.
#![expect(clippy::unwrap_used, reason = "tests")]

use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::names::{JobName, NodeName, QueueName};
use tidegate_core::plan::{Action, ActionKind, Reason};
use tidegate_core::policy::Policy;
use tidegate_core::state::{Ask, Device, Discipline, JobSpec, Queue, SpeedPoint};
use tidegate_core::{At, Engine};

const RANK_MS: u64 = 60_000;
const HOUR_MS: u64 = 3_600_000;

/// One node, one responsive queue; what is ordered is carried out at once.
struct Box {
    engine: Engine,
    now: At,
}

impl Box {
    fn new(gpus: u32) -> Self {
        let mut this = Self { engine: Engine::default(), now: At(10 * HOUR_MS) };
        this.tell(Event::PolicySet(Policy { rank_every_ms: RANK_MS, ..Policy::default() }));
        let queue = Queue { discipline: Discipline::Responsive, ..Queue::devices(gpus, None) };
        this.tell(Event::QueueSet { name: QueueName::from("q"), queue });
        for gpu in 0..gpus {
            this.tell(Event::DeviceSeen(Device::new(format!("gpu-{gpu}"), NodeName::from("n"), "GPU", 80_000)));
        }
        this
    }

    fn tell(&mut self, event: Event) {
        self.engine.apply(self.now, event);
    }

    fn submit(&mut self, name: &str, spec: JobSpec) {
        self.tell(Event::JobSet { name: JobName::from(name), spec: spec.into() });
    }

    /// Decides, carries it out, and says what it was: `(job, workers after it, reason)`.
    fn decide(&mut self) -> Vec<(String, u32, Reason)> {
        let plan = self.engine.decide(self.now);
        let (stops, starts): (Vec<Action>, Vec<Action>) =
            plan.actions.into_iter().partition(|action| matches!(action.kind, ActionKind::StopJob { .. }));
        let mut told = Vec::new();
        for action in stops.into_iter().chain(starts) {
            match action.kind {
                ActionKind::StopJob { job, attempt, resume_with } => {
                    told.push((job.to_string(), resume_with, action.reason));
                    self.tell(Event::JobExited { name: job, attempt, exit: JobExit::Stopped });
                }
                ActionKind::StartJob { job, attempt, workers, .. } => {
                    told.push((job.to_string(), u32::try_from(workers.len()).unwrap(), action.reason));
                    self.tell(Event::Outcome { id: action.id, outcome: Outcome::Done });
                    self.tell(Event::JobStarted { name: job, attempt });
                }
                ActionKind::StartReplica { .. } | ActionKind::StopReplica { .. } => {}
            }
        }
        told
    }

    /// Decides until nothing is ordered any more.
    fn settle(&mut self) -> Vec<(String, u32, Reason)> {
        let mut told = Vec::new();
        for _ in 0..10 {
            let more = self.decide();
            if more.is_empty() {
                return told;
            }
            told.extend(more);
        }
        unreachable!("the clock stands still, so it comes to rest: {told:?}");
    }

    /// Time passes, and all that runs makes a checkpoint at its end.
    fn pass(&mut self, ms: u64) {
        self.now = self.now.plus(ms);
        let running: Vec<(JobName, u32)> =
            self.engine.state().jobs.iter().filter_map(|(name, job)| Some((name.clone(), job.run()?.attempt))).collect();
        for (name, attempt) in running {
            let step = self.now.0;
            self.tell(Event::JobProgress { name, attempt, step, checkpoint: Some(step), done_ppm: None });
        }
    }

    fn workers(&self, name: &str) -> usize {
        self.engine.state().jobs[&JobName::from(name)].run().map_or(0, |run| run.seats.len())
    }
}

/// An elastic job that is expected to run so long on one GPU.
fn job(points: &[(u32, u32)], expected_ms: u64) -> JobSpec {
    let most = points.last().unwrap().0;
    JobSpec {
        speedup: points.iter().map(|(workers, speed)| SpeedPoint::new(*workers, *speed)).collect(),
        expected_ms: Some(expected_ms),
        restart_ms: 5_000,
        ..JobSpec::workers("q", 1, most, Ask::whole(1))
    }
}

const BENT: [(u32, u32); 3] = [(1, 1_000), (2, 1_500), (4, 2_000)];
const FLAT: [(u32, u32); 2] = [(1, 1_000), (2, 1_001)];

#[test]
fn a_job_shrinks_for_a_shorter_one_which_starts_after_it() {
    let mut all = Box::new(4);
    all.submit("long", job(&BENT, 100 * HOUR_MS));
    assert_eq!(all.settle(), [("long".to_owned(), 4, Reason::Share { from: 0, to: 4 })]);
    all.pass(RANK_MS / 2);
    all.submit("short", job(&BENT, HOUR_MS));
    assert_eq!(all.settle(), [], "between two ranks it starts on what is free");
    all.pass(RANK_MS / 2);
    let plan = all.engine.clone().decide(all.now);
    let [stop, start] = plan.actions.as_slice() else { unreachable!("{plan:?}") };
    assert_eq!(stop.reason, Reason::Share { from: 4, to: 2 });
    assert_eq!((&start.reason, start.after.as_slice()), (&Reason::Share { from: 0, to: 2 }, &[stop.id][..]));
    all.settle();
    assert_eq!((all.workers("long"), all.workers("short")), (2, 2));
}

#[test]
fn a_job_without_a_share_waits_and_one_that_loses_its_share_ends() {
    let mut all = Box::new(1);
    all.submit("long", job(&FLAT, 10 * HOUR_MS));
    all.settle();
    all.pass(RANK_MS);
    all.submit("longer", job(&FLAT, 100 * HOUR_MS));
    assert_eq!(all.settle(), [], "it takes from nobody");
    all.tell(Event::JobCancelled(JobName::from("longer")));
    all.pass(RANK_MS);
    all.submit("short", job(&FLAT, HOUR_MS / 10));
    let (long, short) = (("long".to_owned(), 0, Reason::Share { from: 1, to: 0 }), ("short".to_owned(), 1));
    let told = all.settle();
    assert_eq!((&told[0], (told[1].0.clone(), told[1].1)), (&long, short), "{told:?}");
    assert_eq!((all.workers("long"), all.workers("short")), (0, 1));
}

#[test]
fn a_job_is_told_which_choice_makes_it_fastest() {
    let mut all = Box::new(2);
    let point = |workers, speed_milli, choice| SpeedPoint { workers, speed_milli, choice: Some(choice) };
    let speedup = vec![point(1, 1_000, 7), point(2, 1_500, 7), point(2, 1_800, 9)];
    all.submit("a", JobSpec { speedup, ..job(&[(1, 1_000), (2, 1_800)], HOUR_MS) });
    let plan = all.engine.decide(all.now);
    let choices = plan.actions.iter().filter_map(|action| match &action.kind {
        ActionKind::StartJob { workers, choice, .. } => Some((workers.len(), *choice)),
        _ => None,
    });
    assert_eq!(choices.collect::<Vec<_>>(), [(2, Some(9))]);
}

#[test]
fn a_job_is_not_restarted_for_little_gain() {
    for (speed, workers) in [(1_050, 1), (1_900, 2)] {
        let mut all = Box::new(2);
        all.submit("a", job(&[(1, 1_000)], HOUR_MS));
        all.submit("b", JobSpec { preemptible: false, ..job(&[(1, 1_000)], HOUR_MS) });
        all.settle();
        all.submit("a", job(&[(1, 1_000), (2, speed)], HOUR_MS));
        all.tell(Event::JobCancelled(JobName::from("b")));
        all.settle();
        all.pass(RANK_MS);
        all.settle();
        assert_eq!(all.workers("a"), workers, "with {speed}");
    }
}

#[test]
fn who_is_protected_or_would_lose_much_keeps_its_size() {
    let plain = job(&BENT, 100 * HOUR_MS);
    let unstoppable = JobSpec { preemptible: false, ..plain.clone() };
    let young = JobSpec { min_runtime_ms: HOUR_MS, ..plain.clone() };
    let spent = JobSpec { max_disruptions_per_hour: 0, ..plain.clone() };
    let costly = JobSpec { restart_ms: RANK_MS, ..plain };
    for spec in [unstoppable, young, spent, costly] {
        let mut all = Box::new(4);
        all.submit("long", spec);
        all.settle();
        all.submit("short", job(&BENT, HOUR_MS));
        all.pass(RANK_MS);
        assert_eq!(all.settle(), []);
        assert_eq!((all.workers("long"), all.workers("short")), (4, 0));
    }
}

#[test]
fn at_the_cap_on_evictions_nobody_becomes_smaller() {
    let mut all = Box::new(4);
    let policy = Policy { max_evictions_per_minute: 0, ..all.engine.state().policy.clone() };
    all.tell(Event::PolicySet(policy));
    all.submit("long", job(&BENT, 100 * HOUR_MS));
    all.settle();
    all.submit("short", job(&BENT, HOUR_MS));
    all.pass(RANK_MS);
    assert_eq!(all.settle(), []);
}

#[test]
fn what_others_wait_for_is_not_shared_out_beyond_what_is_the_queues_own() {
    let mut all = Box::new(4);
    let queue = |nominal| Queue { discipline: Discipline::Responsive, ..Queue::devices(nominal, None) };
    all.tell(Event::QueueSet { name: QueueName::from("q"), queue: queue(2) });
    all.tell(Event::QueueSet { name: QueueName::from("other"), queue: queue(2) });
    all.submit("a", job(&[(1, 1_000), (2, 2_000), (3, 3_000), (4, 4_000)], HOUR_MS));
    all.submit("b", JobSpec { queue: QueueName::from("other"), ..JobSpec::workers("other", 2, 2, Ask::whole(1)) });
    all.settle();
    assert_eq!((all.workers("a"), all.workers("b")), (2, 2));
}

#[test]
fn outside_of_responsive_queues_sizes_are_as_ever() {
    let mut all = Box::new(4);
    all.tell(Event::QueueSet { name: QueueName::from("q"), queue: Queue::devices(4, None) });
    all.submit("long", job(&BENT, 100 * HOUR_MS));
    all.settle();
    all.submit("short", job(&BENT, HOUR_MS));
    let told = all.settle();
    assert!(matches!(told[0].2, Reason::Preempt { from: 4, to: 3, .. }), "{told:?}");
}
