//! The charts of a jobs run, one line per policy: busy, waiting and lent over time; waits and completion times.

use super::{Chart, Series};

const HOUR_MS: f64 = 3_600_000.0;
/// Longer runs are charted over days.
const MOST_HOURS: f64 = 96.0;

/// What one policy did. Levels are `(milliseconds, level from then on)` by time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// The policy's name.
    pub name: String,
    pub busy_gpus: Vec<(u64, f64)>,
    pub waiting_jobs: Vec<(u64, f64)>,
    /// GPUs that inference lent to jobs.
    pub lent_gpus: Vec<(u64, f64)>,
    /// From submission to first start, of each job, in seconds.
    pub waits_s: Vec<f64>,
    /// From submission to end, of each job, in seconds.
    pub completions_s: Vec<f64>,
}

/// Five charts at most; what no run has is left out.
pub fn charts(runs: &[Run]) -> Vec<Chart> {
    let last = runs.iter().flat_map(|run| [&run.busy_gpus, &run.waiting_jobs, &run.lent_gpus]).filter_map(|levels| levels.last());
    let hours = last.map(|level| level.0 as f64 / HOUR_MS).fold(0.0, f64::max);
    let (unit, per_unit) = if hours > MOST_HOURS { ("days", 24.0 * HOUR_MS) } else { ("h", HOUR_MS) };
    let over_time = |title: &str, unit_y: &str, levels: fn(&Run) -> &Vec<(u64, f64)>| {
        let line = |run: &Run| {
            let mut series = Series::new(&*run.name, Vec::new());
            for (at, level) in levels(run) {
                series.push(*at as f64 / per_unit, *level);
            }
            // The last level holds to its end, which `push` does not keep if nothing changed.
            series.points.extend(levels(run).last().map(|(at, level)| (*at as f64 / per_unit, *level)));
            series.points.dedup();
            series
        };
        Chart::over_time(title, unit, unit_y, runs.iter().map(line).collect())
    };
    let spread = |title: &str, values: fn(&Run) -> &Vec<f64>| {
        let series = runs.iter().map(|run| Series::distribution(&*run.name, values(run).iter().copied())).collect();
        Chart::distributions(title, "s", series)
    };
    let all = [
        over_time("Busy GPUs", "GPUs", |run| &run.busy_gpus),
        over_time("Waiting jobs", "jobs", |run| &run.waiting_jobs),
        over_time("GPUs lent by inference", "GPUs", |run| &run.lent_gpus),
        spread("Wait until the first start", |run| &run.waits_s),
        spread("Job completion time", |run| &run.completions_s),
    ];
    let has_values = |chart: &Chart| chart.series.iter().any(|series| !series.points.is_empty());
    all.into_iter().filter(has_values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_is_a_line_and_empty_charts_are_left_out() {
        let run = |name: &str| Run {
            name: name.to_owned(),
            busy_gpus: vec![(0, 1.0), (3_600_000, 2.0), (7_200_000, 2.0)],
            waits_s: vec![1.0, 2.0],
            ..Run::default()
        };
        let charts = charts(&[run("fifo"), run("ours")]);
        assert_eq!(
            charts.iter().map(|chart| chart.title.as_str()).collect::<Vec<_>>(),
            ["Busy GPUs", "Wait until the first start"]
        );
        assert_eq!(charts[0].unit_x, "h");
        assert_eq!(charts[0].series[1], Series::new("ours", vec![(0.0, 1.0), (1.0, 2.0), (2.0, 2.0)]));
        assert_eq!(charts[1].series[0].points, [(1.0, 50.0), (2.0, 100.0)]);
    }

    #[test]
    fn long_runs_are_told_in_days() {
        let run = Run { busy_gpus: vec![(0, 1.0), (5 * 86_400_000, 0.0)], ..Run::default() };
        let charts = charts(&[run]);
        assert_eq!((charts[0].unit_x.as_str(), charts[0].series[0].points[1].0), ("days", 5.0));
    }
}
