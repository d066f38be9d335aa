//! From reports to the figures that a scenario prints. Nothing here measures; everything is computed once, here.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tidegate_api::view;
use tidegate_core::demand::{Demand, Promise, ServiceTime, devices};
use tidegate_load::Report;

use super::chaos::{self, Kill};
use super::example::{self, Example, PHASES};
use super::run::Name;
use super::stalls::Stalls;
use super::training::FINAL_METRIC;

/// Devices of the box, or of the cluster.
pub const GPUS: u32 = 4;

/// By model.
pub type PerModel<T> = BTreeMap<String, T>;
/// By job.
pub type PerJob<T> = BTreeMap<String, T>;

/// What was observed. On a cluster what `up` would have reported is put together from what the operator, its objects and its workers tell.
pub struct Observed {
    pub name: Name,
    pub seed: u64,
    /// What the client saw of the day.
    pub client: Report,
    /// What `up` reported when the day had ended.
    pub day: view::Report,
    /// State then: service times are fitted from the day's traffic.
    pub state_after_day: view::State,
    /// What `up` reported when training had ended.
    pub end: view::Report,
    pub state_at_end: view::State,
    pub undisturbed: PerJob<f64>,
    /// Every overlap that the sampler saw.
    pub double_runs: Vec<String>,
    pub kills: Vec<Kill>,
    /// Command lines of processes left after the drain.
    pub orphans: Vec<String>,
    /// Exit code after SIGINT; on a cluster the worst of our pods'.
    pub exit_code: Option<i32>,
    pub drain_ms: u64,
    /// Of a cluster alone.
    pub cluster: Option<Cluster>,
}

/// What is looked at on a cluster beside.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// How much longer the day was than its script.
    pub stretch: f64,
    /// GPUs that training held on average, by phase.
    pub training_gpus: Vec<f64>,
    /// Workers of each attempt, in order.
    pub sizes: PerJob<Vec<u32>>,
    /// The most GPUs that pods held at once, by their objects.
    pub most_gpus_held: u32,
    /// Moments at which two had one GPU: by the objects, the machine's processes and the agent.
    pub shared_gpus: Vec<String>,
}

/// A phase of the day, in seconds of the day as it was played.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
pub struct Phase {
    pub name: String,
    pub from_s: f64,
    pub to_s: f64,
    /// Of requests that were due in it; 0 where there were none.
    pub p99_ms: PerModel<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_gpus: Option<f64>,
}

/// The figures, in the order in which they are printed.
#[derive(Serialize, Debug, Default)]
pub struct Figures {
    pub scenario: Name,
    pub seed: u64,
    pub requests_sent: PerModel<u64>,
    pub answered: PerModel<u64>,
    pub refused: PerModel<u64>,
    /// Without a right answer: none, or an error that is no polite refusal. Under chaos without those in flight in a killed process.
    pub lost: PerModel<u64>,
    pub late: PerModel<u64>,
    pub woken: PerModel<u64>,
    pub p50_ms: PerModel<f64>,
    pub p99_ms: PerModel<f64>,
    pub slo_ms: PerModel<u64>,
    pub phases: Vec<Phase>,
    /// Of the day.
    pub device_seconds: f64,
    /// Of the day.
    pub lent_gpu_seconds: f64,
    /// Of the day.
    pub reclaims: u64,
    pub reclaim_p99_ms: u64,
    pub steps_lost: u64,
    pub checkpoints: u64,
    pub resizes: u64,
    pub final_metric: PerJob<f64>,
    pub final_metric_undisturbed: PerJob<f64>,
    pub gpus_used: u32,
    pub gpus_static: f64,
    pub factor: f64,
    /// The parts of `gpus_static`: `model/NAME` devices at its own peak, `job/NAME` mean devices over the day.
    pub gpus_static_parts: BTreeMap<String, f64>,
    pub double_runs: u64,
    pub orphans: u64,
    pub jobs_not_succeeded: Vec<String>,
    /// The most steps that one stop lost, in checkpoint intervals of its job.
    pub worst_stop_in_checkpoint_intervals: f64,
    pub mean_batch: PerModel<f64>,
    pub peak_requests_per_s: PerModel<f64>,
    /// The longest that the client was late itself.
    pub client_lag_ms: u64,
    pub client_saturated: u64,
    pub models_not_played: Vec<String>,
    pub exit_code: Option<i32>,
    pub drain_ms: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kills: Vec<Kill>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub in_flight_in_killed: PerModel<u64>,
    /// On a cluster: see [`Cluster`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus_given_twice: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_gpus_held: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: PerJob<Vec<u32>>,
    /// The longest until the machine had a few bytes on its disk, and by which it let a thread run too late.
    pub longest_write_ms: u64,
    pub longest_pause_ms: u64,
    /// The machine stood still: what did not hold says nothing.
    pub void: bool,
    /// What was left, seen twice or lost, in words.
    pub remarks: Vec<String>,
}

