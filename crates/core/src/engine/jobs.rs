//! Jobs in order: those inside their queue's own quota (they would take it back anyway), then the priority of their queues, then
//! their own, then the fair share of their queues, then age (or what the queue's discipline says). Each gets its minimum or
//! nothing; what is left is shared out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::names::{JobName, QueueName};
use crate::plan::{ActionKind, Claimant, Reason};
use crate::state::{Discipline, Phase, Seat};
use crate::time::At;

use super::desk::{Block, Share, Turn};
use super::displace::{Denied, Want};
use super::gang::Refusal;
use super::round::{Round, firm};
use super::rules::Precedence;
use super::{elastic, predict, round};

/// A gang that was chosen in this round. Its seats are kept in its own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub ix: u32,
    /// It continues on what it kept from its last attempt.
    pub resumed: bool,
    /// Let in before this job's reservation.
    pub before: Option<(At, JobName)>,
    /// Whose it is that it was let in on, if not its own queue's.
    pub lent_by: Option<QueueName>,
}

/// Where the head of a queue stands among the heads of others: borrows, and then how high its queue stands, priority, shares
/// from the top level down, age.
type Standing = (bool, Reverse<Precedence>, Reverse<i32>, Share, u64, u32);

/// Queues that are looked at, by whose turn it is.
struct Order {
    heap: BinaryHeap<Reverse<(Standing, usize)>>,
    queues: Vec<(u32, BTreeSet<(Turn, u32)>)>,
    numbers: BTreeMap<u32, usize>,
    /// Of which somebody was refused for devices since they were entered.
    refused: BTreeSet<u32>,
}

/// Decides for every job that must be looked at.
pub(super) fn decide(round: &mut Round) {
    let mut chosen = resume(round);
    let mut order = Order::new(round);
    let ordered = round.starts_ordered();
    while let Some((at, turn, kind)) = order.pop(round) {
        if ordered + chosen.len() >= round.state.policy.max_starts as usize {
            break;
        }
        match round.attempt(turn.2) {
            Ok(before) => {
                let lent_by = round.lent_by(turn.2);
                chosen.push(Chosen { ix: turn.2, resumed: false, before, lent_by });
                round.desk.let_in(kind);
                order.advance(round, at, kind);
            }
            Err(refusal) => {
                // Who shares gets what comes free by its share.
                let shares = round.state.jobs.at(turn.2).is_some_and(|job| round.state.shares(&job.spec));
                let may = refusal.lacks_devices && refusal.block != Block::EvictionCap && !shares;
                let is_first = may && order.is_first_refused(at);
                round.refused(turn.2, refusal, is_first);
                order.refused(round, at, turn.2);
            }
        }
        order.wake(round);
    }
    // Who was let in, displaced and let in again is started as what it is now.
    let mut known = BTreeSet::new();
    chosen = chosen.into_iter().rev().filter(|one| known.insert(one.ix)).collect();
    chosen.reverse();
    put_back_overtakers(round, &mut chosen);
    elastic::share_out(round, &chosen);
    for one in chosen {
        round.start(one);
    }
}

/// Jobs that continue on what they kept, if that still makes a gang.
fn resume(round: &mut Round) -> Vec<Chosen> {
    let mut order: Vec<(i32, At, u32)> = round
        .desk
        .resuming
        .iter()
        .filter_map(|ix| round.state.jobs.at(*ix).map(|job| (-job.spec.priority, job.submitted, *ix)))
        .collect();
    order.sort_unstable();
    let mut chosen = Vec::new();
    for (_, _, ix) in order {
        let Some(job) = round.state.jobs.at(ix) else { continue };
        let Phase::Waiting { keep, not_before, .. } = &job.phase else { continue };
        if job.is_unwanted() || not_before.is_some_and(|at| at > round.state.now) {
            continue;
        }
        let of_group = |number: u16| keep.iter().filter(|seat| seat.group == number).count();
        let is_gang = (0_u16..)
            .zip(&job.spec.groups)
            .all(|(number, group)| (group.min as usize..=group.max as usize).contains(&of_group(number)));
        if is_gang && keep.iter().all(|seat| round.is_usable(seat)) {
            chosen.push(Chosen { ix, resumed: true, before: None, lent_by: None });
        } else {
            drop_kept(round, ix);
        }
    }
    chosen
}

