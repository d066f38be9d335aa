//! Taking a device from running work: whom, and whether it may be taken at all.
//!
//! *Whether*: from another queue only what it uses above its nominal, tested on the value after the
//! removal, and only up to the claimant's own nominal. Inside a queue a higher priority takes from a
//! lower one; an equal one may make an elastic job smaller, never end it.
//!
//! *Whom*: work that is ending anyway, then elastic jobs above their minimum, then whole jobs, then
//! replicas; among equals the least lost work, the lower priority, the younger.

use crate::holdings::{Holder, Holdings};
use crate::names::{DeviceId, JobName, QueueName, ReplicaId};
use crate::plan::{Claimant, Reason};
use crate::state::{Ask, Job, Phase};
use crate::time::At;

use super::decide::Round;

/// What someone is owed.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub by: Claimant,
    pub queue: QueueName,
    pub priority: i32,
    pub ask: Ask,
    /// Thousandths of a device.
    pub milli: u64,
}

/// What a victim would give.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Give {
    /// A job keeps these devices; empty: it ends.
    Job {
        name: JobName,
        keep: Vec<DeviceId>,
    },
    Replica(ReplicaId),
}

/// Order of victims, cheapest first: tier, lost work, priority, youth, and the name for determinism.
type Rank = (u8, u64, i32, std::cmp::Reverse<At>, Give);

const ENDING: u8 = 0;
const SHRINK: u8 = 1;
const EVICT: u8 = 2;
const REPLICA: u8 = 3;

