//! `tide`: the multiplication factor. GPUs of a static split over GPUs of Tidegate, same jobs in the same time, same SLO.
//!
//! Static (a): each of Philly's virtual clusters and each model has its own GPUs; static (b): one training pool and one
//! pool per model. Each is the smallest that keeps the p99 wait and the SLO. Ours is the smallest single cluster that
//! keeps both and whose mean JCT is not above either static's. Settings and assumptions: `settings/tide.yaml`.

mod demand;
mod report;
mod sizes;

use std::path::Path;

use serde::Deserialize;

use crate::Error;
use crate::capacity::engine::Rules;
use crate::capacity::philly::{self, Flexibility};
use crate::capacity::{Costs, Job};
use crate::report::Study;
use sizes::{Order, Sized, Sizing};

const SETTINGS: &str = include_str!("../../settings/tide.yaml");
const WEEK_S: u64 = 7 * 86_400;

/// `settings/tide.yaml`.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub round_s: u64,
    pub training: Training,
    pub costs: Costs,
    pub inference: demand::Inference,
    pub rules: Rules,
    pub pool_gpus: (u32, u32),
    pub cluster_gpus: (u32, u32),
    pub step_gpus: u32,
    pub part_jct_slack: f64,
}

/// Which jobs, and how long they may wait.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Training {
    pub weeks: (u64, u64),
    pub min_duration_s: f64,
    pub flexibility: Flexibility,
    pub p99_wait_s: f64,
}

/// The committed settings.
pub fn settings() -> Result<Settings, Error> {
    serde_yaml::from_str(SETTINGS).map_err(|error| Error::Usage(format!("settings/tide.yaml: {error}")))
}

/// Runs the study on the data folder.
pub fn run(data: &Path, settings: &Settings) -> Result<Study, Error> {
    let (jobs, teams) = jobs(data, &settings.training)?;
    let models = demand::models(data, &settings.inference)?;
    let sizing = Sizing::new(settings, &jobs, &models);
    let inference = sizing.static_inference();
    let fifo = (sizing.teams(&teams, Order::Fifo)?, sizing.pool(Order::Fifo, f64::INFINITY)?);
    let jct_limit_s = fifo.0.mean_jct_s.min(fifo.1.mean_jct_s);
    let part_limit_s = jct_limit_s * (1.0 + settings.part_jct_slack);
    let sizes = Sizes {
        jct_limit_s,
        teams_ours: sizing.teams(&teams, Order::Ours)?.plus(inference),
        pool_ours: sizing.pool(Order::Ours, part_limit_s)?.plus(inference),
        teams: fifo.0.plus(inference),
        pool: fifo.1.plus(inference),
        lending: sizing.cluster(false, false, part_limit_s)?,
        elastic: sizing.cluster(true, false, part_limit_s)?,
        ours: sizing.cluster(true, true, jct_limit_s)?,
    };
    Ok(report::study(settings, &jobs, &models, inference, &sizes))
}

/// All sizes of the study, in GPUs for training and inference together.
struct Sizes {
    /// Mean JCT that ours may not exceed: the better of the FIFO statics'.
    jct_limit_s: f64,
    teams: Sized,
    pool: Sized,
    teams_ours: Sized,
    pool_ours: Sized,
    lending: Sized,
    elastic: Sized,
    ours: Sized,
}

fn jobs(data: &Path, training: &Training) -> Result<(Vec<Job>, Vec<String>), Error> {
    let (rows, teams) = philly::read(&data.join("philly/philly.csv.gz"))?;
    let first = rows.first().map_or(0, |row| row.at_s);
    let weeks = first + training.weeks.0 * WEEK_S..first + training.weeks.1 * WEEK_S;
    let rows: Vec<philly::Row> =
        rows.into_iter().filter(|row| weeks.contains(&row.at_s) && row.duration_s >= training.min_duration_s).collect();
    if rows.is_empty() {
        return Err(Error::Usage("settings/tide.yaml: training.weeks: no job in these weeks".to_owned()));
    }
    Ok((philly::jobs(&rows, 1.0, training.flexibility), teams))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;

    #[test]
    fn the_committed_settings_are_read() {
        assert_eq!(settings().unwrap().training.weeks, (2, 10));
    }

    #[test]
    fn a_few_days_of_synthetic_data_are_sized_and_the_parts_multiply_to_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        generate::all(Some(3000), 1, folder.path()).unwrap();
        let mut settings = settings().unwrap();
        settings.training.weeks = (5, 6);
        (settings.pool_gpus, settings.cluster_gpus, settings.step_gpus) = ((128, 1152), (640, 1664), 256);
        let study = run(folder.path(), &settings).unwrap();
        let ours = |what: &str| study.rows.iter().find(|row| row.what.starts_with(what)).unwrap().ours.unwrap();
        let parts: f64 = study.rows.iter().filter(|row| row.what.starts_with("part: ")).filter_map(|row| row.ours).product();
        assert!((parts / ours("multiplication against (a)") - 1.0).abs() < 1e-9, "{study}");
        assert!(ours("multiplication against (b)") >= 1.0 && ours("requests inside the SLO") >= 99.9, "{study}");
    }
}
