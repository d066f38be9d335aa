//! The pool's policy: head-room, hysteresis and the cap on evictions.

use serde::{Deserialize, Serialize};

/// By which rules devices flow. Times in milliseconds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Capacity above the forecast demand, in percent of it.
    pub headroom_percent: u32,
    /// A model's target falls only after its demand asked for less this long.
    pub lend_after_ms: u64,
    /// A device must be free this long before a running job restarts to grow onto it.
    pub grow_after_ms: u64,
    /// Stops of running work in any minute that the engine may order by itself.
    pub max_evictions_per_minute: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { headroom_percent: 25, lend_after_ms: 10_000, grow_after_ms: 5_000, max_evictions_per_minute: 30 }
    }
}
