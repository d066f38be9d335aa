//! The engine's orders as writes, and what becomes of these.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use litemap::LiteMap;
use serde::Serialize;
use serde_json::Value;
use tidegate_api::kinds::{MAX_MESSAGE, cut};
use tidegate_core::names::JobName;
use tidegate_core::plan::{Action, ActionId, ActionKind, Placed};
use tidegate_core::time::At;
use tidegate_core::{Event, JobExit, Outcome, explain};

use super::nodes::Refusal;
use super::note::Note;
use super::training::{self, Start};
use super::unit::{self, Phase, Run, UnitId};
use super::{Engine, Index, Told};
use crate::facts::adopted;
use crate::facts::adoption::Adoption;
use crate::facts::{PodFacts, PodKey};

/// Looks at waiting units for reasons to tell, in one go: each costs a pass over the nodes.
const TOLD_AT_ONCE: usize = 64;

/// One request to the API server. Each says whom it means by uid, so that a namesake is never meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Binds a pod to a node, if it is still what was seen.
    Bind { pod: PodKey, uid: String, resource_version: String, node: String },
    /// Asks a pod to end, if no budget forbids it.
    Evict { pod: PodKey, uid: String, grace_seconds: u32 },
    /// Tells a claim of the pod on which node its volume is to be.
    SelectNode { pod: PodKey, claim: String, uid: String, resource_version: String, node: String },
    /// Gives a claim its devices and reserves it for the pod, unless somebody else has given it some.
    Allocate { pod: PodKey, pod_uid: String, claim: PodKey, uid: String, resource_version: String, allocation: Box<Value> },
    /// Takes back the devices of a claim that is still what was seen, if it has any; then it may go.
    Free { claim: PodKey, uid: String, resource_version: String, allocated: bool },
    /// Says on the pod why it waits, where autoscalers look.
    Refuse { pod: PodKey, uid: String, message: String },
    /// Makes the pod of a worker or a replica; one that is there already is it.
    MakePod { pod: PodKey, of: Maker, manifest: Box<Pod> },
    /// Makes what the claims of such pods are made from.
    MakeClaimTemplate { template: PodKey, of: Maker, manifest: Box<ResourceClaimTemplate> },
    /// Makes the service by which a training job's workers find each other.
    MakeService { service: PodKey, manifest: Box<Service> },
    /// Deletes a pod of ours, with the grace that it says or at once; `uid` absent: it was not seen yet.
    EndPod { pod: PodKey, uid: Option<String>, now: bool },
    /// Changes an object that waits suspended, or runs, if it is still what was seen.
    Adopt { object: PodKey, adoption: &'static Adoption, uid: String, resource_version: String, change: Box<adopted::Change> },
    /// Tells a pod of such an object to which node it is to go, and that it may.
    Place { pod: PodKey, uid: String, resource_version: String, hostname: String },
    /// Says how an object of ours stands.
    Status { kind: Ours, object: PodKey, uid: String, status: Box<Value> },
    /// An event on an object.
    Note { object: PodKey, note: Box<Note> },
}

/// Whose pod is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    TrainingJob(PodKey),
    Model(PodKey),
}

/// Kinds of ours that have a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    Pool,
    Queue,
    TrainingJob,
    Model,
}

/// Why a write did not do what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such pod any more.
    Gone,
    /// The pod is not what it was.
    Conflict,
    /// The API server will not do it, now or later.
    Refused(String),
}

impl Write {
    /// How an object of ours stands.
    pub fn status(kind: Ours, object: &PodKey, uid: &str, status: &impl Serialize) -> Self {
        // What is written is a plain structure, which JSON can say.
        let status = Box::new(serde_json::to_value(status).unwrap_or_default());
        Self::Status { kind, object: object.clone(), uid: uid.to_owned(), status }
    }

    pub(super) fn evict(pod: &PodFacts) -> Self {
        let grace_seconds = pod.ours.as_ref().map_or(0, |ours| ours.grace_seconds);
        Self::Evict { pod: pod.key.clone(), uid: pod.uid.clone(), grace_seconds }
    }

    pub(super) fn bind(pod: &PodFacts, node: &str) -> Self {
        Self::Bind {
            pod: pod.key.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            node: node.to_owned(),
        }
    }

