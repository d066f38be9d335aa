//! The virtual-time world: traces in, the engine's decisions and their effect out (`tidegate simulate`).
//!
//! ```text
//!   trace, generate     rows of public traces or synthetic ones, as jobs and request rates
//!   pack                one pod after another onto a fixed cluster, nothing ever leaves
//!   jobs                a heap of future events: jobs arrive, run, are stopped, end
//!   inference           request rates into GPUs that a model needs, by a queueing model
//!   pollux              elastic training jobs by their measured throughput and efficiency
//!   kueue               quota-only workloads and Kueue's own rule
//!   studies             one published experiment each: published | peers' rule | ours | goal
//!   report              tables, JSON, CSV, HTML
//! ```
//!
//! Everything is seeded, and time is an argument: the same command prints the same figures.

pub mod capacity;
pub mod cluster;
pub mod command;
pub mod error;
pub mod generate;
pub mod inference;
pub mod jobs;
pub mod kueue;
pub mod pack;
pub mod pollux;
pub mod report;
pub mod studies;
pub mod trace;

pub use error::Error;
