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

/// The beginning of a text of at most so many bytes, which ends with a whole character.
pub fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

impl Condition {
    /// A condition that is `now` so; since when, if it was so in `was`, is kept.
    pub fn new(kind: &str, holds: bool, reason: &str, message: &str, generation: i64, was: &[Self], now: &str) -> Self {
        let status = if holds { "True" } else { "False" };
        let known = was.iter().find(|known| known.kind == kind && known.status == status);
        Self {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: cut(message, MAX_MESSAGE).to_owned(),
            observed_generation: generation,
            last_transition_time: known.map_or_else(|| now.to_owned(), |known| known.last_transition_time.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_not_cut_in_the_middle_of_a_character() {
        for character in ["a", "é", "漢", "😀"] {
            let condition = Condition::new("Accepted", false, "Invalid", &format!("-{}", character.repeat(2_000)), 1, &[], "now");
            assert!(condition.message.len() <= MAX_MESSAGE && condition.message.len() > MAX_MESSAGE - 5);
            assert!(condition.message.trim_start_matches('-').chars().all(|c| character.starts_with(c)));
        }
        assert_eq!(cut("short", 1_000), "short");
    }
}
