//! What whole-system tests, scenarios and benchmarks share: real servers, real clients, real processes.

pub mod bench;
pub mod beside;
pub mod browser;
pub mod control_plane;
pub mod harness;
pub mod installation;
pub mod kubelet;
pub mod manifests;
pub mod onnx;
pub mod outside;
pub mod processes;
pub mod scenario;
