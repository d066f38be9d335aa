//! `tidegate.control.v1`, for routers and replicas: served by the one that leads, on a port of its own. Others do not listen there, so
//! that whoever connects finds the leader.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_runtime::control::{Published, Report, Service};
use tidegate_runtime::exit::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// A peer whose machine died without a word is noticed after twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Listens; what is given back serves until `shutdown`, and ends it if that fails.
pub async fn serve(
    listen: SocketAddr,
    world: mpsc::Sender<Report>,
    published: Published,
    shutdown: CancellationToken,
) -> Result<impl Future<Output = Result<(), Error>> + Send + 'static, Error> {
    let busy =
        |e: std::io::Error| Error::Usage(format!("--control-listen: cannot listen on `{listen}`: {e}; give a free address"));
    let listener = TcpListener::bind(listen).await.map_err(busy)?;
    Ok(async move {
        let service = Service::new(world, published, shutdown.clone());
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_service(service)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                shutdown.clone().cancelled_owned(),
            );
        let ended = server.await;
        shutdown.cancel();
        ended.map_err(|e| Error::failed("serve the control protocol", e))
    })
}
