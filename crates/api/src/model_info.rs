//! What a model file says of itself: `tidegate replica --inspect` prints it, a world reads it before it starts replicas.

use serde::{Deserialize, Serialize};

/// A model's tensors, in the order of the file.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// The format, shown to clients as the platform: `onnx`.
    pub platform: String,
    /// What a request brings.
    pub inputs: Vec<TensorInfo>,
    /// What an answer holds.
    pub outputs: Vec<TensorInfo>,
}

/// One tensor of a model.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TensorInfo {
    /// Unique among the inputs, and among the outputs.
    pub name: String,
    /// Open Inference Protocol datatype: `FP32`, `INT64`, ...
    pub datatype: String,
    /// -1 for a free dimension.
    pub shape: Vec<i64>,
    /// The first dimension is the batch. The same for all tensors of a model: requests to a model that is not
    /// batched are served one at a time, as they come.
    pub batched: bool,
}

impl ModelInfo {
    /// Whether requests may be stacked along the first dimension.
    pub fn is_batched(&self) -> bool {
        !self.inputs.is_empty() && self.inputs.iter().chain(&self.outputs).all(|tensor| tensor.batched)
    }
}
