//! What must hold, each with the figure that breaks it.

use std::collections::BTreeMap;

use super::figures::{Figures, GPUS};

/// Promises of `tide` that do not hold.
pub fn broken_in_tide(figures: &Figures) -> Vec<String> {
    let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
    let (sent, unserved) = (sum(&figures.requests_sent), sum(&figures.refused) + sum(&figures.late));
    let lent_percent = 100.0 * figures.lent_gpu_seconds / figures.device_seconds.max(1.0);
    let mut broken = broken_in_both(figures);
    let mut must = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    must(unserved * 100 <= sent, format!("refused + late must be at most 1 % of requests: {unserved} of {sent}"));
    must(figures.reclaims >= 4, format!("reclaims must be at least 4: {}", figures.reclaims));
    must(lent_percent >= 25.0, format!("lent_gpu_seconds must be at least 25 % of device_seconds: {lent_percent:.1} %"));
    let worst = figures.worst_stop_in_checkpoint_intervals;
    must(worst <= 1.0, format!("a stop must lose at most one checkpoint interval of steps: {worst:.2}"));
    broken
}

/// Promises of `cluster` that do not hold: those of `tide`, and what is looked at there beside.
pub fn broken_in_cluster(figures: &Figures) -> Vec<String> {
    let mut broken = broken_in_tide(figures);
    let mut must = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    for (phase, (model, p99)) in figures.phases.iter().flat_map(|phase| phase.p99_ms.iter().map(move |p99| (phase, p99))) {
        let slo = figures.slo_ms.get(model).copied().unwrap_or_default();
        let holds = std::time::Duration::from_secs_f64(p99 / 1000.0) <= std::time::Duration::from_millis(slo);
        must(holds, format!("p99 of {model} must be within its SLO of {slo} ms in every phase: {p99:.0} ms in {}", phase.name));
    }
    let twice = figures.gpus_given_twice;
    must(twice == Some(0), format!("gpus_given_twice must be 0: {twice:?}"));
    let held = figures.most_gpus_held.unwrap_or(u32::MAX);
    must(held <= GPUS, format!("pods must never hold more than {GPUS} GPUs: {held}"));
    let changed =
        |by: fn(&u32, &u32) -> bool| figures.sizes.values().any(|all| all.windows(2).any(|pair| by(&pair[0], &pair[1])));
    must(changed(|before, after| after < before), format!("training must shrink: {:?}", figures.sizes));
    must(changed(|before, after| after > before), format!("training must grow: {:?}", figures.sizes));
    let gpus: Vec<(&str, f64)> =
        figures.phases.iter().filter_map(|phase| Some((phase.name.as_str(), phase.training_gpus?))).collect();
    let peak = gpus.iter().position(|(name, _)| *name == "peak");
    let (before, after) = gpus.split_at(peak.unwrap_or(gpus.len()));
    let lowest = after.first().map_or(f64::MAX, |(_, gpus)| *gpus);
    let more = |phases: &[(&str, f64)]| phases.iter().any(|(_, gpus)| *gpus > lowest);
    must(more(before) && more(after), format!("training must have more GPUs before and after the peak than at it: {gpus:?}"));
    broken
}

/// Promises of `crash` that do not hold.
pub fn broken_in_crash(figures: &Figures) -> Vec<String> {
    let mut broken = broken_in_both(figures);
    for (victim, _) in super::chaos::VICTIMS {
        if !figures.kills.iter().any(|kill| kill.victim == victim) {
            broken.push(format!("a {victim:?} must be killed at least once"));
        }
    }
    broken
}