impl Round<'_> {
    /// Makes room for one `ask`, or changes nothing. True when there is room now (after some stops).
    pub fn reclaim(&mut self, request: &Request) -> bool {
        let mut ranks: Vec<Rank> = self.jobs_that_may_give(request);
        ranks.extend(self.replicas_that_may_give(request));
        let Some((tier, lost_ms, _, _, give)) = ranks.into_iter().min() else { return false };
        let cap = self.state.policy.max_evictions_per_minute as usize;
        if tier != ENDING && self.state.evictions.len() >= cap {
            self.state.eviction_cap_reached = true;
            return false;
        }
        if tier != ENDING {
            self.state.evictions.push(self.state.now);
        }
        match give {
            Give::Job { name, keep } => self.take_from_job(request, &name, keep, lost_ms),
            Give::Replica(id) => {
                let reason = reason(request, 1, 0, lost_ms, &self.queue_of_replica(&id));
                self.stop_replica(&id, reason);
            }
        }
        true
    }

    fn take_from_job(&mut self, request: &Request, name: &JobName, keep: Vec<DeviceId>, lost_ms: u64) {
        let Some(job) = self.state.jobs.get_mut(name) else { return };
        let queue = job.spec.queue.clone();
        match &mut job.phase {
            Phase::Waiting { keep: reserved, .. } => {
                *reserved = keep;
                self.holdings = Holdings::of(self.state);
            }
            Phase::Running(run) => {
                let from = u32::try_from(run.kept().len()).unwrap_or(u32::MAX);
                let to = u32::try_from(keep.len()).unwrap_or(u32::MAX);
                let reason = reason(request, from, to, lost_ms, &queue);
                self.stop_job(name, keep, reason);
            }
            Phase::Finished(_) => {}
        }
    }

    fn queue_of_replica(&self, id: &ReplicaId) -> QueueName {
        let model = self.state.replicas.get(id).and_then(|replica| self.state.models.get(&replica.model));
        model.map_or_else(|| QueueName::from(""), |model| model.spec.queue.clone())
    }

    /// Whether quota and priority let the claimant take `milli` thousandths from `victim`'s queue.
    fn may_take(&self, request: &Request, victim: &QueueName, priority: i32, milli: u64, shrink_only: bool) -> bool {
        if *victim == request.queue {
            return request.priority > priority || (shrink_only && request.priority == priority);
        }
        let nominal = |queue: &QueueName| self.state.queues.get(queue).map_or(0, |queue| u64::from(queue.nominal) * 1000);
        let owed = self.holdings.queue_milli(&request.queue) + request.milli <= nominal(&request.queue);
        owed && self.holdings.queue_milli(victim) >= nominal(victim) + milli
    }

    fn jobs_that_may_give(&self, request: &Request) -> Vec<Rank> {
        let jobs = self.state.jobs.iter();
        jobs.filter(|(name, _)| request.by != Claimant::Job((*name).clone()))
            .filter_map(|(name, job)| self.job_rank(request, name, job))
            .collect()
    }

    fn job_rank(&self, request: &Request, name: &JobName, job: &Job) -> Option<Rank> {
        let (kept, ending) = match &job.phase {
            Phase::Waiting { keep, .. } => (keep.as_slice(), true),
            Phase::Running(run) => (run.kept(), run.stop.is_some()),
            Phase::Finished(_) => return None,
        };
        let (keep, freed) = self.keep_without_one(request, name, kept)?;
        let shrink = keep.len() >= job.spec.min as usize;
        let keep = if shrink { keep } else { Vec::new() };
        let given = if shrink { vec![freed] } else { kept.to_vec() };
        let milli = given.iter().filter_map(|id| self.state.devices.get(id)).map(|device| job.spec.ask.milli_on(device)).sum();
        if !self.may_take(request, &job.spec.queue, job.spec.priority, milli, shrink) {
            return None;
        }
        let tier = match (ending, shrink) {
            (true, _) => ENDING,
            (false, true) => SHRINK,
            (false, false) => EVICT,
        };
        let lost_ms = if ending { 0 } else { job.lost_work_ms(self.state.now) };
        let give = Give::Job { name: name.clone(), keep };
        Some((tier, lost_ms, job.spec.priority, std::cmp::Reverse(job.submitted), give))
    }

    /// What the job keeps if it gives up the one worker whose device then has room for the ask; the last such worker.
    fn keep_without_one(&self, request: &Request, name: &JobName, kept: &[DeviceId]) -> Option<(Vec<DeviceId>, DeviceId)> {
        let holder = Holder::Job(name.clone());
        (0..kept.len()).rev().find_map(|index| {
            let device = kept.get(index)?;
            let mut trial = self.holdings.clone();
            trial.release(device, &holder, crate::plan::ActionId(0));
            let rest: Vec<DeviceId> = kept.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, id)| id.clone()).collect();
            trial.has_room(self.state, device, &request.ask).then(|| (rest, device.clone()))
        })
    }

    fn replicas_that_may_give(&self, request: &Request) -> Vec<Rank> {
        let replicas = self.state.replicas.iter().filter(|(_, replica)| replica.stop.is_none());
        replicas
            .filter_map(|(id, replica)| {
                let model = self.state.models.get(&replica.model)?;
                let own = request.by == Claimant::Model(replica.model.clone());
                let device = self.state.devices.get(&replica.device)?;
                let milli = model.spec.ask.milli_on(device);
                let mut trial = self.holdings.clone();
                let holder = Holder::Replica(replica.model.clone(), id.clone());
                trial.release(&replica.device, &holder, crate::plan::ActionId(0));
                let fits = trial.has_room(self.state, &replica.device, &request.ask);
                let may = !own && fits && self.may_take(request, &model.spec.queue, model.spec.priority, milli, false);
                // A drained replica loses no work.
                let rank = (REPLICA, 0, model.spec.priority, std::cmp::Reverse(replica.since), Give::Replica(id.clone()));
                may.then_some(rank)
            })
            .collect()
    }
}

fn reason(request: &Request, from: u32, to: u32, lost_ms: u64, victim: &QueueName) -> Reason {
    let by = request.by.clone();
    if *victim == request.queue { Reason::Preempt { by, from, to, lost_ms } } else { Reason::Reclaim { by, from, to, lost_ms } }
}
