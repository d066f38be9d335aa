//! Attempts of jobs as processes: one unit for each worker, all of them or none.

use std::net::TcpListener;
use std::time::Duration;

use tidegate_api::contract::{self, Progress};
use tidegate_core::names::JobName;
use tidegate_core::plan::Placed;
use tidegate_core::state::Job;
use tidegate_core::{Event, JobExit};

use super::environment::environment;
use super::{ProgressRefusal, World, now_ms};
use crate::devices::Device;
use crate::unit::{Exit, Restart, UnitId, UnitSpec};

/// Most bytes of one worker's output that are kept.
const LOG_BYTES: u64 = 8 << 20;
/// What the other workers of a failed gang get to end by themselves: they notice a dead peer sooner.
const PEER_GRACE: Duration = Duration::from_secs(3);
/// Ended attempts whose logs are kept.
const KEPT_ATTEMPTS: u32 = 3;

/// The processes of one attempt.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub number: u32,
    pub ranks: Vec<Rank>,
    pub token: String,
    /// When it was told to end.
    pub stop_since_ms: Option<u64>,
    /// The engine was told that all workers run.
    pub told_started: bool,
}

/// One worker.
#[derive(Clone, Debug)]
pub(super) struct Rank {
    pub unit: UnitId,
    pub started: bool,
    pub exit: Option<Exit>,
}

/// Name of a worker's unit.
pub(super) fn unit_id(job: &JobName, attempt: u32, rank: usize) -> Result<UnitId, String> {
    UnitId::new(format!("job.{job}.a{attempt}.r{rank}")).map_err(|e| e.to_string())
}

impl World {
    /// Starts every worker of an attempt; those that run already (after a restart of the world) are left alone.
    pub(super) fn start_attempt(
        &mut self,
        job: &JobName,
        number: u32,
        workers: &[Placed],
        choice: Option<u32>,
    ) -> Result<(), String> {
        let token = format!("{:032x}", rand::random::<u128>());
        let checkpoints = self.places.data.join("checkpoints").join(job.as_str());
        std::fs::create_dir_all(&checkpoints).map_err(|e| format!("make {}: {e}", checkpoints.display()))?;
        let port = free_port().map_err(|e| format!("no free port for MASTER_PORT: {e}"))?;
        let progress_url = format!("{}/progress/{job}/{number}?token={token}", self.places.url);
        let gang = contract::Attempt {
            job: &job.0,
            number,
            workers,
            groups: self.engine.state().jobs.get(job).map(|job| job.spec.groups.as_slice()).unwrap_or_default(),
            choice,
            master: ("127.0.0.1", port),
            checkpoints: checkpoints.to_str(),
            progress_url: Some(&progress_url),
        };
        let mut attempt = Attempt { number, ranks: Vec::new(), token, stop_since_ms: None, told_started: false };
        let mut failure = None;
        for rank in 0..workers.len() {
            let spec = self.worker(job, &gang, &attempt.token, rank)?;
            let unit = spec.id.clone();
            match self.units.start(&spec, None) {
                Ok(()) => attempt.ranks.push(Rank { unit, started: false, exit: None }),
                Err(e) => {
                    failure = Some(e.to_string());
                    break;
                }
            }
        }
        if let Some(failure) = failure {
            for rank in &attempt.ranks {
                self.end_unit(&rank.unit, Duration::ZERO);
            }
            return Err(failure);
        }
        self.attempts.insert(job.clone(), attempt);
        Ok(())
    }

    /// The devices of a place, in their order. A place without devices is for work on CPU alone.
    pub(super) fn devices_at(&self, place: &Placed) -> Result<Vec<&Device>, String> {
        let device =
            |id: &tidegate_core::names::DeviceId| self.devices.get(id.as_str()).ok_or_else(|| format!("its device {id} is gone"));
        place.devices.iter().map(device).collect()
    }

