//! How long to wait before a command that ended is started again.

use std::time::Duration;

/// A run shorter than this counts as a failed start.
const SHORT: Duration = Duration::from_secs(5);
/// Added with every failed start in a row.
const STEP: Duration = Duration::from_millis(100);
/// Never longer: clients wait in the listening socket's backlog meanwhile.
const MAX: Duration = Duration::from_secs(2);

/// Counts failed starts in a row: 0, 100, 200 ... 2000 ms. The first restart is immediate, so that one crash costs next to nothing.
#[derive(Debug, Default)]
pub struct Backoff {
    short_runs: u32,
}

impl Backoff {
    /// The delay after a run of `lived`.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived >= SHORT {
            self.short_runs = 0;
        }
        let delay = (STEP * self.short_runs.min(1000)).min(MAX);
        self.short_runs = self.short_runs.saturating_add(1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_keeps_dying_waits_longer_each_time_up_to_the_limit() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..25).map(|_| backoff.after(Duration::from_millis(10)).as_millis()).collect();
        assert_eq!(delays[..4], [0, 100, 200, 300]);
        assert_eq!(delays[19..], [1900, 2000, 2000, 2000, 2000, 2000]);
    }

    #[test]
    fn a_long_run_forgives() {
        let mut backoff = Backoff::default();
        backoff.after(Duration::ZERO);
        backoff.after(Duration::ZERO);
        assert_eq!(backoff.after(SHORT), Duration::ZERO);
        assert_eq!(backoff.after(Duration::ZERO), STEP);
    }
}
