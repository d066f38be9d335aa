//! Models: the engine's orders as replicas' pods that are made where it says, and what becomes of them.
//!
//! ```text
//!   StartReplica ──> pod made on its node ──> Ready ──> an endpoint for routers ([`routing`])
//!   StopReplica  ──> draining for routers ──> they have noticed ──> pod deleted ──> gone
//! ```
//!
//! A pod that claims its device by name is bound once it has it ([`super::claims`]). Pods say which replica they are, of which
//! generation, and what they were made from: after a restart what serves is read from them. Clients call a model by its name alone, so
//! of several models of one name in several namespaces the oldest has it. What the file says of itself only replicas see: a model of
//! which nobody has told it yet gets one, which tells it.

mod pods;
mod routing;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_api::convert;
use tidegate_api::model_info::ModelInfo;
use tidegate_core::ask::Ask;
use tidegate_core::event::ObservedReplica;
use tidegate_core::names::{ModelName, NodeName, ReplicaId};
use tidegate_core::plan::{ActionId, Placed};
use tidegate_core::state::ModelSpec;
use tidegate_core::time::At;
use tidegate_core::{Event, Outcome};

use super::devices::Asker;
use super::nodes::Refusal;
use super::note::Note;
use super::unit::UnitId;
use super::{Change, Failure, Index, Maker, Write};
use crate::facts::model::WantedModel;
use crate::facts::pod::ReplicaOf;
use crate::facts::selection::both;
use crate::facts::{ModelFacts, PodFacts, PodKey};

/// What replicas' pods are told of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    /// The image of replicas whose model names none.
    pub image: Option<String>,
    /// Under what URL they reach the operator's `tidegate.control.v1`.
    pub control_url: Option<String>,
    /// They are asked for a token there, and given one.
    pub control_auth: bool,
}

/// One model.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// Absent: it is gone, and its pods are not yet.
    facts: Option<ModelFacts>,
    pods: BTreeSet<PodKey>,
    /// What the engine was told of it, and what that was made of: it counts while what is written now makes no sense.
    told: Option<ModelSpec>,
    accepted: Option<Arc<WantedModel>>,
    /// Why it cannot be told, beside what the object itself says.
    lacks: Option<String>,
    /// What replicas are made from by now, and the generation that the engine has for that.
    made_from: Option<(String, u64)>,
    replicas: BTreeMap<ReplicaId, Replica>,
    /// What the file says of itself, and of which generation the replica was that told it.
    tensors: Option<(ModelInfo, u64)>,
    /// The pod of the last replica that failed, kept for its log.
    failed: Option<PodKey>,
    /// Why a pod could not be made.
    problem: Option<String>,
    /// Its status is being written.
    writing: bool,
}

impl Model {
    /// Whether a pod is one of its replicas.
    pub fn has(&self, pod: &PodKey) -> bool {
        self.replicas.values().any(|replica| replica.pod == *pod)
    }
}

/// How many replicas of all models there are, by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    pub ready: usize,
    pub starting: usize,
    pub ending: usize,
}

/// A replica that the engine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replica {
    pod: PodKey,
    generation: u64,
    state: State,
    /// The start, until its pod is made.
    action: Option<ActionId>,
    ready: bool,
    draining: Option<Draining>,
    /// Its pod was told to end.
    ending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its pod was asked for, and there is no answer.
    Making,
    /// It was made, and not seen.
    Made,
    Seen,
}

/// Since when a replica gives up its requests, and which configuration told routers so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Draining {
    since: At,
    version: Option<u64>,
}

/// The engine's name of a model, and that by which clients call it.
fn name(key: &PodKey) -> ModelName {
    ModelName::from(key.name())
}

impl Index {
    /// A model, or that it is gone.
    pub fn model(&mut self, change: Change<ModelFacts, PodKey>) -> Vec<Event> {
        let (key, facts) = match change {
            Change::Is(facts) => (facts.key.clone(), Some(facts)),
            Change::Gone(key) => (key, None),
        };
        let holders = self.names.entry(name(&key)).or_default();
        holders.retain(|(_, holder)| *holder != key);
        holders.extend(facts.as_ref().map(|facts| (facts.created, key.clone())));
        let model = self.models.entry(key.clone()).or_default();
        if let Some(told) = facts.as_ref().and_then(|facts| facts.status.tensors.as_ref()) {
            model.tensors.get_or_insert_with(|| (told.clone(), 0));
        }
        model.facts = facts;
        // Who else has the name may have it now, or have it no more.
        let others: Vec<PodKey> = self.holders(&key).filter(|other| **other != key).cloned().collect();
        let mut events = self.look_at_model(&key);
        events.extend(others.iter().flat_map(|other| self.look_at_model(other)));
        events
    }

