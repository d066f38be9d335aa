//! What every part answers to its operator: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use prometheus::{Encoder, Registry, TEXT_FORMAT, TextEncoder};

/// Whether a part wants traffic. Off from the first moment of a shutdown.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Sets it.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Reads it.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// `/metrics` (Prometheus text) and [`probes`].
pub fn routes(registry: Registry, readiness: Readiness) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(registry).merge(probes(readiness))
}

/// `/healthz` (200 while the process lives), `/readyz` (200 or 503).
pub fn probes(readiness: Readiness) -> Router {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(readyz)).with_state(readiness)
}

/// The metrics of a registry as Prometheus reads them.
///
/// # Errors
/// A collector gives what is no metric.
pub fn text(registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

/// The answer of `/metrics`.
pub fn answer<T: IntoResponse>(text: Result<T, prometheus::Error>) -> Response {
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode metrics: {e}\n")).into_response(),
    }
}

async fn metrics(State(registry): State<Registry>) -> Response {
    answer(text(&registry))
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    if readiness.get() { "ready\n".into_response() } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response() }
}
