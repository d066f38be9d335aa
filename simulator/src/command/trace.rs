//! A trace as jobs for a cluster: what is cut, left out or read differently is counted, so that the report can say so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::span::Span;
use crate::Error;
use crate::capacity;
use crate::cluster::Shape;
use crate::jobs::policies::floor::{Floor, Locality};
use crate::jobs::world::Job;
use crate::jobs::{Fixed, Held, Wish, Work};
use crate::pollux::application::Application;
use crate::pollux::work::Run;
use crate::studies::pollux;
use crate::trace::{self, Bad, Format, TraceJob};

/// What to read and for which cluster.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) format: Format,
    pub(super) cluster: &'a Shape,
    /// Of its GPUs, those that belong to models: a job must fit beside them.
    pub(super) models_gpus: u32,
    pub(super) from: Option<Span>,
    pub(super) to: Option<Span>,
    /// Folder of the curves that run times of the format `pollux` come from.
    pub(super) curves: Option<&'a Path>,
    pub(super) skip_bad: bool,
}

/// Jobs of which something was left out or changed.
#[derive(Serialize, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Jobs that are simulated.
    pub(super) jobs: u64,
    /// Rows that did not parse, and the first ten of them.
    pub(super) bad_rows: u64,
    pub(super) first_bad_rows: Vec<String>,
    /// Submitted outside `--from` and `--to`.
    pub(super) outside_span: u64,
    /// They ask for no GPU.
    pub(super) without_gpu: u64,
    /// No placement on the empty cluster; only with `--skip-bad`.
    pub(super) too_large: u64,
    /// They ask for a share of a GPU and get a whole one.
    pub(super) shares_rounded_up: u64,
    /// They ask for GPU classes and get any.
    pub(super) class_wishes_dropped: u64,
}

