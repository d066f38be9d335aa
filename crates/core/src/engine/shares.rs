//! Elastic shares: when the jobs of a responsive queue are put in order, its elastic jobs get the sizes of [`crate::elastic`].
//!
//! Jobs share with each other that are of one queue and priority and ask for devices of one kind. What they hold and what is
//! free to them is shared out; from the sizes follow stops, restarts on fewer or more devices, and starts. All of it is
//! decided at once and carried out by the usual actions, so nothing is remembered but when it was.
//!
//! **Who takes part.** Jobs with one group of whole devices that may be stopped; those of one size too, but only until they
//! run. A running job takes part while its stop is cheap ([`claim::is_cheap`]) and nothing protects it. Others keep what they
//! hold. Where nobody is elastic, nobody shares.
//!
//! With the policy's `share_sizes` off nobody does: sizes then follow the gains of single workers ([`super::elastic`]).
//!
//! **Bounds.** What is free counts as far as quota lets the queue have it, and while jobs of other queues wait, as far as it
//! is the queue's own. It does not count while a job of the queue waits that takes no part and does not stand lower, nor what
//! is held for a reservation. Jobs that become smaller or end count for the cap on evictions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::ask::{Amount, Ask};
use crate::books::GPU;
use crate::claim;
use crate::elastic::{self, Point, Rules, Size};
use crate::names::QueueName;
use crate::plan::Reason;
use crate::quota::NodeIx;
use crate::state::{Group, HOUR_MS, Job, JobSpec, Seat, State};

use super::desk::{Lists, Turn};
use super::gang::Gang;
use super::predict;
use super::round::{Round, firm, shift, shift_from};

/// Sizes of one job that are looked at, about: a linear job may have any from its fewest to its most workers.
const MAX_SIZES: u32 = 256;

/// Jobs that share.
struct Circle {
    queue: QueueName,
    node: NodeIx,
    /// One device of the kind that they ask for.
    ask: Ask,
    members: Vec<Member>,
    /// Others wait: free devices count only as far as they are the queue's own.
    own_only: bool,
    /// Free devices are for others of the queue.
    shut: bool,
}

/// One of them.
struct Member {
    ix: u32,
    /// Devices of one worker.
    devices: u32,
    /// What it runs on.
    seats: Vec<Seat>,
    points: Vec<Point>,
    attained_ms: u64,
    size: Size,
    restart_ms: u64,
    /// Device-milliseconds.
    lost_ms: u64,
}

/// What a member shall hold from now on.
struct Change {
    ix: u32,
    from: Vec<Seat>,
    to: Vec<Seat>,
}

/// The furthest unfinished run by recipe, in milliseconds at its smallest size.
type Furthest<'a> = BTreeMap<&'a str, u64>;

impl State {
    /// Whether the job's size is decided by shares once it runs.
    pub(super) fn shares(&self, spec: &JobSpec) -> bool {
        spec.is_elastic() && self.takes_part(spec)
    }

    /// Whether it gets devices of those that share by shares, and so not otherwise.
    pub(super) fn takes_part(&self, spec: &JobSpec) -> bool {
        self.policy.share_sizes && group_of(spec).is_some() && predict::is_responsive(self, &spec.queue)
    }
}

/// Changes sizes; called once when jobs have been put in order.
pub(super) fn decide(round: &mut Round) {
    for circle in circles(round) {
        let sizes = share(round, &circle);
        let changes = place(round, &circle, &sizes);
        carry(round, &circle.queue, &changes);
    }
}

/// The one group of a job that can take part, and the devices of a worker.
fn group_of(spec: &JobSpec) -> Option<(&Group, u32)> {
    let [group] = spec.groups.as_slice() else { return None };
    match group.ask.amount {
        Amount::Whole(devices) if devices > 0 && spec.preemptible => Some((group, devices)),
        _ => None,
    }
}

