//! Counts one model's requests as they are sent and end.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::judge::Outcome;
use crate::report::{LostRequest, ModelReport, Totals};

const MAX_LISTED: usize = 1000;
/// Long enough that Poisson noise does not make the peak, short enough to see it.
const RATE_WINDOW_SECONDS: u32 = 5;
/// Three digits of any latency up to the longest that a request can have, in microseconds.
const MAX_LATENCY_MICROS: u64 = 120_000_000;

pub(crate) struct Tally {
    slo: Duration,
    cold_start_budget: Duration,
    totals: Totals,
    warm: Histogram<u32>,
    phases: Phases,
    woken_max: Duration,
    batched_requests: u32,
    /// A request in a batch of n rows is 1/n of a batch.
    batches: f64,
    sent_in_window: u32,
    window: u64,
    peak_in_window: u32,
    lost: Vec<LostRequest>,
    failed: Vec<LostRequest>,
}

/// Latencies of one phase of the day after the other.
struct Phases {
    ends: Vec<Duration>,
    warm: Vec<Histogram<u32>>,
}

impl Phases {
    /// None is told apart without an end.
    fn new(ends: &[Duration]) -> Result<Self, hdrhistogram::CreationError> {
        let count = if ends.is_empty() { 0 } else { ends.len() + 1 };
        let warm = (0..count).map(|_| histogram()).collect::<Result<_, _>>()?;
        Ok(Self { ends: ends.to_vec(), warm })
    }

    fn record(&mut self, at: Duration, micros: u64) {
        let phase = self.ends.partition_point(|end| *end <= at);
        if let Some(warm) = self.warm.get_mut(phase) {
            warm.saturating_record(micros);
        }
    }
}

fn histogram() -> Result<Histogram<u32>, hdrhistogram::CreationError> {
    Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3)
}

impl Tally {
    pub(crate) fn new(
        slo_ms: u64,
        cold_start_budget_ms: u64,
        phase_ends: &[Duration],
    ) -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            slo: Duration::from_millis(slo_ms),
            cold_start_budget: Duration::from_millis(cold_start_budget_ms),
            totals: Totals::default(),
            warm: histogram()?,
            phases: Phases::new(phase_ends)?,
            woken_max: Duration::ZERO,
            batched_requests: 0,
            batches: 0.0,
            sent_in_window: 0,
            window: 0,
            peak_in_window: 0,
            lost: Vec::new(),
            failed: Vec::new(),
        })
    }

    /// A request was due `at` after the start, and is on its way.
    pub(crate) fn sent(&mut self, at: Duration) {
        self.totals.requests_sent += 1;
        self.totals.unfinished += 1;
        let window = at.as_secs() / u64::from(RATE_WINDOW_SECONDS);
        if window != self.window {
            (self.window, self.sent_in_window) = (window, 0);
        }
        self.sent_in_window += 1;
        self.peak_in_window = self.peak_in_window.max(self.sent_in_window);
    }

    pub(crate) fn saturated(&mut self) {
        self.totals.client_saturated += 1;
    }

    /// The request that was due `at` ended at `ended`, both after the start.
    pub(crate) fn ended(&mut self, at: Duration, ended: Duration, outcome: Outcome, connect_retries: u32) {
        self.totals.unfinished -= 1;
        self.totals.connect_retries += u64::from(connect_retries);
        match outcome {
            Outcome::Answered { woken, batch_rows } => self.answered(at, ended.saturating_sub(at), woken, batch_rows),
            Outcome::Refused => self.totals.refused += 1,
            Outcome::Failed(error) => {
                self.totals.failed += 1;
                list(&mut self.failed, at, ended, error);
            }
            Outcome::Lost(error) => {
                self.totals.lost += 1;
                list(&mut self.lost, at, ended, error);
            }
        }
    }

    fn answered(&mut self, at: Duration, latency: Duration, woken: bool, batch_rows: Option<u32>) {
        self.totals.answered += 1;
        let limit = if woken { self.slo.max(self.cold_start_budget) } else { self.slo };
        self.totals.late += u64::from(latency > limit);
        if woken {
            self.totals.woken += 1;
            self.woken_max = self.woken_max.max(latency);
        } else {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            self.warm.saturating_record(micros);
            self.phases.record(at, micros);
        }
        if let Some(rows) = batch_rows.filter(|rows| *rows > 0) {
            self.batched_requests += 1;
            self.batches += 1.0 / f64::from(rows);
        }
    }

    pub(crate) fn report(&self) -> ModelReport {
        ModelReport {
            totals: self.totals.clone(),
            p50_ms: quantile_ms(&self.warm, 0.5),
            p99_ms: quantile_ms(&self.warm, 0.99),
            max_ms: quantile_ms(&self.warm, 1.0),
            phase_p99_ms: self.phases.warm.iter().map(|warm| quantile_ms(warm, 0.99)).collect(),
            woken_max_ms: self.woken_max.as_secs_f64() * 1000.0,
            slo_ms: millis(self.slo),
            cold_start_budget_ms: millis(self.cold_start_budget),
            mean_batch: if self.batches > 0.0 { f64::from(self.batched_requests) / self.batches } else { 0.0 },
            peak_rps: f64::from(self.peak_in_window) / f64::from(RATE_WINDOW_SECONDS),
            lost_requests: self.lost.clone(),
            failed_requests: self.failed.clone(),
        }
    }
}

