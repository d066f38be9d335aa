//! `tidegate.control.v1`, for routers and replicas: served by the one that leads, on a port of its own. Others do not listen there, so
//! that whoever connects finds the leader. With `--control-auth` who opens a session is asked for a token, and Kubernetes whether
//! its owner may; a session that stands is not asked again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tidegate_runtime::control::{Published, Report, Service};
use tidegate_runtime::exit::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::auth::{CONTROL_AUDIENCE, Gate, Refusal};
use crate::metrics::Metrics;

/// A peer whose machine died without a word is noticed after twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// What a role must allow to routers and replicas, as a `nonResourceURL`, and the role that does.
const VERB: &str = "post";
const PATH: &str = "/control";
const ROLE: &str = "tidegate-data-plane";

/// Before the sessions.
pub struct Door {
    pub gate: Gate,
    pub metrics: Metrics,
}

/// Listens; what is given back serves until `shutdown`, and ends it if that fails.
pub async fn serve(
    listen: SocketAddr,
    door: Option<Door>,
    world: mpsc::Sender<Report>,
    published: Published,
    shutdown: CancellationToken,
) -> Result<impl Future<Output = Result<(), Error>> + Send + 'static, Error> {
    let busy =
        |e: std::io::Error| Error::Usage(format!("--control-listen: cannot listen on `{listen}`: {e}; give a free address"));
    let listener = TcpListener::bind(listen).await.map_err(busy)?;
    let mut routes = Routes::new(Service::new(world, published, shutdown.clone()));
    if let Some(door) = door {
        let guarded = routes.into_axum_router().layer(middleware::from_fn_with_state(Arc::new(door), guard));
        routes = guarded.into();
    }
    Ok(async move {
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                shutdown.clone().cancelled_owned(),
            );
        let ended = server.await;
        shutdown.cancel();
        ended.map_err(|e| Error::failed("serve the control protocol", e))
    })
}

async fn guard(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    match door.gate.admit(request.headers(), VERB, PATH).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            door.metrics.control_refused(refusal.word());
            tracing::info!(%refusal, "who would open a session is not let in");
            told(&refusal).into_http()
        }
    }
}

/// A refusal in gRPC's words, with the remedy for routers and replicas.
fn told(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Unknown => Status::unauthenticated(format!(
            "no token that Kubernetes knows came along: give --control-token-file a projected service account token of the audience \
             {CONTROL_AUDIENCE}"
        )),
        Refusal::Forbidden { user, .. } => Status::permission_denied(format!(
            "{user} may not {VERB} the nonResourceURL {PATH}: bind the ClusterRole {ROLE} to it"
        )),
        Refusal::Unavailable(_) => Status::unavailable(refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn who_is_not_let_in_is_told_what_to_bind() {
        let user = "system:serviceaccount:team:default".to_owned();
        let status = told(&Refusal::Forbidden { user, verb: VERB, path: PATH.to_owned() });
        assert_eq!(status.code(), Code::PermissionDenied);
        let words = ["system:serviceaccount:team:default", "/control", "bind the ClusterRole tidegate-data-plane"];
        assert!(words.iter().all(|word| status.message().contains(word)), "{status}");
        let status = told(&Refusal::Unknown);
        assert!(status.code() == Code::Unauthenticated && status.message().contains("--control-token-file"), "{status}");
        assert_eq!(told(&Refusal::Unavailable("no answer".to_owned())).code(), Code::Unavailable);
    }
}
