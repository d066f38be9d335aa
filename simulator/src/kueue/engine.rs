//! The engine behind [`QuotaScheduler`]: workloads become jobs, cycles become decisions.
//!
//! A class of workloads becomes a job with one group of workers, or one group a slice. Without a layout there is one node
//! that never lacks anything, so that quota alone decides. Orders of one cycle are carried out before the next, as the
//! world promises; a start that waits for stops is ordered once they are done.

use std::collections::BTreeMap;

use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::names::{JobName, NodeName, QueueName};
use tidegate_core::node::{Device, NodeSpec};
use tidegate_core::plan::{Action, ActionId, ActionKind, Placed};
use tidegate_core::policy::Policy;
use tidegate_core::quota::{NodeIx, ResourceIx};
use tidegate_core::state::{Amount, Ask, Discipline, Group, JobSpec, Queue, Quota, Resource, Spread};
use tidegate_core::{At, Engine};

use super::{Admission, Class, Layout, Ms, Orders, QuotaScheduler, Scene, Wish, WorkloadIx};

/// Starts that may be on their way: the writer takes 20 ms for each, and who comes meanwhile should not wait for long.
const MAX_STARTS: u32 = 32;

/// The queue above all.
const ROOT: &str = "all queues";

/// Virtual time begins here, so that no moment is before the epoch.
const EPOCH_MS: u64 = 1_000_000;

/// The engine for one scene.
#[derive(Debug)]
pub struct EngineScheduler {
    engine: Engine,
    scene: Scene,
    specs: BTreeMap<(u32, u16), JobSpec>,
    /// Orders of the last cycle, carried out since.
    ordered: Vec<Action>,
    /// Starts that wait for stops.
    waiting: Vec<Action>,
    /// Attempts that run or are to.
    attempts: BTreeMap<WorkloadIx, u32>,
}

fn at(now: Ms) -> At {
    At(EPOCH_MS + now)
}

fn name(workload: WorkloadIx) -> JobName {
    JobName::from(format!("w{}", workload.0))
}

fn index(name: &JobName) -> WorkloadIx {
    WorkloadIx(name.0.get(1..).and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX))
}

fn resource(name: &str) -> Resource {
    Resource::from(name.to_owned())
}

impl EngineScheduler {
    /// An engine that knows the nodes and queues of the scene.
    pub fn new(scene: &Scene) -> Self {
        let mut this = Self {
            engine: Engine::default(),
            scene: scene.clone(),
            specs: BTreeMap::new(),
            ordered: Vec::new(),
            waiting: Vec::new(),
            attempts: BTreeMap::new(),
        };
        let levels = scene.layout.as_ref().map_or(&[][..], |layout| &layout.levels);
        let levels: Vec<String> = levels.iter().map(|(name, _)| name.clone()).filter(|name| name != "node").collect();
        this.tell(
            0,
            Event::PolicySet(Policy { levels, max_evictions_per_minute: u32::MAX, max_starts: MAX_STARTS, ..Policy::default() }),
        );
        this.queues(scene);
        match &scene.layout {
            Some(layout) => this.nodes(&layout.clone()),
            None => this.tell(0, Event::NodeSet { name: NodeName::from("all"), spec: NodeSpec::default().into() }),
        }
        this
    }

    /// The scene's root, written down or not, limits what is borrowed; the engine's pool does not, so it gets a queue below.
    fn queues(&mut self, scene: &Scene) {
        let root = scene.queues.iter().find(|queue| queue.name.0.is_empty());
        let nominal = |ix: ResourceIx| {
            let listed = root.and_then(|root| root.quotas.iter().find(|(of, _)| *of == ix));
            listed.map_or(0, |(_, quota)| quota.nominal)
        };
        let resources = (0..).zip(&scene.resources);
        let quotas = resources
            .map(|(ix, name)| (resource(name), Quota { nominal: nominal(ix), borrowing_limit: Some(0), lending_limit: None }));
        self.tell(
            0,
            Event::QueueSet { name: QueueName::from(ROOT), queue: Queue { quotas: quotas.collect(), ..Queue::default() } },
        );
        for quota in scene.queues.iter().filter(|queue| !queue.name.0.is_empty()) {
            let name_of = |ix: &ResourceIx| scene.resources.get(usize::from(*ix)).map_or("", String::as_str);
            let queue = Queue {
                parent: Some(quota.parent.clone().filter(|parent| !parent.0.is_empty()).unwrap_or_else(|| QueueName::from(ROOT))),
                quotas: quota.quotas.iter().map(|(ix, quota)| (resource(name_of(ix)), *quota)).collect(),
                weight_milli: quota.weight_milli,
                discipline: Discipline::BestEffort,
                ..Queue::default()
            };
            self.tell(0, Event::QueueSet { name: quota.name.clone(), queue });
        }
    }

