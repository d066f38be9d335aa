//! `lyra`: Philly jobs on V100s and `ServeGen` demand on T4s; FIFO without lending against lending and elasticity.
//!
//! Settings and every assumption: `settings/lyra.yaml`.

use std::path::Path;

use serde::Deserialize;

use crate::Error;
use crate::capacity::engine::{EngineCapacity, Parts, Rules};
use crate::capacity::fifo::Fifo;
use crate::capacity::outcome::Outcome;
use crate::capacity::philly::{self, Flexibility};
use crate::capacity::world::{self, Setup};
use crate::capacity::{Costs, GpuClass, Job, Model, ModelSpec};
use crate::cluster::Shape;
use crate::inference::queueing::Server;
use crate::inference::service::BatchTime;
use crate::inference::{Series, servegen};
use crate::report::{Goal, Row, Study};
use crate::trace::Bad;

const SETTINGS: &str = include_str!("../../settings/lyra.yaml");

/// `settings/lyra.yaml`.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub cluster: String,
    pub t4_speed: f64,
    pub round_s: u64,
    pub training: Training,
    pub costs: Costs,
    pub inference: Inference,
    pub rules: Rules,
}

/// How the trace becomes jobs.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Training {
    pub load: f64,
    pub flexibility: Flexibility,
}

/// How the rates become models.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Inference {
    pub models: Vec<Share>,
    pub static_attainment: f64,
    pub burst_limit: f64,
    pub base_s: f64,
    pub row_s: f64,
    pub max_rows: u32,
    pub slo_s: f64,
    pub load_s: f64,
}

/// A model and its part of the static pool.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Share {
    pub series: String,
    pub pool_share: f64,
}

/// The committed settings.
pub fn settings() -> Result<Settings, Error> {
    serde_yaml::from_str(SETTINGS).map_err(|error| Error::Usage(format!("settings/lyra.yaml: {error}")))
}

/// The world of the study: the same for all policies.
pub struct World {
    setup: Setup,
    jobs: Vec<Job>,
    models: Vec<Model>,
    /// Replicas of each model in the static split.
    fixed: Vec<u32>,
    training_gpus: u32,
}

/// Runs the study on the data folder.
pub fn run(data: &Path, settings: &Settings) -> Result<Study, Error> {
    let world = world(data, settings)?;
    let fifo = world::run(&world.setup, &world.jobs, &world.models, &mut Fifo::new(world.training_gpus, world.fixed.clone()))?;
    let ours = world.ours(&settings.rules, true, true)?;
    let mut study = report(settings, &world, &fifo, &ours);
    let parts = [("order alone", false, false), ("order and elasticity", false, true), ("order and lending", true, false)];
    for (name, lending, elasticity) in parts {
        let outcome = world.ours(&settings.rules, lending, elasticity)?;
        study.details.insert(format!("ours, {name}"), outcome.figures());
    }
    Ok(study)
}

/// Reads the traces and scales them.
pub fn world(data: &Path, settings: &Settings) -> Result<World, Error> {
    let shape: Shape = settings.cluster.parse().map_err(Error::Usage)?;
    let gpus = |index: usize| shape.0.get(index).map_or(0, |group| group.nodes * group.gpus);
    let class = |(index, speed): (usize, f64)| GpuClass {
        name: shape.0.get(index).map(|group| group.class.clone()).unwrap_or_default(),
        gpus: gpus(index),
        models: if index == 1 { gpus(1) } else { 0 },
        speed,
    };
    let classes: Vec<GpuClass> = [(0, 1.0), (1, settings.t4_speed)].into_iter().map(class).collect();
    let (rows, _) = philly::read(&data.join("philly/philly.csv.gz"))?;
    let span_s = rows.last().map_or(1, |row| row.at_s) - rows.first().map_or(0, |row| row.at_s);
    let compress = philly::gpu_seconds(&rows) / (settings.training.load * f64::from(gpus(0))) / span_s.max(1) as f64;
    let jobs = philly::jobs(&rows, compress, settings.training.flexibility);
    let (models, fixed) = models(data, &settings.inference, gpus(1))?;
    let setup = Setup {
        classes,
        costs: settings.costs,
        round_ms: settings.round_s * 1000,
        measured_ms: jobs.last().map_or(0, |job| job.arrives),
        sample_every_ms: 0,
        limit_ms: 400 * 86_400_000,
    };
    Ok(World { setup, jobs, models, fixed, training_gpus: gpus(0) })
}

fn models(data: &Path, inference: &Inference, pool: u32) -> Result<(Vec<Model>, Vec<u32>), Error> {
    let totals = servegen::totals(&data.join("servegen/derived_total_rate.csv"), &mut Bad::stops())?;
    let batch = BatchTime { base_s: inference.base_s, row_s: inference.row_s };
    let server = batch.server(inference.slo_s, inference.max_rows, 1);
    let mut models = Vec::new();
    let mut fixed = Vec::new();
    for share in &inference.models {
        let Some(series) = totals.get(&share.series) else {
            return Err(Error::Usage(format!("settings/lyra.yaml: inference.models: no series {:?}", share.series)));
        };
        let replicas = crate::capacity::ceil((f64::from(pool) * share.pool_share).floor());
        let demand =
            scaled_to(&series.clone().with_burst_limit(inference.burst_limit), &server, replicas, inference.static_attainment);
        let spec = ModelSpec {
            name: share.series.clone(),
            class: 1,
            gpus: 1,
            batch,
            slo_s: inference.slo_s,
            max_rows: inference.max_rows,
            load_s: inference.load_s,
            max_sharers: 1,
        };
        models.push(Model { spec, demand });
        fixed.push(replicas);
    }
    Ok((models, fixed))
}

