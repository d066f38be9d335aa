//! Kueue's weights, any quantity from 0 on, as whole numbers of 1 to 1000: among siblings only their ratio counts.

use crate::quantity::NANO;

/// The largest weight of a Queue.
const MOST: i128 = 1000;

/// A sibling's share of what is left over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub weight: u32,
    pub priority: i32,
    /// What became of its weight, if it is not the number that was there.
    pub told: Option<String>,
}

/// The shares of siblings with these weights in billionths. Whole numbers in range stay; others are scaled together.
pub fn shares(weights: &[i128]) -> Vec<Share> {
    let above_zero = || weights.iter().copied().filter(|weight| *weight > 0);
    let stay = above_zero().all(|weight| weight % NANO == 0 && weight / NANO <= MOST);
    let (unit, most) = (above_zero().fold(0, common_divisor), above_zero().max().unwrap_or(0));
    let share = |weight: i128| {
        let (whole, exact) = match weight {
            0 => return last(),
            weight if stay => (weight / NANO, true),
            weight if most / unit <= MOST => (weight / unit, true),
            weight => scaled(weight, most),
        };
        let weight_as_written = u32::try_from(whole).unwrap_or(1);
        let told = match (exact, whole * NANO == weight) {
            (true, true) => None,
            (true, false) => Some(format!("is written as {whole}: only the ratio to its siblings counts")),
            (false, _) => Some(format!("is written as {whole}, rounded: weights are whole numbers from 1 to {MOST}")),
        };
        Share { weight: weight_as_written, priority: 0, told }
    };
    weights.iter().copied().map(share).collect()
}

/// Kueue's 0 is an infinite share: all others go first.
fn last() -> Share {
    let told = "is written as weight 1 and priority -1: beyond its quota it goes after its siblings".to_owned();
    Share { weight: 1, priority: -1, told: Some(told) }
}

/// Of the largest weight's 1000, rounded, at least 1.
fn scaled(weight: i128, most: i128) -> (i128, bool) {
    let per_unit = (most / MOST).max(1);
    ((weight.saturating_add(per_unit / 2) / per_unit).clamp(1, MOST), false)
}

fn common_divisor(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_stay_and_whole_numbers_stay_as_they_are() {
        let cases: [(&[i128], &[u32]); 8] = [
            (&[], &[]),
            (&[1000], &[1]),
            (&[1000, 2000, 1_000_000], &[1, 2, 1000]),
            (&[500, 1000], &[1, 2]),
            (&[750, 1000, 500], &[3, 4, 2]),
            (&[0, 1000], &[1, 1]),
            (&[2_000_000, 4_000_000], &[1, 2]),
            (&[1, 1_000_000], &[1, 1000]),
        ];
        for (milli, expected) in cases {
            let nano: Vec<i128> = milli.iter().map(|milli| milli * NANO / 1000).collect();
            let found: Vec<u32> = shares(&nano).iter().map(|share| share.weight).collect();
            assert_eq!(found, expected, "{milli:?}");
        }
    }

    #[test]
    fn what_changes_is_told() {
        let told =
            |nano: &[i128]| -> Vec<String> { shares(nano).into_iter().map(|share| share.told.unwrap_or_default()).collect() };
        assert_eq!(told(&[NANO, 3 * NANO]), ["", ""]);
        assert!(told(&[NANO / 2, NANO])[0].contains("as 1: only the ratio"));
        assert!(told(&[1, 1_000_000 * NANO])[0].contains("rounded"));
        let zero = shares(&[0]);
        assert_eq!((zero[0].weight, zero[0].priority), (1, -1));
    }

    #[test]
    fn huge_weights_are_no_overflow() {
        let huge = i128::MAX / 2;
        assert_eq!(shares(&[huge, huge / 2, 7]).iter().map(|share| share.weight).collect::<Vec<_>>(), [1000, 500, 1]);
    }
}