    fn tell(&mut self, now: Ms, event: Event) {
        self.engine.apply(at(now), event);
    }

    fn nodes(&mut self, layout: &Layout) {
        let amount = |of: &Resource| {
            let found = layout
                .node
                .iter()
                .find(|(ix, _)| self.scene.resources.get(usize::from(*ix)).is_some_and(|name| resource(name) == *of));
            found.map_or(0, |(_, amount)| u64::try_from(*amount).unwrap_or(0))
        };
        let (gpus, cpu) = (amount(&Resource::Gpu) / 1000, amount(&Resource::Cpu));
        for node in 0..layout.nodes() {
            let domain = |(level, (name, _)): (u8, &(String, u32))| {
                (name.clone(), format!("{name}-{}", node / layout.width(level).max(1)))
            };
            let labels = (0_u8..).zip(&layout.levels).filter(|(_, (name, _))| name != "node").map(domain).collect();
            let cpu_milli = if cpu > 0 { cpu } else { NodeSpec::default().cpu_milli };
            // The engine knows no limit of pods on a node: their memory stands for it.
            let spec = NodeSpec { labels, cpu_milli, memory_mib: u64::from(layout.pods_per_node), ..NodeSpec::default() };
            let name = NodeName::from(format!("n{node:06}"));
            self.tell(0, Event::NodeSet { name: name.clone(), spec: spec.into() });
            for gpu in 0..gpus {
                self.tell(0, Event::DeviceSeen(Device::new(format!("n{node:06}/{gpu}"), name.clone(), "GPU", 81_920)));
            }
        }
    }

    fn spec(&mut self, queue: NodeIx, class: u16) -> Option<JobSpec> {
        if let Some(spec) = self.specs.get(&(queue.0, class)) {
            return Some(spec.clone());
        }
        let queue_name = self.scene.queues.get(queue.0 as usize).map(|queue| queue.name.clone())?;
        let spec = job(&self.scene, queue_name, self.scene.classes.get(usize::from(class))?);
        self.specs.insert((queue.0, class), spec.clone());
        Some(spec)
    }

    /// What the last cycle ordered has happened, but for stops, which are told one by one.
    fn carried_out(&mut self, now: Ms) {
        for action in std::mem::take(&mut self.ordered) {
            if let ActionKind::StartJob { job, attempt, .. } = action.kind {
                self.tell(now, Event::Outcome { id: action.id, outcome: Outcome::Done });
                self.tell(now, Event::JobStarted { name: job, attempt });
            }
        }
    }

    fn exited(&mut self, now: Ms, workload: WorkloadIx, exit: JobExit) {
        if let Some(attempt) = self.attempts.remove(&workload) {
            self.waiting.retain(|action| !matches!(&action.kind, ActionKind::StartJob { job, .. } if index(job) == workload));
            self.ordered.retain(|action| !matches!(&action.kind, ActionKind::StartJob { job, .. } if index(job) == workload));
            self.tell(now, Event::JobExited { name: name(workload), attempt, exit });
        }
    }

    fn order(&mut self, now: Ms, action: Action, orders: &mut Orders) {
        let ready = action.after.iter().all(|id| !self.is_open(*id));
        match &action.kind {
            ActionKind::StopJob { job, .. } => {
                let starts = |other: &Action| matches!(&other.kind, ActionKind::StartJob { job: of, .. } if of == job);
                match self.waiting.iter().position(starts) {
                    // One that was not let in yet has nothing to stop: the start is dropped.
                    Some(held) => {
                        let start = self.waiting.remove(held);
                        self.attempts.remove(&index(job));
                        self.tell(now, Event::Outcome { id: start.id, outcome: Outcome::Dropped });
                        self.tell(now, Event::Outcome { id: action.id, outcome: Outcome::Done });
                    }
                    None => orders.evict.push(index(job)),
                }
            }
            ActionKind::StartJob { job, attempt, workers, .. } => {
                self.attempts.insert(index(job), *attempt);
                if !ready {
                    self.waiting.push(action);
                    return;
                }
                orders.admit.push(Admission { workload: index(job), nodes: self.pods(workers) });
                self.ordered.push(action);
            }
            ActionKind::StartReplica { .. } | ActionKind::StopReplica { .. } => {}
        }
    }

