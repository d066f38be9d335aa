//! The engine behind [`Policy`]: what ships, in the world of jobs.
//!
//! A job of more GPUs than a node has becomes workers that fill nodes, and one worker for the rest, so that it never spans
//! more nodes than it needs; a smaller job is one worker. Orders are carried out as they come, as the world promises: a
//! start that comes after stops follows them in the same list. A stop after which the job goes on elsewhere is a resize,
//! in the place of its stop.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::names::{JobName, NodeName, QueueName};
use tidegate_core::node::Device;
use tidegate_core::plan::{Action, ActionKind, Placed};
use tidegate_core::policy::Policy as Rules;
use tidegate_core::state::{Ask, Discipline, Group, JobSpec, Queue};
use tidegate_core::{At, Engine};

use crate::jobs::world::Setup;
use crate::jobs::{Held, JobIx, Ms, Order, Policy, Wish};

/// Virtual time begins here, so that no moment is before the epoch.
const EPOCH_MS: u64 = 1_000_000;

/// The engine and what it needs to be told.
#[derive(Debug)]
pub struct EnginePolicy {
    engine: Engine,
    /// Most GPUs on a node.
    widest: u32,
    restart_ms: u64,
    /// All jobs wait in one queue, whatever theirs is.
    one_queue: bool,
    queues: BTreeSet<String>,
    /// By job: the attempt that runs, and checkpoints that it told.
    attempts: BTreeMap<JobIx, (u32, u64)>,
    /// Stopped in the last orders: their ends are told before the next decision.
    ended: Vec<JobIx>,
    /// Of those, who goes on elsewhere, and where among the orders its resize belongs.
    moving: BTreeMap<JobIx, usize>,
}

fn at(now: Ms) -> At {
    At(EPOCH_MS + now)
}

fn name(job: JobIx) -> JobName {
    JobName::from(format!("j{}", job.0))
}

fn index(name: &JobName) -> JobIx {
    JobIx(name.0.get(1..).and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX))
}

impl EnginePolicy {
    /// An engine that knows the nodes of a run.
    pub fn new(setup: &Setup) -> Self {
        let mut this = Self {
            engine: Engine::default(),
            widest: setup.nodes.iter().copied().max().unwrap_or(1).max(1),
            restart_ms: setup.costs.restart_ms,
            one_queue: false,
            queues: BTreeSet::new(),
            attempts: BTreeMap::new(),
            ended: Vec::new(),
            moving: BTreeMap::new(),
        };
        // The world carries out at once and charges every stop, so nothing but the cost of stops holds them back.
        this.tell(0, Event::PolicySet(Rules { max_evictions_per_minute: u32::MAX, consolidate: true, ..Rules::default() }));
        for (node, gpus) in (0_u32..).zip(&setup.nodes) {
            for gpu in 0..*gpus {
                this.tell(
                    0,
                    Event::DeviceSeen(Device::new(format!("n{node:05}/{gpu:02}"), format!("n{node:05}"), "GPU", 16_384)),
                );
            }
        }
        this
    }

    /// All jobs wait in one queue: who is expected to be done soonest goes first, whosever it is.
    #[must_use]
    pub fn in_one_queue(mut self) -> Self {
        self.one_queue = true;
        self
    }

    fn tell(&mut self, now: Ms, event: Event) {
        self.engine.apply(at(now), event);
    }

    fn spec(&self, wish: &Wish) -> JobSpec {
        let mut spec = JobSpec::workers(wish.queue.clone(), 1, 1, Ask::whole(wish.gpus.min(self.widest)));
        if wish.gpus > self.widest {
            let group = |name: &str, workers: u32, gpus: u32| Group {
                name: name.to_owned(),
                min: workers,
                max: workers,
                ask: Ask::whole(gpus),
                spread: None,
            };
            spec.groups = vec![group("nodes", wish.gpus / self.widest, self.widest)];
            if !wish.gpus.is_multiple_of(self.widest) {
                spec.groups.push(group("rest", 1, wish.gpus % self.widest));
            }
        }
        spec.priority = wish.priority;
        spec.owner.clone_from(&wish.owner);
        spec.recipe.clone_from(&wish.recipe);
        spec.preemptible = wish.preemptible;
        spec.restart_ms = self.restart_ms;
        spec
    }

    /// Puts an order where its stop was.
    fn put(&mut self, at: usize, order: Order, orders: &mut Vec<Order>) {
        orders.insert(at.min(orders.len()), order);
        self.moving.values_mut().filter(|other| **other > at).for_each(|other| *other += 1);
    }

