//! The smallest sizes that keep waits and SLO, by bisection.

use super::Settings;
use crate::Error;
use crate::capacity::engine::{EngineCapacity, Parts};
use crate::capacity::fifo::Fifo;
use crate::capacity::outcome::{Ended, Outcome, Spread};
use crate::capacity::world::{self, Setup};
use crate::capacity::{CapacityPolicy, GpuClass, Job, Model, ModelSpec};

/// Who is served first inside a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Strict first come first served.
    Fifo,
    /// Ours, without elasticity.
    Ours,
}

/// A size and what it gives.
#[derive(Clone, Debug)]
pub struct Sized {
    pub gpus: u32,
    pub mean_jct_s: f64,
    pub p99_wait_s: f64,
    /// The largest p99 of any team.
    pub worst_team_p99_wait_s: f64,
    /// Teams whose p99 wait is above the wanted one, and their part of all jobs.
    pub late_teams: (usize, f64),
    pub attained: f64,
    /// Stops and resizes per job-hour.
    pub disturbed: (f64, f64),
    /// Models below the wanted share, and their part of all requests.
    pub below: (usize, f64),
    pub figures: serde_json::Value,
}

impl Sized {
    /// The same with so many GPUs more.
    pub fn plus(mut self, gpus: u32) -> Self {
        self.gpus += gpus;
        self
    }
}

/// The jobs and models to be sized for.
pub struct Sizing<'a> {
    settings: &'a Settings,
    jobs: &'a [Job],
    models: &'a [Model],
}

impl<'a> Sizing<'a> {
    pub fn new(settings: &'a Settings, jobs: &'a [Job], models: &'a [Model]) -> Self {
        Self { settings, jobs, models }
    }

    /// GPUs of all models' own pools, each the smallest that answers the wanted share of its model's requests.
    pub fn static_inference(&self) -> u32 {
        self.models.iter().map(|model| model.own_gpus(self.settings.inference.attainment)).sum()
    }

    /// Each team its own GPUs.
    pub fn teams(&self, teams: &[String], order: Order) -> Result<Sized, Error> {
        let mut gpus = 0;
        let mut ended = Vec::new();
        for team in 0..u32::try_from(teams.len()).unwrap_or(u32::MAX) {
            let jobs = renumbered(self.jobs.iter().filter(|job| job.ask.team == team));
            if !jobs.is_empty() {
                let largest = jobs.iter().map(|job| job.ask.gpus).max().unwrap_or(1);
                let (size, outcome) = self.training(&jobs, order, (largest, largest + 1000), 1, f64::INFINITY)?;
                gpus += size;
                ended.extend(outcome.jobs);
            }
        }
        Ok(self.sized(gpus, &Outcome { jobs: ended, ..Outcome::default() }))
    }

    /// One training pool.
    pub fn pool(&self, order: Order, jct_limit_s: f64) -> Result<Sized, Error> {
        let settings = self.settings;
        let (gpus, outcome) = self.training(self.jobs, order, settings.pool_gpus, settings.step_gpus, jct_limit_s)?;
        Ok(self.sized(gpus, &outcome))
    }

    /// The smallest cluster for all, replicas following demand, whose mean JCT is within the limit too.
    pub fn cluster(&self, elasticity: bool, multiplexing: bool, jct_limit_s: f64) -> Result<Sized, Error> {
        let attempt = |gpus: u32| {
            let outcome = self.run_cluster(gpus, elasticity, multiplexing)?;
            let keeps = self.keeps_wait(&outcome)
                && outcome.attained() >= self.settings.inference.attainment
                && outcome.jct_s().mean <= jct_limit_s;
            Ok((keeps, outcome))
        };
        let (low, high) = self.settings.cluster_gpus;
        let (gpus, outcome) = smallest(low, high, self.settings.step_gpus, attempt)?;
        Ok(self.sized(gpus, &outcome))
    }

    /// Ours on one cluster of this size.
    fn run_cluster(&self, gpus: u32, elasticity: bool, multiplexing: bool) -> Result<Outcome, Error> {
        let parts = Parts { lending: true, fixed: Vec::new(), elasticity, multiplexing };
        let specs: Vec<ModelSpec> = self.models.iter().map(|model| model.spec.clone()).collect();
        let setup = self.setup(gpus, true);
        let mut policy = EngineCapacity::new(&self.settings.rules, parts, &setup.classes, &specs, setup.costs);
        world::run(&setup, self.jobs, self.models, &mut policy)
    }

