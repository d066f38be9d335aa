//! What a world's objects say of a job or a replica, whoever ordered it. In a cluster the objects are the truth: after a restart an empty engine
//! hears from them what runs where, and while it runs which workers of an attempt have ended alone.
//!
//! **Promise.** What runs is counted, once: a device that somebody else holds firmly is not given a second time, whatever is told.

use crate::ask::{Amount, Ask};
use crate::claims;
use crate::demand::Need;
use crate::event::{Observed, ObservedReplica, ObservedRun};
use crate::names::{DeviceId, JobName, ModelName, NodeName, ReplicaId};
use crate::plan::{ActionId, Placed};
use crate::state::{Phase, Replica, ReplicaPhase, Run, Seat, Stop};

use super::apply::Facts;

impl Facts<'_> {
    pub fn job_observed(&mut self, name: &JobName, observed: &Observed) {
        let Some(ix) = self.state.jobs.ix(name) else { return };
        let past = self.state.remembered.job(name, observed.submitted);
        if let Some(job) = self.state.jobs.at_mut(ix) {
            job.submitted = observed.submitted;
            job.attempts = job.attempts.max(observed.attempts);
            job.failures = observed.failures;
            if let Some(past) = &past {
                past.enter(job);
            }
        }
        if let Some(run) = &observed.run {
            self.runs(ix, observed.attempts, run);
        }
        if let (Some(past), Some(job)) = (past, self.state.jobs.at_mut(ix)) {
            past.resume(job);
        }
        self.set_turn(ix);
        self.desk.list(self.state, ix);
        self.job_runs(ix);
    }

    /// A replica is there that was ordered by another engine. One of a model or a node that is not known holds nothing.
    pub fn replica_observed(&mut self, id: &ReplicaId, seen: &ObservedReplica) {
        let model = self.state.models.get(&seen.model).filter(|_| !self.state.replicas.contains_key(id));
        let Some(queue) = model.map(|model| self.desk.books.tree.node(&model.spec.queue)) else { return };
        let Some(node) = self.state.nodes.ix(&seen.place.node) else { return };
        let (mask, slices) = self.devices(&seen.ask, node, &seen.place);
        let seat = Seat { group: 0, node, mask, slices };
        self.desk.books.take(queue, &seen.ask, &seat);
        let replica = Replica {
            model: seen.model.clone(),
            ask: seen.ask.clone(),
            seat,
            generation: seen.generation,
            since: seen.since,
            phase: if seen.ready { ReplicaPhase::Ready } else { ReplicaPhase::Starting },
            stop: None,
            start: ActionId::default(),
        };
        let ix = self.state.replicas.insert(id.clone(), replica);
        self.desk.list_replica(self.state, ix);
        // The next one has another name.
        let number = id.0.rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
        self.state.next_replica = self.state.next_replica.max(number.map_or(0, |number| number.saturating_add(1)));
        self.was_wanted(&seen.model, seen.generation);
        if let Some(queue) = self.state.models.get(&seen.model).map(|model| model.spec.queue.clone()) {
            self.runs_in(&queue);
        }
    }

    /// What serves was wanted a moment ago, by routers that have not told this engine yet: it stays as long as if the want had just
    /// fallen. Those of another generation are no more that are wanted: they replace each other.
    fn was_wanted(&mut self, name: &ModelName, generation: u64) {
        let serves = |replica: &&Replica| replica.model == *name && replica.generation == generation && replica.stop.is_none();
        let count = u32::try_from(self.state.replicas.values().filter(serves).count()).unwrap_or(u32::MAX);
        let now = self.state.now;
        let Some(model) = self.state.models.get_mut(name) else { return };
        let former = Need { devices: count.clamp(model.spec.min, model.spec.max), sharers: 1 };
        if former.devices > model.want {
            model.past_wants.retain(|(_, past)| past.milli() > former.milli());
            model.past_wants.push((now, former));
        }
    }

    /// The job holds what it is seen to hold, and nothing else.
    fn runs(&mut self, ix: u32, attempt: u32, seen: &ObservedRun) {
        let Some(job) = self.state.jobs.at(ix) else { return };
        let was = job.run().filter(|run| run.attempt == attempt).cloned();
        let (seats, firm) = match &job.phase {
            Phase::Running(run) => (run.seats.clone(), run.kept().to_vec()),
            Phase::Waiting { keep, .. } => (Vec::new(), keep.clone()),
            Phase::Finished(_) => return,
        };
        self.leave(ix, &seats, &firm, &[]);
        let seats = self.take(ix, &seen.workers);
        let stop = was.as_ref().and_then(|run| run.stop.clone());
        let stop = stop.map(|stop| Stop { keep: common(&seats, &stop.keep), ..stop });
        let Some(job) = self.state.jobs.at(ix) else { return };
        let run = Run {
            attempt,
            expected_end: was.as_ref().map_or_else(|| self.state.end_with(job, seats.len()), |run| run.expected_end),
            seats,
            since: seen.since,
            observed: seen.started || was.as_ref().is_some_and(|run| run.observed),
            stop,
            backfilled_until: was.as_ref().and_then(|run| run.backfilled_until),
            counted: was.as_ref().map_or(seen.since, |run| run.counted),
        };
        if let Some(job) = self.state.jobs.at_mut(ix) {
            job.phase = Phase::Running(run);
        }
        self.loosen(ix);
        self.state.reservations.remove(&ix);
    }

    /// Enters what the workers hold, firmly. Those of nodes and groups that are not known hold nothing.
    fn take(&mut self, ix: u32, workers: &[Placed]) -> Vec<Seat> {
        let Some(spec) = self.state.jobs.at(ix).map(|job| job.spec.clone()) else { return Vec::new() };
        let queue = self.desk.books.tree.node(&spec.queue);
        let mut seats = Vec::new();
        for worker in workers {
            let Some(node) = self.state.nodes.ix(&worker.node) else { continue };
            let Some(group) = spec.groups.get(usize::from(worker.group)) else { continue };
            let (mask, slices) = self.devices(&group.ask, node, worker);
            let seat = Seat { group: worker.group, node, mask, slices };
            self.desk.books.take(queue, &group.ask, &seat);
            seats.push(seat);
        }
        seats
    }

    /// The devices that are named, if they can be its; else such as nobody holds; else none.
    fn devices(&self, ask: &Ask, node: u32, worker: &Placed) -> (u64, u8) {
        let cluster = &self.desk.books.cluster;
        let named = self.named(node, &worker.devices);
        let count = if matches!(ask.amount, Amount::Whole(_)) { ask.devices() } else { 1 };
        if named.count_ones() == count && cluster.is_free_for(ask, node, named, worker.slices) {
            return (named, worker.slices);
        }
        let some = || (cluster.free_for_running(ask, node), 0);
        cluster.choose_for_running(ask, node).map_or_else(some, |choice| (choice.mask, choice.slices))
    }

    /// A job that has fewer devices than it uses, since others held them when it was seen, gets those that are free by now.
    pub fn seat_again(&mut self, ix: u32) {
        let Some(job) = self.state.jobs.at(ix) else { return };
        let Some(run) = job.run().filter(|run| run.stop.is_none()) else { return };
        let (spec, mut seats) = (job.spec.clone(), run.seats.clone());
        let queue = self.desk.books.tree.node(&spec.queue);
        for seat in &mut seats {
            let Some(group) = spec.groups.get(usize::from(seat.group)) else { continue };
            let some_are_free = self.desk.books.cluster.free_for_running(&group.ask, seat.node) != 0;
            if !seat.lacks_devices(&group.ask) || !some_are_free {
                continue;
            }
            self.desk.books.free(queue, &group.ask, seat);
            let place = Placed { group: seat.group, node: NodeName::default(), devices: Vec::new(), slices: 0 };
            (seat.mask, seat.slices) = self.devices(&group.ask, seat.node, &place);
            self.desk.books.take(queue, &group.ask, seat);
        }
        if let Some(Phase::Running(run)) = self.state.jobs.at_mut(ix).map(|job| &mut job.phase) {
            run.seats = seats;
        }
        self.desk.list(self.state, ix);
    }

    fn named(&self, node: u32, devices: &[DeviceId]) -> u64 {
        let known = self.state.nodes.at(node).map_or(&[][..], |node| &node.devices);
        known.iter().enumerate().filter(|(_, device)| devices.contains(&device.id)).map(|(at, _)| 1 << at).sum()
    }

    /// What it is about to give up is releasing.
    fn loosen(&mut self, ix: u32) {
        let Some(job) = self.state.jobs.at(ix) else { return };
        let queue = self.desk.books.tree.node(&job.spec.queue);
        let books = &mut self.desk.books;
        claims::of_job(ix, job, &mut |claim| {
            if claim.releasing.is_some() {
                books.loosen(queue, claim.ask, claim.seat, claim.holder);
            }
        });
    }
}

/// Seats of both.
fn common(seats: &[Seat], keep: &[Seat]) -> Vec<Seat> {
    let mut left = seats.to_vec();
    let taken = keep.iter().filter(|seat| match left.iter().position(|other| other == *seat) {
        Some(at) => {
            left.swap_remove(at);
            true
        }
        None => false,
    });
    taken.copied().collect()
}
