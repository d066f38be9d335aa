//! Kinds to the engine's types. Validated objects convert without error.

use tidegate_core::names::{Class, QueueName};
use tidegate_core::policy::Policy;
use tidegate_core::state::{Amount, Ask, JobSpec, ModelSpec, Queue};

use crate::control;
use crate::kinds;
use crate::model_info::{ModelInfo, TensorInfo};

/// A pool's policy.
pub fn policy(spec: &kinds::PoolSpec) -> Policy {
    Policy {
        headroom_percent: spec.headroom_percent,
        lend_after_ms: u64::from(spec.lend_after_seconds) * 1000,
        grow_after_ms: u64::from(spec.grow_after_seconds) * 1000,
        max_evictions_per_minute: spec.max_evictions_per_minute,
    }
}

/// A queue's quota.
pub fn queue(spec: &kinds::QueueSpec) -> Queue {
    Queue { nominal: spec.nominal, borrowing_limit: spec.borrowing_limit }
}

/// What a worker or replica asks of a device.
pub fn ask(gpu: &kinds::GpuAsk) -> Ask {
    Ask {
        amount: gpu.memory_mib.map_or(Amount::Whole, |mib| Amount::MemoryMib(u64::from(mib))),
        classes: gpu.classes.iter().map(|class| Class(class.clone())).collect(),
    }
}

/// A job as the engine sees it.
pub fn job(spec: &kinds::TrainingJobSpec) -> JobSpec {
    JobSpec {
        queue: QueueName(spec.queue.clone()),
        priority: spec.priority,
        min: spec.workers.min,
        max: spec.workers.max,
        ask: ask(&spec.gpu),
        restart_ms: u64::from(spec.checkpoint.restart_seconds) * 1000,
        backoff_limit: spec.backoff_limit,
    }
}

/// A model as the engine sees it. `generation` rises when its replicas must be replaced.
pub fn model(spec: &kinds::ModelSpec, generation: u64) -> ModelSpec {
    ModelSpec {
        queue: QueueName(spec.queue.clone()),
        priority: spec.priority,
        ask: ask(&spec.gpu),
        slo_ms: u64::from(spec.slo_milliseconds),
        min: spec.replicas.min,
        max: spec.replicas.max,
        zero_after_ms: u64::from(spec.scale_to_zero_after_seconds) * 1000,
        max_rows: spec.batching.max_rows,
        generation,
    }
}

/// A model as routers see it, without endpoints. Paths must be absolute.
pub fn model_config(name: &str, spec: &kinds::ModelSpec, info: &ModelInfo) -> control::ModelConfig {
    let tensor = |tensor: &TensorInfo| control::TensorSpec {
        name: tensor.name.clone(),
        datatype: tensor.datatype.clone(),
        shape: tensor.shape.clone(),
        batched: tensor.batched,
    };
    let slo_ms = u64::from(spec.slo_milliseconds);
    control::ModelConfig {
        name: name.to_owned(),
        slo_ms,
        cold_start_budget_ms: spec.cold_start_budget_milliseconds.map_or(slo_ms, u64::from),
        max_batch_rows: if info.is_batched() { spec.batching.max_rows } else { 1 },
        max_batch_tokens: spec.batching.max_tokens.unwrap_or(0),
        max_queued_requests: spec.batching.max_queued_requests,
        max_queued_bytes: u64::from(spec.batching.max_queued_mib) << 20,
        inputs: info.inputs.iter().map(tensor).collect(),
        outputs: info.outputs.iter().map(tensor).collect(),
        embedding: spec.embedding.as_ref().map(|embedding| control::Embedding {
            tokenizer_path: embedding.tokenizer.clone(),
            max_tokens: embedding.max_tokens,
        }),
        endpoints: Vec::new(),
        paused: false,
        platform: info.platform.clone(),
    }
}
