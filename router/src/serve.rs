//! Connections: accepted up to a limit, served over HTTP/1.1, drained at the end.
//!
//! HTTP/1.1 alone, because telling it from HTTP/2 means waiting for a first byte without a timeout.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after accept failed, usually because file descriptors ran out: some close meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How connections are treated.
#[derive(Clone, Debug)]
pub struct Server {
    pub routes: Router,
    pub max_connections: usize,
    pub header_timeout: Duration,
    pub drain_timeout: Duration,
    pub open: IntGauge,
}

impl Server {
    /// Serves until `stop`, then answers what is in flight for at most the drain timeout.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let abort = CancellationToken::new();
        let permits = Arc::new(Semaphore::new(self.max_connections));
        loop {
            let (stream, permit) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&listener, &permits) => accepted,
            };
            let connection = self.clone().connection(stream, permit, stop.clone());
            let abort = abort.clone();
            connections.spawn(async move {
                tokio::select! {
                    () = connection => {}
                    () = abort.cancelled() => {}
                }
            });
        }
        drop(listener);
        connections.close();
        if tokio::time::timeout(self.drain_timeout, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "the drain deadline passed with requests in flight");
            abort.cancel();
            connections.wait().await;
        }
    }

    async fn connection(self, stream: TcpStream, permit: OwnedSemaphorePermit, stop: CancellationToken) {
        self.open.inc();
        let service = TowerToHyperService::new(self.routes);
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!("a connection ended early: {e}");
        }
        self.open.dec();
        drop(permit);
    }
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it a small answer waits for the client's delayed acknowledgement, 40 ms.
                if let Err(e) = stream.set_nodelay(true) {
                    tracing::debug!("cannot set TCP_NODELAY: {e}");
                }
                return (stream, permit);
            }
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