    /// Keys of models that are there.
    pub fn model_keys(&self) -> impl Iterator<Item = &PodKey> {
        self.models.iter().filter(|(_, model)| model.facts.is_some()).map(|(key, _)| key)
    }

    pub(super) fn replicas(&self) -> Replicas {
        let mut counts = Replicas::default();
        for replica in self.models.values().flat_map(|model| model.replicas.values()) {
            match (replica.draining.is_some() || replica.ending, replica.ready) {
                (true, _) => counts.ending += 1,
                (false, true) => counts.ready += 1,
                (false, false) => counts.starting += 1,
            }
        }
        counts
    }

    /// Models of one name, the one that has it first.
    fn holders(&self, key: &PodKey) -> impl Iterator<Item = &PodKey> {
        self.names.get(&name(key)).into_iter().flatten().map(|(_, holder)| holder)
    }

    /// The model that clients call so.
    fn model_called(&self, name: &ModelName) -> Option<PodKey> {
        self.names.get(name)?.first().map(|(_, key)| key.clone())
    }

    /// A replica's pod was seen.
    pub(super) fn replica_seen(&mut self, pod: &PodKey, of: &ReplicaOf) -> Vec<Event> {
        self.models.entry(of.model.clone()).or_default().pods.insert(pod.clone());
        self.look_at_model(&of.model)
    }

    /// A replica's pod is gone.
    pub(super) fn replica_gone(&mut self, pod: &PodKey, of: &ReplicaOf) -> Vec<Event> {
        if let Some(model) = self.models.get_mut(&of.model) {
            model.pods.remove(pod);
            model.failed.take_if(|failed| failed == pod);
        }
        self.look_at_model(&of.model)
    }

    /// What a model is now, told to the engine; nothing before everything was listed.
    pub(super) fn look_at_model(&mut self, key: &PodKey) -> Vec<Event> {
        if !self.begun {
            return Vec::new();
        }
        self.model_status_due.insert(key.clone());
        self.routes_due = true;
        let mut events = self.tell_model(key);
        self.take_over_replicas(key, &mut events);
        self.settle_replicas(key, &mut events);
        self.give_away_replicas(key, &mut events);
        let idle = self.models.get(key).is_some_and(|model| {
            model.facts.is_none() && model.replicas.is_empty() && model.pods.is_empty() && model.told.is_none()
        });
        if idle {
            self.models.remove(key);
            self.model_status_due.remove(key);
            self.names.retain(|_, holders| !holders.is_empty());
        }
        events
    }