impl Figures {
    /// Adds what the machine kept from everybody.
    pub fn note_stalls(&mut self, stalls: Stalls) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        (self.longest_write_ms, self.longest_pause_ms, self.void) = (ms(stalls.write), ms(stalls.pause), stalls.void());
    }
}

/// Computes them.
pub fn figures(seen: &Observed, example: &Example) -> Result<Figures> {
    let parts = static_parts(seen, example)?;
    let gpus_static: f64 = parts.values().sum();
    let mut figures = Figures {
        scenario: seen.name,
        seed: seen.seed,
        device_seconds: seen.day.device_seconds,
        lent_gpu_seconds: seen.day.lent_gpu_seconds,
        reclaims: seen.day.reclaims,
        reclaim_p99_ms: p99(&seen.end.reclaim_ms),
        steps_lost: seen.end.steps_lost.values().flatten().sum(),
        checkpoints: seen.end.checkpoints.values().sum(),
        resizes: seen.end.resizes.values().sum(),
        final_metric_undisturbed: seen.undisturbed.clone(),
        gpus_used: GPUS,
        gpus_static,
        factor: gpus_static / f64::from(GPUS),
        gpus_static_parts: parts,
        double_runs: seen.end.double_runs + count(&seen.double_runs),
        orphans: count(&seen.orphans),
        client_lag_ms: seen.client.max_send_lag_ms,
        client_saturated: seen.client.totals.client_saturated,
        models_not_played: seen.client.skipped.clone(),
        exit_code: seen.exit_code,
        drain_ms: seen.drain_ms,
        kills: seen.kills.clone(),
        phases: phases(seen),
        gpus_given_twice: seen.cluster.as_ref().map(|cluster| count(&cluster.shared_gpus)),
        most_gpus_held: seen.cluster.as_ref().map(|cluster| cluster.most_gpus_held),
        sizes: seen.cluster.as_ref().map(|cluster| cluster.sizes.clone()).unwrap_or_default(),
        remarks: seen.double_runs.iter().chain(&seen.orphans).cloned().collect(),
        ..Figures::default()
    };
    figures.remarks.extend(seen.cluster.iter().flat_map(|cluster| &cluster.shared_gpus).take(10).cloned());
    requests(&mut figures, seen);
    training(&mut figures, seen, example)?;
    Ok(figures)
}

fn requests(figures: &mut Figures, seen: &Observed) {
    for (name, model) in &seen.client.models {
        let name = || name.clone();
        let losses = chaos::attribute(model, &seen.client, &seen.kills);
        figures.requests_sent.insert(name(), model.totals.requests_sent);
        figures.answered.insert(name(), model.totals.answered);
        figures.refused.insert(name(), model.totals.refused);
        figures.lost.insert(name(), losses.others);
        figures.late.insert(name(), model.totals.late);
        figures.woken.insert(name(), model.totals.woken);
        figures.p50_ms.insert(name(), model.p50_ms);
        figures.p99_ms.insert(name(), model.p99_ms);
        figures.slo_ms.insert(name(), model.slo_ms);
        figures.mean_batch.insert(name(), model.mean_batch);
        figures.peak_requests_per_s.insert(name(), model.peak_rps);
        if !seen.kills.is_empty() {
            figures.in_flight_in_killed.insert(name(), losses.in_flight_in_killed);
        }
        let wrong = model.lost_requests.iter().chain(&model.failed_requests).take(10);
        figures.remarks.extend(wrong.map(|lost| format!("{} at {}-{} ms: {}", name(), lost.sent_ms, lost.ended_ms, lost.error)));
    }
}

