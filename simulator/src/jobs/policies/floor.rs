//! Free GPUs by node, and consolidated placement: fewest nodes, best fit, the same for every policy.
//!
//! A job that fits on one node gets one node: of those with room, the one with the least; ties go to the lower index. A larger
//! one gets whole free nodes and the rest of it by best fit. With [`Locality::Strict`] it waits when there is no such place (fast links
//! inside a node is worth it); with [`Locality::Relaxed`] it takes the nodes with the most room until it has enough.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::jobs::Held;

/// Whether a job may be spread over more nodes than it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Locality {
    Strict,
    Relaxed,
}

/// Nodes and their free GPUs.
#[derive(Clone, Debug)]
pub struct Floor {
    size: Vec<u32>,
    free: Vec<u32>,
    /// Nodes by free GPUs.
    by_free: Vec<BTreeSet<u32>>,
    largest: u32,
    free_total: u32,
    locality: Locality,
}

impl Floor {
    /// All free. `nodes`: GPUs by node.
    pub fn new(nodes: &[u32], locality: Locality) -> Self {
        let largest = nodes.iter().copied().max().unwrap_or(0);
        let mut by_free = vec![BTreeSet::new(); largest as usize + 1];
        for (node, &gpus) in (0..).zip(nodes) {
            by_free[gpus as usize].insert(node);
        }
        Self { size: nodes.to_vec(), free: nodes.to_vec(), by_free, largest, free_total: nodes.iter().sum(), locality }
    }

    /// GPUs of all nodes.
    pub fn gpus(&self) -> u32 {
        self.size.iter().sum()
    }

    /// GPUs that nobody holds.
    pub fn free_total(&self) -> u32 {
        self.free_total
    }

    /// GPUs of each node that nobody holds.
    pub fn free(&self) -> &[u32] {
        &self.free
    }

    /// GPUs of each node, free or not.
    pub fn sizes(&self) -> &[u32] {
        &self.size
    }

    /// Whether a job may be spread.
    pub fn locality(&self) -> Locality {
        self.locality
    }

    /// GPUs of the largest node.
    pub fn largest(&self) -> u32 {
        self.largest
    }

    /// Whether `gpus` can be placed on an empty cluster.
    pub fn could_ever(&self, gpus: u32) -> bool {
        Self::new(&self.size, self.locality).place(gpus).is_some()
    }

    /// Where `gpus` would go.
    pub fn place(&self, gpus: u32) -> Option<Held> {
        self.place_avoiding(gpus, &|_| false)
    }

    /// Where `gpus` would go if it may not touch the nodes that `avoid` names.
    pub fn place_avoiding(&self, gpus: u32, avoid: &dyn Fn(u32) -> bool) -> Option<Held> {
        if gpus == 0 || gpus > self.free_total {
            return None;
        }
        match self.locality {
            Locality::Strict => self.consolidated(gpus, avoid),
            Locality::Relaxed => self.consolidated(gpus, avoid).or_else(|| self.spread(gpus, avoid)),
        }
    }

    /// Takes GPUs. The caller placed them since the last change.
    pub fn take(&mut self, held: &Held) {
        for &(node, gpus) in &held.nodes {
            self.shift(node, |free| free.saturating_sub(gpus));
        }
    }

    /// Gives GPUs back.
    pub fn give(&mut self, held: &Held) {
        for &(node, gpus) in &held.nodes {
            self.shift(node, |free| free + gpus);
        }
    }

    fn shift(&mut self, node: u32, to: impl Fn(u32) -> u32) {
        let ix = node as usize;
        let (was, size) = (self.free[ix], self.size[ix]);
        let now = to(was).min(size);
        self.by_free[was as usize].remove(&node);
        self.by_free[now as usize].insert(node);
        self.free[ix] = now;
        self.free_total = self.free_total - was + now;
    }

    fn consolidated(&self, gpus: u32, avoid: &dyn Fn(u32) -> bool) -> Option<Held> {
        let (whole, rest) = (gpus / self.largest, gpus % self.largest);
        let empty = self.by_free[self.largest as usize].iter().filter(|node| !avoid(**node));
        let mut nodes: Vec<(u32, u32)> = empty.take(whole as usize).map(|&node| (node, self.largest)).collect();
        if nodes.len() < whole as usize {
            return None;
        }
        if rest > 0 {
            let taken = nodes.len();
            let mut fits = self.by_free[rest as usize..].iter().flatten().filter(|node| !avoid(**node));
            let node = fits.find(|node| !nodes[..taken].iter().any(|(taken, _)| taken == *node))?;
            nodes.push((*node, rest));
        }
        nodes.sort_unstable();
        Some(Held { nodes, batch: None })
    }

    fn spread(&self, gpus: u32, avoid: &dyn Fn(u32) -> bool) -> Option<Held> {
        let (mut nodes, mut missing) = (Vec::new(), gpus);
        for (free, set) in (1..=self.largest).rev().zip(self.by_free.iter().rev()) {
            for &node in set.iter().filter(|node| !avoid(**node)) {
                if missing == 0 {
                    break;
                }
                let part = missing.min(free);
                nodes.push((node, part));
                missing -= part;
            }
        }
        nodes.sort_unstable();
        (missing == 0).then_some(Held { nodes, batch: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(nodes: &[(u32, u32)]) -> Held {
        Held { nodes: nodes.to_vec(), batch: None }
    }

    #[test]
    fn a_job_takes_the_tightest_node_and_a_gang_takes_whole_nodes() {
        let mut floor = Floor::new(&[8, 8, 8, 2], Locality::Strict);
        assert_eq!(floor.place(1), Some(held(&[(3, 1)])));
        floor.take(&held(&[(0, 5)]));
        assert_eq!(floor.place(3), Some(held(&[(0, 3)])));
        assert_eq!(floor.place(4), Some(held(&[(1, 4)])));
        assert_eq!(floor.place(12), Some(held(&[(1, 8), (2, 4)])));
        assert_eq!(floor.place(18), Some(held(&[(1, 8), (2, 8), (3, 2)])));
        assert_eq!(floor.place(20), None);
    }

    #[test]
    fn a_relaxed_job_is_spread_when_no_node_has_room() {
        let mut floor = Floor::new(&[8, 8], Locality::Relaxed);
        floor.take(&held(&[(0, 5), (1, 6)]));
        assert_eq!(floor.place(5), Some(held(&[(0, 3), (1, 2)])));
        assert_eq!(floor.place(6), None);
    }

    #[test]
    fn what_is_taken_and_given_back_leaves_nothing_behind() {
        let mut floor = Floor::new(&[8, 4], Locality::Strict);
        let place = floor.place(8).unwrap();
        floor.take(&place);
        assert_eq!((floor.free_total(), floor.place(8)), (4, None));
        floor.give(&place);
        assert_eq!((floor.free_total(), floor.place(8)), (12, Some(place)));
        assert!(floor.could_ever(12) && !floor.could_ever(13));
    }
}
