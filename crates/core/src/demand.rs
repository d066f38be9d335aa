//! How many devices a model's traffic needs: `devices = f(rate, service time, SLO, head-room)`.
//!
//! A batch of n rows takes `base + per_row * n`. A request that arrives just after a batch started
//! waits for that batch and then for its own, so a batch size keeps the SLO when two of its batches
//! fit into it. The largest such n are a device's *places*, each busy for `t(n)` per request (the rule of Clockwork and Nexus):
//!
//! ```text
//!   load   a = rate x t(n)                                     places that are busy on average
//!   spread z = (burst + 1) / 2                                 squared variation of arrivals and of service, halved
//!   need     = a + f x max(head-room x a, sigmas x sqrt(a z))  f: what was spent of the error budget ([`Budget`])
//! ```
//!
//! The square root is the standard deviation of the load (Allen-Cunneen; Halfin and Whitt 1981): small and bursty models need
//! more head-room in proportion, large ones less.
//!
//! **Sharing.** Models that take turns on one device wait for the turn that runs, those of the others and their own: with `k`
//! sharers, `k + 1` batches must fit into the SLO, and a place is busy for `k x t(n)`. A model whose need fits such a slice asks
//! for it instead of a device. Who shares with whom is not known then, so turns are cut for the strictest SLO of all that share.

use serde::{Deserialize, Serialize};

use crate::quota::decay;
use crate::time::At;

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
        self.largest_turn(slo_us, max_rows, 1)
    }

    /// Whether a row keeps its SLO on a device that so many models take turns on.
    pub fn may_share(self, slo_us: u64, sharers: u32) -> bool {
        self.of(1).saturating_mul(u64::from(sharers) + 1) <= slo_us
    }

    /// The largest batch when `sharers` models take turns: a turn that runs, the others' and one's own fit; 1 if none does.
    fn largest_turn(self, slo_us: u64, max_rows: u32, sharers: u32) -> u64 {
        let room = (slo_us / (u64::from(sharers) + 1)).saturating_sub(self.base_us);
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
    /// Squared variation of the times between arrivals, in thousandths; absent: not measured, as of arrivals at random (1000).
    #[serde(default)]
    pub burst_milli: Option<u64>,
    /// Of the rows since the last report, those that were late or refused, in millionths; absent: not counted.
    #[serde(default)]
    pub late_ppm: Option<u64>,
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

/// What else decides on head-room, for [`need`].
#[derive(Clone, Copy, Debug)]
pub struct Margin {
    /// Head-room is at least so many standard deviations of the load, in hundredths.
    pub sigmas_percent: u32,
    /// Head-room times this, in thousandths; see [`Budget::factor_milli`].
    pub factor_milli: u64,
    /// Models that may take turns on one device; 1: it is never shared.
    pub max_sharers: u32,
    /// The strictest SLO of the models that take turns.
    pub turn_slo_us: u64,
}

impl Default for Margin {
    fn default() -> Self {
        Self { sigmas_percent: 0, factor_milli: 1000, max_sharers: 1, turn_slo_us: u64::MAX }
    }
}

/// Devices, or one slice of a device.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub devices: u32,
    /// Above 1: instead of `devices`, the slice of one that so many models share.
    pub sharers: u32,
}

impl Need {
    /// Whole devices.
    pub fn whole(devices: u32) -> Self {
        Self { devices, sharers: 1 }
    }

    /// Orders needs: thousandths of devices.
    pub fn milli(self) -> u64 {
        u64::from(self.devices) * 1000 / u64::from(self.sharers.max(1))
    }
}

/// Devices that keep the promise for this demand; 0 when idle, at least 1 otherwise.
pub fn devices(demand: &Demand, promise: Promise, ready: u32) -> u32 {
    need(demand, promise, Margin::default(), ready).devices
}