fn phases(seen: &Observed) -> Vec<Phase> {
    let stretch = seen.cluster.as_ref().map_or(1.0, |cluster| cluster.stretch);
    let phase = |(number, (name, from, to)): (usize, &(&str, u32, u32))| {
        let p99 =
            |(model, report): (&String, &tidegate_load::ModelReport)| Some((model.clone(), *report.phase_p99_ms.get(number)?));
        Phase {
            name: (*name).to_owned(),
            from_s: f64::from(*from) * stretch,
            to_s: f64::from(*to) * stretch,
            p99_ms: seen.client.models.iter().filter_map(p99).collect(),
            training_gpus: seen.cluster.as_ref().and_then(|cluster| cluster.training_gpus.get(number).copied()),
        }
    };
    PHASES.iter().enumerate().map(phase).collect()
}

fn training(figures: &mut Figures, seen: &Observed, example: &Example) -> Result<()> {
    for job in &seen.state_at_end.jobs {
        if let Some(metric) = job.metrics.get(FINAL_METRIC) {
            figures.final_metric.insert(job.name.clone(), *metric);
        }
        if job.phase != "succeeded" {
            figures.jobs_not_succeeded.push(format!("{} is {}: {}", job.name, job.phase, job.reason));
        }
    }
    for (name, job) in &example.jobs {
        let interval = example::option(job, "--checkpoint-every").and_then(|steps| steps.parse::<u32>().ok());
        let interval = interval.with_context(|| format!("no --checkpoint-every in the command of {name}"))?;
        let worst = seen.end.steps_lost.get(name).into_iter().flatten().max().copied().unwrap_or(0);
        let intervals = as_f64(worst) / f64::from(interval);
        figures.worst_stop_in_checkpoint_intervals = figures.worst_stop_in_checkpoint_intervals.max(intervals);
    }
    Ok(())
}

/// What a static split needs: each model its own devices for its own peak, with the head-room that the pool keeps too,
/// and to each job what it had on average.
fn static_parts(seen: &Observed, example: &Example) -> Result<BTreeMap<String, f64>> {
    let mut parts = BTreeMap::new();
    for name in seen.client.models.keys() {
        let needed = devices_at_peak(name, seen, example).with_context(|| format!("size {name} for its peak"))?;
        parts.insert(format!("model/{name}"), f64::from(needed));
    }
    let seconds = seen.day.device_seconds / f64::from(GPUS);
    for (holder, held) in &seen.day.held_gpu_seconds {
        if holder.starts_with("job/") {
            parts.insert(holder.clone(), held / seconds.max(1.0));
        }
    }
    Ok(parts)
}

/// The engine's own rule, at the scripted peak and the service time that it has fitted.
fn devices_at_peak(name: &str, seen: &Observed, example: &Example) -> Result<u32> {
    let model = &example.models.get(name).context("it is not in the example")?.spec;
    let fitted = seen.state_after_day.models.iter().find(|state| state.name == name).context("up does not have it")?;
    let service = ServiceTime { base_us: micros(fitted.fit_base_ms), per_row_us: micros(fitted.fit_per_row_ms) };
    let rate = example.peak_milli_rows_per_s(name).context("it is not in the script")?;
    let demand = Demand { milli_rows_per_s: rate, service: Some(service), ..Demand::default() };
    let promise = Promise {
        slo_us: u64::from(model.slo_milliseconds) * 1000,
        max_rows: model.batching.max_rows,
        headroom_percent: example.pool.spec.headroom_percent,
        lead_ms: 0,
    };
    Ok(devices(&demand, promise, 0))
}

