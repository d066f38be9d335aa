//! Reservations: a job that cannot start for lack of devices is promised those that are expected to come free first.
//!
//! Until then they are kept for it as they come free, and only work that is expected to be done before is let in (EASY
//! backfill, Lifka 1995); what overstays is the first to go when the reservation is due. So the head of a queue waits no
//! longer than the longest of what runs when it is promised its devices, whatever is submitted after it.

use crate::ask::{Amount, Ask};
use crate::cluster::{Claim, bits};
use crate::names::JobName;
use crate::state::{Job, Reservation, Seat, State};
use crate::time::At;

use super::displace::Want;
use super::gang::Gang;
use super::round::Round;

/// A reservation that could not be kept is made anew not sooner than this.
const RETRY_MS: u64 = 30_000;

/// What is held for reservations while a round decides.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds {
    claims: Vec<(u32, u32, Claim)>,
}

/// When the next reservation is due, or one that was not kept is made anew.
pub(super) fn next_due(state: &State) -> Option<At> {
    let moment = |reservation: &Reservation| {
        if reservation.at > state.now { reservation.at } else { reservation.made.plus(RETRY_MS) }
    };
    state.reservations.values().map(moment).filter(|at| *at > state.now).min()
}

impl Round<'_> {
    /// Whether the job has a reservation that is due.
    pub(super) fn is_reserved(&self, ix: u32) -> bool {
        self.state.reservations.get(&ix).is_some_and(|reservation| reservation.at <= self.state.now)
    }

    /// Holds what is free of every reservation; those without a waiting job are forgotten.
    pub(super) fn open_reservations(&mut self) {
        let waits = |state: &State, ix: u32| state.jobs.at(ix).is_some_and(|job| job.run().is_none() && !job.is_unwanted());
        let gone: Vec<u32> = self.state.reservations.keys().copied().filter(|ix| !waits(self.state, *ix)).collect();
        for ix in gone {
            self.forget_reservation(ix);
        }
        for ix in self.promised() {
            self.hold(ix);
        }
    }

    /// Who has a reservation, the older promise first: where two want the same part of a device, it is the older one's, however
    /// often what is held is let go and held again.
    fn promised(&self) -> Vec<u32> {
        let mut all: Vec<(At, u32)> = self.state.reservations.iter().map(|(ix, reservation)| (reservation.made, *ix)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, ix)| ix).collect()
    }

    /// Nothing is kept for the job any more: others may have it, or a reservation of their own.
    pub(super) fn forget_reservation(&mut self, ix: u32) {
        self.lift(ix);
        if self.state.reservations.remove(&ix).is_some() {
            self.desk.wakes.came_free();
        }
    }

    /// Lets go of everything that is held.
    pub(super) fn close_reservations(&mut self) {
        for (_, node, claim) in std::mem::take(&mut self.holds.claims) {
            self.desk.books.cluster.release(node, claim);
        }
    }

    /// Lets go of what is held for one job.
    pub(super) fn lift(&mut self, ix: u32) {
        if self.holds.claims.iter().all(|(of, ..)| *of != ix) {
            return;
        }
        let (lifted, rest) = std::mem::take(&mut self.holds.claims).into_iter().partition(|(of, _, _)| *of == ix);
        self.holds.claims = rest;
        for (_, node, claim) in lifted {
            self.desk.books.cluster.release(node, claim);
        }
    }

    /// Holds what is free of a job's reservation.
    pub(super) fn hold(&mut self, ix: u32) {
        let Some(reservation) = self.state.reservations.get(&ix) else { return };
        let Some(job) = self.state.jobs.at(ix) else { return };
        for seat in &reservation.seats {
            let Some(group) = job.spec.groups.get(usize::from(seat.group)) else { continue };
            for claim in self.free_part(&group.ask, seat) {
                self.desk.books.cluster.claim(seat.node, claim);
                self.holds.claims.push((ix, seat.node, claim));
            }
        }
    }

    /// Claims on those devices of a seat that have room for it now.
    fn free_part(&self, ask: &Ask, seat: &Seat) -> Vec<Claim> {
        let Some(claim) = self.desk.books.claim_of(ask, seat) else { return Vec::new() };
        let Some(node) = self.desk.books.cluster.node(seat.node) else { return Vec::new() };
        let room = |at: &usize| {
            node.devices.get(*at).is_some_and(|device| match ask.amount {
                Amount::Whole(_) | Amount::None => device.firm == 0,
                // Instances are not held beside shares, nor shares beside instances.
                Amount::Mig(_) => {
                    (device.firm == 0 || device.slices != 0) && device.slices & seat.slices == 0 && device.milli >= claim.milli
                }
                Amount::Milli(_) | Amount::MemoryMib(_) | Amount::Slice { .. } => {
                    device.slices == 0 && device.milli >= claim.milli && device.mib >= claim.mib
                }
            })
        };
        let share = u64::from(seat.mask.count_ones().max(1));
        bits(seat.mask)
            .filter(room)
            .map(|at| Claim { mask: 1 << at, cpu_milli: claim.cpu_milli / share, memory_mib: claim.memory_mib / share, ..claim })
            .collect()
    }

    /// Promises devices to a job that cannot start: what is expected to come free first and is enough.
    pub(super) fn reserve(&mut self, ix: u32, want: &Want) {
        let now = self.state.now;
        let limit = self.state.policy.max_reservations as usize;
        let (lower, others) = self.beside(ix, want);
        let mine = self.state.reservations.get(&ix);
        let full = mine.is_none() && self.state.reservations.len() - lower.len() >= limit;
        let fresh = mine.is_some_and(|reservation| reservation.at > now || now.since(reservation.made) < RETRY_MS);
        if limit == 0 || others > 0 || full || fresh {
            return;
        }
        let mut put_by = Vec::new();
        for other in lower.into_iter().chain([ix]) {
            self.lift(other);
            put_by.extend(self.state.reservations.remove(&other).map(|reservation| (other, reservation)));
        }
        let was = put_by.pop_if(|(of, _)| *of == ix).map(|(_, was)| was);
        if let Some((at, seats)) = self.earliest(want.gang()) {
            self.state.reservations.insert(ix, Reservation { at: at.max(now.plus(1)), made: now, seats });
            self.hold(ix);
        } else {
            for (of, reservation) in std::mem::take(&mut put_by) {
                self.state.reservations.insert(of, reservation);
                self.hold(of);
            }
        }
        let is = self.state.reservations.get(&ix);
        let moved = was.is_some_and(|was| is.is_none_or(|is| (is.at, &is.seats) != (was.at, &was.seats)));
        if moved || !put_by.is_empty() {
            self.desk.wakes.came_free();
        }
    }

    /// Reservations of other jobs of the claimant's queue: those of lower priority, and how many more.
    fn beside(&self, ix: u32, want: &Want) -> (Vec<u32>, usize) {
        let others = self.state.reservations.keys().copied().filter(|other| *other != ix);
        let priority = |other: u32| {
            let job = self.state.jobs.at(other).filter(|job| job.spec.queue == want.spec.queue);
            job.map(|job| (job.spec.priority < want.spec.priority, other))
        };
        let (lower, rest): (Vec<_>, Vec<_>) = others.filter_map(priority).partition(|(lower, _)| *lower);
        (lower.into_iter().map(|(_, other)| other).collect(), rest.len())
    }

    /// Places a gang on what is held for jobs of its queue that stand lower: their promises are forgotten.
    pub(super) fn overtake(&mut self, want: &Want) -> Option<Vec<Seat>> {
        let lower = self.lift_lower(want);
        if lower.is_empty() {
            return None;
        }
        let placed = self.desk.books.place_gang(want.gang()).ok();
        self.put_back(lower, placed.is_some());
        placed
    }

    /// Lets go of what is held for jobs of the claimant's queue that stand lower: whose that was.
    pub(super) fn lift_lower(&mut self, want: &Want) -> Vec<u32> {
        let lower = want.job.map(|ix| self.beside(ix, want).0).unwrap_or_default();
        for other in &lower {
            self.lift(*other);
        }
        lower
    }

    /// Holds it again, or, if it is taken, forgets the promises.
    pub(super) fn put_back(&mut self, lower: Vec<u32>, is_taken: bool) {
        for other in lower {
            if is_taken {
                self.forget_reservation(other);
            } else {
                self.hold(other);
            }
        }
    }

    /// When and where a gang fits if running work ends as expected and nothing else starts; the books are as before. What comes
    /// free and is promised to others is not counted on.
    fn earliest(&mut self, gang: Gang<'_>) -> Option<(At, Vec<Seat>)> {
        let mut ends: Vec<(At, u32)> = Vec::new();
        for lists in &self.desk.queues {
            let running = lists.holders.iter().filter_map(|ix| Some((*ix, self.state.jobs.at(*ix)?)));
            ends.extend(running.map(|(ix, job)| (self.end_of(job), ix)));
        }
        ends.sort_unstable();
        let mark = self.desk.books.mark();
        let held = self.holds.clone();
        let mut released = 0;
        let mut step = 1;
        let mut found = None;
        let promised = self.promised();
        while found.is_none() && released < ends.len() {
            let upto = (released + step).min(ends.len());
            for (_, ix) in &ends[released..upto] {
                self.suppose_ended(*ix);
            }
            (released, step) = (upto, step * 2);
            for other in &promised {
                self.lift(*other);
                self.hold(*other);
            }
            let at = ends[released - 1].0;
            let inner = self.desk.books.mark();
            found = self.desk.books.place_gang(gang).ok().map(|seats| (at, seats));
            self.desk.books.rollback(inner);
        }
        self.desk.books.rollback(mark);
        self.holds = held;
        found
    }

    fn suppose_ended(&mut self, ix: u32) {
        let Some(job) = self.state.jobs.at(ix) else { return };
        let kept = super::round::firm(job).to_vec();
        let queue = self.desk.books.tree.node(&job.spec.queue);
        for (ask, seat) in super::desk::Desk::asks(&job.spec, &kept) {
            self.desk.books.free(queue, ask, seat);
        }
    }

    /// When a holder is expected to be gone.
    fn end_of(&self, job: &Job) -> At {
        let now = self.state.now;
        match job.run() {
            Some(run) if run.stop.as_ref().is_some_and(|stop| stop.keep.is_empty()) => now.plus(self.state.stop_ms),
            Some(run) if run.expected_end > now => run.expected_end,
            // It has outlived what was expected: as long again as half its age.
            Some(run) => now.plus(now.since(run.since) / 2 + 1_000),
            None => now.plus(self.state.expected_left_ms(job, self.state.policy.predict_percent as usize)),
        }
    }

    /// Places a gang on what is held for others if it is expected to be done before they start. The moment and whose it is.
    pub(super) fn backfill(&mut self, ix: u32, gang: Gang<'_>) -> Option<(Vec<Seat>, At, JobName)> {
        if self.holds.claims.is_empty() {
            return None;
        }
        let job = self.state.jobs.at(ix)?;
        let done = self.state.now.plus(self.state.expected_left_ms(job, self.state.policy.predict_percent as usize));
        let later: Vec<(At, u32)> =
            self.state.reservations.iter().map(|(ix, reservation)| (reservation.at, *ix)).filter(|(at, _)| *at >= done).collect();
        let (until, first) = later.iter().min().copied()?;
        let name = self.state.jobs.name(first).cloned()?;
        for (_, ix) in &later {
            self.lift(*ix);
        }
        let placed = self.desk.books.place_gang(gang).ok();
        for other in self.promised().into_iter().filter(|other| *other != ix) {
            self.lift(other);
            self.hold(other);
        }
        placed.map(|seats| (seats, until, name))
    }
}
