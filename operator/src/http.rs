//! What the operator answers: metrics and health to everybody, the rest to those whom Kubernetes lets read it.

mod auth;

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use kube::Client;
use prometheus::Registry;
use serde::Deserialize;
use serde_json::json;
use tidegate_runtime::admin::{self, Readiness};
use tokio::sync::{mpsc, oneshot};

use crate::world::{Ask, Planned};

/// Everything that is served. `asks` leads to the world, if this process has one by now.
pub fn routes(registry: Registry, readiness: Readiness, client: Client, asks: mpsc::Sender<Ask>) -> Router {
    let asking = Router::new()
        .route("/snapshot", get(snapshot))
        .route("/plans", get(plans))
        .route("/explain", get(explain))
        .with_state(asks)
        .layer(middleware::from_fn_with_state(Arc::new(auth::Gate::new(client)), guard));
    admin::routes(registry, readiness).merge(asking)
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
