//! The router's arguments.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Arguments of `tidegate router`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Where clients connect. Not needed when a supervisor passes a listening socket (`LISTEN_FDS`).
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where the world serves `tidegate.control.v1`, for instance `http://127.0.0.1:9000`.
    #[arg(long, env = "TIDEGATE_CONTROL")]
    pub control: String,
    /// A file with the token by which the world knows this router, read anew for each session. Absent: it sends none.
    #[arg(long, env = "TIDEGATE_CONTROL_TOKEN_FILE")]
    pub control_token_file: Option<PathBuf>,
    /// Name of this router in reports.
    #[arg(long, env = "TIDEGATE_ROUTER_ID", default_value = "router")]
    pub router_id: String,
    /// Where paths that are not the router's own go, for instance `http://127.0.0.1:9001`.
    #[arg(long, env = "TIDEGATE_WORLD")]
    pub world: Option<String>,
    /// Largest request body.
    #[arg(long, default_value_t = 16 * 1024 * 1024, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_body_bytes: u64,
    /// Connections open at once; more wait in the kernel's queue.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// A connection that sends no complete request head for so long is closed.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub header_timeout_ms: u64,
    /// A body that is not complete after so long is answered 408.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub body_timeout_ms: u64,
    /// How long requests in flight may take after a signal to end.
    #[arg(long, default_value_t = 10_000)]
    pub drain_timeout_ms: u64,
}