/// 0 of nothing.
fn quantile_ms(latencies: &Histogram<u32>, quantile: f64) -> f64 {
    Duration::from_micros(latencies.value_at_quantile(quantile)).as_secs_f64() * 1000.0
}

fn list(listed: &mut Vec<LostRequest>, at: Duration, ended: Duration, error: String) {
    if listed.len() < MAX_LISTED {
        listed.push(LostRequest { sent_ms: millis(at), ended_ms: millis(ended), error });
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn answered(woken: bool) -> Outcome {
        Outcome::Answered { woken, batch_rows: None }
    }

    fn tally_of(ends: impl IntoIterator<Item = (u64, Outcome)>) -> ModelReport {
        let mut tally = Tally::new(250, 5000, &[]).unwrap();
        for (latency, outcome) in ends {
            tally.sent(ms(1000));
            tally.ended(ms(1000), ms(1000 + latency), outcome, 0);
        }
        tally.report()
    }

    #[test]
    fn late_is_beyond_the_slo_and_for_woken_ones_beyond_the_budget() {
        let report = tally_of([(250, answered(false)), (251, answered(false)), (5000, answered(true)), (5001, answered(true))]);
        assert_eq!((report.totals.late, report.totals.woken, report.totals.answered), (2, 2, 4));
    }

    #[test]
    fn woken_requests_are_not_in_the_percentiles() {
        let report = tally_of((1..=100).map(|i| (i, answered(false))).chain([(4000, answered(true))]));
        assert!((report.p50_ms - 50.0).abs() < 0.5, "{}", report.p50_ms);
        assert!((report.p99_ms - 99.0).abs() < 0.5, "{}", report.p99_ms);
        assert!((report.woken_max_ms - 4000.0).abs() < 1e-9);
    }

    #[test]
    fn percentiles_are_told_by_the_phase_in_which_a_request_was_due() {
        let mut tally = Tally::new(250, 5000, &[ms(1000), ms(2000)]).unwrap();
        for (at, latency) in [(999, 10), (1000, 200), (1999, 200), (3000, 30)] {
            tally.sent(ms(at));
            tally.ended(ms(at), ms(at + latency), answered(false), 0);
        }
        let told: Vec<f64> = tally.report().phase_p99_ms.iter().map(|p99| p99.round()).collect();
        assert_eq!(told, [10.0, 200.0, 30.0]);
        assert!(tally_of([(10, answered(false))]).phase_p99_ms.is_empty());
    }

    #[test]
    fn the_mean_batch_is_over_batches_not_over_requests() {
        let rows = |n| Outcome::Answered { woken: false, batch_rows: Some(n) };
        // One batch of three and one of one.
        let report = tally_of([(1, rows(3)), (1, rows(3)), (1, rows(3)), (1, rows(1))]);
        assert!((report.mean_batch - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_lost_request_is_listed_with_its_window() {
        let report = tally_of([(70, Outcome::Lost("reset".into()))]);
        assert_eq!(report.lost_requests, [LostRequest { sent_ms: 1000, ended_ms: 1070, error: "reset".into() }]);
        assert_eq!(report.totals.lost, 1);
    }

    #[test]
    fn what_has_not_ended_is_unfinished_and_lists_are_bounded() {
        let mut tally = Tally::new(250, 5000, &[]).unwrap();
        tally.sent(ms(0));
        assert_eq!(tally.report().totals.unfinished, 1);
        let report = tally_of((0..2000).map(|_| (1, Outcome::Failed("500".into()))));
        assert_eq!((report.totals.failed, report.failed_requests.len()), (2000, MAX_LISTED));
    }

    #[test]
    fn the_peak_is_the_busiest_five_seconds() {
        let mut tally = Tally::new(250, 5000, &[]).unwrap();
        for at in [0, 4999, 5000, 5001, 9999, 10_000] {
            tally.sent(ms(at));
        }
        assert!((tally.report().peak_rps - 0.6).abs() < 1e-9);
    }
}