/// Somebody of a strict queue was let in and displaced in this very pass: nobody behind it goes first. They wait for the next pass.
fn put_back_overtakers(round: &mut Round, chosen: &mut Vec<Chosen>) {
    let place = |round: &Round, ix: u32| {
        let job = round.state.jobs.at(ix)?;
        let strict = round.state.queues.get(&job.spec.queue)?.discipline == Discipline::StrictFifo;
        strict.then(|| (job.spec.queue.clone(), (Reverse(job.spec.priority), job.turn, ix)))
    };
    let mut firsts: BTreeMap<QueueName, Turn> = BTreeMap::new();
    let displaced = chosen.iter().filter(|one| round.state.jobs.at(one.ix).is_some_and(|job| firm(job).is_empty()));
    for (queue, turn) in displaced.filter_map(|one| place(round, one.ix)) {
        firsts.entry(queue).and_modify(|first| *first = turn.min(*first)).or_insert(turn);
    }
    if firsts.is_empty() {
        return;
    }
    chosen.retain(|one| {
        let behind = |(queue, turn): (QueueName, Turn)| firsts.get(&queue).is_some_and(|first| *first < turn);
        let overtakes = !one.resumed && place(round, one.ix).is_some_and(behind);
        if overtakes {
            drop_kept(round, one.ix);
        }
        !overtakes
    });
}

/// A job gives back what it holds between two attempts.
fn drop_kept(round: &mut Round, ix: u32) {
    round.dropped += round.state.jobs.at(ix).map_or(0, |job| firm(job).len());
    round::shift(round.state, round.desk, ix, &[]);
    round.keep(ix, Vec::new());
}

fn standing(round: &mut Round, queue: u32, turn: Turn, kind: u32) -> Standing {
    let share = round.desk.share(round.state, queue);
    let node = round.desk.queues.get(queue as usize).and_then(|lists| lists.node);
    let (books, need) = (&round.desk.books, round.desk.need(kind));
    let over = |node| predict::is_over_budget(round.state, round.desk, node);
    let own = node.is_some_and(|node| books.fits_own(node, need).is_ok() && !over(node));
    // Turns of one queue are not those of another: a date here, a claim there.
    let age = round.state.jobs.at(turn.2).map_or(0, |job| job.submitted.0);
    // What is guaranteed does not depend on a queue's own priority; what nobody has a quota of is not guaranteed.
    let guaranteed = own && need.iter().any(|(resource, _)| books.counts(*resource));
    let precedence = node.filter(|_| !guaranteed).map(|node| round.desk.rules.precedence(node));
    (!own, Reverse(precedence.unwrap_or_default()), turn.0, share, age, turn.2)
}

impl Order {
    fn new(round: &mut Round) -> Self {
        let mut order = Self { heap: BinaryHeap::new(), queues: Vec::new(), numbers: BTreeMap::new(), refused: BTreeSet::new() };
        for name in 0..u32::try_from(round.desk.queues.len()).unwrap_or(u32::MAX) {
            order.enter(round, name);
        }
        order.sort(round);
        order
    }

    /// All that waits in the queue is to be tried.
    fn enter(&mut self, round: &Round, name: u32) {
        let Some(lists) = round.desk.queues.get(name as usize) else { return };
        let heads = lists.waiting.iter().filter_map(|(kind, turns)| turns.first().map(|turn| (*turn, *kind)));
        // What is held for a job the others of its kind cannot have, but it can, wherever it stands among them by now.
        let promised = round.state.reservations.keys().filter_map(|ix| round.desk.waits(*ix, name));
        let heads: BTreeSet<(Turn, u32)> = heads.chain(promised).collect();
        self.refused.remove(&name);
        if let Some((_, known)) = self.numbers.get(&name).and_then(|at| self.queues.get_mut(*at)) {
            *known = heads;
        } else if !heads.is_empty() {
            self.numbers.insert(name, self.queues.len());
            self.queues.push((name, heads));
        }
    }

    fn sort(&mut self, round: &mut Round) {
        self.heap.clear();
        (0..self.queues.len()).for_each(|at| self.push(round, at));
    }

    /// Queues that may fare better since somebody was let in (at the cost of others, perhaps) or was promised other devices are
    /// tried (again) in this very pass: whether they were looked at before must make no difference.
    fn wake(&mut self, round: &mut Round) {
        for name in round.desk.wakes.take() {
            self.enter(round, name);
            if let Some(at) = self.numbers.get(&name) {
                self.push(round, *at);
            }
        }
        // Who was displaced has a smaller share now; otherwise shares have only risen, and stale ones are looked at again.
        if std::mem::take(&mut round.displaced) {
            self.sort(round);
        }
    }

    fn push(&mut self, round: &mut Round, at: usize) {
        let Some((name, heads)) = self.queues.get(at) else { return };
        if let Some((turn, kind)) = heads.first() {
            let standing = standing(round, *name, *turn, *kind);
            self.heap.push(Reverse((standing, at)));
        }
    }

