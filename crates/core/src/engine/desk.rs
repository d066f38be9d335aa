//! What a decision works with, derived from the state and kept as it changes: the books, who waits in which order, who runs
//! in which queue, and which of them must be looked at again.
//!
//! Alike waiting jobs (equal specifications) make a *kind*: what one of them cannot have, none of them can, so ten thousand
//! alike jobs cost one attempt. A kind that was refused is looked at again when what refused it may have changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::books::{Books, CPU, GPU, MEMORY};
use crate::claim::Claim;
use crate::claims;
use crate::fragment::WHOLE;
use crate::names::{JobName, QueueName};
use crate::quota::{NodeIx, ResourceIx};
use crate::state::{JobSpec, Phase, Resource, Seat, State};
use crate::time::At;

use super::fairness::Fair;
use super::gang::Refusal;
use super::impossible::{Impossible, Outlook};
use super::predict;
use super::rules::Rules;
use super::wakes::Wakes;

/// Why a kind of job was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A queue of its path has no more; `at` is that queue.
    Quota { at: QueueName, resource: Resource, need: i64, available: i64 },
    /// Quota would allow it, devices do not: this many workers of the group would fit.
    Capacity { group: usize, fit: u64, need: u32 },
    /// Workers fit, but not close enough together.
    Spread { level: String },
    /// Its queue is strict and this job goes first.
    Behind(JobName),
    /// The cap on evictions is reached.
    EvictionCap,
    /// The queue cannot be used.
    Queue(String),
    /// Its namespace may not submit to the queue.
    Namespace(String),
    /// No state of the present cluster could hold it.
    Impossible(Impossible),
}

impl Block {
    /// It waits for people, not for others: nobody is held up behind it, and nothing is promised to it.
    pub fn is_barred(&self) -> bool {
        matches!(self, Self::Namespace(_) | Self::Impossible(_))
    }
}

/// Alike jobs, waiting or not.
#[derive(Clone, Debug)]
struct Kind {
    spec: Arc<JobSpec>,
    /// What its smallest size counts as at least.
    need: Vec<(ResourceIx, i64)>,
    /// Jobs that are listed; with the last of them the kind is forgotten.
    jobs: u32,
    /// Why it waits.
    block: Option<Block>,
    /// Whether it could ever start, as of an [`Outlook::epoch`].
    outlook: Option<(u64, Option<Impossible>)>,
}

/// Order in a queue: higher priority, then the key (age, or what the discipline says), then the slot.
pub(super) type Turn = (Reverse<i32>, u64, u32);

/// Levels of the tree that are told apart in the order of queues.
pub(super) const LEVELS: usize = 6;

/// Shares from the top level of the tree down.
pub(super) type Share = [u64; LEVELS];

/// One queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    pub name: QueueName,
    /// Its place in the quota tree; absent: it cannot be used.
    pub node: Option<NodeIx>,
    /// Waiting jobs that may start, by kind.
    pub waiting: BTreeMap<u32, BTreeSet<Turn>>,
    /// Jobs that hold something, how many of them have each priority, and how many are elastic.
    pub holders: BTreeSet<u32>,
    pub priorities: BTreeMap<i32, u32>,
    pub elastic: u32,
    /// The weakest claim of a running job when jobs were put in order.
    pub weakest: Option<Claim>,
    pub replicas: BTreeSet<u32>,
}

