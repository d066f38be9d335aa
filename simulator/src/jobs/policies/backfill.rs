//! EASY backfill with predicted run times: the head of the queue gets a reservation, others go before it when they do not delay it.
//!
//! First come, first served until the head does not fit. Its reservation: the nodes on which, by the predicted ends of who runs there, it can start
//! earliest. Another job starts now if it is predicted to end before that, or if it stays off these nodes. A run that outlives
//! its prediction gets a new one from the history of runs that long. Nobody is stopped.

use std::collections::BTreeSet;

use super::book::Book;
use super::floor::{Floor, Locality};
use super::history::{Group, History};
use super::queue::Queue;
use crate::jobs::{JobIx, Ms, Order, Policy, Wish};

/// Owner, GPUs: jobs alike to the history and to placement.
type Class = (u32, u32);

/// EASY backfill.
pub struct Backfill {
    /// Predictions are this percentile of the history.
    percent: u32,
    history: History,
    book: Book,
    queue: Queue<Class>,
    /// Predicted ends by job; meaningless while it waits.
    ends: Vec<Ms>,
}

/// When the head can start, and where.
struct Reservation {
    at: Ms,
    nodes: BTreeSet<u32>,
}

impl Backfill {
    /// `percent`: which percentile of the history counts as the prediction.
    pub fn new(floor: Floor, history: History, percent: u32) -> Self {
        Self { percent, history, book: Book::new(floor), queue: Queue::default(), ends: Vec::new() }
    }

    fn start(&mut self, now: Ms, (job, class): (JobIx, Class), avoid: &dyn Fn(u32) -> bool, orders: &mut Vec<Order>) -> bool {
        let Some(held) = self.book.floor.place_avoiding(class.1, avoid) else { return false };
        self.queue.remove(class, i64::from(job.0), job);
        self.ends[job.0 as usize] = now + self.predicted(class);
        self.book.start(now, job, held, orders);
        true
    }

    fn predicted(&self, (owner, gpus): Class) -> Ms {
        self.history.left(Group { owner, gpus }, 0, self.percent)
    }

    /// Gives a new prediction to who outlived the old one.
    fn extend(&mut self, now: Ms) {
        for &job in &self.book.running {
            let end = &mut self.ends[job.0 as usize];
            if *end <= now {
                let entry = self.book.job(job);
                *end = now + self.history.left(entry.group, entry.ran_ms(now), self.percent);
            }
        }
    }

    fn reserve(&self, now: Ms, gpus: u32) -> Reservation {
        let floor = &self.book.floor;
        let mut by_node = vec![Vec::new(); floor.sizes().len()];
        for &job in &self.book.running {
            for &(node, count) in self.book.job(job).held.iter().flat_map(|held| &held.nodes) {
                by_node[node as usize].push((self.ends[job.0 as usize], count));
            }
        }
        for ends in &mut by_node {
            ends.sort_unstable();
        }
        match floor.locality() {
            Locality::Strict => reserve_nodes(floor, &by_node, now, gpus),
            Locality::Relaxed => reserve_count(floor, &by_node, now, gpus),
        }
    }
}

/// Whole nodes, earliest free first, and the rest on the next.
fn reserve_nodes(floor: &Floor, by_node: &[Vec<(Ms, u32)>], now: Ms, gpus: u32) -> Reservation {
    let largest = floor.largest();
    let mut reservation = Reservation { at: now, nodes: BTreeSet::new() };
    let whole = (0..gpus / largest).map(|_| largest);
    for need in whole.chain(Some(gpus % largest).filter(|rest| *rest > 0)) {
        let open = (0..).zip(by_node).filter(|(node, _)| !reservation.nodes.contains(node));
        let times = open.filter_map(|(node, ends)| Some((room_at(floor.free()[node as usize], ends, need, now)?, node)));
        if let Some((at, node)) = times.min() {
            reservation.at = reservation.at.max(at);
            reservation.nodes.insert(node);
        }
    }
    reservation
}

/// Any GPUs will do: nothing is kept free by node, others must end in time.
fn reserve_count(floor: &Floor, by_node: &[Vec<(Ms, u32)>], now: Ms, gpus: u32) -> Reservation {
    let mut ends: Vec<(Ms, u32)> = by_node.iter().flatten().copied().collect();
    ends.sort_unstable();
    let at = room_at(floor.free_total(), &ends, gpus, now).unwrap_or(now);
    Reservation { at, nodes: (0..).take(floor.sizes().len()).collect() }
}

/// When `need` GPUs are free, given who ends when.
fn room_at(mut free: u32, ends: &[(Ms, u32)], need: u32, now: Ms) -> Option<Ms> {
    if free >= need {
        return Some(now);
    }
    ends.iter().find_map(|&(end, count)| {
        free += count;
        (free >= need).then_some(end)
    })
}

impl Policy for Backfill {
    fn name(&self) -> &'static str {
        "backfill"
    }

    fn submitted(&mut self, now: Ms, job: JobIx, wish: &Wish) {
        self.book.submitted(now, wish);
        self.ends.push(0);
        let group = self.book.job(job).group;
        self.queue.insert((group.owner, group.gpus), i64::from(job.0), job);
    }

    fn progressed(&mut self, _now: Ms, _job: JobIx, _done_ppm: Option<u32>, _checkpoint_at: Option<Ms>) {}

    fn finished(&mut self, now: Ms, job: JobIx) {
        self.book.finished(now, job);
        let entry = self.book.job(job);
        self.history.ended(entry.group, entry.ran_ms(now));
    }

    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>) -> Option<Ms> {
        let mut closed = BTreeSet::new();
        let head = loop {
            let (_, job, class) = self.queue.first(&closed)?;
            if !self.start(now, (job, class), &|_| false, orders) {
                break class;
            }
        };
        self.extend(now);
        let reservation = self.reserve(now, head.1);
        closed.insert(head);
        while let Some((_, job, class)) = self.queue.first(&closed) {
            let in_time = now + self.predicted(class) <= reservation.at;
            let avoid = |node: u32| !in_time && reservation.nodes.contains(&node);
            if !self.start(now, (job, class), &avoid, orders) {
                closed.insert(class);
            }
        }
        None
    }
}
