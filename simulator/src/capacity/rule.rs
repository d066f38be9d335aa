//! Our rule: how many GPUs each model needs now, what is lent, who yields when it returns, who runs and how large.
//!
//! 1. Each model's need: forecast ([`forecast`]) with head-room by the capacity rule of `core::demand`
//!    ([`need`]). Needs rise at once and fall only when they stayed low for `hold_s`.
//! 2. What models do not need is lent to training as far as jobs want it, to the last GPU; a need that rises takes it back
//!    in the same round. What no job wants stays loaded.
//! 3. Training ([`training`]): all jobs, running or waiting, are packed anew each round in the order of attained service
//!    (levels), so whoever yields is whoever has had most, shrinking before any stop.
//!
//! Pure: sees what [`CapacityPolicy`] tells, nothing else.

pub mod budget;
pub mod forecast;
pub mod need;
pub mod training;

use serde::Deserialize;

use super::{Ask, CapacityPolicy, Costs, GpuClass, ModelSpec, Ms, Observed, Order};
use budget::Budget;
use forecast::Forecast;
use need::Need;
use training::Training;

/// The rule's constants.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Places above the forecast load, as a share of it.
    pub head_room: f64,
    /// ... but at least so many standard deviations of the load (measured burstiness).
    pub burst_sigmas: f64,
    /// Share of a model's requests that may be late; head-room follows what is spent of it.
    pub late_share: f64,
    /// Whether GPUs are lent for elastic jobs to grow beyond what was asked; else only for what was asked.
    pub lend_for_growth: bool,
    /// A need falls only when it stayed low for so many seconds.
    pub hold_s: u64,
    /// Yesterday's rate is corrected by today's trend, at most by this factor up or down; below 1: not looked at.
    pub trend_limit: f64,
    /// Attained GPU-hours at which a job sinks to the next level.
    pub levels_gpu_hours: Vec<f64>,
    /// A stopped job takes GPUs only from jobs so many levels above its own.
    pub resume_margin: u8,
    /// A job that was started is not preempted by others for so many seconds.
    pub protect_s: u64,
    /// A job grows only when its size has not changed for so many seconds.
    pub regrow_s: u64,
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

/// What is known of one model.
struct Served {
    spec: ModelSpec,
    forecast: Forecast,
    budget: Budget,
    need: Need,
}

/// The policy.
pub struct Tidal {
    rule: Rule,
    parts: Parts,
    classes: Vec<GpuClass>,
    models: Vec<Served>,
    training: Training,
}

impl Tidal {
    /// For these classes and models; `costs` are what the operator knows of restarts and checkpoints.
    pub fn new(rule: &Rule, parts: Parts, classes: &[GpuClass], models: &[ModelSpec], costs: Costs, round_ms: Ms) -> Self {
        let rounds = usize::try_from(rule.hold_s * 1000 / round_ms.max(1)).unwrap_or(1);
        let model = |spec: &ModelSpec| {
            let sharers = if parts.multiplexing { spec.max_sharers } else { 1 };
            let forecast = Forecast::new(rounds, rule.trend_limit);
            Served { spec: spec.clone(), forecast, budget: Budget::new(rule.late_share), need: Need::new(spec, sharers) }
        };
        Self {
            models: models.iter().map(model).collect(),
            training: Training::new(rule, parts.elasticity, costs, classes),
            rule: rule.clone(),
            classes: classes.to_vec(),
            parts,
        }
    }

    /// Orders what models need and returns the GPUs left for training, by class.
    fn serve(&mut self, now: Ms, orders: &mut Vec<Order>) -> Vec<u32> {
        for (index, Served { forecast, budget, need, .. }) in self.models.iter_mut().enumerate() {
            match self.parts.fixed.get(index).filter(|_| !self.parts.lending) {
                Some(fixed) => need.fix(*fixed),
                None => need.follow(now, forecast.rate_rps(), forecast.burst(), &self.rule, budget.factor()),
            }
        }
        let left = (0..self.classes.len()).map(|class| self.left(class)).collect();
        let left = self.keep_unwanted(left);
        for (index, Served { need, .. }) in self.models.iter_mut().enumerate() {
            if need.take_change() {
                orders.push(Order::Serve { model: index, replicas: need.replicas(), sharers: need.sharers() });
            }
        }
        left
    }

    /// GPUs of a class that its models do not need; when they need more than there are, each is cut by the same share.
    fn left(&mut self, class: usize) -> u32 {
        let gpus = self.classes.get(class).map_or(0, |class| class.gpus);
        let (whole, shared) = self.taken(class);
        if whole + shared <= gpus {
            return gpus - whole - shared;
        }
        let share = f64::from(gpus.saturating_sub(shared)) / f64::from(whole.max(1));
        self.models.iter_mut().filter(|model| model.spec.class == class).for_each(|model| model.need.cut(share));
        0
    }

    /// What no job wants is not given up: a class whose jobs have enough without its models' surplus leaves it to them.
    fn keep_unwanted(&mut self, mut left: Vec<u32>) -> Vec<u32> {
        for (class, left) in left.iter_mut().enumerate().filter(|_| self.parts.lending) {
            let of_class = |model: &&mut Served| model.spec.class == class;
            let surplus = self.models.iter_mut().filter(of_class).map(|model| model.need.surplus() * model.spec.gpus).sum();
            if self.training.wanted(class).saturating_add(surplus) <= *left {
                *left -= surplus;
                self.models.iter_mut().filter(of_class).for_each(|model| model.need.keep_surplus());
            }
        }
        left
    }

    /// GPUs of whole replicas, and GPUs shared by slices.
    fn taken(&self, class: usize) -> (u32, u32) {
        let mut slices = [0_u32; 17];
        let mut whole = 0;
        for Served { spec, need, .. } in self.models.iter().filter(|model| model.spec.class == class) {
            whole += need.replicas() * spec.gpus;
            if let Some(count) = slices.get_mut(need.sharers() as usize).filter(|_| need.sharers() > 1) {
                *count += 1;
            }
        }
        (whole, (0_u32..).zip(slices).skip(2).map(|(of, count)| count.div_ceil(of)).sum())
    }
}

impl CapacityPolicy for Tidal {
    fn observe(&mut self, now: Ms, model: usize, observed: Observed) {
        if let Some(model) = self.models.get_mut(model) {
            model.forecast.observe(now, observed);
            model.budget.observe(now, observed);
        }
    }

    fn submitted(&mut self, _: Ms, ask: &Ask) {
        self.training.submitted(ask);
    }

    fn finished(&mut self, _: Ms, job: u32) {
        self.training.finished(job);
    }

    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>) {
        let left = self.serve(now, orders);
        self.training.decide(now, &left, orders);
    }
}