impl Tally {
    /// What a reader of the figures must know, one sentence each.
    pub(super) fn notes(&self) -> Vec<String> {
        let all = [
            (self.bad_rows, "rows did not parse and are left out"),
            (self.outside_span, "jobs are left out by --from and --to"),
            (self.without_gpu, "jobs ask for no GPU and are left out"),
            (self.too_large, "jobs cannot be placed on --cluster and are left out"),
            (self.shares_rounded_up, "jobs ask for a share of a GPU and are given a whole one"),
            (self.class_wishes_dropped, "jobs ask for GPU classes, which are not told apart here: any will do"),
        ];
        all.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// The jobs of a trace that fit a cluster.
pub(super) struct Jobs {
    traced: Vec<TraceJob>,
    applications: BTreeMap<String, Arc<Application>>,
    pub(super) tally: Tally,
}

impl Jobs {
    /// Reads and checks all of it.
    pub(super) fn read(source: &Source<'_>) -> Result<Self, Error> {
        let mut bad = Bad::new(source.skip_bad);
        // Formats that are not sorted are read whole when they are opened, so a bad row may be met in either step.
        let traced: Result<Vec<TraceJob>, Error> = trace::jobs(source.path, source.format, &mut bad).and_then(Iterator::collect);
        let traced = traced.map_err(|error| all_bad(error, &bad))?;
        let applications = if source.format == Format::Pollux { applications(source)? } else { BTreeMap::new() };
        let mut jobs = Self { traced: Vec::new(), applications, tally: Tally::default() };
        (jobs.tally.bad_rows, jobs.tally.first_bad_rows) = (bad.rows(), bad.first().to_vec());
        let floor = Floor::new(&nodes(source.cluster), Locality::Strict);
        let spans = traced.last().map_or(0, |job| job.submit_ms);
        for job in traced {
            jobs.add(job, source, &floor)?;
        }
        jobs.tally.jobs = jobs.traced.len() as u64;
        if jobs.traced.is_empty() {
            let (path, last) = (source.path.display(), Span(spans - spans % 1000));
            let left_out = jobs.tally.notes().join("; ");
            return Err(Error::Usage(format!(
                "{path}: no job is left to simulate ({left_out}); the last is submitted at {last}: check --trace, --from and --to"
            )));
        }
        Ok(jobs)
    }

    /// They as jobs of a cluster that is shared with models; teams are their queues.
    pub(super) fn shared(&self, cluster: &Shape) -> Vec<capacity::Job> {
        let floor = Floor::new(&nodes(cluster), Locality::Strict);
        let teams: BTreeSet<&str> = self.traced.iter().map(|job| job.queue.as_str()).collect();
        let teams: BTreeMap<&str, u32> = teams.into_iter().zip(0..).collect();
        let job = |(index, job): (u32, &TraceJob)| {
            let (team, gpus) = (teams.get(job.queue.as_str()).copied().unwrap_or_default(), job.gpus);
            let ask = capacity::Ask { job: index, team, gpus, min_gpus: gpus, max_gpus: gpus, any_class: false };
            let work_s = floor.place(gpus).map_or(f64::INFINITY, |held| seconds(self.work(job).as_ref(), &held));
            capacity::Job { ask, arrives: job.submit_ms, work_s }
        };
        (0..).zip(&self.traced).map(job).collect()
    }

    /// They again, for another policy.
    pub(super) fn make(&self) -> Vec<Job> {
        self.traced
            .iter()
            .map(|job| Job { submit: job.submit_ms, wish: wish(job), work: self.work(job), tells_progress: false })
            .collect()
    }

    fn add(&mut self, mut job: TraceJob, source: &Source<'_>, floor: &Floor) -> Result<(), Error> {
        let from = source.from.map_or(0, |from| from.0);
        if job.submit_ms < from || source.to.is_some_and(|to| job.submit_ms >= to.0) {
            self.tally.outside_span += 1;
            return Ok(());
        }
        if job.gpus == 0 {
            self.tally.without_gpu += 1;
            return Ok(());
        }
        let beside_models = floor.gpus().saturating_sub(source.models_gpus);
        let Some(held) = placed(&job, floor).filter(|_| job.gpus <= beside_models) else {
            if source.skip_bad {
                self.tally.too_large += 1;
                return Ok(());
            }
            return Err(too_large(&job, source, floor));
        };
        self.check_work(&job, source, &held)?;
        self.tally.shares_rounded_up += u64::from(job.gpu_milli < 1000);
        self.tally.class_wishes_dropped += u64::from(!job.classes.is_empty());
        job.submit_ms -= from;
        self.traced.push(job);
        Ok(())
    }

    /// Whether the job's run time is known and ends.
    fn check_work(&self, job: &TraceJob, source: &Source<'_>, held: &Held) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Usage(format!("{}: job {} {what}", source.path.display(), job.name)));
        let is_known = self.applications.contains_key(&job.recipe);
        match (source.format, job.duration_ms) {
            (Format::Pollux, _) if !is_known => {
                let known: Vec<&str> = self.applications.keys().map(String::as_str).collect();
                wrong(format!("has application {:?}: write one of {}", job.recipe, known.join(", ")))
            }
            (Format::Pollux, _) if self.work(job).rate(held, 0.0) <= 0.0 => wrong(format!(
                "has batch_size {} on num_replicas {}, which its application's curves do not cover: change either, or use nodes of 4 GPUs",
                job.batch_size.unwrap_or(0),
                job.gpus
            )),
            (Format::Pollux, _) | (_, Some(_)) => Ok(()),
            (_, None) => {
                wrong("has no run time: --format tells none in this file; take a list with times, or `simulate pack`".to_owned())
            }
        }
    }

    fn work(&self, job: &TraceJob) -> Box<dyn Work> {
        match self.applications.get(&job.recipe) {
            Some(application) => Box::new(Run { application: application.clone(), batch: job.batch_size.unwrap_or(1) }),
            None => Box::new(Fixed { seconds: job.duration_ms.unwrap_or(1).max(1) as f64 / 1000.0 }),
        }
    }
}

/// GPUs by node.
pub(super) fn nodes(cluster: &Shape) -> Vec<u32> {
    cluster.0.iter().flat_map(|group| (0..group.nodes).map(|_| group.gpus)).collect()
}

/// Seconds that a work takes on a placement, alone: for oracles.
pub(super) fn seconds(work: &dyn Work, held: &Held) -> f64 {
    let (mut done, mut seconds) = (0.0, 0.0);
    while done < work.total() {
        let next = work.next_change(done).unwrap_or(f64::INFINITY).min(work.total());
        let rate = work.rate(held, done);
        if rate <= 0.0 {
            return f64::INFINITY;
        }
        seconds += (next - done) / rate;
        done = next;
    }
    seconds
}

fn wish(job: &TraceJob) -> Wish {
    Wish {
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
    }
}

/// Where the job goes on an empty cluster.
fn placed(job: &TraceJob, floor: &Floor) -> Option<Held> {
    let is_one_piece = job.gpus_per_node.is_some_and(|gpus| gpus > floor.largest());
    if is_one_piece { None } else { floor.place(job.gpus) }
}

fn too_large(job: &TraceJob, source: &Source<'_>, floor: &Floor) -> Error {
    let (path, name, gpus, all) = (source.path.display(), &job.name, job.gpus, floor.gpus());
    let why = match job.gpus_per_node.filter(|gpus| *gpus > floor.largest()) {
        Some(here) => {
            format!("{here} of them on one node, the largest node has {}: give --cluster larger nodes", floor.largest())
        }
        None if gpus > all => format!("the cluster has {all}: give --cluster more"),
        None if gpus > all.saturating_sub(source.models_gpus) => format!(
            "the cluster has {all}, of which {} belong to the models: give --cluster more, or a smaller --inference-scale",
            source.models_gpus
        ),
        None => format!(
            "which cannot be placed on {}, as a job takes whole nodes and the rest of one more: give --cluster more nodes",
            source.cluster
        ),
    };
    Error::Usage(format!("{path}: job {name} asks for {gpus} GPUs, {why}; --skip-bad leaves such jobs out and counts them"))
}

/// The first bad row, and how many more there are.
pub(super) fn all_bad(error: Error, bad: &Bad) -> Error {
    if bad.rows() > 1 { Error::Usage(format!("{error}\n{bad}")) } else { error }
}

/// The measured applications: by default those beside the workload's folder.
fn applications(source: &Source<'_>) -> Result<BTreeMap<String, Arc<Application>>, Error> {
    let beside = || source.path.parent().and_then(Path::parent).map_or_else(PathBuf::new, |folder| folder.join("traces"));
    let folder = source.curves.map_or_else(beside, Path::to_owned);
    if !folder.is_dir() {
        return Err(Error::Usage(format!(
            "--curves: {} is no folder: the format pollux tells no run times, so name the folder with a measured curve for each \
             application (pollux/traces of the public data)",
            folder.display()
        )));
    }
    let read = |(name, facts): (String, _)| Ok((name.clone(), Arc::new(Application::read(&folder.join(name), facts)?)));
    pollux::facts()?.into_iter().map(read).collect()
}
