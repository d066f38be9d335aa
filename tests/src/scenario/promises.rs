//! What must hold, each with the figure that breaks it.

use std::collections::BTreeMap;

use super::figures::Figures;

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
    must(figures.exit_code == Some(0), format!("Ctrl-C must end with exit code 0: {:?}", figures.exit_code));
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
