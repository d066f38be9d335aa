//! Structured logs on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Starts logging: `TIDEGATE_LOG` filters (for instance `info,tidegate_router=debug`), `TIDEGATE_LOG_FORMAT=json`
/// writes one JSON object a line. A second call in one process is ignored.
pub fn init(default_filter: &str) {
    // A watch that cannot begin says so each time; the operator says it once.
    let default = || EnvFilter::new(format!("{default_filter},kube_runtime::watcher=error"));
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| default());
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    let json = std::env::var("TIDEGATE_LOG_FORMAT").is_ok_and(|v| v == "json");
    let result = if json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
    drop(result);
}