    /// What it asks for, if that is news.
    fn tell_model(&mut self, key: &PodKey) -> Vec<Event> {
        let facts = self.models.get(key).and_then(|model| model.facts.as_ref()).filter(|facts| !facts.ending);
        let Some(facts) = facts else {
            let mut events = self.leave_asker(&Asker::Replicas(key.clone()));
            let told = self.models.get_mut(key).and_then(|model| model.told.take());
            events.extend(told.map(|_| Event::ModelRemoved(name(key))));
            return events;
        };
        let wanted = facts.wanted.clone().ok();
        // What serves is known though its device or volume is not there now: a driver that is made anew publishes nothing for a while.
        let serves_unknown = self.models.get(key).is_some_and(|model| {
            let uid = model.facts.as_ref().map(|facts| &facts.uid);
            let serves = |pod: &PodKey| self.replica_facts(pod).is_some_and(|(pod, of)| pod.holds() && Some(&of.uid) == uid);
            model.told.is_none() && model.pods.iter().any(serves)
        });
        let mut spec = wanted.as_ref().map(|wanted| self.model_spec(key, wanted, serves_unknown));
        let mut events = Vec::new();
        if let (Some(wanted), Some(Ok(told))) = (&wanted, &mut spec) {
            let (news, done) = self.want_devices(&Asker::Replicas(key.clone()), wanted.claimed.as_ref(), &mut told.ask);
            events = news;
            if let Err(why) = done
                && !serves_unknown
            {
                spec = Some(Err(why));
            }
        }
        let holds_name = self.holders(key).next() == Some(key);
        let Some(model) = self.models.get_mut(key) else { return events };
        // What makes no sense is told in the status; what it said before counts.
        model.lacks = spec.as_ref().and_then(|spec| spec.as_ref().err().cloned());
        if !holds_name {
            // By this name the engine knows another one.
            model.told = None;
            return events;
        }
        let (Some(wanted), Some(Ok(mut spec))) = (wanted, spec) else { return events };
        let made_from = wanted.made_from(self.serving.image.as_deref(), self.serving.control_auth);
        if self.models.get(key).and_then(|model| model.made_from.as_ref()).is_none_or(|(known, _)| *known != made_from) {
            let generation = self.generation(key, &made_from);
            if let Some(model) = self.models.get_mut(key) {
                model.made_from = Some((made_from, generation));
            }
        }
        let Some(model) = self.models.get_mut(key) else { return events };
        spec.generation = model.made_from.as_ref().map_or(0, |(_, generation)| *generation);
        model.accepted = Some(wanted);
        if model.told.as_ref() == Some(&spec) {
            return events;
        }
        model.told = Some(spec.clone());
        events.push(Event::ModelSet { name: name(key), spec });
        events
    }

    /// The model as the engine sees it, on nodes from which its volumes can be used, but for its generation.
    fn model_spec(&self, key: &PodKey, wanted: &WantedModel, serves_unknown: bool) -> Result<ModelSpec, String> {
        if let Some(holder) = self.holders(key).next().filter(|holder| *holder != key) {
            return Err(format!(
                "metadata.name: the Model {holder} has this name, by which clients call it: rename one of the two"
            ));
        }
        if wanted.image().or(self.serving.image.as_deref()).is_none() {
            return Err(
                "podSpec.containers[0].image: names no image, nor does the operator: start it with --replica-image".to_owned()
            );
        }
        if self.serving.control_url.is_none() {
            return Err("the operator was not told where replicas reach it: start it with --control-url".to_owned());
        }
        let mut spec = convert::model(key.namespace(), &wanted.spec, 0);
        spec.ask = wanted.ask.clone();
        // A device is whole here: what shares one on a box has one of its own.
        spec.max_sharers = 1;
        spec.memory = None;
        if self.models.get(key).is_none_or(|model| model.tensors.is_none()) {
            spec.min = spec.min.max(1);
        }
        for claim in &wanted.claims {
            let terms = match self.around.bound(claim) {
                Err(_) if serves_unknown => continue,
                terms => terms?,
            };
            if !terms.is_empty() {
                spec.ask.affinity.required = both(&spec.ask.affinity.required, &terms);
            }
        }
        Ok(spec)
    }

    /// The generation of replicas that are made from this: that of pods that were, else one that no other pod has.
    fn generation(&self, key: &PodKey, made_from: &str) -> u64 {
        let Some(model) = self.models.get(key) else { return 0 };
        let pods = || model.pods.iter().filter_map(|pod| self.pods.get(pod)?.facts.replica.as_deref());
        let known = pods().filter(|of| of.made_from == made_from).map(|of| of.generation).max();
        let others = pods().map(|of| of.generation + 1).chain(model.made_from.as_ref().map(|(_, generation)| generation + 1));
        let object = model.facts.as_ref().map_or(0, |facts| facts.generation);
        known.unwrap_or_else(|| others.max().unwrap_or(0).max(object))
    }

    /// Claims or volumes have changed: models that use some are looked at again.
    pub(super) fn look_at_models_with_volumes(&mut self) -> Vec<Event> {
        let uses = |model: &Model| {
            let wanted = model.facts.as_ref().and_then(|facts| facts.wanted.as_ref().ok());
            wanted.is_some_and(|wanted| !wanted.claims.is_empty())
        };
        let keys: Vec<PodKey> = self.models.iter().filter(|(_, model)| uses(model)).map(|(key, _)| key.clone()).collect();
        keys.iter().flat_map(|key| self.look_at_model(key)).collect()
    }