/// What keeps the promise for this demand: no device when idle, a slice where one will do, else at least one device.
///
/// A backlog beyond the batch that forms counts as rate to be worked off within half an SLO.
pub fn need(demand: &Demand, promise: Promise, margin: Margin, ready: u32) -> Need {
    if demand.is_idle() {
        return Need::whole(0);
    }
    let Some(service) = demand.service else { return Need::whole(1) };
    let slo_us = promise.slo_us;
    let rise = u64::try_from(demand.trend.max(0)).unwrap_or(0).saturating_mul(promise.lead_ms) / 1000;
    // A trend measured over seconds may not double the rate: noise at a low rate would ask for the whole box.
    let rate = demand.milli_rows_per_s.saturating_add(rise.min(demand.milli_rows_per_s));
    let forming = service.largest_batch(slo_us, promise.max_rows).saturating_mul(u64::from(ready.max(1))).saturating_mul(2);
    let excess = demand.queued.saturating_sub(forming);
    let backlog = excess.saturating_mul(2_000_000_000) / slo_us.max(1);
    let turn_slo_us = slo_us.min(margin.turn_slo_us);
    let places = |sharers: u32| {
        let slo_us = if sharers > 1 { turn_slo_us } else { slo_us };
        let rows = service.largest_turn(slo_us, promise.max_rows, sharers);
        let busy_us = service.of(rows).saturating_mul(u64::from(sharers));
        (rows, milli_places(rate, backlog, busy_us, demand.burst_milli.unwrap_or(RANDOM_MILLI), promise, margin))
    };
    let slice = (2..=margin.max_sharers).rev().find(|sharers| {
        let (rows, needed) = places(*sharers);
        service.may_share(turn_slo_us, *sharers) && needed <= rows.saturating_mul(1000)
    });
    if let Some(sharers) = slice {
        return Need { devices: 1, sharers };
    }
    let (rows, needed) = places(1);
    Need::whole(u32::try_from(needed.div_ceil(rows.saturating_mul(1000).max(1))).unwrap_or(u32::MAX).max(1))
}

/// Squared variation of the times between arrivals at random, and of service times whose lengths vary as an exponential's.
const RANDOM_MILLI: u64 = 1000;

/// Thousandths of places for a rate and a backlog (rows per 1000 s) of which each row keeps a place busy for `busy_us`.
fn milli_places(rate: u64, backlog: u64, busy_us: u64, burst_milli: u64, promise: Promise, margin: Margin) -> u64 {
    let load = |rate: u64| rate.saturating_mul(busy_us).div_ceil(1_000_000);
    let busy = load(rate);
    let spread = u64::midpoint(burst_milli, RANDOM_MILLI);
    // Both are thousandths: so is the root of their product.
    let sigma = busy.saturating_mul(spread).isqrt();
    let headroom = busy.saturating_mul(u64::from(promise.headroom_percent)) / 100;
    let headroom = headroom.max(sigma.saturating_mul(u64::from(margin.sigmas_percent)) / 100);
    let headroom = headroom.saturating_mul(margin.factor_milli) / 1000;
    busy.saturating_add(headroom).saturating_add(load(backlog))
}

/// Rows of a model and those that were late, both decayed: half of what was late is forgiven after [`HALF_LIFE_MS`].
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Thousandths of rows.
    milli_rows: u64,
    /// Millionths of rows.
    late_micro_rows: u64,
    first: Option<At>,
    last: Option<At>,
}

const HALF_LIFE_MS: u64 = 2 * 86_400_000;
/// Until so long, the factor is near 1: too little is known.
const LEARN_MS: u64 = 86_400_000;

impl Budget {
    /// Takes in a report: the rate and the late share since the last one.
    pub fn observe(&mut self, at: At, milli_rows_per_s: u64, late_ppm: u64) {
        let since = self.last.map_or(0, |last| at.since(last));
        self.fade(at);
        self.first.get_or_insert(at);
        self.last = Some(at);
        let milli_rows = milli_rows_per_s.saturating_mul(since) / 1000;
        self.milli_rows = self.milli_rows.saturating_add(milli_rows);
        self.late_micro_rows = self.late_micro_rows.saturating_add(milli_rows.saturating_mul(late_ppm) / 1000);
    }

    fn fade(&mut self, at: At) {
        let from = self.last.map_or(at, |last| last.min(at));
        for sum in [&mut self.milli_rows, &mut self.late_micro_rows] {
            *sum = decay::faded(*sum, from, at, HALF_LIFE_MS);
        }
    }

    /// What to multiply head-room by, in thousandths: a quarter with nothing spent of `allowed_ppm`, 1 at three quarters of it, at
    /// most 3; near 1 for the first day.
    pub fn factor_milli(&self, allowed_ppm: u64) -> u64 {
        let known = self.first.zip(self.last).map_or(0, |(first, last)| last.since(first).min(LEARN_MS));
        let allowed = u128::from(self.milli_rows) * u128::from(allowed_ppm);
        if allowed == 0 {
            return 1000;
        }
        let spent_milli = u128::from(self.late_micro_rows) * 1_000_000 / allowed;
        let wished = u64::try_from(spent_milli).unwrap_or(u64::MAX).saturating_add(250).min(3000);
        (1000 * (LEARN_MS - known) + wished * known) / LEARN_MS
    }
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