    /// The next job to try. Shares only rise while jobs are let in, so a stale one is looked at again later.
    fn pop(&mut self, round: &mut Round) -> Option<(usize, Turn, u32)> {
        loop {
            let Reverse((was, at)) = self.heap.pop()?;
            let (name, heads) = self.queues.get(at)?;
            let Some((turn, kind)) = heads.first().copied() else { continue };
            let now = standing(round, *name, turn, kind);
            if now > was && self.heap.peek().is_some_and(|Reverse((next, _))| *next < now) {
                self.heap.push(Reverse((now, at)));
                continue;
            }
            return Some((at, turn, kind));
        }
    }

    /// The first of the kind was let in: the next of it takes its place.
    fn advance(&mut self, round: &mut Round, at: usize, kind: u32) {
        let Some((name, heads)) = self.queues.get_mut(at) else { return };
        heads.pop_first();
        let waiting = round.desk.queues.get(*name as usize).and_then(|lists| lists.waiting.get(&kind));
        if let Some(turn) = waiting.and_then(|turns| turns.first()) {
            heads.insert((*turn, kind));
        }
        self.push(round, at);
    }

    /// Whether nobody of the queue was refused for devices before.
    fn is_first_refused(&mut self, at: usize) -> bool {
        self.queues.get(at).is_some_and(|(name, _)| self.refused.insert(*name))
    }

    /// None of the kind can be let in now; in a strict queue nobody behind it either.
    fn refused(&mut self, round: &mut Round, at: usize, ix: u32) {
        let Some((name, heads)) = self.queues.get_mut(at) else { return };
        heads.pop_first();
        let name = round.desk.queues.get(*name as usize).map(|lists| &lists.name);
        let strict =
            name.and_then(|name| round.state.queues.get(name)).is_some_and(|queue| queue.discipline == Discipline::StrictFifo);
        let barred = round.desk.blocked(ix).is_some_and(Block::is_barred);
        if strict
            && !barred
            && let Some(first) = round.state.jobs.name(ix)
        {
            for (_, kind) in std::mem::take(heads) {
                round.desk.block(kind, Block::Behind(first.clone()));
            }
        }
        self.push(round, at);
    }
}

