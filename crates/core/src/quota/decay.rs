//! Memory that fades with a half-life, in integers, so that two replays agree to the last bit: what queues used, and what
//! models were late with.

use crate::time::At;

/// One half to the power `elapsed / half_life`, in 2^32nds: `1 << 32` is 1. A half-life of 0 forgets at once.
pub fn half_power(elapsed_ms: u64, half_life_ms: u64) -> u64 {
    if half_life_ms == 0 {
        return if elapsed_ms == 0 { 1 << 32 } else { 0 };
    }
    let whole = elapsed_ms / half_life_ms;
    if whole >= 33 {
        return 0;
    }
    let fraction = (u128::from(elapsed_ms % half_life_ms) << ROOTS.len()) / u128::from(half_life_ms);
    let mut power = 1_u128 << 32;
    for (bit, root) in (0..ROOTS.len()).rev().zip(ROOTS) {
        if fraction >> bit & 1 == 1 {
            power = (power * u128::from(root)) >> 32;
        }
    }
    u64::try_from(power >> whole).unwrap_or(0)
}

/// 0.5 to the power 1/2, 1/4, 1/8 ... 1/65536, in 2^32nds.
const ROOTS: [u64; 16] = [
    3_037_000_500,
    3_611_622_603,
    3_938_502_376,
    4_112_874_773,
    4_202_935_003,
    4_248_701_965,
    4_271_771_996,
    4_283_353_945,
    4_289_156_690,
    4_292_061_010,
    4_293_513_907,
    4_294_240_540,
    4_294_603_903,
    4_294_785_595,
    4_294_876_445,
    4_294_921_870,
];

/// Steps of a half-life in which the past fades: 1.1 % each.
pub const STEPS: u64 = 64;

/// How long a step lasts.
fn step_ms(half_life_ms: u64) -> u64 {
    (half_life_ms / STEPS).max(1)
}

/// What is left at `to` of what was remembered at `from`. It fades in [`STEPS`] at fixed moments: how often time is moved
/// forward makes no difference but for rounding, and between two steps nothing changes by itself.
pub fn faded(value: u64, from: At, to: At, half_life_ms: u64) -> u64 {
    let step = step_ms(half_life_ms);
    let steps = (to.0 / step).saturating_sub(from.0 / step);
    if steps == 0 {
        return value;
    }
    u64::try_from((u128::from(value) * u128::from(half_power(steps, STEPS))) >> 32).unwrap_or(u64::MAX)
}

/// The next moment at which the past fades.
pub fn next_step(now: At, half_life_ms: u64) -> At {
    let step = step_ms(half_life_ms);
    At((now.0 / step + 1).saturating_mul(step))
}

/// What is remembered of holding all of a capacity for ever, as GPU-time, is so many millionths of the capacity over one
/// half-life: `1 / ln 2`.
pub const SATURATED_PPM: u64 = 1_442_695;

/// A queue's weight after its past: `max(0, w + k (w - u))`, where `w` is its part of all weights, `u` its part of all decayed
/// usage, both in parts per million, and `k` in thousandths says how much the past counts (KAI `time-based-fairshare`).
pub fn weight_after_usage(weight_ppm: u64, usage_ppm: u64, k_milli: u32) -> u64 {
    let gap = i128::from(weight_ppm) - i128::from(usage_ppm);
    u64::try_from(i128::from(weight_ppm) + gap * i128::from(k_milli) / 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_life_halves_and_parts_of_it_multiply() {
        assert_eq!(half_power(0, 1000), 1 << 32);
        assert_eq!(half_power(3000, 1000), 1 << 29);
        for elapsed in [1_u64, 77, 500, 999, 1500, 12_345] {
            let exact = 0.5_f64.powf(elapsed as f64 / 1000.0);
            let ours = half_power(elapsed, 1000) as f64 / f64::from(2.0_f32.powi(32));
            assert!((ours - exact).abs() < 2e-5, "{elapsed}: {ours} instead of {exact}");
        }
        assert_eq!((half_power(1, 0), half_power(0, 0), half_power(u64::MAX, 1)), (0, 1 << 32, 0));
    }

    #[test]
    fn the_past_fades_in_steps_however_often_time_moves_on() {
        let (half, begin) = (64_000, At(500));
        assert_eq!(faded(1_000_000, begin, At(999), half), 1_000_000, "nothing fades within a step");
        assert_eq!(next_step(begin, half), At(1_000));
        assert_eq!(faded(1_000_000, begin, At(1_000), half), 989_228, "2^(-1/64)");
        assert_eq!(faded(1_000_000, begin, At(64_500), half), 500_000);
        assert_eq!(faded(u64::MAX, begin, At(u64::MAX), half), 0);
        let often = (1..=256).fold(1_000_000_000, |left, at| faded(left, At(250 * (at - 1)), At(250 * at), half));
        let once = faded(1_000_000_000, At(0), At(64_000), half);
        assert_eq!(once, 500_000_000);
        assert!(often <= once && once - often < 300, "{often} {once}");
    }

    #[test]
    fn holding_everything_for_ever_is_remembered_as_the_saturated_share() {
        let half = 64_000;
        let mut left = 0;
        for second in 1..=2_000 {
            left = faded(left, At((second - 1) * 1_000), At(second * 1_000), half) + 1_000;
        }
        let ppm = left * 1_000_000 / half;
        assert!(ppm.abs_diff(SATURATED_PPM) < 10_000, "{ppm}");
    }

    #[test]
    fn who_used_less_than_its_part_weighs_more_and_never_below_nothing() {
        assert_eq!(weight_after_usage(500_000, 500_000, 1000), 500_000);
        assert_eq!(weight_after_usage(500_000, 250_000, 1000), 750_000);
        assert_eq!(weight_after_usage(100_000, 900_000, 1000), 0);
        assert_eq!(weight_after_usage(100_000, 900_000, 0), 100_000);
    }
}
