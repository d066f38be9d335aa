//! An open-loop HTTP client that plays a day.
//!
//! ```text
//! script (rates over time) -> arrivals (seeded Poisson) -> one task a request -> judge -> tally -> report
//! ```
//!
//! Open loop: a request is sent when its time has come, however slow the server is, as real clients
//! do; latency counts from that time, so that a stalled server cannot hide (no coordinated
//! omission). The same script and seed give the same requests at the same times.

mod args;
mod arrivals;
mod judge;
mod play;
mod report;
mod script;
mod send;
mod tally;
mod traffic;

pub use args::{Args, run};
pub use play::{Error, Options, play};
pub use report::{LostRequest, ModelReport, Report, Totals};
pub use script::{Error as ScriptError, ModelScript, Script, TrafficScript};
