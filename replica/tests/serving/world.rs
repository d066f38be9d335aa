//! The world's side of a replica session, under the test's control.

use std::pin::Pin;
use std::time::Duration;

use tidegate_api::control::control_server::{Control, ControlServer};
use tidegate_api::control::{ReplicaConfig, ReplicaPhase, ReplicaReport, RouterConfig, RouterReport};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Nothing in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    port: u16,
    reports: mpsc::Receiver<ReplicaReport>,
    wishes: watch::Sender<ReplicaConfig>,
    tasks: JoinSet<()>,
}

impl World {
    pub async fn start() -> Self {
        Self::start_at(0).await
    }

    pub async fn start_at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, reports) = mpsc::channel(1024);
        let wishes = watch::Sender::new(ReplicaConfig { version: 1, drain: false });
        let service = ControlServer::new(Sessions { heard, wishes: wishes.subscribe() });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        Self { port, reports, wishes, tasks }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn drain(&self) {
        self.wishes.send_replace(ReplicaConfig { version: 2, drain: true });
    }

    pub async fn report(&mut self, phase: ReplicaPhase) -> ReplicaReport {
        self.report_where(|report| report.phase() == phase).await
    }

    /// The first of the reports to come that is as wanted.
    pub async fn report_where(&mut self, wanted: impl Fn(&ReplicaReport) -> bool) -> ReplicaReport {
        let found = async {
            loop {
                let report = self.reports.recv().await.unwrap();
                if wanted(&report) {
                    return report;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap()
    }

    /// Dies without a word; its port is free again.
    pub async fn stop(mut self) -> u16 {
        self.tasks.shutdown().await;
        self.port
    }
}

struct Sessions {
    heard: mpsc::Sender<ReplicaReport>,
    wishes: watch::Receiver<ReplicaConfig>,
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for Sessions {
    type RouterSessionStream = Out<RouterConfig>;
    type ReplicaSessionStream = Out<ReplicaConfig>;

    async fn router_session(&self, _: Request<Streaming<RouterReport>>) -> Result<Response<Out<RouterConfig>>, Status> {
        Err(Status::unimplemented("no routers here"))
    }

    async fn replica_session(&self, request: Request<Streaming<ReplicaReport>>) -> Result<Response<Out<ReplicaConfig>>, Status> {
        let mut reports = request.into_inner();
        let heard = self.heard.clone();
        let mut wishes = WatchStream::new(self.wishes.clone());
        // One stream both ways: it ends when the replica's reports end or the world is gone.
        let (out, stream) = mpsc::channel(4);
        let mut session = JoinSet::new();
        session.spawn(async move {
            loop {
                tokio::select! {
                    report = reports.message() => {
                        let Ok(Some(report)) = report else { return };
                        if heard.send(report).await.is_err() { return }
                    }
                    Some(wish) = wishes.next() => if out.send(Ok(wish)).await.is_err() { return },
                }
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream).map(move |item| {
            // The session lives as long as its stream.
            let _ = &session;
            item
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
