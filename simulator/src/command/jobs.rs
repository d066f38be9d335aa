//! `simulate jobs`: a trace on a cluster, under one or several policies.

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use super::{json, print, save};
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
use crate::jobs::{Costs, Fixed, Policy, Wish};
use crate::report::html::{Fact, Page};
use crate::report::run::{Run, charts};
use crate::trace::{self, Bad, Format, TraceJob};

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
    /// Its format; docs/traces.md has the fields.
    #[arg(long)]
    format: Format,
    /// Nodes and GPUs: `NODESxGPUS`[:CLASS],... for instance 76x8,1x2. GPU classes are not told apart here.
    #[arg(long, value_name = "SHAPE")]
    cluster: Shape,
    /// Several, separated by commas, are compared in one table.
    #[arg(long, value_delimiter = ',', default_value = "tidegate")]
    policy: Vec<Name>,
    /// Time between a restart and useful work.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    restart_seconds: u32,
    /// A checkpoint is made after each such span of work; a stop loses what is younger. 0: nothing is lost.
    #[arg(long, value_name = "MINUTES", default_value_t = 20)]
    checkpoint_minutes: u32,
    /// Leaves rows that do not parse out, and counts them.
    #[arg(long)]
    skip_bad: bool,
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
enum Name {
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

/// Runs the trace under each policy and prints the figures.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Error> {
    let mut bad = if args.skip_bad { Bad::skips() } else { Bad::stops() };
    let traced: Vec<TraceJob> = trace::jobs(&args.trace, args.format, &mut bad)?.collect::<Result<_, Error>>()?;
    let setup = setup(args);
    let mut rows = Vec::new();
    let mut runs = Vec::new();
    for name in &args.policy {
        let jobs = jobs(args, &traced, &setup)?;
        let mut policy = policy(*name, &setup, &jobs);
        let outcome = world::run(&setup, &jobs, policy.as_mut())?;
        rows.push(Row { policy: policy.name(), summary: summary(&setup, &jobs, &outcome) });
        runs.push(series(policy.name(), &jobs, &outcome));
    }
    let charts = charts(&runs);
    if let Some(path) = &args.csv {
        save(path, |file| crate::report::csv::write(&charts, file))?;
    }
    if let Some(path) = &args.html {
        let facts = [Fact::new("jobs", traced.len().to_string()), Fact::new("GPUs", args.cluster.gpus().to_string())];
        let command = format!("tidegate simulate jobs --trace {} --policy ...", args.trace.display());
        let page = Page { title: "Jobs", command: &command, facts: &facts, studies: &[], charts: &charts };
        save(path, |file| write!(file, "{page}"))?;
    }
    if args.json { print(out, &json(&rows)?) } else { print(out, &table(&rows, &bad)) }
}

fn setup(args: &Args) -> Setup {
    let nodes = args.cluster.0.iter().flat_map(|group| (0..group.nodes).map(|_| group.gpus)).collect();
    let restart_ms = u64::from(args.restart_seconds) * 1000;
    let checkpoint_every_ms = u64::from(args.checkpoint_minutes) * 60_000;
    Setup { nodes, costs: Costs { restart_ms, checkpoint_every_ms }, report_every_ms: 120_000, sample_every_ms: 600_000 }
}

/// The jobs of the trace; one that can never run is refused by name.
fn jobs(args: &Args, traced: &[TraceJob], setup: &Setup) -> Result<Vec<Job>, Error> {
    let wrong = |job: &TraceJob, what: &str| Error::Usage(format!("{}: job {} {what}", args.trace.display(), job.name));
    let widest = setup.nodes.iter().copied().max().unwrap_or(0);
    let all = args.cluster.gpus();
    let mut jobs = Vec::new();
    for job in traced.iter().filter(|job| job.gpus > 0) {
        let Some(duration) = job.duration_ms else {
            return Err(wrong(job, "has no run time: this format tells none; take the study of it instead"));
        };
        if u64::from(job.gpus) > all || widest == 0 {
            return Err(wrong(job, &format!("asks for {} GPUs, the cluster has {all}: give --cluster more", job.gpus)));
        }
        let wish = Wish {
            name: job.name.clone(),
            queue: job.queue.clone(),
            owner: job.owner.clone(),
            recipe: job.recipe.clone(),
            priority: job.priority,
            min_gpus: job.gpus,
            max_gpus: job.gpus,
            gpus: job.gpus,
            classes: Vec::new(),
            speedup: Vec::new(),
            preemptible: true,
        };
        let work = Box::new(Fixed { seconds: duration.max(1) as f64 / 1000.0 });
        jobs.push(Job { submit: job.submit_ms, wish, work, tells_progress: false });
    }
    Ok(jobs)
}

fn policy(name: Name, setup: &Setup, jobs: &[Job]) -> Box<dyn Policy> {
    let floor = Floor::new(&setup.nodes, Locality::Strict);
    match name {
        Name::Fifo => Box::new(Ordered::fifo(floor)),
        Name::BestEffort => Box::new(Ordered::best_effort(floor)),
        Name::Sjf => {
            let seconds = jobs.iter().map(|job| job.work.total());
            Box::new(Ordered::sjf(floor, seconds.map(whole_ms).collect()))
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

fn table(rows: &[Row], bad: &Bad) -> String {
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
    for Row { policy, summary } in rows {
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
    if bad.rows() > 0 {
        text.push_str(&bad.to_string());
    }
    text
}
