//! Waiting jobs by class and rank: the best one whose class is still open, without a look at the thousands behind it.
//!
//! A class holds jobs that are alike to a decision (one size; or one size and owner): one refusal closes it until the next.

use std::collections::{BTreeMap, BTreeSet};

use crate::jobs::JobIx;

/// Lower goes first; ties by submission.
pub type Rank = i64;

/// Waiting jobs by class.
#[derive(Clone, Debug)]
pub struct Queue<C> {
    classes: BTreeMap<C, BTreeSet<(Rank, JobIx)>>,
}

impl<C> Default for Queue<C> {
    fn default() -> Self {
        Self { classes: BTreeMap::new() }
    }
}

impl<C: Ord + Copy> Queue<C> {
    /// A job waits.
    pub fn insert(&mut self, class: C, rank: Rank, job: JobIx) {
        self.classes.entry(class).or_default().insert((rank, job));
    }

    /// A job waits no longer. `rank` as it was inserted.
    pub fn remove(&mut self, class: C, rank: Rank, job: JobIx) {
        if let Some(jobs) = self.classes.get_mut(&class) {
            jobs.remove(&(rank, job));
            if jobs.is_empty() {
                self.classes.remove(&class);
            }
        }
    }

    /// The first of those whose class is not in `closed`: rank, job, class.
    pub fn first(&self, closed: &BTreeSet<C>) -> Option<(Rank, JobIx, C)> {
        let open = self.classes.iter().filter(|(class, _)| !closed.contains(class));
        open.filter_map(|(&class, jobs)| jobs.first().map(|&(rank, job)| (rank, job, class)))
            .min_by_key(|&(rank, job, _)| (rank, job))
    }

    /// All, by class and rank.
    pub fn iter(&self) -> impl Iterator<Item = JobIx> + '_ {
        self.classes.values().flatten().map(|(_, job)| *job)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }
}
