//! Seeded draws from the laws that the generators need.

use std::f64::consts::TAU;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A stream of draws.
pub struct Draw(StdRng);

impl Draw {
    /// Equal seeds give equal streams; `what` keeps generators with equal seeds apart.
    pub fn new(seed: u64, what: u64) -> Self {
        Self(StdRng::seed_from_u64(seed ^ what.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// Uniform in `0..below`; 0 if that is empty.
    pub fn below(&mut self, below: u32) -> u32 {
        if below == 0 { 0 } else { self.0.random_range(0..below) }
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }

    /// Exponential.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Whether something of `per_mille` chance happens.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < per_mille
    }

    /// Index by weight; 0 if all weights are 0.
    pub fn pick(&mut self, weights: impl IntoIterator<Item = u32, IntoIter: Clone>) -> usize {
        let weights = weights.into_iter();
        let mut at = self.below(weights.clone().sum());
        for (index, weight) in weights.enumerate() {
            if at < weight {
                return index;
            }
            at -= weight;
        }
        0
    }

    /// Fisher and Yates.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = self.below(u32::try_from(last + 1).unwrap_or(u32::MAX)) as usize;
            all.swap(last, other);
        }
    }
}

/// A float of known range as a whole number; saturates.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
pub fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Splits `total` by weight so that the parts add up to it and each is within one of its share (largest remainders).
pub fn apportion(total: u32, weights: &[u32]) -> Vec<u32> {
    let sum = weights.iter().map(|weight| u64::from(*weight)).sum::<u64>().max(1);
    let share = |weight: &u32| (u64::from(total) * u64::from(*weight) / sum, u64::from(total) * u64::from(*weight) % sum);
    let mut parts: Vec<u32> = weights.iter().map(|weight| u32::try_from(share(weight).0).unwrap_or(u32::MAX)).collect();
    let mut left: Vec<(u64, usize)> = weights.iter().enumerate().map(|(at, weight)| (share(weight).1, at)).collect();
    left.sort_by_key(|(remainder, at)| (std::cmp::Reverse(*remainder), *at));
    let missing = total.saturating_sub(parts.iter().sum()) as usize;
    for (_, at) in left.into_iter().take(missing) {
        if let Some(part) = parts.get_mut(at) {
            *part += 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_their_laws() {
        let mut draw = Draw::new(1, 1);
        let normals: Vec<f64> = (0..20_000).map(|_| draw.normal()).collect();
        let mean = normals.iter().sum::<f64>() / 20_000.0;
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        let exponentials = (0..20_000).map(|_| draw.exponential(3.0)).sum::<f64>() / 20_000.0;
        assert!((exponentials - 3.0).abs() < 0.1, "{exponentials}");
        let picks = (0..20_000).filter(|_| draw.pick([1, 0, 3]) == 2).count();
        assert!((14_500..15_500).contains(&picks), "{picks}");
        assert!((0..1000).all(|_| draw.pick([1, 0, 3]) != 1));
        assert_eq!(draw.pick([]), 0);
    }

    #[test]
    fn parts_add_up_and_keep_their_shares() {
        assert_eq!(apportion(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(apportion(0, &[1, 2]), [0, 0]);
        assert_eq!(apportion(5, &[]), [0_u32; 0]);
        assert_eq!(apportion(1213, &[549, 387, 277]), [549, 387, 277]);
    }
}
