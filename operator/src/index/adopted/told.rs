//! What the engine is told of an adopted object, and what people are.

use tidegate_core::ask::Ask;
use tidegate_core::names::{Namespace, QueueName};
use tidegate_core::state::{Group, JobSpec};
use tidegate_core::{Engine, explain};

use super::super::{Index, Note, Told, Write};
use super::{Adopted, Run, sized};
use crate::facts::AdoptedFacts;
use crate::facts::adopted;
use crate::facts::selection::both;

/// Looked at in one go: why an object waits costs a pass over the nodes.
const AT_ONCE: usize = 64;

/// Pods of each group that are to run, without the last groups that have none.
pub(super) fn counts(facts: &AdoptedFacts) -> Vec<u32> {
    let mut counts: Vec<u32> = facts.groups.iter().flatten().map(|group| group.count).collect();
    while counts.last() == Some(&0) {
        counts.pop();
    }
    counts
}

/// Pods of a group that are still to come or to go on; if that cannot be told, as many as there are.
pub(super) fn wanted(entry: &Adopted, group: u16) -> u32 {
    let groups = entry.facts.as_ref().and_then(|facts| facts.groups.as_ref().ok());
    groups.and_then(|groups| groups.get(usize::from(group))).map_or(u32::MAX, |group| group.count)
}

fn note(facts: &AdoptedFacts, warning: bool, reason: &'static str, action: &'static str, text: String) -> Write {
    Note { kind: &facts.adoption.kind, uid: facts.uid.clone(), warning, reason, action, text }.about(&facts.key)
}

/// It was resumed.
pub(super) fn started(facts: &AdoptedFacts, run: &Run) -> Write {
    note(facts, false, "Started", "Resuming", format!("its pods go to {}", run.seats_of().words()))
}

/// It is to be suspended, for that reason.
pub(super) fn ended(facts: &AdoptedFacts, why: &str) -> Write {
    note(facts, true, "Preempted", "Suspending", why.to_owned())
}

/// It was resumed by somebody else.
pub(super) fn not_its_turn(facts: &AdoptedFacts) -> Write {
    let text = "it was resumed though it has no seats: it is suspended again until its turn comes; to let it run without that, take its \
                queue's label off while it is suspended";
    note(facts, true, "NotItsTurn", "Suspending", text.to_owned())
}

impl Index {
    /// The job that an object is now. `None`: the engine is to be told nothing of it, or nothing new.
    pub(super) fn spec_of(&self, entry: &Adopted) -> Option<Result<JobSpec, String>> {
        let facts = entry.facts.as_ref().filter(|facts| !facts.ending && facts.end.is_none())?;
        if let Some(run) = &entry.run {
            let seats = || run.seats.iter().map(|seat| &seat.placed);
            return (run.uid == facts.uid).then(|| self.whole(facts).map(|spec| sized(&spec, seats())));
        }
        facts.queue.as_ref()?;
        match &facts.seats {
            Some(seats) if !facts.suspended => Some(self.whole(facts).map(|spec| sized(&spec, seats.placed().iter()))),
            _ if facts.suspended => Some(self.whole(facts).and_then(|spec| match spec.size() {
                (0, _) => Err("its counts of pods are 0, so that there is nothing to start: raise them".to_owned()),
                _ => Ok(spec),
            })),
            _ => None,
        }
    }

    /// All that it asks for.
    fn whole(&self, facts: &AdoptedFacts) -> Result<JobSpec, String> {
        let groups = facts.groups.as_ref().map_err(Clone::clone)?;
        let ours = || groups.iter().filter_map(|group| group.pod.ours.as_ref());
        let group = |group: &adopted::Group| {
            let spread = group.pod.ours.as_ref().and_then(|ours| ours.spread.clone());
            Ok(Group { name: String::new(), min: group.count, max: group.count, ask: self.ask_of(facts, group)?, spread })
        };
        Ok(JobSpec {
            queue: QueueName::from(self.around.queue_of(facts)?),
            namespace: Namespace::from(facts.key.namespace()),
            priority: self.around.priority_of(facts).0,
            owner: facts.key.namespace().to_owned(),
            recipe: ours().next().map(|ours| ours.recipe.clone()).unwrap_or_default(),
            groups: groups.iter().map(group).collect::<Result<_, String>>()?,
            preemptible: ours().all(|ours| ours.preemptible),
            expected_ms: ours().filter_map(|ours| ours.expected_ms).max(),
            // A pod that failed is its maker's to replace.
            backoff_limit: u32::MAX,
            ..JobSpec::workers("", 1, 1, Ask::default())
        })
    }

    /// What a pod asks of a node, from which its volumes can be used.
    fn ask_of(&self, facts: &AdoptedFacts, group: &adopted::Group) -> Result<Ask, String> {
        let mut ask = group.ask();
        for claim in group.pod.needs.iter().flat_map(|needs| &needs.claims) {
            let terms = if group.by_us {
                self.around.bound(&claim.key)?
            } else {
                self.around.nodes_for(claim, &facts.key, &facts.uid).map_err(|problem| format!("its pod {problem}"))?
            };
            if !terms.is_empty() {
                ask.affinity.required = both(&ask.affinity.required, &terms);
            }
        }
        Ok(ask)
    }

    /// Tells some of those that wait why, if it is news to them.
    pub(in super::super) fn adopted_reasons(&mut self, engine: &Engine) -> Vec<Write> {
        let mut writes = Vec::new();
        for _ in 0..AT_ONCE.min(self.adopted_due.len()) {
            let Some(name) = self.adopted_due.pop_first() else { break };
            let Some((write, message)) = self.adopted_reason(&name, engine) else { continue };
            let Some(entry) = self.adopted.get_mut(&name) else { continue };
            if entry.noted.as_ref().is_none_or(|told| told.has_other_words(&message)) {
                entry.noted = Some(Told { message, round: self.round });
                writes.push(write);
            }
        }
        writes
    }

    fn adopted_reason(&self, name: &str, engine: &Engine) -> Option<(Write, String)> {
        let entry = self.adopted.get(name).filter(|entry| entry.run.is_none())?;
        let facts = entry.facts.as_ref().filter(|facts| facts.suspended && facts.queue.is_some())?;
        let mut message = match (&entry.lacks, &entry.told) {
            (Some(problem), _) => problem.clone(),
            (None, Some(_)) => explain::waiting(engine, &entry.job(name)),
            (None, None) => String::new(),
        };
        if message.is_empty() {
            return None;
        }
        let also =
            [entry.refused.as_ref().map(|why| format!("its last start could not be: {why}")), self.around.priority_of(facts).1];
        for more in also.into_iter().flatten() {
            message = format!("{message}; {more}");
        }
        Some((note(facts, true, "FailedScheduling", "Scheduling", message.clone()), message))
    }

    /// Why they wait may have changed, without news of them. What was refused to those that run is asked again.
    pub(in super::super) fn look_at_waiting_adopted(&mut self) {
        self.adopted_due.extend(self.adopted.iter().filter(|(_, entry)| entry.told.is_some()).map(|(name, _)| name.clone()));
        let refused: Vec<_> =
            self.adopted.iter().filter(|(_, entry)| entry.was_refused()).map(|(name, _)| name.clone()).collect();
        for name in refused {
            self.ask_adopted_again(&name);
        }
    }
}
