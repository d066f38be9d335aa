//! Training jobs: the engine's orders as pods that are made where it says, and what becomes of them.
//!
//! A worker's pod is made on its node (`spec.nodeName`): one request, and no moment at which somebody else could place it. One that
//! claims its devices by name is bound once it has them ([`super::claims`]). Its name
//! holds the job's uid, the attempt and the rank, so that a request that is sent twice makes one pod. The pods say which attempt
//! they are of: after a restart what runs is read from them, and a gang of which not all were made ends and waits for its turn.

mod pods;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_api::contract::Progress;
use tidegate_core::event::{Observed, ObservedRun};
use tidegate_core::names::{JobName, NodeName};
use tidegate_core::plan::{ActionId, Placed};
use tidegate_core::state::JobSpec;
use tidegate_core::time::At;
use tidegate_core::{Engine, Event, JobExit, Outcome};

use super::devices::Asker;
use super::nodes::Refusal;
use super::unit::UnitId;
use super::{Change, Failure, Index, Maker, Write};
use crate::facts::pod::WorkerOf;
use crate::facts::selection::both;
use crate::facts::training::Wanted;
use crate::facts::{PodFacts, PodKey, PodPhase, TrainingFacts};

/// What the engine's names of training jobs begin with.
const PREFIX: &str = "training/";

/// One training job.
#[derive(Clone, Debug, Default)]
pub(super) struct Training {
    /// Absent: it is gone, and its pods are not yet.
    facts: Option<TrainingFacts>,
    pods: BTreeSet<PodKey>,
    /// What the engine was told of it.
    told: Option<JobSpec>,
    /// Why it cannot be told, beside what the object itself says: a volume is missing.
    lacks: Option<String>,
    run: Option<Run>,
    /// The last attempt of which the engine was told the end.
    ended: u32,
    /// Its status is being written.
    writing: bool,
    /// What was reported last: steps, and those in a checkpoint.
    steps: (Option<u64>, Option<u64>),
}

/// An attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    attempt: u32,
    since: At,
    workers: BTreeMap<PodKey, Worker>,
    /// The start, until every pod of it is made.
    action: Option<ActionId>,
    /// Why pods could not be made.
    problems: Vec<String>,
    stopping: bool,
    started: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Worker {
    placed: Placed,
    state: State,
    /// It was told to end.
    ending: bool,
}

