//! What a live system knows of each job: the wish, whether it waits or runs, how long it has run, and its last checkpoint.
//!
//! Every policy keeps one, tells it all that it is told and all that it orders; nothing here knows how long a job will run.

use std::collections::HashMap;

use super::floor::Floor;
use super::history::Group;
use crate::jobs::{Held, JobIx, Ms, Order, Wish};

/// A job as seen from outside.
#[derive(Clone, Debug)]
pub struct Entry {
    pub gpus: u32,
    /// Index of its queue, in the order of first submission.
    pub queue: u32,
    pub preemptible: bool,
    /// What its run time is looked up by.
    pub group: Group,
    pub held: Option<Held>,
    pub started: Ms,
    /// Time run before `started` and kept at the stop.
    pub kept_ms: Ms,
    /// As last reported; the start before the first report.
    pub checkpoint_at: Ms,
}

impl Entry {
    /// Time run so far, work lost at stops left out.
    pub fn ran_ms(&self, now: Ms) -> Ms {
        self.kept_ms + if self.held.is_some() { now - self.started } else { 0 }
    }
}

/// All jobs, the floor they stand on, and who runs.
#[derive(Clone, Debug)]
pub struct Book {
    pub jobs: Vec<Entry>,
    pub running: Vec<JobIx>,
    pub floor: Floor,
    queues: HashMap<String, u32>,
    owners: HashMap<(String, String), u32>,
}

impl Book {
    /// Nobody, on `floor`.
    pub fn new(floor: Floor) -> Self {
        Self { jobs: Vec::new(), running: Vec::new(), floor, queues: HashMap::new(), owners: HashMap::new() }
    }

    /// The job; jobs are numbered by submission, so every index that was handed out is there.
    pub fn job(&self, job: JobIx) -> &Entry {
        &self.jobs[job.0 as usize]
    }

    fn job_mut(&mut self, job: JobIx) -> &mut Entry {
        &mut self.jobs[job.0 as usize]
    }

    /// A job came.
    pub fn submitted(&mut self, now: Ms, wish: &Wish) {
        let next = u32::try_from(self.queues.len()).unwrap_or(u32::MAX);
        let queue = *self.queues.entry(wish.queue.clone()).or_insert(next);
        let next = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        let owner = *self.owners.entry((wish.owner.clone(), wish.recipe.clone())).or_insert(next);
        self.jobs.push(Entry {
            gpus: wish.gpus,
            queue,
            preemptible: wish.preemptible,
            group: Group { owner, gpus: wish.gpus },
            held: None,
            started: now,
            kept_ms: 0,
            checkpoint_at: now,
        });
    }

    /// A job reported.
    pub fn progressed(&mut self, job: JobIx, checkpoint_at: Option<Ms>) {
        if let Some(at) = checkpoint_at {
            self.job_mut(job).checkpoint_at = at;
        }
    }

    /// A job ended by itself.
    pub fn finished(&mut self, now: Ms, job: JobIx) {
        let entry = self.job_mut(job);
        entry.kept_ms = entry.ran_ms(now);
        self.release(job);
    }

    /// Orders a start and notes it.
    pub fn start(&mut self, now: Ms, job: JobIx, held: Held, orders: &mut Vec<Order>) {
        self.floor.take(&held);
        let entry = self.job_mut(job);
        entry.started = now;
        entry.checkpoint_at = now;
        entry.held = Some(held.clone());
        self.running.push(job);
        orders.push(Order::Start { job, held });
    }

    /// Orders a stop and notes it.
    pub fn stop(&mut self, job: JobIx, orders: &mut Vec<Order>) {
        let entry = self.job_mut(job);
        entry.kept_ms += entry.checkpoint_at.saturating_sub(entry.started);
        self.release(job);
        orders.push(Order::Stop { job });
    }

    fn release(&mut self, job: JobIx) {
        if let Some(held) = self.job_mut(job).held.take() {
            self.floor.give(&held);
        }
        self.running.retain(|&other| other != job);
    }
}
