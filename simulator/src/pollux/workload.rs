//! What was submitted when, and what the authors' own runs of it gave.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use serde::Deserialize;

use super::table::Table;
use crate::Error;

/// One submitted job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub name: String,
    pub submitted_s: u64,
    /// Index into the applications.
    pub application: usize,
    /// GPUs that the user asks for.
    pub gpus: u32,
    /// The user's global batch, samples.
    pub batch: u32,
}

/// Seconds from submission to end, by workload and job.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    pub jcts: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Summary {
    /// Reads a `summary.json` of the authors.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        serde_json::from_reader(file).map_err(|error| {
            Error::Usage(format!("{}: {error}; it must hold `jcts`: workload -> job -> seconds", path.display()))
        })
    }

    /// The authors' figure: the mean over workloads of the mean over jobs, hours.
    pub fn mean_hours(&self) -> f64 {
        let mean = |jobs: &BTreeMap<String, f64>| jobs.values().sum::<f64>() / jobs.len().max(1) as f64;
        self.jcts.values().map(mean).sum::<f64>() / self.jcts.len().max(1) as f64 / 3600.0
    }
}

/// Reads a workload; `applications` are the names that rows may give.
pub fn read(path: &Path, applications: &[&str]) -> Result<Vec<Spec>, Error> {
    let mut specs = Vec::new();
    for line in Table::read(path)?.lines() {
        let named = line.text("application")?;
        let unknown = || line.wrong("application", "an application with a folder of traces and a line in the settings");
        specs.push(Spec {
            name: line.text("name")?.to_owned(),
            submitted_s: line.number("time", |_| true, "whole seconds since the start")?,
            application: applications.iter().position(|name| *name == named).ok_or_else(unknown)?,
            gpus: line.number("num_replicas", |gpus| (1..=64).contains(&gpus), "a number of GPUs, 1 to 64")?,
            batch: line.number("batch_size", |batch| batch > 0, "a batch, at least 1 sample")?,
        });
    }
    Ok(specs)
}
