//! How fast requests arrive, and whether the tide rises.
//!
//! Arrivals fall into bins of a quarter second; the rate is their mean over the last three seconds,
//! the trend the least-squares slope over the same bins. A rate is never negative; before three
//! seconds have passed it is the mean over the time since the first arrival, at least one bin.

use std::collections::VecDeque;

use super::{Micros, float, whole};

/// Width of a bin.
const BIN_US: Micros = 250_000;
/// Bins in the window: 3 s, short enough to see a rise before an SLO of some 100 ms is at risk many
/// times over, long enough that 20 requests/s give a figure within a quarter.
const BINS: usize = 12;

/// Arrivals of the last seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArrivalRate {
    /// (bin number, requests, rows), oldest first; bins without arrivals are absent.
    bins: VecDeque<(u64, u64, u64)>,
    first_bin: Option<u64>,
}

/// What the window says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Rows per 1000 s.
    pub milli_rows_per_s: u64,
    /// Requests per 1000 s.
    pub milli_requests_per_s: u64,
    /// Change of `milli_rows_per_s` per second.
    pub trend: i64,
}

impl Rate {
    /// Rows of a request on average, in thousandths; 1000 when nothing arrived.
    pub fn rows_per_request_milli(&self) -> u64 {
        self.milli_rows_per_s.saturating_mul(1000).checked_div(self.milli_requests_per_s).unwrap_or(1000)
    }
}

impl ArrivalRate {
    /// A request of `rows` arrived.
    pub fn arrived(&mut self, now: Micros, rows: u32) {
        let bin = now / BIN_US;
        self.first_bin.get_or_insert(bin);
        match self.bins.back_mut() {
            Some(last) if last.0 >= bin => {
                last.1 += 1;
                last.2 += u64::from(rows);
            }
            _ => self.bins.push_back((bin, 1, u64::from(rows))),
        }
        while self.bins.len() > BINS {
            self.bins.pop_front();
        }
    }

    /// Rate and trend over the full bins before `now`.
    pub fn at(&self, now: Micros) -> Rate {
        let Some(first) = self.first_bin else { return Rate::default() };
        let current = now / BIN_US;
        let since = current.saturating_sub(BINS as u64).max(first);
        if current <= since {
            return self.young(since);
        }
        let counts: Vec<(u64, u64)> = (since..current).map(|bin| self.count(bin)).collect();
        let micros = counts.len() as u64 * BIN_US;
        let (requests, rows) = counts.iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        Rate {
            milli_rows_per_s: per_1000_s(rows, micros),
            milli_requests_per_s: per_1000_s(requests, micros),
            trend: slope(&counts),
        }
    }

    /// Inside the very first bin: what came so far, as if it filled the bin.
    fn young(&self, bin: u64) -> Rate {
        let (requests, rows) = self.count(bin);
        Rate { milli_rows_per_s: per_1000_s(rows, BIN_US), milli_requests_per_s: per_1000_s(requests, BIN_US), trend: 0 }
    }

    fn count(&self, bin: u64) -> (u64, u64) {
        self.bins.iter().find(|b| b.0 == bin).map_or((0, 0), |b| (b.1, b.2))
    }
}

fn per_1000_s(count: u64, micros: Micros) -> u64 {
    count.saturating_mul(1_000_000_000) / micros.max(1)
}

/// Slope of rows per 1000 s over the bins, per second. Needs a second of bins to say anything.
fn slope(counts: &[(u64, u64)]) -> i64 {
    let n = counts.len();
    if n < 4 {
        return 0;
    }
    let step = float(BIN_US) / 1e6;
    let mean_x = float(n as u64 - 1) / 2.0;
    let mean_y = counts.iter().map(|c| float(c.1)).sum::<f64>() / float(n as u64);
    let (mut joint, mut spread) = (0.0, 0.0);
    for (i, count) in counts.iter().enumerate() {
        let x = float(i as u64) - mean_x;
        joint += x * (float(count.1) - mean_y);
        spread += x * x;
    }
    // Rows per bin, per bin -> milli rows per second, per second.
    let value = joint / spread * 1000.0 / (step * step);
    let size = i64::try_from(whole(value.abs())).unwrap_or(i64::MAX);
    if value < 0.0 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(rate: &mut ArrivalRate, from: Micros, to: Micros, every: Micros) {
        let mut t = from;
        while t < to {
            rate.arrived(t, 2);
            t += every;
        }
    }

    #[test]
    fn nothing_arrived_is_rate_zero() {
        assert_eq!(ArrivalRate::default().at(5_000_000), Rate::default());
    }

    #[test]
    fn a_steady_stream_has_its_rate_and_no_trend() {
        let mut rate = ArrivalRate::default();
        steady(&mut rate, 0, 10_000_000, 10_000);
        let now = rate.at(10_000_000);
        assert_eq!((now.milli_requests_per_s, now.milli_rows_per_s, now.trend), (100_000, 200_000, 0));
        assert_eq!(now.rows_per_request_milli(), 2000);
    }

    #[test]
    fn the_rate_falls_to_zero_three_seconds_after_the_last_arrival() {
        let mut rate = ArrivalRate::default();
        steady(&mut rate, 0, 2_000_000, 10_000);
        assert!(rate.at(3_500_000).milli_rows_per_s > 0);
        assert_eq!(rate.at(6_000_000), Rate::default());
    }

    #[test]
    fn a_rising_stream_has_a_positive_trend_and_an_ebbing_one_a_negative() {
        let mut rate = ArrivalRate::default();
        for second in 0..3u64 {
            steady(&mut rate, second * 1_000_000, (second + 1) * 1_000_000, 20_000 / (second + 1));
        }
        // 100, 200, 300 rows/s over three seconds: about 100 rows/s each second.
        let rising = rate.at(3_000_000);
        assert!((80_000..130_000).contains(&rising.trend), "{rising:?}");
        assert!(rate.at(5_000_000).trend < 0);
    }

    #[test]
    fn the_first_quarter_second_already_has_a_rate() {
        let mut rate = ArrivalRate::default();
        rate.arrived(1_000_100, 1);
        assert_eq!(rate.at(1_000_200).milli_rows_per_s, 4_000);
    }

    #[test]
    fn memory_is_bounded() {
        let mut rate = ArrivalRate::default();
        steady(&mut rate, 0, 100_000_000, 100_000);
        assert!(rate.bins.len() <= BINS);
    }
}
