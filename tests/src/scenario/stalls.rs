//! What the machine itself keeps from everybody: while its disk writes nothing, or nobody is let run, no promise about time can hold, and
//! that it did not says nothing.

use std::io::{Seek, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Between two looks.
const BEAT: Duration = Duration::from_millis(250);
/// A worker writes its checkpoint before it gives its GPU back: requests that wait for one are late by then.
const MOST: Duration = Duration::from_secs(2);

/// The longest of each that was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// Until a few bytes were on the disk.
    pub write: Duration,
    /// By which a thread that slept was woken too late.
    pub pause: Duration,
}

impl Stalls {
    /// Whether the machine stood still for so long that what did not hold says nothing about us.
    pub fn void(self) -> bool {
        self.write.max(self.pause) >= MOST
    }
}

/// Looks until it is ended.
pub struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Result<Stalls>>,
}

impl Watch {
    /// Once all that builds and tests have written before is on the disk: it is not ours to wait for.
    pub fn start() -> Self {
        nix::unistd::sync();
        let (stop, stopped) = mpsc::channel();
        let look = move || {
            let mut file = tempfile::tempfile()?;
            let mut seen = Stalls::default();
            loop {
                let began = Instant::now();
                file.rewind()?;
                file.write_all(b"beat")?;
                file.sync_all()?;
                seen.write = seen.write.max(began.elapsed());
                let began = Instant::now();
                if stopped.recv_timeout(BEAT) != Err(RecvTimeoutError::Timeout) {
                    return Ok(seen);
                }
                seen.pause = seen.pause.max(began.elapsed().saturating_sub(BEAT));
            }
        };
        Self { stop, thread: thread::spawn(look) }
    }

    /// What was seen.
    ///
    /// # Errors
    /// Nothing could be written.
    pub fn end(self) -> Result<Stalls> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("who watches the machine is gone"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_stood_still_says_nothing_about_us() {
        let stalls = |write_ms: u64, pause_ms: u64| Stalls {
            write: Duration::from_millis(write_ms),
            pause: Duration::from_millis(pause_ms),
        };
        assert!(!stalls(1_999, 1_999).void());
        assert!(stalls(2_000, 0).void() && stalls(0, 2_000).void());
    }

    #[test]
    fn how_long_a_write_takes_is_seen() {
        let seen = Watch::start().end().unwrap();
        assert!(seen.write > Duration::ZERO, "{seen:?}");
    }
}
