//! The studies `kueue-baseline`, `kueue-large`, `kueue-tas`, `production-1300` and `scale`: Kueue's rule and ours in the
//! same virtual time, the same latency charged to both.

use std::time::Instant;

use serde_json::json;

use crate::Error;
use crate::kueue::figures::{Figures, quantile_ms};
use crate::kueue::rule::Rule;
use crate::kueue::settings::{self, KueueSettings, ProductionSettings, ScaleSettings};
use crate::kueue::world::{self, Run};
use crate::kueue::{Clock, Factory, QuotaScheduler, Setup, generate, production, scale};
use crate::report::{Goal, Row, Study};

/// The names of the studies.
pub const NAMES: [&str; 5] = ["kueue-baseline", "kueue-large", "kueue-tas", "production-1300", "scale"];

/// The committed settings of a study.
fn text(name: &str) -> Option<&'static str> {
    Some(match name {
        "kueue-baseline" => include_str!("../../settings/kueue-baseline.yaml"),
        "kueue-large" => include_str!("../../settings/kueue-large.yaml"),
        "kueue-tas" => include_str!("../../settings/kueue-tas.yaml"),
        "production-1300" => include_str!("../../settings/production-1300.yaml"),
        "scale" => include_str!("../../settings/scale.yaml"),
        _ => return None,
    })
}