    fn replica_facts(&self, pod: &PodKey) -> Option<(&PodFacts, &ReplicaOf)> {
        let facts = &self.pods.get(pod)?.facts;
        Some((facts, facts.replica.as_deref()?))
    }

    /// Replicas whose pods are there and that this process has not started: after a restart, or by another's hand.
    fn take_over_replicas(&mut self, key: &PodKey, events: &mut Vec<Event>) {
        let Some(model) = self.models.get(key) else { return };
        let (Some(facts), Some(told)) = (&model.facts, &model.told) else { return };
        let of_it = |pod: &PodKey| self.replica_facts(pod).filter(|(pod, of)| pod.holds() && of.uid == facts.uid);
        let unknown = |of: &ReplicaOf| !model.replicas.contains_key(&ReplicaId::from(of.id.as_str()));
        let mut found = Vec::new();
        for (pod, of) in model.pods.iter().filter_map(of_it).filter(|(_, of)| unknown(of)) {
            let node = NodeName::from(pod.node.clone().unwrap_or_default());
            let observed = ObservedReplica {
                model: name(key),
                // One of an older generation may have its device in the other way.
                ask: Ask { named: pod.needs.as_ref().is_some_and(|needs| !needs.devices.is_empty()), ..told.ask.clone() },
                place: Placed { group: 0, node, devices: self.devices.all_of(pod).unwrap_or_default(), slices: 0 },
                generation: of.generation,
                since: pod.created,
                ready: of.ready.is_some(),
            };
            let replica = Replica {
                pod: pod.key.clone(),
                generation: of.generation,
                state: State::Seen,
                action: None,
                ready: of.ready.is_some(),
                draining: None,
                ending: pod.ending,
            };
            found.push((ReplicaId::from(of.id.as_str()), observed, replica));
        }
        self.end_unplaced_replicas(key);
        for (id, observed, replica) in found {
            self.end_claim_jobs_of(&replica.pod, events);
            if let Some(model) = self.models.get_mut(key) {
                model.replicas.insert(id.clone(), replica);
            }
            events.push(Event::ReplicaObserved { id, observed });
        }
    }

    /// Pods that a former leader has left without a node: which devices they were to have nobody knows any more.
    fn end_unplaced_replicas(&mut self, key: &PodKey) {
        let Some(model) = self.models.get_mut(key) else { return };
        let pods = model.pods.iter().filter(|pod| !model.has(pod)).filter_map(|pod| Some(&self.pods.get(pod)?.facts));
        let unplaced = pods.filter(|pod| pod.node.is_none() && !pod.ending && !pod.phase.is_over());
        let unplaced: Vec<(PodKey, String)> = unplaced.map(|pod| (pod.key.clone(), pod.uid.clone())).collect();
        for (pod, uid) in unplaced {
            model.pods.remove(&pod);
            self.writes.push(Write::EndPod { pod, uid: Some(uid), now: true });
        }
    }

    /// Which replicas are made, answer, and have ended.
    fn settle_replicas(&mut self, key: &PodKey, events: &mut Vec<Event>) {
        let Some(mut model) = self.models.remove(key) else { return };
        let mut over = Vec::new();
        for (id, replica) in &mut model.replicas {
            let Some(entry) = self.pods.get(&replica.pod) else {
                if replica.state == State::Seen {
                    over.push((id.clone(), false, false));
                }
                continue;
            };
            let pod = &entry.facts;
            replica.state = State::Seen;
            replica.ending |= pod.ending;
            events.extend(replica.action.take().map(|id| Event::Outcome { id, outcome: Outcome::Done }));
            if pod.phase.is_over() {
                over.push((id.clone(), !replica.ending && !pod.disrupted, pod.refused));
            } else if let Some(since) = pod.replica.as_ref().and_then(|of| of.ready).filter(|_| !replica.ready) {
                replica.ready = true;
                events.push(Event::ReplicaReady { id: id.clone(), load_ms: since.since(pod.created).max(1) });
            }
        }
        for (id, failed, refused) in over {
            self.replica_over(&mut model, &id, failed);
            // One that had no room where it came has not failed, but the next one waits as if.
            events.push(Event::ReplicaExited { id, failed: failed || refused });
        }
        self.models.insert(key.clone(), model);
    }