    #[test]
    fn bursty_and_small_models_need_more_in_proportion() {
        let at = |rate: u64, burst_milli: u64| Demand {
            milli_rows_per_s: rate * 1000,
            service: Some(DIGITS),
            burst_milli: Some(burst_milli),
            ..Demand::default()
        };
        let margin = Margin { sigmas_percent: 200, ..Margin::default() };
        let need = |demand: &Demand| super::need(demand, promise(10), margin, 1).devices;
        // 160 places are busy: 10 devices; 2 x sqrt(160) = 25 more places are 2 devices, 2 x sqrt(160 x 8) = 72 are 5.
        assert_eq!([1_000, 15_000].map(|burst| need(&at(1_600, burst))), [12, 15]);
        // 100 devices' worth of load: 10 % are more than 2 standard deviations of 40 places.
        assert_eq!(need(&at(16_000, 1_000)), 110);
    }

    #[test]
    fn a_model_that_fits_a_slice_asks_for_the_smallest_one() {
        let at = |rate: u64| Demand { milli_rows_per_s: rate * 1000, service: Some(DIGITS), ..Demand::default() };
        let need = |rate: u64, max_sharers: u32| {
            let need = super::need(&at(rate), promise(25), Margin { max_sharers, ..Margin::default() }, 1);
            (need.devices, need.sharers)
        };
        // With 3 sharers a batch may take 62 ms: 8 rows, each busy for 3 x 60 ms.
        assert_eq!([need(1, 3), need(30, 3), need(1, 1)], [(1, 3), (1, 3), (1, 1)]);
        assert_eq!([need(40, 3), need(100, 3), need(300, 3)], [(1, 2), (1, 1), (3, 1)]);
        // 25 ms x (9 + 1) fit into 250 ms, 25 ms x 11 do not.
        assert_eq!(need(1, 16).1, 9);
    }

    #[test]
    fn turns_are_as_short_as_the_strictest_of_those_that_share_needs() {
        let demand = Demand { milli_rows_per_s: 1_000, service: Some(DIGITS), ..Demand::default() };
        let sharers =
            |turn_slo_us: u64| need(&demand, promise(25), Margin { max_sharers: 9, turn_slo_us, ..Margin::default() }, 1);
        // 25 ms x (k + 1) must fit.
        assert_eq!([u64::MAX, 150_000, 75_000, 60_000].map(|slo_us| sharers(slo_us).sharers), [9, 5, 2, 1]);
    }

    #[test]
    fn an_unspent_budget_quarters_head_room_and_an_overspent_one_trebles_it() {
        let after_days = |late_ppm: u64, days: u64| {
            let mut budget = Budget::default();
            (0..=days * 1440).for_each(|minute| budget.observe(At(minute * 60_000), 10_000, late_ppm));
            budget.factor_milli(1000)
        };
        assert_eq!([after_days(0, 3), after_days(10_000, 3), after_days(10_000, 0)], [250, 3000, 1000]);
        assert!((998..=1002).contains(&after_days(750, 3)), "{}", after_days(750, 3));
        assert_eq!(after_days(10_000_000, 0), 1000, "nothing is known at first");
    }

    #[test]
    fn half_of_what_was_late_is_forgiven_after_two_days_of_good_service() {
        let mut budget = Budget::default();
        budget.observe(At(0), 1_000, 0);
        budget.observe(At(HALF_LIFE_MS), 1_000, 1_000);
        let spent = budget.factor_milli(1000) - 250;
        budget.observe(At(2 * HALF_LIFE_MS), 1_000, 0);
        let left = budget.factor_milli(1000) - 250;
        // Of 1.5 times the rows, half as many were late.
        assert!(spent == 1000 && (330..=336).contains(&left), "{spent} {left}");
    }

    #[test]
    fn what_takes_longer_to_come_back_is_kept_for_a_larger_rise() {
        let rising = Demand { milli_rows_per_s: 150_000, trend: 1_000, service: Some(DIGITS), ..Demand::default() };
        let after = |lead_ms: u64| devices(&rising, Promise { lead_ms, ..promise(0) }, 1);
        assert_eq!([after(5_000), after(30_000)], [1, 2], "155 and 180 rows/s at 160 a device");
    }
}
