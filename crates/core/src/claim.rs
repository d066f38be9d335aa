//! In which order jobs of a responsive queue go, and who yields to whom.
//!
//! A job's *claim* is the time that it is expected to need until it ends, made stronger by its wait in proportion to what it
//! ran; the smaller goes first:
//!
//! ```text
//!   stretch = (ran + waited + PATIENCE) / (ran + PATIENCE)
//!   claim   = left / stretch ^ POWER
//! ```
//!
//! So who is nearly done goes first (least mean completion time), and nobody falls behind: a job that never ran counts its
//! wait in units of `PATIENCE`. A running job yields to a waiting one when the claim of the latter is `2^MARGIN` times
//! smaller (by the policy's `again_doublings` more, if that one has run before) *and* the stop is cheap: it ran, since its last
//! start, for `THRIFT` times what the stop would cost it.
//!
//! **Guarantees.** Of the time that a job holds devices at most `1 / THRIFT` is lost to yielding. With time frozen, who
//! yields has a claim at least `2^MARGIN > 1` times that of whom it yields to, so no chain of yields leads back.
//!
//! Integers: a claim is a logarithm to base 2 in 1/1024, so that powers are products and the margin is a difference. The
//! constants were chosen on the study `philly` (`simulator/settings/philly.yaml` has the sensitivity).

/// A wait as long as this doubles the stretch of a job that never ran.
const PATIENCE_MS: u64 = 600_000;
/// How fast the stretch makes a claim stronger.
const POWER: i64 = 12;
/// How many doublings smaller the claim must be to which a running job yields.
const MARGIN: i64 = 4;
/// A job runs that many times the cost of a stop before it yields.
const THRIFT: u64 = 4;
const UNIT: i64 = 1024;

/// Logarithm to base 2 of milliseconds, in 1/1024; smaller goes first.
pub type Claim = i64;

/// The claim of a job that ran and waited so long and has so much left, in milliseconds.
pub fn claim(ran_ms: u64, waited_ms: u64, left_ms: u64) -> Claim {
    let ran = ran_ms.saturating_add(PATIENCE_MS);
    log2(left_ms) - POWER * (log2(ran.saturating_add(waited_ms)) - log2(ran))
}

/// Whether the claim of a waiting job is smaller than that of a running one by the margin and `more` doublings.
pub fn outweighs(waiter: Claim, runner: Claim, more: u32) -> bool {
    waiter + (MARGIN + i64::from(more)) * UNIT <= runner
}

/// Whether a job that started so long ago may be stopped at this cost, whoever asks.
pub fn is_cheap(since_start_ms: u64, stop_cost_ms: u64) -> bool {
    since_start_ms >= cheap_after(stop_cost_ms)
}

/// How long after its start a stop at this cost is cheap.
pub fn cheap_after(stop_cost_ms: u64) -> u64 {
    stop_cost_ms.saturating_mul(THRIFT)
}

/// The place of a claim in an order of `u64`.
pub fn turn(claim: Claim) -> u64 {
    u64::try_from(claim + (1 << 32)).unwrap_or(0)
}

/// Straight between powers of two (at most 0.09 too low); of 0 as of 1. Grows with `value`.
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

    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_logarithm_is_right_at_powers_of_two_and_straight_between() {
        assert_eq!([0, 1, 2, 3, 4, 6, 1 << 40].map(log2), [0, 0, 1024, 1536, 2048, 2560, 40 * 1024]);
    }

    #[test]
    fn who_is_nearly_done_goes_first_and_a_wait_weighs_by_what_was_run() {
        assert!(claim(HOUR, 0, HOUR) < claim(HOUR, 0, 2 * HOUR));
        assert!(claim(10 * HOUR, 10 * HOUR, 5 * HOUR) < claim(100 * HOUR, 10 * HOUR, 5 * HOUR));
    }

    proptest! {
        #[test]
        fn no_two_jobs_yield_to_each_other(one in -100_000_i64..100_000, other in -100_000_i64..100_000) {
            prop_assert!(!(outweighs(one, other, 0) && outweighs(other, one, 0)));
        }

        #[test]
        fn waiting_longer_never_weakens_a_claim(ran in 0..1000 * HOUR, waited in 0..1000 * HOUR, left in 0..1000 * HOUR) {
            prop_assert!(claim(ran, waited + HOUR, left) <= claim(ran, waited, left));
        }
    }
}
