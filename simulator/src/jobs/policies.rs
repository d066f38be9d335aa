//! The rules of the peers, and ours, each a [`Policy`](super::Policy) over the same bookkeeping and placement.
//!
//! ```text
//!   floor      free GPUs by node; consolidated placement (fewest nodes, best fit), the same for all
//!   book       what a live system knows of each job: wish, state, time run, last checkpoint
//!   history    run times that have ended, by owner and size; predicts what is left
//!   queue      waiting jobs by size and rank; what fits, in order
//!   room       whom to stop so that a job fits, at the least cost
//!   ordered    fifo (strict), best-effort fifo, sjf (an oracle)
//!   fair       dominant share by queue, with and without reclaim
//!   backfill   EASY: a reservation for the head, others before it when they end in time
//!   tiresias   discretised two-dimensional least attained service
//!   engine     ours: the engine that ships, behind the same trait
//! ```

pub mod backfill;
pub mod book;
pub mod engine;
pub mod fair;
pub mod floor;
pub mod history;
pub mod ordered;
pub mod queue;
pub mod room;
pub mod tiresias;

#[cfg(test)]
mod tests;

use super::Policy;
use super::world::Setup;

/// The engine as a policy, with all jobs in one queue.
pub fn tidegate_in_one_queue(setup: &Setup) -> Box<dyn Policy> {
    Box::new(engine::EnginePolicy::new(setup).in_one_queue())
}

/// The engine as a policy.
pub fn tidegate(setup: &Setup) -> Box<dyn Policy> {
    Box::new(engine::EnginePolicy::new(setup))
}
