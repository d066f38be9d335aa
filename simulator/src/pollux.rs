//! Elastic training jobs by their measured throughput and statistical efficiency, after Pollux (OSDI 2021).
//!
//! ```text
//!   throughput, application   the traces: seconds per step by placement and batch, worth of a step by batch and epoch
//!   workload                  who submitted what when; the authors' own results
//!   world                     rounds, restart costs, and what a rule may see
//!   tiresias                  the baseline whose published figures must come out
//!   engine                    the engine in this world
//!   work                      the same jobs for the event-driven world
//! ```
//!
//! The facts of the world are those of petuum/adaptdl, branch osdi21-artifact, `simulator/`.

pub mod application;
pub mod engine;
mod table;
#[cfg(test)]
mod testing;
pub mod throughput;
pub mod tiresias;
pub mod work;
pub mod workload;
pub mod world;
