//! Device-time, integrated as time goes on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EVICTION_WINDOW_MS, Health, State};
use crate::holdings::Holdings;
use crate::time::At;

/// Device-milliseconds since the engine was made.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub at: Option<At>,
    pub device_ms: u64,
    /// Used above a queue's nominal while others used less than theirs.
    pub lent_ms: u64,
    /// By `job/NAME` and `model/NAME`.
    pub held_ms: BTreeMap<String, u64>,
}

impl State {
    /// Moves time forward: books what was held since, and forgets evictions that left the window.
    pub(crate) fn advance(&mut self, at: At) {
        self.now = self.now.max(at);
        let now = self.now;
        self.evictions.retain(|at| now.since(*at) < EVICTION_WINDOW_MS);
        let elapsed = self.usage.at.map_or(0, |from| now.since(from));
        self.usage.at = Some(now);
        if elapsed == 0 {
            return;
        }
        let holdings = Holdings::of(self);
        let usable = self.devices.values().filter(|device| device.health != Health::Lost).count() as u64;
        self.usage.device_ms += usable * elapsed;
        self.usage.lent_ms += holdings.lent_milli(self) * elapsed / 1000;
        for (holder, milli) in holdings.by_holder() {
            *self.usage.held_ms.entry(holder).or_default() += milli * elapsed / 1000;
        }
    }
}
