//! Carrying out: actions become units that start and end, and outcomes become events.

use tidegate_api::view;
use tidegate_core::names::{JobName, ModelName, ReplicaId};
use tidegate_core::plan::{Action, ActionId, ActionKind, Placed};
use tidegate_core::{Event, JobExit, Outcome};

use super::World;
use crate::unit::Exit;
use crate::units::UnitEvent;

/// An action as people read it.
pub(super) fn decision(action: &Action, at_ms: u64) -> view::Decision {
    let detail = match &action.kind {
        ActionKind::StartJob { attempt, workers, choice, .. } => {
            let on: Vec<String> = workers.iter().map(place).collect();
            let choice = choice.map(|choice| format!(", choice {choice}")).unwrap_or_default();
            format!("attempt {attempt} with {} worker(s) on {}{choice}", workers.len(), on.join(", "))
        }
        ActionKind::StopJob { attempt, resume_with, .. } => format!("attempt {attempt}, to go on with {resume_with} worker(s)"),
        ActionKind::StartReplica { replica, place: at, .. } => format!("{replica} on {}", place(at)),
        ActionKind::StopReplica { replica, .. } => replica.to_string(),
    };
    view::Decision {
        at_ms,
        action: action.kind.word().to_owned(),
        subject: action.kind.subject(),
        detail,
        reason: action.reason.to_string(),
        category: action.reason.category().to_owned(),
    }
}

/// Where a worker runs: its devices, or the node if it has none.
fn place(at: &Placed) -> String {
    let devices: Vec<&str> = at.devices.iter().map(tidegate_core::names::DeviceId::as_str).collect();
    if devices.is_empty() { format!("CPU of {}", at.node) } else { devices.join("+") }
}

impl World {
    /// Carries out every action that waits for nothing any more; whether there was one.
    pub(super) fn carry_out(&mut self) -> bool {
        let mut any = false;
        while let Some(action) = self.take_ready() {
            any = true;
            self.perform(&action);
        }
        any
    }

    fn take_ready(&mut self) -> Option<Action> {
        let open = &self.engine.state().actions;
        let at = self.waiting.iter().position(|action| action.after.iter().all(|id| !open.contains_key(id)))?;
        Some(self.waiting.remove(at))
    }

    fn perform(&mut self, action: &Action) {
        match &action.kind {
            ActionKind::StartJob { job, attempt, workers, choice } => {
                self.perform_start_job(action.id, job, *attempt, workers, *choice);
            }
            ActionKind::StopJob { job, attempt, .. } => self.perform_stop_job(action.id, job, *attempt),
            ActionKind::StartReplica { model, replica, place } => self.perform_start_replica(action.id, model, replica, place),
            ActionKind::StopReplica { replica, .. } => self.perform_stop_replica(action.id, replica),
        }
    }

    fn close(&mut self, id: ActionId, outcome: Outcome) {
        self.tell(Event::Outcome { id, outcome });
    }

    fn perform_start_job(&mut self, id: ActionId, job: &JobName, attempt: u32, workers: &[Placed], choice: Option<u32>) {
        let run = self.engine.state().jobs.get(job).and_then(|job| job.run());
        if run.is_none_or(|run| run.attempt != attempt) {
            return self.close(id, Outcome::Dropped);
        }
        if self.attempts.get(job).is_some_and(|running| running.number == attempt) {
            return self.close(id, Outcome::Done);
        }
        let outcome = match self.start_attempt(job, attempt, workers, choice) {
            Ok(()) => Outcome::Done,
            Err(reason) => {
                tracing::error!(job = %job, attempt, reason, "the job cannot be started");
                Outcome::Failed(reason)
            }
        };
        self.close(id, outcome);
    }

    fn perform_stop_job(&mut self, id: ActionId, job: &JobName, attempt: u32) {
        let starts =
            |kind: &ActionKind| matches!(kind, ActionKind::StartJob { job: of, attempt: at, .. } if of == job && *at == attempt);
        if let Some(at) = self.waiting.iter().position(|action| starts(&action.kind)) {
            // It waited for its devices and never ran.
            let start = self.waiting.remove(at);
            self.close(start.id, Outcome::Dropped);
            self.close(id, Outcome::Done);
        } else if !self.stop_attempt(job, attempt) {
            self.tell(Event::JobExited { name: job.clone(), attempt, exit: JobExit::Stopped });
            self.close(id, Outcome::Done);
        }
        // Else the attempt's end closes it.
    }

    fn perform_start_replica(&mut self, id: ActionId, model: &ModelName, replica: &ReplicaId, place: &Placed) {
        if !self.engine.state().replicas.contains_key(replica) {
            return self.close(id, Outcome::Dropped);
        }
        let outcome = match self.start_server(model, replica, place) {
            Ok(()) => Outcome::Done,
            Err(reason) => {
                tracing::error!(model = %model, replica = %replica, reason, "the replica cannot be started");
                Outcome::Failed(reason)
            }
        };
        self.close(id, outcome);
    }

    fn perform_stop_replica(&mut self, id: ActionId, replica: &ReplicaId) {
        let starts = |kind: &ActionKind| matches!(kind, ActionKind::StartReplica { replica: of, .. } if of == replica);
        if let Some(at) = self.waiting.iter().position(|action| starts(&action.kind)) {
            let start = self.waiting.remove(at);
            self.close(start.id, Outcome::Dropped);
            self.close(id, Outcome::Done);
        } else if !self.drain_server(replica) {
            self.tell(Event::ReplicaExited { id: replica.clone(), failed: false });
            self.close(id, Outcome::Done);
        }
    }

    /// A unit started or ended.
    pub(super) fn unit(&mut self, event: UnitEvent) {
        match event {
            UnitEvent::Started { id, restarts, .. } => {
                if let Some(job) = self.job_of(&id) {
                    self.worker_started(&job, &id);
                } else if id.as_str() == super::router::UNIT && restarts > 0 {
                    tracing::warn!(restarts, "the router ended and was started again");
                    self.metrics.router_restarted();
                }
            }
            UnitEvent::Exited { id, exit } => self.unit_exited(&id, exit),
        }
    }

    fn unit_exited(&mut self, id: &crate::unit::UnitId, exit: Exit) {
        if let Some(job) = self.job_of(id) {
            self.worker_exited(&job, id, exit);
        } else if let Some(replica) = self.replica_of(id) {
            self.server_exited(&replica, &exit);
        } else if id.as_str() == super::router::UNIT {
            self.router_exited(&exit);
        } else if id.as_str() == crate::agent::UNIT {
            self.agent_exited(&exit);
        }
    }

    fn job_of(&self, unit: &crate::unit::UnitId) -> Option<JobName> {
        let mut attempts = self.attempts.iter();
        attempts.find(|(_, attempt)| attempt.ranks.iter().any(|rank| rank.unit == *unit)).map(|(job, _)| job.clone())
    }
}
