//! Objects that wait suspended (Jobs, `JobSet`s ...): the engine's start is `suspend: false`, its stop `suspend: true`, and in
//! between their pods, which somebody else makes, take the seats that the engine chose.
//!
//! ```text
//!   waits ──StartJob──> seats held, Resume ──> resumed ──> pods come: each is told its node, or bound there
//!     ▲                                           │
//!     └── its pods are gone <── Suspend <── StopJob, or suspended by hand
//! ```
//!
//! * **Seats are held from the start on**, with a pod or without: nobody else gets them while pods are made, or made again.
//! * **The object says where its seats are**, each pod whose seat it takes: a restart reads both. An object that runs without
//!   seats of its own was resumed by hand, and is suspended again if its templates bear our marks.
//! * **One request at a time for an object**: what is due is seen from where it stands, whatever happened before ([`write`]).

mod seats;
mod settle;
mod told;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_core::event::{Observed, ObservedRun};
use tidegate_core::names::JobName;
use tidegate_core::plan::{ActionId, Placed};
use tidegate_core::state::JobSpec;
use tidegate_core::time::At;
use tidegate_core::{Event, JobExit, Outcome};

use super::nodes::Refusal;
use super::{BesideKind, Change, Index, Told};
use crate::facts::seat::Seats;
use crate::facts::{AdoptedFacts, PodFacts, PodKey, PodPhase};
use seats::{Run, Seat, sized};
use write::Asked;

/// What the engine's names of adopted objects begin with.
const PREFIX: &str = "adopted/";

/// One object.
#[derive(Clone, Debug, Default)]
pub(super) struct Adopted {
    /// Absent: it is gone, and its pods are not yet.
    facts: Option<AdoptedFacts>,
    /// Those that take seats of it, of whatever start.
    pods: BTreeSet<PodKey>,
    /// What the engine was told of it.
    told: Option<JobSpec>,
    /// Why it cannot be told.
    lacks: Option<String>,
    run: Option<Run>,
    attempts: u32,
    /// Rises when the engine is told that it is no more: what has ended there is never told to go on.
    life: u32,
    asked: Option<Asked>,
    /// Why its last start could not be.
    refused: Option<String>,
    /// Why it waits, as it was last told.
    noted: Option<Told>,
}

/// What an object says of its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// It was not seen resumed yet.
    Starting,
    Runs,
    /// It is to be suspended, or is.
    Ends,
    /// It is done, deleted, or another one of its name.
    Over,
}

/// The object that the engine calls so.
pub(super) fn key_of(job: &JobName) -> Option<Arc<str>> {
    let key = job.0.strip_prefix(PREFIX)?;
    Some(Arc::from(key.split_once('#').map_or(key, |(key, _)| key)))
}

impl Adopted {
    /// Its name in the engine.
    fn job(&self, name: &str) -> JobName {
        JobName::from(if self.life == 0 { format!("{PREFIX}{name}") } else { format!("{PREFIX}{name}#{}", self.life) })
    }

    /// The engine is to forget it.
    fn untell(&mut self, name: &str) -> Option<Event> {
        self.told.take()?;
        let job = self.job(name);
        self.life += 1;
        Some(Event::JobRemoved(job))
    }

    fn stands(&self, run: &Run) -> Stands {
        let facts = self.facts.as_ref().filter(|facts| facts.uid == run.uid && !facts.ending && facts.end.is_none());
        match facts {
            None => Stands::Over,
            Some(_) if run.stopping => Stands::Ends,
            Some(_) if !run.resumed => Stands::Starting,
            Some(_) => Stands::Runs,
        }
    }

    /// What we see is not yet what our last request has made of it.
    fn is_stale(&self) -> bool {
        let version = self.facts.as_ref().map_or("", |facts| &facts.resource_version);
        self.asked.as_ref().is_some_and(|asked| asked.is_open(version))
    }

    /// What runs of it, as an event.
    fn observed(&self, name: &str) -> Option<Event> {
        let (run, told) = (self.run.as_ref()?, self.told.as_ref());
        let workers = run.seats.iter().map(|seat| seat.placed.clone()).collect();
        let submitted = self.facts.as_ref().map_or(run.since, |facts| facts.created);
        let seen = ObservedRun { since: run.since, workers, started: run.started };
        let observed = Observed { submitted, attempts: run.attempt, failures: 0, run: Some(seen) };
        told.map(|_| Event::JobObserved { name: self.job(name), observed })
    }
}

impl Index {
    /// An object of an adopted kind, or that it is gone: by its name.
    pub fn adopted(&mut self, change: Change<AdoptedFacts, Arc<str>>) -> Vec<Event> {
        let mut events = Vec::new();
        let name = match change {
            Change::Is(facts) => {
                let name = facts.name.clone();
                if !facts.concerns_us() && !self.adopted.contains_key(&name) {
                    return events;
                }
                let entry = self.adopted.entry(name.clone()).or_default();
                // Deleted and made again under the same name between two looks.
                if entry.facts.as_ref().is_some_and(|known| known.uid != facts.uid) && entry.run.is_none() {
                    events.extend(entry.untell(&name));
                }
                entry.facts = Some(facts);
                name
            }
            Change::Gone(name) => {
                let Some(entry) = self.adopted.get_mut(&name) else { return events };
                entry.facts = None;
                name
            }
        };
        events.extend(self.look_at_adopted(&name));
        events
    }

