//! What people read of a training job: `kubectl get trainingjobs`.

use tidegate_api::kinds::{Condition, MAX_MESSAGE, TrainingJobStatus, TrainingPhase, cut};
use tidegate_core::Engine;
use tidegate_core::explain::{self, Barred};
use tidegate_core::state::{End, Job, Phase};
use tidegate_core::time::At;

use super::super::{Index, Note, Ours, Write};
use super::{Training, name};
use crate::facts::{PodKey, TrainingFacts};

/// Looked at in one go: why a job waits costs a pass over the nodes.
const AT_ONCE: usize = 64;
/// Claims are made and given within that; what takes longer is told.
const SOON_MS: u64 = 5_000;

impl Index {
    /// The status of jobs of which something has changed, if it reads otherwise now. `now` in RFC 3339.
    pub fn statuses(&mut self, engine: &Engine, now: &str) -> Vec<Write> {
        let mut writes = Vec::new();
        for _ in 0..AT_ONCE.min(self.status_due.len()) {
            let Some(key) = self.status_due.pop_first() else { break };
            let stuck = self.stuck(&key, engine.state().now);
            let Some(training) = self.trainings.get_mut(&key) else { continue };
            let Some(facts) = &training.facts else { continue };
            if training.writing {
                continue;
            }
            let status = status(training, facts, engine, stuck, now);
            if status == facts.status {
                continue;
            }
            writes.push(Write::status(Ours::TrainingJob, &key, &facts.uid, &status));
            if status.phase != facts.status.phase {
                let warning = matches!(status.phase, TrainingPhase::Failed | TrainingPhase::Refused | TrainingPhase::Stopping);
                let (reason, text) = (word(status.phase), told_of(&status));
                let note = Note { kind: "TrainingJob", uid: facts.uid.clone(), warning, reason, action: "Scheduling", text };
                writes.push(note.about(&key));
            }
            training.writing = true;
            // Until the watch tells what came of it.
            if let Some(facts) = &mut training.facts {
                facts.status = status;
            }
        }
        writes
    }

    /// Why an attempt does not start though its pods are there.
    fn stuck(&self, key: &PodKey, now: At) -> Option<Barred> {
        let run = self.trainings.get(key)?.run.as_ref().filter(|run| !run.started && !run.stopping)?;
        let said = |pod: &PodKey| Some((pod.name().to_owned(), self.worker_facts(pod)?.1.stuck.clone()?));
        if let Some((pod, why)) = run.workers.keys().find_map(said) {
            return Some(Barred { word: "CannotStart", why: format!("pod {pod} cannot be started: {why}") });
        }
        let waits = self.made_wait(key).filter(|why| !why.is_empty() && now.since(run.since) >= SOON_MS)?;
        Some(Barred { word: "WaitsForDevices", why: waits.to_owned() })
    }

    /// A status was written, or was not: what has changed since is looked at again.
    pub(in super::super) fn status_written(&mut self, job: &PodKey) {
        if let Some(training) = self.trainings.get_mut(job) {
            training.writing = false;
            self.status_due.insert(job.clone());
        }
    }

    /// Why they wait may have changed, without news of them.
    pub(in super::super) fn look_at_waiting_trainings(&mut self) {
        let waits = self.trainings.iter().filter(|(_, training)| training.facts.is_some() && training.told.is_some());
        let keys: Vec<PodKey> = waits.filter(|(_, training)| training.run.is_none()).map(|(key, _)| key.clone()).collect();
        let starting: Vec<PodKey> = self.trainings.keys().filter(|key| self.made_wait(key).is_some()).cloned().collect();
        self.status_due.extend(keys.into_iter().chain(starting));
    }
}

fn word(phase: TrainingPhase) -> &'static str {
    match phase {
        TrainingPhase::Waiting => "Waiting",
        TrainingPhase::Starting => "Starting",
        TrainingPhase::Running => "Running",
        TrainingPhase::Stopping => "Stopping",
        TrainingPhase::Succeeded => "Succeeded",
        TrainingPhase::Failed => "Failed",
        TrainingPhase::Refused => "Refused",
    }
}

