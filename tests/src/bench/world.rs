//! The smallest world: tells one router where one replica is, and hears what the replica counted.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidegate_api::control::control_server::{Control, ControlServer};
use tidegate_api::control::{
    Endpoint, ModelConfig, ReplicaConfig, ReplicaPhase, ReplicaReport, RouterConfig, RouterReport, TensorSpec,
};
use tidegate_api::model_info::{ModelInfo, TensorInfo};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Loading a model and starting processes takes a few seconds even on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// Requests must never be refused or hurried here: the benchmark measures packing, not policy.
const SLO_MS: u64 = 60_000;
pub const MAX_BATCH_ROWS: u32 = 32;

/// Ends with its value.
#[derive(Debug)]
pub struct World {
    pub address: SocketAddr,
    replica: watch::Receiver<ReplicaReport>,
    _tasks: JoinSet<()>,
}

impl World {
    /// Serves the model of `info` under `name`.
    pub async fn start(name: &str, info: &ModelInfo) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (heard, replica) = watch::channel(ReplicaReport::default());
        let (config, _) = watch::channel(RouterConfig { version: 1, models: vec![model(name, info)] });
        let service = ControlServer::new(Sessions { heard, config });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            if let Err(error) = Server::builder().add_service(service).serve_with_incoming(incoming).await {
                eprintln!("bench: the control server failed: {error}");
            }
        });
        Ok(Self { address, replica, _tasks: tasks })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for the replica to serve.
    pub async fn ready(&mut self) -> Result<()> {
        let settled = |report: &ReplicaReport| matches!(report.phase(), ReplicaPhase::Ready | ReplicaPhase::Failed);
        let report = timeout(PATIENCE, self.replica.wait_for(settled)).await.context("the replica did not get ready")??.clone();
        ensure!(report.phase() == ReplicaPhase::Ready, "the replica failed: {}", report.error);
        Ok(())
    }

    /// The replica's counters, from a report that it makes from now on.
    pub async fn counted(&mut self) -> Result<ReplicaReport> {
        self.replica.mark_unchanged();
        timeout(PATIENCE, self.replica.changed()).await.context("the replica stopped reporting")??;
        Ok(self.replica.borrow().clone())
    }
}

fn model(name: &str, info: &ModelInfo) -> ModelConfig {
    let spec = |tensor: &TensorInfo| TensorSpec {
        name: tensor.name.clone(),
        datatype: tensor.datatype.clone(),
        shape: tensor.shape.clone(),
        batched: tensor.batched,
    };
    ModelConfig {
        name: name.to_owned(),
        slo_ms: SLO_MS,
        cold_start_budget_ms: SLO_MS,
        max_batch_rows: MAX_BATCH_ROWS,
        max_queued_requests: 1024,
        max_queued_bytes: 256 << 20,
        inputs: info.inputs.iter().map(spec).collect(),
        outputs: info.outputs.iter().map(spec).collect(),
        platform: info.platform.clone(),
        ..Default::default()
    }
}

struct Sessions {
    heard: watch::Sender<ReplicaReport>,
    config: watch::Sender<RouterConfig>,
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for Sessions {
    type RouterSessionStream = Out<RouterConfig>;
    type ReplicaSessionStream = Out<ReplicaConfig>;

    async fn router_session(&self, request: Request<Streaming<RouterReport>>) -> Result<Response<Out<RouterConfig>>, Status> {
        let mut reports = request.into_inner();
        let configs = WatchStream::new(self.config.subscribe()).map(Ok);
        // The router's reports are read, so that it is never held back, and end the session when it goes.
        let heard = task(async move { while let Ok(Some(_)) = reports.message().await {} });
        Ok(Response::new(Box::pin(configs.map(move |config| held(&heard, config)))))
    }

    async fn replica_session(&self, request: Request<Streaming<ReplicaReport>>) -> Result<Response<Out<ReplicaConfig>>, Status> {
        let mut reports = request.into_inner();
        let (heard, config) = (self.heard.clone(), self.config.clone());
        let listening = task(async move {
            while let Ok(Some(report)) = reports.message().await {
                announce(&config, &report);
                heard.send_replace(report);
            }
        });
        let wishes = tokio_stream::once(Ok(ReplicaConfig { version: 1, drain: false })).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(wishes.map(move |wish| held(&listening, wish)))))
    }
}

/// A task that ends with the returned value.
fn task(work: impl Future<Output = ()> + Send + 'static) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(work);
    task
}

/// Called in the closure of a session's stream, so that the stream holds the session's task.
fn held<T>(_task: &JoinSet<()>, item: T) -> T {
    item
}

/// Gives the router the endpoint once the replica has one.
fn announce(config: &watch::Sender<RouterConfig>, report: &ReplicaReport) {
    let endpoint = Endpoint { replica_id: report.replica_id.clone(), address: report.address.clone(), draining: false };
    let endpoints = if report.phase() == ReplicaPhase::Ready { vec![endpoint] } else { Vec::new() };
    config.send_if_modified(|config| {
        let changed = config.models.iter().any(|model| model.endpoints != endpoints);
        if changed {
            config.version += 1;
            config.models.iter_mut().for_each(|model| model.endpoints.clone_from(&endpoints));
        }
        changed
    });
}
