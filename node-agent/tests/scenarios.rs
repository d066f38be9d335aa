//! The agent as it runs, on a scripted machine: the real threads, the real `nvml-wrapper`, and a `libnvidia-ml.so.1` whose
//! answers a script gives.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "scenarios/agent.rs"]
mod agent;
#[path = "scenarios/faults.rs"]
mod faults;
#[path = "scenarios/http.rs"]
mod http;
#[path = "scenarios/pods.rs"]
mod pods;
#[path = "scenarios/truth.rs"]
mod truth;