impl Round<'_> {
    /// Starts of jobs that are on their way.
    pub(super) fn starts_ordered(&self) -> usize {
        if self.state.policy.max_starts == u32::MAX {
            return 0;
        }
        self.state.actions.values().filter(|action| matches!(action.kind, ActionKind::StartJob { .. })).count()
    }

    /// Whether the seat's devices take work.
    fn is_usable(&self, seat: &Seat) -> bool {
        let Some(node) = self.desk.books.cluster.node(seat.node) else { return false };
        node.present && crate::cluster::bits(seat.mask).all(|at| node.devices.get(at).is_some_and(|device| device.usable))
    }

    /// Reserves seats that the books hold for the next attempt of a waiting job.
    pub(super) fn keep(&mut self, ix: u32, seats: Vec<Seat>) {
        if let Some(Phase::Waiting { keep, .. }) = self.state.jobs.at_mut(ix).map(|job| &mut job.phase) {
            *keep = seats;
        }
        self.desk.list(self.state, ix);
    }

    /// The claim of a job.
    fn want(&self, ix: u32) -> Result<Want, Refusal> {
        let missing = |text: String| Refusal::of(Block::Queue(text));
        let (Some(job), Some(name)) = (self.state.jobs.at(ix), self.state.jobs.name(ix)) else {
            return Err(missing("the job is gone".to_owned()));
        };
        let queue = &job.spec.queue;
        if let Some(problem) = self.desk.books.broken.get(queue) {
            return Err(missing(problem.clone()));
        }
        let node = self.desk.books.tree.node(queue).filter(|_| self.state.queues.contains_key(queue));
        let node = node.ok_or_else(|| missing(format!("queue {queue} does not exist: create it or name another")))?;
        let kind = self.desk.kind_of(ix).and_then(|kind| self.desk.spec(kind));
        let spec = kind.unwrap_or_else(|| job.spec.clone());
        Ok(Want { by: Claimant::Job(name.clone()), job: Some(ix), queue: node, spec })
    }

    /// Places the minimum of a job: on what is free, before reservations, or by taking from others. All or nothing.
    fn attempt(&mut self, ix: u32) -> Result<Option<(At, JobName)>, Refusal> {
        let want = self.want(ix)?;
        self.lift(ix);
        let found = match self.shut_out(ix) {
            Some(block) => Err(Refusal::of(block)),
            None => self.place(ix, &want),
        };
        match found {
            Ok((seats, before)) => {
                self.forget_reservation(ix);
                self.keep(ix, seats);
                self.desk.quota_was_used(&want.spec.queue);
                Ok(before)
            }
            Err(refusal) => {
                if refusal.block.is_barred() {
                    self.forget_promises(ix);
                }
                self.hold(ix);
                Err(refusal)
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "seats, and before whom")]
    fn place(&mut self, ix: u32, want: &Want) -> Result<(Vec<Seat>, Option<(At, JobName)>), Refusal> {
        let gang = want.gang();
        let allowed = self.desk.books.quota_allows(gang);
        let mut refusal = match allowed {
            Err(refusal) => refusal,
            Ok(()) => match self.desk.books.place_gang(gang) {
                Ok(seats) => return Ok((seats, None)),
                Err(refusal) => refusal,
            },
        };
        if let Some(never) = self.impossible(ix) {
            return Err(Refusal::of(never));
        }
        if refusal.lacks_devices {
            if let Some(seats) = self.overtake(want) {
                return Ok((seats, None));
            }
            if let Some((seats, until, name)) = self.backfill(ix, gang) {
                return Ok((seats, Some((until, name))));
            }
        }
        // Who was displaced at this very moment does not displace others: nobody goes in a circle.
        let displaced = self.state.jobs.at(ix).is_some_and(|job| job.disruptions.last() == Some(&self.state.now));
        if predict::is_over_budget(self.state, self.desk, want.queue) {
            return Err(refusal);
        }
        if displaced {
            self.desk.wakes.retry(self.state.now.plus(1));
        } else {
            let mut capped = false;
            if refusal.lacks_devices && self.may_consolidate(want) {
                match self.consolidate(want) {
                    Ok(seats) => return Ok((seats, None)),
                    Err(denied) => capped = denied == Denied::Cap,
                }
            }
            let lower = self.lift_lower(want);
            let taken = self.displace(want);
            self.put_back(lower, taken.is_ok());
            match taken {
                Ok(seats) => return Ok((seats, None)),
                Err(Denied::Cap) => refusal.block = Block::EvictionCap,
                Err(Denied::TooFew) => {}
            }
            if capped {
                refusal.block = Block::EvictionCap;
            }
        }
        Err(refusal)
    }

    /// Jobs of a responsive queue have others moved when they are put in order, not between.
    fn may_consolidate(&self, want: &Want) -> bool {
        self.state.policy.consolidate && (!predict::is_responsive(self.state, &want.spec.queue) || self.desk.ranked)
    }

    /// Remembers why, and promises the first of each queue that lacks only devices what will come free.
    fn refused(&mut self, ix: u32, refusal: Refusal, is_first: bool) {
        self.desk.refuse(ix, refusal);
        if is_first && let Ok(want) = self.want(ix) {
            self.reserve(ix, &want);
        }
    }

    fn start(&mut self, chosen: Chosen) {
        let Some(job) = self.state.jobs.at(chosen.ix) else { return };
        let Phase::Waiting { keep, .. } = &job.phase else { return };
        let seats = keep.clone();
        // A claimant that came later in this round may have taken it again.
        if seats.is_empty() {
            return;
        }
        let workers = u32::try_from(seats.len()).unwrap_or(u32::MAX);
        let grown = workers > job.spec.size().0;
        let lent_by = if grown { self.lent_by(chosen.ix) } else { chosen.lent_by };
        let reason = match (&chosen.before, chosen.resumed) {
            (Some((_, before)), _) => Reason::Backfill { workers, before: before.clone() },
            (None, true) => Reason::Resume { workers },
            (None, false) => lent_by.map_or(Reason::Turn { workers }, |owner| Reason::Lent { workers, owner }),
        };
        self.start_job(chosen.ix, seats, reason, chosen.before.map(|(until, _)| until));
    }

    /// Who lends what a job was just let in on: nobody while its queue uses no more than its own.
    fn lent_by(&self, ix: u32) -> Option<QueueName> {
        let tree = &self.desk.books.tree;
        let over = |name: &QueueName| {
            tree.node(name)
                .map_or(0, |node| tree.own_usage(node, crate::books::GPU) - tree.quota(node, crate::books::GPU).nominal)
        };
        let queue = &self.state.jobs.at(ix)?.spec.queue;
        if over(queue) <= 0 {
            return None;
        }
        let others = self.state.queues.keys().filter(|name| *name != queue);
        let most = others.map(|name| (over(name), name)).min()?;
        (most.0 < 0).then(|| most.1.clone())
    }
}