/// Nearest rank; 0 of nothing.
fn p99(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * 99).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn micros(millis: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and a service time is far below 2^64 us"
    )]
    let whole = (millis * 1000.0).round().max(0.0) as u64;
    whole
}

fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

/// Exact below 2^53: steps are far fewer.
fn as_f64(value: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let float = value as f64;
    float
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_p99_is_the_nearest_rank() {
        assert_eq!(p99(&[]), 0);
        assert_eq!(p99(&[7]), 7);
        assert_eq!(p99(&(1..=100).rev().collect::<Vec<_>>()), 99);
        assert_eq!(p99(&(1..=101).collect::<Vec<_>>()), 100);
    }

    fn observed() -> Observed {
        let model = |fit_base_ms, fit_per_row_ms, name: &str| view::Model {
            name: name.into(),
            fit_base_ms,
            fit_per_row_ms,
            ..view::Model::default()
        };
        let state = view::State {
            models: vec![model(20.0, 5.0, "digits"), model(60.0, 30.0, "all-minilm-l6-v2")],
            ..view::State::default()
        };
        let held = BTreeMap::from([("job/spirals".to_owned(), 180.0), ("model/digits".to_owned(), 300.0)]);
        let mut client = Report::default();
        for name in ["digits", "all-minilm-l6-v2"] {
            client.models.insert(name.into(), tidegate_load::ModelReport::default());
        }
        Observed {
            name: Name::Tide,
            seed: 7,
            client,
            day: view::Report { device_seconds: 720.0, held_gpu_seconds: held, ..view::Report::default() },
            state_after_day: state.clone(),
            end: view::Report {
                steps_lost: BTreeMap::from([("spirals".into(), vec![0, 5]), ("letters".into(), vec![50])]),
                ..view::Report::default()
            },
            state_at_end: state,
            undisturbed: BTreeMap::new(),
            double_runs: vec!["x".into()],
            kills: Vec::new(),
            orphans: Vec::new(),
            exit_code: Some(0),
            drain_ms: 0,
            cluster: None,
        }
    }

    #[test]
    fn phases_of_a_stretched_day_have_their_own_times_and_percentiles() {
        let mut seen = observed();
        seen.cluster = Some(Cluster { stretch: 2.0, training_gpus: vec![4.0, 2.5], ..Cluster::default() });
        seen.client.models.get_mut("digits").unwrap().phase_p99_ms = vec![80.0, 90.0];
        let phases = phases(&seen);
        assert_eq!((phases[1].name.as_str(), phases[1].from_s, phases[1].training_gpus), ("rise", 56.0, Some(2.5)));
        assert_eq!(phases[1].p99_ms, BTreeMap::from([("digits".to_owned(), 90.0)]));
        assert_eq!((phases[2].p99_ms.len(), phases[2].training_gpus), (0, None));
    }

    #[test]
    fn a_static_split_sizes_each_model_for_its_own_peak_and_gives_each_job_its_mean() {
        let figures = figures(&observed(), &Example::read().unwrap()).unwrap();
        let parts = [("job/spirals", 1.0), ("model/all-minilm-l6-v2", 3.0), ("model/digits", 3.0)];
        assert_eq!(figures.gpus_static_parts, BTreeMap::from(parts.map(|(name, part)| (name.to_owned(), part))));
        assert!((figures.factor - 7.0 / 4.0).abs() < 1e-9);
    }

    #[test]
    fn the_worst_stop_is_measured_in_its_own_jobs_checkpoint_interval() {
        let figures = figures(&observed(), &Example::read().unwrap()).unwrap();
        assert!((figures.worst_stop_in_checkpoint_intervals - 2.0).abs() < 1e-9);
        assert_eq!((figures.steps_lost, figures.double_runs), (55, 1));
    }
}
