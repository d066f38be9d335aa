//! What a unit's pods are now, told to the engine: whether it is complete, what runs of it, what has ended.

use std::collections::BTreeMap;

use litemap::LiteMap;
use tidegate_core::event::{Observed, ObservedRun};
use tidegate_core::names::NodeName;
use tidegate_core::plan::Placed;
use tidegate_core::{Event, JobExit, Outcome};

use super::unit::{self, Phase, Run, UnitId};
use super::{Index, Write};
use crate::facts::{PodFacts, PodKey, PodPhase};

impl Index {
    /// Looks at a unit again after something of it has changed.
    pub(super) fn settle(&mut self, id: &UnitId) -> Vec<Event> {
        let mut events = Vec::new();
        self.adopt(id, &mut events);
        match self.units.get(id).map(|unit| &unit.phase) {
            Some(Phase::Running(_)) => self.settle_run(id, &mut events),
            Some(Phase::Gathering | Phase::Waiting) => self.settle_waiting(id, &mut events),
            None => {}
        }
        if self.units.get(id).is_some_and(|unit| unit.members.is_empty() && unit.phase == Phase::Gathering) {
            self.units.remove(id);
            self.to_tell.remove(id);
        }
        events
    }

    fn facts(&self, keys: impl Iterator<Item = PodKey>) -> Vec<&PodFacts> {
        keys.filter_map(|key| self.pods.get(&key)).map(|entry| &entry.facts).collect()
    }

    pub(super) fn members(&self, id: &UnitId) -> Vec<&PodFacts> {
        let members = self.units.get(id).map(|unit| unit.members.keys().cloned().collect::<Vec<_>>());
        self.facts(members.unwrap_or_default().into_iter())
    }

    /// Pods that can be placed now.
    pub(super) fn waiting(&self, id: &UnitId) -> Vec<&PodFacts> {
        let waits = |pod: &&PodFacts| {
            let ready = pod.ours.as_ref().is_some_and(|ours| !ours.gated && ours.problem.is_none());
            ready && pod.node.is_none() && !pod.ending && !pod.phase.is_over()
        };
        let run = self.units.get(id).and_then(|unit| unit.run());
        let free = |pod: &&PodFacts| run.is_none_or(|run| !run.placed.contains_key(&pod.key));
        unit::in_order(self.members(id).into_iter().filter(waits).filter(free))
    }

    /// Complete: its job waits. Not complete any more: there is no such job.
    fn settle_waiting(&mut self, id: &UnitId, events: &mut Vec<Event>) {
        let waiting = self.waiting(id);
        let size = self.size(id, &waiting);
        let spec = (!waiting.is_empty() && waiting.len() >= size).then(|| unit::spec(&waiting, size));
        let submitted = waiting.iter().map(|pod| pod.created).max().unwrap_or_default();
        let spec = spec.map(|spec| self.specs.share(spec));
        let Some(unit) = self.units.get_mut(id) else { return };
        let name = unit.job();
        match spec {
            Some(spec) if unit.spec.as_ref() != Some(&spec) => {
                events.push(Event::JobSet { name: name.clone(), spec: spec.clone() });
                if unit.phase == Phase::Gathering {
                    let observed = Observed { submitted, ..Observed::default() };
                    events.push(Event::JobObserved { name: name.clone(), observed });
                }
                (unit.phase, unit.spec) = (Phase::Waiting, Some(spec));
                self.jobs.insert(name, id.clone());
                self.to_tell.insert(id.clone());
            }
            None if unit.phase == Phase::Waiting => {
                events.push(Event::JobRemoved(name.clone()));
                unit.begin_anew(id);
                self.jobs.remove(&name);
            }
            Some(_) | None => {}
        }
    }

