//! `simulate jobs --inference`: the trace's jobs and models with that traffic on the same GPUs.
//!
//! The models own the fewest GPUs that keep their SLO if nothing is lent, the jobs the rest. Under `tidegate` replicas follow
//! demand, what they do not need is lent to jobs, and comes back by reclaim; under `fifo` both keep what they own. Requests are
//! counted until the last job is submitted, at least over the traffic once; it starts again after its end.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::jobs::{Args, Found, Name};
use super::line::word;
use super::trace::{Jobs, Tally, all_bad};
use crate::Error;
use crate::capacity::engine::{EngineCapacity, Parts};
use crate::capacity::fifo::Fifo;
use crate::capacity::outcome::{Ended, Outcome, Served, Spread};
use crate::capacity::traffic::{self, Settings};
use crate::capacity::world::{self, Setup};
use crate::capacity::{CapacityPolicy, Costs, GpuClass, Job, Model, ModelSpec};
use crate::cluster::Shape;
use crate::report::html::Fact;
use crate::report::run::Run;
use crate::trace::{self, Bad};

/// A run ends here even if jobs are left: far beyond any trace.
const LIMIT_MS: u64 = 4 * 365 * 86_400_000;
const SAMPLE_EVERY_MS: u64 = 600_000;

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report<'a> {
    command: String,
    gpus: u64,
    #[serde(flatten)]
    tally: &'a Tally,
    models: usize,
    /// GPUs that belong to the models.
    models_gpus: u32,
    bad_inference_rows: u64,
    first_bad_inference_rows: Vec<String>,
    notes: Vec<String>,
    policies: Vec<Row>,
}

/// One policy's figures.
#[derive(Serialize)]
struct Row {
    policy: String,
    jobs: usize,
    /// Jobs that did not end within four years.
    unfinished: u32,
    /// All time without GPUs, that after stops counted in.
    queued_h: Spread,
    jct_h: Spread,
    /// Shares of GPU time: held by jobs, held by models, and computing requests.
    training_utilisation: f64,
    inference_held: f64,
    inference_utilisation: f64,
    preemptions_per_job_hour: f64,
    resizes_per_job_hour: f64,
    lost_gpu_hours: f64,
    /// GPU-hours of jobs on GPUs that belong to the models.
    lent_gpu_hours: f64,
    /// Share of requests answered inside the SLO.
    slo_attainment: f64,
    by_model: Vec<Served>,
}

/// Runs the trace and the traffic under each policy and prints the figures.
pub(super) fn run(
    args: &Args,
    cluster: &Shape,
    format: trace::Format,
    (path, requests): (&Path, traffic::Format),
    out: &mut dyn Write,
) -> Result<(), Error> {
    check_policies(&args.policy)?;
    let settings = traffic::settings()?;
    let mut bad = Bad::new(args.skip_bad);
    let models = traffic::models(path, requests, args.inference_scale, &settings, &mut bad);
    let models = models.map_err(|error| all_bad(error, &bad))?;
    let own = own_gpus(&models, cluster, &settings)?;
    let jobs = Jobs::read(&args.source(cluster, format, own.iter().sum()))?;
    let scene = Scene::new(args, cluster, &settings, jobs.shared(cluster), models, own);
    let mut rows = Vec::new();
    let mut runs = Vec::new();
    for name in &args.policy {
        let outcome = scene.run(*name, &settings)?;
        rows.push(row(word(name), &outcome));
        runs.push(series(word(name), &outcome));
    }
    let report = Report {
        command: args.line(cluster).to_string(),
        gpus: cluster.gpus(),
        tally: &jobs.tally,
        models: scene.models.len(),
        models_gpus: scene.own.iter().sum(),
        bad_inference_rows: bad.rows(),
        first_bad_inference_rows: bad.first().to_vec(),
        notes: notes(args, format, &jobs.tally, &settings, &bad),
        policies: rows,
    };
    args.deliver(cluster, &Found { report: &report, table: table(&report), facts: facts(&report), runs }, out)
}

