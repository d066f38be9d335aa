//! The shell that every part shares: logs, signals, exit codes, listening sockets, the admin endpoint with metrics, and the worlds' side of the
//! control protocol.

pub mod admin;
pub mod control;
pub mod exit;
pub mod ledger;
pub mod listener;
pub mod page;
pub mod program;
pub mod shutdown;
pub mod telemetry;