fn broken_in_both(figures: &Figures) -> Vec<String> {
    let mut broken = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    let lost: u64 = figures.lost.values().sum();
    must(lost == 0, format!("lost must be 0: {lost}"));
    must(figures.double_runs == 0, format!("double_runs must be 0: {}", figures.double_runs));
    must(figures.orphans == 0, format!("orphans must be 0: {}", figures.orphans));
    must(figures.exit_code == Some(0), format!("who is told to end must do so with exit code 0: {:?}", figures.exit_code));
    must(figures.client_saturated == 0, format!("the client must send everything: {} not sent", figures.client_saturated));
    must(
        figures.models_not_played.is_empty(),
        format!("every model of the script must be played: not {:?}", figures.models_not_played),
    );
    must(figures.jobs_not_succeeded.is_empty(), format!("every job must succeed: {:?}", figures.jobs_not_succeeded));
    for (job, undisturbed) in &figures.final_metric_undisturbed {
        let metric = figures.final_metric.get(job).copied().unwrap_or(f64::NAN);
        let off = (metric - undisturbed).abs() / undisturbed.abs();
        must(off <= 0.005, format!("{job} must end within 0.5 % of its undisturbed final metric {undisturbed}: {metric}"));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::figures::Phase;
    use super::*;

    fn good() -> Figures {
        let per = |value: u64| BTreeMap::from([("m".to_owned(), value)]);
        let metric = |value: f64| BTreeMap::from([("j".to_owned(), value)]);
        Figures {
            requests_sent: per(1000),
            refused: per(5),
            late: per(5),
            device_seconds: 720.0,
            lent_gpu_seconds: 180.0,
            reclaims: 4,
            worst_stop_in_checkpoint_intervals: 1.0,
            final_metric: metric(1.004),
            final_metric_undisturbed: metric(1.0),
            exit_code: Some(0),
            ..Figures::default()
        }
    }

    #[test]
    fn figures_at_their_limits_hold() {
        assert_eq!(broken_in_tide(&good()), Vec::<String>::new());
    }

    fn good_on_a_cluster() -> Figures {
        let phase = |name: &str, gpus: f64| Phase {
            name: name.to_owned(),
            p99_ms: BTreeMap::from([("m".to_owned(), 250.0)]),
            training_gpus: Some(gpus),
            ..Phase::default()
        };
        Figures {
            slo_ms: BTreeMap::from([("m".to_owned(), 250)]),
            phases: vec![phase("night", 3.5), phase("peak", 0.5), phase("next night", 2.0)],
            gpus_given_twice: Some(0),
            most_gpus_held: Some(4),
            sizes: BTreeMap::from([("j".to_owned(), vec![2, 1, 2])]),
            ..good()
        }
    }

    #[test]
    fn each_promise_of_the_cluster_breaks_by_itself() {
        type Spoil = fn(&mut Figures);
        assert_eq!(broken_in_cluster(&good_on_a_cluster()), Vec::<String>::new());
        let breaks: [(&str, Spoil); 7] = [
            ("every phase", |f| _ = f.phases[1].p99_ms.insert("m".into(), 250.5)),
            ("gpus_given_twice", |f| f.gpus_given_twice = Some(1)),
            ("more than 4", |f| f.most_gpus_held = Some(5)),
            ("must shrink", |f| _ = f.sizes.insert("j".into(), vec![1, 2])),
            ("must grow", |f| _ = f.sizes.insert("j".into(), vec![2, 1])),
            ("after the peak", |f| f.phases[2].training_gpus = Some(0.5)),
            ("1 %", |f| _ = f.late.insert("m".into(), 6)),
        ];
        for (word, spoil) in breaks {
            let mut figures = good_on_a_cluster();
            spoil(&mut figures);
            let broken = broken_in_cluster(&figures);
            assert!(matches!(broken.as_slice(), [only] if only.contains(word)), "{word}: {broken:?}");
        }
    }

    #[test]
    fn each_promise_breaks_by_itself() {
        type Spoil = fn(&mut Figures);
        let breaks: [(&str, Spoil); 9] = [
            ("1 %", |f| f.late = BTreeMap::from([("m".into(), 6)])),
            ("reclaims", |f| f.reclaims = 3),
            ("25 %", |f| f.lent_gpu_seconds = 179.0),
            ("checkpoint interval", |f| f.worst_stop_in_checkpoint_intervals = 1.1),
            ("0.5 %", |f| f.final_metric = BTreeMap::from([("j".into(), 1.006)])),
            ("0.5 %", |f| f.final_metric.clear()),
            ("lost", |f| f.lost = BTreeMap::from([("m".into(), 1)])),
            ("orphans", |f| f.orphans = 1),
            ("exit code", |f| f.exit_code = None),
        ];
        for (word, spoil) in breaks {
            let mut figures = good();
            spoil(&mut figures);
            let broken = broken_in_tide(&figures);
            assert!(matches!(broken.as_slice(), [only] if only.contains(word)), "{word}: {broken:?}");
        }
    }
}
