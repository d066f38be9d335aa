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
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: i64,
    /// Since when its status is that, in RFC 3339.
    #[schemars(length(max = 40))]
    pub last_transition_time: String,
}

/// The schema's bound on a sentence.
pub const MAX_MESSAGE: usize = 1024;

impl Condition {
    /// A condition that is `now` so; since when, if it was so in `was`, is kept.
    pub fn new(kind: &str, holds: bool, reason: &str, message: &str, generation: i64, was: &[Self], now: &str) -> Self {
        let status = if holds { "True" } else { "False" };
        let known = was.iter().find(|known| known.kind == kind && known.status == status);
        Self {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(MAX_MESSAGE).collect(),
            observed_generation: generation,
            last_transition_time: known.map_or_else(|| now.to_owned(), |known| known.last_transition_time.clone()),
        }
    }
}
