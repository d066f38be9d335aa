//! Gangs of which only some pods are bound: a leader was gone in the middle of its bindings, or one of them was lost. What is
//! bound cannot be taken back, so the others that wait are a job of their own, the *rest*: all that are missing start together, or
//! none does. Once they are bound they are one gang again. If that does not happen within the gang's time, what is bound ends.

use tidegate_core::{Event, JobExit};

use super::unit::{self, Phase, UnitId};
use super::{Index, Unit};
use crate::facts::{PodFacts, PodKey, PodPhase};

impl Index {
    /// How many of a unit must start together.
    pub(super) fn size(&self, id: &UnitId, pods: &[&PodFacts]) -> usize {
        match id.whole() {
            None => unit::size(id, pods),
            Some(gang) => {
                let bound = self.units.get(&gang).and_then(Unit::run).map_or(0, |run| run.placed.len());
                let mut all = self.members(&gang);
                all.extend(pods);
                unit::size(&gang, &all).saturating_sub(bound).max(1)
            }
        }
    }

    /// How many of a unit that holds so many places must hold one: those of a gang that are done are not missing. Looked for only
    /// when some seem to be missing, since it costs a pass over the pods.
    pub(super) fn still_needed(&self, id: &UnitId, placed: usize) -> usize {
        let size = self.size(id, &self.members(id));
        let UnitId::Gang(of) = id else { return size };
        let is_of_it = |facts: &&PodFacts| {
            let gang = facts.ours.as_ref().and_then(|ours| ours.gang.as_ref());
            facts.key.namespace() == of.namespace() && gang.is_some_and(|gang| gang.name == of.name())
        };
        let done = || self.pods.values().map(|entry| &entry.facts).filter(|facts| facts.phase == PodPhase::Succeeded);
        if placed >= size { size } else { size.saturating_sub(done().filter(is_of_it).count()) }
    }

    /// Pods that come to a gang that has started are on their own: it is not stopped to take them in, and who takes the place of
    /// one that has ended does not wait for the others' end. Of a gang that is not whole they are the rest. While some of it are
    /// told to end all of it may be made anew.
    pub(super) fn release_late(&mut self, id: &UnitId, events: &mut Vec<Event>) {
        let stays = |key: &PodKey| self.pods.get(key).is_some_and(|entry| !entry.facts.ending);
        let Some(run) = self.units.get(id).and_then(Unit::run) else { return };
        if !self.begun || !run.open.is_empty() || run.stopping || !run.placed.keys().all(stays) {
            return;
        }
        let is_whole = run.started || run.placed.len() >= self.still_needed(id, run.placed.len());
        let late: Vec<PodKey> = self.waiting(id).iter().map(|pod| pod.key.clone()).collect();
        let together =
            |pod: &&PodFacts| pod.ours.as_ref().and_then(|ours| ours.spread.as_ref()).is_some_and(|wish| wish.required);
        if !is_whole && !late.is_empty() && self.members(id).iter().any(together) {
            // The rest would not know where the others are.
            tracing::warn!(unit = %id, "of a gang that must be in one place only a part is bound: it ends, to be made anew");
            if let Some(run) = self.units.get_mut(id).and_then(Unit::run_mut) {
                run.stopping = true;
            }
            return self.evict(id);
        }
        for key in late {
            let own = id.rest().filter(|_| !is_whole).unwrap_or_else(|| UnitId::Single(key.clone()));
            if let Some(unit) = self.units.get_mut(id) {
                unit.members.remove(&key);
            }
            events.extend(self.enter(&key, &own));
        }
        if let Some(rest) = id.rest().filter(|rest| self.units.contains_key(rest)) {
            events.extend(self.settle(&rest));
        }
    }

    /// The rest is bound: it is one with the others again.
    pub(super) fn join(&mut self, id: &UnitId, events: &mut Vec<Event>) -> bool {
        let Some(gang) = id.whole() else { return false };
        let holds = |key: &PodKey| self.pods.get(key).is_some_and(|entry| entry.facts.holds());
        let run = self.units.get(id).and_then(Unit::run);
        let bound = run.filter(|run| run.open.is_empty() && run.action.is_none() && run.placed.keys().all(holds));
        let Some(attempt) = bound.map(|run| run.attempt) else { return false };
        self.hand_over(id, &gang, Some(attempt), events);
        events.extend(self.settle(&gang));
        true
    }

    /// The gang has ended: its rest is all there is of it.
    pub(super) fn take_back_rest(&mut self, gang: &UnitId, events: &mut Vec<Event>) {
        let Some(rest) = gang.rest().filter(|rest| self.units.get(rest).is_some_and(|unit| unit.run().is_none())) else { return };
        self.hand_over(&rest, gang, None, events);
    }

    fn hand_over(&mut self, rest: &UnitId, gang: &UnitId, attempt: Option<u32>, events: &mut Vec<Event>) {
        let Some(unit) = self.units.remove(rest) else { return };
        let name = unit.job();
        if unit.phase != Phase::Gathering {
            let exited = |attempt| Event::JobExited { name: name.clone(), attempt, exit: JobExit::Stopped };
            events.extend(attempt.map(exited));
            events.push(Event::JobRemoved(name.clone()));
        }
        self.jobs.remove(&name);
        self.to_tell.remove(rest);
        for (key, ()) in unit.members.into_tuple_vec() {
            if let Some(entry) = self.pods.get_mut(&key) {
                entry.unit = Some(gang.clone());
            }
            self.units.entry(gang.clone()).or_insert_with(|| Unit::new(gang)).members.insert(key, ());
        }
    }
}
