//! The one clock of the router: microseconds since its start, for the pure decisions.

use std::time::Duration;

use tidegate_core::serving::Micros;
use tokio::time::Instant;

/// Counts from its creation.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0 now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since the start.
    pub fn now(self) -> Micros {
        micros(self.0.elapsed())
    }

    /// The moment as a timer wants it.
    pub fn instant(self, at: Micros) -> Instant {
        self.0 + Duration::from_micros(at)
    }
}

/// A duration in microseconds.
pub fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