/// Where a job is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    queue: u32,
    kind: u32,
    turn: Option<Turn>,
    priority: i32,
    elastic: bool,
    holds: bool,
    resumes: bool,
    timer: Option<At>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk {
    pub books: Books,
    pub queues: Vec<Lists>,
    /// What queues say beside their quotas.
    pub rules: Rules,
    queue_ids: BTreeMap<QueueName, u32>,
    listed: Vec<Option<Listed>>,
    kinds: BTreeMap<Arc<JobSpec>, u32>,
    by_kind: Vec<Option<Kind>>,
    /// Numbers of kinds that were forgotten.
    free_kinds: Vec<u32>,
    /// Waiting jobs that keep seats between two attempts.
    pub resuming: BTreeSet<u32>,
    /// Jobs whose moment comes without an event.
    timers: BTreeSet<(At, u32)>,
    /// Running elastic jobs that have fewer workers than they can use.
    pub growable: BTreeSet<u32>,
    /// People asked for something, or a job's limits changed.
    pub wished: BTreeSet<u32>,
    /// Running jobs that have fewer devices than they use.
    pub lacking: BTreeSet<u32>,
    /// Nodes with devices that take no work.
    pub out: BTreeSet<u32>,
    /// Replicas by model.
    pub by_model: BTreeMap<crate::names::ModelName, BTreeSet<u32>>,
    /// Who is tried again in this pass, and when time alone may help somebody.
    pub wakes: Wakes,
    /// The policy lets work be moved.
    pub consolidates: bool,
    /// When a model that was refused may fare better only because time has passed; every decision looks at all models.
    pub model_retry: Option<At>,
    /// Replicas that their models do not need, as of the last pass.
    pub surplus: BTreeSet<u32>,
    /// Claims of jobs of responsive queues, as of [`State::ranked_at`].
    pub claims: BTreeMap<u32, Claim>,
    /// They were put in order in this very decision.
    pub ranked: bool,
    /// Capacity by resource, for shares; absent until asked for.
    capacity: Option<[i64; 3]>,
    /// What could start if nothing else ran.
    pub outlook: Outlook,
    /// Fair shares as of the last decision, if work is taken back by them.
    pub fair: Option<Fair>,
}

impl Desk {
    /// The desk of a state, from nothing.
    pub fn of(state: &State) -> Self {
        let consolidates = state.policy.consolidate;
        let books = Books::of(state);
        let rules = Rules::of(state, &books.tree);
        let mut desk = Self { books, rules, consolidates, ..Self::default() };
        for (ix, _, _) in state.jobs.slots() {
            desk.list(state, ix);
        }
        for (ix, _, _) in state.replicas.slots() {
            desk.list_replica(state, ix);
        }
        for (ix, _, node) in state.nodes.slots() {
            desk.note_health(ix, node);
        }
        drop(desk.books.cluster.take_touched());
        desk
    }

    /// Remembers nodes that work must leave.
    pub fn note_health(&mut self, ix: u32, node: &crate::node::Node) {
        let out = node.gone || node.devices.iter().any(|device| device.health != crate::node::Health::Ok);
        if out {
            self.out.insert(ix)
        } else {
            self.out.remove(&ix)
        };
        self.capacity = None;
    }

    /// Lists a job where its phase says; call it after each change of a job.
    pub fn list(&mut self, state: &State, ix: u32) {
        if self.listed.len() <= ix as usize {
            self.listed.resize(ix as usize + 1, None);
        }
        let is_listed = |job: &&crate::state::Job| !matches!(job.phase, Phase::Finished(_)) || job.removed;
        let job = state.jobs.at(ix).filter(is_listed);
        let kind = job.map(|job| self.kind(&job.spec));
        if let Some(was) = self.listed.get_mut(ix as usize).and_then(Option::take) {
            self.unlist(ix, &was);
        }
        let Some((job, kind)) = job.zip(kind) else { return };
        let turn = (Reverse(job.spec.priority), job.turn, ix);
        let (mut holds, mut timer, mut may_start, mut resumes) = (false, None, false, false);
        match &job.phase {
            Phase::Waiting { not_before, keep, .. } => {
                timer = not_before.filter(|at| *at > state.now);
                resumes = !keep.is_empty();
                holds = resumes;
                may_start = !job.is_unwanted() && timer.is_none() && !resumes;
            }
            Phase::Running(run) => {
                holds = true;
                let watched = !run.observed && run.stop.is_none();
                timer = watched.then(|| run.since.plus(job.spec.gang_timeout_ms));
                let large = job.spec.within_limits(run.kept()).len() < run.kept().len();
                let may_grow = job.spec.is_elastic() && job.spec.growing_group(&run.seats).is_some();
                if run.stop.is_none() && may_grow && !state.shares(&job.spec) {
                    self.growable.insert(ix);
                }
                if large {
                    self.wished.insert(ix);
                }
                if Self::asks(&job.spec, &run.seats).any(|(ask, seat)| seat.lacks_devices(ask)) {
                    self.lacking.insert(ix);
                }
            }
            Phase::Finished(_) => {}
        }
        if job.is_unwanted() {
            self.wished.insert(ix);
        }
        let queue = self.queue(&job.spec.queue);
        let lists = &mut self.queues[queue as usize];
        let elastic = job.spec.is_elastic();
        if holds {
            lists.holders.insert(ix);
            *lists.priorities.entry(job.spec.priority).or_default() += 1;
            lists.elastic += u32::from(elastic);
        }
        if may_start {
            lists.waiting.entry(kind).or_default().insert(turn);
        }
        if resumes {
            self.resuming.insert(ix);
        }
        if let Some(at) = timer {
            self.timers.insert((at, ix));
        }
        let (turn, priority) = (may_start.then_some(turn), job.spec.priority);
        self.listed[ix as usize] = Some(Listed { queue, kind, turn, priority, elastic, holds, resumes, timer });
    }

