//! One round of decisions over the books: what must go, what models need, what jobs may have.

use crate::cluster::{Holder, bits};
use crate::names::JobName;
use crate::plan::{Action, ActionId, ActionKind, Placed, Reason};
use crate::state::{EVICTION_WINDOW_MS, Job, Phase, ReplicaPhase, ReplicaStop, Run, Seat, State, Stop};
use crate::time::At;

use super::desk::{Desk, given_up};
use super::{elastic, fairness, jobs, models, predict, reserve, shares};

/// A replica that is not ready by then is given up; far above any load seen, so that only a hung one meets it.
pub(super) const LOAD_TIMEOUT_MS: u64 = 120_000;

/// Who is displaced may be owed a device of somebody else: passes until nobody is, and never more than this
/// (each displacement goes down in priority or towards the nominal quota, so a few are enough).
const MAX_PASSES: u32 = 16;

/// A round: the state, the books as they will be, and the actions so far.
pub(super) struct Round<'a> {
    pub state: &'a mut State,
    pub desk: &'a mut Desk,
    pub actions: Vec<Action>,
    /// Jobs whose own moment has come.
    pub due: Vec<u32>,
    pub holds: reserve::Holds,
    /// Somebody was displaced since the order of queues was made.
    pub displaced: bool,
    /// Seats that jobs kept between two attempts and could not use: they came free without an action.
    pub dropped: usize,
}

/// Decides everything that is due.
pub(super) fn run(state: &mut State, desk: &mut Desk) -> Vec<Action> {
    let due = desk.due(state);
    for ix in &due {
        desk.list(state, *ix);
    }
    predict::rank(state, desk);
    let mut round =
        Round { state, desk, actions: Vec::new(), due, holds: reserve::Holds::default(), displaced: false, dropped: 0 };
    fairness::refresh(&mut round);
    round.settle_wishes();
    round.leave_devices();
    round.leave_overcommitted();
    round.give_up_hung();
    for pass in 0..MAX_PASSES {
        let before = (round.actions.len(), round.dropped);
        let promised = round.state.reservations.clone();
        round.desk.wakes.begin_pass();
        // The last pass, in which nothing is ordered, says whether somebody waits because of the cap.
        round.state.eviction_cap_reached = false;
        // What is promised to waiting jobs is theirs before other jobs, not before requests.
        models::decide(&mut round);
        round.open_reservations();
        if pass == 0 && round.desk.ranked {
            shares::decide(&mut round);
        }
        jobs::decide(&mut round);
        if (round.actions.len(), round.dropped) == before {
            elastic::grow(&mut round);
            models::yield_to_growth(&mut round);
        }
        round.close_reservations();
        // A new promise may change why others are refused, too.
        if (round.actions.len(), round.dropped) != before || round.state.reservations != promised {
            continue;
        }
        // Who waits for what only the order of a responsive queue gives away does not wait for the cap. Whether anybody does is said
        // by a pass without that order, as it will be until the next.
        if !std::mem::take(&mut round.desk.ranked) {
            break;
        }
    }
    predict::begin_ranks(round.state, round.desk);
    round.actions
}

/// The next moment at which something may change by itself.
pub(super) fn next_wake(state: &State, desk: &Desk) -> Option<At> {
    let now = state.now;
    let models = state.models.values().filter_map(|model| model.next_change(now, &state.policy));
    let loading = state.replicas.values().filter(|replica| replica.phase == ReplicaPhase::Starting && replica.stop.is_none());
    let timeouts = loading.map(|replica| replica.since.plus(LOAD_TIMEOUT_MS));
    let cap = state.evictions.first().filter(|_| state.eviction_cap_reached).map(|at| at.plus(EVICTION_WINDOW_MS));
    let moments = models.chain(timeouts).chain(cap).chain(desk.next_timers());
    moments
        .chain(elastic::next_growth(state, desk))
        .chain(reserve::next_due(state))
        .chain(predict::next_rank(state, desk))
        .chain(predict::next_within_budget(state, desk))
        .chain(fairness::next_look(state, desk))
        .filter(|at| *at > now)
        .min()
}

