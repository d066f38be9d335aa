//! What the agent answers: `/metrics`, `/healthz`, `/readyz` as every part, `/gpus`, `/status` and `/topology` as JSON.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use k8s_openapi::jiff::Timestamp;
use tidegate_api::kinds::GpuNodeStatus;
use tidegate_nvml::Topology;
use tidegate_runtime::admin::{self, Readiness};

use crate::collect::Shared;
use crate::page::Page;
use crate::status;
use crate::view::Gpus;

/// Everything that is served.
pub fn routes(shared: Arc<Shared>, page: Arc<Page>, readiness: Readiness) -> Router {
    let own = Router::new()
        .route("/gpus", get(gpus))
        .route("/status", get(gpu_node))
        .route("/topology", get(topology))
        .with_state(shared);
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(page);
    admin::probes(readiness).merge(metrics).merge(own)
}

async fn metrics(State(page): State<Arc<Page>>) -> Response {
    admin::answer(page.text())
}

async fn gpus(State(shared): State<Arc<Shared>>) -> Response {
    let view = Gpus::of(&shared.node.lock(), shared.at());
    ([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response()
}

/// The status of the `GpuNode`, also where there is no Kubernetes: what `tidegate up` goes by.
async fn gpu_node(State(shared): State<Arc<Shared>>) -> Json<GpuNodeStatus> {
    let at = shared.at();
    Json(status::status(&shared.node.lock(), Timestamp::now(), at))
}

async fn topology(State(shared): State<Arc<Shared>>) -> Json<Topology> {
    let topology = shared.node.lock().topology.clone();
    Json(topology)
}
