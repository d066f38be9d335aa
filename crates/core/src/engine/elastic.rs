//! Elastic jobs: what is free is shared out one worker at a time to whom it helps most.
//!
//! The next worker goes where it raises a job's speed by the largest part of what it is (the marginal speed-up; for jobs that
//! scale alike this is the smallest job), since that shortens the sum of all jobs' logarithmic run times most. A running job
//! restarts to grow, so it waits until devices stayed free and its last restart has paid.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use crate::node::Health;
use crate::plan::Reason;
use crate::quota::NodeIx;
use crate::state::{Job, JobSpec, Phase, Run, Seat, State};
use crate::time::At;

use super::desk::Desk;
use super::gang::Gang;
use super::jobs::Chosen;
use super::round::Round;

/// Who is next: the largest gain, jobs that start before jobs that run, the lower slot.
type Bid = (u64, bool, std::cmp::Reverse<u32>);

/// A job that may have more workers.
struct Bidder {
    spec: Arc<JobSpec>,
    queue: NodeIx,
    seats: Vec<Seat>,
    /// New ones, claimed in the books.
    added: Vec<Seat>,
    starts: bool,
}

impl Bidder {
    fn of(round: &Round, ix: u32, seats: &[Seat], starts: bool) -> Option<Self> {
        let job = round.state.jobs.at(ix)?;
        let there = round.state.queues.contains_key(&job.spec.queue);
        let queue = round.desk.books.tree.node(&job.spec.queue).filter(|_| there)?;
        Some(Self { spec: job.spec.clone(), queue, seats: seats.to_vec(), added: Vec::new(), starts })
    }

    /// Gain of one more worker, in millionths of its speed.
    fn bid(&self, ix: u32) -> Option<Bid> {
        let workers = u32::try_from(self.seats.len()).unwrap_or(u32::MAX);
        self.spec.growing_group(&self.seats)?;
        let (now, more) = (self.spec.speed_milli(workers), self.spec.speed_milli(workers + 1));
        let gain = more.saturating_sub(now).saturating_mul(1_000_000) / now.max(1);
        (gain > 0).then_some((gain, self.starts, std::cmp::Reverse(ix)))
    }

    /// One more worker on devices that are free now.
    fn grow(&mut self, round: &mut Round) -> bool {
        let Some(index) = self.spec.growing_group(&self.seats) else { return false };
        let gang = Gang { spec: &self.spec, queue: self.queue, own_only: !self.spec.preemptible };
        let Some(seat) = round.desk.books.place_one_more(gang, index, &self.seats) else { return false };
        self.seats.push(seat);
        self.added.push(seat);
        true
    }
}

/// Gives workers to bidders until none can have more.
fn auction(round: &mut Round, bidders: &mut BTreeMap<u32, Bidder>) {
    let mut heap: BinaryHeap<(Bid, u32)> = bidders.iter().filter_map(|(ix, bidder)| Some((bidder.bid(*ix)?, *ix))).collect();
    while let Some((_, ix)) = heap.pop() {
        let Some(bidder) = bidders.get_mut(&ix) else { continue };
        if bidder.grow(round)
            && let Some(bid) = bidder.bid(ix)
        {
            heap.push((bid, ix));
        }
    }
}

/// Shares out devices that are free now among the starting gangs. A running job that is owed its turn is left it (a claim in
/// the books that is given back): it grows after the hysteresis.
pub(super) fn share_out(round: &mut Round, chosen: &[Chosen]) {
    let mut bidders = BTreeMap::new();
    for one in chosen.iter().filter(|one| !one.resumed) {
        let Some(job) = round.state.jobs.at(one.ix).filter(|job| job.spec.is_elastic()) else { continue };
        let Phase::Waiting { keep, .. } = &job.phase else { continue };
        if !keep.is_empty()
            && let Some(bidder) = Bidder::of(round, one.ix, &keep.clone(), true)
        {
            bidders.insert(one.ix, bidder);
        }
    }
    if bidders.is_empty() {
        return;
    }
    add_running(round, &mut bidders);
    auction(round, &mut bidders);
    for (ix, bidder) in bidders {
        if bidder.starts {
            round.keep(ix, bidder.seats);
        } else {
            give_back(round, &bidder);
        }
    }
}

fn add_running(round: &Round, bidders: &mut BTreeMap<u32, Bidder>) {
    for ix in &round.desk.growable {
        let Some(run) = round.state.jobs.at(*ix).and_then(Job::run) else { continue };
        if let Some(bidder) = Bidder::of(round, *ix, &run.seats, false) {
            bidders.insert(*ix, bidder);
        }
    }
}

