//! How unevenly rows arrive: the squared variation of the times between them, 1 for arrivals at random, 0 for a clock.
//!
//! Rows of one request arrive together, with nothing between them, and count as such: a queue of rows feels a request of ten
//! as a burst of ten. What is remembered fades with time, so that the figure follows the day in constant memory; a pause that
//! is longer than that is the end of a tide, not a gap, and begins anew.

use tidegate_core::serving::Micros;

/// Half of what is remembered is forgotten after so long: at one row a second about 40 of them count, and within
/// it the rate of a day's tide hardly changes.
const HALF_LIFE_US: f64 = 30e6;
/// A pause after which what came before says nothing.
const PAUSE_US: Micros = 60_000_000;
/// Fewer rows than these say little of a variation.
const LEAST_ROWS: f64 = 30.0;
/// The highest figure that is told: nothing is decided by a higher one.
const HIGHEST: f64 = 1e6;

/// Faded sums over the gaps before each row.
#[derive(Clone, Debug, Default)]
pub struct Burst {
    last: Option<Micros>,
    rows: f64,
    /// Microseconds, and their squares.
    gaps: f64,
    squares: f64,
}

impl Burst {
    /// A request of `rows` arrived.
    pub fn arrived(&mut self, now: Micros, rows: u32) {
        let Some(last) = self.last.replace(now) else { return };
        let gap = now.saturating_sub(last);
        if gap > PAUSE_US {
            *self = Self { last: Some(now), ..Self::default() };
            return;
        }
        let gap = gap as f64;
        let keep = (-gap / HALF_LIFE_US).exp2();
        self.rows = self.rows * keep + f64::from(rows);
        self.gaps = self.gaps * keep + gap;
        self.squares = self.squares * keep + gap * gap;
    }

    /// In thousandths; `None` while too little arrives to tell.
    pub fn milli(&self, now: Micros) -> Option<u64> {
        let recent = self.last.is_some_and(|last| now.saturating_sub(last) <= PAUSE_US);
        if !recent || self.rows < LEAST_ROWS || self.gaps <= 0.0 {
            return None;
        }
        let variation = self.rows * self.squares / (self.gaps * self.gaps) - 1.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 10^9")]
        let milli = (variation.clamp(0.0, HIGHEST) * 1000.0).round() as u64;
        Some(milli)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const SECOND: Micros = 1_000_000;

    /// Requests of `rows` for 200 s with these gaps.
    fn after(rows: u32, mut gap: impl FnMut() -> Micros) -> Option<u64> {
        let (mut burst, mut now) = (Burst::default(), 0);
        while now < 200 * SECOND {
            burst.arrived(now, rows);
            now += gap();
        }
        burst.milli(now)
    }

    /// Gaps of arrivals at random, `per_s` of them a second.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tests")]
    fn random(seed: u64, per_s: f64) -> impl FnMut() -> Micros {
        let mut rng = StdRng::seed_from_u64(seed);
        move || (-rng.random::<f64>().max(1e-12).ln() / per_s * 1e6) as Micros
    }

    #[test]
    fn a_clock_has_no_variation_and_chance_has_that_of_chance() {
        assert_eq!(after(1, || SECOND / 10), Some(0));
        for seed in 0..5 {
            let at_random = after(1, random(seed, 50.0)).unwrap();
            assert!((850..1_150).contains(&at_random), "seed {seed}: {at_random}");
        }
    }

    #[test]
    fn requests_of_many_rows_are_bursts_of_them() {
        // Batches of b at random have a gap variation of 2 b - 1.
        let batches = after(10, random(7, 50.0)).unwrap();
        assert!((16_000..22_000).contains(&batches), "{batches}");
    }

    #[test]
    fn bursts_between_pauses_are_told() {
        let mut nth = 0;
        // Ten within 10 ms, then a second of nothing.
        let bursts = after(1, || {
            nth += 1;
            if nth % 10 == 0 { SECOND } else { 1_000 }
        });
        assert!((8_000..10_000).contains(&bursts.unwrap()), "{bursts:?}");
    }

    #[test]
    fn too_little_to_tell_is_told_as_nothing() {
        assert_eq!(Burst::default().milli(0), None);
        assert_eq!(after(1, || 5 * SECOND), None, "nine rows are remembered");
        let mut burst = Burst::default();
        (0..100).for_each(|n| burst.arrived(n * SECOND / 10, 1));
        assert!(burst.milli(10 * SECOND).is_some());
        assert_eq!(burst.milli(80 * SECOND), None, "nothing came for long");
        burst.arrived(80 * SECOND, 1);
        assert_eq!(burst.milli(80 * SECOND), None, "and what came before is forgotten");
    }

    #[test]
    fn rows_at_one_moment_are_no_division_by_zero() {
        let mut burst = Burst::default();
        (0..100).for_each(|_| burst.arrived(5, 1));
        assert_eq!(burst.milli(5), None);
    }
}
