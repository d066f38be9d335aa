//! Consolidation: running jobs move to other devices so that a waiting gang fits and nobody is stopped for good.
//!
//! Worker by worker, the node that lacks the fewest devices is cleared: its smallest jobs that are enough get new places
//! elsewhere, or the next node is tried. Only jobs on one node move, and only those that may be stopped and have run for long
//! enough that a restart is cheap ([`claim::is_cheap`]). All of it is tried on the books: every moved job has its new place
//! before anything is ordered, so nobody is lost. Greedy: the exact problem is bin packing.

use crate::ask::{Amount, Ask};
use crate::claim;
use crate::cluster::{AskIx, Holder};
use crate::plan::Reason;
use crate::state::{Group, HOUR_MS, Job, JobSpec, Seat};
use crate::time::At;

use super::desk::{Desk, given_up};
use super::displace::{Denied, Want};
use super::gang::Gang;
use super::predict;
use super::round::Round;

/// Nodes tried for one worker.
const MAX_NODES: usize = 8;

/// A job and its new seats; the books hold them.
type Move = (u32, Vec<Seat>);

/// A job that may move, and its devices.
type Movable = (u32, u32);

/// How far a search is; the books say the same.
#[derive(Clone)]
struct Search {
    /// By node, the smallest first.
    movable: Vec<Vec<Movable>>,
    moves: Vec<Move>,
    /// The claimant's.
    seats: Vec<Seat>,
}