impl Worker {
    fn new(placed: Placed, state: State) -> Self {
        Self { placed, state, ending: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It was asked for, and there is no answer.
    Making,
    /// It was made, and not seen.
    Made,
    Seen,
    Over(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Well,
    Failed,
    /// Somebody ended it, or it was never there.
    Gone,
    /// Its kubelet would not have it.
    Refused,
}

impl Run {
    fn is(&self, state: impl Fn(State) -> bool) -> bool {
        self.workers.values().all(|worker| state(worker.state))
    }

    fn any(&self, state: State) -> bool {
        self.workers.values().any(|worker| worker.state == state)
    }

    /// Holds nothing any more.
    fn is_over(&self) -> bool {
        self.is(|state| matches!(state, State::Over(_)))
    }

    /// A worker that failed before it was told to end fails the attempt; one that somebody else ended, or that had no room where
    /// it came, is nobody's failure.
    fn exit(&self) -> JobExit {
        if self.any(State::Over(End::Failed)) {
            JobExit::Failed
        } else if self.any(State::Over(End::Refused)) {
            JobExit::Refused
        } else if self.stopping || self.any(State::Over(End::Gone)) {
            JobExit::Stopped
        } else {
            JobExit::Succeeded
        }
    }
}

/// Whether a pod is a worker of its attempt that has not ended.
pub(super) fn has(training: &Training, pod: &PodKey) -> bool {
    let worker = training.run.as_ref().and_then(|run| run.workers.get(pod));
    worker.is_some_and(|worker| !matches!(worker.state, State::Over(_)))
}

/// The engine's name of a training job.
pub(super) fn name(key: &PodKey) -> JobName {
    JobName::from(format!("{PREFIX}{key}"))
}

/// The training job that the engine calls so.
pub(super) fn key_of(job: &JobName) -> Option<PodKey> {
    job.0.strip_prefix(PREFIX).map(|key| PodKey(key.into()))
}

/// Why a report of progress is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such job.
    Unknown,
    /// The token is not this job's.
    Token,
    /// That attempt is over.
    Stale,
}

impl Index {
    /// A training job, or that it is gone.
    pub fn training(&mut self, change: Change<TrainingFacts, PodKey>) -> Vec<Event> {
        match change {
            Change::Is(facts) => {
                let key = facts.key.clone();
                self.trainings.entry(key.clone()).or_default().facts = Some(facts);
                self.look_at_training(&key)
            }
            Change::Gone(key) => {
                let Some(training) = self.trainings.get_mut(&key) else { return Vec::new() };
                training.facts = None;
                self.look_at_training(&key)
            }
        }
    }

    /// Keys of training jobs that are there.
    pub fn training_keys(&self) -> impl Iterator<Item = &PodKey> {
        self.trainings.iter().filter(|(_, training)| training.facts.is_some()).map(|(key, _)| key)
    }

    /// A worker's pod was seen.
    pub(super) fn worker_seen(&mut self, pod: &PodKey, of: &WorkerOf) -> Vec<Event> {
        self.trainings.entry(of.job.clone()).or_default().pods.insert(pod.clone());
        self.look_at_training(&of.job)
    }

    /// A worker's pod is gone.
    pub(super) fn worker_gone(&mut self, pod: &PodKey, of: &WorkerOf) -> Vec<Event> {
        let Some(training) = self.trainings.get_mut(&of.job) else { return Vec::new() };
        training.pods.remove(pod);
        if let Some(worker) = training.run.as_mut().and_then(|run| run.workers.get_mut(pod))
            && !matches!(worker.state, State::Over(_))
        {
            worker.state = State::Over(End::Gone);
        }
        self.look_at_training(&of.job)
    }

    /// What a training job is now, told to the engine; nothing before everything was listed.
    pub(super) fn look_at_training(&mut self, key: &PodKey) -> Vec<Event> {
        if !self.begun {
            return Vec::new();
        }
        self.status_due.insert(key.clone());
        let mut events = self.tell_training(key);
        self.take_over(key, &mut events);
        self.settle_training(key, &mut events);
        self.give_away(key, &mut events);
        let idle = self.trainings.get(key).is_some_and(|training| {
            training.facts.is_none() && training.run.is_none() && training.pods.is_empty() && training.told.is_none()
        });
        if idle {
            self.trainings.remove(key);
            self.status_due.remove(key);
        }
        events
    }

    /// What it asks for, if that is news.
    fn tell_training(&mut self, key: &PodKey) -> Vec<Event> {
        let facts = self.trainings.get(key).and_then(|training| training.facts.as_ref());
        let asks = facts.filter(|facts| !facts.ending && !facts.status.phase.is_over());
        let (mut events, job) = match asks.and_then(|facts| facts.wanted.clone().ok()) {
            Some(wanted) => {
                let (events, job) = self.job_of(key, &wanted);
                (events, Some(job))
            }
            None => (self.leave_workers(key), None),
        };
        let Some(training) = self.trainings.get_mut(key) else { return events };
        let Some(facts) = training.facts.as_ref().filter(|facts| !facts.ending) else {
            events.extend(training.told.take().map(|_| Event::JobRemoved(name(key))));
            return events;
        };
        // What makes no sense is told in the status; what it said before counts.
        training.lacks = job.as_ref().and_then(|job| job.as_ref().err().cloned());
        let Some(Ok(job)) = job else { return events };
        if training.told.as_ref() == Some(&job) {
            return events;
        }
        events.push(Event::JobSet { name: name(key), spec: job.clone().into() });
        if training.told.replace(job).is_none() {
            let (attempts, failures) = (facts.status.attempts, facts.status.failures);
            let observed = Observed { submitted: facts.created, attempts, failures, run: None };
            events.push(Event::JobObserved { name: name(key), observed });
        }
        events
    }

    /// The job that a training job is, on nodes from which its volumes can be used and that have the devices it claims. One that runs is
    /// known though these are not there now: a driver that is made anew publishes nothing for a while.
    fn job_of(&mut self, key: &PodKey, wanted: &Wanted) -> (Vec<Event>, Result<JobSpec, String>) {
        let mut job = wanted.job.clone();
        let runs_unknown = self.trainings.get(key).is_some_and(|training| {
            let uid = training.facts.as_ref().map(|facts| &facts.uid);
            let runs = |pod: &PodKey| self.worker_facts(pod).is_some_and(|(pod, of)| pod.holds() && Some(&of.uid) == uid);
            training.told.is_none() && training.pods.iter().any(runs)
        });
        let (mut events, mut problem) = (Vec::new(), None);
        for ((number, group), claimed) in (0_u16..).zip(&mut job.groups).zip(&wanted.claimed) {
            let (news, done) = self.want_devices(&Asker::Workers(key.clone(), number), claimed.as_ref(), &mut group.ask);
            events.extend(news);
            problem = problem.or(done.err().filter(|_| !runs_unknown));
        }
        for claim in &wanted.claims {
            let terms = match self.around.bound(claim) {
                Ok(terms) => terms,
                Err(_) if runs_unknown => continue,
                Err(why) => return (events, Err(why)),
            };
            for group in job.groups.iter_mut().filter(|_| !terms.is_empty()) {
                group.ask.affinity.required = both(&group.ask.affinity.required, &terms);
            }
        }
        (events, problem.map_or(Ok(job), Err))
    }

    /// Claims or volumes have changed: training jobs that use some are looked at again.
    pub(super) fn look_at_users_of_volumes(&mut self) -> Vec<Event> {
        let uses = |training: &Training| {
            let wanted = training.facts.as_ref().and_then(|facts| facts.wanted.as_ref().ok());
            wanted.is_some_and(|wanted| !wanted.claims.is_empty())
        };
        let keys: Vec<PodKey> =
            self.trainings.iter().filter(|(_, training)| uses(training)).map(|(key, _)| key.clone()).collect();
        keys.iter().flat_map(|key| self.look_at_training(key)).collect()
    }

    fn worker_facts(&self, pod: &PodKey) -> Option<(&PodFacts, &WorkerOf)> {
        let facts = &self.pods.get(pod)?.facts;
        Some((facts, facts.worker.as_ref()?))
    }

    /// An attempt whose pods are there and that this process has not begun: after a restart, or by another's hand.
    fn take_over(&mut self, key: &PodKey, events: &mut Vec<Event>) {
        let Some(training) = self.trainings.get(key) else { return };
        let Some(facts) = training.facts.as_ref().filter(|_| training.run.is_none() && training.told.is_some()) else { return };
        let all: Vec<(&PodFacts, &WorkerOf)> = training.pods.iter().filter_map(|pod| self.worker_facts(pod)).collect();
        let mine = || all.iter().filter(|(_, of)| of.uid == facts.uid);
        let Some(attempt) = mine().map(|(_, of)| of.attempt).max() else { return };
        let holds = all.iter().any(|(pod, _)| pod.holds());
        // An attempt that the status says is over was counted; its pods are kept for their logs.
        let counted = training.ended >= attempt || (!facts.status.phase.is_live() && facts.status.attempts >= attempt);
        if !holds && counted {
            return;
        }
        // Which devices one without a node was to have nobody knows any more.
        let unplaced = mine().filter(|(pod, _)| pod.node.is_none() && !pod.phase.is_over());
        let in_part = unplaced.clone().any(|(_, of)| of.attempt == attempt);
        let lost = unplaced.filter(|(pod, of)| !pod.ending && (!holds || of.attempt != attempt));
        let ends: Vec<Write> = lost.map(|(pod, _)| pods::end(pod)).collect();
        if !holds && in_part {
            let attempts = attempt.max(facts.status.attempts);
            let observed = Observed { submitted: facts.created, attempts, failures: facts.status.failures, run: None };
            events.push(Event::JobObserved { name: name(key), observed });
            if let Some(training) = self.trainings.get_mut(key) {
                training.ended = attempt;
                training.pods.retain(|pod| ends.iter().all(|end| end.subject() != pod));
            }
            self.writes.extend(ends);
            return;
        }
        // Whatever holds something is counted, of an older attempt too.
        let taken = all.iter().filter(|(pod, of)| pod.holds() || (of.attempt == attempt && of.uid == facts.uid));
        let worker = |(pod, of): &(&PodFacts, &WorkerOf)| {
            let node = NodeName::from(pod.node.clone().unwrap_or_default());
            let devices = self.devices.all_of(pod).unwrap_or_default();
            let placed = Placed { group: of.group, node, devices, slices: 0 };
            (pod.key.clone(), Worker::new(placed, State::Seen))
        };
        let workers: BTreeMap<PodKey, Worker> = taken.clone().map(worker).collect();
        let size = mine().filter(|(_, of)| of.attempt == attempt).map(|(_, of)| of.size as usize).max().unwrap_or_default();
        let since = taken.map(|(pod, _)| pod.created).min().unwrap_or_default();
        // One of which not all were made is told to end.
        let stopping = workers.len() != size || in_part;
        let (action, problems) = (None, Vec::new());
        let run = Run { attempt, since, workers, action, problems, stopping, started: false };
        let seen = run.workers.values().filter(|worker| !worker.placed.node.0.is_empty());
        let observed = Observed {
            submitted: facts.created,
            attempts: attempt.max(facts.status.attempts),
            failures: facts.status.failures,
            run: Some(ObservedRun { since, workers: seen.map(|worker| worker.placed.clone()).collect(), started: false }),
        };
        let run = Run { attempt: observed.attempts, ..run };
        self.writes.extend(ends);
        for pod in run.workers.keys() {
            self.end_claim_jobs_of(pod, events);
        }
        events.push(Event::JobObserved { name: name(key), observed });
        if let Some(training) = self.trainings.get_mut(key) {
            training.run = Some(run);
        }
    }

    /// What has ended of an attempt, whether all of it runs, and what is to be ended.
    fn settle_training(&mut self, key: &PodKey, events: &mut Vec<Event>) {
        let Some(mut training) = self.trainings.remove(key) else { return };
        if let Some(run) = &mut training.run {
            for (pod, worker) in &mut run.workers {
                if let Some((facts, _)) = self.worker_facts(pod)
                    && !matches!(worker.state, State::Over(_))
                {
                    worker.state = state(facts);
                }
            }
            run.stopping |= [End::Failed, End::Gone, End::Refused].into_iter().any(|end| run.any(State::Over(end)));
            if run.stopping {
                self.end_making_of(key);
            }
            let running = |pod: &PodKey| self.pods.get(pod).is_some_and(|entry| entry.facts.phase == PodPhase::Running);
            if !run.started && !run.stopping && run.action.is_none() && run.workers.keys().all(running) {
                run.started = true;
                events.push(Event::JobStarted { name: name(key), attempt: run.attempt });
            }
            if !run.any(State::Making) && self.made_wait(key).is_none() {
                let done = run.action.take_if(|_| run.problems.is_empty());
                events.extend(done.map(|id| Event::Outcome { id, outcome: Outcome::Done }));
            }
            if run.stopping {
                self.writes.extend(pods::ends(run, &self.pods));
            }
            if run.is_over() {
                events.push(match run.action {
                    // Its seats are free again only now that what was made of it is gone.
                    Some(id) => Event::Outcome { id, outcome: Outcome::Failed(run.problems.join("; ")) },
                    None => Event::JobExited { name: name(key), attempt: run.attempt, exit: run.exit() },
                });
                training.ended = run.attempt;
                training.run = None;
            }
        }
        self.trainings.insert(key.clone(), training);
    }

    /// Pods of a job that the engine does not know (it is gone, or makes no sense any more) hold what they hold all the same.
    fn give_away(&mut self, key: &PodKey, events: &mut Vec<Event>) {
        let Some(training) = self.trainings.get(key).filter(|training| training.told.is_none() && training.run.is_none()) else {
            return;
        };
        let orphans: Vec<PodKey> = training.pods.iter().filter(|pod| self.holds(pod)).cloned().collect();
        for pod in orphans {
            if let Some(training) = self.trainings.get_mut(key) {
                training.pods.remove(&pod);
            }
            events.extend(self.enter(&pod, &UnitId::Foreign(pod.clone())));
        }
    }

    /// Makes the pods of an attempt.
    pub(super) fn start_training(&mut self, id: ActionId, key: &PodKey, start: &Start<'_>, at: At) -> Vec<Event> {
        let dropped = vec![Event::Outcome { id, outcome: Outcome::Dropped }];
        let Some(training) = self.trainings.get(key).filter(|training| training.run.is_none()) else { return dropped };
        let Some(facts) = training.facts.as_ref().filter(|facts| !facts.ending) else { return dropped };
        let Ok(wanted) = facts.wanted.clone() else { return dropped };
        let made = pods::made(facts, &wanted, start, self.progress_url.as_deref());
        let pods: Vec<PodFacts> = made.pods.iter().map(|(pod, _)| PodFacts::of(pod)).collect();
        let chosen: Vec<(&PodFacts, Placed)> = pods.iter().zip(start.workers.iter().cloned()).collect();
        match self.refuses(&chosen) {
            Some(Refusal::Late) => return dropped,
            Some(Refusal::Lasting(why)) => return vec![Event::Outcome { id, outcome: Outcome::Failed(why) }],
            None => {}
        }
        let by_name = |placed: &Placed| wanted.claimed.get(usize::from(placed.group)).is_some_and(Option::is_some);
        let claiming: Vec<(PodKey, Placed)> =
            chosen.iter().filter(|(_, placed)| by_name(placed)).map(|(pod, placed)| (pod.key.clone(), placed.clone())).collect();
        match self.devices_refuse(claiming.iter().flat_map(|(_, placed)| &placed.devices)) {
            Some(Refusal::Late) => return dropped,
            Some(Refusal::Lasting(why)) => return vec![Event::Outcome { id, outcome: Outcome::Failed(why) }],
            None => {}
        }
        let old = pods::old(training.pods.iter(), &self.pods);
        let workers = chosen.iter().map(|(pod, placed)| (pod.key.clone(), Worker::new(placed.clone(), State::Making)));
        let run = Run {
            attempt: start.attempt,
            since: at,
            workers: workers.collect(),
            action: Some(id),
            problems: Vec::new(),
            stopping: false,
            started: false,
        };
        let mut events = Vec::new();
        for (pod, placed) in &chosen {
            events.extend(self.nodes.comes(pod, &placed.node.0));
        }
        events.extend(self.begin_making(&Maker::TrainingJob(key.clone()), claiming));
        self.writes.push(made.service);
        self.writes.extend(made.templates);
        self.writes.extend(made.pods.into_iter().map(|(_, write)| write));
        self.writes.extend(old);
        if let Some(training) = self.trainings.get_mut(key) {
            training.run = Some(run);
        }
        self.status_due.insert(key.clone());
        events
    }

    /// Tells the pods of an attempt to end; the end of the last of them ends the action.
    pub(super) fn stop_training(&mut self, id: ActionId, key: &PodKey, attempt: u32) -> Vec<Event> {
        let training = self.trainings.get_mut(key);
        let Some(run) = training.and_then(|training| training.run.as_mut()).filter(|run| run.attempt == attempt) else {
            let exited = Event::JobExited { name: name(key), attempt, exit: JobExit::Stopped };
            return vec![exited, Event::Outcome { id, outcome: Outcome::Done }];
        };
        run.stopping = true;
        self.writes.extend(pods::ends(run, &self.pods));
        self.status_due.insert(key.clone());
        Vec::new()
    }

    /// A pod was made, or why not.
    pub(super) fn made(&mut self, pod: &PodKey, job: &PodKey, result: Result<(), Failure>) -> Vec<Event> {
        let run = self.trainings.get_mut(job).and_then(|training| training.run.as_mut());
        let Some(run) = run else { return Vec::new() };
        let Some(worker) = run.workers.get_mut(pod).filter(|worker| worker.state == State::Making) else { return Vec::new() };
        let mut events = Vec::new();
        match result {
            Ok(()) => worker.state = State::Made,
            Err(failure) => {
                worker.state = State::Over(End::Gone);
                run.problems.push(match failure {
                    Failure::Refused(why) => why,
                    Failure::Gone | Failure::Conflict => format!("{pod} cannot be made"),
                });
                run.stopping = true;
                self.end_making(pod);
                events = self.nodes.came(pod);
            }
        }
        events.extend(self.look_at_training(job));
        events
    }

    /// A worker of the attempt cannot have its devices, or cannot be bound.
    pub(super) fn attempt_cannot_be(&mut self, job: &PodKey, why: String) -> Vec<Event> {
        if let Some(run) = self.trainings.get_mut(job).and_then(|training| training.run.as_mut()) {
            run.problems.push(why);
            run.stopping = true;
        }
        self.look_at_training(job)
    }

    /// A pod was told to end, or why not.
    pub(super) fn ended_pod(&mut self, pod: &PodKey, result: &Result<(), Failure>) -> Vec<Event> {
        if result.is_ok() {
            return Vec::new();
        }
        let run = |training: &Training| training.run.as_ref().is_some_and(|run| run.workers.contains_key(pod));
        let Some(key) = self.trainings.iter().find(|(_, training)| run(training)).map(|(key, _)| key.clone()) else {
            return Vec::new();
        };
        let mut events = Vec::new();
        if let Some(worker) = self.trainings.get_mut(&key).and_then(|training| training.run.as_mut()?.workers.get_mut(pod)) {
            worker.ending = false;
            // It went away before it was seen.
            if worker.state == State::Made && *result == Err(Failure::Gone) {
                worker.state = State::Over(End::Gone);
                events = self.nodes.came(pod);
            }
        }
        events.extend(self.look_at_training(&key));
        events
    }

    /// What workers report. The choice that is best for the job now, if it offers one.
    pub fn progress(&mut self, report: &Report, engine: &Engine) -> Result<(Vec<Event>, Option<u32>), Refused> {
        let training = self.trainings.get_mut(&report.job).ok_or(Refused::Unknown)?;
        let facts = training.facts.as_ref().ok_or(Refused::Unknown)?;
        if facts.uid != report.token {
            return Err(Refused::Token);
        }
        if training.run.as_ref().is_none_or(|run| run.attempt != report.attempt) {
            return Err(Refused::Stale);
        }
        let job = name(&report.job);
        let mut events = Vec::new();
        for line in &report.lines {
            let checkpoint = line.checkpoint.as_ref().map(|checkpoint| checkpoint.step);
            training.steps = (Some(line.step), checkpoint.or(training.steps.1));
            let (name, attempt, done_ppm) = (job.clone(), report.attempt, line.done_ppm());
            events.push(Event::JobProgress { name, attempt, step: line.step, checkpoint, done_ppm });
        }
        let known = engine.state().jobs.get(&job);
        let choice = known.and_then(|job| job.spec.choice(u32::try_from(job.run()?.seats.len()).unwrap_or(u32::MAX)));
        Ok((events, choice))
    }
}

/// A report of progress.
#[derive(Clone, Debug)]
pub struct Report {
    pub job: PodKey,
    pub attempt: u32,
    pub token: String,
    pub lines: Vec<Progress>,
}

/// An order to start.
pub(super) struct Start<'a> {
    pub attempt: u32,
    pub workers: &'a [Placed],
    pub choice: Option<u32>,
}

fn state(pod: &PodFacts) -> State {
    match pod.phase {
        PodPhase::Pending | PodPhase::Running => State::Seen,
        PodPhase::Succeeded => State::Over(End::Well),
        PodPhase::Failed if pod.refused => State::Over(End::Refused),
        PodPhase::Failed if pod.disrupted || pod.ending => State::Over(End::Gone),
        PodPhase::Failed => State::Over(End::Failed),
    }
}

#[cfg(test)]
mod tests;
