//! Ours (prototype for the engine): in which order jobs go, and who yields to whom.
//!
//! A job's *claim* is the time that it is predicted to need until it ends, made stronger by its wait in proportion to what it ran:
//!
//! ```text
//!   stretch = (ran + waited + patience) / (ran + patience)
//!   claim   = left / stretch ^ stretch_power        the smaller goes first
//! ```
//!
//! So who is nearly done goes first (least mean completion time), and nobody falls behind: two jobs of equal length even out their stretch, the
//! more so the longer they are, and a job that never ran counts its wait in units of `patience`. A running job yields to a waiting one when
//! the claim of the latter is `margin` times smaller *and* the stop is cheap: it ran, since its last start, for `thrift` times
//! what the stop would cost it. Hence two promises, whatever the load:
//!
//! * **No thrashing.** Of the time that a job holds GPUs at most `1 / thrift` is lost to stops (work since the checkpoint, and restarts).
//! * **No circle.** With time frozen, who yields has a claim `margin > 1` times that of whom it yields to, so no chain of yields leads back.
//!
//! Pure, integer arithmetic: claims are logarithms to base 2 in 1/1024, so that powers are products and the margin is a difference.

use serde::Deserialize;

use crate::jobs::Ms;

/// What the rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub gpus: u32,
    /// Work done and kept, as time.
    pub ran_ms: Ms,
    /// Predicted time until it ends, from history that has ended.
    pub left_ms: Ms,
    /// Time in the queue so far, that after stops counted in.
    pub waited_ms: Ms,
    /// Time since the last start; meaningless while it waits.
    pub since_start_ms: Ms,
    /// What a stop would cost: time since the last checkpoint, and the restart.
    pub stop_cost_ms: Ms,
    pub preemptible: bool,
}

/// The constants. What they do to the study `philly` is tabled in its settings.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A wait as long as this doubles the stretch of a job that never ran.
    pub patience_s: u64,
    /// How fast the stretch makes a claim stronger.
    pub stretch_power: u32,
    /// How many times smaller the claim must be that a running job yields to: a power of two.
    pub margin_log2: u32,
    /// A job runs that many times the cost of a stop before it may be stopped.
    pub thrift: u64,
}

/// Logarithm to base 2 in units of 1/[`UNIT`].
pub type Claim = i64;

const UNIT: i64 = 1024;

impl Rule {
    /// The smaller goes first.
    pub fn claim(&self, job: &View) -> Claim {
        let ran = job.ran_ms + self.patience_s.max(1) * 1000;
        let stretch = log2(ran + job.waited_ms) - log2(ran);
        log2(job.left_ms) - i64::from(self.stretch_power) * stretch
    }

    /// Whether `runner` makes way for `waiter`.
    pub fn yields(&self, runner: &View, waiter: &View) -> bool {
        self.may_stop(runner) && self.outweighs(self.claim(waiter), self.claim(runner))
    }

    /// Whether a stop of `runner` is cheap enough, whoever asks.
    pub fn may_stop(&self, runner: &View) -> bool {
        runner.preemptible && runner.since_start_ms >= self.thrift * runner.stop_cost_ms
    }

    /// Whether a waiting job's claim is smaller than a running one's by the margin.
    pub fn outweighs(&self, waiter: Claim, runner: Claim) -> bool {
        waiter + i64::from(self.margin_log2.max(1)) * UNIT <= runner
    }
}

/// Logarithm to base 2 in 1/1024, straight between powers of two (at most 0.09 too low); of 0 as of 1. Grows with `value`.
fn log2(value: u64) -> i64 {
    let value = value.max(1);
    let whole = value.ilog2();
    let part = (value << (63 - whole) << 1) >> 54;
    i64::from(whole) * UNIT + i64::try_from(part).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: Rule = Rule { patience_s: 600, stretch_power: 12, margin_log2: 4, thrift: 4 };
    const HOUR: Ms = 3_600_000;

    fn view(gpus: u32, ran_h: u64, left_h: u64, waited_h: u64) -> View {
        View {
            gpus,
            ran_ms: ran_h * HOUR,
            left_ms: left_h * HOUR,
            waited_ms: waited_h * HOUR,
            since_start_ms: ran_h * HOUR,
            stop_cost_ms: HOUR / 4,
            preemptible: true,
        }
    }

    #[test]
    fn a_logarithm_is_right_at_powers_of_two_and_straight_between() {
        assert_eq!([0, 1, 2, 3, 4, 6, 1 << 40].map(log2), [0, 0, 1024, 1536, 2048, 2560, 40 * 1024]);
        assert_eq!(log2(u64::MAX), 64 * 1024 - 1);
    }

    #[test]
    fn who_is_nearly_done_goes_first_whatever_its_size() {
        assert!(RULE.claim(&view(1, 1, 1, 0)) < RULE.claim(&view(1, 1, 2, 0)));
        assert_eq!(RULE.claim(&view(8, 1, 2, 0)), RULE.claim(&view(1, 1, 2, 0)));
    }

    #[test]
    fn a_wait_weighs_by_what_was_run() {
        assert!(RULE.claim(&view(1, 10, 5, 10)) < RULE.claim(&view(1, 100, 5, 10)));
    }

    #[test]
    fn a_short_job_stops_a_long_one_only_when_that_is_cheap_and_allowed() {
        let (long, short) = (view(1, 10, 20, 0), view(1, 0, 1, 0));
        assert!(RULE.yields(&long, &short));
        assert!(!RULE.yields(&View { stop_cost_ms: 3 * HOUR, ..long }, &short));
        assert!(!RULE.yields(&View { preemptible: false, ..long }, &short));
        assert!(!RULE.yields(&long, &view(1, 0, 2, 0)));
    }

    fn any_view() -> impl Strategy<Value = View> {
        let time = 0..1_000 * HOUR;
        (1u32..128, time.clone(), time.clone(), time.clone(), time, 0..HOUR).prop_map(|(gpus, ran, left, waited, since, cost)| {
            View {
                gpus,
                ran_ms: ran,
                left_ms: left,
                waited_ms: waited,
                since_start_ms: since,
                stop_cost_ms: cost,
                preemptible: true,
            }
        })
    }

    proptest! {
        #[test]
        fn no_two_jobs_yield_to_each_other(one in any_view(), other in any_view()) {
            prop_assert!(!(RULE.yields(&one, &other) && RULE.yields(&other, &one)));
        }

        #[test]
        fn yields_never_lead_back_over_a_third(a in any_view(), b in any_view(), c in any_view()) {
            prop_assert!(!(RULE.yields(&a, &b) && RULE.yields(&b, &c) && RULE.yields(&c, &a)));
        }

        #[test]
        fn a_longer_wait_never_weakens_a_claim(job in any_view(), more in 0..100 * HOUR) {
            let later = View { waited_ms: job.waited_ms + more, ..job };
            prop_assert!(RULE.claim(&later) <= RULE.claim(&job));
        }

        #[test]
        fn who_is_stopped_lost_no_more_than_thrift_allows(job in any_view(), to in any_view()) {
            prop_assume!(RULE.yields(&job, &to));
            prop_assert!(job.stop_cost_ms * RULE.thrift <= job.since_start_ms);
        }
    }
}