/// Who shares with whom: by queue, the higher priority first.
fn circles(round: &mut Round) -> Vec<Circle> {
    let barred = round.barred_kinds();
    let (state, desk) = (&*round.state, &*round.desk);
    let waiting = |lists: &Lists| -> Vec<u32> {
        let kinds = lists.waiting.iter().filter(|(kind, _)| !barred.contains(*kind));
        kinds.flat_map(|(_, turns)| turns).map(|turn| turn.2).collect()
    };
    let mut circles = BTreeMap::new();
    for lists in desk.queues.iter().filter(|lists| shares_any(state, lists)) {
        let Some(node) = lists.node.filter(|_| state.queues.contains_key(&lists.name)) else { continue };
        let own_only = desk.queues.iter().any(|other| other.name != lists.name && !waiting(other).is_empty());
        let waiting = waiting(lists);
        let jobs = waiting.iter().chain(&lists.holders).filter_map(|ix| Some((*ix, state.jobs.at(*ix)?)));
        let mut furthest = Furthest::new();
        for (_, job) in jobs.clone().filter(|(_, job)| !job.spec.recipe.is_empty()) {
            let most = furthest.entry(&job.spec.recipe).or_default();
            *most = (*most).max(job.served_ms(state.now));
        }
        let outside = waiting.iter().filter_map(|ix| state.jobs.at(*ix)).filter(|job| group_of(&job.spec).is_none());
        let highest = outside.map(|job| job.spec.priority).max();
        for (ix, job) in jobs {
            let Some((ask, member)) = Member::of(state, ix, job, &furthest) else { continue };
            let priority = job.spec.priority;
            let shut = highest.is_some_and(|highest| highest >= priority);
            let new = || Circle { queue: lists.name.clone(), node, ask: ask.clone(), members: Vec::new(), own_only, shut };
            circles.entry((&lists.name, Reverse(priority), ask.clone())).or_insert_with(new).members.push(member);
        }
    }
    circles.into_values().collect()
}

/// Whether anybody in a queue is elastic.
fn shares_any(state: &State, lists: &Lists) -> bool {
    let first = |kind: &BTreeSet<Turn>| kind.first().and_then(|turn| state.jobs.at(turn.2));
    let waits = || lists.waiting.values().filter_map(first).any(|job| state.shares(&job.spec));
    state.policy.share_sizes && predict::is_responsive(state, &lists.name) && (lists.elastic > 0 || waits())
}

impl Member {
    fn of(state: &State, ix: u32, job: &Job, furthest: &Furthest<'_>) -> Option<(Ask, Self)> {
        let (spec, now) = (&job.spec, state.now);
        let (group, devices) = group_of(spec)?;
        let seats = match job.run() {
            Some(run) if may_change(state, job) => run.seats.clone(),
            Some(_) => return None,
            None => Vec::new(),
        };
        if job.is_unwanted() || (job.run().is_none() && !firm(job).is_empty()) {
            return None;
        }
        let served = job.served_ms(now);
        let furthest = furthest.get(spec.recipe.as_str()).copied().unwrap_or(0);
        let member = Self {
            ix,
            devices,
            points: points(spec, devices, seats.len()),
            seats,
            attained_ms: work_ms(spec, served),
            size: size(state, job, served, furthest),
            restart_ms: spec.restart_ms,
            lost_ms: job.lost_work_ms(now),
        };
        let ask = Ask { amount: Amount::Whole(1), cpu_milli: 0, memory_mib: 0, ..group.ask.clone() };
        Some((ask, member))
    }

    fn held(&self) -> u32 {
        u32::try_from(self.seats.len()).unwrap_or(u32::MAX).saturating_mul(self.devices)
    }

    fn bid(&self, id: u64) -> elastic::Job<'_> {
        elastic::Job {
            id,
            points: &self.points,
            attained_ms: self.attained_ms,
            size: self.size,
            held: self.held(),
            restart_ms: self.restart_ms,
        }
    }

    /// Workers of its sizes above `held` devices and up to `most`, the largest first.
    fn sizes(&self, held: u32, most: u32) -> impl Iterator<Item = u32> {
        let fits = move |point: &&Point| point.gpus > held && point.gpus <= most;
        self.points.iter().rev().filter(fits).map(|point| point.gpus / self.devices.max(1))
    }
}

/// Whether a running job may be restarted for the sake of others.
fn may_change(state: &State, job: &Job) -> bool {
    let now = state.now;
    let settled = job
        .run()
        .is_some_and(|run| run.observed && run.stop.is_none() && claim::is_cheap(now.since(run.since), job.stop_cost_ms(now)));
    settled && job.spec.is_elastic() && job.protected_until(now).is_none()
}

