//! Questions that run the engine ahead: expected starts, and what would be different. Each is answered on a copy of the
//! engine and off the runtime's workers, so that neither the world nor other requests wait for it. `--snapshot` of the command
//! line asks the same questions of the copy that [`snapshot`] hands out.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidegate_api::eta::{self, NoEta};
use tidegate_api::what_if::Request;
use tidegate_core::time::At;
use tidegate_core::{Engine, what_if};

use super::{Api, failure};
use crate::world::{World, now_ms};

/// The engine's whole state: for a bug report, to be replayed, or to be asked.
pub(super) async fn snapshot(State(api): State<Api>) -> Response {
    ask(&api, |engine| match engine.snapshot() {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(e) => failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    })
    .await
}

/// When those that wait are expected to start.
pub(super) async fn etas(State(api): State<Api>) -> Response {
    ask(&api, |engine| Json(eta::all(engine, At(now_ms()))).into_response()).await
}

/// The same of one job.
pub(super) async fn eta(State(api): State<Api>, Path(job): Path<String>) -> Response {
    ask(&api, move |engine| match eta::of(engine, &job, At(now_ms())) {
        Ok(etas) => Json(etas).into_response(),
        Err(none @ NoEta::Unknown(_)) => failure(StatusCode::NOT_FOUND, none.to_string()),
        Err(none @ NoEta::NotWaiting(_)) => failure(StatusCode::CONFLICT, none.to_string()),
    })
    .await
}

/// What changes would do.
pub(super) async fn what_if(State(api): State<Api>, body: String) -> Response {
    let request: Request = match serde_json::from_str(&body) {
        Ok(request) => request,
        Err(e) => return failure(StatusCode::BAD_REQUEST, format!("the body is no what-if request: {e}")),
    };
    if let Err(wrong) = request.check() {
        return failure(StatusCode::BAD_REQUEST, wrong);
    }
    ask(&api, move |engine| match what_if::run(engine, &request.changes, At(now_ms()), request.horizon_ms) {
        Ok(difference) => Json(difference).into_response(),
        Err(e) => failure(StatusCode::UNPROCESSABLE_ENTITY, e.to_string()),
    })
    .await
}

/// Asks a copy of the engine.
async fn ask(api: &Api, question: impl FnOnce(&Engine) -> Response + Send + 'static) -> Response {
    let engine = match api.world.read(World::engine).await {
        Ok(engine) => engine,
        Err(refused) => return refused.into_response(),
    };
    let answer = tokio::task::spawn_blocking(move || question(&engine)).await;
    answer.unwrap_or_else(|e| failure(StatusCode::INTERNAL_SERVER_ERROR, format!("the question could not be answered: {e}")))
}
