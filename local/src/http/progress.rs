//! Progress of training: JSON lines, with the token of the attempt. `docs/training-contract.md` is the contract.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tidegate_api::contract::{Progress, Told};

use super::{Api, failure};
use crate::world::ProgressRefusal;

/// Lines in one report.
const MAX_LINES: usize = 1_000;
/// Named figures in one line: they become rows on the page.
const MAX_METRICS: usize = 64;

pub(super) async fn progress(
    State(api): State<Api>,
    Path((job, attempt)): Path<(String, u32)>,
    Query(query): Query<HashMap<String, String>>,
    body: String,
) -> Response {
    let lines = match parse(&body) {
        Ok(lines) => lines,
        Err(error) => return failure(StatusCode::BAD_REQUEST, error),
    };
    let token = query.get("token").cloned().unwrap_or_default();
    let named = job.clone();
    match api.world.progress(job, attempt, token, lines).await {
        Ok(Ok(Some(choice))) => Json(Told { choice }).into_response(),
        Ok(Ok(None)) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(ProgressRefusal::Unknown)) => failure(StatusCode::NOT_FOUND, format!("there is no job/{named}")),
        Ok(Err(ProgressRefusal::Token)) => {
            failure(StatusCode::FORBIDDEN, "the token is not this attempt's; use TIDEGATE_PROGRESS_URL as it is")
        }
        Ok(Err(ProgressRefusal::Stale)) => {
            failure(StatusCode::CONFLICT, format!("attempt {attempt} of job/{named} is over; this process should end"))
        }
        Err(refused) => refused.into_response(),
    }
}

fn parse(body: &str) -> Result<Vec<Progress>, String> {
    let mut lines = Vec::new();
    for (index, line) in body.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        let parsed: Progress = serde_json::from_str(line).map_err(|e| format!("line {number}: {e}"))?;
        if parsed.metrics.len() > MAX_METRICS {
            return Err(format!("line {number}: metrics: {} names; at most {MAX_METRICS}", parsed.metrics.len()));
        }
        if let Some(done) = parsed.done.filter(|done| !(0.0..=1.0).contains(done)) {
            return Err(format!("line {number}: done: {done} is not from 0 to 1; write the part of all its work that is done"));
        }
        lines.push(parsed);
    }
    match lines.len() {
        0 => Err("the body holds no line; post JSON lines such as {\"step\":120}".to_owned()),
        count if count > MAX_LINES => Err(format!("{count} lines; at most {MAX_LINES} in one report")),
        _ => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_line_of_the_contract_is_read() {
        let lines =
            parse("{\"step\":120,\"metrics\":{\"loss\":0.41},\"checkpoint\":{\"step\":100}}\n\n{\"step\":121}\n").unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].checkpoint.as_ref().unwrap().step, 100);
    }

    #[test]
    fn a_broken_line_is_named_by_its_number() {
        let error = parse("{\"step\":1}\n{\"stop\":2}\n").unwrap_err();
        assert!(error.starts_with("line 2:"), "{error}");
        assert!(parse("").is_err());
        assert!(parse("{\"step\":-1}").is_err());
    }

    #[test]
    fn done_is_a_part_of_the_whole() {
        let ppm = |done: &str| Ok::<_, String>(parse(&format!("{{\"step\":1,\"done\":{done}}}"))?[0].done_ppm());
        assert_eq!(ppm("0.25"), Ok(Some(250_000)));
        assert_eq!((ppm("0"), ppm("1"), ppm("null")), (Ok(Some(0)), Ok(Some(1_000_000)), Ok(None)));
        for wrong in ["1.01", "-0.5", "25"] {
            let error = ppm(wrong).unwrap_err();
            assert!(error.starts_with("line 1: done: ") && error.contains("from 0 to 1"), "{error}");
        }
    }
}
