//! One aspect of an object's state, in Kubernetes' form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One aspect of an object's state.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(length(min = 1, max = 7))]
    pub status: String,
    /// A word for programs.
    #[schemars(length(min = 1, max = 63))]
    pub reason: String,
    /// A sentence for people.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// The generation that it is about.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub observed_generation: i64,
    /// Since when its status is that, in RFC 3339.
    #[schemars(length(max = 40))]
    pub last_transition_time: String,
}
