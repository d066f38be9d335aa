//! Whole-system runs of the example `tide`, measured from outside: what clients saw, what `up` reports, what `/proc` shows.
//!
//! ```text
//! undisturbed training ──> final metrics to compare with                        training
//! tidegate up --example tide --no-load ──> ready                               harness
//! the scripted day, open loop, seeded ──> per-model report                      tidegate_load::play
//!   beside it: a sampler of /proc (double runs); in `crash` a seeded killer     watch, chaos
//!   all the time: how long the machine's disk and processors kept everybody waiting   stalls
//! training runs to its end ──> report, state
//! SIGINT ──> exit 0, nothing left
//! figures ──> table, promises: what must hold                                   figures, table, promises
//! ```
//!
//! `cluster` plays the same day on a real cluster, and makes the same figures of what that tells.

pub mod chaos;
pub mod cluster;
pub mod example;
pub mod figures;
pub mod promises;
pub mod run;
pub mod stalls;
pub mod table;
pub mod training;
pub mod watch;
