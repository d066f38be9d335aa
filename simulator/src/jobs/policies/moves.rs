//! Whom to move aside so that a job fits without anybody being stopped: consolidation.
//!
//! Promises: every moved job has its new place among GPUs that are free now, so the moves can be carried out one after another; nobody is moved
//! onto the nodes that are cleared. Only jobs on one node move. Greedy: the node (or nodes, one after another) that takes the fewest
//! GPUs to clear; on a node the smallest job that is large enough, else the largest.

use super::book::Book;
use super::floor::Floor;
use crate::jobs::{Held, JobIx};

/// A job and its new place.
pub type Move = (JobIx, Held);

/// Moves after which `gpus` fit; none when they do not exist or are not found. `may_move`: who may be restarted elsewhere.
pub fn moves(book: &Book, gpus: u32, may_move: &dyn Fn(JobIx) -> bool) -> Option<Vec<Move>> {
    if book.floor.free_total() < gpus {
        return None;
    }
    let mut search =
        Search { book, floor: book.floor.clone(), cleared: Vec::new(), moves: Vec::new(), by_node: movable(book, may_move) };
    let largest = book.floor.largest();
    let whole = (0..gpus / largest).map(|_| largest);
    for need in whole.chain(Some(gpus % largest).filter(|rest| *rest > 0)) {
        search.clear(need)?;
    }
    Some(search.moves)
}

struct Search<'a> {
    book: &'a Book,
    /// As it is after the moves so far, and with the job placed on the cleared nodes.
    floor: Floor,
    cleared: Vec<u32>,
    moves: Vec<Move>,
    by_node: Vec<Vec<(u32, JobIx)>>,
}

impl Search<'_> {
    /// Clears `need` GPUs on the node that takes the fewest moved ones.
    fn clear(&mut self, need: u32) -> Option<()> {
        let mut nodes: Vec<(u32, u32)> = (0..)
            .zip(self.floor.sizes())
            .filter(|(node, size)| **size >= need && !self.cleared.contains(node))
            .map(|(node, _)| (need.saturating_sub(self.floor.free()[node as usize]), node))
            .collect();
        nodes.sort_unstable();
        nodes.into_iter().find_map(|(missing, node)| self.try_node(node, need, missing))
    }

    fn try_node(&mut self, node: u32, need: u32, missing: u32) -> Option<()> {
        let chosen = choose(&self.by_node[node as usize], missing)?;
        self.cleared.push(node);
        let before = self.moves.len();
        for (gpus, job) in chosen {
            let cleared = &self.cleared;
            let place = self.floor.place_avoiding(gpus, &|other| cleared.contains(&other));
            let Some(place) = place.filter(|place| place.nodes.len() == 1) else {
                self.undo(before);
                return None;
            };
            self.floor.take(&place);
            self.moves.push((job, place));
        }
        for (job, _) in &self.moves[before..] {
            self.by_node[node as usize].retain(|(_, other)| other != job);
            if let Some(held) = &self.book.job(*job).held {
                self.floor.give(held);
            }
        }
        self.floor.take(&Held { nodes: vec![(node, need)], batch: None });
        Some(())
    }

    fn undo(&mut self, to: usize) {
        for (_, place) in self.moves.drain(to..) {
            self.floor.give(&place);
        }
        self.cleared.pop();
    }
}

/// Jobs that may move, by node: GPUs and job, the largest last.
fn movable(book: &Book, may_move: &dyn Fn(JobIx) -> bool) -> Vec<Vec<(u32, JobIx)>> {
    let mut by_node = vec![Vec::new(); book.floor.sizes().len()];
    for &job in &book.running {
        if let Some([(node, gpus)]) = book.job(job).held.as_ref().map(|held| held.nodes.as_slice())
            && may_move(job)
        {
            by_node[*node as usize].push((*gpus, job));
        }
    }
    for jobs in &mut by_node {
        jobs.sort_unstable();
    }
    by_node
}

/// Some of `jobs` (the largest last) with at least `missing` GPUs, the largest first.
fn choose(jobs: &[(u32, JobIx)], mut missing: u32) -> Option<Vec<(u32, JobIx)>> {
    let mut left = jobs.to_vec();
    let mut chosen = Vec::new();
    while missing > 0 {
        let at = left.iter().position(|(gpus, _)| *gpus >= missing).or(left.len().checked_sub(1))?;
        let job = left.remove(at);
        missing = missing.saturating_sub(job.0);
        chosen.push(job);
    }
    chosen.sort_unstable_by(|a, b| b.cmp(a));
    Some(chosen)
}