/// The sizes of a job, that which it has included.
fn points(spec: &JobSpec, devices: u32, workers: usize) -> Vec<Point> {
    let (min, max) = spec.size();
    let listed = spec.speedup.iter().map(|point| point.workers).filter(|workers| (min..=max).contains(workers));
    let apart = (max.saturating_sub(min) / MAX_SIZES + 1) as usize;
    let mut sizes: Vec<u32> =
        if spec.speedup.is_empty() { (min..=max).step_by(apart).chain([max]).collect() } else { listed.collect() };
    sizes.extend([min, u32::try_from(workers).unwrap_or(min)]);
    sizes.retain(|workers| *workers > 0);
    sizes.sort_unstable();
    sizes.dedup();
    let point = |workers: u32| Point { gpus: workers.saturating_mul(devices), choice: 0, speed: spec.speed_milli(workers) };
    sizes.into_iter().map(point).collect()
}

/// The whole work of a job, in milliseconds at a speed of 1000. Its own word, what runs of its recipe took, or the user's.
fn size(state: &State, job: &Job, served_ms: u64, furthest_ms: u64) -> Size {
    let spec = &job.spec;
    let known = match job.progress.done_ppm {
        Some(_) => Some(state.expected_total_ms(job, 50)),
        None => state.history.mean(&spec.owner, &spec.recipe, served_ms),
    };
    match known.or(spec.expected_ms).filter(|total_ms| *total_ms > served_ms) {
        Some(total_ms) => Size::Predicted(work_ms(spec, total_ms)),
        None => Size::AtLeast(work_ms(spec, furthest_ms.max(served_ms))),
    }
}

/// Milliseconds at the smallest size as milliseconds at a speed of 1000.
fn work_ms(spec: &JobSpec, served_ms: u64) -> u64 {
    served_ms.saturating_mul(spec.speed_milli(spec.size().0)) / 1000
}

/// Devices by member.
fn share(round: &mut Round, circle: &Circle) -> Vec<u32> {
    let held: u32 = circle.members.iter().map(Member::held).sum();
    let capacity = held.saturating_add(free(round, circle));
    let age = |at: &usize| {
        let member = circle.members.get(*at)?;
        round.state.jobs.at(member.ix).map(|job| (job.submitted, member.ix))
    };
    let mut order: Vec<usize> = (0..circle.members.len()).collect();
    order.sort_by_key(age);
    let bids: Vec<elastic::Job<'_>> =
        (0..).zip(&order).filter_map(|(id, at)| circle.members.get(*at).map(|member| member.bid(id))).collect();
    let shares = elastic::share(&bids, capacity, &Rules::default());
    let mut sizes: Vec<u32> = circle.members.iter().map(Member::held).collect();
    for (at, share) in order.iter().zip(shares) {
        sizes.iter_mut().skip(*at).take(1).for_each(|size| *size = share.gpus);
    }
    spare(round, circle, &mut sizes);
    sizes
}

/// Devices that are free to a circle.
fn free(round: &mut Round, circle: &Circle) -> u32 {
    if circle.shut {
        return 0;
    }
    let books = &mut round.desk.books;
    let ask = books.cluster.intern(&circle.ask);
    let free = books.cluster.candidates(ask).total();
    let (tree, node) = (&books.tree, circle.node);
    let own = if circle.own_only { tree.guaranteed(node, GPU).saturating_sub(tree.usage(node, GPU)) } else { i64::MAX };
    let allowed = u64::try_from(tree.available(node, GPU).min(own) / 1000).unwrap_or(0);
    u32::try_from(free.min(allowed)).unwrap_or(u32::MAX)
}

/// Who would lose most keeps its size if the cap on evictions does not allow to stop all that should become smaller. That is
/// no wait for the cap: next time shares are others.
fn spare(round: &Round, circle: &Circle, sizes: &mut [u32]) {
    let mut victims: Vec<(u64, u32, usize)> = Vec::new();
    for (at, (member, size)) in circle.members.iter().zip(sizes.iter()).enumerate() {
        if *size < member.held() {
            victims.push((member.lost_ms, member.ix, at));
        }
    }
    victims.sort_unstable();
    for (.., at) in victims.into_iter().skip(round.evictions_left()) {
        let held = circle.members.get(at).map_or(0, Member::held);
        sizes.iter_mut().skip(at).take(1).for_each(|size| *size = held);
    }
}

