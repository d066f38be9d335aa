//! The study `pollux`: mean completion time of 8 workloads at 4 loads on 64 GPUs.
//!
//! Baseline: Tiresias' rule must come out as the authors of Pollux published it. Ours: the engine once with each job's
//! own batch size, once with the batch that is best by the data's efficiency curves; the latter stands beside Pollux, which
//! does the same. Means are the authors': over workloads of the mean over jobs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;
use crate::generate::is_synthetic;
use crate::pollux::application::{Application, Facts};
use crate::pollux::engine::{self, Alike, Batch, Ends, EngineRule, Profiles};
use crate::pollux::tiresias::Tiresias;
use crate::pollux::workload::{self, Spec, Summary};
use crate::pollux::world::{self, Outcome, Rule, Setting};
use crate::report::{Goal, Row, Study};

const SETTINGS: &str = include_str!("../../settings/pollux.yaml");
const LOADS: [&str; 4] = ["0.5", "1.0", "1.5", "2.0"];
/// The load that the goals are about.
const GOAL_LOAD: &str = "1.0";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    world: Setting,
    applications: BTreeMap<String, Facts>,
    tiresias: TiresiasSettings,
    elastic: engine::Settings,
    goals: Goals,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TiresiasSettings {
    demote_at_gpu_s: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Goals {
    own_batch_h: f64,
    adapted_batch_h: f64,
    tolerance_permille: u32,
}

/// The traces in memory.
struct Bench {
    settings: Settings,
    applications: Vec<Application>,
    folder: PathBuf,
    /// Without published results: the bar is the peers' rule.
    synthetic: bool,
}

/// One rule on all workloads of a load.
struct Runs {
    outcomes: Vec<Outcome>,
}

/// What the traces do not say about each application, by its name.
pub fn facts() -> Result<BTreeMap<String, Facts>, Error> {
    Ok(settings()?.applications)
}

/// Files and folders of the data folder that the study reads.
pub fn needs(data: Option<&Path>) -> Result<Vec<String>, Error> {
    let folders =
        LOADS.map(|load| if load == "1.0" { "pollux/workloads".to_owned() } else { format!("pollux/workloads-{load}") });
    let curves = settings()?.applications.into_keys().map(|name| format!("pollux/traces/{name}/placements.csv"));
    let published = ["tiresias", "pollux"]
        .into_iter()
        .flat_map(|policy| LOADS.map(|load| format!("pollux/results-jobload/{policy}-{load}/summary.json")));
    let published = published.filter(|_| !data.is_some_and(is_synthetic));
    Ok(folders.into_iter().chain(curves).chain(published).collect())
}

fn settings() -> Result<Settings, Error> {
    serde_yaml::from_str(SETTINGS).map_err(|error| Error::Usage(format!("simulator/settings/pollux.yaml: {error}")))
}

/// Runs the study on the folder that holds `pollux/`.
pub fn run(data: &Path) -> Result<Study, Error> {
    let bench = Bench::read(data)?;
    let mut study = Study { name: "pollux".to_owned(), assumptions: assumptions(&bench.settings), ..Study::default() };
    for load in LOADS {
        bench.load(load, &mut study)?;
    }
    let workloads = bench.workloads(GOAL_LOAD)?;
    study.details.insert(format!("variants_at_load_{GOAL_LOAD}"), bench.variants(&workloads));
    Ok(study)
}

fn assumptions(settings: &Settings) -> Vec<String> {
    let world = &settings.world;
    vec![
        format!(
            "{} nodes x {} GPUs, decisions every {} s, {} s without progress after each start or change of GPUs, no interference: \
             the authors' simulator",
            world.nodes, world.gpus_per_node, world.round_s, world.restart_s
        ),
        "`own batch`: each job trains with the batch its user chose, on as many GPUs as the engine gives; `batch picked`: the engine \
         also picks the batch that is fastest by the job's measured efficiency, as Pollux does"
            .to_owned(),
        "ours, the engine, sees a job's speed at sizes that a job of the same application has been given before (larger ones, up \
         to double, are taken to scale perfectly), its efficiency by batch in the present epoch, and how long ended jobs of the \
         same application ran; no declared end, no look-ahead"
            .to_owned(),
    ]
}

impl Bench {
    fn read(data: &Path) -> Result<Self, Error> {
        let settings = settings()?;
        let folder = data.join("pollux");
        let read = |(name, facts): (&String, &Facts)| Application::read(&folder.join("traces").join(name), *facts);
        let applications = settings.applications.iter().map(read).collect::<Result<Vec<Application>, Error>>()?;
        Ok(Self { settings, applications, folder, synthetic: is_synthetic(data) })
    }

    /// Name and jobs of each workload of a load.
    fn workloads(&self, load: &str) -> Result<Vec<(String, Vec<Spec>)>, Error> {
        let names: Vec<&str> = self.applications.iter().map(|application| application.name.as_str()).collect();
        let folder = self.folder.join(if load == "1.0" { "workloads".to_owned() } else { format!("workloads-{load}") });
        let read = |number: u32| {
            let name = format!("workload-{number}");
            workload::read(&folder.join(format!("{name}.csv")), &names).map(|specs| (name, specs))
        };
        (1..=8).map(read).collect()
    }

    fn published(&self, policy: &str, load: &str) -> Result<Option<Summary>, Error> {
        let path = || self.folder.join("results-jobload").join(format!("{policy}-{load}")).join("summary.json");
        (!self.synthetic).then(|| Summary::read(&path())).transpose()
    }

    fn load(&self, load: &str, study: &mut Study) -> Result<(), Error> {
        let workloads = self.workloads(load)?;
        let (tiresias, pollux) = (self.published("tiresias", load)?, self.published("pollux", load)?);
        let rule = self.runs(&workloads, || Tiresias::new(self.settings.tiresias.demote_at_gpu_s));
        let own = self.runs(&workloads, || self.engine(engine::Settings { batch: Batch::Own, ..self.settings.elastic }));
        let adapted = self.runs(&workloads, || self.engine(engine::Settings { batch: Batch::Picked, ..self.settings.elastic }));
        let goals = &self.settings.goals;
        let goal = |hours: f64| Goal::AtMost(if self.synthetic { rule.mean_hours() } else { hours });
        let goal = |hours: f64| (load == GOAL_LOAD).then(|| goal(hours));
        let hours = |published: &Option<Summary>| published.as_ref().map(Summary::mean_hours);
        study.rows.push(Row {
            what: format!("mean JCT, own batch, load {load} (published: Tiresias)"),
            unit: "h",
            published: hours(&tiresias),
            rule: Some(rule.mean_hours()),
            tolerance: hours(&tiresias).map(|hours| hours * f64::from(goals.tolerance_permille) / 1000.0),
            ours: Some(own.mean_hours()),
            goal: goal(goals.own_batch_h),
        });
        study.rows.push(Row {
            what: format!("mean JCT, batch picked, load {load} (published: Pollux)"),
            unit: "h",
            published: hours(&pollux),
            rule: None,
            tolerance: None,
            ours: Some(adapted.mean_hours()),
            goal: goal(goals.adapted_batch_h),
        });
        if load == GOAL_LOAD {
            study.rows.extend(disturbances(&rule, &own, &adapted));
        }
        let details = json!({
            "tiresias": rule.details(),
            "tiresias_jobs_within_1_s_of_published": tiresias.map(|published| rule.agreement(&workloads, &published)),
            "own_batch": own.details(),
            "batch_picked": adapted.details(),
        });
        study.details.insert(format!("load_{load}"), details);
        Ok(())
    }

    fn engine(&self, settings: engine::Settings) -> EngineRule {
        EngineRule::new(settings, &self.settings.world)
    }

    fn runs<R: Rule>(&self, workloads: &[(String, Vec<Spec>)], rule: impl Fn() -> R) -> Runs {
        let run = |(_, specs): &(String, Vec<Spec>)| world::run(&self.settings.world, &self.applications, specs, &mut rule());
        Runs { outcomes: workloads.iter().map(run).collect() }
    }

    /// The same with more or less to see: mean hours by variant.
    fn variants(&self, workloads: &[(String, Vec<Spec>)]) -> Value {
        let base = self.settings.elastic;
        let mut found = serde_json::Map::new();
        for (batch_name, batch) in [("own_batch", Batch::Own), ("batch_picked", Batch::Picked)] {
            for (name, settings) in [
                ("alike_only_with_the_same_batch", engine::Settings { alike: Alike::ApplicationAndBatch, ..base }),
                ("each_job_explores_alone", engine::Settings { profiles: Profiles::Job, ..base }),
                ("declared_epochs_are_believed", engine::Settings { ends: Ends::Declared, ..base }),
            ] {
                let mean = self.runs(workloads, || self.engine(engine::Settings { batch, ..settings })).mean_hours();
                found.insert(format!("{batch_name}_{name}_h"), json!(mean));
            }
        }
        Value::Object(found)
    }
}

impl Runs {
    fn mean_hours(&self) -> f64 {
        self.outcomes.iter().map(Outcome::mean_hours).sum::<f64>() / self.outcomes.len().max(1) as f64
    }

    /// Share of jobs that end within a second of the authors' run.
    fn agreement(&self, workloads: &[(String, Vec<Spec>)], published: &Summary) -> f64 {
        let (mut same, mut all) = (0u32, 0u32);
        for ((name, specs), outcome) in workloads.iter().zip(&self.outcomes) {
            for (spec, jct_s) in specs.iter().zip(&outcome.jct_s) {
                let theirs = published.jcts.get(name).and_then(|jobs| jobs.get(&spec.name));
                same += u32::from(theirs.is_some_and(|theirs| (theirs - jct_s).abs() <= 1.0));
                all += 1;
            }
        }
        f64::from(same) / f64::from(all.max(1))
    }

    /// Of all workloads.
    fn sum(&self, of: fn(&Outcome) -> f64) -> f64 {
        self.outcomes.iter().map(of).sum()
    }

    /// Resizes and evictions per job-hour.
    fn disturbances(&self) -> (f64, f64) {
        let job_hours = self.sum(|outcome| outcome.running_s) / 3600.0;
        (self.sum(|outcome| outcome.resizes as f64) / job_hours, self.sum(|outcome| outcome.evictions as f64) / job_hours)
    }

    fn details(&self) -> Value {
        let (resizes, evictions) = self.disturbances();
        let mut jct_s: Vec<f64> = self.outcomes.iter().flat_map(|outcome| outcome.jct_s.iter().copied()).collect();
        jct_s.sort_by(f64::total_cmp);
        let percentile =
            |percent: usize| jct_s.get(jct_s.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0.0) / 3600.0;
        json!({
            "jct_p50_h": percentile(50),
            "jct_p99_h": percentile(99),
            "gpu_hours": self.sum(|outcome| outcome.held_gpu_s) / 3600.0,
            "resizes_per_job_hour": resizes,
            "evictions_per_job_hour": evictions,
            "refused": self.sum(|outcome| outcome.refused as f64),
        })
    }
}

/// Resizes and evictions at the load of the goals.
fn disturbances(rule: &Runs, own: &Runs, adapted: &Runs) -> Vec<Row> {
    let rule = rule.disturbances();
    let rows = [("own batch", own.disturbances()), ("batch picked", adapted.disturbances())].map(|(name, ours)| {
        [
            Row::plain(format!("resizes per job-hour, {name}, load {GOAL_LOAD}"), "1/h", Some(rule.0), ours.0),
            Row::plain(format!("evictions per job-hour, {name}, load {GOAL_LOAD}"), "1/h", Some(rule.1), ours.1),
        ]
    });
    rows.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_figures_come_out_and_the_goals_are_reached() {
        let Some(data) = std::env::var_os("TIDEGATE_DATA") else {
            eprintln!("skipped: TIDEGATE_DATA is not set to the folder of traces");
            return;
        };
        let study = run(Path::new(&data)).unwrap();
        println!("{study}\n{}", serde_json::to_string_pretty(&study.details).unwrap());
        assert_eq!(study.rows.len(), 12);
        assert!(study.passed(), "{study}");
    }

    #[test]
    fn a_folder_without_the_traces_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(folder.path()).unwrap_err();
        assert_eq!(error.code(), 66);
        assert!(error.to_string().contains("placements.csv"), "{error}");
    }
}