/// A sentence on a phase.
fn told_of(status: &TrainingJobStatus) -> String {
    let TrainingJobStatus { attempts, workers, gpus, message, .. } = status;
    if message.is_empty() { format!("attempt {attempts}: {workers} workers on {gpus} GPUs") } else { message.clone() }
}

fn status(training: &Training, facts: &TrainingFacts, engine: &Engine, stuck: Option<Barred>, now: &str) -> TrainingJobStatus {
    let job = engine.state().jobs.get(&name(&facts.key)).filter(|_| training.told.is_some());
    let was = &facts.status;
    let refused = facts.wanted.as_ref().err().or(training.lacks.as_ref());
    let barred = || stuck.or_else(|| explain::barred_job(engine, &name(&facts.key)).filter(|_| job.is_some()));
    let barred = if refused.is_some() { None } else { barred() };
    let (phase, message) = match (job, refused) {
        (Some(job), _) => stands(training, facts, job, engine, barred.as_ref()),
        (None, Some(problem)) => (TrainingPhase::Refused, problem.clone()),
        (None, None) => (was.phase, was.message.clone()),
    };
    let live = training.run.as_ref();
    let gpus = live.zip(job).map_or(0, |(run, job)| {
        let of = |group: u16| job.spec.groups.get(usize::from(group)).map_or(0, |group| group.ask.devices());
        run.workers.values().map(|worker| of(worker.placed.group)).sum()
    });
    let mut status = TrainingJobStatus {
        phase,
        workers: live.map_or(0, |run| u32::try_from(run.workers.len()).unwrap_or(u32::MAX)),
        gpus,
        attempts: job.map_or(was.attempts, |job| job.attempts),
        failures: job.map_or(was.failures, |job| job.failures),
        step: training.steps.0.or(was.step),
        checkpoint_step: training.steps.1.or(was.checkpoint_step),
        message: cut(&message, MAX_MESSAGE).to_owned(),
        observed_generation: facts.generation,
        conditions: Vec::new(),
    };
    // Steps alone are no news: they are told with what else has changed.
    if (TrainingJobStatus {
        step: was.step,
        checkpoint_step: was.checkpoint_step,
        conditions: was.conditions.clone(),
        ..status.clone()
    }) == *was
    {
        return was.clone();
    }
    let of = |kind: &str, holds: bool, reason: &str, message: &str| {
        Condition::new(kind, holds, reason, message, facts.generation, &was.conditions, now)
    };
    let accepted = match (refused, &barred) {
        (Some(problem), _) => of("Accepted", false, "Invalid", problem),
        (None, Some(barred)) => of("Accepted", false, barred.word, &barred.why),
        (None, None) => of("Accepted", true, "Valid", ""),
    };
    let complete = match phase {
        TrainingPhase::Succeeded => of("Complete", true, "Succeeded", ""),
        TrainingPhase::Failed => of("Complete", true, "Failed", &status.message),
        _ => of("Complete", false, "NotYet", ""),
    };
    status.conditions = vec![accepted, complete];
    status
}

/// Where a job stands that the engine knows, and why.
fn stands(
    training: &Training,
    facts: &TrainingFacts,
    job: &Job,
    engine: &Engine,
    barred: Option<&Barred>,
) -> (TrainingPhase, String) {
    let barred = || barred.map(|barred| barred.why.clone());
    match (&job.phase, &training.run) {
        (Phase::Finished(End::Succeeded { .. }), _) => (TrainingPhase::Succeeded, String::new()),
        (Phase::Finished(_), _) => {
            (TrainingPhase::Failed, format!("failed {} times in a row; its last pods are kept for their logs", job.failures))
        }
        (_, Some(run)) if run.stopping => {
            let why = job.run().and_then(|run| run.stop.as_ref()).map(|stop| stop.reason.to_string());
            (TrainingPhase::Stopping, why.or_else(|| run.problems.first().cloned()).unwrap_or_default())
        }
        (_, Some(run)) if run.started => (TrainingPhase::Running, String::new()),
        (_, Some(_)) => (TrainingPhase::Starting, barred().unwrap_or_default()),
        (_, None) => (TrainingPhase::Waiting, barred().unwrap_or_else(|| explain::waiting(engine, &name(&facts.key)))),
    }
}
