//! The node agent: the truth about every GPU of a machine, at next to no cost. Facts only, never decisions.
//!
//! ```text
//!  driver ── crates/nvml ──> collect (threads) ──readings, events──┐
//!  /proc, log folders ─────> pods::cgroup, pods::names ────────────┤
//!  kubelet ── unix socket ─> pods::kubelet ────────────────────────┤
//!                                                                  ▼
//!                            Node (pure): gpu, counter, health ──────── one lock
//!                                                                  │
//!        metrics: /metrics     view: /gpus, /topology     status: GpuNode on Kubernetes
//! ```
//!
//! * [`counter`]: totals that never go back. [`health`]: what is wrong, since when, until when. Both pure.
//! * [`collect`]: NVML's calls block, so they are on threads that nothing else waits for.
//! * [`pods`]: which pod holds which device, from two sides that check each other.
//! * What `docs/node-agent.md` says about each number is said beside the code that makes it.
//!
//! Ends: SIGTERM. A call to the driver that hangs is not waited for.

mod args;
pub mod collect;
pub mod counter;
pub mod gpu;
pub mod gpus;
pub mod health;
mod http;
pub mod metrics;
pub mod node;
pub mod pods;
mod process;
mod status;
pub mod view;
mod watch;

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::Registry;
use tidegate_runtime::admin::Readiness;
use tidegate_runtime::exit::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use args::Table;
pub use args::{Args, Settings};
use collect::Shared;
use node::{Node, Times};

/// How long the threads have to end. One that hangs in the driver never does.
const THREADS_END_WITHIN: Duration = Duration::from_secs(3);

/// Watches the GPUs until `shutdown`; with `--table` prints a table of the documentation.
///
/// # Errors
/// Exit 64 for what a restart cannot mend: arguments, a port in use. No driver and no GPU are no errors: they are watched.
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Error> {
    if let Some(table) = args.table {
        return print(table);
    }
    let settings = args.validate()?;
    let listener = TcpListener::bind(settings.listen).await;
    let listener = listener.map_err(|e| {
        Error::Usage(format!("--listen {}: {e}; choose another address, or end what listens there", settings.listen))
    })?;
    let shared = share(&settings);
    let registry = Registry::new();
    metrics::register(&registry, shared.clone(), settings.dcgm_names, hostname())
        .map_err(|e| Error::failed("register metrics", e))?;
    let keeper = {
        let shared = shared.clone();
        thread::Builder::new()
            .name("nvml".into())
            .spawn(move || collect::keep(&shared))
            .map_err(|e| Error::failed("start a thread", e))?
    };
    let (tasks, readiness) = (TaskTracker::new(), Readiness::default());
    tasks.spawn(watch::look(shared.clone(), readiness.clone(), shutdown.clone()));
    if let Some(pods) = settings.pods.clone() {
        tasks.spawn(watch::pods(shared.clone(), pods, shutdown.clone()));
    }
    if let Some(wanted) = settings.status.clone() {
        tasks.spawn(status::write(shared.clone(), wanted, shutdown.clone()));
    }
    tracing::info!(address = %settings.listen, "the node agent serves /metrics, /gpus and /topology");
    let routes = http::routes(shared.clone(), registry, readiness);
    let served = axum::serve(listener, routes).with_graceful_shutdown(shutdown.clone().cancelled_owned()).await;
    shutdown.cancel();
    shared.stop();
    tasks.close();
    tasks.wait().await;
    end(keeper).await;
    served.map_err(|e| Error::failed("serve HTTP", e))
}

fn share(settings: &Settings) -> Arc<Shared> {
    let times = Times { interval: settings.interval, call_timeout: settings.call_timeout };
    let began_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    Arc::new(Shared::new(Node::new(times, began_unix), settings.nvml_library.clone(), settings.proc.clone()))
}

/// Waits for the threads, but not for one that hangs.
async fn end(keeper: thread::JoinHandle<()>) {
    let deadline = tokio::time::Instant::now() + THREADS_END_WITHIN;
    while !keeper.is_finished() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if !keeper.is_finished() {
        tracing::warn!("a call to the driver hangs; ending without it");
    }
}

fn hostname() -> String {
    let name = std::env::var("NODE_NAME").or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"));
    name.unwrap_or_default().trim().to_owned()
}

fn print(table: Table) -> Result<(), Error> {
    let text = match table {
        Table::Metrics => metrics::table::markdown(),
        Table::Health => health::table::markdown(),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::failed("print a table", e))
}
