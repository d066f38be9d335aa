//! The kinds that a user writes, and `GpuNode`, which the node agent writes. Every field is acted on; unknown fields are refused.
//!
//! Rules that a single field's type cannot say are CEL, so that Kubernetes refuses at admission
//! what `tidegate up` refuses when it reads the file, with the same sentence.

mod condition;
mod gpu;
mod gpu_node;
mod labels;
mod model;
mod pool;
mod queue;
pub mod reference;
mod training_job;
mod workers;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

pub use condition::{Condition, MAX_MESSAGE, cut};
pub use gpu::{ClassSpeed, GpuAsk, MigProfile};
pub use gpu_node::{GpuFinding, GpuHealth, GpuNode, GpuNodeSpec, GpuNodeStatus, GpuStatus, MigStatus};
pub use labels::{LabelOperator, LabelRequirement, NamespaceSelector, NodeAffinity, NodeSelector, NodeTerm, PreferredTerm};
pub use model::{Batching, Embedding, Model, ModelMemory, ModelSpec, ModelStatus, Pace, ReplicaRange, Source};
pub use pool::{Pool, PoolSpec, PoolStatus};
pub use queue::{Discipline, Queue, QueueSpec, QueueStatus, ResourceQuota};
pub use training_job::{CheckpointSpec, EnvVar, TrainingJob, TrainingJobSpec, TrainingJobStatus, TrainingPhase, WorkerTemplate};
pub use workers::{SpeedupPoint, SpreadWish, WorkerGroup, WorkerRange};

/// API group of every kind.
pub const GROUP: &str = "tidegate.dev";
/// Version of every kind.
pub const VERSION: &str = "v1alpha1";

/// Every custom resource definition, in the order in which a user meets them.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let all = vec![Pool::crd(), Queue::crd(), TrainingJob::crd(), Model::crd(), GpuNode::crd()];
    all.into_iter().map(for_people).collect()
}

/// `kubectl apply` warns of each format that Kubernetes does not know; bounds say what these would. `kubectl explain` begins with what
/// the kind is.
fn for_people(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, value| name != "format" || !value.as_str().is_some_and(|format| format.starts_with("uint")));
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::to_value(&definition) else { return definition };
    strip(&mut value);
    for version in value["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        schema["description"] = schema["properties"]["spec"]["description"].clone();
    }
    serde_json::from_value(value).unwrap_or(definition)
}
