//! How requests are packed: which wait, which leave together, for which replica.
//!
//! Plain structs driven by (event, now). The router's async shell owns sockets, timers and the clock;
//! the simulator drives the same structs in virtual time.
//!
//! ```text
//!   arrival -> ModelQueue::push --(refused at once: full, or late by the fit)--> 429 / 503
//!                   |
//!                   v   earliest deadline first
//!   Endpoints::ready -> ModelQueue::next -> Batch | Wait{until}     <- Hold (wait for one more?)
//!                   |                                               <- ServiceTimeFit (t(n) = base + per_row * n)
//!                   v
//!   Endpoints::pick -> replica -> Endpoints::finished | failed
//! ```
//!
//! All times are microseconds on one monotonic clock of the caller's choice.

pub mod batch;
pub mod fit;
pub mod hold;
pub mod pick;
pub mod queue;
pub mod rate;

pub use fit::ServiceTimeFit;
pub use pick::Endpoints;
pub use queue::{Entry, Limits, ModelQueue, Next, Offer, Refusal, Supply};
pub use rate::ArrivalRate;

/// Microseconds on the caller's monotonic clock.
pub type Micros = u64;

/// An `f64` of a counter. Exact up to 2^53, which is 285 years in microseconds.
#[expect(clippy::cast_precision_loss, reason = "counters and microseconds stay far below 2^53")]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

/// The nearest whole number, 0 for a negative or undefined one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and negatives are cut first")]
pub(crate) fn whole(value: f64) -> u64 {
    value.max(0.0).round() as u64
}
