//! A busy cluster: nodes of eight GPUs in racks of sixteen, queues with equal quota, gangs in the mix of `production-1300`, 98 % of
//! the GPUs asked for by what runs, and 536 gangs more that wait. Every step one job ends and another comes.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::names::{JobName, NodeName, QueueName};
use tidegate_core::node::{Device, NodeSpec};
use tidegate_core::plan::{ActionKind, Plan};
use tidegate_core::policy::Policy;
use tidegate_core::state::{Amount, Ask, JobSpec, Queue, Quota, Resource, Spread};
use tidegate_core::{At, Engine};

const NODE_GPUS: u32 = 8;
const RACK_NODES: u32 = 16;
const DEVICE_MIB: u64 = 81_920;
/// GPUs of a gang and how often (simulator/settings/production-1300.yaml, up to 128).
const SIZES: [(u32, u32); 8] = [(1, 25), (2, 10), (4, 10), (8, 20), (16, 12), (32, 10), (64, 7), (128, 4)];
const BUSY_PERCENT: u32 = 98;
const WAITING: u32 = 536;
/// One queue for so many GPUs, at least 4 and at most 500 (simulator/settings/scale.yaml).
const QUEUE_GPUS: u32 = 2000;
const STEP_MS: u64 = 1000;

/// The cluster and its engine.
pub struct Place {
    engine: Engine,
    random: StdRng,
    queues: u32,
    now: At,
    jobs: u64,
    running: Vec<(JobName, u32)>,
}

impl Place {
    /// About `gpus` GPUs, filled.
    pub fn new(gpus: u32, seed: u64) -> Self {
        let queues = (gpus / QUEUE_GPUS).clamp(4, 500);
        let random = StdRng::seed_from_u64(seed);
        let mut this = Self { engine: Engine::default(), random, queues, now: At(1_000_000), jobs: 0, running: Vec::new() };
        let policy = Policy { levels: vec!["rack".to_owned()], max_evictions_per_minute: u32::MAX, ..Policy::default() };
        this.tell(Event::PolicySet(policy));
        for queue in 0..queues {
            let quota = Quota { nominal: i64::from(gpus / queues) * 1000, ..Quota::default() };
            let queue = (queue_name(queue), Queue { quotas: [(Resource::Gpu, quota)].into_iter().collect(), ..Queue::default() });
            this.tell(Event::QueueSet { name: queue.0, queue: queue.1 });
        }
        (0..gpus.div_ceil(NODE_GPUS)).for_each(|node| this.add_node(node));
        let mut asked = 0;
        while asked < u64::from(gpus) * u64::from(BUSY_PERCENT) / 100 {
            asked += u64::from(this.submit());
        }
        this.settle();
        for _ in 0..WAITING {
            this.submit();
        }
        this.settle();
        this
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    pub fn waiting(&self) -> usize {
        self.engine.state().jobs.values().count() - self.running.len()
    }

    /// One job ends and another comes, a second later.
    pub fn replace_one(&mut self) {
        self.now = At(self.now.0 + STEP_MS);
        if !self.running.is_empty() {
            let at = self.random.random_range(0..self.running.len());
            let (name, attempt) = self.running.swap_remove(at);
            self.tell(Event::JobExited { name: name.clone(), attempt, exit: JobExit::Succeeded });
            self.tell(Event::JobRemoved(name));
        }
        self.submit();
    }

    /// Makes the next decision look at every queue, with no verdict kept.
    pub fn forget(&mut self) {
        self.engine.mark_dirty();
    }

    /// What is measured.
    pub fn decide(&mut self) -> Plan {
        decide_counted(&mut self.engine, self.now)
    }

    /// Carries out a plan at once, stops first. How many decisions it had.
    pub fn carry_out(&mut self, plan: Plan) -> u32 {
        let is_stop = |action: &tidegate_core::plan::Action| matches!(action.kind, ActionKind::StopJob { .. });
        let (stops, starts): (Vec<_>, Vec<_>) = plan.actions.into_iter().partition(is_stop);
        let mut count = 0;
        for action in stops.into_iter().chain(starts) {
            count += 1;
            match action.kind {
                ActionKind::StopJob { job, .. } => {
                    if let Some(at) = self.running.iter().position(|(name, _)| *name == job) {
                        let (name, attempt) = self.running.swap_remove(at);
                        self.tell(Event::JobExited { name, attempt, exit: JobExit::Stopped });
                    }
                }
                ActionKind::StartJob { job, attempt, .. } => {
                    self.tell(Event::Outcome { id: action.id, outcome: Outcome::Done });
                    self.tell(Event::JobStarted { name: job.clone(), attempt });
                    self.running.push((job, attempt));
                }
                ActionKind::StartReplica { .. } | ActionKind::StopReplica { .. } => {}
            }
        }
        count
    }

    fn settle(&mut self) {
        loop {
            let plan = self.engine.decide(self.now);
            if self.carry_out(plan) == 0 {
                return;
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.engine.apply(self.now, event);
    }

    fn add_node(&mut self, node: u32) {
        let labels = [("rack".to_owned(), format!("rack-{:04}", node / RACK_NODES))].into_iter().collect();
        let name = NodeName::from(format!("n{node:06}"));
        self.tell(Event::NodeSet { name: name.clone(), spec: NodeSpec { labels, ..NodeSpec::default() }.into() });
        for gpu in 0..NODE_GPUS {
            self.tell(Event::DeviceSeen(Device::new(format!("n{node:06}/{gpu}"), name.clone(), "GPU", DEVICE_MIB)));
        }
    }

    /// Draws a job; its GPUs.
    fn submit(&mut self) -> u32 {
        let gpus = self.draw();
        let queue = queue_name(self.random.random_range(0..self.queues));
        let workers = gpus.div_ceil(NODE_GPUS);
        let ask = Ask { amount: Amount::Whole(gpus / workers), ..Ask::default() };
        let spread = (workers > 1).then(|| Spread { level: "rack".to_owned(), required: false });
        let spec = JobSpec { spread, recipe: format!("g{gpus}"), ..JobSpec::workers(queue, workers, workers, ask) };
        self.tell(Event::JobSet { name: JobName::from(format!("j{:08}", self.jobs)), spec: spec.into() });
        self.jobs += 1;
        gpus
    }

    fn draw(&mut self) -> u32 {
        let mut at = self.random.random_range(0..SIZES.iter().map(|(_, often)| often).sum());
        for (gpus, often) in SIZES {
            if at < often {
                return gpus;
            }
            at -= often;
        }
        1
    }
}

fn queue_name(queue: u32) -> QueueName {
    QueueName::from(format!("queue-{queue:03}"))
}

/// A function of its own, so that callgrind can be told to count inside it alone.
#[inline(never)]
fn decide_counted(engine: &mut Engine, now: At) -> Plan {
    engine.decide(now)
}
