//! The one-box world: `tidegate up`.
//!
//! ```text
//!   manifests, HTTP API ──┐                       ┌── ledger (SQLite): written before anything is carried out
//!   control gRPC  ────────┼─> world::World ───────┤
//!   progress POSTs ───────┤   (one task owns      ├── units: shim processes of workers, replicas, router, node agent
//!   unit events  ─────────┘    the engine)        └── views: state, timeline, decisions, metrics
//! ```
//!
//! The world is the only one that talks to the engine: it turns what happens into events, writes the engine's
//! snapshot to the ledger, and carries out the plan. Everything that it starts lives in a *unit* that survives it,
//! so a killed `up` is a pause in deciding, not an outage.

pub mod admission;
pub mod agent;
pub mod devices;
pub mod example;
pub mod http;
pub mod machine;
pub mod manifests;
pub mod metrics;
pub mod objects;
pub mod shim;
pub mod unit;
pub mod units;
pub mod up;
pub mod world;

use std::net::SocketAddr;
use std::path::PathBuf;

use tidegate_runtime::exit::Error;
use tokio_util::sync::CancellationToken;

/// Shares this machine's GPUs between training jobs and models.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Manifest, or folder of manifests (*.yaml, *.yml). May be given several times.
    #[arg(short, long = "file", value_name = "FILE|DIR")]
    pub file: Vec<PathBuf>,
    /// A built-in example, for instance `tide`: its manifests, its models, and a client that plays a day.
    #[arg(long, value_name = "NAME")]
    pub example: Option<String>,
    /// With --example: no built-in client.
    #[arg(long, requires = "example")]
    pub no_load: bool,
    /// Simulated devices instead of real ones, for instance `4xH100-80GB`.
    #[arg(long, value_name = "COUNTxCLASS-MEMORY")]
    pub simulate_gpus: Option<String>,
    /// Where clients, the page and the command line connect.
    #[arg(long, default_value = "127.0.0.1:8080", env = "TIDEGATE_LISTEN")]
    pub listen: SocketAddr,
    /// Where jobs, checkpoints, logs and the ledger are kept. Default: `.tidegate`; for an example a new folder for temporary files.
    #[arg(long, env = "TIDEGATE_DATA")]
    pub data: Option<PathBuf>,
}

/// Runs until `shutdown`, then drains: requests in flight are answered, training checkpoints.
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Error> {
    Box::pin(up::run(args, shutdown)).await
}
