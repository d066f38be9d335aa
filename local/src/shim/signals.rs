//! SIGTERM and SIGCHLD as descriptors that `poll` wakes on.
//!
//! Handlers instead of a blocked mask with signalfd: a child inherits blocked signals (std keeps the mask), but not handlers.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// Signals that came since last asked.
#[derive(Debug)]
pub struct Signals {
    term: UnixStream,
    child: UnixStream,
}

impl Signals {
    /// Registers the handlers. SIGINT and SIGHUP, which a terminal sends, do nothing.
    pub fn register() -> io::Result<Self> {
        let unheeded = Arc::new(AtomicBool::new(false));
        flag::register(SIGINT, Arc::clone(&unheeded))?;
        flag::register(SIGHUP, unheeded)?;
        Ok(Self { term: stream_of(SIGTERM)?, child: stream_of(SIGCHLD)? })
    }

    /// Whether SIGTERM came.
    pub fn take_term(&mut self) -> bool {
        drain(&mut self.term)
    }

    /// Whether SIGCHLD came.
    pub fn take_child(&mut self) -> bool {
        drain(&mut self.child)
    }

    /// Become readable when a signal comes.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.term.as_fd(), self.child.as_fd()]
    }
}

fn stream_of(signal: i32) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    pipe::register(signal, write)?;
    Ok(read)
}

fn drain(stream: &mut UnixStream) -> bool {
    let mut came = false;
    let mut bytes = [0; 64];
    while matches!(stream.read(&mut bytes), Ok(n) if n > 0) {
        came = true;
    }
    came
}