    fn worker(&self, job: &JobName, gang: &contract::Attempt, token: &str, rank: usize) -> Result<UnitSpec, String> {
        let spec = self.objects.job(&job.0).ok_or("its object is gone")?;
        let place = gang.workers.get(rank).ok_or("it has no such worker")?;
        let (devices, attempt) = (self.devices_at(place)?, gang.number);
        let labels =
            [("job", job.to_string()), ("attempt", attempt.to_string()), ("rank", rank.to_string()), ("token", token.to_owned())];
        Ok(UnitSpec {
            id: unit_id(job, attempt, rank)?,
            command: spec.template.command.clone(),
            env: environment(gang, rank, &devices, &spec.template.env),
            working_dir: spec.template.working_dir.clone().unwrap_or_default().into(),
            log_max_bytes: LOG_BYTES,
            restart: Restart::Never,
            listen_fd: false,
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        })
    }

    /// Tells every worker of the attempt to checkpoint and end; whether the attempt is there.
    pub(super) fn stop_attempt(&mut self, job: &JobName, number: u32) -> bool {
        let grace = Duration::from_secs(self.objects.job(&job.0).map_or(0, |spec| u64::from(spec.checkpoint.grace_seconds)));
        let Some(attempt) = self.attempts.get_mut(job).filter(|attempt| attempt.number == number) else { return false };
        attempt.stop_since_ms.get_or_insert_with(now_ms);
        let units: Vec<UnitId> = attempt.ranks.iter().filter(|rank| rank.exit.is_none()).map(|rank| rank.unit.clone()).collect();
        for unit in units {
            self.end_unit(&unit, grace);
        }
        true
    }

    /// Asks a unit to end; one that is not there has ended.
    pub(super) fn end_unit(&self, unit: &UnitId, grace: Duration) {
        if let Err(e) = self.units.stop(unit, grace) {
            tracing::warn!(%unit, error = %e, "a unit cannot be told to end");
        }
    }

    /// A worker's command has been started.
    pub(super) fn worker_started(&mut self, job: &JobName, unit: &UnitId) {
        let Some(attempt) = self.attempts.get_mut(job) else { return };
        if let Some(rank) = attempt.ranks.iter_mut().find(|rank| rank.unit == *unit) {
            rank.started = true;
        }
        if !attempt.told_started && attempt.ranks.iter().all(|rank| rank.started) {
            attempt.told_started = true;
            let number = attempt.number;
            self.tell(Event::JobStarted { name: job.clone(), attempt: number });
        }
    }

    /// A worker has ended: the gang lives or dies with it.
    pub(super) fn worker_exited(&mut self, job: &JobName, unit: &UnitId, exit: Exit) {
        let Some(attempt) = self.attempts.get_mut(job) else { return };
        let Some(rank) = attempt.ranks.iter_mut().find(|rank| rank.unit == *unit) else { return };
        let failed = exit.code != Some(0);
        let (code, signal, requested) = (exit.code, exit.signal, exit.requested);
        tracing::info!(job = %job, %unit, ?code, ?signal, requested, "worker ended");
        rank.exit = Some(exit);
        let others: Vec<UnitId> = attempt.ranks.iter().filter(|rank| rank.exit.is_none()).map(|rank| rank.unit.clone()).collect();
        if others.is_empty() {
            self.attempt_ended(job);
        } else if failed && attempt.stop_since_ms.is_none() {
            for unit in others {
                self.end_unit(&unit, PEER_GRACE);
            }
        }
    }

    fn attempt_ended(&mut self, job: &JobName) {
        let Some(attempt) = self.attempts.remove(job) else { return };
        let exits: Vec<&Exit> = attempt.ranks.iter().filter_map(|rank| rank.exit.as_ref()).collect();
        let exit = if attempt.stop_since_ms.is_some() {
            JobExit::Stopped
        } else if exits.iter().all(|exit| exit.code == Some(0)) {
            JobExit::Succeeded
        } else {
            JobExit::Failed
        };
        self.figures.attempt_ended(job, self.engine.state(), exit, now_ms());
        self.metrics.attempt_ended(exit);
        self.tell(Event::JobExited { name: job.clone(), attempt: attempt.number, exit });
        if self.objects.job(&job.0).is_some() {
            self.forget_attempts(job, attempt.number.saturating_sub(KEPT_ATTEMPTS));
        } else {
            self.retire_job(job);
        }
    }

