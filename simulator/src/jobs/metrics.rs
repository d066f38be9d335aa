//! What a run of jobs came to, as figures: waits, completion times, use, stops, lost work, fairness.
//!
//! Definitions. *Wait*: submission to first start. *Queued*: all time in the queue, that after stops counted in. *JCT*: submission
//! to end. *Slowdown*: JCT divided by the run time without any stop, both at least ten minutes long (bounded slowdown). *Use*: GPU
//! time held, divided by GPUs times the span from the first to the last submission. *Fairness*: Jain's index, (Σx)² / (nΣx²), over the
//! queues' mean slowdowns; 1 means that all queues suffer alike. Percentiles are nearest-rank.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Ms;
use super::world::{Job, Outcome, Record, Setup};

/// Gangs of interest have at least so many GPUs.
pub const GANG: u32 = 8;
/// Shorter times count as this long in a slowdown, so that probes of a minute do not drown the rest.
const SLOWDOWN_BOUND_MS: Ms = 600_000;
const HOUR_MS: f64 = 3_600_000.0;

/// Mean and percentiles, in hours.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// Some of the jobs.
#[derive(Serialize, Clone, Debug, Default)]
pub struct Class {
    pub jobs: usize,
    pub wait_h: Spread,
    pub queued_h: Spread,
    pub jct_h: Spread,
    pub slowdown_mean: f64,
    pub stops: u64,
}

/// All figures of a run.
#[derive(Serialize, Clone, Debug, Default)]
pub struct Summary {
    pub all: Class,
    /// At least [`GANG`] GPUs.
    pub gangs: Class,
    /// By GPUs asked for: `1`, `2-7`, `8`, `9+`.
    pub by_size: BTreeMap<&'static str, Class>,
    /// Of the GPUs, while jobs still came; 0 to 1.
    pub utilisation: f64,
    /// The same less restarts and work done twice.
    pub useful_utilisation: f64,
    pub preemptions: u64,
    pub preemptions_per_job_hour: f64,
    pub resizes_per_job_hour: f64,
    pub lost_gpu_hours: f64,
    /// Of the GPU-hours held.
    pub lost_fraction: f64,
    pub fairness: f64,
    /// First submission to last end.
    pub makespan_h: f64,
    pub lent_gpu_hours: f64,
    /// How often the policy was asked.
    pub decides: u64,
}

/// The figures of `outcome`, which `jobs` came to in `setup`.
pub fn summary(setup: &Setup, jobs: &[Job], outcome: &Outcome) -> Summary {
    let rows: Vec<Row> = jobs.iter().zip(&outcome.records).map(|(job, record)| row(job, record)).collect();
    let class = |keep: &dyn Fn(&Row) -> bool| class(&rows.iter().filter(|row| keep(row)).collect::<Vec<_>>());
    let mut by_size: BTreeMap<&'static str, Class> = BTreeMap::new();
    for label in ["1", "2-7", "8", "9+"] {
        by_size.insert(label, class(&|row| size_class(row.gpus) == label));
    }
    let held = hours(outcome.records.iter().map(|record| record.held_gpu_ms).sum());
    let lost = hours(outcome.records.iter().map(|record| record.lost_gpu_ms).sum());
    let run_hours: f64 = rows.iter().map(|row| row.run_h).sum();
    let first = jobs.first().map_or(0, |job| job.submit);
    let until = jobs.last().map_or(0, |job| job.submit);
    let end = outcome.records.iter().filter_map(|record| record.finished).max().unwrap_or(first);
    let stops: u64 = outcome.records.iter().map(|record| u64::from(record.stops)).sum();
    let resizes: u64 = outcome.records.iter().map(|record| u64::from(record.resizes)).sum();
    let gpus: u32 = setup.nodes.iter().sum();
    let busy = mean(outcome.samples.iter().filter(|s| (first..=until).contains(&s.at_ms)).map(|s| f64::from(s.busy_gpus)));
    let utilisation = ratio(busy, f64::from(gpus));
    Summary {
        all: class(&|_| true),
        gangs: class(&|row| row.gpus >= GANG),
        by_size,
        utilisation,
        useful_utilisation: utilisation * (1.0 - ratio(lost, held)),
        preemptions: stops,
        preemptions_per_job_hour: ratio(stops as f64, run_hours),
        resizes_per_job_hour: ratio(resizes as f64, run_hours),
        lost_gpu_hours: lost,
        lost_fraction: ratio(lost, held),
        fairness: fairness(&rows),
        makespan_h: hours(end - first),
        lent_gpu_hours: outcome.samples.iter().map(|s| f64::from(s.lent_gpus)).sum::<f64>() * hours(setup.sample_every_ms),
        decides: outcome.decides,
    }
}

struct Row<'a> {
    queue: &'a str,
    gpus: u32,
    wait_h: f64,
    queued_h: f64,
    jct_h: f64,
    run_h: f64,
    slowdown: f64,
    stops: u32,
}

fn row<'a>(job: &'a Job, record: &Record) -> Row<'a> {
    let since = |at: Option<Ms>| at.map_or(0, |at| at.saturating_sub(job.submit));
    let jct = since(record.finished);
    let run = jct.saturating_sub(record.queued_ms);
    let ideal = run.saturating_sub(record.lost_gpu_ms / u64::from(job.wish.gpus.max(1)));
    Row {
        queue: &job.wish.queue,
        gpus: job.wish.gpus,
        wait_h: hours(since(record.first_start)),
        queued_h: hours(record.queued_ms),
        jct_h: hours(jct),
        run_h: hours(run),
        slowdown: ratio(jct.max(SLOWDOWN_BOUND_MS) as f64, ideal.max(SLOWDOWN_BOUND_MS) as f64),
        stops: record.stops,
    }
}

fn class(rows: &[&Row]) -> Class {
    let spread = |of: &dyn Fn(&Row) -> f64| spread(rows.iter().map(|row| of(row)).collect());
    Class {
        jobs: rows.len(),
        wait_h: spread(&|row| row.wait_h),
        queued_h: spread(&|row| row.queued_h),
        jct_h: spread(&|row| row.jct_h),
        slowdown_mean: mean(rows.iter().map(|row| row.slowdown)),
        stops: rows.iter().map(|row| u64::from(row.stops)).sum(),
    }
}

fn size_class(gpus: u32) -> &'static str {
    match gpus {
        0 | 1 => "1",
        2..=7 => "2-7",
        8 => "8",
        _ => "9+",
    }
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let rank = |percent: usize| values.get((values.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or(0.0);
    Spread { mean: mean(values.iter().copied()), p50: rank(50), p99: rank(99), max: rank(100) }
}

fn fairness(rows: &[Row]) -> f64 {
    let mut queues: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for row in rows {
        let (sum, count) = queues.entry(row.queue).or_default();
        *sum += row.slowdown;
        *count += 1.0;
    }
    let means: Vec<f64> = queues.values().map(|(sum, count)| sum / count).collect();
    let (sum, squares) = means.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    ratio(sum * sum, means.len() as f64 * squares)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    ratio(sum, count)
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn hours(span: Ms) -> f64 {
    span as f64 / HOUR_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let values = spread((1..=200).map(f64::from).collect());
        assert_eq!(values, Spread { mean: 100.5, p50: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(spread(Vec::new()), Spread::default());
        assert_eq!(spread(vec![3.0]), Spread { mean: 3.0, p50: 3.0, p99: 3.0, max: 3.0 });
    }
}
