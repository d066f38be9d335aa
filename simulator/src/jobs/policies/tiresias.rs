//! Tiresias (NSDI'19): discretised two-dimensional least attained service.
//!
//! Jobs fall through levels by GPU time attained (GPUs x time run); a lower level goes first, first come, first served inside a level; a job
//! stops those of higher levels only. No prediction, no price: of the jobs that may be stopped, the highest level goes first, then the fewest
//! GPUs. Differs from the paper in that a job of a high level keeps GPUs that nobody of a lower one can use.

use std::collections::BTreeSet;

use super::book::Book;
use super::floor::Floor;
use super::queue::{Queue, Rank};
use super::room::Room;
use crate::jobs::{JobIx, Ms, Order, Policy, Wish};

/// Discretised 2D-LAS.
pub struct Tiresias {
    /// GPU-milliseconds attained at which a job falls to the next level, ascending.
    thresholds: Vec<u64>,
    book: Book,
    queue: Queue<u32>,
}

/// Levels stand above submission numbers in a rank.
const LEVEL: Rank = 1 << 32;

impl Tiresias {
    /// `thresholds_gpu_ms` ascending.
    pub fn new(floor: Floor, thresholds_gpu_ms: Vec<u64>) -> Self {
        Self { thresholds: thresholds_gpu_ms, book: Book::new(floor), queue: Queue::default() }
    }

    fn level(&self, now: Ms, job: JobIx) -> usize {
        let entry = self.book.job(job);
        let attained = entry.ran_ms(now) * u64::from(entry.gpus);
        self.thresholds.partition_point(|threshold| *threshold <= attained)
    }

    fn rank(&self, now: Ms, job: JobIx) -> Rank {
        Rank::try_from(self.level(now, job)).unwrap_or(0) * LEVEL + Rank::from(job.0)
    }

    fn start(&mut self, now: Ms, (rank, job, gpus): (Rank, JobIx, u32), orders: &mut Vec<Order>) -> bool {
        let Some(held) = self.book.floor.place(gpus) else { return false };
        self.queue.remove(gpus, rank, job);
        self.book.start(now, job, held, orders);
        true
    }

    fn allocate(&mut self, now: Ms, orders: &mut Vec<Order>) {
        let mut closed = BTreeSet::new();
        while let Some(first) = self.queue.first(&closed) {
            if !self.start(now, first, orders) {
                closed.insert(first.2);
            }
        }
    }

    fn preempt(&mut self, now: Ms, orders: &mut Vec<Order>) {
        let mut closed = BTreeSet::new();
        while let Some(first) = self.queue.first(&closed) {
            let own = self.level(now, first.1);
            let top = self.thresholds.len();
            let price = |job: JobIx| {
                let (level, entry) = (self.level(now, job), self.book.job(job));
                (level > own && entry.preemptible && entry.started < now).then(|| u64::from(entry.gpus) << (8 * (top - level)))
            };
            let Some((victims, _)) = Room::new(&self.book, &price).victims(first.2) else {
                closed.insert(first.2);
                continue;
            };
            for victim in victims {
                self.book.stop(victim, orders);
                self.queue.insert(self.book.job(victim).gpus, self.rank(now, victim), victim);
            }
            self.start(now, first, orders);
        }
    }
}

impl Policy for Tiresias {
    fn name(&self) -> &'static str {
        "tiresias"
    }

    fn submitted(&mut self, now: Ms, job: JobIx, wish: &Wish) {
        self.book.submitted(now, wish);
        self.queue.insert(wish.gpus, self.rank(now, job), job);
    }

    fn progressed(&mut self, _now: Ms, job: JobIx, _done_ppm: Option<u32>, checkpoint_at: Option<Ms>) {
        self.book.progressed(job, checkpoint_at);
    }

    fn finished(&mut self, now: Ms, job: JobIx) {
        self.book.finished(now, job);
    }

    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>) -> Option<Ms> {
        self.allocate(now, orders);
        self.preempt(now, orders);
        None
    }
}
