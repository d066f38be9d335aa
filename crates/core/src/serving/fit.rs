//! Service time of a batch, measured: `t(n) = base + per_row * n`.
//!
//! Least squares over the batches that ran, forgetting exponentially, so that a change of device,
//! clock or input length shows within some fifty batches. Batches of one size alone cannot tell
//! `base` from `per_row`; then the last known `per_row` is kept (at first: half of the time per row),
//! and only `base` follows.
//!
//! **Guarantees**: both terms are never negative; one sample is enough for a prediction.

use super::{Micros, float, whole};

/// Weight of the past at each new batch: a memory of about 50 batches.
const MEMORY: f64 = 0.98;
/// How much the last slope weighs against fresh spread, in rows squared: batches of 1 and 2 rows
/// need a handful of samples to move it, batches of 1 and 32 only one.
const SLOPE_INERTIA: f64 = 1.0;
/// A batch is counted as at most so many times its prediction: a stall of the machine is not the model's speed.
const OUTLIER: f64 = 8.0;
/// Before so many batches nothing is known well enough to call a sample an outlier.
const OUTLIER_FROM: u64 = 8;

/// The fitted line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceTimeFit {
    weight: f64,
    rows: f64,
    rows_squared: f64,
    micros: f64,
    rows_micros: f64,
    per_row: f64,
    samples: u64,
}

impl ServiceTimeFit {
    /// One batch of `rows` took `micros`.
    pub fn observe(&mut self, rows: u32, micros: Micros) {
        let n = f64::from(rows.max(1));
        let mut t = float(micros);
        if self.samples >= OUTLIER_FROM {
            t = t.min(OUTLIER * self.at(n).max(1.0));
        }
        for sum in [&mut self.weight, &mut self.rows, &mut self.rows_squared, &mut self.micros, &mut self.rows_micros] {
            *sum *= MEMORY;
        }
        self.weight += 1.0;
        self.rows += n;
        self.rows_squared += n * n;
        self.micros += t;
        self.rows_micros += n * t;
        if self.samples == 0 {
            self.per_row = t / n / 2.0;
        }
        self.samples += 1;
        let spread = (self.rows_squared - self.rows * self.rows / self.weight).max(0.0);
        let joint = self.rows_micros - self.rows * self.micros / self.weight;
        let slope = (joint + SLOPE_INERTIA * self.per_row) / (spread + SLOPE_INERTIA);
        self.per_row = slope.clamp(0.0, self.micros / self.rows);
    }

    /// Expected time of a batch of `rows`; nothing before the first sample.
    pub fn predict(&self, rows: u32) -> Option<Micros> {
        (self.samples > 0).then(|| whole(self.at(f64::from(rows))))
    }

    /// The part that every batch costs.
    pub fn base_us(&self) -> Micros {
        whole(self.base())
    }

    /// The part that each row adds.
    pub fn per_row_us(&self) -> Micros {
        whole(self.per_row)
    }

    /// Batches seen.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    fn base(&self) -> f64 {
        if self.weight > 0.0 { ((self.micros - self.per_row * self.rows) / self.weight).max(0.0) } else { 0.0 }
    }

    fn at(&self, rows: f64) -> f64 {
        self.base() + self.per_row * rows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(value: u64, wanted: u64, percent: u64) -> bool {
        value.abs_diff(wanted) * 100 <= wanted * percent
    }

    #[test]
    fn nothing_is_predicted_before_the_first_batch() {
        assert_eq!(ServiceTimeFit::default().predict(1), None);
    }

    #[test]
    fn one_batch_predicts_itself() {
        let mut fit = ServiceTimeFit::default();
        fit.observe(4, 10_000);
        assert_eq!(fit.predict(4), Some(10_000));
        assert_eq!((fit.base_us(), fit.per_row_us()), (5_000, 1_250));
    }

    #[test]
    fn batches_of_one_size_keep_the_slope_and_move_the_base() {
        let mut fit = ServiceTimeFit::default();
        for rows in [1, 32, 8, 16] {
            fit.observe(rows, 6_000 + 500 * u64::from(rows));
        }
        for _ in 0..500 {
            fit.observe(32, 22_000);
        }
        assert!(near(fit.per_row_us(), 500, 5), "{fit:?}");
        for _ in 0..500 {
            fit.observe(32, 30_000);
        }
        assert!(near(fit.predict(32).unwrap(), 30_000, 1), "{fit:?}");
    }

    #[test]
    fn a_stall_does_not_become_the_model_s_speed() {
        let mut fit = ServiceTimeFit::default();
        for n in 0..50 {
            fit.observe(1 + n % 8, 5_000);
        }
        fit.observe(4, 10_000_000);
        assert!(fit.predict(4).unwrap() < 7_000, "{fit:?}");
    }

    proptest! {
        #[test]
        fn it_finds_the_line_it_is_fed(base in 0u64..50_000, per_row in 1u64..5_000, sizes in prop::collection::vec(1u32..64, 60..200)) {
            let mut fit = ServiceTimeFit::default();
            prop_assume!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() > 16);
            for n in &sizes {
                fit.observe(*n, base + per_row * u64::from(*n));
            }
            let wanted = base + per_row * 32;
            prop_assert!(near(fit.predict(32).unwrap(), wanted, 5), "{:?} for {base} + {per_row} n", fit);
        }

        #[test]
        fn neither_term_is_ever_negative(samples in prop::collection::vec((1u32..100, 0u64..10_000_000), 1..200)) {
            let mut fit = ServiceTimeFit::default();
            for (rows, micros) in samples {
                fit.observe(rows, micros);
                prop_assert!(fit.per_row >= 0.0 && fit.base() >= 0.0);
                prop_assert!(fit.predict(64) >= fit.predict(1));
            }
        }
    }
}