    /// Names in their namespaces of the objects of a kind that are there.
    pub fn adopted_keys<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a PodKey> {
        let facts = self.adopted.values().filter_map(|entry| entry.facts.as_ref());
        facts.filter(move |facts| facts.adoption.name == kind).map(|facts| &facts.key)
    }

    /// The engine's name of the object whose seat a pod takes.
    pub(super) fn job_of_seat(&self, object: &str) -> Option<JobName> {
        self.adopted.get(object).map(|entry| entry.job(object))
    }

    /// A pod that takes a seat was seen.
    pub(super) fn seat_seen(&mut self, pod: &PodKey, object: &str) -> Vec<Event> {
        let name: Arc<str> = Arc::from(object);
        self.adopted.entry(name.clone()).or_default().pods.insert(pod.clone());
        self.look_at_adopted(&name)
    }

    /// A pod that took a seat is gone.
    pub(super) fn seat_gone(&mut self, pod: &PodKey, object: &str) -> Vec<Event> {
        let name: Arc<str> = Arc::from(object);
        let Some(entry) = self.adopted.get_mut(&name) else { return Vec::new() };
        entry.pods.remove(pod);
        self.look_at_adopted(&name)
    }

    /// Classes, queues or volumes have changed: whom that concerns is looked at again.
    pub(super) fn look_at_adopted_around(&mut self, kind: BesideKind) -> Vec<Event> {
        let uses_volumes = |facts: &AdoptedFacts| {
            let groups = facts.groups.iter().flatten();
            groups.filter_map(|group| group.pod.needs.as_ref()).any(|needs| !needs.claims.is_empty())
        };
        let concerns = |facts: &AdoptedFacts| match kind {
            BesideKind::Priority | BesideKind::LocalQueue | BesideKind::KueuePriority => true,
            BesideKind::Claim | BesideKind::Volume | BesideKind::Class => uses_volumes(facts),
            BesideKind::Group => false,
        };
        let found = self.adopted.iter().filter(|(_, entry)| entry.facts.as_ref().is_some_and(concerns));
        let names: Vec<Arc<str>> = found.map(|(name, _)| name.clone()).collect();
        names.iter().flat_map(|name| self.look_at_adopted(name)).collect()
    }

    /// All of them are looked at: everything was listed.
    pub(super) fn begin_adopted(&mut self) -> Vec<Event> {
        let names: Vec<Arc<str>> = self.adopted.keys().cloned().collect();
        names.iter().flat_map(|name| self.look_at_adopted(name)).collect()
    }

    /// Those of which nothing is left are forgotten. Not at once: by then the engine has forgotten them too, so that another
    /// object of the name is another job.
    pub(super) fn forget_adopted(&mut self) {
        self.adopted.retain(|_, entry| {
            let concerns_us = entry.facts.as_ref().is_some_and(AdoptedFacts::concerns_us);
            concerns_us || entry.run.is_some() || entry.told.is_some() || !entry.pods.is_empty()
        });
    }

    /// What an object is now, told to the engine; nothing before everything was listed.
    pub(super) fn look_at_adopted(&mut self, name: &Arc<str>) -> Vec<Event> {
        if !self.begun {
            return Vec::new();
        }
        let mut events = self.tell_adopted(name);
        let found = self.take_over_seats(name);
        let changed = self.settle_seats(name, &mut events);
        events.extend(self.tell_adopted(name));
        let observed = self.adopted.get(name).filter(|_| found || changed).and_then(|entry| entry.observed(name));
        events.extend(observed);
        self.note_seats_run(name, &mut events);
        self.give_seats_away(name, &mut events);
        self.ask_adopted(name);
        events
    }

    /// What it asks for, if that is news.
    fn tell_adopted(&mut self, name: &Arc<str>) -> Vec<Event> {
        let spec = self.adopted.get(name).and_then(|entry| self.spec_of(entry));
        let Some(entry) = self.adopted.get_mut(name) else { return Vec::new() };
        entry.lacks = spec.as_ref().and_then(|spec| spec.as_ref().err().cloned());
        if entry.lacks.is_some() {
            self.adopted_due.insert(name.clone());
        }
        let Some(Ok(spec)) = spec else {
            // While it runs, what it said before counts.
            let gone = if entry.run.is_none() { entry.untell(name) } else { None };
            return gone.into_iter().collect();
        };
        if entry.told.as_ref() == Some(&spec) {
            return Vec::new();
        }
        let mut events = vec![Event::JobSet { name: entry.job(name), spec: spec.clone().into() }];
        if entry.told.replace(spec).is_none() {
            let submitted = entry.facts.as_ref().map(|facts| facts.created).unwrap_or_default();
            let observed = Observed { submitted, attempts: entry.attempts, failures: 0, run: None };
            events.push(Event::JobObserved { name: entry.job(name), observed });
        }
        self.adopted_due.insert(name.clone());
        events
    }