fn give_back(round: &mut Round, bidder: &Bidder) {
    for (ask, seat) in Desk::asks(&bidder.spec, &bidder.added) {
        round.desk.books.free(Some(bidder.queue), ask, seat);
    }
}

/// Since when a run has paid for its last restart: growing sooner would cost more than it brings.
fn settled_at(state: &State, job: &Job, run: &Run) -> At {
    run.since.plus(2 * job.spec.restart_ms + state.policy.grow_after_ms)
}

/// Restarts running jobs larger, on devices that were free long enough.
pub(super) fn grow(round: &mut Round) {
    let now = round.state.now;
    if round.desk.growable.is_empty() {
        return;
    }
    let mut bidders = BTreeMap::new();
    add_running(round, &mut bidders);
    auction(round, &mut bidders);
    for (ix, bidder) in bidders {
        let Some(job) = round.state.jobs.at(ix) else { continue };
        let Some(run) = job.run() else { continue };
        let ripe = run.observed && settled_at(round.state, job, run) <= now;
        let (long, young): (Vec<Seat>, Vec<Seat>) = bidder.added.iter().partition(|seat| ripe && was_free(round.state, seat));
        for (ask, seat) in Desk::asks(&bidder.spec, &young) {
            round.desk.books.free(Some(bidder.queue), ask, seat);
        }
        if long.is_empty() {
            continue;
        }
        let from = u32::try_from(run.seats.len()).unwrap_or(u32::MAX);
        let keep: Vec<Seat> = run.seats.iter().chain(&long).copied().collect();
        let to = u32::try_from(keep.len()).unwrap_or(u32::MAX);
        let queue = job.spec.queue.clone();
        round.note_stop(ix, keep, Reason::Grow { from, to });
        round.desk.quota_was_used(&queue);
    }
}

/// Where running jobs would grow onto `spare`, which is held, once they have had all that is free. The books are as before.
pub(super) fn would_take(round: &mut Round, spare: &[(u32, Seat)]) -> Vec<Seat> {
    let mut bidders = BTreeMap::new();
    add_running(round, &mut bidders);
    let state = &round.state;
    let ripe = |ix: &u32| {
        let job = state.jobs.at(*ix);
        job.and_then(|job| Some((job, job.run()?))).is_some_and(|(job, run)| settled_at(state, job, run) <= state.now)
    };
    bidders.retain(|ix, _| ripe(ix));
    if bidders.is_empty() {
        return Vec::new();
    }
    let mark = round.desk.books.mark();
    auction(round, &mut bidders);
    let had: Vec<usize> = bidders.values().map(|bidder| bidder.added.len()).collect();
    for (ix, seat) in spare {
        let Some(replica) = round.state.replicas.at(*ix) else { continue };
        let queue = round.state.models.get(&replica.model).and_then(|model| round.desk.books.tree.node(&model.spec.queue));
        round.desk.books.free(queue, &replica.ask, seat);
    }
    auction(round, &mut bidders);
    round.desk.books.rollback(mark);
    bidders.values().zip(had).flat_map(|(bidder, had)| bidder.added.iter().skip(had).copied()).collect()
}

/// Whether the seat's devices were free for as long as the policy asks.
fn was_free(state: &State, seat: &Seat) -> bool {
    let long = |since: Option<At>| since.is_some_and(|since| state.now.since(since) >= state.policy.grow_after_ms);
    state.devices_of(seat).all(|device| long(device.free_since))
}

/// The next moment at which a running job may grow onto a device that is free now.
pub(super) fn next_growth(state: &State, desk: &Desk) -> Option<At> {
    if desk.growable.is_empty() {
        return None;
    }
    // Work on CPU alone grows without a device.
    let on_cpu = |ix: &u32| {
        let groups = state.jobs.at(*ix).map_or(&[][..], |job| &job.spec.groups);
        groups.iter().any(|group| group.max > group.min && group.ask.devices() == 0)
    };
    let healthy = state.devices().filter(|device| device.health == Health::Ok);
    let mut any = desk.growable.iter().any(on_cpu) || !desk.surplus.is_empty();
    let ripe =
        healthy.filter_map(|device| device.free_since).inspect(|_| any = true).map(|at| at.plus(state.policy.grow_after_ms));
    let first = ripe.filter(|at| *at > state.now).min();
    if !any {
        return None;
    }
    let settled = desk.growable.iter().filter_map(|ix| {
        let job = state.jobs.at(*ix)?;
        job.run().map(|run| settled_at(state, job, run))
    });
    settled.filter(|at| *at > state.now).chain(first).min()
}
