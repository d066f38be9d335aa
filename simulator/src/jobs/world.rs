//! The world of jobs: a heap of future events, carried out one moment after another.
//!
//! Promises: no node holds more than it has, no job runs twice, and what a stop costs ([`Costs`]) is charged in full;
//! an order that breaks this ends the run with an error that names policy and job. All that happens in one moment is told
//! to the policy before it decides once. Assumes that orders take no time to carry out; restarts are charged to the job.
//!
//! ```text
//!   submitted ──> waiting ──Start──> restarting ──> working ──> done
//!                    ^───────Stop─────────┴────────────┘         (a stop falls back to the last checkpoint)
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Costs, Held, JobIx, Ms, Order, Policy, Wish, Work};
use crate::Error;

mod state;

use state::{State, whole_ms};

/// A job as the trace has it.
pub struct Job {
    pub submit: Ms,
    pub wish: Wish,
    pub work: Box<dyn Work>,
    /// Whether it reports which part of its work is done (a run with a step goal).
    pub tells_progress: bool,
}

/// What holds for a whole run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// GPUs by node.
    pub nodes: Vec<u32>,
    pub costs: Costs,
    /// Running jobs report that often.
    pub report_every_ms: Ms,
    /// A row of the time series that often.
    pub sample_every_ms: Ms,
}

/// What became of a job.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub first_start: Option<Ms>,
    pub finished: Option<Ms>,
    /// Time in the queue, that after stops counted in.
    pub queued_ms: Ms,
    pub stops: u32,
    pub resizes: u32,
    /// GPU-milliseconds held.
    pub held_gpu_ms: u64,
    /// GPU-milliseconds held for work that was done again, and for restarts.
    pub lost_gpu_ms: u64,
}

/// One moment of the time series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub at_ms: Ms,
    pub busy_gpus: u32,
    pub waiting_jobs: u32,
    pub lent_gpus: u32,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// In the order of the jobs.
    pub records: Vec<Record>,
    pub samples: Vec<Sample>,
    /// How often the policy was asked.
    pub decides: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A working job ends or its rate changes; void when its epoch has passed.
    Turn {
        job: u32,
        epoch: u32,
    },
    Report,
    Sample,
}

/// After so many moments in a row without a running job, a new job or an order, the policy is stuck.
const STUCK_AFTER: u32 = 100_000;

struct Run<'a> {
    setup: &'a Setup,
    jobs: &'a [Job],
    states: Vec<State>,
    free: Vec<u32>,
    running: Vec<u32>,
    heap: BinaryHeap<Reverse<(Ms, Kind)>>,
    next_submit: usize,
    unfinished: usize,
    wake: Option<Ms>,
    out: Outcome,
}

/// Runs `jobs` (by submission, earliest first) under `policy` until the last one is done.
///
/// # Errors
/// When an order over-commits a node, names a job in the wrong state, or jobs are left waiting with nothing to come.
pub fn run(setup: &Setup, jobs: &[Job], policy: &mut dyn Policy) -> Result<Outcome, Error> {
    if let Some(pair) = jobs.windows(2).find(|pair| pair[0].submit > pair[1].submit) {
        return Err(Error::Usage(format!("job {} comes before an earlier one: sort jobs by submission", pair[0].wish.name)));
    }
    let mut run = Run {
        setup,
        jobs,
        states: vec![State::default(); jobs.len()],
        free: setup.nodes.clone(),
        running: Vec::new(),
        heap: BinaryHeap::new(),
        next_submit: 0,
        unfinished: jobs.len(),
        wake: None,
        out: Outcome { records: vec![Record::default(); jobs.len()], ..Outcome::default() },
    };
    run.go(policy)?;
    Ok(run.out)
}

