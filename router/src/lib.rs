//! The front door: takes requests, forms batches, picks replicas.
//!
//! ```text
//!  client --HTTP/1.1--> serve -> app --+-- oip ------+
//!                                      +-- openai ---+--> queue (one owner task a model) --gRPC--> replica
//!                                      |                     ^ decisions: tidegate_core::serving
//!                                      +-- proxy --> world   | endpoints, limits
//!                                  control <=====gRPC======> world: demand up, configuration down
//! ```
//!
//! **Guarantees**: every request gets one answer, in bounded time; nothing is unbounded; a client's
//! mistake is a 4xx and harms nobody else's batch; with the world gone, inference goes on.

mod app;
mod args;
mod body;
mod clock;
mod control;
mod error;
mod metrics;
mod model;
mod oip;
mod openai;
mod proxy;
mod queue;
mod registry;
mod serve;
mod tensor;
mod tokenize;

use std::sync::Arc;
use std::time::Duration;

use tidegate_runtime::admin::Readiness;
use tidegate_runtime::exit::Error;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use args::Args;

use app::App;
use body::BodyLimits;
use clock::Clock;
use control::Control;
use metrics::Metrics;
use proxy::Proxy;
use queue::Shared;
use registry::Registry;
use serve::Server;
use tidegate_runtime::control::Token;
use tokenize::Pool;

/// How long connections wait for the first configuration. With the world up it comes within milliseconds.
const FIRST_CONFIGURATION: Duration = Duration::from_secs(1);
/// How long tasks may take to end after the last connection closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs until `shutdown`, then answers what is in flight and ends. Takes connections from the socket that
/// a supervisor passed (`LISTEN_FDS`), or from a new one at `--listen`.
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Error> {
    let listener = tidegate_runtime::listener::passed_or_new(args.listen).await?;
    run_on(listener, args, shutdown).await
}

/// [`run`] with connections from `listener`.
pub async fn run_on(listener: TcpListener, args: Args, shutdown: CancellationToken) -> Result<(), Error> {
    let Args {
        listen: _,
        control,
        control_token_file,
        router_id,
        world,
        max_body_bytes,
        max_connections,
        header_timeout_ms,
        body_timeout_ms,
        drain_timeout_ms,
    } = args;
    let max_bytes = usize::try_from(max_body_bytes).unwrap_or(usize::MAX);
    let endpoint = control::endpoint(&control)
        .map_err(|e| Error::Usage(format!("--control {control}: {e}; give a URL like http://127.0.0.1:9000")))?;
    let proxy = world
        .map(|url| Proxy::new(&url, max_bytes, shutdown.clone()).map_err(|e| Error::Usage(format!("--world {url}: {e}"))))
        .transpose()?;
    let metrics = Arc::new(Metrics::new().map_err(|e| Error::failed("register metrics", e))?);

    let readiness = Readiness::default();
    let waking = Arc::new(Notify::new());
    let tasks = TaskTracker::new();
    let shared = Shared { clock: Clock::start(), metrics: metrics.clone(), waking: waking.clone(), tasks: tasks.clone() };
    let registry = Arc::new(Registry::new(shared));
    let unconfigured = CancellationToken::new();
    let session = Control {
        endpoint,
        token: Token::new(control_token_file),
        router_id,
        registry: registry.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        unconfigured: unconfigured.clone(),
        waking,
    };
    let over = CancellationToken::new();
    tasks.spawn(session.run(over.clone()));
    tasks.spawn(unready(readiness.clone(), shutdown.clone()));

    let server = Server {
        max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
        header_timeout: Duration::from_millis(header_timeout_ms),
        drain_timeout: Duration::from_millis(drain_timeout_ms),
        open: metrics.connections.clone(),
        routes: app::router(App {
            registry: registry.clone(),
            metrics,
            readiness,
            unconfigured: unconfigured.clone(),
            body_limits: BodyLimits { max_bytes, timeout: Duration::from_millis(body_timeout_ms) },
            tokenizers: Pool::default(),
            proxy,
        }),
    };
    // A router that was killed and started again would call every model unknown: connections wait in the kernel's queue.
    tokio::select! {
        () = unconfigured.cancelled() => {}
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(FIRST_CONFIGURATION) => tracing::warn!("no configuration yet; models are answered 503 until it comes"),
    }
    server.run(listener, shutdown).await;
    over.cancel();
    registry.clear();
    tasks.close();
    if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "ending with batches in flight that nobody waits for");
    }
    Ok(())
}

/// Nobody should send new requests from the first moment of a shutdown.
async fn unready(readiness: Readiness, shutdown: CancellationToken) {
    shutdown.cancelled().await;
    readiness.set(false);
}