    /// A replica has ended: the pod of one that failed is kept until the next one fails.
    fn replica_over(&mut self, model: &mut Model, id: &ReplicaId, failed: bool) {
        let Some(replica) = model.replicas.remove(id) else { return };
        let left = if failed { model.failed.replace(replica.pod.clone()) } else { Some(replica.pod.clone()) };
        let left = left.and_then(|pod| Some((self.pods.get(&pod)?.facts.uid.clone(), pod)));
        self.writes.extend(left.map(|(uid, pod)| Write::EndPod { pod, uid: Some(uid), now: true }));
        if let Some(facts) = model.facts.as_ref().filter(|_| failed) {
            let text = format!("replica {id} failed; the log of pod {} says why", replica.pod.name());
            self.writes.push(note(facts, true, "ReplicaFailed", "Serving", text));
        }
    }

    /// Pods of a model that the engine does not know (it is gone, or makes no sense) hold what they hold all the same.
    fn give_away_replicas(&mut self, key: &PodKey, events: &mut Vec<Event>) {
        let Some(model) = self.models.get(key) else { return };
        let taken: BTreeSet<&PodKey> = model.replicas.values().map(|replica| &replica.pod).collect();
        let orphans: Vec<PodKey> = model.pods.iter().filter(|pod| !taken.contains(pod) && self.holds(pod)).cloned().collect();
        for pod in orphans {
            if let Some(model) = self.models.get_mut(key) {
                model.pods.remove(&pod);
            }
            events.extend(self.enter(&pod, &UnitId::Foreign(pod.clone())));
        }
    }

    /// Makes the pod of a replica.
    pub(super) fn start_replica(
        &mut self,
        id: ActionId,
        of: &ModelName,
        replica: &ReplicaId,
        place: &Placed,
        at: At,
    ) -> Vec<Event> {
        let outcome = |outcome| vec![Event::Outcome { id, outcome }];
        let Some(key) = self.model_called(of) else { return outcome(Outcome::Dropped) };
        let Some(model) = self.models.get(&key).filter(|model| !model.replicas.contains_key(replica)) else {
            return outcome(Outcome::Dropped);
        };
        let Some(facts) = model.facts.as_ref().filter(|facts| !facts.ending) else { return outcome(Outcome::Dropped) };
        let (Some(wanted), Some((made_from, generation))) = (model.accepted.clone(), model.made_from.clone()) else {
            return outcome(Outcome::Dropped);
        };
        let paced = self.nodes.is_simulated(&place.node.0);
        let order = pods::Order { replica, place, generation, made_from: &made_from, paced, at };
        let (pod, writes) = pods::made(facts, &wanted, &self.serving, &order);
        match self.nodes.refuses(&place.node.0, &[&pod]) {
            Some(Refusal::Late) => return outcome(Outcome::Dropped),
            Some(Refusal::Lasting(why)) => return outcome(Outcome::Failed(why)),
            None => {}
        }
        let claiming: Vec<(PodKey, Placed)> = wanted.claimed.iter().map(|_| (pod.key.clone(), place.clone())).collect();
        match self.devices_refuse(claiming.iter().flat_map(|(_, place)| &place.devices)) {
            Some(Refusal::Late) => return outcome(Outcome::Dropped),
            Some(Refusal::Lasting(why)) => return outcome(Outcome::Failed(why)),
            None => {}
        }
        let made = Replica {
            pod: pod.key.clone(),
            generation,
            state: State::Making,
            action: Some(id),
            ready: false,
            draining: None,
            ending: false,
        };
        let mut events = self.nodes.comes(&pod, &place.node.0);
        events.extend(self.begin_making(&Maker::Model(key.clone()), claiming));
        self.writes.extend(writes);
        self.model_status_due.insert(key.clone());
        if let Some(model) = self.models.get_mut(&key) {
            model.replicas.insert(replica.clone(), made);
        }
        events
    }

    /// Says on the model why a replica starts or ends.
    pub(super) fn note_replica(&mut self, of: &ModelName, replica: &ReplicaId, starts: bool, why: &str) {
        let model = self.model_called(of).and_then(|key| self.models.get(&key));
        let facts = model.and_then(|model| model.facts.as_ref());
        // Its minimum is the operator's own then.
        let asleep = |model: &Model| model.accepted.as_ref().is_some_and(|wanted| wanted.spec.replicas.min == 0);
        let first = starts && model.is_some_and(|model| model.tensors.is_none() && asleep(model));
        let why = if first { "once, to learn what the file says of itself" } else { why };
        let (reason, word) = if starts { ("ReplicaStarting", "starts") } else { ("ReplicaStopping", "stops") };
        let write = facts.map(|facts| note(facts, false, reason, "Scaling", format!("{replica} {word}: {why}")));
        self.writes.extend(write);
    }

