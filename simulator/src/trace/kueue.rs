//! Kueue's performance generator (`test/performance/scheduler/configs/*/generator.yaml`): cohorts x cluster queues x sets
//! of workloads, unrolled into jobs.
//!
//! As Kueue does it: every set of every queue runs on its own from time 0, waits `creationIntervalMs`, creates one workload,
//! and so on. Names are Kueue's: queue `<class>-<set>-<i>-<cohort>`, workload `<class>-<set>-<i>-<template>`, here with the
//! queue before it. Kueue's quota unit (its `cpu`) stands for one GPU, rounded up over all pods, since the trace has no
//! other resource that a GPU scheduler could count; a workload that claims `devices` asks for exactly those.

mod config;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Error;

use super::TraceJob;
use super::input::Lines;
pub use config::{
    Cohorts, Config, Count, Devices, Flavor, Level, Preemption, Queues, Template, Topology, TopologyConstraint, Units, Workloads,
};

/// Bytes of a generator file; Kueue's have under 6 KB.
const MOST: u64 = 16 << 20;
/// Cohorts, queues and sets, and jobs that a file may unroll into; beyond, a number in it is a slip.
const MOST_THINGS: u64 = 1_000_000;
const MOST_JOBS: u64 = 1_000_000_000;

/// Reads a generator file: quotas and workloads.
pub(super) fn parse(lines: Lines) -> Result<Config, Error> {
    let (path, text) = lines.rest(MOST)?;
    let wrong = |line: u64, field: String, found: String, remedy: &str| Error::Layout {
        path: path.clone(),
        line,
        field,
        found,
        remedy: remedy.to_owned(),
    };
    let parsed: Result<Config, _> = serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(&text));
    let config = parsed.map_err(|error| {
        let line = error.inner().location().map_or(1, |location| location.line() as u64);
        let (field, found) = (error.path().to_string(), error.inner().to_string());
        let found = found.strip_prefix(&format!("{field}: ")).unwrap_or(&found);
        let found = found.split(" at line ").next().unwrap_or_default().to_owned();
        let field = if matches!(field.as_str(), "." | "") { "file".to_owned() } else { field };
        wrong(line, field, found, "write it as Kueue's test/performance/scheduler/configs do")
    })?;
    let (things, jobs) = config.size();
    if jobs == 0 {
        return Err(wrong(
            1,
            "cohorts".to_owned(),
            "no workloads".to_owned(),
            "list at least one cohort with a queue and workloads",
        ));
    }
    if things > MOST_THINGS || jobs > MOST_JOBS {
        let found = format!("{things} cohorts, queues and sets with {jobs} workloads");
        return Err(wrong(
            1,
            "cohorts".to_owned(),
            found,
            "lower a count: at most 1000000 cohorts, queues and sets, and 1000000000 workloads",
        ));
    }
    Ok(config)
}

/// One running loop of Kueue's generator: the next creation of one set of one queue.
struct Loop {
    /// Indices of the cohorts' set, the queues' set and the workloads' set.
    at: (usize, usize, usize),
    queue: String,
    cohort: String,
    created: u64,
}

impl Loop {
    fn set<'a>(&self, config: &'a Config) -> Option<&'a Workloads> {
        let (cohorts, queues, set) = self.at;
        config.cohorts.get(cohorts)?.queues_sets.get(queues)?.workloads_sets.get(set)
    }

    /// When it creates next; absent: it is done.
    fn next_ms(&self, config: &Config) -> Option<u64> {
        let set = self.set(config).filter(|set| self.created < set.count())?;
        Some((self.created + 1) * u64::from(set.creation_interval_ms.0))
    }

    fn create(&mut self, config: &Config) -> Option<TraceJob> {
        let (set, submit_ms) = (self.set(config)?, self.next_ms(config)?);
        let templates = set.workloads.len() as u64;
        let (round, at) = (self.created.checked_div(templates)?, self.created.checked_rem(templates)?);
        let template = set.workloads.get(usize::try_from(at).ok()?)?;
        self.created += 1;
        let name = format!("{}/{}-{}-{round}-{at}", self.queue, template.class_name, self.at.2);
        Some(template.job(name, submit_ms, &self.queue, &self.cohort))
    }
}

