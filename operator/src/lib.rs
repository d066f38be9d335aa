//! The Kubernetes world: the engine schedules a real cluster.
//!
//! ```text
//!   API server ── watch ──> facts ──> World: index + Engine ── writer ──> API server
//!        ▲                            ▲    │
//!        └── lease: who may act       │    └── ledger: what was learned and decided
//!                                     ├── http: page, plans, explain, eta, what-if
//!                                     └── control: routers and replicas
//! ```
//!
//! * [`facts`]: what is kept of each object. [`index`]: facts to the engine's events, its plans to writes. Both pure.
//! * [`watch`], [`writer`], [`lease`], [`clock`]: the API server, and nothing else.
//! * [`world`]: one task that owns engine and index.
//!
//! **Promise.** The API's objects are the truth. The operator may be killed at any moment: the next one lists afresh, counts what
//! is bound, and binds nothing twice. Two of them never write at one moment ([`lease`]).

mod args;
mod auth;
mod clock;
mod control;
pub mod facts;
mod http;
pub mod index;
pub mod lease;
mod ledger;
mod metrics;
mod view;
mod watch;
mod world;
mod writer;

use std::time::{SystemTime, UNIX_EPOCH};

use kube::Client;
use tidegate_runtime::admin::Readiness;
use tidegate_runtime::control::Published;
use tidegate_runtime::exit::Error;
use tidegate_runtime::listener;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use args::{Args, Mode, Settings};
use auth::Gate;
use clock::Clock;
use index::Index;
use lease::Contender;
use ledger::{Keeper, Shelf};
use metrics::Metrics;
use world::{Ask, Heard, Publisher, World};
use writer::Writer;

/// News between watches and world: beyond it the watches wait.
const NEWS: usize = 8_192;
/// Questions of people that wait; more are told so.
const ASKS: usize = 16;

/// Schedules until `shutdown`. One that loses its lease ends with an error, so that it begins anew as one that stands by.
///
/// # Errors
/// Exit 64 for what a restart cannot mend: flags, a port in use, no cluster named.
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Error> {
    let settings = args.validate(&unique())?;
    let listener = listener::passed_or_new(settings.listen).await?;
    let client = Client::try_default()
        .await
        .map_err(|e| Error::Usage(format!("no cluster is configured: {e}; run it in a pod, or set KUBECONFIG")))?;
    let metrics = Metrics::new().map_err(|e| Error::failed("register the metrics", e))?;
    let (readiness, tasks) = (Readiness::default(), TaskTracker::new());
    let (ask, mut asks) = mpsc::channel(ASKS);
    let shelf = Shelf::default();
    let history = settings.ledger.is_some().then(|| shelf.clone());
    let routes = http::routes(&metrics, readiness.clone(), client.clone(), http::Asker::new(ask, history, metrics.clone()));
    let served = tasks.spawn(serve(listener, routes, shutdown.clone()));
    readiness.set(true);
    let done = match settings.mode {
        Mode::Observe => {
            let fence = lease::Fence::default();
            live(&client, &settings, fence, &metrics, shelf, &mut asks, &shutdown).await
        }
        Mode::Act => lead(&client, &settings, &metrics, shelf, &mut asks, &shutdown).await,
    };
    readiness.set(false);
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    done.and(served.await.map_err(|e| Error::failed("serve HTTP", e))?)
}

/// Waits for the lease, acts while it is held, and gives it up.
async fn lead(
    client: &Client,
    settings: &Settings,
    metrics: &Metrics,
    shelf: Shelf,
    asks: &mut mpsc::Receiver<Ask>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let mut contender = Contender::new(client.clone(), settings.lease.clone());
    // Whoever asks before is told at once that this one stands by.
    let stand_by = async { while asks.recv().await.is_some() {} };
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = stand_by => return Ok(()),
        () = contender.acquire() => {}
    }
    metrics.leads.set(1);
    let acting = shutdown.child_token();
    let fence = contender.fence.clone();
    let world = live(client, settings, fence, metrics, shelf, asks, &acting);
    let mut world = std::pin::pin!(world);
    let lost = tokio::select! {
        done = &mut world => Ended::Done(done),
        lost = contender.keep() => Ended::Lost(lost),
    };
    metrics.leads.set(0);
    match lost {
        Ended::Lost(lost) => {
            acting.cancel();
            // What else went wrong is the lesser news.
            drop(world.await);
            Err(Error::failed("keep the lease", lost))
        }
        Ended::Done(done) => {
            contender.release().await;
            done
        }
    }
}

/// How a leader ended.
enum Ended<L> {
    Done(Result<(), Error>),
    Lost(L),
}

/// Watches, runs the world and tells routers and replicas until `shutdown`.
async fn live(
    client: &Client,
    settings: &Settings,
    fence: lease::Fence,
    metrics: &Metrics,
    shelf: Shelf,
    asks: &mut mpsc::Receiver<Ask>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let (to, mut seen) = mpsc::channel(NEWS);
    let (report, mut reports) = mpsc::channel(NEWS);
    let (tasks, quit) = (TaskTracker::new(), shutdown.child_token());
    let publisher = Publisher::default();
    let told = Published { router: publisher.router.subscribe(), draining: publisher.draining.subscribe() };
    let gate = settings.serving.control_auth.then(|| Gate::new(client.clone(), Some(auth::CONTROL_AUDIENCE)));
    let gate = gate.map(|gate| control::Door { gate, metrics: metrics.clone() });
    let control = match settings.mode {
        // Who only observes leads nobody.
        Mode::Observe => None,
        Mode::Act => Some(tasks.spawn(control::serve(settings.control_listen, gate, report, told, quit.clone()).await?)),
    };
    watch::start(client, settings.adoptions, &to, metrics, &tasks, &quit);
    tasks.spawn(quit.clone().run_until_cancelled_owned(watch::check(client.clone(), to, settings.check_every)));
    let writer = Writer::new(client.clone(), fence.clone(), metrics.clone(), settings.abort_after);
    let index = Index::new(settings.progress_url.clone(), settings.serving.clone());
    let mut world =
        World::new(settings.mode, Clock::of(client).await, index, settings.adoptions, writer, publisher, metrics.clone());
    let written = CancellationToken::new();
    if let Some(ledger) = &settings.ledger {
        let (keeper, past) = Keeper::new(ledger, &settings.lease.identity, fence, shelf, metrics.ledger.clone());
        world = world.with_history(keeper.journal(), past);
        tasks.spawn(keeper.run(written.clone()));
    }
    world.run(Heard { seen: &mut seen, reports: &mut reports, asks }, &quit).await;
    quit.cancel();
    // The lease is given up after that: the next one reads what this one has written.
    written.cancel();
    tasks.close();
    tasks.wait().await;
    match control {
        Some(control) => control.await.map_err(|e| Error::failed("serve the control protocol", e))?,
        None => Ok(()),
    }
}

/// Without it nobody can ask, and workers report to nobody: then the operator ends too.
async fn serve(listener: TcpListener, routes: axum::Router, shutdown: CancellationToken) -> Result<(), Error> {
    let served = axum::serve(listener, routes).with_graceful_shutdown(shutdown.clone().cancelled_owned()).await;
    shutdown.cancel();
    served.map_err(|e| Error::failed("serve HTTP", e))
}

/// What no other process has: where and when this one began.
fn unique() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), since.as_micros())
}