/// A clock for the time spent in schedulers.
pub fn wall_clock() -> impl Fn() -> u64 {
    let start = Instant::now();
    move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Runs a study with our scheduler as `ours` makes it, once for each setup.
///
/// # Errors
/// When there is no study of the name, its settings are wrong, or a scheduler orders what cannot be.
pub fn run(name: &str, ours: &mut Factory<'_>, clock: &Clock<'_>) -> Result<Study, Error> {
    let text = text(name).ok_or_else(|| Error::Usage(format!("there is no study `{name}`: take one of {}", NAMES.join(", "))))?;
    match name {
        "production-1300" => production_1300(name, text, ours, clock),
        "scale" => scales(name, text, ours, clock),
        _ => against_kueue(name, text, ours, clock),
    }
}

/// Reads the settings of a `kueue-*` study and makes its workloads.
///
/// # Errors
/// When there is no such study or its settings are wrong.
pub fn kueue_setup(name: &str) -> Result<(KueueSettings, Setup), Error> {
    let text = text(name).ok_or_else(|| Error::Usage(format!("there is no study `{name}`: take one of {}", NAMES.join(", "))))?;
    let settings: KueueSettings = settings::read(name, text)?;
    let setup = generate::kueue(name, &settings)?;
    Ok((settings, setup))
}

fn against_kueue(name: &str, _text: &str, ours: &mut Factory<'_>, clock: &Clock<'_>) -> Result<Study, Error> {
    let (settings, setup) = kueue_setup(name)?;
    let go = |scheduler: &mut dyn QuotaScheduler| world::run(&setup, scheduler, Run::all(settings.latency), clock);
    let rule = go(&mut Rule::new(&setup.scene, settings.rule)?)?;
    let ours = go(ours(&setup.scene).as_mut())?;
    let workloads = setup.workloads.len() as f64;
    let published = &settings.published;
    let row = |what: &str, unit, of: &dyn Fn(&Figures) -> f64| Row {
        what: what.to_owned(),
        unit,
        published: None,
        rule: Some(of(&rule)),
        tolerance: None,
        ours: Some(of(&ours)),
        goal: None,
    };
    let makespan = |figures: &Figures| figures.makespan_ms as f64 / 1e3;
    let usage = |figures: &Figures| tenths(figures.usage_percent);
    let mut rows = vec![
        Row { goal: Some(Goal::AtLeast(workloads)), ..row("workloads that ended", "count", &|figures| figures.workloads as f64) },
        Row {
            goal: Some(Goal::AtLeast(4000.0)),
            ..row("workloads per second in the scheduler", "1/s", &Figures::per_scheduler_second)
        },
        Row {
            published: Some(workloads / published.makespan_s),
            ..row("workloads per virtual second", "1/s", &Figures::per_virtual_second)
        },
        Row {
            published: Some(published.makespan_s),
            tolerance: Some(published.makespan_s * TOLERANCE),
            ..row("makespan", "s", &makespan)
        },
        Row {
            published: Some(published.usage_percent),
            goal: Some(Goal::AtLeast(usage(&rule))),
            ..row("usage of the queues", "%", &usage)
        },
    ];
    for (group, seconds) in &published.admit_s {
        let time = |figures: &Figures| tenths(figures.admit_s(group));
        let goal = match group.as_str() {
            "large" => Some(Goal::AtMost(time(&rule))),
            "small" => Some(Goal::AtMost(tenths(rule.admit_s(group) * (1.0 + settings.not_hurt_percent / 100.0)))),
            _ => None,
        };
        let what = format!("mean time to admission, {group}");
        rows.push(Row { published: Some(*seconds), goal, ..row(&what, "s", &time) });
    }
    rows.push(row("evictions per job-hour (nothing is resized)", "1/h", &|figures| per_job_hour(figures, &setup)));
    let mut study = Study { name: name.to_owned(), assumptions: assumptions(&settings), rows, ..Study::default() };
    study.details.insert("rule".into(), details(&rule));
    study.details.insert("ours".into(), details(&ours));
    Ok(study)
}

/// Evictions over the hours that workloads run.
fn per_job_hour(figures: &Figures, setup: &Setup) -> f64 {
    let hours = setup.workloads.iter().map(|workload| workload.runtime_ms as f64).sum::<f64>() / 3.6e6;
    figures.evictions as f64 / hours
}

/// To the precision that is published.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// How far the rule's makespan may be from the published one: the model has one writer and no other API traffic.
const TOLERANCE: f64 = 0.2;

fn assumptions(settings: &KueueSettings) -> Vec<String> {
    let latency = settings.latency;
    vec![
        format!("shapes and intervals of {}", settings.source),
        format!(
            "both rules pay {} us per cycle, {} us per admission and {} us per eviction, one after another (Kueue's benchmark writes 50 per second)",
            latency.cycle_us, latency.admit_us, latency.evict_us
        ),
        "published figures are bounded by API writes; the published usage is read from a status that lags, so it has no counterpart here".into(),
        "the rule keeps Kueue's own pauses: what does not fit waits for a batch one second after capacity moved".into(),
    ]
}

fn details(figures: &Figures) -> serde_json::Value {
    json!({
        "evictions": figures.evictions,
        "cycles": figures.cycles,
        "scheduler_seconds": figures.scheduler_ns as f64 / 1e9,
        "cycle_ms_p50": quantile_ms(&figures.cycle_ns, 500),
        "cycle_ms_p99": quantile_ms(&figures.cycle_ns, 990),
        "cold_cycles": figures.cold_ns.len(),
        "usage_percent": figures.usage_percent,
    })
}

/// The setup of `production-1300`.
///
/// # Errors
/// When the settings are wrong.
pub fn production_setup() -> Result<(ProductionSettings, Setup), Error> {
    let settings: ProductionSettings = settings::read("production-1300", text("production-1300").unwrap_or_default())?;
    let setup = production::production("production-1300", &settings)?;
    Ok((settings, setup))
}

fn production_1300(name: &str, _text: &str, ours: &mut Factory<'_>, clock: &Clock<'_>) -> Result<Study, Error> {
    let (settings, setup) = production_setup()?;
    let run = Run { latency: settings.latency, until_ms: settings.until_ms, cold_every: 1 };
    let figures = world::run(&setup, ours(&setup.scene).as_mut(), run, clock)?;
    let row = |what: &str, published, ours, goal| Row {
        what: what.to_owned(),
        unit: "ms",
        published,
        rule: None,
        tolerance: None,
        ours,
        goal,
    };
    let mut study = Study { name: name.to_owned(), ..Study::default() };
    study.assumptions = vec![
        format!("{}; the published cycle is wall clock in a live cluster with API writes", settings.source),
        "a cycle is measured with every queue dirty and no cached verdicts; the cycle that fills the cluster is one of them"
            .into(),
    ];
    study.rows = vec![
        row("cycle, 99th percentile", Some(2400.0), Some(quantile_ms(&figures.cold_ns, 990)), Some(Goal::AtMost(20.0))),
        row("cycle, median", None, Some(quantile_ms(&figures.cold_ns, 500)), None),
        row("cycle, longest", None, Some(quantile_ms(&figures.cold_ns, 1000)), None),
        Row::plain("evictions (nothing is resized)", "count", None, figures.evictions as f64),
    ];
    study.details.insert("ours".into(), details(&figures));
    Ok(study)
}

/// The settings of `scale` and the setup for so many GPUs.
///
/// # Errors
/// When the settings are wrong.
pub fn scale_setup(gpus: Option<u32>) -> Result<(ScaleSettings, Option<Setup>), Error> {
    let settings: ScaleSettings = settings::read("scale", text("scale").unwrap_or_default())?;
    let setup = gpus.map(|gpus| scale::scale("scale", &settings, gpus)).transpose()?;
    Ok((settings, setup))
}

fn scales(name: &str, _text: &str, ours: &mut Factory<'_>, clock: &Clock<'_>) -> Result<Study, Error> {
    let (settings, _) = scale_setup(None)?;
    let mut study = Study { name: name.to_owned(), ..Study::default() };
    study.assumptions = vec![format!(
        "{}; run times exponential, load {} thousandths; the time per event leaves out the cycles measured cold",
        settings.source, settings.load_milli
    )];
    let mut before: Option<(u32, f64)> = None;
    for gpus in settings.gpus.iter().copied() {
        let setup = scale::scale(name, &settings, gpus)?;
        let until_ms = setup.workloads.last().map_or(0, |workload| workload.created_ms);
        let figures = world::run(
            &setup,
            ours(&setup.scene).as_mut(),
            Run { latency: settings.latency, until_ms, cold_every: settings.cold_every },
            clock,
        )?;
        let row = |what: &str, unit, ours, goal| Row {
            what: format!("{what}, {gpus} GPUs"),
            unit,
            published: None,
            rule: None,
            tolerance: None,
            ours: Some(ours),
            goal,
        };
        let event = figures.steady_event_us();
        // Sub-linear: ten times the GPUs cost less than ten times as much per event.
        let goal = before.map(|(fewer, cost)| Goal::AtMost(cost * f64::from(gpus) / f64::from(fewer.max(1))));
        before = Some((gpus, event));
        let cycle = match gpus {
            100_000 => Some(Goal::AtMost(200.0)),
            1_000_000 => Some(Goal::AtMost(1000.0)),
            _ => None,
        };
        study.rows.push(row("time per event", "us", event, goal));
        study.rows.push(row("cycle, 99th percentile", "ms", quantile_ms(&figures.cold_ns, 990), cycle));
        study.rows.push(row("evictions (nothing is resized)", "count", figures.evictions as f64, None));
        study.details.insert(format!("ours-{gpus}"), details(&figures));
    }
    Ok(study)
}

#[cfg(test)]
mod tests;