    /// The object that it is about.
    pub fn subject(&self) -> &PodKey {
        match self {
            Self::Bind { pod, .. }
            | Self::Evict { pod, .. }
            | Self::SelectNode { pod, .. }
            | Self::Refuse { pod, .. }
            | Self::MakePod { pod, .. }
            | Self::Place { pod, .. }
            | Self::EndPod { pod, .. } => pod,
            Self::MakeService { service, .. } => service,
            Self::MakeClaimTemplate { template, .. } => template,
            Self::Allocate { claim, .. } | Self::Free { claim, .. } => claim,
            Self::Status { object, .. } | Self::Note { object, .. } | Self::Adopt { object, .. } => object,
        }
    }

    /// Nobody waits for it: it only informs.
    pub fn informs(&self) -> bool {
        matches!(self, Self::Refuse { .. } | Self::Status { .. } | Self::Note { .. })
    }

    /// It ends what was seen, and others wait for that: it may go before what was ordered earlier.
    pub fn makes_room(&self) -> bool {
        matches!(self, Self::Evict { .. } | Self::EndPod { uid: Some(_), .. })
    }

    /// Bounded word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "bind",
            Self::Evict { .. } => "evict",
            Self::SelectNode { .. } => "select_node",
            Self::Allocate { .. } => "allocate",
            Self::Free { .. } => "free",
            Self::Refuse { .. } => "refuse",
            Self::MakePod { .. } => "make_pod",
            Self::MakeService { .. } => "make_service",
            Self::MakeClaimTemplate { .. } => "make_claim_template",
            Self::EndPod { .. } => "end_pod",
            Self::Adopt { change, .. } => change.word(),
            Self::Place { .. } => "place",
            Self::Status { .. } => "status",
            Self::Note { .. } => "event",
        }
    }
}

impl Index {
    /// Begins to carry out an action; what is to be written is in [`Index::take_writes`].
    pub fn perform(&mut self, action: &Action, at: At) -> Vec<Event> {
        let mut events = self.begin_action(action, at);
        events.extend(self.look_at_claims());
        events
    }

    fn begin_action(&mut self, action: &Action, at: At) -> Vec<Event> {
        match &action.kind {
            ActionKind::StartJob { job, attempt, workers, .. } if is_adopted(job) => {
                self.start_adopted(action.id, job, *attempt, workers, at)
            }
            ActionKind::StopJob { job, attempt, .. } if is_adopted(job) => {
                self.stop_adopted(action.id, job, *attempt, &action.reason.to_string())
            }
            ActionKind::StartJob { job, attempt, workers, choice } => match training::key_of(job) {
                Some(key) => {
                    let start = Start { attempt: *attempt, workers, choice: *choice };
                    self.start_training(action.id, &key, &start, at)
                }
                None => self.start(action.id, job, *attempt, workers, at),
            },
            ActionKind::StopJob { job, attempt, .. } => {
                if let Some(key) = training::key_of(job) {
                    return self.stop_training(action.id, &key, *attempt);
                }
                self.note_stop(job, &action.reason.to_string());
                self.stop(action.id, job, *attempt)
            }
            ActionKind::StartReplica { model, replica, place } => {
                self.note_replica(model, replica, true, &action.reason.to_string());
                self.start_replica(action.id, model, replica, place, at)
            }
            ActionKind::StopReplica { model, replica } => {
                self.note_replica(model, replica, false, &action.reason.to_string());
                self.stop_replica(action.id, replica, at)
            }
        }
    }