fn check_policies(names: &[Name]) -> Result<(), Error> {
    match names.iter().find(|name| !matches!(name, Name::Tidegate | Name::Fifo)) {
        None => Ok(()),
        Some(other) => Err(Error::Usage(format!(
            "--policy {}: with --inference there are `tidegate`, which lends, and `fifo`, a static split; leave --inference out to \
             compare jobs alone",
            word(other)
        ))),
    }
}

/// GPUs of each model's own, which must leave some for jobs.
fn own_gpus(models: &[Model], cluster: &Shape, settings: &Settings) -> Result<Vec<u32>, Error> {
    let own: Vec<u32> = models.iter().map(|model| model.own_gpus(settings.attainment)).collect();
    let (all, needed) = (cluster.gpus(), own.iter().map(|gpus| u64::from(*gpus)).sum::<u64>());
    if needed < all {
        return Ok(own);
    }
    Err(Error::Usage(format!(
        "--inference: its models alone need {needed} GPUs to answer {} of their requests in time, the cluster has {all}: give \
         --cluster more, or a smaller --inference-scale",
        settings.attainment
    )))
}

/// What every policy finds.
struct Scene {
    setup: Setup,
    jobs: Vec<Job>,
    models: Vec<Model>,
    /// GPUs that belong to each model.
    own: Vec<u32>,
}

impl Scene {
    fn new(args: &Args, cluster: &Shape, settings: &Settings, jobs: Vec<Job>, models: Vec<Model>, own: Vec<u32>) -> Self {
        let gpus = u32::try_from(cluster.gpus()).unwrap_or(u32::MAX);
        let costs = args.costs();
        let costs = Costs {
            restart_s: costs.restart_ms as f64 / 1000.0,
            checkpoint_every_s: costs.checkpoint_every_ms as f64 / 1000.0,
            evict_s: settings.evict_s,
            // No job changes its size here.
            scaling_exponent: 1.0,
        };
        let traffic_ms = |model: &Model| u64::from(model.demand.window_s) * 1000 * model.demand.windows.len() as u64;
        let once = models.iter().map(traffic_ms).max().unwrap_or(0);
        let setup = Setup {
            classes: vec![GpuClass { name: "GPU".to_owned(), gpus, models: own.iter().sum(), speed: 1.0 }],
            costs,
            round_ms: settings.round_s * 1000,
            measured_ms: jobs.last().map_or(0, |job| job.arrives).max(once),
            sample_every_ms: SAMPLE_EVERY_MS,
            limit_ms: LIMIT_MS,
        };
        Self { setup, jobs, models, own }
    }

    fn run(&self, name: Name, settings: &Settings) -> Result<Outcome, Error> {
        let owned: u32 = self.own.iter().sum();
        let mut policy: Box<dyn CapacityPolicy> = if name == Name::Fifo {
            let gpus = self.setup.classes.iter().map(|class| class.gpus).sum::<u32>();
            let replicas = self.models.iter().zip(&self.own).map(|(model, gpus)| gpus / model.spec.gpus.max(1));
            Box::new(Fifo::new(gpus.saturating_sub(owned), replicas.collect()))
        } else {
            let parts = Parts { lending: true, fixed: Vec::new(), elasticity: false, multiplexing: false };
            let specs: Vec<ModelSpec> = self.models.iter().map(|model| model.spec.clone()).collect();
            Box::new(EngineCapacity::new(&settings.rules, parts, &self.setup.classes, &specs, self.setup.costs))
        };
        world::run(&self.setup, &self.jobs, &self.models, policy.as_mut())
    }
}

fn row(policy: String, outcome: &Outcome) -> Row {
    let hours = |of: fn(&Ended) -> f64| Spread::of(outcome.jobs.iter().map(|job| of(job) / 3600.0));
    let class = outcome.classes.first().cloned().unwrap_or_default();
    let (preemptions_per_job_hour, resizes_per_job_hour) = outcome.disturbances_per_job_hour();
    Row {
        policy,
        jobs: outcome.jobs.len(),
        unfinished: outcome.unfinished,
        queued_h: hours(|job| job.wait_s),
        jct_h: hours(|job| job.jct_s),
        training_utilisation: class.training,
        inference_held: class.inference_held,
        inference_utilisation: class.inference_busy,
        preemptions_per_job_hour,
        resizes_per_job_hour,
        lost_gpu_hours: outcome.lost_gpu_s / 3600.0,
        lent_gpu_hours: outcome.lent_gpu_hours,
        slo_attainment: outcome.attained(),
        by_model: outcome.models.clone(),
    }
}

