//! What was decided, as far back as the ledger goes.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_runtime::ledger::{Kept, Ledger};

use super::Asker;
use super::questions::told;

/// Lines of one answer, at most and where nobody says how many.
const MOST: u32 = 1_000;
const USUAL: u32 = 100;

#[derive(Deserialize)]
pub(super) struct Wanted {
    job: Option<String>,
    before: Option<u64>,
    most: Option<u32>,
}

/// Newest first; `next` is what `before` is to be for those of before.
pub(super) async fn history(State(asker): State<Asker>, Query(wanted): Query<Wanted>) -> Response {
    let Some(shelf) = &asker.shelf else {
        return told(StatusCode::NOT_FOUND, "no ledger is kept; start the operator with --ledger");
    };
    let ledger = shelf.read().clone();
    let Some(ledger) = ledger else {
        return told(StatusCode::SERVICE_UNAVAILABLE, "this operator stands by, or its ledger cannot be reached now; ask again");
    };
    match read(&ledger, wanted).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => told(StatusCode::SERVICE_UNAVAILABLE, format!("{error}; ask again")),
    }
}

async fn read(ledger: &Ledger, wanted: Wanted) -> Result<Value, tidegate_runtime::ledger::Error> {
    let about = wanted.job.map(|job| if job.starts_with("job/") { job } else { format!("job/{job}") });
    let most = wanted.most.unwrap_or(USUAL).clamp(1, MOST);
    let kept = ledger.kept(about.as_deref(), wanted.before, most).await?;
    let next = kept.last().filter(|_| kept.len() == most as usize).map(|kept| kept.number);
    let lines: Vec<Value> = kept.iter().map(line).collect();
    Ok(json!({"history": lines, "next": next}))
}

fn line(kept: &Kept) -> Value {
    let mut line: Value = serde_json::from_str(&kept.decision).unwrap_or_else(|_| json!({"at_ms": kept.at_ms}));
    if let Some(fields) = line.as_object_mut() {
        fields.insert("number".to_owned(), kept.number.into());
    }
    line
}