    fn start(&mut self, id: ActionId, job: &JobName, attempt: u32, workers: &[Placed], at: At) -> Vec<Event> {
        let dropped = vec![close(id, Outcome::Dropped)];
        let Some(of) = self.jobs.get(job).cloned() else { return dropped };
        if self.units.get(&of).is_none_or(|unit| unit.phase != Phase::Waiting) {
            return dropped;
        }
        let waiting = self.waiting(&of);
        let asks = unit::asks(waiting.iter().copied());
        let mut left = waiting.clone();
        let mut chosen: Vec<(&PodFacts, Placed)> = Vec::new();
        for worker in workers {
            let fits = |pod: &&PodFacts| asks.get(usize::from(worker.group)) == Some(&unit::ask(pod));
            let Some(at) = left.iter().position(fits) else { return dropped };
            chosen.push((left.remove(at), worker.clone()));
        }
        match self.refuses(&chosen) {
            Some(Refusal::Late) => return dropped,
            Some(Refusal::Lasting(why)) => return self.refused(&of, id, why),
            None => {}
        }
        let volumes = match self.volumes_to_make(&of, &chosen) {
            Ok(volumes) => volumes,
            Err(why) => return self.refused(&of, id, why),
        };
        let given = match self.devices_to_give(&of, &chosen) {
            Ok(given) => given,
            Err(Refusal::Late) => return dropped,
            Err(Refusal::Lasting(why)) => return self.refused(&of, id, why),
        };
        let waits = !volumes.is_empty() || !given.is_empty();
        let bind = chosen.iter().filter(|_| !waits);
        let writes: Vec<Write> = bind.map(|(pod, worker)| Write::bind(pod, &worker.node.0)).collect();
        let placed: LiteMap<PodKey, Placed> = chosen.into_iter().map(|(pod, worker)| (pod.key.clone(), worker)).collect();
        self.writes.extend(writes);
        let mut events = Vec::new();
        for (pod, worker) in placed.iter() {
            let comes = self.pods.get(pod).map(|entry| self.nodes.comes(&entry.facts, &worker.node.0));
            events.extend(comes.unwrap_or_default());
            if given.values().any(|given| given.pod == *pod) {
                events.extend(self.promise(pod, worker.devices.clone()));
            }
        }
        let Some(unit) = self.units.get_mut(&of) else { return dropped };
        let open = placed.keys().cloned().collect();
        let run = Run { attempt, since: at, open, placed, action: Some(id), ..Run::default() };
        let spec = unit.spec.as_ref().map(|spec| self.specs.share(unit::as_placed(spec, &run.placed)));
        (unit.phase, unit.refused) = (Phase::Running(run.into()), None);
        self.to_tell.remove(&of);
        // It will not be made larger once it runs.
        let grown = spec.filter(|spec| unit.spec.as_ref() != Some(spec));
        if let Some(spec) = &grown {
            unit.spec = Some(spec.clone());
        }
        events.extend(grown.map(|spec| Event::JobSet { name: job.clone(), spec }));
        if waits {
            self.hold(&of, volumes, given, at);
            events.extend(self.look_at_held(&of));
        }
        events
    }

    /// Why a plan cannot be carried out, as far as the engine does not know it.
    pub(super) fn refuses(&self, chosen: &[(&PodFacts, Placed)]) -> Option<Refusal> {
        let mut by_node = BTreeMap::<&str, Vec<&PodFacts>>::new();
        for (pod, worker) in chosen {
            by_node.entry(worker.node.as_str()).or_default().push(pod);
        }
        by_node.iter().find_map(|(node, pods)| self.nodes.refuses(node, pods))
    }

    /// A start that cannot be; whoever asks why the unit waits is told.
    fn refused(&mut self, of: &UnitId, id: ActionId, why: String) -> Vec<Event> {
        if let Some(unit) = self.units.get_mut(of) {
            unit.refused = Some(why.as_str().into());
        }
        vec![close(id, Outcome::Failed(why))]
    }

    /// Says on pods that are told to end why.
    fn note_stop(&mut self, job: &JobName, why: &str) {
        let run = self.jobs.get(job).and_then(|of| self.units.get(of)).and_then(unit::Unit::run);
        // The reason may be another one's device: they end together.
        let together = run.map_or(0, |run| run.placed.len());
        let why = if together > 1 { format!("its gang of {together} pods ends: {why}") } else { why.to_owned() };
        let pods = run.into_iter().flat_map(|run| run.placed.keys()).filter_map(|pod| self.pods.get(pod));
        let ours = pods.map(|entry| &entry.facts).filter(|facts| facts.ours.is_some());
        let notes: Vec<Write> = ours.map(|facts| Note::ended(&facts.uid, &why).about(&facts.key)).collect();
        self.writes.extend(notes);
    }

    fn stop(&mut self, id: ActionId, job: &JobName, attempt: u32) -> Vec<Event> {
        let of = self.jobs.get(job).cloned();
        if matches!(of, Some(UnitId::Foreign(_))) || self.claim_jobs.has(job) {
            // Its node or devices are gone, or will be; it is not ours to end.
            return vec![close(id, Outcome::Done)];
        }
        let run = of.as_ref().and_then(|of| self.units.get_mut(of)).and_then(unit::Unit::run_mut);
        let Some(run) = run.filter(|run| run.attempt == attempt) else {
            let exited = Event::JobExited { name: job.clone(), attempt, exit: JobExit::Stopped };
            return vec![exited, close(id, Outcome::Done)];
        };
        run.stopping = true;
        if let Some(of) = of {
            self.evict(&of);
        }
        // Its end closes the action.
        Vec::new()
    }

