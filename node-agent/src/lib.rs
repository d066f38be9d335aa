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
mod page;
pub mod pods;
mod process;
mod saved;
mod status;
pub mod view;
mod watch;

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tidegate_runtime::admin::Readiness;
use tidegate_runtime::exit::Error;
use tidegate_runtime::listener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use args::Table;
pub use args::{Args, Settings};
use collect::Shared;
use node::{Node, Times};
use page::Page;
use saved::Kept;

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
    let listener = listener::passed_or_new(settings.listen).await?;
    let kept = settings.state.clone().map(|file| Kept::open(file, &settings.proc));
    let shared = share(&settings, kept.as_ref());
    let registry = metrics::registry(shared.clone(), settings.dcgm_names, hostname())
        .map_err(|e| Error::failed("register the metrics", e))?;
    let threads = keep(shared.clone())?;
    let (tasks, readiness) = (TaskTracker::new(), Readiness::default());
    tasks.spawn(watch::look(shared.clone(), readiness.clone(), shutdown.clone()));
    if let Some(pods) = settings.pods.clone() {
        tasks.spawn(watch::pods(shared.clone(), pods, shutdown.clone()));
    }
    if let Some(kept) = kept {
        tasks.spawn(saved::keep(shared.clone(), kept, shutdown.clone()));
    }
    if let Some(wanted) = settings.status.clone() {
        tasks.spawn(status::write(shared.clone(), wanted, shutdown.clone()));
    }
    let page = Page::new(registry, settings.interval);
    tasks.spawn(page.clone().keep(shutdown.clone()));
    let routes = http::routes(shared.clone(), page, readiness);
    let served = axum::serve(listener, routes).with_graceful_shutdown(shutdown.clone().cancelled_owned()).await;
    shutdown.cancel();
    shared.stop();
    tasks.close();
    tasks.wait().await;
    end(threads).await;
    served.map_err(|e| Error::failed("serve HTTP", e))
}

/// The agent's time begins now, or with the oldest thing that it remembers.
fn share(settings: &Settings, kept: Option<&Kept>) -> Arc<Shared> {
    let times = Times { interval: settings.interval, call_timeout: settings.call_timeout };
    let now = saved::unix_now();
    let past = kept.map_or(Duration::ZERO, |kept| kept.past(now));
    let began = now.saturating_sub(past);
    let mut node = Node::new(times, began.as_secs_f64());
    if let Some(kept) = kept {
        node.remembered = kept.remembered(began);
    }
    Arc::new(Shared::new(node, past, settings.nvml_library.clone(), settings.proc.clone()))
}

/// Starts the threads that talk to the driver; says when they have ended.
fn keep(shared: Arc<Shared>) -> Result<oneshot::Receiver<()>, Error> {
    let (ended, end) = oneshot::channel::<()>();
    let work = move || {
        collect::keep(&shared);
        // The end of the channel is the news.
        drop(ended);
    };
    thread::Builder::new().name("nvml".into()).spawn(work).map_err(|e| Error::failed("start a thread", e))?;
    Ok(end)
}

/// Waits for the threads, but not for one that hangs.
async fn end(threads: oneshot::Receiver<()>) {
    if tokio::time::timeout(THREADS_END_WITHIN, threads).await.is_err() {
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
