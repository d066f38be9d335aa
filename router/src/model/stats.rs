//! What a router knows of one model's traffic, for the world and for scrapes.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tidegate_api::control::ModelDemand;
use tidegate_core::serving::{ArrivalRate, Micros, ServiceTimeFit};

use super::burst::Burst;

/// Seconds that the latency percentiles cover.
const WINDOW_S: u64 = 10;
/// Highest latency that is told apart: ten minutes, the largest SLO.
const HIGHEST_US: u64 = 600_000_000;

/// Latencies of the last ten seconds, one histogram a second.
#[derive(Debug)]
struct Latencies {
    /// (second, its latencies).
    slots: Vec<(u64, Histogram<u32>)>,
}

impl Latencies {
    fn new() -> Self {
        let slots = (0..WINDOW_S).filter_map(|_| Some((0, Histogram::new_with_bounds(1, HIGHEST_US, 2).ok()?))).collect();
        Self { slots }
    }

    fn record(&mut self, now: Micros, latency: Micros) {
        let second = now / 1_000_000;
        let at = usize::try_from(second % WINDOW_S).unwrap_or(0);
        let Some((of, histogram)) = self.slots.get_mut(at) else { return };
        if *of != second {
            *of = second;
            histogram.reset();
        }
        histogram.saturating_record(latency.max(1));
    }

    /// p50 and p99, 0 without answers.
    fn percentiles(&self, now: Micros) -> (u64, u64) {
        let second = now / 1_000_000;
        let recent = self.slots.iter().filter(|(of, _)| of + WINDOW_S > second).map(|(_, histogram)| histogram);
        let mut all: Option<Histogram<u32>> = None;
        for histogram in recent.filter(|h| !h.is_empty()) {
            match &mut all {
                None => all = Some(histogram.clone()),
                Some(sum) => drop(sum.add(histogram)),
            }
        }
        all.map_or((0, 0), |h| (h.value_at_quantile(0.5), h.value_at_quantile(0.99)))
    }
}

/// Why a request ended, as counted for the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Answered {
        rows: u32,
        latency: Micros,
        late: bool,
        woken: bool,
    },
    /// Refused because it could not be answered in time: no room to wait, or a deadline that cannot be met.
    Shed {
        rows: u32,
    },
    /// Refused whatever the load.
    Refused,
    Failed,
}

#[derive(Debug)]
struct Inner {
    totals: ModelDemand,
    rate: ArrivalRate,
    burst: Burst,
    latencies: Latencies,
    fit: ServiceTimeFit,
}

impl Inner {
    /// Rows that kept the SLO or did not.
    fn judged(&mut self, rows: u32, late: bool) {
        self.totals.judged_rows_total += u64::from(rows);
        self.totals.late_rows_total += if late { u64::from(rows) } else { 0 };
    }
}

/// Shared between a model's owner task, which writes, and the control session, which reads.
#[derive(Debug)]
pub struct ModelStats(Mutex<Inner>);

impl ModelStats {
    /// All zero.
    pub fn new(model: &str) -> Self {
        let totals = ModelDemand { model: model.to_owned(), ..ModelDemand::default() };
        let inner = Inner {
            totals,
            rate: ArrivalRate::default(),
            burst: Burst::default(),
            latencies: Latencies::new(),
            fit: ServiceTimeFit::default(),
        };
        Self(Mutex::new(inner))
    }

    /// A request of `rows` came to the queue, let in or not.
    pub fn arrived(&self, now: Micros, rows: u32) {
        let mut inner = self.0.lock();
        inner.totals.arrived_total += 1;
        inner.rate.arrived(now, rows);
        inner.burst.arrived(now, rows);
    }

    /// A request ended.
    pub fn ended(&self, now: Micros, how: Ended) {
        let mut inner = self.0.lock();
        match how {
            Ended::Answered { rows, latency, late, woken } => {
                inner.totals.answered_total += 1;
                inner.totals.woken_total += u64::from(woken);
                inner.totals.late_total += u64::from(late && !woken);
                inner.latencies.record(now, latency);
                if !woken {
                    inner.judged(rows, late);
                }
            }
            Ended::Shed { rows } => {
                inner.totals.refused_total += 1;
                inner.judged(rows, true);
            }
            Ended::Refused => inner.totals.refused_total += 1,
            Ended::Failed => inner.totals.failed_total += 1,
        }
    }

    /// A batch came back; `fit` includes it.
    pub fn batch(&self, rows: u32, fit: &ServiceTimeFit) {
        let mut inner = self.0.lock();
        inner.totals.batches_total += 1;
        inner.totals.batch_rows_total += u64::from(rows);
        inner.fit = fit.clone();
    }

    /// How many wait, are held, are being answered.
    pub fn levels(&self, queued: u32, held: u32, in_flight: u32) {
        let mut inner = self.0.lock();
        inner.totals.queued = queued;
        inner.totals.held = held;
        inner.totals.in_flight = in_flight;
    }

    /// Everything as the world wants it.
    pub fn demand(&self, now: Micros) -> ModelDemand {
        let inner = self.0.lock();
        let rate = inner.rate.at(now);
        let (p50_us, p99_us) = inner.latencies.percentiles(now);
        ModelDemand {
            arrival_milli_rows_per_s: rate.milli_rows_per_s,
            arrival_trend: rate.trend,
            rows_per_request_milli: rate.rows_per_request_milli(),
            fit_base_us: inner.fit.base_us(),
            fit_per_row_us: inner.fit.per_row_us(),
            fit_samples: inner.fit.samples(),
            p50_us,
            p99_us,
            burst_milli: inner.burst.milli(now),
            ..inner.totals.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_cover_the_last_ten_seconds() {
        let stats = ModelStats::new("m");
        for n in 0..100 {
            let answered = Ended::Answered { rows: 2, latency: 1_000 * (n + 1), late: n > 90, woken: false };
            stats.ended(1_000_000, answered);
        }
        let demand = stats.demand(2_000_000);
        assert!((49_000..52_000).contains(&demand.p50_us) && (98_000..101_000).contains(&demand.p99_us), "{demand:?}");
        assert_eq!((demand.answered_total, demand.late_total), (100, 9));
        assert_eq!((demand.judged_rows_total, demand.late_rows_total), (200, 18));
        assert_eq!(stats.demand(12_000_000).p99_us, 0);
    }

    #[test]
    fn a_woken_request_is_never_late() {
        let stats = ModelStats::new("m");
        stats.ended(0, Ended::Answered { rows: 3, latency: 5_000_000, late: true, woken: true });
        let demand = stats.demand(0);
        assert_eq!((demand.woken_total, demand.late_total), (1, 0));
        assert_eq!((demand.judged_rows_total, demand.late_rows_total), (0, 0));
    }

    #[test]
    fn rows_that_load_refuses_are_late_and_others_are_not() {
        let stats = ModelStats::new("m");
        stats.ended(0, Ended::Shed { rows: 4 });
        stats.ended(0, Ended::Refused);
        stats.ended(0, Ended::Failed);
        let demand = stats.demand(0);
        assert_eq!((demand.refused_total, demand.judged_rows_total, demand.late_rows_total), (2, 4, 4));
    }

    #[test]
    fn how_unevenly_rows_arrive_is_told_once_enough_came() {
        let stats = ModelStats::new("m");
        stats.arrived(0, 1);
        assert_eq!(stats.demand(0).burst_milli, None);
        (1..100).for_each(|n| stats.arrived(n * 100_000, 1));
        assert_eq!(stats.demand(10_000_000).burst_milli, Some(0), "by the clock");
    }
}