    /// What became of a write. A conflict is tried again with what is seen next, as often as it happens: somebody else
    /// changes the pod, and either that ends or the pod does.
    pub fn written(&mut self, write: &Write, result: Result<(), Failure>) -> Vec<Event> {
        let mut events = self.became(write, result);
        events.extend(self.look_at_claims());
        events
    }

    fn became(&mut self, write: &Write, result: Result<(), Failure>) -> Vec<Event> {
        match write {
            Write::Bind { pod, node, uid, resource_version } => {
                if result.is_ok() {
                    self.writes.push(Note::bound(uid, pod, node).about(pod));
                }
                let mut events = self.seat_written(pod, resource_version, result.is_ok());
                events.extend(self.bound(pod, (uid, resource_version), node, result));
                events
            }
            Write::Place { pod, resource_version, .. } => self.seat_written(pod, resource_version, result.is_ok()),
            Write::Adopt { .. } => self.adopt_written(write, result),
            Write::SelectNode { pod, claim, node, .. } => self.selected(pod, claim, node, result),
            Write::Allocate { pod, claim, .. } => self.allocated(pod, claim, &result),
            Write::MakeClaimTemplate { of, .. } => self.template_refused(of, result),
            Write::Free { claim, resource_version, .. } => self.freed(claim, resource_version, &result),
            Write::MakePod { pod, of: Maker::TrainingJob(job), .. } => self.made(pod, job, result),
            Write::MakePod { pod, of: Maker::Model(model), .. } => self.replica_made(pod, model, result),
            Write::EndPod { pod, .. } => [self.ended_pod(pod, &result), self.replica_pod_missing(pod, &result)].concat(),
            Write::Status { kind: Ours::TrainingJob, object, .. } => {
                self.status_written(object);
                Vec::new()
            }
            Write::Status { kind: Ours::Model, object, .. } => {
                self.model_status_written(object);
                Vec::new()
            }
            Write::Evict { .. }
            | Write::Refuse { .. }
            | Write::MakeService { .. }
            | Write::Note { .. }
            | Write::Status { .. } => Vec::new(),
        }
    }

    fn bound(&mut self, pod: &PodKey, (uid, version): (&str, &str), node: &str, result: Result<(), Failure>) -> Vec<Event> {
        if let Some(events) = self.bound_made(pod, version, &result) {
            return events;
        }
        let Some(entry) = self.pods.get(pod).filter(|entry| entry.facts.uid == uid) else { return Vec::new() };
        let Some(id) = entry.unit.clone() else { return Vec::new() };
        if result == Err(Failure::Conflict) && entry.facts.node.is_none() && !entry.facts.ending {
            if let Some(run) = self.units.get_mut(&id).and_then(unit::Unit::run_mut) {
                run.stale.insert(pod.clone(), version.to_owned());
            }
            return self.settle(&id);
        }
        let here = result.is_ok() || entry.facts.node.as_deref() == Some(node);
        let Some(run) = self.units.get_mut(&id).and_then(unit::Unit::run_mut) else { return Vec::new() };
        if !run.open.remove(pod) {
            return Vec::new();
        }
        let mut events = Vec::new();
        if !here {
            self.devices.touch(&entry.facts);
            events = self.nodes.came(pod);
            run.placed.remove(pod);
            run.failed.push(match result {
                Err(Failure::Refused(why)) => format!("{pod}: {why}"),
                _ => format!("{pod}: it is gone, or somebody else has bound it"),
            });
        }
        if run.open.is_empty() {
            events.extend(self.concluded(&id));
        }
        events
    }

