//! Samples of a measurement and the figures made of them.

use std::time::Duration;

use serde::Serialize;

/// One measurement of one round.
#[derive(Clone, Debug)]
pub struct Sample {
    pub requests: u64,
    pub elapsed: Duration,
    /// Of the processes that serve, not of the client.
    pub cpu: Duration,
    /// Time in which a batch ran.
    pub busy: Duration,
    pub batches: u64,
    pub rows: u64,
    /// Of each request; of each batch on bare tract.
    pub latencies: Vec<Duration>,
}

/// All rounds of one measurement.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct Figures {
    /// Requests (rows) per second: median of the rounds, and each of them.
    pub req_per_s: f64,
    pub rounds_req_per_s: Vec<f64>,
    /// Of one request through the server; of one whole batch on bare tract.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub mean_batch: f64,
    pub cpu_ms_per_request: f64,
    /// Part of the time in which a batch ran; what is missing went to the way between client and model.
    pub busy_percent: f64,
}

impl Figures {
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    pub fn of(samples: &[Sample]) -> Self {
        let rate = |sample: &Sample| sample.requests as f64 / sample.elapsed.as_secs_f64();
        let sum = |of: fn(&Sample) -> u64| samples.iter().map(of).sum::<u64>() as f64;
        let mut latencies: Vec<Duration> = samples.iter().flat_map(|sample| &sample.latencies).copied().collect();
        latencies.sort_unstable();
        let total = |of: fn(&Sample) -> Duration| samples.iter().map(of).sum::<Duration>().as_secs_f64();
        let rounds: Vec<f64> = samples.iter().map(rate).collect();
        Self {
            req_per_s: round(median(&rounds)),
            rounds_req_per_s: rounds.into_iter().map(round).collect(),
            p50_ms: quantile_ms(&latencies, 50),
            p99_ms: quantile_ms(&latencies, 99),
            mean_batch: round(sum(|sample| sample.rows) / sum(|sample| sample.batches).max(1.0)),
            cpu_ms_per_request: round(total(|sample| sample.cpu) * 1000.0 / sum(|sample| sample.requests).max(1.0)),
            busy_percent: round(total(|sample| sample.busy) * 100.0 / total(|sample| sample.elapsed).max(f64::MIN_POSITIVE)),
        }
    }
}

/// The least value that `percent` of all do not exceed (nearest rank), in milliseconds; 0 of none.
pub fn quantile_ms(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    round(sorted.get(rank).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0))
}

/// The middle one, of an even number the upper of the two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// To three decimals: more would be noise.
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_take_the_median_rate_and_pool_latencies_batches_and_cpu() {
        let sample = |requests: u64, latency_ms: u64| {
            let latencies = (0..requests).map(|_| Duration::from_millis(latency_ms)).collect();
            let cpu = Duration::from_millis(requests);
            Sample {
                requests,
                elapsed: Duration::from_secs(1),
                cpu,
                busy: 2 * cpu,
                batches: requests / 10,
                rows: requests,
                latencies,
            }
        };
        let figures = Figures::of(&[sample(100, 10), sample(300, 10), sample(200, 40)]);
        assert_eq!(
            (figures.req_per_s, figures.mean_batch, figures.cpu_ms_per_request, figures.busy_percent),
            (200.0, 10.0, 1.0, 40.0)
        );
        assert_eq!((figures.p50_ms, figures.p99_ms), (10.0, 40.0));
        assert!(quantile_ms(&[], 50).abs() < f64::EPSILON);
        assert_eq!(figures.rounds_req_per_s, [100.0, 300.0, 200.0]);
    }
}