/// Finds seats: first who becomes smaller, then the others, the largest first, each at its size or the next that fits. The
/// books are as before.
fn place(round: &mut Round, circle: &Circle, sizes: &[u32]) -> Vec<Change> {
    let mark = round.desk.books.mark();
    let mut changes = Vec::new();
    let mut larger: Vec<(Reverse<u32>, u32, &Member)> = Vec::new();
    for (member, size) in circle.members.iter().zip(sizes) {
        if *size < member.held() {
            let to = fullest(&member.seats, (*size / member.devices.max(1)) as usize);
            shift(round.state, round.desk, member.ix, &to);
            changes.push(Change { ix: member.ix, from: member.seats.clone(), to });
        } else if *size > member.held() {
            larger.push((Reverse(*size), member.ix, member));
        }
    }
    larger.sort_unstable_by_key(|(size, ix, _)| (*size, *ix));
    let mut starts = round.starts_left();
    for (Reverse(size), ix, member) in larger {
        if member.seats.is_empty() && starts == 0 {
            continue;
        }
        if let Some(to) = place_one(round, circle, member, size) {
            starts -= usize::from(member.seats.is_empty());
            changes.push(Change { ix, from: member.seats.clone(), to });
        }
    }
    round.desk.books.rollback(mark);
    changes
}

/// Seats of a job that becomes larger: anew, since it restarts anyway.
fn place_one(round: &mut Round, circle: &Circle, member: &Member, size: u32) -> Option<Vec<Seat>> {
    let mut spec = JobSpec::clone(&round.state.jobs.at(member.ix)?.spec);
    for workers in member.sizes(member.held(), size) {
        let mark = round.desk.books.mark();
        shift_from(round.state, round.desk, member.ix, &member.seats, &[]);
        spec.groups.iter_mut().for_each(|group| group.min = workers);
        match round.desk.books.place_gang(Gang { spec: &spec, queue: circle.node, own_only: false }) {
            Ok(seats) => return Some(seats),
            Err(_) => round.desk.books.rollback(mark),
        }
    }
    None
}

/// So many of the seats, those first that are on nodes with most of them.
fn fullest(seats: &[Seat], count: usize) -> Vec<Seat> {
    let on = |node: u32| seats.iter().filter(|seat| seat.node == node).count();
    let mut order: Vec<&Seat> = seats.iter().collect();
    order.sort_by_key(|seat| (Reverse(on(seat.node)), seat.node, seat.mask));
    order.truncate(count);
    seats.iter().filter(|seat| order.contains(seat)).copied().collect()
}

/// Orders the changes.
fn carry(round: &mut Round, queue: &QueueName, changes: &[Change]) {
    let stays = |change: &Change| -> Vec<Seat> { change.from.iter().filter(|seat| change.to.contains(seat)).copied().collect() };
    // What all give up comes first, so that no device is claimed twice.
    for change in changes {
        shift(round.state, round.desk, change.ix, &stays(change));
    }
    for change in changes {
        shift_from(round.state, round.desk, change.ix, &stays(change), &change.to);
        let workers = |seats: &[Seat]| u32::try_from(seats.len()).unwrap_or(u32::MAX);
        let (from, to) = (workers(&change.from), workers(&change.to));
        if to < from {
            round.note_victim(change.ix);
        }
        if from > 0 {
            round.note_stop(change.ix, change.to.clone(), Reason::Share { from, to });
        } else {
            if let Some(kind) = round.desk.kind_of(change.ix) {
                round.desk.let_in(kind);
            }
            round.start_job(change.ix, change.to.clone(), Reason::Share { from, to }, None);
        }
    }
    if !changes.is_empty() {
        round.desk.quota_was_used(queue);
    }
}

impl Round<'_> {
    /// Remembers that the job is stopped for others.
    fn note_victim(&mut self, ix: u32) {
        let now = self.state.now;
        self.displaced = true;
        self.state.evictions.push(now);
        if let Some(job) = self.state.jobs.at_mut(ix) {
            job.disruptions.retain(|at| now.since(*at) < HOUR_MS);
            job.disruptions.push(now);
        }
    }

    /// Starts that may still be ordered.
    fn starts_left(&self) -> usize {
        (self.state.policy.max_starts as usize).saturating_sub(self.starts_ordered())
    }
}