    /// Every binding of a start has its answer.
    pub(super) fn concluded(&mut self, id: &UnitId) -> Vec<Event> {
        let size = self.size(id, &self.members(id));
        let Some(unit) = self.units.get_mut(id) else { return Vec::new() };
        let Some(run) = unit.run_mut() else { return Vec::new() };
        let (action, failed) = (run.action.take(), std::mem::take(&mut run.failed));
        let done = |outcome| action.map(|action| close(action, outcome)).into_iter().collect::<Vec<_>>();
        if failed.is_empty() {
            let stopping = run.stopping;
            if stopping {
                self.evict(id);
            }
            return [done(Outcome::Done), self.settle(id)].concat();
        }
        if run.placed.is_empty() {
            (unit.phase, unit.refused) = (Phase::Waiting, Some(failed.join("; ").into()));
            return [done(Outcome::Failed(failed.join("; "))), self.settle(id)].concat();
        }
        // A gang in part gives back what it has; one that is large enough goes on.
        let short = run.placed.len() < size;
        run.stopping |= short;
        if run.stopping {
            tracing::warn!(unit = %id, why = failed.join("; "), "a gang was bound in part: it ends");
            self.evict(id);
        }
        [done(Outcome::Done), self.observed(id).into_iter().collect(), self.settle(id)].concat()
    }

    /// Tells some of those that wait why, if it is news to them.
    pub fn tell_waiting(&mut self, engine: &Engine) -> Vec<Write> {
        let mut writes = Vec::new();
        for _ in 0..TOLD_AT_ONCE.min(self.to_tell.len()) {
            let Some(id) = self.to_tell.pop_first() else { break };
            writes.extend(self.reasons(&id, engine));
        }
        writes.extend(self.adopted_reasons(engine));
        writes
    }

    /// Everybody who waits is to be told why again, if it has changed.
    pub fn ask_again(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.ours.forget_unused();
        self.specs.forget_unused();
        let waits = |(_, unit): &(&UnitId, &unit::Unit)| unit.run().is_none();
        self.to_tell.extend(self.units.iter().filter(waits).map(|(id, _)| id.clone()));
        self.look_at_waiting_trainings();
        self.look_at_all_models();
        self.look_at_waiting_adopted();
    }

    fn reasons(&mut self, id: &UnitId, engine: &Engine) -> Vec<Write> {
        let Some(unit) = self.units.get(id) else { return Vec::new() };
        let waits = match unit.phase {
            Phase::Waiting => match &unit.refused {
                Some(why) => format!("{}; its last start could not be: {why}", explain::waiting(engine, &unit.job())),
                None => explain::waiting(engine, &unit.job()),
            },
            Phase::Gathering => self.hindered(unit).unwrap_or_else(|| self.gathers(id)),
            Phase::Running(_) => return Vec::new(),
        };
        let members: Vec<PodKey> = unit.members.keys().cloned().collect();
        let mut writes = Vec::new();
        for key in members {
            let Some(entry) = self.pods.get_mut(&key) else { continue };
            let Some(ours) = entry.facts.ours.as_ref().filter(|ours| !ours.gated) else { continue };
            let lacks = self.nodes.lacks(&entry.facts).or_else(|| self.devices.lacks(&entry.facts));
            let waits = || match lacks {
                None => waits.clone(),
                Some((lacks, true)) => lacks,
                Some((lacks, false)) => format!("{waits}; {lacks}"),
            };
            let message = cut(&ours.problem.clone().unwrap_or_else(waits), MAX_MESSAGE).to_owned();
            let is_news = entry.told.as_ref().is_none_or(|told| told.is_news(&message, self.round));
            if message.is_empty() || entry.facts.node.is_some() || !is_news {
                continue;
            }
            if entry.told.replace(Told { message: message.clone(), round: self.round }.into()).is_none() {
                writes.push(Note::refused(&entry.facts.uid, &message).about(&key));
            }
            writes.push(Write::Refuse { pod: key, uid: entry.facts.uid.clone(), message });
        }
        writes
    }

    /// Who is still missing.
    fn gathers(&self, id: &UnitId) -> String {
        let (UnitId::Gang(gang) | UnitId::Rest(gang)) = id else { return String::new() };
        let (pods, gang) = (self.members(id), gang.name());
        format!(
            "{} of the {} pods of its gang {gang} are there: they start together, once all are",
            pods.len(),
            self.size(id, &pods)
        )
    }

    /// Which pod of a gang cannot be placed as it is, and why.
    fn hindered(&self, unit: &unit::Unit) -> Option<String> {
        let problem = |key: &PodKey| Some((key.clone(), self.pods.get(key)?.facts.ours.as_ref()?.problem.clone()?));
        let (key, problem) = unit.members.keys().find_map(problem)?;
        Some(format!("pod {key} of its gang: {problem}"))
    }
}

fn is_adopted(job: &JobName) -> bool {
    super::adopted::key_of(job).is_some()
}

fn close(id: ActionId, outcome: Outcome) -> Event {
    Event::Outcome { id, outcome }
}
