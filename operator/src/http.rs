//! What the operator answers: metrics and health to everybody, the rest to those whom Kubernetes lets read it.

mod auth;

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kube::Client;
use prometheus::Registry;
use serde::Deserialize;
use serde_json::json;
use tidegate_api::contract::{self, Told};
use tidegate_runtime::admin::{self, Readiness};
use tokio::sync::{mpsc, oneshot};

use crate::facts::PodKey;
use crate::index::{Refused, Report};
use crate::world::{Ask, Planned};

/// Everything that is served. `asks` leads to the world, if this process has one by now.
pub fn routes(registry: Registry, readiness: Readiness, client: Client, asks: mpsc::Sender<Ask>) -> Router {
    let asking = Router::new()
        .route("/snapshot", get(snapshot))
        .route("/plans", get(plans))
        .route("/explain", get(explain))
        .with_state(asks.clone())
        .layer(middleware::from_fn_with_state(Arc::new(auth::Gate::new(client)), guard));
    // Workers have a token of their own.
    let reporting = Router::new().route("/progress/{namespace}/{job}/{attempt}", post(progress)).with_state(asks);
    admin::routes(registry, readiness).merge(asking).merge(reporting)
}

async fn guard(State(gate): State<Arc<auth::Gate>>, request: Request, next: Next) -> Response {
    match gate.check(request.headers(), request.uri().path()).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Asks the world; 503 while there is none, because this process stands by.
async fn ask<T>(asks: &mpsc::Sender<Ask>, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Response> {
    let (to, answer) = oneshot::channel();
    let asked = asks.try_send(question(to)).is_ok();
    let answer = if asked { answer.await.ok() } else { None };
    answer.ok_or_else(|| {
        (StatusCode::SERVICE_UNAVAILABLE, "this operator stands by or is busy; ask the one that leads\n").into_response()
    })
}

async fn snapshot(State(asks): State<mpsc::Sender<Ask>>) -> Response {
    match ask(&asks, Ask::Snapshot).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response(),
        Ok(Err(problem)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("write the snapshot: {problem}\n")).into_response(),
        Err(response) => response,
    }
}

async fn plans(State(asks): State<mpsc::Sender<Ask>>) -> Response {
    match ask(&asks, Ask::Plans).await {
        Ok(plans) => Json(json!({"plans": plans.iter().map(AsRef::as_ref).collect::<Vec<&Planned>>()})).into_response(),
        Err(response) => response,
    }
}

#[derive(Deserialize)]
struct Explain {
    job: Option<String>,
}

async fn explain(State(asks): State<mpsc::Sender<Ask>>, Query(query): Query<Explain>) -> Response {
    let Some(name) = query.job else {
        return (StatusCode::BAD_REQUEST, "name a job: /explain?job=pod/NAMESPACE/NAME or gang/NAMESPACE/NAME\n").into_response();
    };
    match ask(&asks, |to| Ask::Explain(name.clone(), to)).await {
        Ok(Some(told)) => Json(told).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, format!("there is no job {name}; pods that run or wait are pod/NAMESPACE/NAME\n"))
            .into_response(),
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
    State(asks): State<mpsc::Sender<Ask>>,
    Path((namespace, job, attempt)): Path<(String, String, u32)>,
    Query(Token { token }): Query<Token>,
    body: String,
) -> Response {
    let lines = match contract::parse_progress(&body) {
        Ok(lines) => lines,
        Err(problem) => return (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
    };
    let report = Report { job: PodKey::new(&namespace, &job), attempt, token, lines };
    let refused = match ask(&asks, |to| Ask::Progress(report, to)).await {
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