    /// Clears away what a deleted job left. Its checkpoints are kept under another name: a job that is applied again
    /// under this name begins anew.
    pub(super) fn retire_job(&mut self, job: &JobName) {
        self.forget_attempts(job, u32::MAX);
        self.job_metrics.remove(job);
        let folder = self.places.data.join("checkpoints");
        let kept = folder.join(format!("{job}.deleted-{}", now_ms()));
        match std::fs::rename(folder.join(job.as_str()), &kept) {
            Ok(()) => tracing::info!(job = %job, kept = %kept.display(), "checkpoints of a deleted job are kept"),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!(job = %job, error = %e, "checkpoints of a deleted job cannot be put aside"),
        }
    }

    /// Forgets the folders of a job's ended attempts up to number `last`.
    fn forget_attempts(&self, job: &JobName, last: u32) {
        let old = |status: &crate::units::UnitStatus| {
            let label = |key: &str| status.spec.labels.get(key).cloned().unwrap_or_default();
            label("job") == job.as_str() && label("attempt").parse::<u32>().is_ok_and(|number| number <= last)
        };
        for status in self.units.all().into_iter().filter(old) {
            if let Err(e) = self.units.forget(&status.spec.id) {
                tracing::debug!(unit = %status.spec.id, error = %e, "an old attempt stays");
            }
        }
    }

    /// Takes in posted progress; which of its settings is best for the job now, if it offers a choice.
    pub(super) fn progress(
        &mut self,
        job: &str,
        number: u32,
        token: &str,
        lines: &[Progress],
    ) -> Result<Option<u32>, ProgressRefusal> {
        let name = JobName::from(job);
        let known = self.engine.state().jobs.contains_key(&name);
        let attempt = self.attempts.get(&name);
        match attempt {
            Some(attempt) if attempt.number == number && attempt.token == token => {}
            Some(attempt) if attempt.number == number => return Err(ProgressRefusal::Token),
            Some(_) => return Err(ProgressRefusal::Stale),
            None if known => return Err(ProgressRefusal::Stale),
            None => return Err(ProgressRefusal::Unknown),
        }
        for line in lines {
            let checkpoint = line.checkpoint.as_ref().map(|checkpoint| checkpoint.step);
            if checkpoint.is_some() {
                self.figures.checkpoint(&name);
            }
            self.job_metrics.entry(name.clone()).or_default().extend(line.metrics.clone());
            let (name, done_ppm) = (name.clone(), line.done_ppm());
            self.tell(Event::JobProgress { name, attempt: number, step: line.step, checkpoint, done_ppm });
        }
        Ok(self.engine.state().jobs.get(&name).and_then(best_choice))
    }

    /// The unit of a worker of the job's last attempt.
    pub fn worker_unit(&self, job: &str, rank: usize) -> Option<UnitId> {
        let name = JobName::from(job);
        let last = self.engine.state().jobs.get(&name)?.attempts;
        (1..=last).rev().filter_map(|attempt| unit_id(&name, attempt, rank).ok()).find(|unit| self.units.status(unit).is_some())
    }
}

/// What the curve of a running job says of its present size: it may have been told anew since the start.
fn best_choice(job: &Job) -> Option<u32> {
    let workers = job.run()?.seats.len();
    job.spec.choice(u32::try_from(workers).unwrap_or(u32::MAX))
}

/// A port that was free a moment ago. Rank 0 listens on it; should somebody else take it in between, the attempt fails
/// and the next one gets another.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
