//! `fgd`: GPU allocated by placement alone, against the published figures of FGD (USENIX ATC'23) on Alibaba's lists.
//!
//! For every list, published FGD | FGD done again | ours | goal, at each load of the settings. The comparison is void
//! unless random placement, best fit and FGD come out on the default list. On synthetic lists there is the default one alone,
//! nothing is published, and the bar is FGD done again.

mod published;

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;
use crate::generate::is_synthetic;
use crate::pack::{self, Experiment, Lists, MixSource, PolicyName, Report};
use crate::report::{Goal, Row, Study};
use published::Published;

const SETTINGS: &str = include_str!("../../settings/fgd.yaml");

/// The study's settings; `settings/fgd.yaml` says what each means.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
struct Settings {
    first_seed: u64,
    last_seed: u64,
    arrive_percent: u32,
    compare_at_percent: Vec<u32>,
    lists: Vec<String>,
    mix: MixSource,
    baseline_list: String,
    baselines: Baselines,
    goal_on_baseline_list: f64,
}

/// How far baselines may be from published, in points of percent.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
struct Baselines {
    random: f64,
    bestfit: f64,
    fgd: f64,
}

/// Runs it on `data`/openb.
pub fn run(data: &Path) -> Result<Study, Error> {
    let mut settings = settings()?;
    if is_synthetic(data) {
        settings.lists.retain(|list| *list == settings.baseline_list);
    }
    run_with(&settings, &data.join("openb"), is_synthetic(data))
}

/// Files of the data folder that the study reads.
pub fn needs(data: Option<&Path>) -> Result<Vec<String>, Error> {
    let settings = settings()?;
    let file = |list: &String| format!("openb/openb_pod_list_{list}.csv");
    let nodes = "openb/openb_node_list_gpu_node.csv".to_owned();
    if data.is_some_and(is_synthetic) {
        return Ok(vec![nodes, file(&settings.baseline_list)]);
    }
    let published = "openb/expected_results/analysis_allo_discrete.csv".to_owned();
    Ok([published, nodes].into_iter().chain(settings.lists.iter().map(file)).collect())
}

fn settings() -> Result<Settings, Error> {
    serde_yaml::from_str(SETTINGS).map_err(|error| Error::Usage(format!("simulator/settings/fgd.yaml: {error}")))
}

fn run_with(settings: &Settings, openb: &Path, synthetic: bool) -> Result<Study, Error> {
    let path = openb.join("expected_results/analysis_allo_discrete.csv");
    let read = || Published::read(&path, settings.first_seed, settings.last_seed);
    let published = if synthetic { None } else { Some(read()?) };
    let mut study = Study { name: "fgd".into(), assumptions: assumptions(settings), ..Study::default() };
    for list in &settings.lists {
        let lists =
            Lists::read(&openb.join("openb_node_list_gpu_node.csv"), &openb.join(format!("openb_pod_list_{list}.csv")), false)?;
        add_list(&mut study, settings, published.as_ref(), list, &lists)?;
    }
    Ok(study)
}

fn assumptions(settings: &Settings) -> Vec<String> {
    let mix = match settings.mix {
        MixSource::Seen => {
            "ours learns the mix of pods from those that have come by; published FGD knows the list's mix beforehand"
        }
        MixSource::List => "ours knows the list's mix of pods beforehand, as published FGD does",
    };
    vec![
        "pods come one by one, each is placed at once where it fits or dropped; nothing leaves, moves or is tried again, so there \
         are 0 resizes and 0 evictions"
            .into(),
        "pods shuffled, then cloned or left out at random, by seed, as published; other random numbers".into(),
        mix.into(),
    ]
}

fn add_list(
    study: &mut Study,
    settings: &Settings,
    published: Option<&Published>,
    list: &str,
    lists: &Lists,
) -> Result<(), Error> {
    let seeds: Vec<u64> = (settings.first_seed..=settings.last_seed).collect();
    let pack = |policy, mix| {
        let experiment = Experiment { policy, mix, arrive: settings.arrive_percent, seeds: &seeds };
        pack::pack(lists, &experiment, pack::clock::thread_cpu_time)
    };
    let is_baseline = list == settings.baseline_list;
    if is_baseline {
        for (policy, tolerance) in
            [(PolicyName::Random, settings.baselines.random), (PolicyName::Bestfit, settings.baselines.bestfit)]
        {
            study.rows.push(baseline(settings, published, list, &pack(policy, settings.mix)?, tolerance)?);
        }
    }
    let fgd = pack(PolicyName::Fgd, settings.mix)?;
    let ours = pack(PolicyName::Tidegate, settings.mix)?;
    let other = pack(PolicyName::Tidegate, if settings.mix == MixSource::Seen { MixSource::List } else { MixSource::Seen })?;
    for &load in &settings.compare_at_percent {
        let goal = published.map(|published| published.mean(list, PolicyName::Fgd, load)).transpose()?;
        let decisive = is_baseline && load == settings.arrive_percent;
        study.rows.push(Row {
            what: format!("{list} at {load} % arrived: FGD"),
            unit: "% allocated",
            published: goal,
            rule: at(&fgd, load),
            tolerance: decisive.then_some(settings.baselines.fgd),
            ours: at(&ours, load),
            goal: if decisive && goal.is_some() { Some(settings.goal_on_baseline_list) } else { goal.or(at(&fgd, load)) }
                .map(Goal::AtLeast),
        });
    }
    study.details.insert(list.into(), details(settings, &fgd, &ours, &other));
    Ok(())
}

fn baseline(
    settings: &Settings,
    published: Option<&Published>,
    list: &str,
    report: &Report,
    tolerance: f64,
) -> Result<Row, Error> {
    let load = settings.arrive_percent;
    Ok(Row {
        what: format!("{list} at {load} % arrived: {}", published::name(report.policy)),
        unit: "% allocated",
        published: published.map(|published| published.mean(list, report.policy, load)).transpose()?,
        rule: at(report, load),
        tolerance: Some(tolerance),
        ours: None,
        goal: None,
    })
}

fn at(report: &Report, load: u32) -> Option<f64> {
    report.allocation_at(usize::try_from(load).ok()?)
}

fn details(settings: &Settings, fgd: &Report, ours: &Report, other: &Report) -> Value {
    let other_at: Vec<Option<f64>> = settings.compare_at_percent.iter().map(|&load| at(other, load)).collect();
    json!({
        "ours_sd": ours.allocation_percent_sd,
        "fgd_sd": fgd.allocation_percent_sd,
        "ours_unallocated_gpus": ours.unallocated_gpus_mean,
        "fgd_unallocated_gpus": fgd.unallocated_gpus_mean,
        "other_mix": other.mix,
        "other_mix_allocation_percent": other_at,
        "ours_decisions_per_s": ours.decisions_per_s,
    })
}

#[cfg(test)]
mod tests;
