//! Training jobs and models on the same GPUs in virtual time.
//!
//! ```text
//!   philly     the trace as jobs
//!   traffic    a trace of requests, as a user names it, as models
//!   world      carries out orders; counts waits, run times, lost work, requests inside the SLO
//!   outcome    what came out, in figures
//!   fifo       today's rule: first come first served, every model keeps its GPUs
//!   engine     the engine: head-room, lending, yielding, order and elastic sizes
//! ```
//!
//! GPUs are counted per class, not per node: a gang needs GPUs, not whole nodes (the same for every policy).
//! A policy sees what a live system sees: asks, past request rates, starts and ends. Never a duration or a future rate.

pub mod engine;
pub mod fifo;
pub mod outcome;
pub mod philly;
pub mod traffic;
pub mod world;

use serde::Deserialize;

use crate::inference::service::BatchTime;
use crate::inference::{Series, Window};

pub use crate::jobs::Ms;

/// GPUs of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuClass {
    pub name: String,
    pub gpus: u32,
    /// Of these, how many belong to the models. What jobs hold beyond the others is lent.
    pub models: u32,
    /// Training speed against the first class.
    pub speed: f64,
}

/// What a training job asks for. GPUs are those of the first class; `f` of them on a class of speed `s` are `f / s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Index in the order of submission.
    pub job: u32,
    /// Whose: a virtual cluster.
    pub team: u32,
    /// What the user would take without elasticity.
    pub gpus: u32,
    /// Never fewer, never more. Both equal to `gpus`: not elastic.
    pub min_gpus: u32,
    pub max_gpus: u32,
    /// Whether it also runs on the other classes.
    pub any_class: bool,
}

impl Ask {
    /// GPUs on a class of this speed that do the work of `gpus` of the first.
    pub fn on(gpus: u32, speed: f64) -> u32 {
        ceil(f64::from(gpus) / speed - 1e-6)
    }
}

/// A job of the trace: its ask and what only the world knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub ask: Ask,
    pub arrives: Ms,
    /// Seconds on `ask.gpus` GPUs of the first class, alone and undisturbed.
    pub work_s: f64,
}

/// What the operator is told about a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    pub name: String,
    /// The class it runs on.
    pub class: usize,
    /// GPUs of one replica.
    pub gpus: u32,
    pub batch: BatchTime,
    pub slo_s: f64,
    pub max_rows: u32,
    /// Seconds to load the weights on a free GPU.
    pub load_s: f64,
    /// Models whose weights fit on one GPU together; 1: it is never shared.
    pub max_sharers: u32,
}

/// A model and the demand that comes.
#[derive(Clone, Debug)]
pub struct Model {
    pub spec: ModelSpec,
    pub demand: Series,
}

impl Model {
    /// GPUs of a pool of its own: the fewest whole replicas, always kept, that answer `target` (0 to 1) of its requests inside
    /// the SLO.
    pub fn own_gpus(&self, target: f64) -> u32 {
        let server = self.spec.batch.server(self.spec.slo_s, self.spec.max_rows, 1);
        let all: f64 = self.demand.windows.iter().map(|window| window.rate_rps).sum();
        let keeps = |replicas: u32| {
            let inside = |w: &Window| w.rate_rps * server.attainment(w.rate_rps, w.burst, f64::from(replicas));
            self.demand.windows.iter().map(inside).sum::<f64>() >= target * all
        };
        let (mut low, mut high) = (1_u32, 1 << 16);
        while low < high {
            let middle = low.midpoint(high);
            if keeps(middle) { high = middle } else { low = middle + 1 }
        }
        low * self.spec.gpus
    }
}

/// What routers measured over the last round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    /// Requests per second, refused ones included.
    pub rate_rps: f64,
    /// Squared variation of the times between arrivals.
    pub burst: f64,
    /// Share of them answered late or refused.
    pub late_share: f64,
}

/// An order to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Starts a waiting job on `gpus` of a class.
    Start { job: u32, class: usize, gpus: u32 },
    /// Stops it; it waits again with what is in its last checkpoint.
    Stop { job: u32 },
    /// Another size on the same class; nothing is lost but the restart time.
    Resize { job: u32, gpus: u32 },
    /// The model has `replicas` whole replicas and, when `sharers` > 1, one slice of a GPU shared by so many.
    Serve { model: usize, replicas: u32, sharers: u32 },
}

/// The decisions under test.
pub trait CapacityPolicy {
    /// A model's traffic over the round that ended at `now`.
    fn observe(&mut self, now: Ms, model: usize, observed: Observed);
    /// A job was submitted.
    fn submitted(&mut self, now: Ms, ask: &Ask);
    /// A job ended by itself; its GPUs are free.
    fn finished(&mut self, now: Ms, job: u32);
    /// Orders of this round. Stops, shrinks and fewer replicas are carried out before starts, growth and more replicas.
    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>);
}

/// What stopping, resizing and returning cost.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Seconds without progress at each start after a stop and at each resize.
    pub restart_s: f64,
    /// Seconds of running between checkpoints; a stop loses what is younger.
    pub checkpoint_every_s: f64,
    /// Seconds until a GPU taken from a job is free for a model to load.
    pub evict_s: f64,
    /// Speed on `k` times the GPUs is `k` to this power.
    pub scaling_exponent: f64,
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
pub(crate) fn ceil(value: f64) -> u32 {
    value.ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
pub(crate) fn to_ms(seconds: f64) -> Ms {
    (seconds * 1000.0).ceil().clamp(0.0, 9.0e18) as Ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_its_own_is_no_larger_than_the_model_needs() {
        let batch = BatchTime { base_s: 0.02, row_s: 0.005 };
        let spec =
            ModelSpec { name: "m".into(), class: 0, gpus: 2, batch, slo_s: 0.25, max_rows: 16, load_s: 30.0, max_sharers: 1 };
        let server = spec.batch.server(spec.slo_s, spec.max_rows, 1);
        let demand = Series { name: "m".into(), window_s: 600, windows: vec![Window { rate_rps: 1000.0, burst: 4.0 }] };
        let replicas = Model { spec, demand }.own_gpus(0.999) / 2;
        assert!(server.attainment(1000.0, 4.0, f64::from(replicas)) >= 0.999);
        assert!(server.attainment(1000.0, 4.0, f64::from(replicas - 1)) < 0.999);
    }
}