    fn training(
        &self,
        jobs: &[Job],
        order: Order,
        between: (u32, u32),
        step: u32,
        jct_limit_s: f64,
    ) -> Result<(u32, Outcome), Error> {
        let attempt = |gpus: u32| {
            let setup = self.setup(gpus, false);
            let parts = Parts { lending: false, fixed: Vec::new(), elasticity: false, multiplexing: false };
            let mut fifo = Fifo::new(gpus, Vec::new());
            let mut ours = EngineCapacity::new(&self.settings.rules, parts, &setup.classes, &[], setup.costs);
            let policy: &mut dyn CapacityPolicy = if order == Order::Fifo { &mut fifo } else { &mut ours };
            let outcome = world::run(&setup, jobs, &[], policy)?;
            Ok((self.keeps_wait(&outcome) && outcome.jct_s().mean <= jct_limit_s, outcome))
        };
        smallest(between.0, between.1, step, attempt)
    }

    fn setup(&self, gpus: u32, with_models: bool) -> Setup {
        // All of it is owed to the models, so what jobs use comes back as fast as demand rises.
        let models = if with_models { gpus } else { 0 };
        let classes = vec![GpuClass { name: "H100".to_owned(), gpus, models, speed: 1.0 }];
        let last = self.jobs.last().map_or(0, |job| job.arrives);
        Setup {
            classes,
            costs: self.settings.costs,
            round_ms: self.settings.round_s * 1000,
            measured_ms: if with_models { last } else { 0 },
            sample_every_ms: 0,
            limit_ms: 400 * 86_400_000,
        }
    }

    fn keeps_wait(&self, outcome: &Outcome) -> bool {
        outcome.unfinished == 0 && outcome.wait_s().p99 <= self.settings.training.p99_wait_s
    }

    fn sized(&self, gpus: u32, outcome: &Outcome) -> Sized {
        let teams = outcome.jobs.iter().map(|job| job.team).max().unwrap_or(0);
        let jobs_of = |team| outcome.jobs.iter().filter(move |job: &&Ended| job.team == team);
        let of_team = |team| Spread::of(jobs_of(team).map(|job| job.wait_s)).p99;
        let below = outcome.models.iter().filter(|model| model.attained < self.settings.inference.attainment);
        let all: f64 = outcome.models.iter().map(|model| model.requests).sum();
        let share = below.clone().fold(0.0, |sum, model| sum + model.requests) / all.max(1.0);
        let late: Vec<u32> = (0..=teams).filter(|team| of_team(*team) > self.settings.training.p99_wait_s).collect();
        let late_jobs: usize = late.iter().map(|team| jobs_of(*team).count()).sum();
        Sized {
            gpus,
            mean_jct_s: outcome.jct_s().mean,
            p99_wait_s: outcome.wait_s().p99,
            worst_team_p99_wait_s: (0..=teams).map(of_team).fold(0.0, f64::max),
            late_teams: (late.len(), late_jobs as f64 / outcome.jobs.len().max(1) as f64),
            attained: outcome.attained(),
            disturbed: outcome.disturbances_per_job_hour(),
            below: (below.count(), share),
            figures: outcome.figures(),
        }
    }
}

/// The smallest of `low, low + step, ..` that keeps, with its outcome. More GPUs are taken to keep what fewer do.
fn smallest(
    low: u32,
    high: u32,
    step: u32,
    attempt: impl Fn(u32) -> Result<(bool, Outcome), Error>,
) -> Result<(u32, Outcome), Error> {
    let (mut from, mut to) = (0, (high - low).div_ceil(step));
    let mut best = None;
    while from < to {
        let middle = u32::midpoint(from, to);
        let (keeps, outcome) = attempt(low + middle * step)?;
        if keeps {
            to = middle;
            best = Some(outcome);
        } else {
            from = middle + 1;
        }
    }
    match best {
        Some(outcome) => Ok((low + to * step, outcome)),
        None => match attempt(high)? {
            (true, outcome) => Ok((high, outcome)),
            _ => Err(Error::Usage(format!(
                "settings/tide.yaml: no size from {low} to {high} GPUs keeps wait, JCT and SLO: raise pool_gpus or cluster_gpus"
            ))),
        },
    }
}

/// Jobs of one team with numbers from 0.
fn renumbered<'a>(jobs: impl Iterator<Item = &'a Job>) -> Vec<Job> {
    let renumber = |(index, job): (u32, &Job)| {
        let mut job = job.clone();
        job.ask.job = index;
        job
    };
    (0..).zip(jobs).map(renumber).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(fewest: u32) -> Result<u32, Error> {
        smallest(10, 30, 4, |gpus| Ok((gpus >= fewest, Outcome::default()))).map(|(gpus, _)| gpus)
    }

    #[test]
    fn the_smallest_size_that_keeps_is_found_in_steps() {
        assert_eq!([search(0).unwrap(), search(15).unwrap(), search(18).unwrap(), search(30).unwrap()], [10, 18, 18, 30]);
    }

    #[test]
    fn no_size_that_keeps_is_an_error_that_says_what_to_raise() {
        assert!(search(31).unwrap_err().to_string().contains("raise pool_gpus"));
    }
}
