//! The configuration of a model, checked once when it arrives.

use std::path::PathBuf;

use thiserror::Error;
use tidegate_api::control;
use tidegate_core::serving::Limits;

use crate::tensor::Datatype;

/// Why a model's configuration cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error("tensor {tensor} has the unknown datatype {datatype:?}")]
    Datatype { tensor: String, datatype: String },
    #[error("batched tensor {tensor} has no batch dimension")]
    NoBatchDimension { tensor: String },
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub datatype: Datatype,
    /// -1: free. The first dimension is the batch when `batched`.
    pub shape: Vec<i64>,
    pub batched: bool,
}

/// How text becomes inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingSpec {
    pub tokenizer: PathBuf,
    pub max_tokens: usize,
}

/// Where a replica serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    pub replica: String,
    /// host:port.
    pub address: String,
    pub draining: bool,
}

/// A model's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    pub name: String,
    pub platform: String,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub limits: Limits,
    pub embedding: Option<EmbeddingSpec>,
    pub endpoints: Vec<EndpointSpec>,
    pub paused: bool,
}

/// Name of the input that tells real tokens from padding.
pub const ATTENTION_MASK: &str = "attention_mask";

impl ModelSpec {
    /// Whether rows of different lengths may be padded to share a batch: an attention mask tells the
    /// model what is padding, and no output depends on the length.
    pub fn pads(&self) -> bool {
        let sequence = |t: &TensorSpec| t.batched && t.datatype == Datatype::Int64 && matches!(t.shape.as_slice(), [_, -1]);
        let fixed = |t: &TensorSpec| t.batched && t.shape.iter().skip(1).all(|dim| *dim >= 0);
        self.embedding.is_some()
            && self.inputs.iter().any(|t| t.name == ATTENTION_MASK)
            && self.inputs.iter().all(sequence)
            && self.outputs.iter().all(fixed)
    }

    /// Whether requests may share a batch at all: every tensor has a batch dimension.
    pub fn batches(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).all(|t| t.batched)
    }
}

impl TryFrom<control::ModelConfig> for ModelSpec {
    type Error = Error;

    fn try_from(config: control::ModelConfig) -> Result<Self, Error> {
        let control::ModelConfig {
            name,
            slo_ms,
            cold_start_budget_ms,
            max_batch_rows,
            max_batch_tokens,
            max_queued_requests,
            max_queued_bytes,
            inputs,
            outputs,
            embedding,
            endpoints,
            paused,
            platform,
        } = config;
        let limits = Limits {
            max_rows: max_batch_rows.max(1),
            max_tokens: (max_batch_tokens > 0).then_some(max_batch_tokens),
            max_requests: usize::try_from(max_queued_requests).unwrap_or(usize::MAX),
            max_bytes: max_queued_bytes,
            slo_us: slo_ms.saturating_mul(1000),
            cold_start_us: cold_start_budget_ms.saturating_mul(1000),
        };
        Ok(Self {
            name,
            platform,
            inputs: inputs.into_iter().map(tensor).collect::<Result<_, _>>()?,
            outputs: outputs.into_iter().map(tensor).collect::<Result<_, _>>()?,
            limits,
            embedding: embedding.map(|e| EmbeddingSpec {
                tokenizer: PathBuf::from(e.tokenizer_path),
                max_tokens: usize::try_from(e.max_tokens.max(1)).unwrap_or(usize::MAX),
            }),
            endpoints: endpoints.into_iter().map(endpoint).collect(),
            paused,
        })
    }
}

fn endpoint(e: control::Endpoint) -> EndpointSpec {
    EndpointSpec { replica: e.replica_id, address: e.address, draining: e.draining }
}

fn tensor(t: control::TensorSpec) -> Result<TensorSpec, Error> {
    let Some(datatype) = Datatype::parse(&t.datatype) else {
        return Err(Error::Datatype { tensor: t.name, datatype: t.datatype });
    };
    if t.batched && t.shape.is_empty() {
        return Err(Error::NoBatchDimension { tensor: t.name });
    }
    Ok(TensorSpec { name: t.name, datatype, shape: t.shape, batched: t.batched })
}
