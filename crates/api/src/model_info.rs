//! What a model file says of itself. On one box `tidegate replica --inspect` prints it before replicas are started; in a cluster, where
//! only replicas see the file, the first of them tells it and the `Model`'s status keeps it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A model's tensors, in the order of the file.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// The format, shown to clients as the platform: `onnx`.
    #[schemars(length(max = 64))]
    pub platform: String,
    /// What a request brings.
    #[schemars(length(max = 256))]
    pub inputs: Vec<TensorInfo>,
    /// What an answer holds.
    #[schemars(length(max = 256))]
    pub outputs: Vec<TensorInfo>,
}

/// One tensor of a model.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Unique among the inputs, and among the outputs.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Open Inference Protocol datatype: `FP32`, `INT64`, ...
    #[schemars(length(max = 16))]
    pub datatype: String,
    /// -1 for a free dimension.
    #[schemars(length(max = 32), inner(range(min = -1, max = 9_007_199_254_740_991_i64)))]
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
