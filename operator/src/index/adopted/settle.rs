//! What has become of a run: whether its object was resumed, who has come to its seats and who has left them, and whether it is over.

use std::sync::Arc;

use tidegate_core::{Event, JobExit, Outcome};

use super::super::Index;
use super::super::unit::UnitId;
use super::seats::{Run, Seat, Site};
use super::{Adopted, Stands, told};
use crate::facts::{PodFacts, PodKey};

impl Index {
    /// Who has come to a run's seats and who has left them, and whether it is over. Whether other seats are held than before.
    pub(super) fn settle_seats(&mut self, name: &Arc<str>, events: &mut Vec<Event>) -> bool {
        let Some(mut entry) = self.adopted.remove(name) else { return false };
        let Some(mut run) = entry.run.take() else {
            self.adopted.insert(name.clone(), entry);
            return false;
        };
        let starts = self.look_at_start(name, &mut entry, &mut run, events);
        let stands = entry.stands(&run);
        let nodes = &self.nodes;
        let hostname = |node: &str| nodes.hostname(node);
        let site = Site { pods: &self.pods, members: &entry.pods, hostname: &hostname };
        let moved = run.seat_all(&site, stands == Stands::Runs);
        let released = run.release(&|group| wanted(&entry, stands, group));
        let suspended = || entry.facts.as_ref().is_none_or(|facts| facts.suspended) && !entry.is_stale();
        let ends = stands == Stands::Over || (stands == Stands::Ends && suspended());
        let is_over = !starts || (ends && !run.blocks(&site));
        let changed = !is_over && (moved || !released.is_empty());
        self.uncount(name, &released, events);
        if is_over {
            self.uncount(name, &run.seats, events);
            if starts {
                events.extend(exited(name, &mut entry, &run, stands));
            }
            entry.attempts = run.attempt;
            self.adopted_due.insert(name.clone());
        } else {
            self.count_seats(name, &entry, &mut run, events);
            entry.run = Some(run);
        }
        self.adopted.insert(name.clone(), entry);
        changed
    }

    /// Whether an object that is to be resumed was, or suspended by hand since. `false`: its start cannot be.
    fn look_at_start(&mut self, name: &str, entry: &mut Adopted, run: &mut Run, events: &mut Vec<Event>) -> bool {
        let Some(facts) = entry.facts.as_ref().filter(|facts| facts.uid == run.uid && !entry.is_stale()) else { return true };
        if run.resumed {
            run.stopping |= facts.suspended;
            return true;
        }
        if facts.ending || facts.end.is_some() {
            return true;
        }
        if !facts.suspended && facts.seats.as_ref() == Some(&run.seats_of()) {
            run.resumed = true;
            entry.noted = None;
            events.extend(run.action.take().map(|id| Event::Outcome { id, outcome: Outcome::Done }));
            self.writes.push(told::started(facts, run));
            return true;
        }
        let fits = facts.suspended && told::counts(facts) == run.counts();
        if !fits {
            tracing::info!(object = name, "it is not any more what it was when it was to be started");
            events.extend(run.action.take().map(|id| Event::Outcome { id, outcome: Outcome::Dropped }));
            return false;
        }
        true
    }

    pub(super) fn uncount(&mut self, name: &str, seats: &[Seat], events: &mut Vec<Event>) {
        let counted = seats.iter().filter(|seat| seat.counted.is_some());
        events.extend(counted.flat_map(|seat| self.nodes.came(&seat.key(name))));
    }

    /// Seats without a pod that is there are counted as pods on their way.
    fn count_seats(&mut self, name: &str, entry: &Adopted, run: &mut Run, events: &mut Vec<Event>) {
        let groups = entry.facts.as_ref().and_then(|facts| facts.groups.as_ref().ok()).map_or(&[][..], Vec::as_slice);
        for seat in &mut run.seats {
            let bound = seat.pod.as_ref().and_then(|pod| self.pods.get(pod)).is_some_and(|entry| entry.facts.node.is_some());
            let wanted = Some(&seat.placed.node).filter(|_| !bound);
            if seat.counted.as_ref() == wanted {
                continue;
            }
            let key = seat.key(name);
            match (wanted, groups.get(usize::from(seat.placed.group))) {
                (Some(node), Some(group)) => {
                    events.extend(self.nodes.comes(&PodFacts { key, ..group.pod.clone() }, &node.0));
                    seat.counted = Some(node.clone());
                }
                (None, _) => {
                    events.extend(self.nodes.came(&key));
                    seat.counted = None;
                }
                (Some(_), None) => {}
            }
        }
    }

    /// All of it was seen running.
    pub(super) fn note_seats_run(&mut self, name: &str, events: &mut Vec<Event>) {
        let Some(entry) = self.adopted.get_mut(name) else { return };
        let job = entry.job(name);
        let Some(run) = entry.run.as_mut().filter(|run| run.resumed && !run.stopping && !run.started) else { return };
        if run.seats.iter().all(|seat| seat.ran) {
            run.started = true;
            events.push(Event::JobStarted { name: job, attempt: run.attempt });
        }
    }

    /// Pods of an object that the engine does not know hold what they hold all the same; if nobody is to suspend them again,
    /// they are pods like any other.
    pub(super) fn give_seats_away(&mut self, name: &str, events: &mut Vec<Event>) {
        let Some(entry) = self.adopted.get(name).filter(|entry| entry.told.is_none() && entry.run.is_none()) else { return };
        let managed = entry.facts.as_ref().is_some_and(|facts| facts.queue.is_some());
        let orphan = |pod: &PodKey| {
            let facts = &self.pods.get(pod)?.facts;
            let is_one = facts.holds() || (!managed && facts.ours.is_some());
            Some((pod.clone(), UnitId::plain(facts).filter(|_| is_one)?))
        };
        // One that holds no GPU holds its CPU and memory.
        let orphans: Vec<(PodKey, UnitId)> = entry.pods.iter().filter_map(orphan).collect();
        for (pod, unit) in orphans {
            if let Some(entry) = self.adopted.get_mut(name) {
                entry.pods.remove(&pod);
            }
            events.extend(self.enter(&pod, &unit));
        }
    }
}

/// Seats of a group that are still to be held.
fn wanted(entry: &Adopted, stands: Stands, group: u16) -> u32 {
    match stands {
        Stands::Over => 0,
        Stands::Runs => told::wanted(entry, group),
        Stands::Starting | Stands::Ends => u32::MAX,
    }
}

/// The end of a run, told to the engine.
fn exited(name: &str, entry: &mut Adopted, run: &Run, stands: Stands) -> Vec<Event> {
    let end = entry.facts.as_ref().filter(|facts| facts.uid == run.uid).and_then(|facts| facts.end);
    let exit = match end {
        Some(true) => JobExit::Succeeded,
        Some(false) => JobExit::Failed,
        None => JobExit::Stopped,
    };
    let mut events: Vec<Event> = run.action.map(|id| Event::Outcome { id, outcome: Outcome::Done }).into_iter().collect();
    events.push(Event::JobExited { name: entry.job(name), attempt: run.attempt, exit });
    if stands == Stands::Over {
        events.extend(entry.untell(name));
    }
    events
}
