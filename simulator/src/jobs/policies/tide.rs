//! Carries out [`Rule`]: starts jobs in its order, moves others aside for them, and stops whom it lets yield, the least lost work first.
//!
//! GPUs that are free are given at every event. Once a round (claims drift slowly, and each look costs the whole cluster) each waiting job,
//! in order, gets room (1) by moving jobs to other free GPUs, which costs them a restart and no work, else (2) in the place of jobs that
//! yield to it, of which those that fit elsewhere move and the others stop. Predictions are the least expected time per completion (Gittins)
//! of the jobs of the same owner and size that ran longer; that of a running job is renewed when it ran a sixteenth longer than at the last.

use std::collections::{BTreeSet, HashMap};

use super::book::Book;
use super::floor::Floor;
use super::history::{Group, History};
use super::moves::moves;
use super::queue::{Queue, Rank};
use super::room::Room;
use super::tide_rule::{Claim, Rule, View};
use crate::jobs::{JobIx, Ms, Order, Policy, Wish};

/// Ours.
pub struct Tide {
    rule: Rule,
    /// Time between looks for yields.
    round_ms: Ms,
    /// What a restart costs, as the cluster has measured it.
    restart_ms: Ms,
    history: History,
    book: Book,
    queue: Queue<u32>,
    /// By job.
    left: Vec<Left>,
    next_round: Ms,
}

/// A prediction, and for which age it was made.
#[derive(Clone, Copy, Default)]
struct Left {
    at_ran: Ms,
    left: Ms,
}

impl Tide {
    /// `restart_ms`: what a restart costs.
    pub fn new(floor: Floor, history: History, rule: Rule, round_ms: Ms, restart_ms: Ms) -> Self {
        let (book, queue) = (Book::new(floor), Queue::default());
        Self { rule, round_ms, restart_ms, history, book, queue, left: Vec::new(), next_round: 0 }
    }

    fn view(&self, now: Ms, job: JobIx) -> View {
        let entry = self.book.job(job);
        View {
            gpus: entry.gpus,
            ran_ms: entry.ran_ms(now),
            left_ms: self.left[job.0 as usize].left,
            waited_ms: entry.waited_ms(now),
            since_start_ms: now - entry.started,
            stop_cost_ms: entry.stop_cost_ms(now, self.restart_ms),
            preemptible: entry.preemptible,
        }
    }

    fn predict(&mut self, now: Ms, job: JobIx) {
        let entry = self.book.job(job);
        let at_ran = entry.ran_ms(now);
        self.left[job.0 as usize] = Left { at_ran, left: self.history.rank(entry.group, at_ran) };
    }

    fn enqueue(&mut self, now: Ms, job: JobIx) {
        let claim = self.rule.claim(&self.view(now, job));
        self.queue.insert(self.book.job(job).gpus, claim, job);
    }

    /// New claims for all that wait, new predictions for those whose time has come.
    fn renew(&mut self, now: Ms) {
        for at in 0..self.book.running.len() {
            let job = self.book.running[at];
            let last = self.left[job.0 as usize].at_ran;
            if self.book.job(job).ran_ms(now) > last + last / 16 + self.round_ms {
                self.predict(now, job);
            }
        }
        let mut unstarted: HashMap<Group, Left> = HashMap::new();
        for job in std::mem::take(&mut self.queue).iter() {
            let entry = self.book.job(job);
            if entry.kept_ms == 0 {
                let fresh = || Left { at_ran: 0, left: self.history.rank(entry.group, 0) };
                self.left[job.0 as usize] = *unstarted.entry(entry.group).or_insert_with(fresh);
            }
            self.enqueue(now, job);
        }
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

    /// Lets running jobs yield, for the waiting jobs in order.
    fn make_way(&mut self, now: Ms, orders: &mut Vec<Order>) {
        let mut stoppable = self.stoppable(now);
        let mut closed = BTreeSet::new();
        while let Some(first) = self.queue.first(&closed) {
            if self.move_aside(now, first, orders) {
                continue;
            }
            let price = |job: JobIx| {
                let &(claim, price) = stoppable.get(&job)?;
                self.rule.outweighs(first.0, claim).then_some(price)
            };
            let victims = Room::new(&self.book, &price).victims(first.2).map(|(victims, _)| victims);
            if let Some(victims) = victims.filter(|victims| self.replace(now, first, victims, orders)) {
                stoppable.retain(|job, _| !victims.contains(job));
            } else {
                closed.insert(first.2);
            }
        }
    }

    /// Starts the job in the place of `victims`: who finds room elsewhere moves, the others stop.
    fn replace(&mut self, now: Ms, (rank, job, gpus): (Rank, JobIx, u32), victims: &[JobIx], orders: &mut Vec<Order>) -> bool {
        let mut after = self.book.floor.clone();
        for held in victims.iter().filter_map(|victim| self.book.job(*victim).held.as_ref()) {
            after.give(held);
        }
        let Some(target) = after.place(gpus) else { return false };
        let is_target = |node: u32| target.nodes.iter().any(|(other, _)| *other == node);
        for &victim in victims {
            if let Some(held) = self.book.floor.place_avoiding(self.book.job(victim).gpus, &is_target) {
                self.book.shift(now, victim, held, orders);
            } else {
                self.book.stop(now, victim, orders);
                self.predict(now, victim);
                self.enqueue(now, victim);
            }
        }
        self.queue.remove(gpus, rank, job);
        self.book.start(now, job, target, orders);
        true
    }

    /// Starts the job after others moved aside for it, if that is possible.
    fn move_aside(&mut self, now: Ms, first: (Rank, JobIx, u32), orders: &mut Vec<Order>) -> bool {
        let may_move = |job: JobIx| {
            let view = self.view(now, job);
            self.rule.may_stop(&View { stop_cost_ms: self.restart_ms, ..view })
        };
        let Some(moves) = moves(&self.book, first.2, &may_move) else { return false };
        for (job, held) in moves {
            self.book.shift(now, job, held, orders);
        }
        self.start(now, first, orders)
    }

    /// Claim and price (GPU time lost) of all that may be stopped now.
    fn stoppable(&self, now: Ms) -> HashMap<JobIx, (Claim, u64)> {
        let views = self.book.running.iter().map(|&job| (job, self.view(now, job)));
        let cheap = views.filter(|(_, view)| self.rule.may_stop(view));
        cheap.map(|(job, view)| (job, (self.rule.claim(&view), view.stop_cost_ms * u64::from(view.gpus)))).collect()
    }
}

impl Policy for Tide {
    fn name(&self) -> &'static str {
        "tide-rule"
    }

    fn submitted(&mut self, now: Ms, job: JobIx, wish: &Wish) {
        self.book.submitted(now, wish);
        self.left.push(Left::default());
        self.predict(now, job);
        self.enqueue(now, job);
    }

    fn progressed(&mut self, _now: Ms, job: JobIx, _done_ppm: Option<u32>, checkpoint_at: Option<Ms>) {
        self.book.progressed(job, checkpoint_at);
    }

    fn finished(&mut self, now: Ms, job: JobIx) {
        self.book.finished(now, job);
        let entry = self.book.job(job);
        self.history.ended(entry.group, entry.ran_ms(now));
    }

    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>) -> Option<Ms> {
        let round = now >= self.next_round;
        if round {
            self.renew(now);
            self.next_round = now + self.round_ms;
        }
        self.allocate(now, orders);
        if round {
            self.make_way(now, orders);
        }
        (!self.queue.is_empty()).then_some(self.next_round)
    }
}
