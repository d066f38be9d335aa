//! The sizes as a table.

use super::{Settings, Sizes};
use crate::capacity::{Job, Model};
use crate::report::{Goal, Row, Study};

pub fn study(settings: &Settings, jobs: &[Job], models: &[Model], inference: u32, sizes: &Sizes) -> Study {
    let mut details = serde_json::Map::new();
    details.insert("static_inference_gpus".into(), inference.into());
    let all = [
        ("static (a), first come first served", &sizes.teams),
        ("static (b), first come first served", &sizes.pool),
        ("static (a), our order", &sizes.teams_ours),
        ("static (b), our order", &sizes.pool_ours),
        ("one cluster, lending", &sizes.lending),
        ("one cluster, lending and elasticity", &sizes.elastic),
        ("ours", &sizes.ours),
    ];
    for (name, size) in all {
        let figures = serde_json::json!({
            "gpus": size.gpus,
            "p99_wait_s": size.p99_wait_s,
            "worst_team_p99_wait_s": size.worst_team_p99_wait_s,
            "teams_above_wait": size.late_teams.0,
            "their_share_of_jobs": size.late_teams.1,
            "mean_jct_s": size.mean_jct_s,
            "models_below_slo": size.below.0,
            "their_share_of_requests": size.below.1,
            "run": size.figures,
        });
        details.insert(name.into(), figures);
    }
    Study { name: "tide".into(), assumptions: assumptions(settings, jobs, models), rows: rows(settings, sizes), details }
}

fn rows(settings: &Settings, sizes: &Sizes) -> Vec<Row> {
    let row = |what: &str, unit, rule, ours, goal| Row {
        what: what.to_owned(),
        unit,
        published: None,
        rule,
        tolerance: None,
        ours: Some(ours),
        goal,
    };
    let gpus = f64::from(sizes.ours.gpus);
    let wait = settings.training.p99_wait_s;
    let worse_jct = sizes.teams.mean_jct_s.min(sizes.pool.mean_jct_s);
    let factor = |what: &str, from: u32, to: u32| row(what, "times", None, f64::from(from) / f64::from(to), None);
    vec![
        row("GPUs, against static (a) teams and models apart", "GPUs", Some(f64::from(sizes.teams.gpus)), gpus, None),
        row("GPUs, against static (b) one training pool", "GPUs", Some(f64::from(sizes.pool.gpus)), gpus, None),
        row("multiplication against (a)", "times", None, f64::from(sizes.teams.gpus) / gpus, Some(Goal::AtLeast(3.0))),
        row("multiplication against (b)", "times", None, f64::from(sizes.pool.gpus) / gpus, Some(Goal::AtLeast(1.6))),
        row("p99 wait", "s", Some(sizes.teams.p99_wait_s), sizes.ours.p99_wait_s, Some(Goal::AtMost(wait))),
        row("mean JCT", "s", Some(worse_jct), sizes.ours.mean_jct_s, Some(Goal::AtMost(sizes.jct_limit_s))),
        row(
            "requests inside the SLO",
            "%",
            None,
            100.0 * sizes.ours.attained,
            Some(Goal::AtLeast(100.0 * settings.inference.attainment)),
        ),
        Row::plain("stops per job-hour", "1/h", Some(sizes.pool.disturbed.0), sizes.ours.disturbed.0),
        Row::plain("resizes per job-hour", "1/h", Some(sizes.pool.disturbed.1), sizes.ours.disturbed.1),
        factor("part: our order in each team's pool", sizes.teams.gpus, sizes.teams_ours.gpus),
        factor("part: pooling of the teams", sizes.teams_ours.gpus, sizes.pool_ours.gpus),
        factor("part: lending", sizes.pool_ours.gpus, sizes.lending.gpus),
        factor("part: elasticity", sizes.lending.gpus, sizes.elastic.gpus),
        factor("part: multiplexing", sizes.elastic.gpus, sizes.ours.gpus),
    ]
}

fn assumptions(settings: &Settings, jobs: &[Job], models: &[Model]) -> Vec<String> {
    let (training, inference) = (&settings.training, &settings.inference);
    let flexibility = training.flexibility;
    vec![
        format!("{} Philly jobs of weeks {} to {} as they came", jobs.len(), training.weeks.0 + 1, training.weeks.1),
        format!("{} models of ServeGen's 14 days, run through again; service times of Splitwise's {}", models.len(), inference.measured.model),
        "sizes of ServeGen's models are not published: ours; each m-small client is a model of its own".to_owned(),
        format!("one kind of GPU for all; SLO {} times the time alone, kept for {} of requests", inference.slo_scale, inference.attainment),
        format!(
            "drawn by seed {}: {} of jobs with {}+ GPUs are elastic (x1/{} to x{})",
            flexibility.seed, flexibility.elastic_share, flexibility.elastic_from_gpus, flexibility.shrink, flexibility.grow
        ),
        format!("restart {} s, checkpoint every {} s; waits include those after stops", settings.costs.restart_s, settings.costs.checkpoint_every_s),
        "static: first come first served in each pool (static with our order in the details); SLO per model; ours: over all requests".to_owned(),
    ]
}
