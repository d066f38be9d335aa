//! Facts into state. Nothing here decides.

use crate::demand::Demand;
use crate::event::{Event, JobExit, Outcome};
use crate::holdings::Holdings;
use crate::names::{DeviceId, JobName, ModelName, ReplicaId};
use crate::plan::{ActionId, ActionKind};
use crate::state::{Device, End, Health, Job, JobSpec, Model, ModelSpec, Phase, ReplicaPhase, State};

/// First pause after a failure; it doubles with each more.
const BACKOFF_MS: u64 = 1_000;
/// Longest pause after a failure.
const MAX_BACKOFF_MS: u64 = 60_000;

/// The pause after the n-th failure in a row; the first failure of a replica is retried at once.
fn backoff_ms(failures: u32) -> u64 {
    BACKOFF_MS.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_BACKOFF_MS)
}

/// A decayed average that follows within a few samples.
fn averaged(former: u64, sample: u64) -> u64 {
    (former * 3 + sample) / 4
}

impl State {
    pub(super) fn apply(&mut self, event: Event) {
        self.dirty |= !matches!(event, Event::Demand { .. });
        match event {
            Event::PolicySet(policy) => self.policy = policy,
            Event::DeviceSeen { id, device } => self.device_seen(id, device),
            Event::DeviceLost(id) => self.device_health(&id, |_| Health::Lost),
            Event::DeviceDrained { id, drained } => self.device_health(&id, |was| match (was, drained) {
                (Health::Lost, _) => Health::Lost,
                (_, true) => Health::Draining,
                (_, false) => Health::Ok,
            }),
            Event::QueueSet { name, queue } => drop(self.queues.insert(name, queue)),
            Event::QueueRemoved(name) => drop(self.queues.remove(&name)),
            Event::JobSet { name, spec } => self.job_set(name, spec),
            Event::JobPaused { name, paused } => self.with_job(&name, |job| job.paused = paused),
            Event::JobCancelled(name) => self.with_job(&name, |job| job.cancelled = true),
            Event::JobRemoved(name) => self.with_job(&name, |job| job.removed = true),
            Event::JobStarted { name, attempt } => self.with_attempt(&name, attempt, |job| {
                if let Phase::Running(run) = &mut job.phase {
                    run.observed = true;
                }
            }),
            Event::JobProgress { name, attempt, step, checkpoint } => self.job_progress(&name, attempt, step, checkpoint),
            Event::JobExited { name, attempt, exit } => self.job_exited(&name, attempt, exit),
            Event::ModelSet { name, spec } => self.model_set(name, spec),
            Event::ModelPaused { name, paused } => self.with_model(&name, |model| model.paused = paused),
            Event::ModelRemoved(name) => self.with_model(&name, |model| model.removed = true),
            Event::Demand { model, demand } => self.demand(&model, demand),
            Event::ReplicaReady { id, load_ms } => self.replica_ready(&id, load_ms),
            Event::ReplicaExited { id, failed } => self.replica_exited(&id, failed),
            Event::Outcome { id, outcome } => self.outcome(id, &outcome),
        }
    }

    fn with_job(&mut self, name: &JobName, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.get_mut(name) {
            change(job);
        }
    }

    /// Changes a job if `attempt` is the one that runs: reports of a stale attempt change nothing.
    fn with_attempt(&mut self, name: &JobName, attempt: u32, change: impl FnOnce(&mut Job)) {
        self.with_job(name, |job| {
            if job.run().is_some_and(|run| run.attempt == attempt) {
                change(job);
            }
        });
    }

    fn with_model(&mut self, name: &ModelName, change: impl FnOnce(&mut Model)) {
        if let Some(model) = self.models.get_mut(name) {
            change(model);
        }
    }

    fn device_seen(&mut self, id: DeviceId, device: Device) {
        let known = self.devices.get(&id);
        let health = known.map_or(device.health, |known| if known.health == Health::Lost { Health::Ok } else { known.health });
        let free_since = known.map_or(Some(self.now), |known| known.free_since);
        self.devices.insert(id, Device { health, free_since, ..device });
    }

    fn device_health(&mut self, id: &DeviceId, change: impl FnOnce(Health) -> Health) {
        if let Some(device) = self.devices.get_mut(id) {
            device.health = change(device.health);
        }
    }

    fn job_set(&mut self, name: JobName, spec: JobSpec) {
        match self.jobs.get_mut(&name) {
            Some(job) => job.spec = spec,
            None => drop(self.jobs.insert(name, Job::new(spec, self.now))),
        }
    }

    fn job_progress(&mut self, name: &JobName, attempt: u32, step: u64, checkpoint: Option<u64>) {
        let now = self.now;
        self.with_attempt(name, attempt, |job| {
            job.progress.step = job.progress.step.max(step);
            if let Some(checkpoint) = checkpoint.filter(|step| *step > job.progress.checkpoint_step) {
                job.progress.checkpoint_step = checkpoint;
                job.progress.checkpoint_at = Some(now);
                job.failures = 0;
            }
        });
    }

