//! What the operator answers: metrics, health and the page's files to everybody, the rest to those whom Kubernetes lets read it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /plans` | what was decided last, and why |
//! | `GET /history?job=NAME&before=NUMBER&most=N` | what was decided ever, as far as the ledger goes |
//! | `GET /explain?job=NAME` | why it stands as it does, and what would change that |
//! | `GET /eta`, `GET /eta?job=NAME` | when those that wait are expected to start |
//! | `POST /what-if` | what a change would do ([`tidegate_api::what_if::Request`]) |
//! | `GET /snapshot` | the engine's whole state |
//! | `GET /state`, `/timeline?since=MS`, `/decisions` | what the page shows, as [`tidegate_api::view`] says |
//!
//! The same below `/api/v1`, as of a running `up`. Who may get what is asked of Kubernetes by the short path: those below `/api` are
//! everybody's in many clusters.

mod asker;
mod history;
mod questions;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use tidegate_api::contract::{self, Told};
use tidegate_runtime::admin::{self, Readiness};
use tidegate_runtime::page;

use crate::auth::Gate;
use crate::facts::PodKey;
use crate::index::{Refused, Report};
use crate::metrics::Metrics;
use crate::world::{Ask, Planned};
pub use asker::Asker;

/// Bytes of a request: a thousand changes.
const MAX_BODY: usize = 1 << 20;

/// Everything that is served. `asker` leads to the world, if this process has one by now.
pub fn routes(metrics: &Metrics, readiness: Readiness, client: Client, asker: Asker) -> Router {
    let gate = Arc::new(Gate::new(client, None));
    let asking = asking().layer(DefaultBodyLimit::max(MAX_BODY)).with_state(asker.clone());
    let asking = Router::new().nest("/api/v1", asking.clone()).merge(asking);
    let asking = asking.layer(middleware::from_fn_with_state(gate, guard));
    // Workers have a token of their own.
    let reporting = Router::new().route("/progress/{namespace}/{job}/{attempt}", post(progress)).with_state(asker);
    admin::routes(metrics.registry.clone(), readiness).merge(asking).merge(reporting).merge(page::routes())
}

fn asking() -> Router<Asker> {
    Router::new()
        .route("/snapshot", get(questions::snapshot))
        .route("/plans", get(plans))
        .route("/history", get(history::history))
        .route("/explain", get(questions::explain))
        .route("/eta", get(questions::eta))
        .route("/what-if", post(questions::what_if))
        .route("/state", get(questions::state))
        .route("/timeline", get(questions::timeline))
        .route("/decisions", get(questions::decisions))
}

async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.check(request.headers(), request.method(), request.uri().path()).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn plans(State(asker): State<Asker>) -> Response {
    match asker.world(Ask::Plans).await {
        Ok(plans) => Json(json!({"plans": plans.iter().map(AsRef::as_ref).collect::<Vec<&Planned>>()})).into_response(),
        Err(response) => response,
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
}

/// `docs/training-contract.md` says what workers make of the answers.
async fn progress(
    State(asker): State<Asker>,
    Path((namespace, job, attempt)): Path<(String, String, u32)>,
    Query(Token { token }): Query<Token>,
    body: String,
) -> Response {
    let lines = match contract::parse_progress(&body) {
        Ok(lines) => lines,
        Err(problem) => return (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
    };
    let report = Report { job: PodKey::new(&namespace, &job), attempt, token, lines };
    let refused = match asker.world(|to| Ask::Progress(report, to)).await {
        Ok(Ok(Some(choice))) => return Json(Told { choice }).into_response(),
        Ok(Ok(None)) => return StatusCode::NO_CONTENT.into_response(),
        Ok(Err(refused)) => refused,
        Err(response) => return response,
    };
    let (status, why) = match refused {
        Refused::Unknown => (StatusCode::NOT_FOUND, format!("there is no training job {namespace}/{job}")),
        Refused::Token => (StatusCode::FORBIDDEN, "the token is not this job's; use TIDEGATE_PROGRESS_URL as it is".to_owned()),
        Refused::Stale => {
            (StatusCode::CONFLICT, format!("attempt {attempt} of {namespace}/{job} is over; this process should end"))
        }
    };
    (status, format!("{why}\n")).into_response()
}

#[cfg(test)]
mod tests;
