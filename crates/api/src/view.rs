//! What a running `up` shows of itself, as JSON under `/api/v1`: the page, `top`, `explain` and scripts read it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/v1/state` | [`State`] |
//! | `GET /api/v1/timeline?since=MS` | [`Timeline`]: who held each device when |
//! | `GET /api/v1/events` | server-sent events: `state` with a [`State`] about twice a second, `decision` with a [`Decision`] |
//! | `GET /api/v1/decisions` | the last [`Decision`]s, oldest first |
//! | `GET /api/v1/report` | [`Report`]: figures since the start |
//! | `POST /api/v1/apply` (YAML, any number of documents) | `[`[`Applied`]`]` |
//! | `DELETE /api/v1/{jobs,models,queues,pools}/{name}` | [`Done`] |
//! | `POST /api/v1/{jobs,models}/{name}/{pause,resume,cancel}` | [`Done`] (models cannot be cancelled) |
//! | `POST /api/v1/devices/{id}/{drain,undrain}` | [`Done`] |
//! | `GET /api/v1/explain/{job,model}/{name}` | [`Explanation`] |
//! | `GET /api/v1/eta`, `GET /api/v1/eta/{job}` | [`crate::eta::Etas`]: when those that wait are expected to start |
//! | `POST /api/v1/what-if` ([`crate::what_if::Request`] as JSON) | [`tidegate_core::what_if::Difference`] |
//! | `GET /api/v1/snapshot` | the engine's whole state as JSON, for `--snapshot` |
//! | `GET /api/v1/logs/jobs/{name}?rank=0&tail_bytes=N` | text |
//!
//! Errors: status 4xx or 5xx with [`Failure`].

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::eta::Eta;

/// Everything at one moment. Times are milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct State {
    pub now_ms: u64,
    pub started_ms: u64,
    pub devices: Vec<Device>,
    pub jobs: Vec<Job>,
    pub models: Vec<Model>,
    pub queues: Vec<Queue>,
    /// Set while the cap on evictions per minute holds work back.
    pub eviction_cap_reached: bool,
}

/// One device and who holds it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Device {
    pub id: String,
    pub class: String,
    pub memory_mib: u64,
    pub simulated: bool,
    /// `ok`, `draining`, `sick`, `lost`.
    pub health: String,
    /// What is wrong, if anything is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    pub holders: Vec<Holder>,
}

/// A claim on a device.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// `job` or `model`.
    pub kind: String,
    pub name: String,
    /// `starting`, `running`, `stopping`.
    pub phase: String,
    /// Used above the holder's own quota, and to be given back on demand.
    pub lent: bool,
}

/// A training job.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Job {
    pub name: String,
    pub queue: String,
    pub priority: i32,
    /// `waiting`, `starting`, `running`, `stopping`, `paused`, `succeeded`, `failed`, `cancelled`.
    pub phase: String,
    /// Why, in one sentence.
    pub reason: String,
    pub workers: u32,
    pub min: u32,
    pub max: u32,
    pub attempt: u32,
    pub failures: u32,
    pub step: u64,
    pub checkpoint_step: u64,
    /// How far it is by its own word, from 0 to 1.
    pub done: Option<f64>,
    pub metrics: BTreeMap<String, f64>,
    pub submitted_ms: u64,
    pub finished_ms: Option<u64>,
    /// When it is expected to start, a few seconds old; absent for one that does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<Eta>,
}

/// A model and its traffic over the last seconds.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub name: String,
    pub queue: String,
    pub priority: i32,
    /// `serving`, `waking`, `asleep`, `paused`, `starved` (wants devices and has none).
    pub phase: String,
    pub reason: String,
    pub slo_ms: u64,
    /// Devices that its demand asks for, and replicas that are ready, starting, draining.
    pub wanted: u32,
    pub ready: u32,
    pub starting: u32,
    pub draining: u32,
    pub arrival_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub queued: u32,
    pub held: u32,
    pub arrived: u64,
    pub answered: u64,
    pub refused: u64,
    pub late: u64,
    pub woken: u64,
    pub failed: u64,
    pub mean_batch: f64,
    /// Fitted service time of a batch of n rows: `base_ms + per_row_ms * n`.
    pub fit_base_ms: f64,
    pub fit_per_row_ms: f64,
}

/// A queue's quota of devices of any class.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    pub name: String,
    /// The queue above it.
    pub parent: Option<String>,
    pub nominal: u32,
    pub borrowing_limit: Option<u32>,
    pub used: u32,
    pub lent: u32,
}

/// Who held each device when.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    pub now_ms: u64,
    pub spans: Vec<Span>,
}

/// One holder on one device from `from_ms` to `to_ms` (absent: still).
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub device: String,
    pub kind: String,
    pub name: String,
    pub lent: bool,
    pub from_ms: u64,
    pub to_ms: Option<u64>,
}

/// One action of the engine with its reason.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub at_ms: u64,
    /// `start_job`, `stop_job`, `start_replica`, `stop_replica`.
    pub action: String,
    /// `job/NAME` or `model/NAME`.
    pub subject: String,
    pub detail: String,
    pub reason: String,
    /// Bounded word for the reason: `demand`, `reclaim`, `lend`, ...
    pub category: String,
}

/// Figures since the data directory was made.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub device_seconds: f64,
    /// Device-seconds that training used above its own quota while their owners did not need them.
    pub lent_gpu_seconds: f64,
    /// Device-seconds held, by `job/NAME` and `model/NAME`.
    pub held_gpu_seconds: BTreeMap<String, f64>,
    pub reclaims: u64,
    /// From the decision to stop training until its devices were free.
    pub reclaim_ms: Vec<u64>,
    /// Training steps done and lost again because no checkpoint held them, by job; one entry a stop.
    pub steps_lost: BTreeMap<String, Vec<u64>>,
    pub checkpoints: BTreeMap<String, u64>,
    /// Changes of a running job's size.
    pub resizes: BTreeMap<String, u64>,
    /// Most devices that the model's own demand asked for at any time.
    pub peak_wanted: BTreeMap<String, u32>,
    /// Times at which a second process of one attempt and rank was found running.
    pub double_runs: u64,
}

/// One applied document.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub kind: String,
    pub name: String,
    /// `created`, `configured`, `unchanged`.
    pub result: String,
}

/// What was done, in one sentence.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub message: String,
}

/// Why not, in one sentence with the remedy.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub error: String,
}

/// Why something is as it is.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    pub subject: String,
    pub status: String,
    /// Facts that bind, most important first.
    pub because: Vec<String>,
    /// What would change it.
    pub would_change: Vec<String>,
    /// Its last decisions.
    pub history: Vec<Decision>,
}
