//! Kinds to the engine's types. Validated objects convert without error.

mod ask;
mod demand;
mod labels;
mod queue;
mod workers;

pub use ask::ask;
pub use demand::{Judged, demand};
pub use labels::affinity;
pub use queue::queue;
pub use workers::{device_classes, groups};

use tidegate_core::names::{Namespace, QueueName};
use tidegate_core::policy::Policy;
use tidegate_core::state::{JobSpec, ModelMemory, ModelSpec};

use crate::control;
use crate::kinds;
use crate::model_info::{ModelInfo, TensorInfo};

/// A pool's policy.
pub fn policy(spec: &kinds::PoolSpec) -> Policy {
    Policy {
        headroom_percent: spec.headroom_percent,
        burst_sigmas_percent: spec.burst_sigmas_percent,
        lend_after_ms: u64::from(spec.lend_after_seconds) * 1000,
        grow_after_ms: u64::from(spec.grow_after_seconds) * 1000,
        max_evictions_per_minute: spec.max_evictions_per_minute,
        levels: spec.topology_levels.clone(),
        half_life_ms: u64::from(spec.half_life_seconds) * 1000,
        history_percent: spec.history_percent,
        fair_reclaim: spec.fair_reclaim,
        max_reservations: spec.max_reservations,
        predict_percent: spec.predict_percent,
        consolidate: spec.consolidate,
        ..Policy::default()
    }
}

/// A job of this name, submitted in this namespace, as the engine sees it.
pub fn job(name: &str, namespace: &str, spec: &kinds::TrainingJobSpec) -> JobSpec {
    JobSpec {
        queue: QueueName::from(spec.queue.as_str()),
        namespace: Namespace::from(namespace),
        priority: spec.priority,
        owner: spec.owner.clone(),
        recipe: spec.recipe.clone().unwrap_or_else(|| recipe(name).to_owned()),
        groups: groups(spec),
        spread: workers::between_groups(spec),
        preemptible: spec.preemptible,
        min_runtime_ms: u64::from(spec.min_runtime_seconds) * 1000,
        max_disruptions_per_hour: spec.max_disruptions_per_hour.unwrap_or(u32::MAX),
        restart_ms: u64::from(spec.checkpoint.restart_seconds) * 1000,
        backoff_limit: spec.backoff_limit,
        gang_timeout_ms: u64::from(spec.gang_timeout_seconds) * 1000,
        expected_ms: spec.expected_seconds.map(|seconds| u64::from(seconds) * 1000),
        speedup: workers::speedup(spec),
    }
}

/// What kind of run a job is by its name: the name without a number at its end, unless that is all of it.
fn recipe(name: &str) -> &str {
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
    if kind.is_empty() { name } else { kind }
}

/// A model of this namespace as the engine sees it. `generation` rises when its replicas must be replaced.
pub fn model(namespace: &str, spec: &kinds::ModelSpec, generation: u64) -> ModelSpec {
    ModelSpec {
        queue: QueueName::from(spec.queue.as_str()),
        namespace: Namespace::from(namespace),
        priority: spec.priority,
        ask: ask(&spec.gpu, spec.node_affinity.as_ref()),
        slo_ms: u64::from(spec.slo_milliseconds),
        min: spec.replicas.min,
        max: spec.replicas.max,
        zero_after_ms: u64::from(spec.scale_to_zero_after_seconds) * 1000,
        max_rows: spec.batching.max_rows,
        max_sharers: spec.max_sharers,
        memory: spec.memory.as_ref().map(memory),
        generation,
    }
}

/// Device memory of a replica as the engine sees it.
pub fn memory(memory: &kinds::ModelMemory) -> ModelMemory {
    ModelMemory { weights_mib: u64::from(memory.weights_mib), row_kib: u64::from(memory.per_row_kib) }
}

/// A model as routers see it, without endpoints. Paths must be absolute.
pub fn model_config(name: &str, spec: &kinds::ModelSpec, info: &ModelInfo) -> control::ModelConfig {
    let control::ModelTensors { platform, inputs, outputs } = model_tensors(info);
    let slo_ms = u64::from(spec.slo_milliseconds);
    control::ModelConfig {
        name: name.to_owned(),
        slo_ms,
        cold_start_budget_ms: spec.cold_start_budget_milliseconds.map_or(slo_ms, u64::from),
        max_batch_rows: if info.is_batched() { spec.batching.max_rows } else { 1 },
        max_batch_tokens: spec.batching.max_tokens.unwrap_or(0),
        max_queued_requests: spec.batching.max_queued_requests,
        max_queued_bytes: u64::from(spec.batching.max_queued_mib) << 20,
        inputs,
        outputs,
        embedding: spec.embedding.as_ref().map(|embedding| control::Embedding {
            tokenizer_path: embedding.tokenizer.clone(),
            max_tokens: embedding.max_tokens,
        }),
        endpoints: Vec::new(),
        paused: false,
        platform,
    }
}

/// A model's tensors on the wire.
pub fn model_tensors(info: &ModelInfo) -> control::ModelTensors {
    let tensor = |tensor: &TensorInfo| control::TensorSpec {
        name: tensor.name.clone(),
        datatype: tensor.datatype.clone(),
        shape: tensor.shape.clone(),
        batched: tensor.batched,
    };
    control::ModelTensors {
        platform: info.platform.clone(),
        inputs: info.inputs.iter().map(tensor).collect(),
        outputs: info.outputs.iter().map(tensor).collect(),
    }
}

/// The same as a replica has told it.
pub fn model_info(told: &control::ModelTensors) -> ModelInfo {
    let tensor = |tensor: &control::TensorSpec| TensorInfo {
        name: tensor.name.clone(),
        datatype: tensor.datatype.clone(),
        shape: tensor.shape.clone(),
        batched: tensor.batched,
    };
    ModelInfo {
        platform: told.platform.clone(),
        inputs: told.inputs.iter().map(tensor).collect(),
        outputs: told.outputs.iter().map(tensor).collect(),
    }
}

#[cfg(test)]
mod tests;