impl Template {
    /// Whole units over all pods.
    pub fn gpus(&self) -> u32 {
        let pods = u64::from(self.pod_count.0.max(1));
        let devices = pods.saturating_mul(self.devices.0.into());
        let gpus = if self.devices.0 > 0 { devices } else { pods.saturating_mul(self.request.0).div_ceil(1000) };
        u32::try_from(gpus).unwrap_or(u32::MAX)
    }

    fn job(&self, name: String, submit_ms: u64, queue: &str, cohort: &str) -> TraceJob {
        let whole_pods = self.devices.0 > 0 || self.request.0.is_multiple_of(1000);
        let pods = self.pod_count.0.max(1);
        TraceJob {
            name,
            submit_ms,
            duration_ms: Some(u64::from(self.runtime_ms.0).max(1)),
            gpus: self.gpus(),
            gpus_per_node: (pods > 1 && whole_pods).then_some(self.gpus() / pods),
            gpu_milli: if self.gpus() > 0 { 1000 } else { 0 },
            queue: queue.to_owned(),
            owner: cohort.to_owned(),
            recipe: self.class_name.clone(),
            priority: self.priority,
            ..TraceJob::default()
        }
    }
}

impl Config {
    /// Jobs by creation; at equal times in the file's order.
    pub fn jobs(&self) -> impl Iterator<Item = TraceJob> + use<> {
        let (config, mut loops) = (self.clone(), self.loops());
        let next = |(at, one): (usize, &Loop)| Some(Reverse((one.next_ms(self)?, at)));
        let mut heap: BinaryHeap<_> = loops.iter().enumerate().filter_map(next).collect();
        std::iter::from_fn(move || {
            let Reverse((_, at)) = heap.pop()?;
            let one = loops.get_mut(at)?;
            let job = one.create(&config)?;
            heap.extend(one.next_ms(&config).map(|next| Reverse((next, at))));
            Some(job)
        })
    }

    /// Cluster queues: name, cohort, and what they are alike to.
    pub fn queues(&self) -> impl Iterator<Item = (String, String, &Queues)> {
        self.numbered().map(|(_, queue, cohort, queues)| (queue, cohort, queues))
    }

    /// As [`Self::queues`], with the indices of the cohorts' and the queues' set before.
    fn numbered(&self) -> impl Iterator<Item = ((usize, usize), String, String, &Queues)> {
        let cohorts = self.cohorts.iter().enumerate();
        let cohorts = cohorts.flat_map(|(c, set)| (0..set.count.0).map(move |i| (c, format!("{}-{i}", set.class_name), set)));
        cohorts.flat_map(|(c, cohort, set)| {
            set.queues_sets.iter().enumerate().flat_map(move |(q, queues)| {
                let cohort = cohort.clone();
                let name = move |i, cohort: &str| format!("{}-{q}-{i}-{cohort}", queues.class_name);
                (0..queues.count.0).map(move |i| ((c, q), name(i, &cohort), cohort.clone(), queues))
            })
        })
    }

    fn loops(&self) -> Vec<Loop> {
        let mut loops = Vec::new();
        for ((c, q), queue, cohort, queues) in self.numbered() {
            for set in 0..queues.workloads_sets.len() {
                loops.push(Loop { at: (c, q, set), queue: queue.clone(), cohort: cohort.clone(), created: 0 });
            }
        }
        loops
    }

    /// Cohorts, queues and sets of workloads in all, and the workloads they create. Saturates.
    fn size(&self) -> (u64, u64) {
        let (mut things, mut jobs) = (0_u64, 0_u64);
        for cohorts in &self.cohorts {
            let count = u64::from(cohorts.count.0);
            things = things.saturating_add(count);
            for queues in &cohorts.queues_sets {
                let alike = count.saturating_mul(queues.count.0.into());
                things = things.saturating_add(alike.saturating_mul(1 + queues.workloads_sets.len() as u64));
                let each = queues.workloads_sets.iter().fold(0_u64, |sum, set| sum.saturating_add(set.count()));
                jobs = jobs.saturating_add(alike.saturating_mul(each));
            }
        }
        (things, jobs)
    }
}

impl Workloads {
    /// Workloads that one queue gets from this set.
    pub fn count(&self) -> u64 {
        u64::from(self.count.0) * self.workloads.len() as u64
    }
}

#[cfg(test)]
mod tests;
