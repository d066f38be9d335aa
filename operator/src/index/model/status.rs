//! What people read of a model: `kubectl get models`.

use tidegate_api::kinds::{Condition, MAX_MESSAGE, ModelStatus, cut};
use tidegate_core::Engine;
use tidegate_core::explain::{self, Barred};
use tidegate_core::names::ModelName;
use tidegate_core::time::At;

use super::super::{Index, Ours, Write};
use super::{Model, name, note};
use crate::facts::{ModelFacts, PodKey};

/// Looked at in one go.
const AT_ONCE: usize = 64;

impl Index {
    /// The status of models of which something has changed, if it reads otherwise now. `now` in RFC 3339, too.
    pub fn model_statuses(&mut self, engine: &Engine, at: At, now: &str) -> Vec<Write> {
        let mut writes = Vec::new();
        for _ in 0..AT_ONCE.min(self.model_status_due.len()) {
            let Some(key) = self.model_status_due.pop_first() else { break };
            let stuck = self.stuck_replica(&key);
            let Some(model) = self.models.get_mut(&key) else { continue };
            let Some(facts) = model.facts.as_ref().filter(|_| !model.writing) else { continue };
            let status = status(model, facts, engine, stuck, (at, now));
            if status == facts.status {
                continue;
            }
            writes.push(Write::status(Ours::Model, &key, &facts.uid, &status));
            let refused = |status: &ModelStatus| status.conditions.iter().any(|c| c.kind == "Accepted" && c.status == "False");
            if refused(&status) && !refused(&facts.status) {
                writes.push(note(facts, true, "Refused", "Serving", status.message.clone()));
            }
            model.writing = true;
            // Until the watch tells what came of it.
            if let Some(facts) = &mut model.facts {
                facts.status = status;
            }
        }
        writes
    }

    /// Why a replica does not start though its pod is there.
    fn stuck_replica(&self, key: &PodKey) -> Option<Barred> {
        let starting = self.models.get(key)?.replicas.values().filter(|replica| !replica.ready && !replica.ending);
        let said = |pod: &PodKey| Some((pod.name().to_owned(), self.replica_facts(pod)?.1.stuck.clone()?));
        let (pod, why) = starting.map(|replica| &replica.pod).find_map(said)?;
        Some(Barred { word: "CannotStart", why: format!("pod {pod} cannot be started: {why}") })
    }

    /// A status was written, or was not: what has changed since is looked at again.
    pub(in super::super) fn model_status_written(&mut self, key: &PodKey) {
        if let Some(model) = self.models.get_mut(key) {
            model.writing = false;
            self.model_status_due.insert(key.clone());
        }
    }

    /// What they want may have changed, without news of them.
    pub(in super::super) fn look_at_all_models(&mut self) {
        self.model_status_due.extend(self.models.iter().filter(|(_, model)| model.facts.is_some()).map(|(key, _)| key.clone()));
    }
}

/// `now` as the engine counts and as people write it.
fn status(model: &Model, facts: &ModelFacts, engine: &Engine, stuck: Option<Barred>, (at, now): (At, &str)) -> ModelStatus {
    let known = engine.state().models.get(&name(&facts.key)).filter(|_| model.told.is_some());
    let wanted = known.map_or(0, |known| known.target(at, &engine.state().policy));
    let was = &facts.status;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let live = || model.replicas.values().filter(|replica| replica.draining.is_none() && !replica.ending);
    let ready = count(live().filter(|replica| replica.ready).count());
    let starting = count(live().filter(|replica| !replica.ready).count());
    let gpus = model.accepted.as_ref().map_or(0, |wanted| wanted.ask.devices()) * count(model.replicas.len());
    let refused = facts.wanted.as_ref().err().or(model.lacks.as_ref());
    let barred = || stuck.or_else(|| known.and_then(|_| explain::barred_model(engine, &name(&facts.key))));
    let barred = if refused.is_some() { None } else { barred() };
    let message = match (refused, &barred) {
        (Some(problem), _) => problem.clone(),
        (None, Some(barred)) => barred.why.clone(),
        (None, None) if ready + starting < wanted => why(model, engine, &name(&facts.key), at),
        (None, None) => String::new(),
    };
    let tensors = model.tensors.as_ref().map(|(tensors, _)| tensors.clone());
    let mut status = ModelStatus {
        ready,
        starting,
        wanted,
        gpus,
        message: cut(&message, MAX_MESSAGE).to_owned(),
        tensors,
        observed_generation: i64::try_from(facts.generation).unwrap_or(i64::MAX),
        conditions: was.conditions.clone(),
    };
    if status == *was {
        return status;
    }
    let of = |kind: &str, holds: bool, reason: &str, message: &str| {
        Condition::new(kind, holds, reason, message, status.observed_generation, &was.conditions, now)
    };
    let accepted = match (refused, &barred) {
        (Some(problem), _) => of("Accepted", false, "Invalid", problem),
        (None, Some(barred)) => of("Accepted", false, barred.word, &barred.why),
        (None, None) => of("Accepted", true, "Valid", ""),
    };
    let answers = of("Ready", ready > 0, if ready > 0 { "Answers" } else { "NoReplica" }, &status.message);
    status.conditions = vec![accepted, answers];
    status
}

/// Why it has fewer replicas than it wants.
fn why(model: &Model, engine: &Engine, name: &ModelName, at: At) -> String {
    model.problem.clone().unwrap_or_else(|| explain::lacking(engine, name, at))
}
