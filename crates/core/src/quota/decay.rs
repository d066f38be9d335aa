//! Memory of past usage that fades: a mean with a half-life, in integers, so that two replays agree to the last bit.

use serde::{Deserialize, Serialize};

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

/// The mean of an amount over the past, the younger the heavier: after a half-life of nothing, half of it is left.
///
/// The same as KAI's decayed usage `U <- 0.5^(dt/half) U + A dt` up to a constant that normalising takes out, but it does not
/// depend on how often it is asked to move on.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decayed {
    /// The mean in 2^-20ths of the amount's unit, so that small amounts are not rounded away.
    mean: i64,
    at_ms: u64,
}

impl Decayed {
    /// Moves on to `now_ms`; since the last time, `amount` was held.
    pub fn advance(&mut self, now_ms: u64, amount: i64, half_life_ms: u64) {
        let kept = i128::from(half_power(now_ms.saturating_sub(self.at_ms), half_life_ms));
        let amount = i128::from(amount) << 20;
        let mean = (i128::from(self.mean) * kept + amount * ((1 << 32) - kept)) >> 32;
        self.mean = i64::try_from(mean).unwrap_or(i64::MAX);
        self.at_ms = self.at_ms.max(now_ms);
    }

    /// The mean in the amount's unit.
    pub fn mean(&self) -> i64 {
        self.mean >> 20
    }

    /// The mean as parts per million of `capacity`; 0 of no capacity.
    pub fn ppm_of(&self, capacity: i64) -> u64 {
        let parts = (i128::from(self.mean) * 1_000_000) >> 20;
        u64::try_from(parts.checked_div(i128::from(capacity)).unwrap_or(0)).unwrap_or(0)
    }
}

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
    fn the_mean_goes_to_what_is_held_and_does_not_depend_on_how_often_it_moves() {
        let mut often = Decayed::default();
        for now in 1..=10_000 {
            often.advance(now, 8_000, 1_000);
        }
        let mut once = Decayed::default();
        once.advance(10_000, 8_000, 1_000);
        assert!((once.mean() - 7_992).abs() <= 1, "{once:?}");
        assert!((often.mean() - once.mean()).abs() <= 40, "{often:?} {once:?}");
        once.advance(11_000, 0, 1_000);
        assert!((once.mean() - 3_996).abs() <= 1, "{once:?}");
        assert_eq!(once.ppm_of(4_000_000) / 10, 99);
    }

    #[test]
    fn who_used_less_than_its_part_weighs_more_and_never_below_nothing() {
        assert_eq!(weight_after_usage(500_000, 500_000, 1000), 500_000);
        assert_eq!(weight_after_usage(500_000, 250_000, 1000), 750_000);
        assert_eq!(weight_after_usage(100_000, 900_000, 1000), 0);
        assert_eq!(weight_after_usage(100_000, 900_000, 0), 100_000);
    }
}
