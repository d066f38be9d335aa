//! The API's handlers: look, explain, apply, wish.

use std::collections::HashMap;
use std::path::PathBuf;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidegate_api::view;

use super::{Api, failure};
use crate::admission::Admission;
use crate::manifests;
use crate::world::{Refused, Wish, World};

/// Most bytes of a log that one answer holds.
const MAX_TAIL: usize = 4 << 20;
/// Bytes of a log that are shown when nobody says how many.
const TAIL: usize = 64 << 10;

pub(super) async fn state(State(api): State<Api>) -> Json<view::State> {
    let state = api.state.borrow().clone();
    Json((*state).clone())
}

pub(super) async fn timeline(State(api): State<Api>, Query(query): Query<HashMap<String, String>>) -> Response {
    let since = query.get("since").map_or(Ok(0), |text| text.parse::<u64>());
    let Ok(since) = since else {
        return failure(StatusCode::BAD_REQUEST, "since is not a number of milliseconds since the epoch");
    };
    answer(api.world.read(move |world| world.timeline(since)).await)
}

pub(super) async fn decisions(State(api): State<Api>) -> Response {
    answer(api.world.read(World::decisions).await)
}

pub(super) async fn report(State(api): State<Api>) -> Response {
    answer(api.world.read(World::report).await)
}

pub(super) async fn explain(State(api): State<Api>, Path((kind, name)): Path<(String, String)>) -> Response {
    if !["job", "model"].contains(&kind.as_str()) {
        return failure(StatusCode::NOT_FOUND, format!("{kind} cannot be explained; ask for job/NAME or model/NAME"));
    }
    let subject = format!("{kind}/{name}");
    match api.world.read(move |world| world.explain(&kind, &name)).await {
        Ok(Some(explanation)) => Json(explanation).into_response(),
        Ok(None) => failure(StatusCode::NOT_FOUND, format!("there is no {subject}")),
        Err(refused) => refused.into_response(),
    }
}

pub(super) async fn logs(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let number = |key: &str, default: usize| query.get(key).map_or(Ok(default), |text| text.parse::<usize>());
    let (Ok(rank), Ok(tail)) = (number("rank", 0), number("tail_bytes", TAIL)) else {
        return failure(StatusCode::BAD_REQUEST, "rank and tail_bytes are whole numbers");
    };
    let missing = format!("job/{name} has no output of rank {rank} yet");
    let unit = match api.world.read(move |world| world.worker_unit(&name, rank)).await {
        Ok(Some(unit)) => unit,
        Ok(None) => return failure(StatusCode::NOT_FOUND, missing),
        Err(refused) => return refused.into_response(),
    };
    match api.units.tail(&unit, tail.min(MAX_TAIL)) {
        Ok(chunk) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], chunk.bytes).into_response(),
        Err(e) => failure(StatusCode::NOT_FOUND, e.to_string()),
    }
}

/// Applies the documents of the body. `x-tidegate-manifest-dir` is what relative paths are relative to,
/// `x-tidegate-manifest-file` is named in errors.
pub(super) async fn apply(State(api): State<Api>, headers: HeaderMap, body: String) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let dir = text("x-tidegate-manifest-dir").map_or_else(|| std::env::current_dir().unwrap_or_default(), PathBuf::from);
    let file = dir.join(text("x-tidegate-manifest-file").unwrap_or("request"));
    let objects = match manifests::parse(&body, &file) {
        Ok(objects) => objects,
        Err(problems) => return failure(StatusCode::BAD_REQUEST, problems.to_string()),
    };
    if objects.is_empty() {
        return failure(StatusCode::BAD_REQUEST, format!("{} holds no object", file.display()));
    }
    let known = match api.world.read(World::objects).await {
        Ok(known) => known,
        Err(refused) => return refused.into_response(),
    };
    let admission = Admission { exe: &api.exe, machine: &api.machine, known: &known };
    match admission.check(&objects).await {
        Ok(infos) => answer(api.world.apply(objects, infos).await),
        Err(problems) => failure(StatusCode::UNPROCESSABLE_ENTITY, problems.to_string()),
    }
}

pub(super) async fn delete(State(api): State<Api>, Path((kind, name)): Path<(String, String)>) -> Response {
    let kind = match kind.as_str() {
        "jobs" => "TrainingJob",
        "models" => "Model",
        "queues" => "Queue",
        "pools" => "Pool",
        _ => return failure(StatusCode::NOT_FOUND, format!("there are no {kind}; delete jobs, models, queues or pools")),
    };
    answer(api.world.wish(Wish::Delete { kind, name }).await)
}

pub(super) async fn verb(State(api): State<Api>, Path((kind, name, verb)): Path<(String, String, String)>) -> Response {
    let wish = match (kind.as_str(), verb.as_str()) {
        ("jobs", "pause") => Wish::PauseJob { name, paused: true },
        ("jobs", "resume") => Wish::PauseJob { name, paused: false },
        ("jobs", "cancel") => Wish::CancelJob(name),
        ("models", "pause") => Wish::PauseModel { name, paused: true },
        ("models", "resume") => Wish::PauseModel { name, paused: false },
        ("devices", "drain") => Wish::Drain { device: name, drained: true },
        ("devices", "undrain") => Wish::Drain { device: name, drained: false },
        _ => return failure(StatusCode::NOT_FOUND, format!("{kind} cannot be told to {verb}")),
    };
    answer(api.world.wish(wish).await)
}

fn answer<T: serde::Serialize>(result: Result<T, Refused>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(refused) => refused.into_response(),
    }
}
