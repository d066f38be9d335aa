//! Open Inference Protocol v2 over HTTP, with the binary tensor extension.

pub mod check;
mod data;
mod request;
mod response;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::metrics::Outcome;
use crate::model::Model;
use crate::model::spec::TensorSpec;
use crate::queue::Answer;

/// The one version of every model.
const VERSION: &str = "1";

/// All routes below `/v2`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(|| async { axum::Json(json!({ "live": true })) }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(version_metadata))
        .route("/v2/models/{model}/versions/{version}/ready", get(version_ready))
        .route("/v2/models/{model}/versions/{version}/infer", post(version_infer))
}

async fn server() -> axum::Json<Value> {
    axum::Json(json!({
        "name": "tidegate",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "schedule_policy"],
    }))
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let ready = app.readiness.get();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": ready }))).into_response()
}

async fn metadata(State(app): State<Arc<App>>, Path(model): Path<String>) -> Result<Response, ApiError> {
    let model = app.model(&model)?;
    let spec = &model.spec;
    Ok(axum::Json(json!({
        "name": spec.name,
        "versions": [VERSION],
        "platform": spec.platform,
        "inputs": spec.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": spec.outputs.iter().map(tensor).collect::<Vec<_>>(),
    }))
    .into_response())
}

fn tensor(spec: &TensorSpec) -> Value {
    json!({ "name": spec.name, "datatype": spec.datatype.name(), "shape": spec.shape })
}

/// A model is ready when a request would be answered or held: it sleeps at zero replicas, and wakes for a request.
async fn model_ready(State(app): State<Arc<App>>, Path(model): Path<String>) -> Result<Response, ApiError> {
    let model = app.model(&model)?;
    let ready = !model.spec.paused;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, axum::Json(json!({ "name": model.spec.name, "ready": ready }))).into_response())
}

async fn infer(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    answer(&app, &model, request).await.unwrap_or_else(ApiError::into_oip)
}

async fn version_metadata(app: State<Arc<App>>, Path((model, version)): Path<(String, String)>) -> Result<Response, ApiError> {
    known_version(&model, &version)?;
    metadata(app, Path(model)).await
}

async fn version_ready(app: State<Arc<App>>, Path((model, version)): Path<(String, String)>) -> Result<Response, ApiError> {
    known_version(&model, &version)?;
    model_ready(app, Path(model)).await
}

async fn version_infer(app: State<Arc<App>>, Path((model, version)): Path<(String, String)>, request: Request) -> Response {
    match known_version(&model, &version) {
        Ok(()) => infer(app, Path(model), request).await,
        Err(e) => e.into_oip(),
    }
}

fn known_version(model: &str, version: &str) -> Result<(), ApiError> {
    if version == VERSION {
        return Ok(());
    }
    let text = format!("Request for unknown model: '{model}' version {version} is not found");
    Err(ApiError::new(StatusCode::NOT_FOUND, text))
}

async fn answer(app: &App, name: &str, request: Request) -> Result<Response, ApiError> {
    let model = app.model(name)?;
    let (headers, body) = body::read(request, app.body_limits).await?;
    let invalid = |e: ApiError| {
        model.queue.metrics.ended(Outcome::Invalid);
        e
    };
    let header_length = request::header_length(&headers).map_err(invalid)?;
    let parsed = request::parse(&model.spec, &body, header_length).map_err(invalid)?;
    let answer = run(&model, parsed.request).await?;
    response::render(&model.spec, &parsed.wishes, &answer)
}

async fn run(model: &Model, request: crate::queue::Request) -> Result<Answer, ApiError> {
    model.queue.infer(request).await.map_err(|failure| ApiError::of_failure(&failure, &model.spec.name))
}

/// How the answer came about.
pub fn explain(response: &mut Response, replica: &str, batch_rows: u32, queue_us: u64, woken: bool) {
    let headers = response.headers_mut();
    if let Ok(replica) = HeaderValue::from_str(replica) {
        headers.insert(HeaderName::from_static("x-tidegate-replica"), replica);
    }
    headers.insert(HeaderName::from_static("x-tidegate-batch-rows"), HeaderValue::from(batch_rows));
    headers.insert(HeaderName::from_static("x-tidegate-queue-us"), HeaderValue::from(queue_us));
    if woken {
        headers.insert(HeaderName::from_static("x-tidegate-woken"), HeaderValue::from_static("true"));
    }
}