    /// A start that this process has not ordered: after a restart. Whether there is one.
    fn take_over_seats(&mut self, name: &str) -> bool {
        let Some(entry) = self.adopted.get(name).filter(|entry| entry.run.is_none() && entry.told.is_some()) else {
            return false;
        };
        let Some(facts) = &entry.facts else { return false };
        let mine = |pod: &PodFacts| pod.holds() && pod.seat.as_ref().is_some_and(|seat| seat.uid == facts.uid);
        let holding = || entry.pods.iter().filter_map(|pod| self.pods.get(pod)).map(|entry| &entry.facts).filter(|pod| mine(pod));
        let seats = facts.seats.as_ref().filter(|_| !facts.suspended);
        let since = seats.map(|seats| At(seats.since)).or_else(|| holding().map(|pod| pod.bound.unwrap_or(pod.created)).min());
        let Some(since) = since else { return false };
        let placed = seats.map(Seats::placed).unwrap_or_default();
        let attempt = seats.map_or(entry.attempts, |seats| seats.attempt).max(1);
        let mut run = Run::new(&facts.uid, attempt, since, placed);
        (run.resumed, run.stopping) = (true, facts.suspended);
        // How many of it had run before is not known: what runs is not taken for a start that hangs.
        run.started = holding().any(|pod| pod.phase == PodPhase::Running);
        if let Some(entry) = self.adopted.get_mut(name) {
            entry.run = Some(run);
        }
        true
    }

    /// Holds the seats of a start, and resumes the object.
    pub(super) fn start_adopted(&mut self, id: ActionId, job: &JobName, attempt: u32, workers: &[Placed], at: At) -> Vec<Event> {
        let dropped = vec![Event::Outcome { id, outcome: Outcome::Dropped }];
        let Some(name) = key_of(job) else { return dropped };
        let Some(entry) = self.adopted.get(&name).filter(|entry| entry.run.is_none() && entry.job(&name) == *job) else {
            return dropped;
        };
        let Some(facts) = entry.facts.as_ref().filter(|facts| facts.suspended && !facts.ending) else { return dropped };
        let mut run = Run::new(&facts.uid, attempt, at, workers.to_vec());
        if told::counts(facts) != run.counts() {
            return dropped;
        }
        run.action = Some(id);
        let refusal = run.seats_of().text().err().map(Refusal::Lasting).or_else(|| self.refuses_seats(&name, facts, &run.seats));
        let why = match refusal {
            Some(Refusal::Late) => return dropped,
            Some(Refusal::Lasting(why)) => Some(why),
            None => None,
        };
        let Some(entry) = self.adopted.get_mut(&name) else { return dropped };
        entry.refused.clone_from(&why);
        if let Some(why) = why {
            return vec![Event::Outcome { id, outcome: Outcome::Failed(why) }];
        }
        entry.run = Some(run);
        entry.asked.take_if(|asked| asked.is_refused());
        self.look_at_adopted(&name)
    }

    fn refuses_seats(&self, name: &str, facts: &AdoptedFacts, seats: &[Seat]) -> Option<Refusal> {
        let groups = facts.groups.as_ref().ok()?;
        let pod = |seat: &Seat| {
            let group = groups.get(usize::from(seat.placed.group))?;
            Some((PodFacts { key: seat.key(name), ..group.pod.clone() }, seat.placed.clone()))
        };
        let pods: Vec<(PodFacts, Placed)> = seats.iter().filter_map(pod).collect();
        let chosen: Vec<(&PodFacts, Placed)> = pods.iter().map(|(pod, placed)| (pod, placed.clone())).collect();
        self.refuses(&chosen)
    }

    /// Suspends the object; the end of its last pod ends the action.
    pub(super) fn stop_adopted(&mut self, id: ActionId, job: &JobName, attempt: u32, why: &str) -> Vec<Event> {
        let name = key_of(job).unwrap_or_else(|| Arc::from(""));
        let entry = self.adopted.get_mut(&name).filter(|entry| entry.job(&name) == *job);
        let run = entry.and_then(|entry| Some((entry.facts.clone(), entry.run.as_mut()?)));
        let Some((facts, run)) = run.filter(|(_, run)| run.attempt == attempt) else {
            let exited = Event::JobExited { name: job.clone(), attempt, exit: JobExit::Stopped };
            return vec![exited, Event::Outcome { id, outcome: Outcome::Done }];
        };
        run.stopping = true;
        self.writes.extend(facts.map(|facts| told::ended(&facts, why)));
        self.look_at_adopted(&name)
    }
}

#[cfg(test)]
mod tests;
