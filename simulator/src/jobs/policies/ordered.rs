//! Queues in a fixed order: strict FIFO, best-effort FIFO (Kueue's `StrictFIFO` and `BestEffortFIFO`), and shortest job first.
//!
//! Strict: who cannot start holds up all behind it. Best effort: who cannot start is passed over. Neither stops anybody.
//! [`Ordered::sjf`] is an **oracle**: it is told the true durations, which no live system knows; it is printed, never a bar.

use std::collections::BTreeSet;

use super::book::Book;
use super::floor::Floor;
use super::queue::{Queue, Rank};
use crate::jobs::{JobIx, Ms, Order, Policy, Wish};

/// A queue in a fixed order.
pub struct Ordered {
    name: &'static str,
    strict: bool,
    /// Ranks by job; absent: submission.
    ranks: Option<Vec<Rank>>,
    book: Book,
    queue: Queue<u32>,
}

impl Ordered {
    /// First come, first served; the head holds up the rest.
    pub fn fifo(floor: Floor) -> Self {
        Self::new("fifo", true, None, floor)
    }

    /// First come, first served; who does not fit is passed over.
    pub fn best_effort(floor: Floor) -> Self {
        Self::new("fifo-best-effort", false, None, floor)
    }

    /// Shortest job first by `true_durations` (milliseconds, in the order of submission): an oracle.
    pub fn sjf(floor: Floor, true_durations: Vec<Rank>) -> Self {
        Self::new("sjf-oracle", false, Some(true_durations), floor)
    }

    fn new(name: &'static str, strict: bool, ranks: Option<Vec<Rank>>, floor: Floor) -> Self {
        Self { name, strict, ranks, book: Book::new(floor), queue: Queue::default() }
    }

    fn rank(&self, job: JobIx) -> Rank {
        match &self.ranks {
            Some(ranks) => ranks.get(job.0 as usize).copied().unwrap_or(Rank::MAX),
            None => Rank::from(job.0),
        }
    }
}

impl Policy for Ordered {
    fn name(&self) -> &'static str {
        self.name
    }

    fn submitted(&mut self, now: Ms, job: JobIx, wish: &Wish) {
        self.book.submitted(now, wish);
        self.queue.insert(wish.gpus, self.rank(job), job);
    }

    fn progressed(&mut self, _now: Ms, _job: JobIx, _done_ppm: Option<u32>, _checkpoint_at: Option<Ms>) {}

    fn finished(&mut self, now: Ms, job: JobIx) {
        self.book.finished(now, job);
    }

    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>) -> Option<Ms> {
        let mut closed = BTreeSet::new();
        while let Some((rank, job, gpus)) = self.queue.first(&closed) {
            if let Some(held) = self.book.floor.place(gpus) {
                self.queue.remove(gpus, rank, job);
                self.book.start(now, job, held, orders);
            } else if self.strict {
                break;
            } else {
                closed.insert(gpus);
            }
        }
        None
    }
}
