//! Benchmarks behind `cargo xtask bench NAME`: each prints a table, or with `--json` one JSON object.

pub mod agent;
pub mod bare;
pub mod batching;
pub mod client;
pub mod cluster;
pub mod figures;
pub mod machine;
pub mod models;
pub mod server;
pub mod table;
pub mod world;
