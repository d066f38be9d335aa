//! Signals become one cancellation token, the root of every task of a process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exit::Error;

/// A token that is cancelled by SIGTERM or SIGINT. The listener is spawned on `tasks` and ends with the token.
pub fn on_signal(tasks: &TaskTracker) -> Result<CancellationToken, Error> {
    let token = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).map_err(|e| Error::failed("listen for SIGTERM", e))?;
    let mut int = signal(SignalKind::interrupt()).map_err(|e| Error::failed("listen for SIGINT", e))?;
    let cancelled = token.clone();
    tasks.spawn(async move {
        tokio::select! {
            _ = term.recv() => tracing::info!(signal = "SIGTERM", "shutting down"),
            _ = int.recv() => tracing::info!(signal = "SIGINT", "shutting down"),
            () = cancelled.cancelled() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}
