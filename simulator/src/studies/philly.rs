//! The study `philly`: the busy weeks of Microsoft's trace on 610 GPUs, under the peers' rules and under ours.
//!
//! Nothing is published to compare with, so the bars are the peers' rules themselves, on the same floor with the same placement and, where they
//! predict, with the same history. Goals: the p99 wait of gangs (8 GPUs and more) at most a third of best-effort FIFO's, and a mean
//! completion time that no rule without an oracle undercuts. Wait is submission to first start; a rule that stops jobs could start
//! everybody and finish nobody, so all time in the queue is printed beside it, and judged where the settings say so.

use std::path::Path;

use serde::Deserialize;

use self::rows::Filter;
use crate::Error;
use crate::cluster::Shape;
use crate::jobs::metrics::{Summary, summary};
use crate::jobs::policies::backfill::Backfill;
use crate::jobs::policies::fair::Fair;
use crate::jobs::policies::floor::{Floor, Locality};
use crate::jobs::policies::history::History;
use crate::jobs::policies::ordered::Ordered;
use crate::jobs::policies::tidegate_in_one_queue;
use crate::jobs::policies::tiresias::Tiresias;
use crate::jobs::world::{Job, Setup, run as run_world};
use crate::jobs::{Costs, Policy};
use crate::report::{Goal, Row, Study};

mod rows;

/// The committed settings.
const SETTINGS: &str = include_str!("../../settings/philly.yaml");

/// What is taken for granted; each field is explained in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub trace_starts: String,
    pub first_week: u64,
    pub last_week: u64,
    pub min_duration_s: f64,
    pub probes: Probes,
    pub cases: Vec<Case>,
    pub cluster: String,
    pub locality: Locality,
    pub restart_s: u64,
    pub checkpoint_every_s: u64,
    pub report_every_s: u64,
    pub sample_every_s: u64,
    pub history: Remember,
    pub backfill_percent: u32,
    pub tiresias_levels_gpu_hours: Vec<f64>,
}

/// Which jobs are probes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    pub queue: String,
    pub from_s: f64,
    pub to_s: f64,
}

/// One selection of jobs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub max_gpu_hours: Option<f64>,
    pub judge_queued: bool,
}

/// How much history is kept, see [`History::new`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remember {
    pub remembers: usize,
    pub at_least: usize,
    pub unknown_s: u64,
}

/// What a scheduler is told about the place before the first job comes.
#[derive(Clone, Debug)]
pub struct Stage {
    pub setup: Setup,
    pub locality: Locality,
    /// For a peer's rule that predicts by [`History`].
    pub history: History,
    pub settings: Settings,
}

impl Stage {
    /// Nodes with nobody on them.
    pub fn floor(&self) -> Floor {
        Floor::new(&self.setup.nodes, self.locality)
    }
}

/// The engine as it is judged here: one queue for all.
pub fn ours(stage: &Stage) -> Box<dyn Policy> {
    tidegate_in_one_queue(&stage.setup)
}

/// The committed settings.
///
/// # Errors
/// When the file does not parse.
pub fn settings() -> Result<Settings, Error> {
    serde_yaml::from_str(SETTINGS).map_err(|error| Error::Usage(format!("simulator/settings/philly.yaml: {error}")))
}

/// Runs the study on `data`, the folder with `philly/philly.csv.gz`. `ours` makes the scheduler under test, once a case.
///
/// # Errors
/// When the data or the settings are wrong, or a policy orders what cannot be.
pub fn run(data: &Path, ours: impl FnMut(&Stage) -> Box<dyn Policy>) -> Result<Study, Error> {
    run_with(&settings()?, data, ours)
}

/// As [`run`], with other settings.
///
/// # Errors
/// As [`run`].
pub fn run_with(settings: &Settings, data: &Path, mut ours: impl FnMut(&Stage) -> Box<dyn Policy>) -> Result<Study, Error> {
    let stage = stage(settings)?;
    let mut study = Study { name: "philly".to_owned(), assumptions: assumptions(settings, &stage), ..Study::default() };
    for case in &settings.cases {
        let jobs = jobs(&stage, case, data)?;
        let mut found = Vec::new();
        for mut policy in peers(&stage, &jobs) {
            found.push((policy.name(), measure(&stage, &jobs, policy.as_mut())?));
        }
        let mine = measure(&stage, &jobs, ours(&stage).as_mut())?;
        let load = load(&jobs, &stage.setup);
        study.rows.extend(case_rows(case, load, &found, &mine));
        let mut details: serde_json::Map<_, _> =
            found.iter().map(|(name, summary)| ((*name).to_owned(), json(summary))).collect();
        details.insert("ours".to_owned(), json(&mine));
        study.details.insert(case.name.clone(), serde_json::Value::Object(details));
    }
    Ok(study)
}

fn json(summary: &Summary) -> serde_json::Value {
    serde_json::to_value(summary).unwrap_or_default()
}

/// The place as the settings say.
///
/// # Errors
/// When the cluster's shape does not parse.
pub fn stage(settings: &Settings) -> Result<Stage, Error> {
    let shape: Shape = settings.cluster.parse().map_err(Error::Usage)?;
    let nodes = shape.0.iter().flat_map(|group| (0..group.nodes).map(|_| group.gpus)).collect();
    let costs = Costs { restart_ms: settings.restart_s * 1000, checkpoint_every_ms: settings.checkpoint_every_s * 1000 };
    let (report_every_ms, sample_every_ms) = (settings.report_every_s * 1000, settings.sample_every_s * 1000);
    let remember = &settings.history;
    Ok(Stage {
        setup: Setup { nodes, costs, report_every_ms, sample_every_ms },
        locality: settings.locality,
        history: History::new(remember.remembers, remember.at_least, remember.unknown_s * 1000),
        settings: settings.clone(),
    })
}

