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
pub fn definitions() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt;
    vec![Pool::crd(), Queue::crd(), TrainingJob::crd(), Model::crd(), GpuNode::crd()]
}
