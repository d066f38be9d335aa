//! The engine behind [`CapacityPolicy`]: what ships, in the world of training and inference.
//!
//! Classes are nodes of eight GPUs. A training job is one group of workers of one GPU; on a slower class a worker takes as many
//! GPUs as do the work of one of the first class. GPUs that belong to the models are the nominal quota of their queue, so what
//! training uses of them is lent and comes back by reclaim; the others belong to training. Orders are carried out as they come; what changed by the
//! end of a round is told to the world once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::Deserialize;
use tidegate_core::demand::{Demand, ServiceTime};
use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::names::{Class, JobName, ModelName, Namespace, QueueName, ReplicaId};
use tidegate_core::node::Device;
use tidegate_core::plan::{Action, ActionKind, Placed};
use tidegate_core::policy::Policy;
use tidegate_core::state::{self, Amount, ClassWish, Discipline, Group, JobSpec, Queue, Quota, Resource, SpeedPoint};
use tidegate_core::{At, Engine};

use super::{Ask, CapacityPolicy, Costs, GpuClass, ModelSpec, Ms, Observed, Order, ceil, to_ms};

/// Virtual time begins here, so that no moment is before the epoch.
const EPOCH_MS: u64 = 1_000_000;
/// GPUs of a node.
const NODE_GPUS: u32 = 8;
/// Memory of a device; nothing in these studies asks for a part of it.
const DEVICE_MIB: u64 = 81_920;
/// The queues.
const TRAINING: &str = "training";
const INFERENCE: &str = "inference";

/// The pool's policy in these studies.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    pub headroom_percent: u32,
    pub burst_sigmas_percent: u32,
    /// Millionths of a model's requests that may be late.
    pub late_ppm: u64,
    /// A need falls only when it stayed low for so many seconds.
    pub lend_after_s: u64,
    /// A device must be free for so many seconds before a running job restarts to grow onto it.
    pub grow_after_s: u64,
    pub max_reservations: u32,
    pub rank_every_s: u64,
    /// How many doublings more the claim of a waiting job must be stronger that has run before.
    pub again_doublings: u32,
    pub evict_longest: bool,
    /// A job that was started is not stopped for others for so many seconds.
    pub min_runtime_s: u64,
}

/// Which parts are on.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// Replicas follow demand and the rest is lent; off: `fixed` replicas by model.
    pub lending: bool,
    pub fixed: Vec<u32>,
    /// Elastic jobs shrink and grow.
    pub elasticity: bool,
    /// Small models share GPUs.
    pub multiplexing: bool,
}

/// What a job holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    attempt: u32,
    class: usize,
    gpus: u32,
}

/// What is known of one model.
struct Served {
    name: ModelName,
    service: ServiceTime,
    load_ms: Ms,
    /// The last report, when it was made, and whether the engine knows of it.
    last: Option<(Ms, Observed)>,
    told: bool,
    /// What was last ordered: replicas and sharers.
    ordered: Option<(u32, u32)>,
}

/// The policy.
pub struct EngineCapacity {
    engine: Engine,
    rules: Rules,
    parts: Parts,
    classes: Vec<GpuClass>,
    costs: Costs,
    models: Vec<Served>,
    /// By job.
    held: BTreeMap<u32, Held>,
    /// Checkpoints to be told: when, job, attempt.
    checkpoints: BinaryHeap<Reverse<(Ms, u32, u32)>>,
    /// Replicas that get ready: when, and how long they loaded.
    loading: BinaryHeap<Reverse<(Ms, ReplicaId, Ms)>>,
}

/// What a round changed: what a job held before, and whether its work since the checkpoint is lost.
type Changes = BTreeMap<u32, (Option<Held>, bool)>;

fn at(now: Ms) -> At {
    At(EPOCH_MS + now)
}

fn job_name(job: u32) -> JobName {
    JobName::from(format!("j{job}"))
}