impl Round<'_> {
    /// Records an action: from here on it is assumed.
    pub fn emit(&mut self, id: ActionId, after: Vec<ActionId>, kind: ActionKind, reason: Reason) {
        let action = Action { id, after, kind, reason };
        self.state.actions.insert(id, action.clone());
        self.actions.push(action);
    }

    /// The id of the next action.
    pub fn next_id(&mut self) -> ActionId {
        let id = ActionId(self.state.next_action);
        self.state.next_action += 1;
        id
    }

    /// Tells a running job to end and, unless `keep` is empty, to start again on `keep`; a waiting one keeps only that.
    pub fn stop_job(&mut self, ix: u32, keep: Vec<Seat>, reason: Reason) {
        shift(self.state, self.desk, ix, &keep);
        self.note_stop(ix, keep, reason);
    }

    /// The same when the books have been changed already.
    pub fn note_stop(&mut self, ix: u32, keep: Vec<Seat>, reason: Reason) {
        let now = self.state.now;
        let id = ActionId(self.state.next_action);
        let Some(name) = self.state.jobs.name(ix).cloned() else { return };
        let Some(job) = self.state.jobs.at_mut(ix) else { return };
        let queue = job.spec.queue.clone();
        let resume_with = u32::try_from(keep.len()).unwrap_or(u32::MAX);
        let mut order = None;
        match &mut job.phase {
            Phase::Running(run) => {
                if let Some(stop) = &mut run.stop {
                    stop.keep = keep;
                    // Of a stop of this very plan the world has not heard yet.
                    let action = stop.action;
                    if let Some(planned) = self.actions.iter_mut().find(|planned| planned.id == action)
                        && let ActionKind::StopJob { resume_with: told, .. } = &mut planned.kind
                    {
                        *told = resume_with;
                        self.state.actions.insert(action, planned.clone());
                    }
                } else {
                    order = Some(run.attempt);
                    run.stop = Some(Stop { action: id, since: now, keep, reason: reason.clone() });
                }
            }
            Phase::Waiting { keep: kept, .. } => *kept = keep,
            Phase::Finished(_) => return,
        }
        if let Some(attempt) = order {
            let id = self.next_id();
            self.emit(id, Vec::new(), ActionKind::StopJob { job: name, attempt, resume_with }, reason);
        }
        self.desk.list(self.state, ix);
        if order.is_none() {
            // What it kept was taken: it is one of those that wait, in this very pass.
            self.desk.look_again(&queue);
        }
        self.desk.wakes.came_free();
    }

    /// Tells a replica to finish what it has and end.
    pub fn stop_replica(&mut self, ix: u32, reason: Reason) {
        loosen_replica(self.state, self.desk, ix);
        self.note_replica_stop(ix, reason);
    }

    /// The same when the books have been changed already.
    pub fn note_replica_stop(&mut self, ix: u32, reason: Reason) {
        let action = ActionId(self.state.next_action);
        let Some(name) = self.state.replicas.name(ix).cloned() else { return };
        let Some(replica) = self.state.replicas.at_mut(ix).filter(|replica| replica.stop.is_none()) else { return };
        replica.stop = Some(ReplicaStop { action, reason: reason.clone() });
        let model = replica.model.clone();
        let action = self.next_id();
        self.emit(action, Vec::new(), ActionKind::StopReplica { model, replica: name }, reason);
        self.desk.wakes.came_free();
    }

    /// Starts an attempt on seats that the books hold already.
    pub fn start_job(&mut self, ix: u32, seats: Vec<Seat>, reason: Reason, backfilled_until: Option<At>) {
        let mut after: Vec<ActionId> = seats.iter().flat_map(|seat| self.releases(seat)).collect();
        after.extend(self.quota_releases(ix));
        after.sort_unstable();
        after.dedup();
        let workers: Vec<Placed> = seats.iter().map(|seat| placed(self.state, seat)).collect();
        let now = self.state.now;
        let Some(name) = self.state.jobs.name(ix).cloned() else { return };
        let expected_end = self.state.jobs.at(ix).map_or(now, |job| self.state.end_with(job, seats.len()));
        let Some(job) = self.state.jobs.at_mut(ix) else { return };
        job.waited_ms = job.waited_ms(now);
        job.attempts += 1;
        let attempt = job.attempts;
        let choice = job.spec.choice(u32::try_from(workers.len()).unwrap_or(u32::MAX));
        let queue = job.spec.queue.clone();
        job.phase = Phase::Running(Run {
            attempt,
            seats,
            since: now,
            expected_end,
            observed: false,
            stop: None,
            backfilled_until,
            counted: now,
        });
        let id = self.next_id();
        self.emit(id, after, ActionKind::StartJob { job: name, attempt, workers, choice }, reason);
        self.forget_reservation(ix);
        self.desk.list(self.state, ix);
        self.desk.quota_was_used(&queue);
    }

    /// The releases that work on a seat must wait for.
    pub fn releases(&self, seat: &Seat) -> Vec<ActionId> {
        let Some(node) = self.desk.books.cluster.node(seat.node) else { return Vec::new() };
        // Without room for what is going, CPU or memory of the node is promised twice until it is gone.
        let (cpu, memory) = node.releasing_cpu_memory();
        let short = node.cpu_milli < cpu || node.memory_mib < memory;
        let overlaps = |claim: &crate::cluster::Claim| {
            let slices = claim.slices == 0 || seat.slices == 0 || claim.slices & seat.slices != 0;
            claim.mask & seat.mask != 0 && slices
        };
        let before = node.releasing.iter().filter(|releasing| short || overlaps(&releasing.claim));
        before.filter_map(|releasing| release_of(self.state, releasing.holder)).collect()
    }

    /// Stops whose quota the job would use before it is given up: they come first.
    fn quota_releases(&self, ix: u32) -> Vec<ActionId> {
        let stops: Vec<(ActionId, &JobName)> = self.state.actions.values().filter_map(stop_of).collect();
        let tree = &self.desk.books.tree;
        let queue = self.state.jobs.at(ix).and_then(|job| tree.node(&job.spec.queue));
        let Some(queue) = queue.filter(|_| !stops.is_empty()) else { return Vec::new() };
        let top = |node| tree.path(node).filter(|node| *node != tree.root()).last();
        let mut sums = vec![0_i64; usize::from(tree.resources())];
        let mut before = Vec::new();
        for (id, name) in stops {
            let Some(job) = self.state.jobs.get(name) else { continue };
            let Some(run) = job.run() else { continue };
            if tree.node(&job.spec.queue).and_then(top) != top(queue) {
                continue;
            }
            before.push(id);
            for (ask, seat) in Desk::asks(&job.spec, &given_up(&run.seats, run.kept())) {
                for (resource, amount) in self.desk.books.amounts(ask, seat.node, seat.mask).as_slice() {
                    sums[usize::from(*resource)] += amount;
                }
            }
        }
        let short = (0..tree.resources()).any(|resource| {
            let sum = sums[usize::from(resource)];
            sum > 0 && tree.available(queue, resource) < sum
        });
        if short { before } else { Vec::new() }
    }

    /// Stops for others that the cap still allows in this minute.
    pub fn evictions_left(&self) -> usize {
        (self.state.policy.max_evictions_per_minute as usize).saturating_sub(self.state.evictions.len())
    }
}

