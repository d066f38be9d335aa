//! From an HTTP answer to one of the four ends that a request can have.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::traffic::Traffic;

/// Set by the router on answers to requests that were held while the model had no ready replica.
pub(crate) const WOKEN: &str = "x-tidegate-woken";
/// Rows of the batch that the request was part of.
pub(crate) const BATCH_ROWS: &str = "x-tidegate-batch-rows";

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200 with the right body.
    Answered { woken: bool, batch_rows: Option<u32> },
    /// 429 or 503 that says when to come again and why.
    Refused,
    /// Any other answer.
    Failed(String),
    /// No answer.
    Lost(String),
}

/// Longest part of a body that a report quotes.
const QUOTED_BYTES: usize = 200;

pub(crate) fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], traffic: &Traffic, pick: usize) -> Outcome {
    if status == StatusCode::OK {
        return match traffic.check(pick, body) {
            Ok(()) => Outcome::Answered { woken: is_woken(headers), batch_rows: number(headers, BATCH_ROWS) },
            Err(why) => Outcome::Failed(format!("wrong answer: {why}")),
        };
    }
    let overloaded = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
    if overloaded && number(headers, RETRY_AFTER.as_str()).is_some() && has_error(body) {
        return Outcome::Refused;
    }
    let quoted = String::from_utf8_lossy(body.get(..QUOTED_BYTES).unwrap_or(body));
    Outcome::Failed(format!("{status}: {quoted}"))
}

fn is_woken(headers: &HeaderMap) -> bool {
    headers.get(WOKEN).is_some_and(|value| value != "0" && value != "false")
}

fn number(headers: &HeaderMap, name: &str) -> Option<u32> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `{"error": ...}`, a text (Open Inference Protocol) or an object (`OpenAI`).
fn has_error(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|value| value.get("error").is_some())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::script::Script;

    fn traffic() -> Traffic {
        let script = "models: [{name: m, slo_ms: 1, cold_start_budget_ms: 1, traffic: {protocol: embeddings, dimensions: 2, \
                      sentences: 1}, requests_per_second: [[0, 1], [1, 1]]}]";
        let script = Script::parse(script, Path::new("day.yaml")).unwrap();
        Traffic::prepare(&script, &script.models[0], 1).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (reqwest::header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    /// Base64 of the two little-endian floats 0 and 1.
    const RIGHT: &[u8] = br#"{"data":[{"embedding":"AAAAAAAAgD8="}]}"#;

    #[test]
    fn an_answer_says_whether_it_woke_the_model_and_how_large_its_batch_was() {
        let woken = headers(&[(WOKEN, "1"), (BATCH_ROWS, "3")]);
        assert_eq!(judge(StatusCode::OK, &woken, RIGHT, &traffic(), 0), Outcome::Answered { woken: true, batch_rows: Some(3) });
        let warm = headers(&[(WOKEN, "false")]);
        assert_eq!(judge(StatusCode::OK, &warm, RIGHT, &traffic(), 0), Outcome::Answered { woken: false, batch_rows: None });
    }

    #[test]
    fn a_200_with_a_wrong_body_has_failed() {
        assert!(
            matches!(judge(StatusCode::OK, &headers(&[]), b"{}", &traffic(), 0), Outcome::Failed(why) if why.contains("wrong"))
        );
    }

    #[test]
    fn a_refusal_must_say_when_to_come_again_and_why() {
        let polite = headers(&[("retry-after", "1")]);
        let body = br#"{"error":"the queue is full"}"#;
        assert_eq!(judge(StatusCode::SERVICE_UNAVAILABLE, &polite, body, &traffic(), 0), Outcome::Refused);
        assert_eq!(judge(StatusCode::TOO_MANY_REQUESTS, &polite, body, &traffic(), 0), Outcome::Refused);
        assert!(matches!(judge(StatusCode::SERVICE_UNAVAILABLE, &headers(&[]), body, &traffic(), 0), Outcome::Failed(_)));
        assert!(matches!(judge(StatusCode::SERVICE_UNAVAILABLE, &polite, b"", &traffic(), 0), Outcome::Failed(_)));
        assert!(matches!(judge(StatusCode::INTERNAL_SERVER_ERROR, &polite, body, &traffic(), 0), Outcome::Failed(_)));
    }
}
