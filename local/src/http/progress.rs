//! Progress of training: JSON lines, with the token of the attempt. `docs/training-contract.md` is the contract.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tidegate_api::contract::{self, Told};

use super::{Api, failure};
use crate::world::ProgressRefusal;

pub(super) async fn progress(
    State(api): State<Api>,
    Path((job, attempt)): Path<(String, u32)>,
    Query(query): Query<HashMap<String, String>>,
    body: String,
) -> Response {
    let lines = match contract::parse_progress(&body) {
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
