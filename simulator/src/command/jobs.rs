//! `simulate jobs`: a trace on a cluster, under one or several policies.

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use super::format::{Formats, Named};
use super::line::{Line, word};
use super::span::Span;
use super::trace::{Jobs, Source, Tally, nodes, seconds};
use super::{json, print, save, shared};
use crate::Error;
use crate::cluster::Shape;
use crate::jobs::metrics::{Summary, summary};
use crate::jobs::policies::backfill::Backfill;
use crate::jobs::policies::fair::Fair;
use crate::jobs::policies::floor::{Floor, Locality};
use crate::jobs::policies::history::History;
use crate::jobs::policies::ordered::Ordered;
use crate::jobs::policies::tidegate;
use crate::jobs::policies::tiresias::Tiresias;
use crate::jobs::world::{self, Job, Outcome, Setup};
use crate::jobs::{Costs, Policy};
use crate::report::html::{Fact, Page};
use crate::report::run::{Run, charts};
use crate::trace::Format;

/// GPU-hours at which a job falls to Tiresias' next level; those that served it best on Philly.
const TIRESIAS_GPU_MS: [u64; 2] = [3_600_000, 4 * 3_600_000];
/// Runs remembered, runs needed, and the run time of what is unknown, for backfill.
const HISTORY: (usize, usize, u64) = (200, 20, 1_800_000);

/// Flags of `simulate jobs`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The trace.
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// The trace's format, and a second time that of `--inference`; docs/traces.md has the fields.
    #[arg(long, required = true)]
    format: Vec<Named>,
    /// Nodes and GPUs: `NODESxGPUS`[:CLASS],... for instance 76x8,1x2. GPU classes are not told apart here.
    #[arg(long, value_name = "SHAPE", default_value_if("format", "pollux", "16x4"))]
    cluster: Option<Shape>,
    /// Requests to models that share the cluster with the jobs. Policies are then `tidegate`, which lends what the models do not
    /// need, and `fifo`, a static split. GPUs are counted, not nodes.
    #[arg(long, value_name = "FILE")]
    pub(super) inference: Option<PathBuf>,
    /// All rates of --inference times this.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = factor, requires = "inference")]
    pub(super) inference_scale: f64,
    /// Leaves out jobs submitted before this time of the trace (36h, 3d, 2w); what is left begins at 0.
    #[arg(long, value_name = "SPAN")]
    from: Option<Span>,
    /// Leaves out jobs submitted from this time of the trace on.
    #[arg(long, value_name = "SPAN")]
    to: Option<Span>,
    /// For the format pollux, which tells no run times: the folder with each application's measured curves. Absent: `traces`
    /// beside the workload's folder. Jobs run on the GPUs and the batch that their user chose; elastic sizes are the study's.
    #[arg(long, value_name = "DIR")]
    curves: Option<PathBuf>,
    /// Several, separated by commas, are compared in one table.
    #[arg(long, value_delimiter = ',', default_value = "tidegate")]
    pub(super) policy: Vec<Name>,
    /// Time between a restart and useful work.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    restart_seconds: u32,
    /// A checkpoint is made after each such span of work; a stop loses what is younger. 0: nothing is lost.
    #[arg(long, value_name = "MINUTES", default_value_t = 20)]
    checkpoint_minutes: u32,
    /// Leaves rows that do not parse out, and counts them.
    #[arg(long)]
    pub(super) skip_bad: bool,
    #[arg(long)]
    json: bool,
    /// Time series of busy GPUs and waiting jobs, distributions of waits and completion times.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// The same as a page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A policy's name.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Strictly in the order of submission.
    Fifo,
    /// The oldest that fits.
    BestEffort,
    /// The shortest first, by true run times: an oracle.
    Sjf,
    /// The queue with the smallest dominant share first.
    Fair,
    /// EASY: a reservation for the head, others before it when they are expected to end in time.
    Backfill,
    /// Discretised two-dimensional least attained service.
    Tiresias,
    /// The engine.
    Tidegate,
}

/// One policy's figures.
#[derive(Serialize)]
struct Row {
    policy: &'static str,
    #[serde(flatten)]
    summary: Summary,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report<'a> {
    command: String,
    gpus: u64,
    #[serde(flatten)]
    tally: &'a Tally,
    notes: Vec<String>,
    policies: Vec<Row>,
}

/// What is printed and written at the end.
pub(super) struct Found<'a, R> {
    pub(super) report: &'a R,
    pub(super) table: String,
    pub(super) facts: Vec<Fact>,
    pub(super) runs: Vec<Run>,
}