    fn unlist(&mut self, ix: u32, was: &Listed) {
        self.leave_kind(was.kind);
        if let Some(lists) = self.queues.get_mut(was.queue as usize) {
            if let Some(turn) = was.turn
                && let Some(kind) = lists.waiting.get_mut(&was.kind)
            {
                kind.remove(&turn);
                if kind.is_empty() {
                    lists.waiting.remove(&was.kind);
                }
            }
            if was.holds {
                lists.holders.remove(&ix);
                lists.elastic -= u32::from(was.elastic);
                if let Some(count) = lists.priorities.get_mut(&was.priority) {
                    *count -= 1;
                    if *count == 0 {
                        lists.priorities.remove(&was.priority);
                    }
                }
            }
        }
        if was.resumes {
            self.resuming.remove(&ix);
        }
        if let Some(at) = was.timer {
            self.timers.remove(&(at, ix));
        }
        self.growable.remove(&ix);
        self.wished.remove(&ix);
        self.lacking.remove(&ix);
    }

    /// Lists a replica with its model and queue; call it after each change of a replica.
    pub fn list_replica(&mut self, state: &State, ix: u32) {
        for lists in self.queues.iter_mut().filter(|lists| lists.replicas.contains(&ix)) {
            lists.replicas.remove(&ix);
        }
        for replicas in self.by_model.values_mut().filter(|replicas| replicas.contains(&ix)) {
            replicas.remove(&ix);
        }
        let Some(replica) = state.replicas.at(ix) else { return };
        self.by_model.entry(replica.model.clone()).or_default().insert(ix);
        let Some(model) = state.models.get(&replica.model) else { return };
        let queue = self.queue(&model.spec.queue);
        self.queues[queue as usize].replicas.insert(ix);
    }

    /// The number of a queue.
    fn queue(&mut self, name: &QueueName) -> u32 {
        if let Some(ix) = self.queue_ids.get(name) {
            return *ix;
        }
        let ix = u32::try_from(self.queues.len()).unwrap_or(u32::MAX);
        self.queues.push(Lists { name: name.clone(), node: self.books.tree.node(name), ..Lists::default() });
        self.queue_ids.insert(name.clone(), ix);
        ix
    }

    /// After the queues have changed: where each is in the tree, and what kinds count as.
    pub fn relink(&mut self) {
        for lists in &mut self.queues {
            lists.node = self.books.tree.node(&lists.name);
        }
        for kind in self.by_kind.iter_mut().flatten() {
            kind.need = self.books.need(&kind.spec);
        }
    }

    /// What the smallest size of a kind counts as at least.
    pub fn need(&self, kind: u32) -> &[(ResourceIx, i64)] {
        self.at_kind(kind).map_or(&[], |kind| kind.need.as_slice())
    }

    fn at_kind(&self, kind: u32) -> Option<&Kind> {
        self.by_kind.get(kind as usize)?.as_ref()
    }

    fn at_kind_mut(&mut self, kind: u32) -> Option<&mut Kind> {
        self.by_kind.get_mut(kind as usize)?.as_mut()
    }

    /// The specification that alike jobs share, if there are any.
    pub fn shared(&self, spec: Arc<JobSpec>) -> Arc<JobSpec> {
        self.kinds.get_key_value(&spec).map_or(spec, |(known, _)| known.clone())
    }

