//! What `up` answers over HTTP: the API of `tidegate_api::view`, progress, the page, metrics, and the control gRPC,
//! all on one loopback port. Clients see it through the router, which passes on what is not its own.

mod api;
mod ask;
mod events;
mod progress;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tidegate_api::view;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::machine::Machine;
use crate::units::Units;
use crate::world::{Handle, Refused};

/// Largest manifest that is applied.
const MAX_BODY: usize = 4 << 20;

/// What the handlers need.
#[derive(Clone)]
pub struct Api {
    pub world: Handle,
    pub state: watch::Receiver<Arc<view::State>>,
    pub decisions: broadcast::Sender<view::Decision>,
    pub units: Units,
    pub machine: Arc<Machine>,
    pub exe: Arc<PathBuf>,
    pub shutdown: CancellationToken,
}

/// All routes but the page, the metrics and the control service.
pub fn routes(api: Api) -> Router {
    Router::new()
        .route("/api/v1/state", get(api::state))
        .route("/api/v1/timeline", get(api::timeline))
        .route("/api/v1/decisions", get(api::decisions))
        .route("/api/v1/report", get(api::report))
        .route("/api/v1/snapshot", get(ask::snapshot))
        .route("/api/v1/eta", get(ask::etas))
        .route("/api/v1/eta/{job}", get(ask::eta))
        .route("/api/v1/what-if", post(ask::what_if))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/apply", post(api::apply))
        .route("/api/v1/{kind}/{name}", delete(api::delete))
        .route("/api/v1/{kind}/{name}/{verb}", post(api::verb))
        .route("/api/v1/explain/{kind}/{name}", get(api::explain))
        .route("/api/v1/logs/jobs/{name}", get(api::logs))
        .route("/progress/{job}/{attempt}", post(progress::progress))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

/// Answers paths that are nobody's.
pub async fn unknown(uri: Uri) -> Response {
    failure(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

/// An error answer.
fn failure(status: StatusCode, error: impl Into<String>) -> Response {
    (status, axum::Json(view::Failure { error: error.into() })).into_response()
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        };
        failure(status, self.to_string())
    }
}