/// The series times the largest factor at which `replicas` always kept answer `target` of its requests inside the SLO.
fn scaled_to(series: &Series, server: &Server, replicas: u32, target: f64) -> Series {
    let attained = |factor: f64| {
        let inside = |window: &crate::inference::Window| {
            window.rate_rps * server.attainment(window.rate_rps * factor, window.burst, f64::from(replicas))
        };
        series.windows.iter().map(inside).sum::<f64>() / (series.mean_rps() * series.windows.len() as f64)
    };
    let (mut low, mut high) = (0.0, 100.0 * f64::from(replicas) * server.capacity_rps() / series.mean_rps());
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if attained(middle) >= target { low = middle } else { high = middle }
    }
    series.clone().scaled(low)
}

impl World {
    fn ours(&self, rules: &Rules, lending: bool, elasticity: bool) -> Result<Outcome, Error> {
        let parts = Parts { lending, fixed: self.fixed.clone(), elasticity, multiplexing: false };
        let specs: Vec<ModelSpec> = self.models.iter().map(|model| model.spec.clone()).collect();
        let mut policy = EngineCapacity::new(rules, parts, &self.setup.classes, &specs, self.setup.costs);
        world::run(&self.setup, &self.jobs, &self.models, &mut policy)
    }
}

fn report(settings: &Settings, world: &World, fifo: &Outcome, ours: &Outcome) -> Study {
    let row = |what: &str, unit, published, rule, ours, goal| Row {
        what: what.to_owned(),
        unit,
        published,
        rule: Some(rule),
        tolerance: None,
        ours: Some(ours),
        goal,
    };
    let ratio = |what: &str, published, goal, ours: f64| Row {
        what: what.to_owned(),
        unit: "times",
        published: Some(published),
        rule: None,
        tolerance: None,
        ours: Some(ours),
        goal: Some(Goal::AtLeast(goal)),
    };
    let pool_use =
        |outcome: &Outcome| outcome.classes.get(1).map_or(0.0, |class| 100.0 * (class.training + class.inference_busy));
    let disturbed = (fifo.disturbances_per_job_hour(), ours.disturbances_per_job_hour());
    let (wait, jct) = ((fifo.wait_s().mean, ours.wait_s().mean), (fifo.jct_s().mean, ours.jct_s().mean));
    let rows = vec![
        row("mean queuing time", "s", None, wait.0, wait.1, None),
        ratio("queuing shorter by", 1.53, 2.0, wait.0 / wait.1.max(1.0)),
        row("mean JCT", "s", None, jct.0, jct.1, None),
        ratio("JCT shorter by", 1.48, 2.0, jct.0 / jct.1.max(1.0)),
        row("use of the inference pool", "%", None, pool_use(fifo), pool_use(ours), None),
        ratio("use of the inference pool", 1.25, 1.4, pool_use(ours) / pool_use(fifo)),
        row("requests inside the SLO", "%", None, 100.0 * fifo.attained(), 100.0 * ours.attained(), Some(Goal::AtLeast(99.9))),
        Row::plain("GPU-hours lent by the inference pool", "h", Some(fifo.lent_gpu_hours), ours.lent_gpu_hours),
        Row::plain("stops per job-hour", "1/h", Some(disturbed.0.0), disturbed.1.0),
        Row::plain("resizes per job-hour", "1/h", Some(disturbed.0.1), disturbed.1.1),
    ];
    let mut details = serde_json::Map::new();
    details.insert("fifo".into(), fifo.figures());
    details.insert("ours".into(), ours.figures());
    Study { name: "lyra".into(), assumptions: assumptions(settings, world), rows, details }
}

fn assumptions(settings: &Settings, world: &World) -> Vec<String> {
    let days = world.setup.measured_ms as f64 / 86_400_000.0;
    let flexibility = settings.training.flexibility;
    vec![
        format!(
            "{} Philly jobs, arrivals compressed to {days:.1} days for {} of the V100s' time",
            world.jobs.len(),
            settings.training.load
        ),
        format!(
            "drawn by seed {}: {} of jobs with {}+ GPUs are elastic (x1/{} to x{}), {} of jobs run on any class",
            flexibility.seed,
            flexibility.elastic_share,
            flexibility.elastic_from_gpus,
            flexibility.shrink,
            flexibility.grow,
            flexibility.any_class_share
        ),
        format!("a T4 trains at {} of a V100; GPUs are counted per class, not per node, for both policies", settings.t4_speed),
        format!(
            "restart {} s, checkpoint every {} s; waits include those after stops",
            settings.costs.restart_s, settings.costs.checkpoint_every_s
        ),
        format!(
            "demand scaled so that the static pool answers {} of requests in time; gaps of ServeGen filled by lines",
            settings.inference.static_attainment
        ),
        "the paper's figures are of its own trace, which is not public: they are printed, not a bar for FIFO".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_settings_are_read() {
        let settings = settings().unwrap();
        assert_eq!(settings.cluster, "443x8:V100,520x8:T4");
        assert!((settings.inference.models.iter().map(|model| model.pool_share).sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