/// Runs the trace under each policy and prints the figures.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Error> {
    let cluster = args.cluster()?;
    let formats = Formats::of(&args.format, args.inference.is_some())?;
    match (&args.inference, formats.requests) {
        (Some(path), Some(requests)) => shared::run(args, cluster, formats.jobs, (path, requests), out),
        _ => alone(args, cluster, formats.jobs, out),
    }
}

/// Jobs alone.
fn alone(args: &Args, cluster: &Shape, format: Format, out: &mut dyn Write) -> Result<(), Error> {
    let jobs = Jobs::read(&args.source(cluster, format, 0))?;
    let setup = args.setup(cluster);
    let mut rows = Vec::new();
    let mut runs = Vec::new();
    for name in &args.policy {
        let jobs = jobs.make();
        let mut policy = policy(*name, &setup, &jobs);
        let outcome = world::run(&setup, &jobs, policy.as_mut())?;
        rows.push(Row { policy: policy.name(), summary: summary(&setup, &jobs, &outcome) });
        runs.push(series(policy.name(), &jobs, &outcome));
    }
    let report = Report {
        command: args.line(cluster).to_string(),
        gpus: cluster.gpus(),
        tally: &jobs.tally,
        notes: args.notes(format, &jobs.tally),
        policies: rows,
    };
    let facts = facts(&jobs.tally, cluster, &report.policies);
    args.deliver(cluster, &Found { report: &report, table: table(&report), facts, runs }, out)
}

/// A factor above 0.
fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| *factor > 0.0 && *factor <= 1e6);
    factor.ok_or_else(|| format!("`{text}` is no factor; write a number above 0, at most 10^6, for instance 0.5"))
}

impl Args {
    fn cluster(&self) -> Result<&Shape, Error> {
        let missing =
            "--cluster is missing: write NODESxGPUS, for instance --cluster 76x8 (16x4 is the default of --format pollux alone)";
        let cluster = self.cluster.as_ref().ok_or_else(|| Error::Usage(missing.to_owned()))?;
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            return Err(Error::Usage(format!("--to {to} is not after --from {from}: give a later time")));
        }
        Ok(cluster)
    }

    /// Writes the files that flags name, and prints.
    pub(super) fn deliver<R: Serialize>(&self, cluster: &Shape, found: &Found<'_, R>, out: &mut dyn Write) -> Result<(), Error> {
        let charts = charts(&found.runs);
        if let Some(path) = &self.csv {
            save(path, |file| crate::report::csv::write(&charts, file))?;
        }
        if let Some(path) = &self.html {
            let command = self.line(cluster).to_string();
            let page = Page { title: "Jobs", command: &command, facts: &found.facts, studies: &[], charts: &charts };
            save(path, |file| write!(file, "{page}"))?;
        }
        if self.json { print(out, &json(found.report)?) } else { print(out, &found.table) }
    }

    /// What of the trace is read; of the cluster, `models_gpus` belong to models.
    pub(super) fn source<'a>(&'a self, cluster: &'a Shape, format: Format, models_gpus: u32) -> Source<'a> {
        Source {
            path: &self.trace,
            format,
            cluster,
            models_gpus,
            from: self.from,
            to: self.to,
            curves: self.curves.as_deref(),
            skip_bad: self.skip_bad,
        }
    }

    /// Of stops.
    pub(super) fn costs(&self) -> Costs {
        Costs {
            restart_ms: u64::from(self.restart_seconds) * 1000,
            checkpoint_every_ms: u64::from(self.checkpoint_minutes) * 60_000,
        }
    }

    fn setup(&self, cluster: &Shape) -> Setup {
        Setup { nodes: nodes(cluster), costs: self.costs(), report_every_ms: 120_000, sample_every_ms: 600_000 }
    }

    /// What prints this report again.
    pub(super) fn line(&self, cluster: &Shape) -> Line {
        let policies: Vec<String> = self.policy.iter().map(word).collect();
        let line = Line::new(&["tidegate", "simulate", "jobs"]).with("trace", self.trace.display());
        self.format
            .iter()
            .fold(line, |line, format| line.with("format", word(format)))
            .with("cluster", cluster)
            .with_some("inference", self.inference.as_ref().map(|path| path.display()))
            .with_some("inference-scale", self.inference.as_ref().map(|_| self.inference_scale))
            .with("policy", policies.join(","))
            .with_some("from", self.from)
            .with_some("to", self.to)
            .with_some("curves", self.curves.as_ref().map(|path| path.display()))
            .with("restart-seconds", self.restart_seconds)
            .with("checkpoint-minutes", self.checkpoint_minutes)
            .with_switch("skip-bad", self.skip_bad)
            .with_switch("json", self.json)
            .with_some("csv", self.csv.as_ref().map(|path| path.display()))
            .with_some("html", self.html.as_ref().map(|path| path.display()))
    }

    pub(super) fn notes(&self, format: Format, tally: &Tally) -> Vec<String> {
        let mut notes = tally.notes();
        if format == Format::Pollux {
            notes.push("jobs run on the GPUs and the batch that their user chose, as fast as measured; elastic sizes: `simulate study pollux`".to_owned());
        }
        if self.policy.contains(&Name::Sjf) {
            notes.push("sjf knows the true run times: an oracle".to_owned());
        }
        notes
    }
}

