//! One kind of training job: how fast it steps, how much a step is worth, and how much work there is.
//!
//! Work is counted in *statistical iterations*: steps at the smallest batch that would make the same progress. A step with
//! `scale` times the smallest batch is worth `(var + sqr) / (var / scale + sqr)` of them, where `sqr` and `var` are the
//! squared norm and the variance of the gradient in that epoch (Pollux, OSDI 2021, equation 4). Both are measured per epoch
//! at a few batch sizes and linear between. A batch that does not fit into the GPUs' memory is accumulated over several
//! steps, of which only the last exchanges gradients.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::table::Table;
use super::throughput::Throughput;
use crate::Error;

/// What the traces do not say about an application.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Epochs until it is done.
    pub epochs: usize,
    /// Samples that fit into a GPU; absent: the largest that was measured.
    pub max_local_batch: Option<u32>,
}

/// How a batch is split over GPUs and steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Samples per GPU and step.
    pub local: u32,
    /// Steps before the one that exchanges gradients.
    pub accumulated: u32,
}

/// One epoch at one batch size.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    progress: f64,
    grad_sqr: f64,
    grad_var: f64,
}

/// Measurements of one application.
#[derive(Clone, Debug)]
pub struct Application {
    pub name: String,
    pub epochs: usize,
    /// Smallest and largest global batch.
    pub batches: (u32, u32),
    /// Smallest and largest batch per GPU and step.
    pub local_batches: (u32, u32),
    throughput: Throughput,
    /// By batch size.
    validation: BTreeMap<u32, Vec<Epoch>>,
    /// Statistical iterations at the end of each epoch.
    ends: Vec<f64>,
}

impl Application {
    /// Reads the folder of an application; its name is the folder's.
    pub fn read(folder: &Path, facts: Facts) -> Result<Self, Error> {
        let throughput = Throughput::read(folder)?;
        let validation = read_validation(folder)?;
        let (Some(least), Some(most)) = (validation.keys().next(), validation.keys().next_back()) else {
            return Err(Error::Usage(format!("{}: there is no validation-BATCH.csv", folder.display())));
        };
        let shortest = validation.values().map(Vec::len).min().unwrap_or(0);
        if facts.epochs == 0 || facts.epochs > shortest {
            let folder = folder.display();
            let epochs = facts.epochs;
            return Err(Error::Usage(format!("{folder}: `epochs` is {epochs}, the traces hold {shortest}; set 1 to {shortest}")));
        }
        let end = |epoch: usize| {
            validation.values().filter_map(|rows| rows.get(epoch)).map(|row| row.progress).fold(f64::MAX, f64::min)
        };
        Ok(Self {
            name: folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            epochs: facts.epochs,
            batches: (*least, *most),
            local_batches: (throughput.local_batches.0, facts.max_local_batch.unwrap_or(throughput.local_batches.1)),
            ends: (0..facts.epochs).map(end).collect(),
            throughput,
            validation,
        })
    }

    /// Statistical iterations until an epoch (from 0) is over; of the last for all later ones.
    pub fn end_of(&self, epoch: usize) -> f64 {
        self.ends.get(epoch).or(self.ends.last()).copied().unwrap_or(0.0)
    }

    /// The epoch in which `done` statistical iterations fall; the number of epochs when it is over.
    pub fn epoch_at(&self, done: f64) -> usize {
        self.ends.partition_point(|end| *end <= done)
    }

    /// Statistical iterations in all.
    pub fn total(&self) -> f64 {
        self.end_of(self.epochs)
    }

    /// Whether a batch can be split over so many GPUs at all.
    pub fn fits(&self, batch: u32, gpus: u32) -> bool {
        gpus > 0 && batch >= gpus.saturating_mul(self.local_batches.0)
    }

    /// How the artifact splits a batch: as few accumulation steps as memory allows, but at least one on a single GPU above
    /// the smallest batch (gradient noise cannot be measured from one sample).
    pub fn split(&self, batch: u32, gpus: u32) -> Split {
        let gpus = gpus.max(1);
        let share = batch.div_ceil(gpus);
        let least = u32::from(gpus == 1 && batch > self.batches.0);
        let accumulated = (share.div_ceil(self.local_batches.1).max(1) - 1).max(least);
        let local = share.div_ceil(accumulated + 1).min(self.batches.1 / (gpus * (accumulated + 1)));
        Split { local, accumulated }
    }

    /// Statistical iterations that one optimiser step with this batch is worth in an epoch.
    pub fn gain(&self, batch: u32, epoch: usize) -> f64 {
        let (sqr, var) = self.gradient(batch, epoch.min(self.epochs.saturating_sub(1)));
        let scale = f64::from(batch) / f64::from(self.batches.0);
        let noise = var / scale + sqr;
        if noise > 0.0 { (var + sqr) / noise } else { 1.0 }
    }

