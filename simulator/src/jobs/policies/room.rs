//! Whom to stop so that a job fits: the cheapest victims, on the fewest nodes.
//!
//! The caller prices each running job, or forbids it. Whole nodes are emptied one after another, each time the cheapest one, with
//! a victim that is already taken costing nothing on its other nodes (Lyra's server preemption, recomputed after each choice); for a
//! part of a node, victims go by price per GPU and who turns out not to be needed stays. Greedy: the exact problem is a knapsack
//! with dependent values.

use std::collections::BTreeSet;

use super::book::Book;
use super::floor::Locality;
use crate::jobs::JobIx;

/// Running jobs by node, priced: what a decision needs to look for room several times.
pub struct Room<'a> {
    book: &'a Book,
    /// By node: job, its GPUs there, its price; absent price: it stays.
    nodes: Vec<Vec<(JobIx, u32, Option<u64>)>>,
}

impl<'a> Room<'a> {
    /// Prices all that run.
    pub fn new(book: &'a Book, price: &dyn Fn(JobIx) -> Option<u64>) -> Self {
        let mut nodes = vec![Vec::new(); book.floor.sizes().len()];
        for &job in &book.running {
            let price = price(job);
            for &(node, gpus) in book.job(job).held.iter().flat_map(|held| &held.nodes) {
                nodes[node as usize].push((job, gpus, price));
            }
        }
        Self { book, nodes }
    }

    /// Victims for `gpus` and the sum of their prices; none when not even all who may be stopped make room.
    pub fn victims(&self, gpus: u32) -> Option<(Vec<JobIx>, u64)> {
        let mut taken = BTreeSet::new();
        let price = match self.book.floor.locality() {
            Locality::Strict => self.on_few_nodes(gpus, &mut taken)?,
            Locality::Relaxed => self.anywhere(gpus, &mut taken)?,
        };
        Some((taken.into_iter().collect(), price))
    }

    fn on_few_nodes(&self, gpus: u32, taken: &mut BTreeSet<JobIx>) -> Option<u64> {
        let largest = self.book.floor.largest();
        let mut used = BTreeSet::new();
        let mut sum = 0;
        let whole = (0..gpus / largest).map(|_| largest);
        for need in whole.chain(Some(gpus % largest).filter(|rest| *rest > 0)) {
            let nodes = (0..self.nodes.len()).filter(|node| !used.contains(node));
            let options = nodes.filter_map(|node| self.on_node(node, need, taken).map(|(price, victims)| (price, node, victims)));
            let (price, node, victims) = options.min_by_key(|(price, node, _)| (*price, *node))?;
            used.insert(node);
            sum += price;
            taken.extend(victims);
        }
        Some(sum)
    }

    /// The cheapest victims that leave `need` GPUs free on `node`.
    fn on_node(&self, node: usize, need: u32, taken: &BTreeSet<JobIx>) -> Option<(u64, Vec<JobIx>)> {
        if self.book.floor.sizes()[node] < need {
            return None;
        }
        let gone: u32 = self.nodes[node].iter().filter(|(job, ..)| taken.contains(job)).map(|(_, gpus, _)| gpus).sum();
        let free = self.book.floor.free()[node] + gone;
        let stays = |(job, gpus, price): &(JobIx, u32, Option<u64>)| {
            price.filter(|_| !taken.contains(job)).map(|price| (price, *gpus, *job))
        };
        cheapest(need.saturating_sub(free), self.nodes[node].iter().filter_map(stays).collect())
    }

    fn anywhere(&self, gpus: u32, taken: &mut BTreeSet<JobIx>) -> Option<u64> {
        let all: BTreeSet<(u64, u32, JobIx)> = (self.nodes.iter().flatten())
            .filter_map(|&(job, _, price)| price.map(|price| (price, self.book.job(job).gpus, job)))
            .collect();
        let (price, victims) = cheapest(gpus.saturating_sub(self.book.floor.free_total()), all.into_iter().collect())?;
        taken.extend(victims);
        Some(price)
    }
}

/// Of `(price, gpus, job)`, some with at least `need` GPUs together: by price per GPU, then without those not needed.
fn cheapest(need: u32, mut options: Vec<(u64, u32, JobIx)>) -> Option<(u64, Vec<JobIx>)> {
    options.sort_by_key(|&(price, gpus, job)| (price / u64::from(gpus.max(1)), job));
    let (mut freed, mut count) = (0, 0);
    for &(_, gpus, _) in &options {
        if freed >= need {
            break;
        }
        freed += gpus;
        count += 1;
    }
    if freed < need {
        return None;
    }
    options.truncate(count);
    options.sort_by_key(|&(price, ..)| std::cmp::Reverse(price));
    options.retain(|&(_, gpus, _)| {
        let spare = freed - need >= gpus;
        freed -= if spare { gpus } else { 0 };
        !spare
    });
    Some((options.iter().map(|(price, ..)| price).sum(), options.into_iter().map(|(_, _, job)| job).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(ix: u32) -> JobIx {
        JobIx(ix)
    }

    #[test]
    fn the_cheapest_victims_go_and_nobody_without_need() {
        let options = vec![(10, 1, job(0)), (90, 4, job(1)), (30, 1, job(2)), (1, 1, job(3))];
        assert_eq!(cheapest(2, options.clone()), Some((11, vec![job(0), job(3)])));
        assert_eq!(cheapest(0, options.clone()), Some((0, vec![])));
        assert_eq!(cheapest(6, options.clone()).map(|(price, _)| price), Some(101));
        assert_eq!(cheapest(8, options), None);
    }
}