    /// Pods that are bound and that nobody of us has bound since we began: after a restart, or by another's hand.
    fn adopt(&mut self, id: &UnitId, events: &mut Vec<Event>) {
        // One that was nominated may be bound elsewhere in the end.
        let known = |unit: &super::Unit, pod: &PodFacts| {
            let placed = unit.run().and_then(|run| run.placed.get(&pod.key));
            placed.is_some_and(|placed| pod.node.as_ref().is_none_or(|node| node == placed.node.as_str()))
        };
        let Some(unit) = self.units.get(id) else { return };
        let all = self.members(id);
        let there = |pod: &PodFacts| pod.holds() || UnitId::of(pod).is_some_and(|of| of == *id && pod.ours.is_none());
        let found: Vec<&PodFacts> = all.iter().copied().filter(|pod| there(pod) && !known(unit, pod)).collect();
        if found.is_empty() {
            return;
        }
        // What we are binding counts beside what was found.
        let open = |pod: &PodFacts| unit.run().filter(|run| run.open.contains(&pod.key)).and_then(|run| run.placed.get(&pod.key));
        let holding: Vec<&PodFacts> = all.iter().copied().filter(|pod| there(pod) || open(pod).is_some()).collect();
        let size = self.size(id, &all);
        let spec = unit::spec(&holding, size);
        let asks = unit::asks(holding.iter().copied());
        // Devices that are claimed by name are known; others the kubelet has chosen.
        let devices = |pod: &PodFacts| {
            let ordered = || unit.run().and_then(|run| Some(run.placed.get(&pod.key)?.devices.clone()));
            let by_name = pod.needs.as_ref().is_some_and(|needs| !needs.devices.is_empty());
            if by_name { self.devices.all_of(pod).or_else(ordered).unwrap_or_default() } else { Vec::new() }
        };
        let place = |pod: &&PodFacts| {
            let group = asks.iter().position(|ask| *ask == unit::ask(pod)).and_then(|at| u16::try_from(at).ok());
            let node = pod.node.clone().or_else(|| pod.nominated.clone()).map(NodeName::from);
            let node = node.or_else(|| open(pod).map(|placed| placed.node.clone())).unwrap_or_default();
            let placed = Placed { group: group.unwrap_or_default(), node, devices: devices(pod), slices: 0 };
            (pod.key.clone(), placed)
        };
        let placed: LiteMap<PodKey, Placed> = holding.iter().map(place).collect();
        let since = holding.iter().map(|pod| pod.bound.unwrap_or(pod.created)).min().unwrap_or_default();
        for pod in holding.iter().map(|pod| pod.key.clone()).collect::<Vec<_>>() {
            self.end_claim_jobs_of(&pod, events);
        }
        let Some(unit) = self.units.get_mut(id) else { return };
        let name = unit.job();
        match &mut unit.phase {
            Phase::Running(run) => run.placed = placed,
            phase => *phase = Phase::Running(Run { attempt: 1, since, placed, ..Run::default() }.into()),
        }
        let spec = unit.run().map_or_else(|| spec.clone(), |run| unit::as_placed(&spec, &run.placed));
        let spec = self.specs.share(spec);
        events.push(Event::JobSet { name: name.clone(), spec: spec.clone() });
        unit.spec = Some(spec);
        self.jobs.insert(name, id.clone());
        self.to_tell.remove(id);
        events.extend(self.observed(id));
    }

    /// What runs of it, as an event.
    pub(super) fn observed(&self, id: &UnitId) -> Option<Event> {
        let unit = self.units.get(id)?;
        let run = unit.run()?;
        let submitted = self.members(id).iter().map(|pod| pod.created).max().unwrap_or(run.since);
        let seen = ObservedRun { since: run.since, workers: run.placed.values().cloned().collect(), started: run.started };
        let observed = Observed { submitted, attempts: run.attempt, failures: 0, run: Some(seen) };
        Some(Event::JobObserved { name: unit.job(), observed })
    }

    /// What has ended of it, whether all of it runs, and who came too late for it.
    fn settle_run(&mut self, id: &UnitId, events: &mut Vec<Event>) {
        let ended = self.ended(id);
        let Some(unit) = self.units.get_mut(id) else { return };
        let name = unit.job();
        let Some(run) = unit.run_mut() else { return };
        for (key, well) in &ended {
            run.placed.remove(key);
            run.broken |= !well;
            if run.open.remove(key) {
                run.failed.push(format!("{key}: it went away while it was bound"));
            }
        }
        if run.placed.is_empty() && run.open.is_empty() {
            return self.exited(id, events);
        }
        if self.join(id, events) {
            return;
        }
        let Some(run) = self.units.get_mut(id).and_then(super::Unit::run_mut) else { return };
        if let Some(why) = run.failed.pop_if(|_| run.held.is_some()) {
            events.extend(self.give_up(id, why));
            return;
        }
        let Some(unit) = self.units.get_mut(id) else { return };
        let Some(run) = unit.run_mut() else { return };
        if !run.failed.is_empty() && run.open.is_empty() {
            events.extend(self.concluded(id));
            return;
        }
        self.bind_again(id);
        let Some(unit) = self.units.get_mut(id) else { return };
        let Some(run) = unit.run_mut() else { return };
        if !ended.is_empty() {
            let placed = run.placed.clone();
            if let Some(spec) = &unit.spec {
                let spec = self.specs.share(unit::as_placed(spec, &placed));
                unit.spec = Some(spec.clone());
                events.push(Event::JobSet { name: name.clone(), spec });
            }
            events.extend(self.observed(id));
        }
        self.note_started(id, events);
        self.release_late(id, events);
    }