    /// Statistical iterations per second. 0 without GPUs.
    pub fn rate(&self, placement: &[u32], batch: u32, epoch: usize) -> f64 {
        let gpus: u32 = placement.iter().sum();
        let split = self.split(batch, gpus);
        let Some(step) = self.throughput.step(placement, split.local) else { return 0.0 };
        let seconds = step.step_s + (step.step_s - step.sync_s) * f64::from(split.accumulated);
        self.gain(gpus * split.local * (split.accumulated + 1), epoch) / seconds
    }

    fn gradient(&self, batch: u32, epoch: usize) -> (f64, f64) {
        let batch = batch.clamp(self.batches.0, self.batches.1);
        let row =
            |entry: Option<(&u32, &Vec<Epoch>)>| entry.and_then(|(at, rows)| rows.get(epoch).map(|row| (f64::from(*at), *row)));
        let (Some((low, from)), Some((high, to))) =
            (row(self.validation.range(..=batch).next_back()), row(self.validation.range(batch..).next()))
        else {
            return (1.0, 0.0);
        };
        let share = if high > low { (f64::from(batch) - low) / (high - low) } else { 0.0 };
        let mix = |a: f64, b: f64| a + (b - a) * share;
        (mix(from.grad_sqr, to.grad_sqr), mix(from.grad_var, to.grad_var))
    }
}

fn read_validation(folder: &Path) -> Result<BTreeMap<u32, Vec<Epoch>>, Error> {
    let wrong = |source| Error::Read { path: folder.to_owned(), source };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let name = entry.map_err(wrong)?.file_name().to_string_lossy().into_owned();
        let Some(batch) = name.strip_prefix("validation-").and_then(|name| name.strip_suffix(".csv")) else { continue };
        let batch: u32 = batch.parse().ok().filter(|batch| *batch > 0).ok_or_else(|| {
            Error::Usage(format!("{}/{name}: `{batch}` is no batch size; name the file validation-BATCH.csv", folder.display()))
        })?;
        found.insert(batch, read_epochs(&folder.join(&name))?);
    }
    Ok(found)
}

fn read_epochs(path: &Path) -> Result<Vec<Epoch>, Error> {
    let mut epochs = Vec::new();
    let mut before = 0.0;
    for line in Table::read(path)?.lines() {
        let progress =
            line.number("progress", |value: f64| value.is_finite() && value > before, "more than in the epoch before")?;
        let squared = |value: f64| value.is_finite() && value >= 0.0;
        let grad_sqr = line.number("grad_sqr", squared, "a squared norm, 0 or more")?;
        epochs.push(Epoch { progress, grad_sqr, grad_var: line.number("grad_var", squared, "a variance, 0 or more")? });
        before = progress;
    }
    Ok(epochs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pollux::testing::application;

    #[test]
    fn work_is_counted_in_iterations_at_the_smallest_batch() {
        let application = application(&[40.0, 100.0]);
        assert_eq!((application.total(), application.end_of(0), application.end_of(7)), (100.0, 40.0, 100.0));
        assert_eq!([0.0, 39.9, 40.0, 100.0].map(|done| application.epoch_at(done)), [0, 0, 1, 2]);
        assert!((application.gain(8, 0) - 1.0).abs() < 1e-12);
        // (1 + 1) / (1 / 2 + 1)
        assert!((application.gain(16, 0) - 4.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_batch_beyond_memory_is_accumulated_and_one_gpu_accumulates_to_measure_noise() {
        let mut application = application(&[100.0]);
        assert_eq!(application.split(8, 1), Split { local: 8, accumulated: 0 });
        assert_eq!(application.split(16, 1), Split { local: 8, accumulated: 1 });
        assert_eq!(application.split(16, 2), Split { local: 8, accumulated: 0 });
        application.local_batches = (1, 3);
        assert_eq!(application.split(16, 2), Split { local: 2, accumulated: 2 });
        assert!(application.fits(16, 16) && !application.fits(16, 17));
    }

    #[test]
    fn a_row_that_does_not_parse_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("validation-8.csv");
        fs::write(&path, "progress,iteration,metric,grad_sqr,grad_var\n1,1,0,1,1\n1,1,0,1,1\n").unwrap();
        let error = read_epochs(&path).unwrap_err();
        assert_eq!(error.code(), 64);
        let text = error.to_string();
        assert!(text.contains("validation-8.csv, line 3: progress") && text.contains("more than in the epoch before"), "{text}");
    }
}