    fn exited(&mut self, now: Ms, job: JobIx, exit: JobExit) {
        if let Some((attempt, _)) = self.attempts.remove(&job) {
            self.tell(now, Event::JobExited { name: name(job), attempt, exit });
        }
    }

    fn carry_out(&mut self, now: Ms, action: Action, orders: &mut Vec<Order>) {
        match action.kind {
            ActionKind::StopJob { job, resume_with, .. } => {
                let job = index(&job);
                if resume_with > 0 {
                    self.moving.insert(job, orders.len());
                } else {
                    orders.push(Order::Stop { job });
                }
                self.ended.push(job);
            }
            ActionKind::StartJob { job, attempt, workers, .. } => {
                let (job_ix, held) = (index(&job), held(&workers));
                match self.moving.remove(&job_ix) {
                    Some(at) => self.put(at, Order::Resize { job: job_ix, held }, orders),
                    None => orders.push(Order::Start { job: job_ix, held }),
                }
                self.attempts.insert(index(&job), (attempt, 0));
                self.tell(now, Event::Outcome { id: action.id, outcome: Outcome::Done });
                self.tell(now, Event::JobStarted { name: job, attempt });
            }
            ActionKind::StartReplica { .. } | ActionKind::StopReplica { .. } => {}
        }
    }
}

/// GPUs by node.
fn held(workers: &[Placed]) -> Held {
    let node = |name: &NodeName| name.0.get(1..).and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX);
    let mut nodes: BTreeMap<u32, u32> = BTreeMap::new();
    for worker in workers {
        *nodes.entry(node(&worker.node)).or_default() += u32::try_from(worker.devices.len()).unwrap_or(0);
    }
    Held { nodes: nodes.into_iter().collect(), batch: None }
}

impl Policy for EnginePolicy {
    fn name(&self) -> &'static str {
        "tidegate"
    }

    fn submitted(&mut self, now: Ms, job: JobIx, wish: &Wish) {
        // Traces without queues leave it empty, which is no queue's name.
        let one_queue = self.one_queue || wish.queue.is_empty();
        let wish = &Wish { queue: if one_queue { "all".to_owned() } else { wish.queue.clone() }, ..wish.clone() };
        if self.queues.insert(wish.queue.clone()) {
            let queue = Queue { discipline: Discipline::Responsive, ..Queue::default() };
            self.tell(now, Event::QueueSet { name: QueueName::from(wish.queue.clone()), queue });
        }
        let spec = self.spec(wish);
        self.tell(now, Event::JobSet { name: name(job), spec: spec.into() });
    }

    fn progressed(&mut self, now: Ms, job: JobIx, done_ppm: Option<u32>, checkpoint_at: Option<Ms>) {
        let Some((attempt, checkpoints)) = self.attempts.get_mut(&job) else { return };
        let known = self.engine.state().jobs.get(&name(job)).and_then(|job| job.progress.checkpoint_at);
        let newer = checkpoint_at.filter(|moment| known.is_none_or(|known| known < at(*moment)));
        if newer.is_some() {
            *checkpoints += 1;
        }
        let (attempt, step) =
            (*attempt, self.engine.state().jobs.get(&name(job)).map_or(0, |job| job.progress.checkpoint_step) + 1);
        // The engine books a checkpoint at the moment that it hears of it: reports are as frequent as the world tells.
        let event = Event::JobProgress { name: name(job), attempt, step, checkpoint: newer.map(|_| step), done_ppm };
        self.tell(newer.unwrap_or(now).max(now), event);
    }

    fn finished(&mut self, now: Ms, job: JobIx) {
        self.exited(now, job, JobExit::Succeeded);
        self.tell(now, Event::JobRemoved(name(job)));
    }

    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>) -> Option<Ms> {
        loop {
            let plan = self.engine.decide(at(now));
            if plan.actions.is_empty() {
                // Its new place is gone again: it waits.
                while let Some((job, at)) = self.moving.pop_first() {
                    self.put(at, Order::Stop { job }, orders);
                }
                return plan.wake_at.map(|wake| wake.0.saturating_sub(EPOCH_MS).max(now + 1));
            }
            // Stops first: what is started on their devices comes after them in the same list.
            let (stops, starts): (Vec<Action>, Vec<Action>) =
                plan.actions.into_iter().partition(|action| matches!(action.kind, ActionKind::StopJob { .. }));
            for action in stops {
                self.carry_out(now, action, orders);
            }
            for job in std::mem::take(&mut self.ended) {
                self.exited(now, job, JobExit::Stopped);
            }
            for action in starts {
                self.carry_out(now, action, orders);
            }
        }
    }
}
