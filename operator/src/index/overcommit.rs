//! Nodes of which more is asked than they have: another scheduler and we have bound to one at the same moment, each of which saw
//! room. Nobody can forbid that, so it is repaired: what of ours is too much goes, and is placed anew.
//!
//! * **A kubelet goes first.** A real one refuses the pod that comes too late; only what lasts longer than a moment is looked at.
//! * **Whoever loses least goes**: not what may not be stopped, lower priorities first, at last what nobody makes again; then by
//!   the work that is lost, the latest first. No more than it takes.
//! * **In vain nothing goes**: what cannot be mended by what is ours is left, and told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::names::{JobName, NodeName, ReplicaId};
use tidegate_core::state::Overcommit;
use tidegate_core::time::At;
use tidegate_core::{Engine, Event};

use super::amounts::Amounts;
use super::unit::UnitId;
use super::{Entry, Index};
use crate::facts::PodFacts;

/// How long a kubelet has for it. It is looked at every second, so that most have more.
const GRACE_MS: u64 = 800;

/// What is done about one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    pub node: String,
    pub over: Overcommit,
}

impl Repair {
    /// Nothing of ours can mend it.
    pub fn is_vain(&self) -> bool {
        self.over.jobs.is_empty() && self.over.replicas.is_empty()
    }

    pub fn event(self) -> Event {
        Event::NodeOvercommitted { name: NodeName::from(self.node), over: self.over }
    }
}

/// Since when a node is asked for too much, and whether it was told that nothing can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Episode {
    since: At,
    told: bool,
}

/// What the engine knows pods by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Job(JobName),
    Replica(ReplicaId),
}

/// What it costs that work goes: see the module.
type Cost = (bool, i32, bool, u64, Reverse<At>);

/// Work of ours on a node.
#[derive(Clone, Debug)]
struct Candidate {
    work: Work,
    asks: Amounts,
    cost: Cost,
}

impl Index {
    /// What is to be done about nodes that have been asked for too much for longer than a moment. To be asked every second.
    pub fn look_at_overcommits(&mut self, now: At, engine: &Engine) -> Vec<Repair> {
        let full: BTreeMap<String, Amounts> = self.nodes.overcommitted().collect();
        self.overcommits.retain(|name, _| full.contains_key(name));
        for name in full.keys().filter(|name| !self.overcommits.contains_key(*name)).cloned().collect::<Vec<_>>() {
            self.overcommits.insert(name, Episode { since: now, told: false });
        }
        let due = |name: &str| self.overcommits.get(name).is_some_and(|episode| now.since(episode.since) >= GRACE_MS);
        let mut there = BTreeMap::<&str, Vec<&Entry>>::new();
        for entry in self.pods.values().filter(|_| !full.is_empty()) {
            if let Some(node) = entry.facts.node.as_deref().filter(|node| entry.facts.holds() && due(node)) {
                there.entry(node).or_default().push(entry);
            }
        }
        let mut repairs: Vec<Repair> = Vec::new();
        for (node, pods) in there {
            let over = full.get(node).copied().unwrap_or_default();
            repairs.extend(self.repair(node, over, &pods, now, engine));
        }
        repairs.retain(|repair| {
            let episode = self.overcommits.get_mut(&repair.node).filter(|_| repair.is_vain());
            episode.is_none_or(|episode| !std::mem::replace(&mut episode.told, true))
        });
        repairs
    }