fn series(name: String, outcome: &Outcome) -> Run {
    let of = |read: fn(&crate::capacity::outcome::Sample) -> u32| {
        outcome.samples.iter().map(|sample| (sample.at_ms, f64::from(read(sample)))).collect()
    };
    Run {
        name,
        busy_gpus: of(|sample| sample.training_gpus + sample.serving_gpus),
        waiting_jobs: of(|sample| sample.waiting_jobs),
        lent_gpus: of(|sample| sample.lent_gpus),
        waits_s: outcome.jobs.iter().map(|job| job.wait_s).collect(),
        completions_s: outcome.jobs.iter().map(|job| job.jct_s).collect(),
    }
}

fn notes(args: &Args, format: trace::Format, tally: &Tally, settings: &Settings, bad: &Bad) -> Vec<String> {
    let mut notes = args.notes(format, tally);
    if bad.rows() > 0 {
        notes.push(format!("{} rows of --inference did not parse and are left out", bad.rows()));
    }
    notes.push(format!(
        "models own the fewest GPUs that answer {} of requests in time without lending; service times: settings/inference.yaml",
        settings.attainment
    ));
    notes.push("GPUs are counted, not nodes; all jobs are in one queue; waits are all time without GPUs".to_owned());
    notes
}

fn facts(report: &Report<'_>) -> Vec<Fact> {
    let mut facts = vec![
        Fact::new("jobs", report.tally.jobs.to_string()),
        Fact::new("GPUs", report.gpus.to_string()),
        Fact::new("GPUs of the models' own", report.models_gpus.to_string()),
    ];
    for row in &report.policies {
        let policy = &row.policy;
        facts.push(Fact::new(format!("{policy}: mean JCT"), format!("{:.2} h", row.jct_h.mean)));
        facts.push(Fact::new(format!("{policy}: inside the SLO"), format!("{:.2} %", row.slo_attainment * 100.0)));
        facts.push(Fact::new(format!("{policy}: lent"), format!("{:.0} GPU-hours", row.lent_gpu_hours)));
        facts.push(Fact::new(format!("{policy}: stops"), format!("{:.3} per job-hour", row.preemptions_per_job_hour)));
    }
    facts
}

fn table(report: &Report<'_>) -> String {
    let mut text = format!(
        "{:<10} {:>8} {:>22} {:>24} {:>8} {:>8} {:>12} {:>11} {:>13} {:>10}\n",
        "policy",
        "jobs",
        "queued h mean/p50/p99",
        "JCT h mean/p50/p99",
        "SLO %",
        "jobs %",
        "requests %",
        "lent GPU-h",
        "stops/job-h",
        "resizes"
    );
    for row in &report.policies {
        let three = |spread: &Spread| format!("{:.3}/{:.3}/{:.2}", spread.mean, spread.p50, spread.p99);
        let line = format!(
            "{:<10} {:>8} {:>22} {:>24} {:>8.3} {:>8.1} {:>12.1} {:>11.1} {:>13.4} {:>10.4}\n",
            row.policy,
            row.jobs,
            three(&row.queued_h),
            three(&row.jct_h),
            row.slo_attainment * 100.0,
            row.training_utilisation * 100.0,
            row.inference_utilisation * 100.0,
            row.lent_gpu_hours,
            row.preemptions_per_job_hour,
            row.resizes_per_job_hour
        );
        text.push_str(&line);
    }
    let left = report.policies.iter().filter(|row| row.unfinished > 0);
    let left = left.map(|row| format!("{}: {} jobs did not end within four years", row.policy, row.unfinished));
    let bad = report.tally.first_bad_rows.iter().chain(&report.first_bad_inference_rows).cloned();
    for line in left.chain(report.notes.iter().cloned()).chain(bad) {
        text.extend(["  ", &line, "\n"]);
    }
    text
}
