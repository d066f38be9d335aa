//! The session with the world: demand goes up, configuration comes down.
//!
//! Without the world the router goes on with its last configuration and knocks again, at least once a
//! second, seldomer while the world does not let it in. The first configuration of a session replaces whatever
//! was there (it may be another world); inside a session older versions are ignored.

use std::sync::Arc;
use std::time::Duration;

use tidegate_api::control::control_client::ControlClient;
use tidegate_api::control::{RouterConfig, RouterReport};
use tidegate_runtime::admin::Readiness;
use tidegate_runtime::control::{REFUSED_BACKOFF, Token, is_refusal};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::metrics::Metrics;
use crate::registry::Registry;

/// Between reports.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// First pause before knocking again; it doubles up to the longest.
const BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// A world that does not accept or answer for so long is not there.
const PATIENCE: Duration = Duration::from_secs(2);
/// Reports that may wait for the transport. A newer one makes an older one useless.
const OUTBOX: usize = 2;

/// The router's end of the session.
pub struct Control {
    pub endpoint: Endpoint,
    pub token: Token,
    pub router_id: String,
    pub registry: Arc<Registry>,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    /// Cancelled by the first configuration.
    pub unconfigured: CancellationToken,
    pub waking: Arc<Notify>,
}

/// Checks the address of the world.
pub fn endpoint(url: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .connect_timeout(PATIENCE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE)
        .keep_alive_while_idle(true))
}

impl Control {
    /// Holds sessions until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = BACKOFF;
        let mut refused = String::new();
        loop {
            let mut longest = LONGEST_BACKOFF;
            tokio::select! {
                () = stop.cancelled() => return,
                ended = self.session() => {
                    self.metrics.control_connected.set(0);
                    match ended {
                        Ok(configured) => {
                            tracing::warn!("the session with the world ended; going on with the last configuration");
                            pause = if configured { BACKOFF } else { pause };
                        }
                        Err(status) if is_refusal(&status) => {
                            longest = REFUSED_BACKOFF;
                            if std::mem::replace(&mut refused, status.message().to_owned()) != refused {
                                tracing::warn!("the world does not let this router in; going on with the last configuration: {refused}");
                            }
                        }
                        Err(status) => tracing::debug!("no session with the world: {status}"),
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.min(longest)) => pause = (pause * 2).min(longest),
            }
        }
    }

    /// One session; tells at its end whether a configuration came.
    async fn session(&self) -> Result<bool, Status> {
        let channel = self.endpoint.connect().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let (outbox, reports) = mpsc::channel(OUTBOX);
        let mut version = None;
        self.report(&outbox, version);
        let mut configs = self.open(channel, reports).await?;
        tracing::info!("connected to the world");
        self.metrics.control_connected.set(1);
        let mut tick = tokio::time::interval(REPORT_EVERY);
        loop {
            tokio::select! {
                config = configs.message() => match config? {
                    Some(config) => self.apply(&mut version, config),
                    None => return Ok(version.is_some()),
                },
                _ = tick.tick() => self.report(&outbox, version),
                () = self.waking.notified() => self.report(&outbox, version),
                () = outbox.closed() => return Ok(version.is_some()),
            }
        }
    }

    async fn open(&self, channel: Channel, reports: mpsc::Receiver<RouterReport>) -> Result<Streaming<RouterConfig>, Status> {
        let mut client = ControlClient::new(channel);
        let opening = client.router_session(self.token.on(ReceiverStream::new(reports))?);
        match tokio::time::timeout(PATIENCE, opening).await {
            Ok(response) => Ok(response?.into_inner()),
            Err(_) => Err(Status::deadline_exceeded("the world did not open the session")),
        }
    }

    fn report(&self, outbox: &mpsc::Sender<RouterReport>, version: Option<u64>) {
        let report = RouterReport {
            router_id: self.router_id.clone(),
            models: self.registry.demand(),
            config_version: version.unwrap_or(0),
        };
        // A full outbox means that the world does not read; the next tick has newer figures.
        drop(outbox.try_send(report));
    }

    fn apply(&self, version: &mut Option<u64>, config: RouterConfig) {
        if version.is_some_and(|known| config.version < known) {
            tracing::warn!(version = config.version, "ignored an older configuration");
            return;
        }
        tracing::debug!(version = config.version, models = config.models.len(), "new configuration");
        *version = Some(config.version);
        self.metrics.config_version.set(i64::try_from(config.version).unwrap_or(i64::MAX));
        self.registry.apply(config.models);
        self.readiness.set(true);
        self.unconfigured.cancel();
    }
}
