//! Our rule: how many GPUs each model needs now, what is lent, who yields when it returns, who runs and how large.
//!
//! 1. Each model's need: forecast ([`forecast`]) with head-room by the capacity rule of `core::demand`
//!    ([`need`]). Needs rise at once and fall only when they stayed low for `hold_s`.
//! 2. What models do not need is lent to training, to the last GPU; a need that rises takes it back in the same round.
//! 3. Training ([`training`]): all jobs, running or waiting, are packed anew each round in the order of attained service
//!    (levels), so whoever yields is whoever has had most, shrinking before any stop.
//!
//! Pure: sees what [`CapacityPolicy`] tells, nothing else.

pub mod forecast;
pub mod need;
pub mod training;

use serde::Deserialize;

use super::{Ask, CapacityPolicy, Costs, GpuClass, ModelSpec, Ms, Observed, Order};
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
    /// A need falls only when it stayed low for so many seconds.
    pub hold_s: u64,
    /// Yesterday's rate is corrected by today's trend, at most by this factor up or down.
    pub trend_limit: f64,
    /// Attained GPU-hours at which a job sinks to the next level.
    pub levels_gpu_hours: Vec<f64>,
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

/// The policy.
pub struct Tidal {
    rule: Rule,
    parts: Parts,
    classes: Vec<GpuClass>,
    models: Vec<(ModelSpec, Forecast, Need)>,
    training: Training,
}

impl Tidal {
    /// For these classes and models; `costs` are what the operator knows of restarts and checkpoints.
    pub fn new(rule: &Rule, parts: Parts, classes: &[GpuClass], models: &[ModelSpec], costs: Costs, round_ms: Ms) -> Self {
        let rounds = usize::try_from(rule.hold_s * 1000 / round_ms.max(1)).unwrap_or(1);
        let model = |spec: &ModelSpec| {
            let sharers = if parts.multiplexing { spec.max_sharers } else { 1 };
            (spec.clone(), Forecast::new(rounds, rule.trend_limit), Need::new(spec, sharers))
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
        for (index, (_, forecast, need)) in self.models.iter_mut().enumerate() {
            match self.parts.fixed.get(index).filter(|_| !self.parts.lending) {
                Some(fixed) => need.fix(*fixed),
                None => need.follow(now, forecast.rate_rps(), forecast.burst(), &self.rule),
            }
        }
        let left = (0..self.classes.len()).map(|class| self.left(class)).collect();
        for (index, (_, _, need)) in self.models.iter_mut().enumerate() {
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
        self.models.iter_mut().filter(|(spec, ..)| spec.class == class).for_each(|(_, _, need)| need.cut(share));
        0
    }

    /// GPUs of whole replicas, and GPUs shared by slices.
    fn taken(&self, class: usize) -> (u32, u32) {
        let mut slices = [0_u32; 17];
        let mut whole = 0;
        for (spec, _, need) in self.models.iter().filter(|(spec, ..)| spec.class == class) {
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
        if let Some((_, forecast, _)) = self.models.get_mut(model) {
            forecast.observe(now, observed);
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
