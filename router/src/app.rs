//! What handlers share, and which path goes where.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use tidegate_runtime::admin::{self, Readiness};
use tokio_util::sync::CancellationToken;

use crate::body::BodyLimits;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::proxy::Proxy;
use crate::registry::Registry;
use crate::tokenize::Pool;
use crate::{oip, openai};

/// Everything that a handler may need.
#[derive(Debug)]
pub struct App {
    pub registry: Arc<Registry>,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    /// Cancelled by the first configuration.
    pub unconfigured: CancellationToken,
    pub body_limits: BodyLimits,
    pub tokenizers: Pool,
    /// Where paths go that are not the router's own.
    pub proxy: Option<Proxy>,
}

impl App {
    /// A configured model by name. Before the first configuration nobody knows which models there are.
    pub fn model(&self, name: &str) -> Result<Arc<Model>, ApiError> {
        self.registry.get(name).ok_or_else(|| {
            self.metrics.unknown_model();
            if self.unconfigured.is_cancelled() { ApiError::unknown_model(name) } else { ApiError::unconfigured() }
        })
    }
}

/// All paths. Without a world to forward to, the router's own metrics and health are at the root too.
pub fn router(app: App) -> Router {
    let own = admin::routes(app.metrics.registry(), app.readiness.clone());
    let alone = app.proxy.is_none();
    let routes = Router::new()
        .merge(oip::routes())
        .merge(openai::routes())
        .fallback(elsewhere)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::new(app))
        .nest("/router", own.clone());
    if alone { routes.merge(own) } else { routes }
}

fn is_own(path: &str) -> bool {
    ["/v1", "/v2", "/router"]
        .iter()
        .any(|own| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn in_words_of(path: &str, error: ApiError) -> Response {
    if path.starts_with("/v1/") { error.into_openai() } else { error.into_oip() }
}

async fn elsewhere(State(app): State<Arc<App>>, request: Request) -> Response {
    match &app.proxy {
        Some(proxy) if !is_own(request.uri().path()) => proxy.forward(request).await,
        _ => {
            let path = request.uri().path();
            in_words_of(path, ApiError::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}")))
        }
    }
}

async fn wrong_method(uri: Uri) -> Response {
    let text = format!("{} is not for this method", uri.path());
    in_words_of(uri.path(), ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text))
}
