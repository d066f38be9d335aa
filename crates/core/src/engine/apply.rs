//! Facts into state and desk. Nothing here decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::Holder;
use crate::demand::Demand;
use crate::event::{Event, JobExit, Outcome};
use crate::labels::Labels;
use crate::names::{DeviceId, JobName, ModelName, Namespace, NodeName, QueueName, ReplicaId};
use crate::node::{Device, Health, MAX_DEVICES, Node, NodeSpec};
use crate::plan::{ActionId, ActionKind};
use crate::policy::Policy;
use crate::state::{End, Job, JobSpec, MOST_LABELS, MOST_NAMESPACES, Model, ModelSpec, Phase, Queue, ReplicaPhase, Seat, State};

use super::desk::{Desk, given_up};
use super::predict;
use super::round::firm;
use super::rules::Rules;

/// First pause after a failure; it doubles with each more.
const BACKOFF_MS: u64 = 1_000;
/// Longest pause after a failure.
const MAX_BACKOFF_MS: u64 = 60_000;

/// One ask between two fits of the mix for so many nodes: rating them all anew is then a small part of the work.
const FIT_PER_NODES: usize = 8;

/// The pause after the n-th failure in a row; the first failure of a replica is retried at once.
fn backoff_ms(failures: u32) -> u64 {
    BACKOFF_MS.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_BACKOFF_MS)
}

/// A decayed average that follows within a few samples.
fn averaged(former: u64, sample: u64) -> u64 {
    (former * 3 + sample) / 4
}

/// Takes in one event.
pub(super) fn apply(state: &mut State, desk: &mut Desk, event: Event) {
    let mut facts = Facts { state, desk };
    facts.state.dirty |= !matches!(event, Event::Demand { .. });
    facts.apply(event);
}

pub(super) struct Facts<'a> {
    pub state: &'a mut State,
    pub desk: &'a mut Desk,
}