/// The jobs of `case`, by submission.
///
/// # Errors
/// When `philly/philly.csv.gz` under `data` is not as it should be.
pub fn jobs(stage: &Stage, case: &Case, data: &Path) -> Result<Vec<Job>, Error> {
    let max_gpu_seconds = case.max_gpu_hours.map_or(f64::INFINITY, |hours| hours * 3600.0);
    let filter = Filter { settings: &stage.settings, max_gpu_seconds };
    rows::read(&data.join("philly/philly.csv.gz"), &filter, &stage.floor())
}

/// The last one is an oracle.
fn peers(stage: &Stage, jobs: &[Job]) -> Vec<Box<dyn Policy>> {
    let levels = stage.settings.tiresias_levels_gpu_hours.iter().map(|hours| rows::milliseconds(hours * 3600.0)).collect();
    let true_durations = jobs.iter().map(|job| i64::try_from(rows::milliseconds(job.work.total())).unwrap_or(i64::MAX)).collect();
    vec![
        Box::new(Ordered::fifo(stage.floor())),
        Box::new(Ordered::best_effort(stage.floor())),
        Box::new(Fair::new(stage.floor())),
        Box::new(Fair::reclaiming(stage.floor())),
        Box::new(Backfill::new(stage.floor(), stage.history.clone(), stage.settings.backfill_percent)),
        Box::new(Tiresias::new(stage.floor(), levels)),
        Box::new(Ordered::sjf(stage.floor(), true_durations)),
    ]
}

/// Figures of one policy.
///
/// # Errors
/// When it orders what cannot be.
pub fn measure(stage: &Stage, jobs: &[Job], policy: &mut dyn Policy) -> Result<Summary, Error> {
    let outcome = run_world(&stage.setup, jobs, policy)?;
    Ok(summary(&stage.setup, jobs, &outcome))
}

fn load(jobs: &[Job], setup: &Setup) -> f64 {
    let work: f64 = jobs.iter().map(|job| job.work.total() * f64::from(job.wish.gpus)).sum();
    let span = jobs.last().map_or(0.0, |job| job.submit as f64 / 1000.0);
    work / (span * f64::from(setup.nodes.iter().sum::<u32>())).max(1.0)
}

fn case_rows(case: &Case, load: f64, found: &[(&'static str, Summary)], mine: &Summary) -> Vec<Row> {
    let row = |what: String, unit, rule, ours, goal| Row {
        what: format!("{}: {what}", case.name),
        unit,
        published: None,
        rule,
        tolerance: None,
        ours,
        goal,
    };
    let plain = |what: &str, unit, of: &dyn Fn(&Summary) -> f64| row(what.to_owned(), unit, None, Some(of(mine)), None);
    let best_effort =
        found.iter().find(|(name, _)| *name == "fifo-best-effort").map(|(_, summary)| summary.gangs.clone()).unwrap_or_default();
    let (wait, queued) = (best_effort.wait_h.p99, best_effort.queued_h.p99);
    let judged = case.judge_queued.then_some(Goal::AtMost(queued / 3.0));
    let gang_wait = |summary: &Summary| Some(summary.gangs.wait_h.p99);
    let mut rows = vec![
        row("GPU time asked for, of all there is".to_owned(), "part", Some(load), Some(load), None),
        row("gangs' p99 wait, best-effort FIFO".to_owned(), "h", Some(wait), gang_wait(mine), Some(Goal::AtMost(wait / 3.0))),
        row(
            "gangs' p99 in queue with stops, best-effort FIFO".to_owned(),
            "h",
            Some(queued),
            Some(mine.gangs.queued_h.p99),
            judged,
        ),
    ];
    for (name, summary) in found {
        let bar = if *name == "sjf-oracle" { None } else { Some(Goal::AtMost(summary.all.jct_h.mean)) };
        rows.push(row(format!("mean JCT, {name}"), "h", Some(summary.all.jct_h.mean), Some(mine.all.jct_h.mean), bar));
    }
    rows.push(plain("preemptions per job-hour", "1/h", &|summary| summary.preemptions_per_job_hour));
    rows.push(plain("resizes per job-hour", "1/h", &|summary| summary.resizes_per_job_hour));
    rows.push(plain("GPU time lost to stops", "part", &|summary| summary.lost_fraction));
    rows.push(plain("fairness over virtual clusters", "Jain", &|summary| summary.fairness));
    rows
}

fn assumptions(settings: &Settings, stage: &Stage) -> Vec<String> {
    vec![
        format!("weeks {} to {} from {}, jobs of {} s and more, without the probes", settings.first_week, settings.last_week, settings.trace_starts, settings.min_duration_s),
        format!("{} GPUs as {}, {:?} locality", stage.floor().gpus(), settings.cluster, settings.locality),
        format!("a stop costs {} s and the work since the checkpoint, one each {} s", settings.restart_s, settings.checkpoint_every_s),
        "ours is the engine with all jobs in one responsive queue, and with moves aside; the constants of its claims were chosen on these weeks".to_owned(),
        "owner = virtual cluster, recipe = size; run times are predicted from jobs that have ended; only sjf-oracle knows true ones".to_owned(),
        "a job that is moved saves first and pays the restart alone; every job may be stopped; all virtual clusters weigh the same; a job runs as long as in the trace wherever it runs".to_owned(),
    ]
}

#[cfg(test)]
mod tests;