/// What a reader sees first.
fn facts(tally: &Tally, cluster: &Shape, rows: &[Row]) -> Vec<Fact> {
    let mut facts = vec![Fact::new("jobs", tally.jobs.to_string()), Fact::new("GPUs", cluster.gpus().to_string())];
    for Row { policy, summary } in rows {
        let (jct, stops) = (summary.all.jct_h.mean, summary.preemptions_per_job_hour);
        facts.push(Fact::new(format!("{policy}: mean JCT"), format!("{jct:.2} h")));
        facts.push(Fact::new(format!("{policy}: p99 wait"), format!("{:.2} h", summary.all.wait_h.p99)));
        facts.push(Fact::new(format!("{policy}: use"), format!("{:.1} %", summary.utilisation * 100.0)));
        facts.push(Fact::new(format!("{policy}: stops"), format!("{stops:.3} per job-hour")));
    }
    facts
}

fn policy(name: Name, setup: &Setup, jobs: &[Job]) -> Box<dyn Policy> {
    let floor = Floor::new(&setup.nodes, Locality::Strict);
    match name {
        Name::Fifo => Box::new(Ordered::fifo(floor)),
        Name::BestEffort => Box::new(Ordered::best_effort(floor)),
        Name::Sjf => {
            let alone = |job: &Job| floor.place(job.wish.gpus).map_or(f64::INFINITY, |held| seconds(job.work.as_ref(), &held));
            let order = jobs.iter().map(|job| whole_ms(alone(job))).collect();
            Box::new(Ordered::sjf(floor, order))
        }
        Name::Fair => Box::new(Fair::new(floor)),
        Name::Backfill => Box::new(Backfill::new(floor, History::new(HISTORY.0, HISTORY.1, HISTORY.2), 50)),
        Name::Tiresias => Box::new(Tiresias::new(floor, TIRESIAS_GPU_MS.to_vec())),
        Name::Tidegate => tidegate(setup),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, which is what is meant")]
fn whole_ms(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

fn series(name: &str, jobs: &[Job], outcome: &Outcome) -> Run {
    let of = |read: fn(&world::Sample) -> u32| outcome.samples.iter().map(|s| (s.at_ms, f64::from(read(s)))).collect();
    let since = |submit: u64, at: Option<u64>| at.map(|at| at.saturating_sub(submit) as f64 / 1000.0);
    let records = || jobs.iter().zip(&outcome.records);
    Run {
        name: name.to_owned(),
        busy_gpus: of(|sample| sample.busy_gpus),
        waiting_jobs: of(|sample| sample.waiting_jobs),
        lent_gpus: of(|sample| sample.lent_gpus),
        waits_s: records().filter_map(|(job, record)| since(job.submit, record.first_start)).collect(),
        completions_s: records().filter_map(|(job, record)| since(job.submit, record.finished)).collect(),
    }
}

fn table(report: &Report<'_>) -> String {
    let mut text = format!(
        "{:<12} {:>8} {:>22} {:>26} {:>6} {:>12} {:>12} {:>8} {:>8}\n",
        "policy",
        "jobs",
        "wait h mean/p50/p99",
        "JCT h mean/p50/p99",
        "use %",
        "stops/job-h",
        "resizes/job-h",
        "lost %",
        "fairness"
    );
    for Row { policy, summary } in &report.policies {
        let three = |spread: &crate::jobs::metrics::Spread| format!("{:.3}/{:.3}/{:.2}", spread.mean, spread.p50, spread.p99);
        let line = format!(
            "{policy:<12} {:>8} {:>22} {:>26} {:>6.1} {:>12.4} {:>12.4} {:>8.2} {:>8.3}\n",
            summary.all.jobs,
            three(&summary.all.wait_h),
            three(&summary.all.jct_h),
            summary.utilisation * 100.0,
            summary.preemptions_per_job_hour,
            summary.resizes_per_job_hour,
            summary.lost_fraction * 100.0,
            summary.fairness
        );
        text.push_str(&line);
    }
    for line in report.notes.iter().chain(&report.tally.first_bad_rows) {
        text.extend(["  ", line, "\n"]);
    }
    text
}