impl Facts<'_> {
    fn apply(&mut self, event: Event) {
        match event {
            Event::PolicySet(policy) => self.policy_set(policy),
            Event::NodeSet { name, spec } => self.node_set(name, spec),
            Event::NodeLost(name) => self.with_node(&name, |node| node.gone = true),
            Event::NodeOvercommitted { name, over } => drop(self.state.overcommitted.insert(name, over)),
            Event::DeviceSeen(device) => self.device_seen(device),
            Event::DeviceLost(id) => self.device_health(&id, |_| Health::Lost),
            Event::DeviceDrained { id, drained } => self.device_health(&id, |was| match (was, drained) {
                (Health::Lost, _) => Health::Lost,
                (_, true) => Health::Draining,
                (_, false) => Health::Ok,
            }),
            Event::QueueSet { name, queue } => self.queue_set(&name, queue),
            Event::QueueRemoved(name) => {
                if self.state.queues.contains_key(&name) {
                    // Without a queue they wait in the order of its default.
                    self.queue_set(&name, Queue::default());
                    self.state.queues.remove(&name);
                    self.queues_changed();
                }
            }
            Event::NamespaceSeen { name, labels } => self.namespace_seen(name, labels),
            Event::NamespaceGone(name) => self.namespace_gone(&name),
            Event::JobSet { name, spec } => self.job_set(name, spec),
            Event::JobPaused { name, paused } => self.with_job(&name, |job| job.paused = paused),
            Event::JobCancelled(name) => self.with_job(&name, |job| job.cancelled = true),
            Event::JobRemoved(name) => self.with_job(&name, |job| job.removed = true),
            Event::JobObserved { name, observed } => self.job_observed(&name, &observed),
            Event::JobStarted { name, attempt } => self.with_attempt(&name, attempt, |job| {
                if let Phase::Running(run) = &mut job.phase {
                    run.observed = true;
                }
                job.refusals = 0;
            }),
            Event::JobProgress { name, attempt, step, checkpoint, done_ppm } => {
                self.job_progress(&name, attempt, step, checkpoint, done_ppm);
            }
            Event::JobExited { name, attempt, exit } => self.job_exited(&name, attempt, exit),
            Event::ModelSet { name, spec } => self.model_set(&name, spec),
            Event::ModelPaused { name, paused } => self.with_model(&name, |model| model.paused = paused),
            Event::ModelRemoved(name) => self.with_model(&name, |model| model.removed = true),
            Event::Demand { model, demand } => self.demand(&model, demand),
            Event::ReplicaReady { id, load_ms } => self.replica_ready(&id, load_ms),
            Event::ReplicaObserved { id, observed } => self.replica_observed(&id, &observed),
            Event::ReplicaExited { id, failed } => self.replica_exited(&id, failed),
            Event::Outcome { id, outcome } => self.outcome(id, &outcome),
        }
    }

    fn policy_set(&mut self, policy: Policy) {
        if policy.levels != self.state.policy.levels {
            let nodes = self.state.nodes.slots().map(|(ix, _, node)| (ix, node));
            self.desk.books.cluster.set_levels(&policy.levels, nodes);
            self.desk.outlook.changed();
        }
        let resized = policy.share_sizes != self.state.policy.share_sizes;
        self.desk.consolidates = policy.consolidate;
        self.state.policy = policy;
        if resized {
            // Who grows by itself.
            for ix in self.state.jobs.slots().map(|(ix, _, _)| ix).collect::<Vec<_>>() {
                self.desk.list(self.state, ix);
            }
        }
    }

    fn with_job(&mut self, name: &JobName, change: impl FnOnce(&mut Job)) {
        let Some(ix) = self.state.jobs.ix(name) else { return };
        if let Some(job) = self.state.jobs.at_mut(ix) {
            change(job);
            self.desk.list(self.state, ix);
        }
    }

    /// Changes a job if `attempt` is the one that runs: reports of a stale attempt change nothing.
    fn with_attempt(&mut self, name: &JobName, attempt: u32, change: impl FnOnce(&mut Job)) {
        if self.state.jobs.get(name).and_then(Job::run).is_some_and(|run| run.attempt == attempt) {
            self.with_job(name, change);
        }
    }

    fn with_model(&mut self, name: &ModelName, change: impl FnOnce(&mut Model)) {
        if let Some(model) = self.state.models.get_mut(name) {
            change(model);
        }
    }

    fn node_set(&mut self, name: NodeName, spec: Arc<NodeSpec>) {
        if self.state.nodes.contains_key(&name) {
            return self.with_node(&name, |node| (node.spec, node.gone) = (spec, false));
        }
        let ix = self.state.nodes.insert(name, Node { spec, ..Node::default() });
        self.node_changed(ix);
    }

    fn with_node(&mut self, name: &NodeName, change: impl FnOnce(&mut Node)) {
        let Some(ix) = self.state.nodes.ix(name) else { return };
        if let Some(node) = self.state.nodes.at_mut(ix) {
            change(node);
            self.node_changed(ix);
        }
    }

    fn node_changed(&mut self, ix: u32) {
        if let Some(node) = self.state.nodes.at(ix) {
            self.desk.books.cluster.set_node(ix, node);
            self.desk.note_health(ix, node);
            self.desk.outlook.node_changed(self.state, ix, node);
        }
    }

    /// A device of a node that is full takes the place of one that is lost and that nobody holds; without any it is refused: a node has
    /// at most [`MAX_DEVICES`].
    fn device_seen(&mut self, mut device: Device) {
        let now = self.state.now;
        let ix = match self.state.nodes.ix(&device.node) {
            Some(ix) => ix,
            None => self.state.nodes.insert(device.node.clone(), Node::default()),
        };
        // Thousands of devices have few names of nodes and classes between them: these are shared.
        if let Some(class) = self.state.classes.iter().find(|class| **class == device.class) {
            device.class = class.clone();
        } else {
            self.state.classes.push(device.class.clone());
            self.desk.books.cluster.set_classes(&self.state.classes);
        }
        if let Some(node) = self.state.nodes.name(ix) {
            device.node = node.clone();
        }
        self.left(&device.id, ix);
        let empty = self.empty_place(ix);
        let Some(node) = self.state.nodes.at_mut(ix) else { return };
        let (kind, id) = ((device.class.clone(), device.part), device.id.clone());
        let mut counts_otherwise = false;
        if let Some(known) = node.devices.iter_mut().find(|known| known.id == device.id) {
            let health = if known.health == Health::Lost { Health::Ok } else { known.health };
            counts_otherwise = (&known.class, known.part) != (&kind.0, kind.1);
            *known = Device { health, free_since: known.free_since, ..device };
        } else if node.devices.len() < MAX_DEVICES {
            let place = u32::try_from(node.devices.len()).unwrap_or(u32::MAX);
            self.state.places.insert(id.clone(), (ix, place));
            node.devices.push(Device { free_since: Some(now), ..device });
        } else if let Some((place, lost)) = empty.and_then(|place| Some((place, node.devices.get_mut(place as usize)?))) {
            self.state.places.remove(&lost.id);
            self.state.places.insert(id.clone(), (ix, place));
            *lost = Device { free_since: Some(now), ..device };
        }
        self.node_changed(ix);
        let place = self.state.places.get(&id).map_or(usize::MAX, |(_, place)| *place as usize);
        let is_held = self.desk.books.cluster.node(ix).is_some_and(|node| node.devices.get(place).is_some_and(|d| d.firm > 0));
        if counts_otherwise && is_held {
            // What holds it counts as what it is now.
            self.queues_changed();
        }
    }

    /// The place of a lost device of a node that is full, which nobody holds and which is reserved for nobody.
    fn empty_place(&self, ix: u32) -> Option<u32> {
        let node = self.state.nodes.at(ix).filter(|node| node.devices.len() >= MAX_DEVICES)?;
        let free = self.desk.books.cluster.node(ix)?;
        let reserved = self.state.reservations.values().flat_map(|reservation| &reservation.seats);
        let reserved = reserved.filter(|seat| seat.node == ix).fold(0, |mask, seat| mask | seat.mask);
        let is_empty = |at: usize, device: &Device| device.health == Health::Lost && free.is_free(at) && reserved >> at & 1 == 0;
        let found = node.devices.iter().enumerate().find(|(at, device)| is_empty(*at, device));
        found.and_then(|(at, _)| u32::try_from(at).ok())
    }

    /// A device that is seen on one node is lost on the one where it was.
    fn left(&mut self, id: &DeviceId, now_on: u32) {
        if self.state.places.get(id).is_some_and(|(node, _)| *node != now_on) {
            self.device_health(id, |_| Health::Lost);
        }
    }

    fn device_health(&mut self, id: &DeviceId, change: impl FnOnce(Health) -> Health) {
        let Some((ix, place)) = self.state.places.get(id).copied() else { return };
        let device = self.state.nodes.at_mut(ix).and_then(|node| node.devices.get_mut(place as usize));
        if let Some(device) = device {
            device.health = change(device.health);
            self.node_changed(ix);
        }
    }

    fn queue_set(&mut self, name: &QueueName, queue: Queue) {
        let discipline = queue.discipline;
        let was = self.state.queues.insert(name.clone(), queue).map(|was| was.discipline).unwrap_or_default();
        if was != discipline {
            let jobs = self.state.jobs.slots().filter(|(_, _, job)| job.spec.queue == *name);
            for ix in jobs.map(|(ix, _, _)| ix).collect::<Vec<_>>() {
                self.set_turn(ix);
                self.desk.list(self.state, ix);
            }
        }
        self.queues_changed();
    }

    fn queues_changed(&mut self) {
        self.state.gone = gone(self.state);
        self.desk.books.set_queues(self.state);
        self.desk.rules = Rules::of(self.state, &self.desk.books.tree);
        self.desk.books.enter_usage(self.state);
        self.desk.relink();
        self.desk.outlook.changed();
    }

    /// What was told of a job may be the first that runs by the name of a queue which is not there.
    pub fn job_runs(&mut self, ix: u32) {
        let may_stop = self.state.jobs.at(ix).filter(|job| job.spec.preemptible && !firm(job).is_empty());
        if let Some(queue) = may_stop.map(|job| job.spec.queue.clone()) {
            self.runs_in(&queue);
        }
    }

    /// Something that may be stopped runs by this name of a queue.
    pub fn runs_in(&mut self, queue: &QueueName) {
        if !self.state.queues.contains_key(queue) && !self.state.gone.contains(queue) {
            self.queues_changed();
        }
    }

    fn namespace_seen(&mut self, name: Namespace, labels: Labels) {
        let known = self.state.namespaces.contains_key(&name);
        if labels.len() > MOST_LABELS || (!known && self.state.namespaces.len() >= MOST_NAMESPACES) {
            return self.namespace_gone(&name);
        }
        if self.state.namespaces.get(&name) != Some(&labels) {
            self.state.namespaces.insert(name, labels);
        }
    }

    fn namespace_gone(&mut self, name: &Namespace) {
        self.state.namespaces.remove(name);
    }

    fn job_set(&mut self, name: JobName, spec: Arc<JobSpec>) {
        let ix = if let Some(ix) = self.state.jobs.ix(&name) {
            self.respecify(ix, spec);
            // Deleted and submitted again before it was gone: it goes on.
            if let Some(job) = self.state.jobs.at_mut(ix) {
                job.removed = false;
            }
            ix
        } else {
            self.saw(&spec);
            self.state.jobs.insert(name, Job::new(self.desk.shared(spec), self.state.now))
        };
        self.set_turn(ix);
        self.desk.list(self.state, ix);
        self.job_runs(ix);
    }

    /// Learns what work is typical; now and then the mix is fitted anew, the seldomer the more nodes must be rated again.
    fn saw(&mut self, spec: &JobSpec) {
        let mut due = false;
        for group in &spec.groups {
            due |= self.state.asked.saw(self.desk.books.cluster.shape(&group.ask));
            self.state.asked_since += 1;
        }
        let least = (self.state.nodes.len() / FIT_PER_NODES) as u64;
        if due && self.state.asked_since > least {
            self.state.asked_since = 0;
            self.state.mix = self.state.asked.mix(&self.desk.books.cluster.class_gpus());
            self.desk.books.cluster.set_mix(self.state.mix.clone());
        }
    }

    /// What a job holds is counted as it was placed: other workers than those it has only when it holds nothing any more.
    fn respecify(&mut self, ix: u32, told: Arc<JobSpec>) {
        let Some(job) = self.state.jobs.at(ix) else { return };
        let alike = job.spec.groups.len() == told.groups.len()
            && job.spec.groups.iter().zip(&told.groups).all(|(was, is)| was.ask == is.ask);
        let holds = job.run().is_some();
        if let Phase::Waiting { keep, .. } = &job.phase
            && !alike
        {
            let keep = keep.clone();
            self.leave(ix, &[], &keep, &[]);
        }
        // What was promised was for the workers that it had.
        if !alike {
            self.state.reservations.remove(&ix);
        }
        let Some(job) = self.state.jobs.at_mut(ix) else { return };
        if let Phase::Waiting { keep, .. } = &mut job.phase
            && !alike
        {
            keep.clear();
        }
        let mut spec = told.clone();
        if holds && !alike {
            Arc::make_mut(&mut spec).groups.clone_from(&job.spec.groups);
        }
        let next = (spec != told).then_some(told);
        if job.spec == spec && job.next_spec == next {
            return;
        }
        let moved = job.spec.queue != spec.queue;
        let now = self.state.now;
        if let Some(job) = self.state.jobs.at_mut(ix) {
            bank(job, now);
            (job.spec, job.next_spec) = (self.desk.shared(spec), next);
        }
        if moved {
            self.queues_changed();
        }
    }

    pub fn set_turn(&mut self, ix: u32) {
        let Some(job) = self.state.jobs.at(ix) else { return };
        let turn = predict::turn_key(self.state, job);
        if let Some(job) = self.state.jobs.at_mut(ix) {
            job.turn = turn;
        }
    }

    fn job_progress(&mut self, name: &JobName, attempt: u32, step: u64, checkpoint: Option<u64>, done_ppm: Option<u32>) {
        let now = self.state.now;
        let Some(ix) = self.state.jobs.ix(name) else { return };
        let Some(job) = self.state.jobs.at_mut(ix) else { return };
        if job.run().is_none_or(|run| run.attempt != attempt) {
            return;
        }
        job.progress.step = job.progress.step.max(step);
        job.progress.done_ppm = done_ppm.or(job.progress.done_ppm);
        if let Some(checkpoint) = checkpoint.filter(|step| *step > job.progress.checkpoint_step) {
            job.progress.checkpoint_step = checkpoint;
            job.progress.checkpoint_at = Some(now);
            job.failures = 0;
        }
    }

    fn job_exited(&mut self, name: &JobName, attempt: u32, exit: JobExit) {
        let now = self.state.now;
        let Some(ix) = self.state.jobs.ix(name) else { return };
        let Some(job) = self.state.jobs.at(ix) else { return };
        let Some(run) = job.run().filter(|run| run.attempt == attempt).cloned() else { return };
        let keeps = exit == JobExit::Stopped && job.next_spec.is_none();
        let keep = run.stop.as_ref().map(|stop| stop.keep.clone()).filter(|_| keeps).unwrap_or_default();
        let milli: u64 = run.seats.iter().map(|seat| job.seat_milli(self.state, seat)).sum();
        let served = job.served_ms(now);
        self.leave(ix, &run.seats, run.kept(), &keep);
        self.state.book(format!("job/{name}"), milli, run.since);
        if let Some(stop) = &run.stop {
            self.state.stop_ms = averaged(self.state.stop_ms, now.since(stop.since));
        }
        if let Some(job) = self.state.jobs.at_mut(ix) {
            end_attempt(job, now, exit, keep, served);
            if exit == JobExit::Succeeded {
                let (owner, recipe, ran) = (job.spec.owner.clone(), job.spec.recipe.clone(), job.served_ms);
                self.state.history.add(&owner, &recipe, ran);
            }
        }
        if let Some(job) = self.state.jobs.at_mut(ix)
            && let Some(next) = job.next_spec.take()
        {
            job.spec = next;
        }
        self.set_turn(ix);
        self.desk.list(self.state, ix);
        self.settle_jobs(name, attempt);
    }

    /// The books when an attempt has ended: what it held is free but for `keep`.
    pub fn leave(&mut self, ix: u32, seats: &[Seat], firm: &[Seat], keep: &[Seat]) {
        let Some(job) = self.state.jobs.at(ix) else { return };
        let spec = &job.spec;
        let books = &mut self.desk.books;
        let queue = books.tree.node(&spec.queue);
        for (ask, seat) in Desk::asks(spec, &given_up(seats, firm)) {
            books.settle(ask, seat, Holder::Job(ix));
        }
        for (ask, seat) in Desk::asks(spec, &given_up(firm, keep)) {
            books.free(queue, ask, seat);
        }
    }

    fn model_set(&mut self, name: &ModelName, spec: ModelSpec) {
        let moved = self.state.models.get(name).is_some_and(|model| model.spec.queue != spec.queue);
        match self.state.models.get_mut(name) {
            Some(model) => {
                model.want = model.want.clamp(spec.min, spec.max);
                // A new version has not failed yet.
                if model.spec.generation != spec.generation {
                    model.failures = 0;
                    model.not_before = None;
                }
                model.spec = spec;
                model.removed = false;
            }
            None => self.model_added(name, spec),
        }
        if moved {
            self.queues_changed();
            for ix in self.desk.by_model.get(name).cloned().unwrap_or_default() {
                self.desk.list_replica(self.state, ix);
            }
        }
    }

    fn model_added(&mut self, name: &ModelName, spec: ModelSpec) {
        let mut model = Model::new(spec);
        if let Some(past) = self.state.remembered.models.remove(name) {
            past.enter(&mut model);
        }
        self.state.models.insert(name.clone(), model);
    }

    fn demand(&mut self, name: &ModelName, demand: Demand) {
        let (now, stop_ms) = (self.state.now, self.state.stop_ms);
        let replicas = self.desk.by_model.get(name).into_iter().flatten().filter_map(|ix| self.state.replicas.at(*ix));
        let ready = replicas.filter(|replica| replica.stop.is_none() && replica.phase == ReplicaPhase::Ready).count();
        let shares = self.state.models.get(name).is_some_and(|model| model.spec.sharers() > 1);
        let strictest = || self.state.models.values().filter_map(Model::turn_slo_us).min();
        let turn_slo_us = shares.then(strictest).flatten().unwrap_or(u64::MAX);
        let policy = &self.state.policy;
        let Some(model) = self.state.models.get_mut(name) else { return };
        let asks =
            |model: &Model| (model.want, model.target(now, policy), model.next_change(now, policy), model.sharers(now, policy));
        let former = asks(model);
        let lead_ms = model.load_ms + stop_ms;
        model.observe(now, demand, policy, lead_ms, u32::try_from(ready).unwrap_or(u32::MAX), turn_slo_us);
        self.state.dirty |= former != asks(model);
    }

    fn replica_ready(&mut self, id: &ReplicaId, load_ms: u64) {
        let Some(replica) = self.state.replicas.get_mut(id) else { return };
        if replica.phase == ReplicaPhase::Ready {
            return;
        }
        replica.phase = ReplicaPhase::Ready;
        let name = replica.model.clone();
        self.with_model(&name, |model| {
            model.load_ms = averaged(model.load_ms, load_ms);
            model.failures = 0;
            model.not_before = None;
        });
    }

    fn replica_exited(&mut self, id: &ReplicaId, failed: bool) {
        let now = self.state.now;
        let Some(ix) = self.state.replicas.ix(id) else { return };
        let Some(replica) = self.state.replicas.remove(id) else { return };
        if let Some(model) = self.state.models.get(&replica.model) {
            let queue = model.spec.queue.clone();
            let milli = replica.milli(self.state);
            let books = &mut self.desk.books;
            if replica.stop.is_some() {
                books.settle(&replica.ask, &replica.seat, Holder::Replica(ix));
            } else {
                let node = books.tree.node(&queue);
                books.free(node, &replica.ask, &replica.seat);
            }
            self.state.book(format!("model/{}", replica.model), milli, replica.since);
        }
        self.desk.list_replica(self.state, ix);
        if failed {
            self.with_model(&replica.model, |model| {
                model.failures += 1;
                model.not_before = (model.failures > 1).then(|| now.plus(backoff_ms(model.failures - 1)));
            });
        }
        self.settle(|kind| {
            matches!(kind, ActionKind::StartReplica { replica, .. } | ActionKind::StopReplica { replica, .. } if replica == id)
        });
    }

    fn outcome(&mut self, id: ActionId, outcome: &Outcome) {
        let Some(action) = self.state.actions.remove(&id) else { return };
        if *outcome == Outcome::Done {
            return;
        }
        match action.kind {
            ActionKind::StartJob { job, attempt, .. } => {
                let exit = if matches!(outcome, Outcome::Failed(_)) { JobExit::Failed } else { JobExit::Stopped };
                self.job_exited(&job, attempt, exit);
            }
            ActionKind::StartReplica { replica, .. } => self.replica_exited(&replica, matches!(outcome, Outcome::Failed(_))),
            // A stop that found nothing to stop, or could not: the end of what it names is observed by itself.
            ActionKind::StopJob { .. } | ActionKind::StopReplica { .. } => {}
        }
    }

    fn settle_jobs(&mut self, name: &JobName, attempt: u32) {
        self.settle(|kind| matches!(kind, ActionKind::StopJob { job, attempt: of, .. } if job == name && *of == attempt));
    }

    /// Forgets actions whose effect was observed.
    fn settle(&mut self, of: impl Fn(&ActionKind) -> bool) {
        self.state.actions.retain(|_, action| !of(&action.kind));
    }
}

