//! What the example's own files say: promises of models, commands of jobs, the policy of the pool.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use tidegate_api::kinds::{Model, Pool, Queue, TrainingJob};
use tidegate_api::manifest::{self, Object};
use tidegate_load::Script;

use crate::harness::workspace;

/// The day in phases: what it is called, from which second of the script to which. Two tides, as the models' peaks are apart.
pub const PHASES: [(&str, u32, u32); 6] =
    [("night", 0, 28), ("rise", 28, 64), ("peak", 64, 74), ("ebb", 74, 108), ("second tide", 108, 150), ("next night", 150, 180)];

/// Where each phase ends but for the last.
pub fn phase_ends() -> Vec<u32> {
    PHASES.iter().skip(1).map(|(_, from, _)| *from).collect()
}

/// The example, read.
pub struct Example {
    pub folder: PathBuf,
    pub pool: Pool,
    pub queues: Vec<Queue>,
    pub models: BTreeMap<String, Model>,
    pub jobs: BTreeMap<String, TrainingJob>,
    pub script: Script,
}

impl Example {
    /// Reads `examples/tide`.
    pub fn read() -> Result<Self> {
        let folder = workspace().join("examples/tide");
        let (mut pool, mut queues, mut models, mut jobs) = (None, Vec::new(), BTreeMap::new(), BTreeMap::new());
        for object in objects(&folder)? {
            let name = object.name().to_owned();
            match object {
                Object::Pool(found) => pool = Some(found),
                Object::Model(found) => drop(models.insert(name, *found)),
                Object::TrainingJob(found) => drop(jobs.insert(name, *found)),
                Object::Queue(found) => queues.push(found),
            }
        }
        let script = Script::read(&folder.join("load/day.yaml"))?;
        Ok(Self { pool: pool.context("the example has no Pool")?, queues, folder, models, jobs, script })
    }

    /// Every model promises no less time than this, to its clients too.
    pub fn relax(&mut self, slo_ms: u32, cold_start_budget_ms: u32) {
        for spec in self.models.values_mut().map(|model| &mut model.spec) {
            spec.slo_milliseconds = spec.slo_milliseconds.max(slo_ms);
            let budget = spec.cold_start_budget_milliseconds.unwrap_or(0);
            spec.cold_start_budget_milliseconds = Some(budget.max(cold_start_budget_ms));
        }
        for model in &mut self.script.models {
            model.slo_ms = model.slo_ms.max(u64::from(slo_ms));
            model.cold_start_budget_ms = model.cold_start_budget_ms.max(u64::from(cold_start_budget_ms));
        }
    }

    /// The highest rate of the scripted day, in rows per 1000 s; a request is one row.
    pub fn peak_milli_rows_per_s(&self, model: &str) -> Option<u64> {
        let script = self.script.models.iter().find(|scripted| scripted.name == model)?;
        let highest = script.requests_per_second.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a script's rates are from 0 to 100000")]
        Some((highest * 1000.0).round() as u64)
    }
}

fn objects(folder: &Path) -> Result<Vec<Object>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        found.extend(manifest::parse(&text, &file.to_string_lossy()).map_err(|problems| anyhow!("{problems}"))?);
    }
    Ok(found)
}

/// The value after the option `name` in a job's command.
pub fn option<'a>(job: &'a TrainingJob, name: &str) -> Option<&'a str> {
    let command = &job.spec.template.command;
    let at = command.iter().position(|word| word == name)?;
    command.get(at + 1).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_are_the_whole_day() {
        assert!(PHASES.windows(2).all(|pair| pair[0].2 == pair[1].1));
        let example = Example::read().unwrap();
        let ends = example.script.models.iter().filter_map(|model| model.requests_per_second.last()).map(|(at, _)| *at);
        assert!((ends.fold(0.0, f64::max) - f64::from(PHASES[5].2)).abs() < 1e-9);
    }

    #[test]
    fn a_promise_is_relaxed_for_the_model_and_for_its_client_alike() {
        let mut example = Example::read().unwrap();
        example.relax(400, 20_000);
        let script = |name: &str| example.script.models.iter().find(|model| model.name == name).map(|model| model.slo_ms);
        assert_eq!((example.models["digits"].spec.slo_milliseconds, script("digits")), (400, Some(400)));
        assert_eq!((example.models["all-minilm-l6-v2"].spec.slo_milliseconds, script("all-minilm-l6-v2")), (1000, Some(1000)));
        assert!(example.script.models.iter().all(|model| model.cold_start_budget_ms == 20_000));
    }

    #[test]
    fn the_example_has_two_models_two_elastic_jobs_and_a_day_for_the_models() {
        let example = Example::read().unwrap();
        assert_eq!((example.models.len(), example.jobs.len(), example.queues.len()), (2, 2, 2));
        let sizes = |job: &tidegate_api::kinds::TrainingJob| job.spec.workers.as_ref().map(|workers| (workers.min, workers.max));
        assert!(example.jobs.values().all(|job| sizes(job) == Some((1, 4))));
        for model in example.models.keys() {
            assert!(example.peak_milli_rows_per_s(model).is_some_and(|peak| peak > 10_000), "{model}");
        }
        let (_, job) = example.jobs.first_key_value().unwrap();
        assert_eq!(option(job, "--step-ms"), Some("400"));
        assert_eq!(option(job, "--no-such-option"), None);
    }
}
