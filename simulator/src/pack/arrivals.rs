//! The order of pods and nodes for one seed, as FGD's authors make it (`-tune 1.3 -shuffle-pod`).
//!
//! Pods are shuffled; then clones of random pods follow until the load is reached, or random pods are taken out
//! until it is not exceeded. Nodes get a random order that breaks ties ("smallest name" after a random renaming).

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::Lists;

/// What comes by, and onto what.
pub(super) struct Arrivals {
    /// Indices of pods, in the order of arrival.
    pub(super) pods: Vec<usize>,
    /// Indices of nodes; among equal scores the first wins.
    pub(super) nodes: Vec<usize>,
}

impl Arrivals {
    /// For a load of `arrive` percent of the cluster's GPU.
    pub(super) fn new(lists: &Lists, arrive: u32, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let target = signed(lists.gpu_milli() * u64::from(arrive) / 100);
        let mut pods: Vec<usize> = (0..lists.pods.len()).collect();
        pods.shuffle(&mut rng);
        let missing = target - pods.iter().map(|&pod| gpu_milli(lists, pod)).sum::<i64>();
        grow(lists, &mut pods, missing, &mut rng);
        thin(lists, &mut pods, -missing, &mut rng);
        let mut nodes: Vec<usize> = (0..lists.nodes.len()).collect();
        nodes.shuffle(&mut rng);
        Self { pods, nodes }
    }
}

/// Adds clones until the next would pass the target. The test is by the need of *one* GPU of the clone, as published.
fn grow(lists: &Lists, pods: &mut Vec<usize>, mut missing: i64, rng: &mut StdRng) {
    while missing > 0 {
        let clone = rng.random_range(0..lists.pods.len());
        if lists.pods.get(clone).is_none_or(|pod| signed(pod.each_milli) > missing) {
            return;
        }
        missing -= gpu_milli(lists, clone);
        pods.push(clone);
    }
}

fn thin(lists: &Lists, pods: &mut Vec<usize>, mut excess: i64, rng: &mut StdRng) {
    while excess > 0 && !pods.is_empty() {
        excess -= gpu_milli(lists, pods.remove(rng.random_range(0..pods.len())));
    }
}

fn gpu_milli(lists: &Lists, pod: usize) -> i64 {
    lists.pods.get(pod).map_or(0, |pod| signed(pod.gpu_milli()))
}

fn signed(milli: u64) -> i64 {
    i64::try_from(milli).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::openb::tests_support::lists;

    /// 10 GPUs; pods ask for 1, 0.5, 4 GPUs and for none.
    const PODS: &str = "a,1,1,1,1000,\nb,1,1,1,500,\nc,1,1,4,1000,\nd,1,1,0,0,\n";

    fn load(arrivals: &Arrivals, lists: &Lists) -> i64 {
        arrivals.pods.iter().map(|&pod| gpu_milli(lists, pod)).sum()
    }

    #[test]
    fn every_pod_comes_once_before_the_first_clone() {
        let lists = lists(PODS);
        let arrivals = Arrivals::new(&lists, 400, 1);
        let mut first = arrivals.pods[..4].to_vec();
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 3]);
        assert!((36_000..=44_000).contains(&load(&arrivals, &lists)), "{}", load(&arrivals, &lists));
    }

    #[test]
    fn pods_are_taken_out_until_the_load_is_not_exceeded() {
        let lists = lists(PODS);
        for seed in 0..20 {
            assert!(load(&Arrivals::new(&lists, 20, seed), &lists) <= 2000);
        }
    }

    #[test]
    fn a_seed_gives_one_order_and_another_seed_another() {
        let lists = lists(PODS);
        let order = |seed| Arrivals::new(&lists, 1000, seed).pods;
        assert_eq!(order(42), order(42));
        assert_ne!(order(42), order(43));
    }
}