/// The job that an action stops.
fn stop_of(action: &Action) -> Option<(ActionId, &JobName)> {
    match &action.kind {
        ActionKind::StopJob { job, .. } => Some((action.id, job)),
        ActionKind::StartJob { .. } | ActionKind::StartReplica { .. } | ActionKind::StopReplica { .. } => None,
    }
}

/// The action that ends what a holder is about to give up.
fn release_of(state: &State, holder: Holder) -> Option<ActionId> {
    match holder {
        Holder::Job(ix) => state.jobs.at(ix)?.run()?.stop.as_ref().map(|stop| stop.action),
        Holder::Replica(ix) => state.replicas.at(ix)?.stop.as_ref().map(|stop| stop.action),
    }
}

/// A seat by names.
pub(super) fn placed(state: &State, seat: &Seat) -> Placed {
    let devices = state.nodes.at(seat.node).map_or(&[][..], |node| &node.devices);
    Placed {
        group: seat.group,
        node: state.nodes.name(seat.node).cloned().unwrap_or_else(|| "".into()),
        devices: bits(seat.mask).filter_map(|index| devices.get(index)).map(|device| device.id.clone()).collect(),
        slices: seat.slices,
    }
}

/// Changes the books so that the job firmly holds `keep` and nothing else; what it runs on and does not keep is releasing.
pub(super) fn shift(state: &State, desk: &mut Desk, ix: u32, keep: &[Seat]) {
    let Some(job) = state.jobs.at(ix) else { return };
    let from = firm(job).to_vec();
    shift_from(state, desk, ix, &from, keep);
}

/// The seats that a job holds firmly.
pub(super) fn firm(job: &Job) -> &[Seat] {
    match &job.phase {
        Phase::Running(run) => run.kept(),
        Phase::Waiting { keep, .. } => keep,
        Phase::Finished(_) => &[],
    }
}

/// The same, when the books say that it holds `from`.
pub(super) fn shift_from(state: &State, desk: &mut Desk, ix: u32, from: &[Seat], to: &[Seat]) {
    let Some(job) = state.jobs.at(ix) else { return };
    let books = &mut desk.books;
    let queue = books.tree.node(&job.spec.queue);
    let seats = job.run().map_or(&[][..], |run| &run.seats);
    let (before, after) = (given_up(seats, from), given_up(seats, to));
    let (loosened, back) = (given_up(&after, &before), given_up(&before, &after));
    let freed = given_up(&given_up(from, to), &loosened);
    let holder = Holder::Job(ix);
    for (ask, seat) in Desk::asks(&job.spec, &loosened) {
        books.loosen(queue, ask, seat, holder);
    }
    for (ask, seat) in Desk::asks(&job.spec, &freed) {
        books.free(queue, ask, seat);
    }
    for (ask, seat) in Desk::asks(&job.spec, &back) {
        books.settle(ask, seat, holder);
    }
    for (ask, seat) in Desk::asks(&job.spec, &given_up(to, from)) {
        books.take(queue, ask, seat);
    }
}

/// Changes the books: the replica is about to end.
pub(super) fn loosen_replica(state: &State, desk: &mut Desk, ix: u32) {
    let Some(replica) = state.replicas.at(ix).filter(|replica| replica.stop.is_none()) else { return };
    let Some(model) = state.models.get(&replica.model) else { return };
    let queue = desk.books.tree.node(&model.spec.queue);
    desk.books.loosen(queue, &replica.ask, &replica.seat, Holder::Replica(ix));
}
