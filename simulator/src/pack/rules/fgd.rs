//! FGD as published: `int(100 x sigmoid(fragmentation before - after))` by the most usual pods of the list.

use std::cmp::Reverse;

use tidegate_core::fragment::{Gpus, Shape};

use super::simple::whole;
use super::{Rating, Rule, Taken};
use crate::pack::openb::Lists;
use crate::pack::world::State;

/// The most usual shapes that make up this share of all pods are the typical ones.
const TYPICAL_PERCENT: u64 = 95;

/// The published rule with the mix of the whole list.
pub(super) struct Fgd {
    /// Shapes with their shares, which add up to 1.
    typical: Vec<(Shape, f64)>,
}

impl Fgd {
    pub(super) fn new(lists: &Lists) -> Self {
        let mut counted: Vec<(u64, Shape)> = lists.counts().into_iter().zip(lists.shapes.iter().copied()).collect();
        counted.sort_unstable_by_key(|&entry| Reverse(entry));
        let all = lists.pods.len() as u64;
        let mut covered = 0;
        let typical: Vec<(u64, Shape)> = counted
            .into_iter()
            .take_while(|(count, _)| {
                let short = covered * 100 < all * TYPICAL_PERCENT;
                covered += count;
                short
            })
            .collect();
        let sum: u64 = typical.iter().map(|(count, _)| count).sum();
        Self { typical: typical.into_iter().map(|(count, shape)| (shape, count as f64 / sum as f64)).collect() }
    }

    /// Thousandths of a GPU that are idle and of no use to typical pods, in the mean.
    fn fragment(&self, node: &State) -> f64 {
        let idle = node.idle() as f64;
        if idle == 0.0 {
            return 0.0;
        }
        self.typical.iter().map(|(shape, share)| share * useless(node, shape, idle)).sum()
    }
}

fn useless(node: &State, shape: &Shape, idle: f64) -> f64 {
    if shape.gpus == Gpus::None || !node.fits(shape) {
        return idle;
    }
    let milli = shape.gpus.each().1;
    node.free().iter().filter(|&&free| free < milli).map(|&free| f64::from(free)).sum()
}

impl Rule for Fgd {
    fn rate(&self, node: &State, shape: &Shape) -> Option<Rating> {
        let devices: Vec<Option<usize>> = match shape.gpus {
            Gpus::Fraction(_) => (0..node.free().len()).map(Some).collect(),
            _ => vec![None],
        };
        let before = self.fragment(node);
        let mut best: Option<Rating> = None;
        for device in devices {
            let Some(after) = node.after(shape, device, self.keeps()) else { continue };
            let change = (before - self.fragment(&after)) / 1000.0;
            let key = (whole(100.0 / (1.0 + (-change).exp())), 0);
            if best.is_none_or(|best| key > best.key) {
                best = Some(Rating { key, device });
            }
        }
        best
    }

    fn keeps(&self) -> Taken {
        Taken { order: true, ..Taken::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::openb::tests_support::lists;

    /// Half of the pods take a whole P100, half 600 of any GPU; both need one CPU.
    const PODS: &str = "a,1000,1,1,1000,P100\nb,1000,1,1,600,\n";

    #[test]
    fn fragments_are_what_typical_pods_cannot_use() {
        let lists = lists(PODS);
        let fgd = Fgd::new(&lists);
        let [p100, t4] = [0, 1].map(|node| State::empty(&lists.nodes[node]));
        let fragment = |state: &State| fgd.fragment(state);
        assert!((fragment(&p100) - 0.0).abs() < 1e-9);
        assert!((fragment(&t4) - 4000.0).abs() < 1e-9, "half of the pods may not use its 8 GPUs");
        let shared = p100.after(&lists.shapes[1], Some(0), Taken::default()).unwrap();
        assert!((fragment(&shared) - 400.0).abs() < 1e-9, "neither uses the 400 of the shared GPU");
    }

    #[test]
    fn the_score_is_cut_to_a_whole_number() {
        let lists = lists(PODS);
        let fgd = Fgd::new(&lists);
        let rate = |node: usize| fgd.rate(&State::empty(&lists.nodes[node]), &lists.shapes[1]).unwrap();
        // P100: 0 before, 400 after, 100 x sigmoid(-0.4) = 40.1. T4: 4000 before, half of 7400 and half of 400 after: 52.5.
        assert_eq!(rate(0), Rating { key: (40, 0), device: Some(0) });
        assert_eq!(rate(1).key, (52, 0));
    }
}
