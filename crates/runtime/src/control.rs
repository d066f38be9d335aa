//! `tidegate.control.v1`, the world's side: reports go to the world, configuration comes from its watches. Of the other side what routers
//! and replicas have in common ([`Token`]).

mod token;

use std::collections::BTreeSet;
use std::pin::Pin;

use tidegate_api::control::control_server::{Control, ControlServer};
use tidegate_api::control::{ReplicaConfig, ReplicaReport, RouterConfig, RouterReport};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub use token::{REFUSED_BACKOFF, Token, is_refusal};

/// What routers and replicas say.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    Router(RouterReport),
    Replica(Box<ReplicaReport>),
}

/// What the world publishes for its routers and replicas.
#[derive(Clone, Debug)]
pub struct Published {
    pub router: watch::Receiver<RouterConfig>,
    /// Replicas that shall drain.
    pub draining: watch::Receiver<BTreeSet<String>>,
}

/// The service of a world that hears messages `M`.
pub struct Service<M> {
    world: mpsc::Sender<M>,
    published: Published,
    shutdown: CancellationToken,
}

impl<M: From<Report> + Send + 'static> Service<M> {
    /// Serves `published`, tells `world`. Sessions end with `shutdown`.
    pub fn new(world: mpsc::Sender<M>, published: Published, shutdown: CancellationToken) -> ControlServer<Self> {
        ControlServer::new(Self { world, published, shutdown })
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<M: From<Report> + Send + 'static> Control for Service<M> {
    type RouterSessionStream = Answers<RouterConfig>;
    type ReplicaSessionStream = Answers<ReplicaConfig>;

    async fn router_session(
        &self,
        request: Request<Streaming<RouterReport>>,
    ) -> Result<Response<Self::RouterSessionStream>, Status> {
        // Version 0 is the watch before the world has published anything.
        let published = WatchStream::new(self.published.router.clone()).filter(|config| config.version > 0);
        let configs = published.map(Ok);
        Ok(Response::new(session(request.into_inner(), configs, self.world.clone(), Report::Router, &self.shutdown)))
    }

    async fn replica_session(
        &self,
        request: Request<Streaming<ReplicaReport>>,
    ) -> Result<Response<Self::ReplicaSessionStream>, Status> {
        let mut reports = request.into_inner();
        let Some(first) = reports.message().await? else {
            return Err(Status::invalid_argument("a session begins with a report"));
        };
        let id = first.replica_id.clone();
        let configs = futures_util::StreamExt::enumerate(WatchStream::new(self.published.draining.clone()))
            .map(move |(version, draining)| Ok(ReplicaConfig { version: version as u64 + 1, drain: draining.contains(&id) }));
        let reports = tokio_stream::once(Ok(first)).chain(reports);
        Ok(Response::new(session(
            reports,
            configs,
            self.world.clone(),
            |report| Report::Replica(Box::new(report)),
            &self.shutdown,
        )))
    }
}

/// The answers of a session, whose reports are passed on as a side effect of being polled: one task, no more.
fn session<R, C, M>(
    reports: impl Stream<Item = Result<R, Status>> + Send + 'static,
    configs: impl Stream<Item = Result<C, Status>> + Send + 'static,
    world: mpsc::Sender<M>,
    told: fn(R) -> Report,
    shutdown: &CancellationToken,
) -> Answers<C>
where
    R: Send + 'static,
    C: Send + 'static,
    M: From<Report> + Send + 'static,
{
    let passed_on = reports.then(move |report| {
        let world = world.clone();
        async move {
            match report {
                // A world that is gone ends the session: the other side connects again.
                Ok(report) => {
                    world.send(M::from(told(report))).await.map_err(|_| Status::unavailable("shutting down")).map(|()| None)
                }
                Err(status) => Err(status),
            }
        }
    });
    // The end of the reports (the other side has gone) ends the session.
    let ended = tokio_stream::once(Err(Status::ok("the reports ended")));
    let reports = passed_on.chain(ended);
    let both = reports.merge(configs.map(|config| config.map(Some)));
    let answers = both.filter_map(Result::transpose);
    let shutdown = shutdown.clone().cancelled_owned();
    Box::pin(futures_util::StreamExt::take_until(answers, shutdown))
}