impl Run<'_> {
    fn go(&mut self, policy: &mut dyn Policy) -> Result<(), Error> {
        self.heap.push(Reverse((0, Kind::Sample)));
        self.heap.push(Reverse((self.setup.report_every_ms, Kind::Report)));
        let mut orders = Vec::new();
        let mut idle = 0;
        while self.unfinished > 0 {
            let Some(now) = self.next_moment() else { break };
            let told = self.tell(now, policy);
            orders.clear();
            self.wake = policy.decide(now, &mut orders).map(|at| at.max(now + 1));
            self.out.decides += 1;
            for order in orders.drain(..) {
                self.carry_out(now, policy.name(), order)?;
            }
            idle = if told || !self.running.is_empty() { 0 } else { idle + 1 };
            if idle > STUCK_AFTER {
                return Err(self.stuck(now, policy.name()));
            }
        }
        Ok(())
    }

    fn next_moment(&self) -> Option<Ms> {
        let submit = self.jobs.get(self.next_submit).map(|job| job.submit);
        let event = self.heap.peek().map(|Reverse((at, _))| *at);
        [submit, event, self.wake].into_iter().flatten().min()
    }

    /// Tells the policy all of this moment; whether a job came or ended.
    fn tell(&mut self, now: Ms, policy: &mut dyn Policy) -> bool {
        let mut news = false;
        while let Some(&Reverse((at, kind))) = self.heap.peek().filter(|Reverse((at, _))| *at <= now) {
            self.heap.pop();
            match kind {
                Kind::Turn { job, epoch } => news |= self.turn(at, job, epoch, policy),
                Kind::Report => self.report(at, policy),
                Kind::Sample => self.sample(at, policy.lent()),
            }
        }
        while let Some(job) = self.jobs.get(self.next_submit).filter(|job| job.submit <= now) {
            let ix = u32::try_from(self.next_submit).unwrap_or(u32::MAX);
            self.states[self.next_submit].wait(now);
            policy.submitted(now, JobIx(ix), &job.wish);
            self.next_submit += 1;
            news = true;
        }
        news
    }

    fn turn(&mut self, now: Ms, job: u32, epoch: u32, policy: &mut dyn Policy) -> bool {
        let ix = job as usize;
        if self.states[ix].epoch != epoch || self.states[ix].held.is_none() {
            return false;
        }
        self.states[ix].advance(now, self.setup.costs.checkpoint_every_ms);
        if !self.states[ix].is_done(self.jobs[ix].work.as_ref()) {
            self.aim(now, ix);
            return false;
        }
        self.release(now, ix);
        self.out.records[ix].finished = Some(now);
        self.unfinished -= 1;
        policy.finished(now, JobIx(job));
        true
    }

    fn report(&mut self, now: Ms, policy: &mut dyn Policy) {
        for at in 0..self.running.len() {
            let job = self.running[at];
            let state = &mut self.states[job as usize];
            state.advance(now, self.setup.costs.checkpoint_every_ms);
            let source = &self.jobs[job as usize];
            let done = source.tells_progress.then(|| state.done_ppm(source.work.as_ref()));
            policy.progressed(now, JobIx(job), done, state.checkpoint_at);
        }
        self.heap.push(Reverse((now + self.setup.report_every_ms, Kind::Report)));
    }

    fn sample(&mut self, now: Ms, lent: u32) {
        let free: u32 = self.free.iter().sum();
        let arrived = self.next_submit;
        let done = self.jobs.len() - self.unfinished;
        let waiting = arrived.saturating_sub(done).saturating_sub(self.running.len());
        self.out.samples.push(Sample {
            at_ms: now,
            busy_gpus: self.setup.nodes.iter().sum::<u32>() - free,
            waiting_jobs: u32::try_from(waiting).unwrap_or(u32::MAX),
            lent_gpus: lent,
        });
        self.heap.push(Reverse((now + self.setup.sample_every_ms, Kind::Sample)));
    }

    fn carry_out(&mut self, now: Ms, policy: &'static str, order: Order) -> Result<(), Error> {
        let (Order::Start { job, .. } | Order::Stop { job } | Order::Resize { job, .. }) = order;
        let ix = job.0 as usize;
        let result = match (order, self.states.get(ix).map(|state| (state.is_waiting(), state.held.is_some()))) {
            (Order::Start { held, .. }, Some((true, false))) => self.start(now, ix, held),
            (Order::Stop { .. }, Some((_, true))) => {
                self.stop(now, ix);
                Ok(())
            }
            (Order::Resize { held, .. }, Some((_, true))) => {
                self.release(now, ix);
                self.out.records[ix].resizes += 1;
                self.start(now, ix, held)
            }
            (_, None) => Err("there is no such job".to_owned()),
            (order, _) => Err(format!("{order:?} does not fit what the job does")),
        };
        result.map_err(|what| self.fault(now, policy, ix, what))
    }

    fn start(&mut self, now: Ms, ix: usize, held: Held) -> Result<(), String> {
        let (wish, gpus) = (&self.jobs[ix].wish, held.gpus());
        if gpus < wish.min_gpus.max(1) || gpus > wish.max_gpus {
            return Err(format!("{gpus} GPUs, it takes {} to {}", wish.min_gpus, wish.max_gpus));
        }
        for &(node, count) in &held.nodes {
            let free = self.free.get_mut(node as usize).ok_or_else(|| format!("there is no node {node}"))?;
            *free = free.checked_sub(count).ok_or_else(|| format!("node {node} has {free} free GPUs, {count} were ordered"))?;
        }
        let state = &mut self.states[ix];
        self.out.records[ix].queued_ms += state.stop_waiting(now);
        let restart = if self.out.records[ix].first_start.is_some() { self.setup.costs.restart_ms } else { 0 };
        self.out.records[ix].first_start.get_or_insert(now);
        self.out.records[ix].lost_gpu_ms += restart * u64::from(gpus);
        state.start(now, restart, held);
        self.running.push(u32::try_from(ix).unwrap_or(u32::MAX));
        self.aim(now, ix);
        Ok(())
    }

    fn stop(&mut self, now: Ms, ix: usize) {
        let state = &mut self.states[ix];
        state.advance(now, self.setup.costs.checkpoint_every_ms);
        let gpus = u64::from(state.held.as_ref().map_or(0, Held::gpus));
        let lost = state.fall_back(now, self.setup.costs.checkpoint_every_ms);
        self.release(now, ix);
        self.states[ix].wait(now);
        self.out.records[ix].stops += 1;
        self.out.records[ix].lost_gpu_ms += lost * gpus;
    }

    /// Takes the job off its nodes.
    fn release(&mut self, now: Ms, ix: usize) {
        let state = &mut self.states[ix];
        state.advance(now, self.setup.costs.checkpoint_every_ms);
        state.epoch += 1;
        let Some(held) = state.held.take() else { return };
        let record = &mut self.out.records[ix];
        record.held_gpu_ms += (now - state.started) * u64::from(held.gpus());
        record.lost_gpu_ms -= state.restart_left(now) * u64::from(held.gpus());
        for (node, count) in held.nodes {
            self.free[node as usize] += count;
        }
        self.running.retain(|&job| job as usize != ix);
    }

    /// Plans the next moment at which the job ends or changes its rate.
    fn aim(&mut self, now: Ms, ix: usize) {
        let work = self.jobs[ix].work.as_ref();
        let state = &mut self.states[ix];
        let Some(held) = &state.held else { return };
        state.rate = work.rate(held, state.done).max(0.0);
        state.epoch += 1;
        if state.rate <= 0.0 {
            return;
        }
        let goal = work.next_change(state.done).unwrap_or(f64::INFINITY).min(work.total());
        let at = state.counted_to.max(now) + whole_ms((goal - state.done) / state.rate * 1000.0).max(1);
        let job = u32::try_from(ix).unwrap_or(u32::MAX);
        self.heap.push(Reverse((at, Kind::Turn { job, epoch: state.epoch })));
    }

    fn fault(&self, at_ms: Ms, policy: &'static str, ix: usize, what: String) -> Error {
        let job = self.jobs.get(ix).map_or_else(|| format!("#{ix}"), |job| job.wish.name.clone());
        Error::Policy { policy, job, at_ms, what }
    }

    fn stuck(&self, now: Ms, policy: &'static str) -> Error {
        let ix = self.states.iter().position(State::is_waiting).unwrap_or(0);
        self.fault(now, policy, ix, "waits for ever: nothing runs, nothing is to come and the policy orders nothing".to_owned())
    }
}

#[cfg(test)]
mod tests;