    fn job_exited(&mut self, name: &JobName, attempt: u32, exit: JobExit) {
        let now = self.now;
        let mut stop_took = None;
        self.with_attempt(name, attempt, |job| {
            let stop = job.run().and_then(|run| run.stop.clone());
            stop_took = stop.as_ref().map(|stop| now.since(stop.since));
            let failed = exit == JobExit::Failed;
            job.failures += u32::from(failed);
            // What the next attempt has not got in a checkpoint, it does again.
            job.progress.step = if exit == JobExit::Succeeded { job.progress.step } else { job.progress.checkpoint_step };
            job.phase = if exit == JobExit::Succeeded {
                Phase::Finished(End::Succeeded { at: now })
            } else if job.failures > job.spec.backoff_limit {
                Phase::Finished(End::Failed { at: now })
            } else {
                let not_before = failed.then(|| now.plus(backoff_ms(job.failures)));
                Phase::Waiting {
                    since: now,
                    not_before,
                    keep: stop.map(|stop| stop.keep).filter(|_| !failed).unwrap_or_default(),
                }
            };
        });
        if let Some(took) = stop_took {
            self.stop_ms = averaged(self.stop_ms, took);
        }
        self.settle(|kind| matches!(kind, ActionKind::StopJob { job, attempt: of, .. } if job == name && *of == attempt));
    }

    fn model_set(&mut self, name: ModelName, spec: ModelSpec) {
        match self.models.get_mut(&name) {
            Some(model) => {
                model.want = model.want.clamp(spec.min, spec.max);
                // A new version has not failed yet.
                if model.spec.generation != spec.generation {
                    model.failures = 0;
                    model.not_before = None;
                }
                model.spec = spec;
                model.removed = false;
            }
            None => drop(self.models.insert(name, Model::new(spec))),
        }
    }

    fn demand(&mut self, name: &ModelName, demand: Demand) {
        let (now, stop_ms) = (self.now, self.stop_ms);
        let of_model = |replica: &&crate::state::Replica| replica.model == *name && replica.stop.is_none();
        let ready = self.replicas.values().filter(of_model).filter(|replica| replica.phase == ReplicaPhase::Ready).count();
        let policy = self.policy.clone();
        let mut changed = false;
        self.with_model(name, |model| {
            let former = (model.want, model.target(now, &policy), model.next_change(now, &policy));
            let lead_ms = model.load_ms + stop_ms;
            model.observe(now, demand, &policy, lead_ms, u32::try_from(ready).unwrap_or(u32::MAX));
            changed = former != (model.want, model.target(now, &policy), model.next_change(now, &policy));
        });
        self.dirty |= changed;
    }

    fn replica_ready(&mut self, id: &ReplicaId, load_ms: u64) {
        let Some(replica) = self.replicas.get_mut(id) else { return };
        if replica.phase == ReplicaPhase::Ready {
            return;
        }
        replica.phase = ReplicaPhase::Ready;
        let name = replica.model.clone();
        self.with_model(&name, |model| {
            model.load_ms = averaged(model.load_ms, load_ms);
            model.failures = 0;
            model.not_before = None;
        });
    }

    fn replica_exited(&mut self, id: &ReplicaId, failed: bool) {
        let Some(replica) = self.replicas.remove(id) else { return };
        let now = self.now;
        if failed {
            self.with_model(&replica.model, |model| {
                model.failures += 1;
                model.not_before = (model.failures > 1).then(|| now.plus(backoff_ms(model.failures - 1)));
            });
        }
        self.settle(|kind| {
            matches!(kind, ActionKind::StartReplica { replica, .. } | ActionKind::StopReplica { replica, .. } if replica == id)
        });
    }

    fn outcome(&mut self, id: ActionId, outcome: &Outcome) {
        let Some(action) = self.actions.remove(&id) else { return };
        if *outcome == Outcome::Done {
            return;
        }
        match action.kind {
            ActionKind::StartJob { job, attempt, .. } => {
                let exit = if matches!(outcome, Outcome::Failed(_)) { JobExit::Failed } else { JobExit::Stopped };
                self.job_exited(&job, attempt, exit);
            }
            ActionKind::StartReplica { replica, .. } => self.replica_exited(&replica, matches!(outcome, Outcome::Failed(_))),
            // A stop that found nothing to stop, or could not: the end of what it names is observed by itself.
            ActionKind::StopJob { .. } | ActionKind::StopReplica { .. } => {}
        }
    }

    /// Forgets actions whose effect was observed.
    fn settle(&mut self, of: impl Fn(&ActionKind) -> bool) {
        self.actions.retain(|_, action| !of(&action.kind));
    }

    /// Keeps, for each device, since when nothing holds it.
    pub(super) fn mark_free(&mut self) {
        let holdings = Holdings::of(self);
        let now = self.now;
        for (id, device) in &mut self.devices {
            let held = !holdings.claims(id).is_empty();
            device.free_since = if held { None } else { Some(device.free_since.unwrap_or(now)) };
        }
    }
}
