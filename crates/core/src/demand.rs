//! How many devices a model's traffic needs: `devices = f(rate, service time, SLO, head-room)`.
//!
//! A batch of n rows takes `base + per_row * n`. A request that arrives just after a batch started
//! waits for that batch and then for its own, so a batch size keeps the SLO when two of its batches
//! fit into it. The largest such n gives a device's capacity `n / t(n)`; the forecast rate with
//! head-room, divided by it, gives the devices (the rule of Clockwork and Nexus in one line).

use serde::{Deserialize, Serialize};

/// Service time of a batch of n rows, in microseconds: `base_us + per_row_us * n`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceTime {
    pub base_us: u64,
    pub per_row_us: u64,
}

impl ServiceTime {
    /// Time of a batch of `rows`, at least 1 us.
    pub fn of(self, rows: u64) -> u64 {
        self.base_us.saturating_add(self.per_row_us.saturating_mul(rows)).max(1)
    }

    /// The largest batch, up to `max_rows`, of which two fit into `slo_us`; 1 if none does.
    pub fn largest_batch(self, slo_us: u64, max_rows: u32) -> u64 {
        let room = (slo_us / 2).saturating_sub(self.base_us);
        let fitting = room.checked_div(self.per_row_us).unwrap_or(u64::from(max_rows));
        fitting.clamp(1, u64::from(max_rows.max(1)))
    }

    /// Rows that one device answers inside the SLO, per 1000 s.
    pub fn capacity_milli_rows_per_s(self, slo_us: u64, max_rows: u32) -> u64 {
        let rows = self.largest_batch(slo_us, max_rows);
        (rows.saturating_mul(1_000_000_000) / self.of(rows)).max(1)
    }
}

/// What routers say of one model's traffic.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Rows per 1000 s over the last seconds.
    pub milli_rows_per_s: u64,
    /// Its change per second.
    pub trend: i64,
    /// Rows waiting, of which `held` wait because no replica is ready.
    pub queued: u64,
    pub held: u64,
    /// Rows being answered.
    pub in_flight: u64,
    /// Fitted service time; absent before the first batches.
    pub service: Option<ServiceTime>,
}

impl Demand {
    /// Nothing arrives, waits or runs.
    pub fn is_idle(&self) -> bool {
        self.milli_rows_per_s == 0 && self.queued == 0 && self.held == 0 && self.in_flight == 0
    }
}

/// What the promise is, for [`devices`].
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    pub slo_us: u64,
    pub max_rows: u32,
    pub headroom_percent: u32,
    /// How far ahead a device must be ordered: eviction plus load.
    pub lead_ms: u64,
}

/// Devices that keep the promise for this demand; 0 when idle, at least 1 otherwise.
///
/// A backlog beyond the batch that forms counts as rate to be worked off within half an SLO.
pub fn devices(demand: &Demand, promise: Promise, ready: u32) -> u32 {
    if demand.is_idle() {
        return 0;
    }
    let Some(service) = demand.service else { return 1 };
    let rise = u64::try_from(demand.trend.max(0)).unwrap_or(0).saturating_mul(promise.lead_ms) / 1000;
    // A trend measured over seconds may not double the rate: noise at a low rate would ask for the whole box.
    let forecast = demand.milli_rows_per_s.saturating_add(rise.min(demand.milli_rows_per_s));
    let headroom = forecast.saturating_mul(u64::from(promise.headroom_percent)) / 100;
    let forming =
        service.largest_batch(promise.slo_us, promise.max_rows).saturating_mul(u64::from(ready.max(1))).saturating_mul(2);
    let excess = demand.queued.saturating_sub(forming);
    let backlog = excess.saturating_mul(2_000_000_000) / promise.slo_us.max(1);
    let needed = forecast.saturating_add(headroom).saturating_add(backlog);
    let capacity = service.capacity_milli_rows_per_s(promise.slo_us, promise.max_rows);
    u32::try_from(needed.div_ceil(capacity)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: ServiceTime = ServiceTime { base_us: 20_000, per_row_us: 5_000 };

    fn promise(headroom_percent: u32) -> Promise {
        Promise { slo_us: 250_000, max_rows: 16, headroom_percent, lead_ms: 2_000 }
    }

    #[test]
    fn the_largest_batch_leaves_room_to_wait_for_one_before_it() {
        assert_eq!(DIGITS.largest_batch(250_000, 16), 16);
        assert_eq!(DIGITS.largest_batch(100_000, 16), 6);
        assert_eq!(DIGITS.largest_batch(10_000, 16), 1);
    }

    #[test]
    fn devices_follow_the_rate_with_headroom() {
        let at = |rate: u64| Demand { milli_rows_per_s: rate * 1000, service: Some(DIGITS), ..Demand::default() };
        assert_eq!(devices(&at(0), promise(25), 0), 0);
        assert_eq!(devices(&at(1), promise(25), 1), 1);
        assert_eq!(devices(&at(160), promise(0), 1), 1, "160 rows/s is exactly one device");
        assert_eq!(devices(&at(160), promise(25), 1), 2);
        assert_eq!(devices(&at(500), promise(25), 3), 4);
    }

    #[test]
    fn a_rising_rate_is_met_before_it_is_there_but_a_trend_never_doubles_it() {
        let rising = Demand { milli_rows_per_s: 150_000, trend: 40_000, service: Some(DIGITS), ..Demand::default() };
        assert_eq!(devices(&rising, promise(0), 1), 2);
        let noisy = Demand { milli_rows_per_s: 10_000, trend: 900_000, service: Some(DIGITS), ..Demand::default() };
        assert_eq!(devices(&noisy, promise(0), 1), 1);
    }

    #[test]
    fn an_unknown_service_time_asks_for_one_device_to_learn_it() {
        let held = Demand { held: 3, queued: 3, ..Demand::default() };
        assert_eq!(devices(&held, promise(25), 0), 1);
    }

    #[test]
    fn a_backlog_asks_for_more() {
        let behind = Demand { milli_rows_per_s: 150_000, queued: 200, service: Some(DIGITS), ..Demand::default() };
        assert!(devices(&behind, promise(0), 1) > 2);
    }
}