fn job_of(name: &JobName) -> u32 {
    name.0.get(1..).and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
fn whole(value: f64) -> u64 {
    value.round().clamp(0.0, 1e15) as u64
}

impl EngineCapacity {
    /// For these classes and models; `costs` are what the operator knows of restarts and checkpoints.
    pub fn new(rules: &Rules, parts: Parts, classes: &[GpuClass], models: &[ModelSpec], costs: Costs) -> Self {
        let mut this = Self {
            engine: Engine::default(),
            rules: rules.clone(),
            parts,
            classes: classes.to_vec(),
            costs,
            models: Vec::new(),
            held: BTreeMap::new(),
            checkpoints: BinaryHeap::new(),
            loading: BinaryHeap::new(),
        };
        this.tell(0, Event::PolicySet(this.policy()));
        this.add_nodes();
        this.add_queues();
        for (index, model) in models.iter().enumerate() {
            this.add_model(index, model);
        }
        this
    }

    fn policy(&self) -> Policy {
        let rules = &self.rules;
        Policy {
            headroom_percent: rules.headroom_percent,
            burst_sigmas_percent: rules.burst_sigmas_percent,
            late_ppm: rules.late_ppm,
            keep_surplus: true,
            lend_after_ms: rules.lend_after_s * 1000,
            grow_after_ms: rules.grow_after_s * 1000,
            max_reservations: rules.max_reservations,
            rank_every_ms: rules.rank_every_s * 1000,
            again_doublings: rules.again_doublings,
            // Sizes by shares stop more jobs: in `tide` 719 instead of 565 of 57,948 wait longer than they may at 1,056 GPUs.
            share_sizes: false,
            evict_longest: rules.evict_longest,
            // The world charges every stop: nothing but what it costs holds it back.
            max_evictions_per_minute: u32::MAX,
            ..Policy::default()
        }
    }

    fn add_nodes(&mut self) {
        for (index, class) in self.classes.clone().iter().enumerate() {
            for gpu in 0..class.gpus {
                let node = format!("{index}/{:05}", gpu / NODE_GPUS);
                let device = Device::new(format!("{node}/{}", gpu % NODE_GPUS), node, class.name.as_str(), DEVICE_MIB);
                self.tell(0, Event::DeviceSeen(device));
            }
        }
    }

    /// Quota is of classes alone: GPUs are owed to their owner whatever the owner uses of other classes.
    fn add_queues(&mut self) {
        for (name, discipline, inference) in
            [(TRAINING, Discipline::Responsive, false), (INFERENCE, Discipline::BestEffort, true)]
        {
            let own = |class: &GpuClass| if inference { class.models } else { class.gpus - class.models.min(class.gpus) };
            let quotas = self.classes.iter().filter(|class| own(class) > 0).map(|class| {
                let nominal = Quota { nominal: i64::from(own(class)) * 1000, ..Quota::default() };
                (Resource::Class(Class::from(class.name.as_str())), nominal)
            });
            let queue = Queue { discipline, quotas: quotas.collect(), ..Queue::default() };
            self.tell(0, Event::QueueSet { name: QueueName::from(name), queue });
        }
    }

    fn add_model(&mut self, index: usize, model: &ModelSpec) {
        let class = self.classes.get(model.class).map(|class| class.name.clone()).unwrap_or_default();
        let gpus = self.classes.get(model.class).map_or(0, |class| class.gpus);
        let fixed = self.parts.fixed.get(index).copied().filter(|_| !self.parts.lending);
        let micros = |seconds: f64| whole(seconds * 1e6);
        let name = ModelName::from(format!("m{index:04}"));
        let spec = state::ModelSpec {
            queue: QueueName::from(INFERENCE),
            namespace: Namespace::default(),
            priority: 0,
            ask: state::Ask {
                amount: Amount::Whole(model.gpus),
                classes: vec![ClassWish::from(Class::from(class.as_str()))],
                ..state::Ask::default()
            },
            slo_ms: whole(model.slo_s * 1000.0),
            min: fixed.unwrap_or(1),
            max: fixed.unwrap_or(gpus / model.gpus.max(1)).max(1),
            zero_after_ms: 0,
            max_rows: model.max_rows,
            max_sharers: if self.parts.multiplexing { model.max_sharers } else { 1 },
            memory: None,
            generation: 1,
        };
        self.tell(0, Event::ModelSet { name: name.clone(), spec });
        self.models.push(Served {
            name,
            service: ServiceTime { base_us: micros(model.batch.base_s), per_row_us: micros(model.batch.row_s) },
            load_ms: to_ms(model.load_s),
            last: None,
            told: true,
            ordered: None,
        });
    }

    fn tell(&mut self, now: Ms, event: Event) {
        self.engine.apply(at(now), event);
    }

    fn spec(&self, ask: &Ask) -> JobSpec {
        let (min, max) = if self.parts.elasticity { (ask.min_gpus, ask.max_gpus) } else { (ask.gpus, ask.gpus) };
        let any = ask.any_class && self.parts.lending;
        let classes = self.classes.iter().take(if any { usize::MAX } else { 1 });
        // As the GPUs of a worker are counted in those that do the same work, all classes are as fast; the last is preferred.
        let wish = |(index, class): (u32, &GpuClass)| ClassWish {
            class: Class::from(class.name.as_str()),
            speed_milli: 1000 + index,
            devices: whole(1.0 / class.speed).try_into().unwrap_or(1),
        };
        let worker =
            state::Ask { amount: Amount::Whole(1), classes: (0..).zip(classes).map(wish).collect(), ..state::Ask::default() };
        let group = Group { name: String::new(), min, max, ask: worker.clone(), spread: None };
        JobSpec {
            owner: format!("t{}", ask.team),
            recipe: format!("g{}", ask.gpus),
            groups: vec![group],
            min_runtime_ms: self.rules.min_runtime_s * 1000,
            restart_ms: to_ms(self.costs.restart_s),
            speedup: self.speedup(min, max),
            ..JobSpec::workers(TRAINING, min, max, worker)
        }
    }

    /// Speed by workers, at sizes between which a straight line is near the curve.
    fn speedup(&self, min: u32, max: u32) -> Vec<SpeedPoint> {
        if min == max {
            return Vec::new();
        }
        let speed = |workers: u32| ceil(1000.0 * f64::from(workers).powf(self.costs.scaling_exponent));
        let step = ((max - min) / 8).max(1);
        let mut sizes: Vec<u32> = (min..max).step_by(step as usize).chain([max]).collect();
        sizes.dedup();
        sizes.into_iter().map(|workers| SpeedPoint::new(workers, speed(workers))).collect()
    }

    fn exited(&mut self, now: Ms, job: u32, exit: JobExit) -> Option<Held> {
        let held = self.held.remove(&job)?;
        self.tell(now, Event::JobExited { name: job_name(job), attempt: held.attempt, exit });
        Some(held)
    }

    /// What has happened since the last round: checkpoints, and replicas that got ready.
    fn catch_up(&mut self, now: Ms) {
        while let Some(Reverse((when, job, attempt))) =
            self.checkpoints.peek().copied().filter(|Reverse((when, ..))| *when <= now)
        {
            self.checkpoints.pop();
            if self.held.get(&job).is_some_and(|held| held.attempt == attempt) {
                let event =
                    Event::JobProgress { name: job_name(job), attempt, step: when, checkpoint: Some(when), done_ppm: None };
                self.tell(now, event);
                self.expect_checkpoint(when, job, attempt);
            }
        }
        while let Some(Reverse((when, id, load_ms))) = self.loading.peek().cloned().filter(|Reverse((when, ..))| *when <= now) {
            self.loading.pop();
            self.tell(now.max(when), Event::ReplicaReady { id, load_ms });
        }
    }

    fn expect_checkpoint(&mut self, after: Ms, job: u32, attempt: u32) {
        if self.costs.checkpoint_every_s > 0.0 {
            self.checkpoints.push(Reverse((after + to_ms(self.costs.checkpoint_every_s), job, attempt)));
        }
    }

    /// The class and GPUs of an attempt's workers.
    fn placed(attempt: u32, workers: &[Placed]) -> Held {
        let class = workers.first().and_then(|worker| worker.node.0.split('/').next()?.parse().ok()).unwrap_or(0);
        Held { attempt, class, gpus: workers.iter().map(|worker| count(worker.devices.len())).sum() }
    }

    fn carry_out(&mut self, now: Ms, action: Action, changes: &mut Changes) {
        match action.kind {
            ActionKind::StopJob { job, resume_with, .. } => {
                let index = job_of(&job);
                let held = self.exited(now, index, JobExit::Stopped);
                let (_, lost) = changes.entry(index).or_insert((held, false));
                *lost |= resume_with == 0;
            }
            ActionKind::StartJob { job, attempt, workers, .. } => {
                let index = job_of(&job);
                changes.entry(index).or_insert((None, false));
                self.held.insert(index, Self::placed(attempt, &workers));
                self.expect_checkpoint(now + to_ms(self.costs.restart_s), index, attempt);
                self.tell(now, Event::Outcome { id: action.id, outcome: Outcome::Done });
                self.tell(now, Event::JobStarted { name: job, attempt });
            }
            ActionKind::StartReplica { model, replica, .. } => {
                self.tell(now, Event::Outcome { id: action.id, outcome: Outcome::Done });
                let load_ms = self.models.iter().find(|served| served.name == model).map_or(0, |served| served.load_ms);
                // At time 0 everything is loaded.
                let ready = if now == 0 { 0 } else { now + load_ms + to_ms(self.costs.evict_s) };
                self.loading.push(Reverse((ready, replica, load_ms)));
            }
            ActionKind::StopReplica { replica, .. } => self.tell(now, Event::ReplicaExited { id: replica, failed: false }),
        }
    }

    /// Orders of the jobs that changed, all in all.
    fn order_jobs(&self, changes: &Changes, orders: &mut Vec<Order>) {
        for (job, (before, lost)) in changes {
            let job = *job;
            match (before, self.held.get(&job)) {
                (None, Some(held)) => orders.push(Order::Start { job, class: held.class, gpus: held.gpus }),
                (Some(_), None) => orders.push(Order::Stop { job }),
                (Some(was), Some(held)) if was.class == held.class && !lost => {
                    if was.gpus != held.gpus {
                        orders.push(Order::Resize { job, gpus: held.gpus });
                    }
                }
                (Some(_), Some(held)) => {
                    orders.push(Order::Stop { job });
                    orders.push(Order::Start { job, class: held.class, gpus: held.gpus });
                }
                (None, None) => {}
            }
        }
    }

    /// Orders of the models whose replicas changed.
    fn order_models(&mut self, orders: &mut Vec<Order>) {
        let mut have: BTreeMap<&ModelName, (u32, u32)> = BTreeMap::new();
        for replica in self.engine.state().replicas.values().filter(|replica| replica.stop.is_none()) {
            let (replicas, sharers) = have.entry(&replica.model).or_default();
            match replica.ask.amount {
                Amount::Milli(milli) => *sharers = 1000 / u32::from(milli.max(1)),
                _ => *replicas += 1,
            }
        }
        for (model, served) in self.models.iter_mut().enumerate() {
            let (replicas, sharers) = have.get(&served.name).copied().unwrap_or_default();
            if served.ordered.replace((replicas, sharers)) != Some((replicas, sharers)) {
                orders.push(Order::Serve { model, replicas, sharers });
            }
        }
    }

    fn demand(&mut self, now: Ms, model: usize, observed: Observed) {
        let Some(served) = self.models.get(model) else { return };
        let demand = Demand {
            milli_rows_per_s: whole(observed.rate_rps * 1000.0),
            service: Some(served.service),
            burst_milli: Some(whole(observed.burst * 1000.0)),
            late_ppm: Some(whole(observed.late_share * 1e6)),
            ..Demand::default()
        };
        let model = served.name.clone();
        self.tell(now, Event::Demand { model, demand });
    }
}

impl CapacityPolicy for EngineCapacity {
    /// Reports that say the same as the last are told when they end: the engine counts rows from one to the next.
    fn observe(&mut self, now: Ms, model: usize, observed: Observed) {
        let Some(served) = self.models.get_mut(model) else { return };
        let last = served.last.replace((now, observed));
        let told = std::mem::replace(&mut served.told, true);
        match last {
            Some((_, same)) if same == observed => served.told = false,
            Some((when, before)) if !told => {
                self.demand(when, model, before);
                self.demand(now, model, observed);
            }
            _ => self.demand(now, model, observed),
        }
    }

    fn submitted(&mut self, now: Ms, ask: &Ask) {
        let spec = self.spec(ask);
        self.tell(now, Event::JobSet { name: job_name(ask.job), spec: spec.into() });
    }

    fn finished(&mut self, now: Ms, job: u32) {
        self.exited(now, job, JobExit::Succeeded);
        self.tell(now, Event::JobRemoved(job_name(job)));
    }

    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>) {
        self.catch_up(now);
        let mut changes = Changes::new();
        loop {
            let plan = self.engine.decide(at(now));
            if plan.actions.is_empty() {
                break;
            }
            // Stops first: what is started on their devices comes after them.
            let (stops, starts): (Vec<Action>, Vec<Action>) = plan
                .actions
                .into_iter()
                .partition(|action| matches!(action.kind, ActionKind::StopJob { .. } | ActionKind::StopReplica { .. }));
            for action in stops.into_iter().chain(starts) {
                self.carry_out(now, action, &mut changes);
            }
            self.catch_up(now);
        }
        self.order_jobs(&changes, orders);
        self.order_models(orders);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::world::{self, Setup};
    use crate::capacity::{Job, Model};
    use crate::inference::service::BatchTime;
    use crate::inference::{Series, Window};

    const COSTS: Costs = Costs { restart_s: 30.0, checkpoint_every_s: 600.0, evict_s: 10.0, scaling_exponent: 1.0 };

    /// Who was stopped does not come back by stopping another.
    fn rules() -> Rules {
        Rules { again_doublings: 40, ..crate::studies::lyra::settings().unwrap().rules }
    }

    fn model(rates: &[f64]) -> Model {
        let windows = rates.iter().map(|rate_rps| Window { rate_rps: *rate_rps, burst: 1.0 }).collect();
        let batch = BatchTime { base_s: 0.02, row_s: 0.005 };
        let spec =
            ModelSpec { name: "m".into(), class: 1, gpus: 1, batch, slo_s: 0.25, max_rows: 16, load_s: 20.0, max_sharers: 1 };
        Model { spec, demand: Series { name: "m".into(), window_s: 3_600, windows } }
    }

    #[test]
    fn what_a_model_does_not_need_is_lent_and_comes_back_when_its_demand_rises() {
        let class = |name: &str, gpus, models, speed| GpuClass { name: name.into(), gpus, models, speed };
        let setup = Setup {
            classes: vec![class("V100", 2, 0, 1.0), class("T4", 8, 8, 0.333)],
            costs: COSTS,
            round_ms: 60_000,
            measured_ms: 7_200_000,
            sample_every_ms: 0,
            limit_ms: 100_000_000,
        };
        let ask = |job, any_class| Ask { job, team: 0, gpus: 2, min_gpus: 2, max_gpus: 2, any_class };
        let jobs: Vec<Job> = (0..2).map(|job| Job { ask: ask(job, job == 1), arrives: 0, work_s: 5_000.0 }).collect();
        let models = [model(&[100.0, 1_000.0])];
        let parts = Parts { lending: true, fixed: Vec::new(), elasticity: true, multiplexing: false };
        let mut policy = EngineCapacity::new(&rules(), parts, &setup.classes, &[models[0].spec.clone()], COSTS);
        let outcome = world::run(&setup, &jobs, &models, &mut policy).unwrap();
        assert!(outcome.jobs[0].wait_s < 1.0 && outcome.jobs[1].wait_s > 600.0, "the second ran on what was lent");
        assert_eq!((outcome.jobs[0].stops, outcome.jobs[1].stops), (0, 1));
        assert!(outcome.lent_gpu_hours > 5.0, "six T4s for an hour: {}", outcome.lent_gpu_hours);
        assert!(outcome.attained() > 0.97, "all but the minute until they are back: {}", outcome.attained());
    }
}