    /// What is to be done about one node, if not enough is on its way already.
    fn repair(&self, node: &str, over: Amounts, pods: &[&Entry], now: At, engine: &Engine) -> Option<Repair> {
        let mut ours = BTreeMap::<Work, Vec<&PodFacts>>::new();
        let mut going = Amounts::default();
        for entry in pods {
            let asks = Amounts::of_pod(&entry.facts.requests);
            match self.work_of(entry) {
                _ if entry.facts.ending => going = going.plus(asks),
                Some(work) if is_stopping(engine, &work) => going = going.plus(asks),
                Some(work) => ours.entry(work).or_default().push(&entry.facts),
                None => {}
            }
        }
        let over = over.less(going);
        let candidate = |(work, pods): (Work, Vec<&PodFacts>)| {
            let asks = sum(&pods.iter().map(|pod| Amounts::of_pod(&pod.requests)).collect::<Vec<_>>());
            let cost = cost(engine, &work, node, pods.iter().all(|pod| pod.is_made), now)?;
            Some(Candidate { work, asks, cost })
        };
        let mut candidates: Vec<Candidate> = ours.into_iter().filter_map(candidate).collect();
        candidates.sort_by(|one, other| (&one.cost, &one.work).cmp(&(&other.cost, &other.work)));
        let asks: Vec<Amounts> = candidates.iter().map(|candidate| candidate.asks).collect();
        let mendable = over.covered_by(sum(&asks));
        let scarce = mendable.first().or(over.first())?;
        let mut over = Overcommit { scarce, jobs: Vec::new(), replicas: Vec::new() };
        for candidate in cheapest(mendable, &asks).into_iter().filter_map(|at| candidates.get(at)) {
            match candidate.work.clone() {
                Work::Job(job) => over.jobs.push(job),
                Work::Replica(replica) => over.replicas.push(replica),
            }
        }
        Some(Repair { node: node.to_owned(), over })
    }

    /// What the engine knows a pod of ours by.
    fn work_of(&self, entry: &Entry) -> Option<Work> {
        let facts = &entry.facts;
        match &entry.unit {
            Some(UnitId::Foreign(_)) => None,
            Some(id) => self.units.get(id).map(|unit| Work::Job(unit.job())),
            None => {
                let worker = facts.worker.as_ref().map(|of| Work::Job(super::training::name(&of.job)));
                let replica = || facts.replica.as_ref().map(|of| Work::Replica(ReplicaId::from(of.id.as_str())));
                let seat = || facts.seat.as_ref().and_then(|seat| self.job_of_seat(&seat.object)).map(Work::Job);
                worker.or_else(replica).or_else(seat)
            }
        }
    }
}

/// It was told to end.
fn is_stopping(engine: &Engine, work: &Work) -> bool {
    let state = engine.state();
    match work {
        Work::Job(job) => state.jobs.get(job).and_then(|job| job.run()).is_some_and(|run| run.stop.is_some()),
        Work::Replica(replica) => state.replicas.get(replica).is_some_and(|replica| replica.stop.is_some()),
    }
}

/// What it costs that work leaves a node; `None` if the engine does not know that it is there.
fn cost(engine: &Engine, work: &Work, node: &str, is_made: bool, now: At) -> Option<Cost> {
    let state = engine.state();
    let node = state.nodes.ix(&NodeName::from(node))?;
    match work {
        Work::Job(job) => {
            let job = state.jobs.get(job)?;
            let run = job.run().filter(|run| run.seats.iter().any(|seat| seat.node == node))?;
            Some((!job.spec.preemptible, job.spec.priority, !is_made, job.lost_work_ms(now), Reverse(run.since)))
        }
        Work::Replica(replica) => {
            let replica = state.replicas.get(replica).filter(|replica| replica.seat.node == node)?;
            let model = state.models.get(&replica.model)?;
            Some((false, model.spec.priority, !is_made, model.load_ms, Reverse(replica.since)))
        }
    }
}

/// Which of these, the cheapest first, must go so that so much less is asked, which all of them together ask for: no more than
/// it takes.
fn cheapest(over: Amounts, candidates: &[Amounts]) -> Vec<usize> {
    let mut left = over;
    let mut chosen = BTreeSet::new();
    for (at, asks) in candidates.iter().enumerate() {
        if asks.meets(left) {
            left = left.less(*asks);
            chosen.insert(at);
        }
    }
    for at in chosen.iter().rev().copied().collect::<Vec<_>>() {
        let others = chosen.iter().filter(|other| **other != at).filter_map(|other| candidates.get(*other));
        if over.less(sum(others)).is_none() {
            chosen.remove(&at);
        }
    }
    chosen.into_iter().collect()
}

fn sum<'a>(all: impl IntoIterator<Item = &'a Amounts>) -> Amounts {
    all.into_iter().fold(Amounts::default(), |sum, asks| sum.plus(*asks))
}

#[cfg(test)]
mod tests;