impl Round<'_> {
    /// Places the claimant's gang where others moved aside for it, or changes nothing.
    pub(super) fn consolidate(&mut self, want: &Want) -> Result<Vec<Seat>, Denied> {
        let devices = |ask: &Ask| if let Amount::Whole(devices) = ask.amount { devices } else { 0 };
        let plain = |group: &Group| devices(&group.ask) > 0 && group.spread.is_none();
        if want.spec.spread.is_some() || !want.spec.groups.iter().all(plain) {
            return Err(Denied::TooFew);
        }
        let need: u64 = want.spec.groups.iter().map(|group| u64::from(devices(&group.ask)) * u64::from(group.min)).sum();
        let free = |node: &crate::cluster::NodeFree| node.free.iter().filter(|milli| **milli == 1000).count() as u64;
        if self.desk.books.cluster.nodes().iter().map(free).sum::<u64>() < need {
            return Err(Denied::TooFew);
        }
        let mut search = Search { movable: self.movable(want), moves: Vec::new(), seats: Vec::new() };
        let mark = self.desk.books.mark();
        let found = (0_u16..).zip(&want.spec.groups).all(|(number, group)| self.clear_group(want, number, group, &mut search));
        let in_order = predict::is_responsive(self.state, &want.spec.queue);
        let denied = if found { self.denied_by_cap(search.moves.len(), in_order) } else { Some(Denied::TooFew) };
        if let Some(denied) = denied {
            self.desk.books.rollback(mark);
            return Err(denied);
        }
        self.carry_moves(want, search.moves);
        Ok(search.seats)
    }

    /// Room for all workers of a group, on one class.
    fn clear_group(&mut self, want: &Want, number: u16, group: &Group, search: &mut Search) -> bool {
        for ask in self.desk.books.variants(&group.ask, group.min, false) {
            let (mark, before) = (self.desk.books.mark(), search.clone());
            if (0..group.min).all(|_| self.clear_one(want, number, ask, search)) {
                return true;
            }
            self.desk.books.rollback(mark);
            *search = before;
        }
        false
    }

    /// Room for one worker, on the node that has to be cleared the least.
    fn clear_one(&mut self, want: &Want, number: u16, index: AskIx, search: &mut Search) -> bool {
        let ask = self.desk.books.cluster.ask(index).clone();
        let devices = ask.devices();
        let mut nodes: Vec<(u32, u32)> = Vec::new();
        for (ix, node) in (0_u32..).zip(self.desk.books.cluster.nodes()) {
            let eligible = node.eligible(&ask);
            let free = crate::cluster::bits(eligible).filter(|at| node.free.get(*at) == Some(&1000)).count();
            let free = u32::try_from(free).unwrap_or(u32::MAX);
            let held: u32 = search.movable.get(ix as usize).into_iter().flatten().map(|(_, devices)| devices).sum();
            if eligible.count_ones() >= devices && free.saturating_add(held) >= devices {
                nodes.push((devices.saturating_sub(free), ix));
            }
        }
        nodes.sort_unstable();
        nodes.truncate(MAX_NODES);
        for (missing, node) in nodes {
            let (mark, moved) = (self.desk.books.mark(), search.moves.len());
            let stay = search.movable.get(node as usize).cloned().unwrap_or_default();
            let left = self.leave_to(node, missing, search);
            let seat = if left { self.desk.books.place(want.queue, index, node, !want.spec.preemptible).ok() } else { None };
            if let Some(seat) = seat
                && self.rehome(search.moves.get_mut(moved..).unwrap_or_default())
            {
                search.seats.push(Seat { group: number, ..seat });
                return true;
            }
            self.desk.books.rollback(mark);
            search.moves.truncate(moved);
            search.movable.iter_mut().skip(node as usize).take(1).for_each(|list| list.clone_from(&stay));
        }
        false
    }

    /// Jobs with at least `missing` devices on the node are about to leave it; whether there are enough.
    fn leave_to(&mut self, node: u32, mut missing: u32, search: &mut Search) -> bool {
        while missing > 0 {
            let Some(list) = search.movable.get_mut(node as usize) else { return false };
            let enough = list.iter().position(|(_, devices)| *devices >= missing);
            let Some(at) = enough.or(list.len().checked_sub(1)) else { return false };
            let (ix, devices) = list.remove(at);
            let Some((job, run)) = self.state.jobs.at(ix).and_then(|job| Some((job, job.run()?))) else { return false };
            let queue = self.desk.books.tree.node(&job.spec.queue);
            for (ask, seat) in Desk::asks(&job.spec, &run.seats) {
                self.desk.books.loosen(queue, ask, seat, Holder::Job(ix));
            }
            search.moves.push((ix, Vec::new()));
            missing = missing.saturating_sub(devices);
        }
        true
    }

    /// New places for jobs that leave theirs, the largest first, on devices that nobody has to leave.
    fn rehome(&mut self, moves: &mut [Move]) -> bool {
        let devices = |ix: u32| self.state.jobs.at(ix).and_then(Job::run).map_or(0, |run| devices_of(&run.seats));
        moves.sort_by_key(|(ix, _)| (std::cmp::Reverse(devices(*ix)), *ix));
        for (ix, seats) in moves {
            let Some(placed) = self.place_again(*ix) else { return false };
            *seats = placed;
        }
        true
    }

    /// A running job that gave up all it holds, placed anew as large as it is, on devices that nobody has to leave first.
    pub(super) fn place_again(&mut self, ix: u32) -> Option<Vec<Seat>> {
        let job = self.state.jobs.at(ix)?;
        let queue = self.desk.books.tree.node(&job.spec.queue)?;
        let run = job.run()?;
        let (spec, before) = (sized(&job.spec, &run.seats), run.seats.clone());
        let mark = self.desk.books.mark();
        let seats = self.desk.books.place_gang(Gang { spec: &spec, queue, own_only: !spec.preemptible }).ok()?;
        if seats.iter().all(|seat| self.is_settled(seat)) {
            // A seat without devices may be the one that it had: then nobody leaves it.
            let same = given_up(&before, &given_up(&before, &seats));
            for (ask, seat) in Desk::asks(&spec, &same) {
                self.desk.books.settle(ask, seat, Holder::Job(ix));
            }
            return Some(seats);
        }
        self.desk.books.rollback(mark);
        None
    }

    /// Whether nobody is about to leave the seat's devices.
    fn is_settled(&self, seat: &Seat) -> bool {
        let node = self.desk.books.cluster.node(seat.node);
        node.is_some_and(|node| node.releasing.iter().all(|releasing| releasing.claim.mask & seat.mask == 0))
    }

    /// Jobs that may move, by node.
    fn movable(&mut self, want: &Want) -> Vec<Vec<Movable>> {
        let now = self.state.now;
        let mut by_node = vec![Vec::new(); self.desk.books.cluster.nodes().len()];
        let mut later: Option<At> = None;
        for ix in self.desk.queues.iter().flat_map(|lists| lists.holders.iter().copied()) {
            let Some(job) = self.state.jobs.at(ix).filter(|job| want.job != Some(ix) && job.spec.preemptible) else { continue };
            let Some(run) = job.run().filter(|run| run.stop.is_none()) else { continue };
            let Some(first) = run.seats.first() else { continue };
            let whole = job.spec.groups.iter().all(|group| matches!(group.ask.amount, Amount::Whole(_)));
            if !whole || run.seats.iter().any(|seat| seat.node != first.node) {
                continue;
            }
            // Who was displaced at this very moment is not displaced again before the next.
            let settled = if job.disruptions.last() == Some(&now) { now.plus(1) } else { now };
            let cheap = settled.max(run.since.plus(claim::cheap_after(job.spec.restart_ms)));
            let until = job.protected_until(now).map_or(cheap, |until| until.max(cheap));
            if until > now {
                later = Some(later.map_or(until, |at| at.min(until)));
            } else if let Some(list) = by_node.get_mut(first.node as usize) {
                list.push((ix, devices_of(&run.seats)));
            }
        }
        if let Some(at) = later.filter(|at| *at < At(u64::MAX)) {
            self.desk.wakes.retry(at);
        }
        for list in &mut by_node {
            list.sort_unstable_by_key(|(ix, devices)| (*devices, *ix));
        }
        by_node
    }

    fn carry_moves(&mut self, want: &Want, moves: Vec<Move>) {
        let now = self.state.now;
        self.displaced = true;
        self.state.evictions.extend(std::iter::repeat_n(now, moves.len()));
        for (ix, seats) in moves {
            let Some(job) = self.state.jobs.at_mut(ix) else { continue };
            job.disruptions.retain(|at| now.since(*at) < HOUR_MS);
            job.disruptions.push(now);
            let lost_ms = job.lost_work_ms(now);
            self.note_stop(ix, seats, Reason::Moved { by: want.by.clone(), lost_ms });
        }
    }
}

fn devices_of(seats: &[Seat]) -> u32 {
    seats.iter().map(|seat| seat.mask.count_ones()).sum()
}

/// The specification with the groups' present sizes as their minimum.
fn sized(spec: &JobSpec, seats: &[Seat]) -> JobSpec {
    let mut spec = spec.clone();
    for (number, group) in (0_u16..).zip(&mut spec.groups) {
        let count = seats.iter().filter(|seat| seat.group == number).count();
        group.min = u32::try_from(count).unwrap_or(group.min);
    }
    spec
}