    /// The kind of one more job of this specification.
    fn kind(&mut self, spec: &Arc<JobSpec>) -> u32 {
        if let Some(number) = self.kinds.get(spec).copied() {
            if let Some(kind) = self.at_kind_mut(number) {
                kind.jobs += 1;
            }
            return number;
        }
        let kind = Some(Kind { need: self.books.need(spec), spec: spec.clone(), jobs: 1, block: None, outlook: None });
        let number = self.free_kinds.pop().unwrap_or_else(|| {
            self.by_kind.push(None);
            u32::try_from(self.by_kind.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(slot) = self.by_kind.get_mut(number as usize) {
            *slot = kind;
        }
        self.kinds.insert(spec.clone(), number);
        number
    }

    /// The kind has one job less.
    fn leave_kind(&mut self, number: u32) {
        let Some(kind) = self.at_kind_mut(number) else { return };
        kind.jobs -= 1;
        if kind.jobs == 0
            && let Some(kind) = self.by_kind.get_mut(number as usize).and_then(Option::take)
        {
            self.kinds.remove(&kind.spec);
            self.free_kinds.push(number);
        }
    }

    /// The kind of a listed job.
    pub fn kind_of(&self, ix: u32) -> Option<u32> {
        self.listed.get(ix as usize)?.as_ref().map(|listed| listed.kind)
    }

    /// Turn and kind of a job that waits in the queue and may start.
    pub fn waits(&self, ix: u32, queue: u32) -> Option<(Turn, u32)> {
        let listed = self.listed.get(ix as usize)?.as_ref().filter(|listed| listed.queue == queue)?;
        listed.turn.map(|turn| (turn, listed.kind))
    }

    /// Whether the kind waits for people, as far as is known; see [`Block::is_barred`].
    pub fn is_barred(&self, kind: u32) -> bool {
        self.at_kind(kind).and_then(|kind| kind.block.as_ref()).is_some_and(Block::is_barred)
    }

    /// The specification of a kind.
    pub fn spec(&self, kind: u32) -> Option<Arc<JobSpec>> {
        self.at_kind(kind).map(|kind| kind.spec.clone())
    }

    /// Why the kind could never start, if that was found out since anything of it changed.
    pub fn known_impossible(&self, kind: u32) -> Option<&Impossible> {
        let (epoch, found) = self.at_kind(kind)?.outlook.as_ref()?;
        found.as_ref().filter(|_| *epoch == self.outlook.epoch)
    }

    /// Why the kind could never start; found out once.
    pub fn impossible(&mut self, state: &State, kind: u32) -> Option<&Impossible> {
        let epoch = self.outlook.epoch;
        let known = self.at_kind(kind)?.outlook.as_ref().is_some_and(|(at, _)| *at == epoch);
        if !known {
            let spec = self.spec(kind)?;
            let found = self.outlook.of(state, &spec);
            self.at_kind_mut(kind)?.outlook = Some((epoch, found));
        }
        self.known_impossible(kind)
    }

    /// Why a waiting job waits.
    pub fn blocked(&self, ix: u32) -> Option<&Block> {
        self.at_kind(self.kind_of(ix)?)?.block.as_ref()
    }

    /// Remembers why a kind was refused, and when to look at its queue again.
    pub fn refuse(&mut self, ix: u32, refusal: Refusal) {
        let Some(listed) = self.listed.get(ix as usize).and_then(Option::as_ref) else { return };
        let (kind, queue) = (listed.kind, listed.queue);
        if refusal.block.is_barred() {
            return self.block(kind, refusal.block);
        }
        let owed = self.fair.is_some() || self.is_owed(queue);
        self.wakes.refused(queue, owed);
        self.block(kind, refusal.block);
    }

    /// Remembers why a kind waits.
    pub fn block(&mut self, kind: u32, block: Block) {
        if let Some(kind) = self.at_kind_mut(kind) {
            kind.block = Some(block);
        }
    }

    /// The kind was let in.
    pub fn let_in(&mut self, kind: u32) {
        if let Some(kind) = self.at_kind_mut(kind) {
            kind.block = None;
        }
    }

    /// Whether the queue uses less of some resource than is guaranteed to it.
    fn is_owed(&self, queue: u32) -> bool {
        let tree = &self.books.tree;
        let Some(node) = self.queues.get(queue as usize).and_then(|lists| lists.node) else { return false };
        let below = |node: NodeIx| (0..tree.resources()).any(|r| tree.usage(node, r) < tree.guaranteed(node, r));
        tree.path(node).filter(|node| *node != tree.root()).any(below)
    }

    /// Somebody of the queue who had been let in is not any more.
    pub fn look_again(&mut self, queue: &QueueName) {
        let queue = self.queue(queue);
        self.wakes.look_again(queue);
    }

    /// A queue uses more: those that are owed may now take from it, if it has more than its own.
    pub fn quota_was_used(&mut self, queue: &QueueName) {
        let tree = &self.books.tree;
        let over = |node: NodeIx| (0..tree.resources()).any(|resource| tree.borrowing(node, resource));
        if tree.node(queue).is_some_and(|node| tree.path(node).any(over)) {
            self.wakes.borrowed();
        }
    }

    /// Jobs whose time has come; they are listed anew.
    pub fn due(&mut self, state: &State) -> Vec<u32> {
        let mut due = Vec::new();
        while let Some((at, ix)) = self.timers.first().copied() {
            if at > state.now {
                break;
            }
            self.timers.pop_first();
            due.push(ix);
        }
        due
    }

    /// The next moments of jobs and queues.
    pub fn next_timers(&self) -> impl Iterator<Item = At> {
        self.timers.first().map(|(at, _)| *at).into_iter().chain(self.wakes.moment()).chain(self.model_retry)
    }

    /// Capacity by resource: GPUs in thousandths, cores in thousandths, MiB.
    pub fn capacity(&mut self) -> [i64; 3] {
        let nodes = self.books.cluster.nodes();
        *self.capacity.get_or_insert_with(|| {
            let present = nodes.iter().filter(|node| node.present);
            present.fold([0_i64; 3], |[gpu, cpu, memory], node| {
                let usable = node.devices.iter().filter(|device| device.usable);
                let gpus: i64 = usable.map(|device| i64::from(device.part.unwrap_or(WHOLE))).sum();
                let add = |sum: i64, amount: u64| sum.saturating_add(i64::try_from(amount).unwrap_or(i64::MAX));
                [gpu + gpus, add(cpu, node.spec.cpu_milli), add(memory, node.spec.memory_mib)]
            })
        })
    }

    /// How far the queue is into what is shared, from the top level down to itself: first those within their own, last those
    /// whose budget is spent, then by
    /// `max over resources of usage / capacity`, over the weight, in millionths, with what it used in the past.
    pub fn share(&mut self, state: &State, queue: u32) -> Share {
        let capacity = self.capacity();
        let tree = &self.books.tree;
        let mut shares = Share::default();
        let Some(node) = self.queues.get(queue as usize).and_then(|lists| lists.node) else { return shares };
        let level = |node: NodeIx| {
            let over = predict::is_over_budget(state, self, node);
            let borrows = (0..tree.resources()).any(|resource| tree.borrowing(node, resource));
            let ratio = |resource: u16, all: i64| tree.usage(node, resource).saturating_mul(1_000_000) / all.max(1);
            let most = ratio(GPU, capacity[0]).max(ratio(CPU, capacity[1])).max(ratio(MEMORY, capacity[2]));
            let queue = tree.queue(node);
            let past = queue.map_or(0, |queue| state.past_share_ppm(&queue.name, capacity[0]));
            let weight = queue.map_or(1000, |queue| queue.weight_milli).max(1);
            let most = u64::try_from(most).unwrap_or(0);
            let share = most.saturating_add(past).saturating_mul(1000) / u64::from(weight);
            u64::from(over) << 63 | u64::from(borrows) << 62 | share.min(u64::MAX >> 2)
        };
        let depth = tree.path(node).filter(|node| *node != tree.root()).count();
        for (height, node) in tree.path(node).filter(|node| *node != tree.root()).enumerate() {
            // Below the levels that are told apart, the lowest counts.
            let at = (depth - 1 - height).min(shares.len() - 1);
            shares[at] = shares[at].max(level(node));
        }
        shares
    }

    /// Keeps, for each device, since when nothing holds it.
    pub fn mark_free(&mut self, state: &mut State) {
        let now = state.now;
        for ix in self.books.cluster.take_touched() {
            let (Some(free), Some(node)) = (self.books.cluster.node(ix), state.nodes.at_mut(ix)) else { continue };
            for (index, device) in node.devices.iter_mut().enumerate() {
                device.free_since = if free.is_free(index) { Some(device.free_since.unwrap_or(now)) } else { None };
            }
        }
    }

    /// Keeps the rates by which device-time is integrated.
    pub fn note_rates(&mut self, state: &mut State) {
        state.usage.devices = u64::try_from(self.capacity()[0] / 1000).unwrap_or(0);
        state.usage.lent_milli = self.lent_milli();
        super::predict::note_used(state, &self.books.tree);
    }

    /// Thousandths of GPUs used above some queues' nominal while others use less than theirs.
    pub fn lent_milli(&self) -> u64 {
        let tree = &self.books.tree;
        let queues = tree.bottom_up().iter().filter(|node| **node != tree.root());
        let (above, below) = queues.fold((0_i64, 0_i64), |(above, below), node| {
            let (used, nominal) = (tree.own_usage(*node, GPU), tree.quota(*node, GPU).nominal);
            (above + (used - nominal).max(0), below + (nominal - used).max(0))
        });
        u64::try_from(above.min(below)).unwrap_or(0)
    }

    /// Compares with a desk made from nothing; for tests.
    pub fn compare(&self, state: &State) -> Result<(), String> {
        let fresh = Self::of(state);
        for (ix, (mine, theirs)) in self.books.cluster.nodes().iter().zip(fresh.books.cluster.nodes()).enumerate() {
            let sorted = |node: &crate::cluster::NodeFree| {
                let mut releasing: Vec<String> = node.releasing.iter().map(|entry| format!("{entry:?}")).collect();
                releasing.sort();
                (node.cpu_milli, node.memory_mib, node.devices.clone(), node.free.clone(), releasing)
            };
            if sorted(mine) != sorted(theirs) {
                return Err(format!("node {ix}: kept {mine:?}, should be {theirs:?}"));
            }
        }
        let usage = |books: &Books| -> Vec<i64> {
            let tree = &books.tree;
            tree.bottom_up().iter().flat_map(|node| (0..tree.resources()).map(|r| tree.usage(*node, r))).collect()
        };
        if usage(&self.books) != usage(&fresh.books) {
            return Err(format!("quota usage: kept {:?}, should be {:?}", usage(&self.books), usage(&fresh.books)));
        }
        let waiting = |desk: &Self| -> BTreeSet<u32> {
            desk.queues.iter().flat_map(|lists| lists.waiting.values().flatten().map(|turn| turn.2)).collect()
        };
        if waiting(self) != waiting(&fresh) {
            return Err(format!("waiting: kept {:?}, should be {:?}", waiting(self), waiting(&fresh)));
        }
        let holders =
            |desk: &Self| -> BTreeSet<u32> { desk.queues.iter().flat_map(|lists| lists.holders.iter().copied()).collect() };
        if self.rules != fresh.rules {
            return Err(format!("rules of queues: kept {:?}, should be {:?}", self.rules, fresh.rules));
        }
        if holders(self) != holders(&fresh) || self.resuming != fresh.resuming || self.timers != fresh.timers {
            return Err("holders, resuming jobs or timers differ".to_owned());
        }
        Ok(())
    }

    /// The claims of a job's seats, for changing the books: `(ask, seat)`.
    pub fn asks<'a>(spec: &'a JobSpec, seats: &'a [Seat]) -> impl Iterator<Item = (&'a crate::ask::Ask, &'a Seat)> {
        seats.iter().filter_map(|seat| spec.groups.get(usize::from(seat.group)).map(|group| (&group.ask, seat)))
    }
}

/// Seats that a change gives up; see [`claims::given_up`].
pub(super) fn given_up(seats: &[Seat], keep: &[Seat]) -> Vec<Seat> {
    claims::given_up(seats, keep).copied().collect()
}
