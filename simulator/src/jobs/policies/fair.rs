//! Fair share by queue: the queue with the smallest dominant share goes first; first come, first served inside it.
//!
//! All that counts here is GPUs, so the dominant share is GPUs held over weight, all weights 1 (the trace tells no quotas). `fair` stops
//! nobody, as Kueue without `reclaimWithinCohort`. `fair-reclaim` adds KAI's reclaim: a queue that stays within its fair share
//! (water-filled over what the queues hold and wait for) takes GPUs from queues above theirs, from the youngest jobs first. As in KAI a
//! victim's queue is judged by what it holds *before* the victim goes, so the last victim may push it below its share.

use std::collections::BTreeSet;

use super::book::Book;
use super::floor::Floor;
use super::queue::Queue;
use super::room::Room;
use crate::jobs::{JobIx, Ms, Order, Policy, Wish};

/// Fair share by queue.
pub struct Fair {
    reclaims: bool,
    book: Book,
    /// By queue: who waits, GPUs held, GPUs waited for.
    queues: Vec<Share>,
}

#[derive(Default)]
struct Share {
    waiting: Queue<u32>,
    held: u32,
    wanted: u32,
}

impl Fair {
    /// Stops nobody.
    pub fn new(floor: Floor) -> Self {
        Self { reclaims: false, book: Book::new(floor), queues: Vec::new() }
    }

    /// Takes from queues above their fair share.
    pub fn reclaiming(floor: Floor) -> Self {
        Self { reclaims: true, ..Self::new(floor) }
    }

    fn waits(&mut self, job: JobIx) {
        let entry = self.book.job(job);
        let (queue, gpus) = (entry.queue as usize, entry.gpus);
        if self.queues.len() <= queue {
            self.queues.resize_with(queue + 1, Share::default);
        }
        self.queues[queue].waiting.insert(gpus, i64::from(job.0), job);
        self.queues[queue].wanted += gpus;
    }

    /// The next job by share and age, its size not in `closed`.
    fn next(&self, closed: &BTreeSet<u32>) -> Option<(JobIx, u32)> {
        let heads = self.queues.iter().filter_map(|share| share.waiting.first(closed).map(|head| (share.held, head)));
        heads.min_by_key(|&(held, (rank, ..))| (held, rank)).map(|(_, (_, job, gpus))| (job, gpus))
    }

    fn start(&mut self, now: Ms, job: JobIx, orders: &mut Vec<Order>) -> bool {
        let entry = self.book.job(job);
        let (queue, gpus) = (entry.queue as usize, entry.gpus);
        let Some(held) = self.book.floor.place(gpus) else { return false };
        let share = &mut self.queues[queue];
        share.waiting.remove(gpus, i64::from(job.0), job);
        share.wanted -= gpus;
        share.held += gpus;
        self.book.start(now, job, held, orders);
        true
    }

    fn allocate(&mut self, now: Ms, orders: &mut Vec<Order>) {
        let mut closed = BTreeSet::new();
        while let Some((job, gpus)) = self.next(&closed) {
            if !self.start(now, job, orders) {
                closed.insert(gpus);
            }
        }
    }

    fn reclaim(&mut self, now: Ms, orders: &mut Vec<Order>) {
        let fair = self.fair_shares();
        let mut closed = BTreeSet::new();
        while let Some((job, gpus)) = self.next_within(&fair, &closed) {
            let victims = {
                let above = |queue: u32| self.queues[queue as usize].held > fair[queue as usize];
                let own = self.book.job(job).queue;
                let price = |job: JobIx| {
                    let entry = self.book.job(job);
                    let ok = entry.preemptible && entry.queue != own && above(entry.queue) && entry.started < now;
                    ok.then_some(u64::from(entry.gpus) * (1 + entry.ran_ms(now) / 1000))
                };
                Room::new(&self.book, &price).victims(gpus)
            };
            match victims {
                Some((victims, _)) => self.take_from(now, &victims, job, orders),
                None => _ = closed.insert(gpus),
            }
        }
    }

    fn take_from(&mut self, now: Ms, victims: &[JobIx], job: JobIx, orders: &mut Vec<Order>) {
        for &victim in victims {
            self.book.stop(victim, orders);
            self.queues[self.book.job(victim).queue as usize].held -= self.book.job(victim).gpus;
            self.waits(victim);
        }
        self.start(now, job, orders);
    }

    /// As [`Fair::next`], of queues that stay within their fair share with that job.
    fn next_within(&self, fair: &[u32], closed: &BTreeSet<u32>) -> Option<(JobIx, u32)> {
        let heads = self.queues.iter().zip(fair).filter_map(|(share, fair)| {
            let (rank, job, gpus) = share.waiting.first(closed)?;
            (share.held + gpus <= *fair).then_some((share.held, rank, job, gpus))
        });
        heads.min_by_key(|&(held, rank, ..)| (held, rank)).map(|(_, _, job, gpus)| (job, gpus))
    }

    /// GPUs that each queue gets when the smallest demands are met first and the rest is split evenly.
    fn fair_shares(&self) -> Vec<u32> {
        let mut demands: Vec<(u32, usize)> = self.queues.iter().map(|share| share.held + share.wanted).zip(0..).collect();
        demands.sort_unstable();
        let mut fair = vec![0; demands.len()];
        let mut left = self.book.floor.gpus();
        for (open, &(demand, queue)) in (1..=u32::try_from(demands.len()).unwrap_or(u32::MAX)).rev().zip(&demands) {
            fair[queue] = demand.min(left / open);
            left -= fair[queue];
        }
        fair
    }
}

impl Policy for Fair {
    fn name(&self) -> &'static str {
        if self.reclaims { "fair-reclaim" } else { "fair" }
    }

    fn submitted(&mut self, now: Ms, job: JobIx, wish: &Wish) {
        self.book.submitted(now, wish);
        self.waits(job);
    }

    fn progressed(&mut self, _now: Ms, job: JobIx, _done_ppm: Option<u32>, checkpoint_at: Option<Ms>) {
        self.book.progressed(job, checkpoint_at);
    }

    fn finished(&mut self, now: Ms, job: JobIx) {
        self.book.finished(now, job);
        let entry = self.book.job(job);
        self.queues[entry.queue as usize].held -= entry.gpus;
    }

    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>) -> Option<Ms> {
        self.allocate(now, orders);
        if self.reclaims {
            self.reclaim(now, orders);
        }
        None
    }
}
