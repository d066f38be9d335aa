//! The part of OpenAI's HTTP API that encoders can answer.

mod embeddings;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;

/// All routes below `/v1`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/models", get(list))
        .route("/v1/models/{model}", get(one))
        .route("/v1/embeddings", post(embeddings::handle))
}

fn model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "tidegate" })
}

async fn list(State(app): State<Arc<App>>) -> axum::Json<Value> {
    let models: Vec<Value> = app.registry.all().iter().map(|m| model(&m.spec.name)).collect();
    axum::Json(json!({ "object": "list", "data": models }))
}

async fn one(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    match app.model(&name) {
        Ok(found) => axum::Json(model(&found.spec.name)).into_response(),
        Err(_) => unknown(&name).into_openai(),
    }
}

fn unknown(name: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("The model '{name}' does not exist"))
}