    /// Bindings that were in conflict are tried again once the pod is seen as it is now.
    fn bind_again(&mut self, id: &UnitId) {
        let Some(run) = self.units.get_mut(id).and_then(super::Unit::run_mut) else { return };
        let mut writes = Vec::new();
        run.stale.retain(|pod, version| {
            let Some(facts) = self.pods.get(pod).map(|entry| &entry.facts) else { return false };
            let is_new = facts.resource_version != *version;
            if is_new && facts.node.is_none() && !facts.ending {
                writes.extend(run.placed.get(pod).map(|placed| Write::bind(facts, &placed.node.0)));
            }
            !is_new
        });
        self.writes.extend(writes);
    }

    /// Placed pods that hold nothing any more, and whether they were done.
    fn ended(&self, id: &UnitId) -> Vec<(PodKey, bool)> {
        let Some(run) = self.units.get(id).and_then(|unit| unit.run()) else { return Vec::new() };
        let end = |key: &PodKey| match self.pods.get(key) {
            None => Some(false),
            // Nominated no longer, and not bound either.
            Some(entry) if entry.facts.ours.is_none() && UnitId::plain(&entry.facts).is_none() => Some(false),
            Some(entry) => entry.facts.phase.is_over().then_some(entry.facts.phase == PodPhase::Succeeded),
        };
        run.placed.keys().filter_map(|key| Some((key.clone(), end(key)?))).collect()
    }

    /// The last pod of it has ended.
    fn exited(&mut self, id: &UnitId, events: &mut Vec<Event>) {
        let Some(unit) = self.units.get_mut(id) else { return };
        let (name, Some(run)) = (unit.job(), unit.run()) else { return };
        let exit = match run {
            Run { stopping: true, .. } => JobExit::Stopped,
            Run { broken: true, .. } => JobExit::Failed,
            _ => JobExit::Succeeded,
        };
        events.extend(run.action.map(|id| Event::Outcome { id, outcome: Outcome::Done }));
        events.push(Event::JobExited { name: name.clone(), attempt: run.attempt, exit });
        events.push(Event::JobRemoved(name.clone()));
        unit.begin_anew(id);
        self.jobs.remove(&name);
        let over = |pods: &BTreeMap<PodKey, super::Entry>, key: &PodKey| {
            pods.get(key).is_none_or(|entry| entry.facts.phase.is_over() || entry.facts.ours.is_none())
        };
        let gone: Vec<PodKey> = unit.members.keys().filter(|key| over(&self.pods, key)).cloned().collect();
        for key in gone {
            unit.members.remove(&key);
            if let Some(entry) = self.pods.get_mut(&key) {
                entry.unit = None;
            }
        }
        self.take_back_rest(id, events);
        events.extend(self.settle(id));
    }

    fn note_started(&mut self, id: &UnitId, events: &mut Vec<Event>) {
        let Some(unit) = self.units.get(id) else { return };
        let Some(run) = unit.run().filter(|run| !run.started && !run.stopping && run.open.is_empty()) else { return };
        let runs = |key: &PodKey| self.pods.get(key).is_some_and(|entry| entry.facts.phase == PodPhase::Running);
        let enough = |placed: usize| placed >= self.still_needed(id, placed);
        if self.begun && run.placed.keys().all(runs) && enough(run.placed.len()) {
            let event = Event::JobStarted { name: unit.job(), attempt: run.attempt };
            if let Some(run) = self.units.get_mut(id).and_then(super::Unit::run_mut) {
                run.started = true;
            }
            events.push(event);
        }
    }

    /// Tells every pod of a run to end.
    pub(super) fn evict(&mut self, id: &UnitId) {
        let Some(run) = self.units.get(id).and_then(|unit| unit.run()) else { return };
        let pods = run.placed.keys().filter(|key| !run.open.contains(*key)).filter_map(|key| self.pods.get(key));
        let writes: Vec<Write> = pods.filter(|entry| !entry.facts.ending).map(|entry| Write::evict(&entry.facts)).collect();
        self.writes.extend(writes);
    }
}
