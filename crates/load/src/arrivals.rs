//! When requests arrive: a Poisson process whose rate follows straight lines between breakpoints,
//! drawn by thinning (Lewis and Shedler 1979). Seeded for each model by name, so that leaving one
//! model out changes nothing for the others.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Requests per second over time: straight lines between `(seconds, rate)`, zero outside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RateCurve {
    points: Vec<(f64, f64)>,
}

impl RateCurve {
    /// `points` sorted by time; times are multiplied by `scale`, rates stay.
    pub(crate) fn new(points: &[(f64, f64)], scale: f64) -> Self {
        Self { points: points.iter().map(|(at, rate)| (at * scale, *rate)).collect() }
    }

    pub(crate) fn at(&self, seconds: f64) -> f64 {
        let after = self.points.partition_point(|(at, _)| *at <= seconds);
        let (Some(before), Some(next)) = (after.checked_sub(1).and_then(|i| self.points.get(i)), self.points.get(after)) else {
            return 0.0;
        };
        before.1 + (next.1 - before.1) * (seconds - before.0) / (next.0 - before.0)
    }

    fn highest(&self) -> f64 {
        self.points.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
    }

    pub(crate) fn end(&self) -> f64 {
        self.points.last().map_or(0.0, |(at, _)| *at)
    }
}

/// One request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// After the start.
    pub(crate) at: Duration,
    /// Which of the model's prepared requests, from 0 to below their number.
    pub(crate) pick: usize,
}

/// The arrivals of one model, in order.
pub(crate) struct Arrivals {
    curve: RateCurve,
    choices: usize,
    seconds: f64,
    random: StdRng,
}

impl Arrivals {
    pub(crate) fn new(curve: RateCurve, choices: usize, seed: u64, model: &str) -> Self {
        Self { curve, choices, seconds: 0.0, random: StdRng::seed_from_u64(seed ^ hash(model)) }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let highest = self.curve.highest();
        if highest <= 0.0 || self.choices == 0 {
            return None;
        }
        loop {
            let exponential = -(1.0 - self.random.random::<f64>()).ln();
            self.seconds += exponential / highest;
            if self.seconds >= self.curve.end() {
                return None;
            }
            if self.random.random::<f64>() * highest < self.curve.at(self.seconds) {
                let pick = self.random.random_range(0..self.choices);
                return Some(Arrival { at: Duration::from_secs_f64(self.seconds), pick });
            }
        }
    }
}

/// FNV-1a: the same on every machine and in every version, unlike the standard library's hasher.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: [(f64, f64); 4] = [(0.0, 0.0), (100.0, 200.0), (100.0, 20.0), (200.0, 20.0)];

    fn arrivals(seed: u64, model: &str) -> Vec<Arrival> {
        Arrivals::new(RateCurve::new(&DAY, 1.0), 64, seed, model).collect()
    }

    #[test]
    fn the_rate_follows_straight_lines_and_may_jump() {
        let curve = RateCurve::new(&DAY, 1.0);
        assert!((curve.at(50.0) - 100.0).abs() < 1e-9);
        assert!((curve.at(100.0) - 20.0).abs() < 1e-9);
        assert!((curve.at(-1.0)).abs() < 1e-9);
        assert!((curve.at(200.0)).abs() < 1e-9);
    }

    #[test]
    fn the_same_seed_gives_the_same_arrivals_and_another_seed_others() {
        assert_eq!(arrivals(7, "a"), arrivals(7, "a"));
        assert_ne!(arrivals(7, "a"), arrivals(8, "a"));
        assert_ne!(arrivals(7, "a"), arrivals(7, "b"));
    }

    #[test]
    fn arrivals_are_in_order_and_as_many_as_the_area_under_the_rate() {
        let drawn = arrivals(7, "a");
        assert!(drawn.is_sorted_by_key(|arrival| arrival.at));
        let (before, after): (Vec<Arrival>, Vec<Arrival>) = drawn.into_iter().partition(|a| a.at < Duration::from_secs(100));
        // Areas 10000 and 2000; five standard deviations of a Poisson count.
        assert!(before.len().abs_diff(10_000) < 500, "{}", before.len());
        assert!(after.len().abs_diff(2_000) < 224, "{}", after.len());
        assert!(before.iter().all(|arrival| arrival.pick < 64));
    }

    #[test]
    fn gaps_scatter_as_a_poisson_process_does() {
        let steady: Vec<f64> =
            Arrivals::new(RateCurve::new(&[(0.0, 50.0), (400.0, 50.0)], 1.0), 1, 3, "a").map(|a| a.at.as_secs_f64()).collect();
        let gaps: Vec<f64> = steady.windows(2).map(|pair| pair[1] - pair[0]).collect();
        #[expect(clippy::cast_precision_loss, reason = "20000 gaps")]
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        // An exponential's standard deviation equals its mean; evenly spaced arrivals would have none.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05);
    }

    #[test]
    fn a_scaled_day_is_shorter_at_the_same_rates() {
        let curve = RateCurve::new(&DAY, 0.1);
        assert!((curve.at(5.0) - 100.0).abs() < 1e-9);
        assert!((curve.end() - 20.0).abs() < 1e-9);
    }

    #[test]
    fn a_model_without_traffic_has_no_arrivals() {
        assert_eq!(Arrivals::new(RateCurve::new(&[(0.0, 0.0), (9.0, 0.0)], 1.0), 4, 1, "a").count(), 0);
    }
}
