//! Time of a batch, `a + b*n`, from Splitwise's measurements.
//!
//! A request of `i` input and `o` output tokens in a batch of `n` takes its prefill, the others' prefills (one GPU does
//! one at a time) and `o` steps of the whole batch: `t(n) = n*prefill(i) + o*step(n)`, with `prefill(i) = p*i` and
//! `step(n) = s0 + s1*n` fitted by least squares. So `a = o*s0` and `b = p*i + o*s1`. Smaller models are scaled by
//! parameters (both compute and weight traffic are proportional to them).

use std::path::Path;

use super::queueing::Server;
use super::{number, read_text};
use crate::Error;

/// Fitted times of one model on one kind of replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Seconds per input token.
    pub prefill_s: f64,
    /// Seconds per step at batch 0, and per row.
    pub step_s: (f64, f64),
}

/// Seconds of a batch of n: `base_s + row_s * n`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchTime {
    pub base_s: f64,
    pub row_s: f64,
}

impl Measured {
    /// Fits `perf_model.csv`: rows of `model`, `hardware` and `tensor_parallel`; prefill at batch 1, steps at batch <= 32
    /// (the rows at 64 are outliers at `tensor_parallel` 2).
    pub fn fit(path: &Path, model: &str, hardware: &str, tensor_parallel: u32) -> Result<Self, Error> {
        let text = read_text(path)?;
        let (mut prefill, mut step) = (Vec::new(), Vec::new());
        for (index, row) in text.lines().enumerate().skip(1) {
            let columns: Vec<&str> = row.split(',').collect();
            let column = |at: usize, field| number(path, index as u64 + 1, field, columns.get(at).copied());
            let is_other = columns.first() != Some(&model) || columns.get(1) != Some(&hardware);
            if is_other || (column(10, "tensor_parallel")? - f64::from(tensor_parallel)).abs() > 0.5 {
                continue;
            }
            let batch = column(3, "batch_size")?;
            if batch < 1.5 {
                prefill.push((column(2, "prompt_size")?, column(7, "prompt_time")? / 1000.0));
            }
            if batch < 32.5 {
                step.push((batch, column(8, "token_time")? / 1000.0));
            }
        }
        if prefill.is_empty() {
            let what = format!("{model} on {hardware}, tensor_parallel {tensor_parallel}");
            return Err(Error::Usage(format!("{}: no measurement of {what}", path.display())));
        }
        let slope = prefill.iter().map(|(x, y)| x * y).sum::<f64>() / prefill.iter().map(|(x, _)| x * x).sum::<f64>();
        Ok(Self { prefill_s: slope, step_s: line(&step) })
    }

    /// Batch time of requests with these mean lengths on a replica whose parameters per GPU are `scale` times the
    /// measured replica's.
    pub fn batch(&self, input_tokens: f64, output_tokens: f64, scale: f64) -> BatchTime {
        let row_s = self.prefill_s * input_tokens + self.step_s.1 * output_tokens;
        BatchTime { base_s: self.step_s.0 * output_tokens * scale, row_s: row_s * scale }
    }
}

impl BatchTime {
    /// The server that runs the largest batch of which two fit into the SLO (the rule of `core::demand`). When `sharers`
    /// models take turns on the GPU, a request waits for the turn that runs, those of the others, and its own: as many
    /// batches and one more must fit. [`BatchTime::may_share`] says whether even one row does.
    pub fn server(&self, slo_s: f64, max_rows: u32, sharers: u32) -> Server {
        let turns = f64::from(sharers.max(1));
        let rows = ((slo_s / (turns + 1.0) - self.base_s) / self.row_s).floor().clamp(1.0, f64::from(max_rows.max(1)));
        Server { places: rows, service_s: (self.base_s + self.row_s * rows) * turns, slo_s }
    }

    /// Whether a request keeps its SLO on a GPU shared by so many busy models.
    pub fn may_share(&self, slo_s: f64, sharers: u32) -> bool {
        (self.base_s + self.row_s) * (f64::from(sharers) + 1.0) <= slo_s
    }
}

/// Least-squares line through points: value at 0 and slope.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len().max(1) as f64;
    let x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let spread = points.iter().map(|(at, _)| (at - x).powi(2)).sum::<f64>();
    let slope = if spread > 0.0 { points.iter().map(|(at, v)| (at - x) * (v - y)).sum::<f64>() / spread } else { 0.0 };
    (y - slope * x, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again() {
        let (base, slope) = line(&[(1.0, 3.0), (2.0, 5.0), (4.0, 9.0)]);
        assert!((base - 1.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9);
    }

    #[test]
    fn two_batches_fit_into_the_slo_and_sharers_take_their_turn() {
        let batch = BatchTime { base_s: 0.1, row_s: 0.01 };
        let alone = batch.server(1.0, 64, 1);
        assert!((alone.places - 40.0).abs() < 1e-9 && alone.service_s * 2.0 <= 1.0 + 1e-9);
        let shared = batch.server(1.0, 64, 2);
        assert!((shared.places - 23.0).abs() < 1e-9 && shared.service_s * 1.5 <= 1.0 + 1e-9);
        assert!(batch.may_share(1.0, 8) && !batch.may_share(1.0, 9));
    }

    #[test]
    fn splitwise_measurements_are_fitted_as_they_are() {
        let Ok(data) = std::env::var("TIDEGATE_DATA") else { return };
        let path = Path::new(&data).join("splitwise/perf_model.csv");
        let fit = Measured::fit(&path, "llama2-70b", "h100-80gb", 2).unwrap();
        assert!((0.000_1..0.000_2).contains(&fit.prefill_s), "{fit:?}");
        assert!((0.030..0.040).contains(&fit.step_s.0) && (0.000_3..0.000_7).contains(&fit.step_s.1), "{fit:?}");
        assert!(Measured::fit(&path, "llama2-70b", "t4", 2).is_err());
    }
}
