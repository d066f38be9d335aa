//! What is due for an object and for its pods, by where they stand. Nothing is asked twice of one version, but after a refusal
//! now and then; each request names the version that was seen, so that one that comes late does nothing.

use std::sync::Arc;

use tidegate_core::{Event, Outcome};

use super::super::{Failure, Index, Write};
use super::{Adopted, Stands, told};
use crate::facts::adopted::Change;
use crate::facts::{AdoptedFacts, PodFacts, PodKey};

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    word: &'static str,
    /// Of what was seen.
    version: String,
    /// Whether it was done; absent: there is no answer yet.
    answer: Option<bool>,
}

impl Asked {
    fn new(word: &'static str, version: &str) -> Self {
        Self { word, version: version.to_owned(), answer: None }
    }

    pub fn is_refused(&self) -> bool {
        self.answer == Some(false)
    }

    /// It is under way, or was done and is not seen yet in an object of that version.
    pub fn is_open(&self, version: &str) -> bool {
        self.answer.is_none() || (self.version == version && !self.is_refused())
    }

    fn may_be_followed(&self, word: &str, version: &str) -> bool {
        self.answer.is_some() && (self.version != version || (self.is_refused() && self.word != word))
    }
}

impl Adopted {
    /// A request for what runs was refused.
    pub(super) fn was_refused(&self) -> bool {
        let refused = |asked: &Option<Asked>| asked.as_ref().is_some_and(Asked::is_refused);
        self.run.as_ref().is_some_and(|run| refused(&self.asked) || run.seats.iter().any(|seat| refused(&seat.asked)))
    }

    /// What is to be changed of the object.
    fn due(&self, facts: &AdoptedFacts, is_alone: bool) -> Option<Change> {
        match &self.run {
            Some(run) if run.uid != facts.uid => None,
            Some(run) if run.stopping => (!facts.suspended && facts.end.is_none()).then_some(Change::Suspend),
            Some(run) if !run.resumed => facts.suspended.then(|| Change::Resume(run.seats_of())),
            Some(_) => None,
            None if facts.suspended => (facts.stamped && is_alone).then_some(Change::Restore),
            None => {
                let not_its_turn = facts.stamped && facts.seats.is_none() && facts.queue.is_some() && facts.end.is_none();
                not_its_turn.then_some(Change::Suspend)
            }
        }
    }
}

impl Index {
    /// Asks what is due.
    pub(super) fn ask_adopted(&mut self, name: &str) {
        let writes = self.writes_of_seats(name);
        self.writes.extend(writes);
        let Some(entry) = self.adopted.get_mut(name) else { return };
        let Some(facts) = entry.facts.as_ref().filter(|facts| !facts.ending) else { return };
        let over = |pod: &PodKey| self.pods.get(pod).is_none_or(|entry| entry.facts.phase.is_over());
        let Some(change) = entry.due(facts, entry.pods.iter().all(over)) else { return };
        let version = facts.resource_version.clone();
        if entry.asked.as_ref().is_some_and(|asked| !asked.may_be_followed(change.word(), &version)) {
            return;
        }
        if entry.run.is_none() && change == Change::Suspend {
            self.writes.push(told::not_its_turn(facts));
        }
        self.writes.push(Write::Adopt {
            object: facts.key.clone(),
            adoption: facts.adoption,
            uid: facts.uid.clone(),
            resource_version: version.clone(),
            change: Box::new(change.clone()),
        });
        entry.asked = Some(Asked::new(change.word(), &version));
    }

    /// Tells pods that have come to their seats where these are, or binds them there.
    fn writes_of_seats(&mut self, name: &str) -> Vec<Write> {
        let Some(entry) = self.adopted.get_mut(name) else { return Vec::new() };
        let runs = entry.run.as_ref().is_some_and(|run| entry.stands(run) == Stands::Runs);
        let Some(run) = entry.run.as_mut().filter(|_| runs) else { return Vec::new() };
        let mut writes = Vec::new();
        for seat in &mut run.seats {
            let Some(pod) = seat.pod.as_ref().and_then(|pod| self.pods.get(pod)).map(|entry| &entry.facts) else { continue };
            let version = &pod.resource_version;
            if seat.asked.as_ref().is_some_and(|asked| !asked.may_be_followed("seat", version)) {
                continue;
            }
            let node = &seat.placed.node.0;
            if let Some(write) = place(pod, node, || self.nodes.hostname(node)) {
                seat.asked = Some(Asked::new("seat", version));
                writes.push(write);
            }
        }
        writes
    }

    /// What became of a change of an object.
    pub(in super::super) fn adopt_written(&mut self, write: &Write, result: Result<(), Failure>) -> Vec<Event> {
        let Write::Adopt { object, adoption, change, resource_version, .. } = write else { return Vec::new() };
        let name: Arc<str> = Arc::from(format!("{}/{object}", adoption.name));
        let Some(entry) = self.adopted.get_mut(&name) else { return Vec::new() };
        let Some(asked) = entry.asked.as_mut().filter(|asked| asked.version == *resource_version) else { return Vec::new() };
        asked.answer = Some(result.is_ok());
        let mut events = Vec::new();
        if let (Change::Resume(_), Err(Failure::Refused(why))) = (&**change, result) {
            self.give_up_start(&name, why, &mut events);
        }
        events.extend(self.look_at_adopted(&name));
        events
    }

    /// The object will not be resumed.
    fn give_up_start(&mut self, name: &Arc<str>, why: String, events: &mut Vec<Event>) {
        let Some(entry) = self.adopted.get_mut(name) else { return };
        let Some(run) = entry.run.take_if(|run| !run.resumed) else { return };
        entry.refused = Some(why.clone());
        self.adopted_due.insert(name.clone());
        self.uncount(name, &run.seats, events);
        events.extend(run.action.map(|id| Event::Outcome { id, outcome: Outcome::Failed(why) }));
    }

    /// A pod was told its node or bound, or was not.
    pub(in super::super) fn seat_written(&mut self, pod: &PodKey, version: &str, is_done: bool) -> Vec<Event> {
        let seat = self.pods.get(pod).and_then(|entry| entry.facts.seat.as_deref());
        let Some(name) = seat.map(|seat| Arc::<str>::from(seat.object.as_str())) else { return Vec::new() };
        let run = self.adopted.get_mut(&name).and_then(|entry| entry.run.as_mut());
        let seat = run.and_then(|run| run.seats.iter_mut().find(|seat| seat.pod.as_ref() == Some(pod)));
        if let Some(asked) = seat.and_then(|seat| seat.asked.as_mut()).filter(|asked| asked.version == version) {
            asked.answer = Some(is_done);
        }
        self.look_at_adopted(&name)
    }

    /// What was refused is asked again, as the reason may have gone.
    pub(super) fn ask_adopted_again(&mut self, name: &str) {
        if let Some(entry) = self.adopted.get_mut(name) {
            entry.asked.take_if(|asked| asked.is_refused());
            for seat in entry.run.iter_mut().flat_map(|run| &mut run.seats) {
                seat.asked.take_if(|asked| asked.is_refused());
            }
        }
        self.ask_adopted(name);
    }
}

/// What brings a pod to its seat, if it is not on its way.
fn place(pod: &PodFacts, node: &str, hostname: impl Fn() -> String) -> Option<Write> {
    if pod.node.is_some() || pod.ending {
        return None;
    }
    if pod.seat.as_ref().is_some_and(|seat| seat.gated) {
        return Some(Write::Place {
            pod: pod.key.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            hostname: hostname(),
        });
    }
    pod.ours.as_ref().filter(|ours| !ours.gated).map(|_| Write::bind(pod, node))
}