/// What the attempt ran so far counts by the curve that it had.
fn bank(job: &mut Job, now: crate::time::At) {
    let served = job.served_ms(now);
    if let Phase::Running(run) = &mut job.phase
        && run.observed
    {
        run.counted = now;
        job.served_ms = served;
    }
}

/// The job after its attempt.
fn end_attempt(job: &mut Job, now: crate::time::At, exit: JobExit, keep: Vec<Seat>, served: u64) {
    let failed = exit == JobExit::Failed;
    job.failures += u32::from(failed);
    job.refusals += u32::from(exit == JobExit::Refused);
    job.served_ms = served;
    // What the next attempt has not got in a checkpoint, it does again.
    job.progress.step = if exit == JobExit::Succeeded { job.progress.step } else { job.progress.checkpoint_step };
    job.phase = if exit == JobExit::Succeeded {
        Phase::Finished(End::Succeeded { at: now })
    } else if job.failures > job.spec.backoff_limit {
        Phase::Finished(End::Failed { at: now })
    } else {
        let pause = match exit {
            JobExit::Failed => Some(backoff_ms(job.failures)),
            JobExit::Refused => Some(backoff_ms(job.refusals)),
            JobExit::Succeeded | JobExit::Stopped => None,
        };
        let not_before = pause.map(|pause| now.plus(pause));
        Phase::Waiting { since: now, not_before, keep }
    };
}

/// See [`State::gone`].
fn gone(state: &State) -> BTreeSet<QueueName> {
    let jobs = state.jobs.iter().map(|(_, job)| job).filter(|job| job.spec.preemptible && !firm(job).is_empty());
    let models = state.replicas.values().filter(|replica| replica.stop.is_none());
    let models = models.filter_map(|replica| state.models.get(&replica.model));
    let used = jobs.map(|job| &job.spec.queue).chain(models.map(|model| &model.spec.queue));
    used.filter(|queue| !queue.0.is_empty() && !state.queues.contains_key(*queue)).cloned().collect()
}