    /// A replica's pod was made, or why not.
    pub(super) fn replica_made(&mut self, pod: &PodKey, key: &PodKey, result: Result<(), Failure>) -> Vec<Event> {
        let Some(model) = self.models.get_mut(key) else { return Vec::new() };
        let found = model.replicas.iter_mut().find(|(_, replica)| replica.pod == *pod && replica.state == State::Making);
        let Some((_, replica)) = found else { return Vec::new() };
        let mut events = Vec::new();
        match result {
            Ok(()) => {
                replica.state = State::Made;
                model.problem = None;
                events.extend(replica.action.take().map(|id| Event::Outcome { id, outcome: Outcome::Done }));
            }
            Err(failure) => {
                let why = match failure {
                    Failure::Refused(why) => why,
                    Failure::Gone | Failure::Conflict => format!("{pod} cannot be made"),
                };
                self.end_making(pod);
                return self.replica_cannot_be(pod, key, why);
            }
        }
        events.extend(self.look_at_model(key));
        events
    }

    /// A replica's pod cannot be made, or cannot have its device, or cannot be bound.
    pub(super) fn replica_cannot_be(&mut self, pod: &PodKey, key: &PodKey, why: String) -> Vec<Event> {
        let Some(model) = self.models.get_mut(key) else { return Vec::new() };
        let Some(id) = model.replicas.iter().find(|(_, replica)| replica.pod == *pod).map(|(id, _)| id.clone()) else {
            return Vec::new();
        };
        let action = model.replicas.remove(&id).and_then(|replica| replica.action);
        model.problem = Some(why.clone());
        let mut events = self.nodes.came(pod);
        events.push(match action {
            Some(action) => Event::Outcome { id: action, outcome: Outcome::Failed(why) },
            None => Event::ReplicaExited { id, failed: true },
        });
        // What was made of it goes.
        events.extend(self.look_at_model(key));
        events
    }

    /// Takes a replica out of the routers' sight; it is told to end once they have noticed ([`Index::end_drained`]).
    pub(super) fn stop_replica(&mut self, id: ActionId, replica: &ReplicaId, at: At) -> Vec<Event> {
        let found = self.models.values_mut().find_map(|model| model.replicas.get_mut(replica));
        let Some(found) = found else {
            let exited = Event::ReplicaExited { id: replica.clone(), failed: false };
            return vec![exited, Event::Outcome { id, outcome: Outcome::Done }];
        };
        found.draining.get_or_insert(Draining { since: at, version: None });
        self.routes_due = true;
        // Its end closes the action.
        Vec::new()
    }

    /// A replica's pod was told to end and is not there.
    pub(super) fn replica_pod_missing(&mut self, pod: &PodKey, result: &Result<(), Failure>) -> Vec<Event> {
        let has = |model: &Model| model.replicas.values().any(|replica| replica.pod == *pod);
        let found = self.models.iter().find(|(_, model)| has(model)).map(|(key, _)| key.clone());
        let Some(key) = found.filter(|_| result.is_err()) else { return Vec::new() };
        let Some(model) = self.models.get_mut(&key) else { return Vec::new() };
        let Some((id, replica)) = model.replicas.iter_mut().find(|(_, replica)| replica.pod == *pod) else { return Vec::new() };
        replica.ending = false;
        if replica.state != State::Made || *result != Err(Failure::Gone) {
            return Vec::new();
        }
        let id = id.clone();
        model.replicas.remove(&id);
        let mut events = self.nodes.came(pod);
        events.push(Event::ReplicaExited { id, failed: false });
        events
    }
}

/// An event on a model.
fn note(facts: &ModelFacts, warning: bool, reason: &'static str, action: &'static str, text: String) -> Write {
    Note { kind: "Model", uid: facts.uid.clone(), warning, reason, action, text }.about(&facts.key)
}

#[cfg(test)]
mod tests;
