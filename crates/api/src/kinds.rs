//! The kinds that a user writes. Every field is acted on; unknown fields are refused.
//!
//! Rules that a single field's type cannot say are CEL, so that Kubernetes refuses at admission
//! what `tidegate up` refuses when it reads the file, with the same sentence.

mod model;
mod pool;
mod queue;
mod training_job;

pub use model::{Batching, Embedding, Model, ModelSpec, Pace, ReplicaRange, Source};
pub use pool::{Pool, PoolSpec};
pub use queue::{Queue, QueueSpec};
pub use training_job::{CheckpointSpec, EnvVar, TrainingJob, TrainingJobSpec, WorkerRange, WorkerTemplate};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API group of every kind.
pub const GROUP: &str = "tidegate.dev";
/// Version of every kind.
pub const VERSION: &str = "v1alpha1";

/// What one worker or one replica asks of a device. Empty: a whole device of any class.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GpuAsk {
    /// A share of one device's memory, in MiB; others may use the rest. Without it the device is taken whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_194_304))]
    pub memory_mib: Option<u32>,
    /// Device classes that will do, for instance `H100-80GB`. Empty: any class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub classes: Vec<String>,
}

/// Every custom resource definition, in the order in which a user meets them.
pub fn definitions() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt;
    vec![Pool::crd(), Queue::crd(), TrainingJob::crd(), Model::crd()]
}