    fn is_open(&self, id: ActionId) -> bool {
        self.engine.state().actions.contains_key(&id)
    }

    fn pods(&self, workers: &[Placed]) -> Vec<(u32, u32)> {
        if self.scene.layout.is_none() {
            return Vec::new();
        }
        let mut nodes = BTreeMap::new();
        for worker in workers {
            let node = worker.node.0.get(1..).and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX);
            *nodes.entry(node).or_default() += 1;
        }
        nodes.into_iter().collect()
    }
}

/// A class as a job.
fn job(scene: &Scene, queue: QueueName, class: &Class) -> JobSpec {
    let amount = |of: &Resource| {
        let found =
            class.per_pod.iter().find(|(ix, _)| scene.resources.get(usize::from(*ix)).is_some_and(|name| resource(name) == *of));
        found.map_or(0, |(_, amount)| u64::try_from(*amount).unwrap_or(0))
    };
    let gpus = u32::try_from(amount(&Resource::Gpu) / 1000).unwrap_or(u32::MAX);
    let amount_gpu = if gpus > 0 { Amount::Whole(gpus) } else { Amount::None };
    let memory_mib = u64::from(scene.layout.is_some());
    let ask = Ask { amount: amount_gpu, cpu_milli: amount(&Resource::Cpu), memory_mib, ..Ask::default() };
    let level = |level: u8| {
        let levels = scene.layout.as_ref().map_or(&[][..], |layout| &layout.levels);
        levels.get(usize::from(level)).map(|(name, _)| name.clone()).unwrap_or_default()
    };
    let mut spec = JobSpec { priority: class.priority, ..JobSpec::workers(queue, class.pods, class.pods, ask.clone()) };
    match class.wish {
        None => {}
        Some(Wish::Required { level: at }) => spec.spread = Some(Spread { level: level(at), required: true }),
        Some(Wish::Preferred { level: at }) => spec.spread = Some(Spread { level: level(at), required: false }),
        Some(Wish::Slices { level: at, size }) => {
            let spread = Some(Spread { level: level(at), required: true });
            let slices = class.pods.div_ceil(size.max(1));
            let slice = |number: u32| {
                let pods = size.min(class.pods - number * size);
                Group { name: number.to_string(), min: pods, max: pods, ask: ask.clone(), spread: spread.clone() }
            };
            spec.groups = (0..slices).map(slice).collect();
        }
    }
    spec
}

impl QuotaScheduler for EngineScheduler {
    fn submit(&mut self, now: Ms, workload: WorkloadIx, queue: NodeIx, class: u16) {
        if let Some(spec) = self.spec(queue, class) {
            self.tell(now, Event::JobSet { name: name(workload), spec: spec.into() });
        }
    }

    fn finish(&mut self, now: Ms, workload: WorkloadIx) {
        self.carried_out(now);
        self.exited(now, workload, JobExit::Succeeded);
        self.tell(now, Event::JobRemoved(name(workload)));
    }

    fn evicted(&mut self, now: Ms, workload: WorkloadIx) {
        self.carried_out(now);
        self.exited(now, workload, JobExit::Stopped);
    }

    fn cycle(&mut self, now: Ms, orders: &mut Orders) -> Option<Ms> {
        self.carried_out(now);
        let plan = self.engine.decide(at(now));
        let (stops, starts): (Vec<Action>, Vec<Action>) =
            plan.actions.into_iter().partition(|action| matches!(action.kind, ActionKind::StopJob { .. }));
        // What was let in and displaced by one and the same decision never started.
        self.waiting.extend(starts);
        for action in stops {
            self.order(now, action, orders);
        }
        for action in std::mem::take(&mut self.waiting) {
            self.order(now, action, orders);
        }
        // What was ordered is carried out before the next cycle; then there may be room for more starts.
        let more = self.ordered.len() >= MAX_STARTS as usize;
        let wake = plan.wake_at.map(|wake| wake.0.saturating_sub(EPOCH_MS).max(now + 1));
        if more { Some(now) } else { wake }
    }

    fn forget_verdicts(&mut self) {
        self.engine.mark_dirty();
    }
}
