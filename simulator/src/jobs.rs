//! Jobs in virtual time: a policy orders starts, stops and resizes; the world carries them out and tells what happened.
//!
//! A policy sees what a live system would see ([`Wish`], progress, ends). True durations and total work stay in
//! [`Work`], which only the world holds; the oracle policies say so and get them by another way.

pub mod metrics;
pub mod policies;
pub mod world;

/// Virtual time in milliseconds since the start of the simulation.
pub type Ms = u64;

/// Index of a job in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobIx(pub u32);

/// GPUs that a job holds: `(node index, GPUs on it)`, node indices ascending, and the batch size it was told to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub nodes: Vec<(u32, u32)>,
    /// Global batch size; absent: the job's own.
    pub batch: Option<u32>,
}

impl Held {
    /// GPUs on all nodes.
    pub fn gpus(&self) -> u32 {
        self.nodes.iter().map(|(_, gpus)| gpus).sum()
    }
}

/// What a user asks for when the job is submitted.
#[derive(Clone, Debug)]
pub struct Wish {
    pub name: String,
    /// Whose quota: a virtual cluster, a team.
    pub queue: String,
    /// Who; history of run times is by owner and recipe.
    pub owner: String,
    /// What kind of job; equal recipes behave alike.
    pub recipe: String,
    pub priority: i32,
    /// GPUs: never fewer, never more. Equal: not elastic.
    pub min_gpus: u32,
    pub max_gpus: u32,
    /// The size that the user would have asked for without elasticity.
    pub gpus: u32,
    /// GPU classes that will do, with relative speed in thousandths; empty: any at 1000.
    pub classes: Vec<(String, u32)>,
    /// The job's own speed-up by GPUs as its profile says: `(gpus, speed in thousandths of one GPU)`; empty: linear.
    pub speedup: Vec<(u32, u32)>,
    /// Whether it may be stopped and continued.
    pub preemptible: bool,
}

/// How a job's work goes on. Known to the world alone.
pub trait Work {
    /// Work units until it ends.
    fn total(&self) -> f64;
    /// Units per second on what it holds, when `done` units are done. 0 or more; called again at each change of `Held`
    /// and at [`Work::next_change`].
    fn rate(&self, held: &Held, done: f64) -> f64;
    /// Units done at which the rate changes by itself; absent: never again.
    fn next_change(&self, _done: f64) -> Option<f64> {
        None
    }
}

/// Work of a known length that runs equally fast on whatever it holds: a row of a trace, replayed.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    /// Run time without any stop, in seconds.
    pub seconds: f64,
}

impl Work for Fixed {
    fn total(&self) -> f64 {
        self.seconds
    }

    fn rate(&self, _held: &Held, _done: f64) -> f64 {
        1.0
    }
}

/// What stopping costs.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// Time between a start (after a stop) or a resize, and useful work.
    pub restart_ms: Ms,
    /// A checkpoint is made after each such span of useful work; a stop loses what is younger. 0: nothing is lost.
    pub checkpoint_every_ms: Ms,
}

/// What a policy orders. The world refuses what would over-commit a node, with an error that names policy and job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Start {
        job: JobIx,
        held: Held,
    },
    /// Stops it; it waits again and keeps what is in its checkpoint.
    Stop {
        job: JobIx,
    },
    /// Stops and starts on other GPUs in one go; the job saves first, so this costs a restart and no work.
    Resize {
        job: JobIx,
        held: Held,
    },
}

/// A scheduler under test.
pub trait Policy {
    /// As on the command line.
    fn name(&self) -> &'static str;
    /// A job was submitted.
    fn submitted(&mut self, now: Ms, job: JobIx, wish: &Wish);
    /// A running job reports: the fraction of its work done in millionths if it knows its end (a run with a step goal),
    /// and when its last checkpoint was made.
    fn progressed(&mut self, now: Ms, job: JobIx, done_ppm: Option<u32>, checkpoint_at: Option<Ms>);
    /// A job ended by itself.
    fn finished(&mut self, now: Ms, job: JobIx);
    /// Orders for this moment, and when to be asked again if nothing happens.
    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>) -> Option<Ms>;
    /// GPUs lent at this moment, for the time series.
    fn lent(&self) -> u32 {
        0
    }
}
