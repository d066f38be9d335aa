//! The socket that a part serves on: one that a supervisor passes (`LISTEN_FDS` of `sd_listen_fds(3)`), so that it outlives
//! the process, or a new one.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::exit::Error;

/// The passed socket, else a new one at `listen`, the value of `--listen`.
///
/// # Errors
/// Exit 64 when what was passed is no listening socket, or when nothing can listen there.
pub async fn passed_or_new(listen: SocketAddr) -> Result<TcpListener, Error> {
    let passed = listenfd::ListenFd::from_env()
        .take_tcp_listener(0)
        .map_err(|e| Error::Usage(format!("LISTEN_FDS: the passed file descriptor is no listening TCP socket: {e}")))?;
    let Some(passed) = passed else {
        let listener = TcpListener::bind(listen).await.map_err(|e| {
            Error::Usage(format!("--listen {listen}: {e}; choose another address, or end the process that holds it"))
        })?;
        tracing::info!(address = %listen, "listening");
        return Ok(listener);
    };
    passed.set_nonblocking(true).map_err(|e| Error::failed("use the passed socket", e))?;
    TcpListener::from_std(passed).map_err(|e| Error::failed("use the passed socket", e))
}
