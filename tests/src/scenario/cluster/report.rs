//! What a cluster tells, in the form of what `up` reports of itself, so that the same figures are made of it.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_api::view;
use tidegate_core::{Engine, State};

use super::diary::{self, Attempt};
use super::operator::Decision;
use super::witness::Seen;
use crate::control_plane::TEAM;
use crate::scenario::example::PHASES;
use crate::scenario::figures::PerJob;

/// What was written down beside the engine's own sums.
pub struct Sums<'a> {
    pub decisions: &'a BTreeSet<Decision>,
    pub seen: &'a Seen,
    pub attempts: &'a PerJob<Vec<Attempt>>,
}

/// Between two looks at the engine. Reclaims are those of decisions until `until_ms`.
pub fn of(before: &Engine, after: &Engine, until_ms: u64, sums: &Sums<'_>) -> view::Report {
    let (before, after) = (before.state(), after.state());
    let seconds = |ms: u64| std::time::Duration::from_millis(ms).as_secs_f64();
    let reclaims: Vec<&Decision> = sums.decisions.iter().filter(|one| is_reclaim(one) && one.at_ms <= until_ms).collect();
    let changes = |all: &Vec<Attempt>| all.windows(2).filter(|pair| pair[0].workers != pair[1].workers).count();
    let per_job =
        |figure: &dyn Fn(&Vec<Attempt>) -> u64| sums.attempts.iter().map(|(job, all)| (job.clone(), figure(all))).collect();
    view::Report {
        device_seconds: seconds(after.usage.device_ms.saturating_sub(before.usage.device_ms)),
        lent_gpu_seconds: seconds(after.usage.lent_ms.saturating_sub(before.usage.lent_ms)),
        held_gpu_seconds: held(before, after).into_iter().map(|(holder, ms)| (holder, seconds(ms))).collect(),
        reclaims: u64::try_from(reclaims.len()).unwrap_or(u64::MAX),
        reclaim_ms: reclaims.iter().filter_map(|decision| reclaim_ms(decision, sums.seen)).collect(),
        steps_lost: sums.attempts.iter().map(|(job, all)| (job.clone(), diary::steps_lost(all))).collect(),
        checkpoints: per_job(&|all| all.iter().map(|one| one.checkpoints).sum()),
        resizes: per_job(&|all| u64::try_from(changes(all)).unwrap_or(u64::MAX)),
        ..view::Report::default()
    }
}

/// GPUs that training held on average in each phase of the day.
pub fn training_gpus(seen: &Seen, started_ms: u64, stretch: f64) -> Vec<f64> {
    let seconds = |ms: u64| std::time::Duration::from_millis(ms.saturating_sub(started_ms)).as_secs_f64();
    let workers: Vec<_> = seen.pods.values().filter(|pod| pod.job.is_some()).collect();
    let mean = |(_, from, to): &(&str, u32, u32)| {
        let (from, to) = (f64::from(*from) * stretch, f64::from(*to) * stretch);
        let held = |pod: &&super::witness::Record| {
            let (began, ended) = (seconds(pod.from_ms).max(from), pod.to_ms.map_or(to, seconds).min(to));
            f64::from(pod.gpus) * (ended - began).max(0.0)
        };
        workers.iter().map(held).sum::<f64>() / (to - from)
    };
    PHASES.iter().map(mean).collect()
}

fn is_reclaim(decision: &Decision) -> bool {
    decision.action == "stop_job" && matches!(decision.category.as_str(), "reclaim" | "fair_share")
}

/// By the names of the example.
fn held(before: &State, after: &State) -> BTreeMap<String, u64> {
    let earlier = before.held_ms();
    let since = |(holder, ms): (String, u64)| {
        let ms = ms.saturating_sub(earlier.get(&holder).copied().unwrap_or(0));
        (holder.replace(&format!("job/training/{TEAM}/"), "job/"), ms)
    };
    after.held_ms().into_iter().map(since).collect()
}

/// From the decision until the last pod of the attempt that ran then had ended.
fn reclaim_ms(decision: &Decision, seen: &Seen) -> Option<u64> {
    let job = decision.subject.rsplit('/').next()?;
    let of_it = seen.pods.values().filter(|pod| pod.job.as_deref() == Some(job) && pod.from_ms <= decision.at_ms);
    let attempt = of_it.clone().map(|pod| pod.attempt).max()?;
    let ends = of_it.filter(|pod| pod.attempt == attempt).map(|pod| pod.to_ms).collect::<Option<Vec<u64>>>()?;
    Some(ends.into_iter().max()?.saturating_sub(decision.at_ms))
}

#[cfg(test)]
mod tests {
    use super::super::witness::Record;
    use super::*;

    fn seen(pods: &[(u32, u64, u64)]) -> Seen {
        let record = |(number, (attempt, from_ms, to_ms)): (usize, &(u32, u64, u64))| {
            let job = Some("spirals".to_owned());
            (
                number.to_string(),
                Record { job, attempt: *attempt, gpus: 1, from_ms: *from_ms, to_ms: Some(*to_ms), ..Record::default() },
            )
        };
        Seen { pods: pods.iter().enumerate().map(record).collect(), ..Seen::default() }
    }

    #[test]
    fn a_reclaim_lasts_until_the_last_pod_of_that_attempt_has_ended() {
        let seen = seen(&[(1, 0, 900), (2, 1_000, 2_300), (2, 1_000, 2_500), (3, 2_600, 9_000)]);
        let decision = Decision {
            at_ms: 2_000,
            subject: "job/training/team/spirals".into(),
            action: "stop_job".into(),
            category: "reclaim".into(),
        };
        assert!(is_reclaim(&decision));
        assert_eq!(reclaim_ms(&decision, &seen), Some(500));
    }

    #[test]
    fn what_training_holds_is_told_by_phase() {
        let (_, _, night) = PHASES[0];
        let ms = |seconds: u32| u64::from(seconds) * 1_000;
        let seen = seen(&[(1, 0, ms(night)), (1, 0, ms(night) / 2)]);
        let told = training_gpus(&seen, 0, 1.0);
        assert!((told[0] - 1.5).abs() < 1e-9 && told[1].abs() < 1e-9, "{told:?}");
        let later = training_gpus(&seen, 0, 2.0);
        assert!((later[0] - 0.75).abs() < 1e-9, "{later:?}");
    }
}
