//! The world: rounds of equal length; between them jobs end and replicas become ready at their own times.
//!
//! Promises: a class is never over-committed (an order that would is an error, not a wish); a policy learns of an end,
//! an arrival and a rate at the next round; requests are judged by [`crate::inference::queueing`] on the replicas that
//! were ready at each moment, so the minutes in which a device is not yet back count against the SLO.

mod running;
mod serving;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::outcome::{ClassUse, Outcome, Sample};
use super::{CapacityPolicy, Costs, GpuClass, Job, Model, Ms, Observed, Order};
use crate::Error;
use crate::inference::Window;
use running::Run;
use serving::Serving;

/// The world's constants.
#[derive(Clone, Debug)]
pub struct Setup {
    pub classes: Vec<GpuClass>,
    pub costs: Costs,
    /// Length of a round in milliseconds.
    pub round_ms: Ms,
    /// Requests and use of GPUs are measured until here; jobs run on until all have ended.
    pub measured_ms: Ms,
    /// How often the state is noted down; 0: never.
    pub sample_every_ms: Ms,
    /// Where a run stops even if jobs are left.
    pub limit_ms: Ms,
}

struct World<'a> {
    setup: &'a Setup,
    runs: Vec<Run>,
    serving: Vec<Serving>,
    /// Ends of running jobs: time, job, version of its holding.
    ends: BinaryHeap<Reverse<(Ms, u32, u32)>>,
    /// GPUs held by jobs, by class.
    held: Vec<u32>,
    /// GPU-milliseconds held by jobs, by class, inside the measured span; of all spans those lent; until when both are summed up.
    held_ms: Vec<f64>,
    lent_ms: f64,
    summed_to: Ms,
    open: usize,
    /// Jobs that wait.
    waiting: u32,
    outcome: Outcome,
}

/// Runs until every job has ended and the measured span is over.
pub fn run(setup: &Setup, jobs: &[Job], models: &[Model], policy: &mut dyn CapacityPolicy) -> Result<Outcome, Error> {
    let mut world = World::new(setup, jobs, models);
    let mut arrivals = jobs.iter().peekable();
    let mut orders = Vec::new();
    let mut ended = Vec::new();
    let mut now = 0;
    while (world.open > 0 || now < setup.measured_ms) && now < setup.limit_ms {
        for (index, model) in models.iter().enumerate() {
            let window = model.demand.at(now.saturating_sub(setup.round_ms) / 1000);
            let late_share = world.serving.get_mut(index).map_or(0.0, Serving::take_late_share);
            policy.observe(now, index, Observed { rate_rps: window.rate_rps, burst: window.burst, late_share });
        }
        while let Some(job) = arrivals.next_if(|job| job.arrives <= now) {
            policy.submitted(now, &job.ask);
            world.waiting += 1;
        }
        policy.decide(now, &mut orders);
        world.carry_out(now, &mut orders)?;
        world.sample(now);
        world.serve(now, now + setup.round_ms, models);
        now += setup.round_ms;
        world.end_jobs(now, &mut ended);
        ended.drain(..).for_each(|job| policy.finished(now, job));
    }
    Ok(world.finish(now))
}

impl<'a> World<'a> {
    fn new(setup: &'a Setup, jobs: &[Job], models: &[Model]) -> Self {
        Self {
            setup,
            runs: jobs.iter().map(Run::new).collect(),
            serving: models.iter().map(|model| Serving::new(&model.spec)).collect(),
            ends: BinaryHeap::new(),
            held: vec![0; setup.classes.len()],
            held_ms: vec![0.0; setup.classes.len()],
            lent_ms: 0.0,
            summed_to: 0,
            open: jobs.len(),
            waiting: 0,
            outcome: Outcome::default(),
        }
    }

    /// What frees GPUs first, then what takes them.
    fn carry_out(&mut self, now: Ms, orders: &mut Vec<Order>) -> Result<(), Error> {
        let mut clean: Vec<u32> = (0..self.held.len()).map(|class| self.free(class).unwrap_or(0)).collect();
        let (frees, takes): (Vec<Order>, Vec<Order>) = orders.drain(..).partition(|order| self.does_free(*order));
        for order in frees.into_iter().chain(takes) {
            self.carry_out_one(now, order, &mut clean)?;
        }
        match (0..self.held.len()).find(|class| self.free(*class).is_none()) {
            Some(class) => Err(Error::Usage(format!("the policy over-committed GPU class {class} at {now} ms"))),
            None => Ok(()),
        }
    }

    fn does_free(&self, order: Order) -> bool {
        match order {
            Order::Stop { .. } => true,
            Order::Resize { job, gpus } => self.runs.get(job as usize).is_some_and(|run| gpus < run.gpus()),
            Order::Serve { model, replicas, .. } => self.serving.get(model).is_some_and(|serving| replicas < serving.replicas()),
            Order::Start { .. } => false,
        }
    }

    fn carry_out_one(&mut self, now: Ms, order: Order, clean: &mut [u32]) -> Result<(), Error> {
        match order {
            Order::Serve { model, replicas, sharers } => {
                let evict_s = self.setup.costs.evict_s;
                let Some(serving) = self.serving.get_mut(model) else { return Err(unknown("model", model)) };
                // GPUs that were free before this round's evictions load at once; others wait for the eviction.
                let fresh = replicas.saturating_sub(serving.replicas()) * serving.gpus_per_replica();
                let rest = clean.get(serving.class()).and_then(|free| free.checked_sub(fresh));
                let is_clean = rest.is_some();
                if let Some(free) = clean.get_mut(serving.class()) {
                    *free = rest.unwrap_or(*free);
                }
                serving.order(now, replicas, sharers, if is_clean { 0.0 } else { evict_s });
                Ok(())
            }
            Order::Start { job, class, gpus } => self.hold(now, job, class, gpus, true),
            Order::Stop { job } => self.hold(now, job, 0, 0, false),
            Order::Resize { job, gpus } => {
                let class = self.runs.get(job as usize).map_or(0, Run::class);
                self.hold(now, job, class, gpus, false)
            }
        }
    }

    /// Changes what a job holds; `gpus` 0 stops it.
    fn hold(&mut self, now: Ms, job: u32, class: usize, gpus: u32, is_start: bool) -> Result<(), Error> {
        self.sum_up(now);
        let speed = self.setup.classes.get(class).map(|class| class.speed);
        let (Some(run), Some(speed)) = (self.runs.get_mut(job as usize), speed) else {
            return Err(unknown("job", job as usize));
        };
        if run.has_ended() || is_start != (run.gpus() == 0) {
            return Err(Error::Usage(format!("the policy's order for job {job} does not fit its state at {now} ms")));
        }
        if let Some(held) = self.held.get_mut(run.class()) {
            *held -= run.gpus();
        }
        self.waiting = self.waiting + u32::from(gpus == 0) - u32::from(is_start);
        self.outcome.lost_gpu_s += run.change(now, class, gpus, speed, &self.setup.costs);
        if let Some(held) = self.held.get_mut(class) {
            *held += gpus;
        }
        if let Some(end) = run.ends_at() {
            self.ends.push(Reverse((end, job, run.version())));
        }
        Ok(())
    }

    /// GPUs of a class that nobody holds; absent when more are held than there are.
    fn free(&self, class: usize) -> Option<u32> {
        let gpus = self.setup.classes.get(class)?.gpus;
        gpus.checked_sub(*self.held.get(class)? + serving::held(&self.serving, class))
    }

    fn serve(&mut self, from: Ms, to: Ms, models: &[Model]) {
        let demand: Vec<Window> = models.iter().map(|model| model.demand.at(from / 1000)).collect();
        let rates: Vec<f64> = demand.iter().map(|demand| demand.rate_rps).collect();
        let others: Vec<f64> = (0..rates.len()).map(|index| serving::load_of_others(&self.serving, &rates, index)).collect();
        for ((serving, demand), others) in self.serving.iter_mut().zip(demand).zip(others) {
            serving.serve(from, to, demand, others, from < self.setup.measured_ms);
        }
    }

    fn end_jobs(&mut self, until: Ms, ended: &mut Vec<u32>) {
        while let Some(Reverse((end, job, version))) = self.ends.peek().copied().filter(|Reverse((end, ..))| *end <= until) {
            self.ends.pop();
            let Some(run) = self.runs.get_mut(job as usize).filter(|run| run.version() == version && !run.has_ended()) else {
                continue;
            };
            let (class, gpus) = (run.class(), run.gpus());
            run.end(end);
            self.sum_up(end);
            if let Some(held) = self.held.get_mut(class) {
                *held -= gpus;
            }
            self.open -= 1;
            ended.push(job);
        }
        self.sum_up(until);
    }

    fn sum_up(&mut self, to: Ms) {
        let until = self.setup.measured_ms;
        let measured = to.min(until).saturating_sub(self.summed_to.min(until)) as f64;
        for (sum, held) in self.held_ms.iter_mut().zip(&self.held) {
            *sum += f64::from(*held) * measured;
        }
        self.lent_ms += f64::from(self.lent()) * to.saturating_sub(self.summed_to) as f64;
        self.summed_to = self.summed_to.max(to);
    }

    /// GPUs that jobs hold beyond those that belong to training.
    fn lent(&self) -> u32 {
        let beyond = |(class, held): (&GpuClass, &u32)| held.saturating_sub(class.gpus.saturating_sub(class.models));
        self.setup.classes.iter().zip(&self.held).map(beyond).sum()
    }

    fn sample(&mut self, now: Ms) {
        if self.setup.sample_every_ms == 0 || !now.is_multiple_of(self.setup.sample_every_ms) {
            return;
        }
        let serving = |class| serving::held(&self.serving, class);
        self.outcome.samples.push(Sample {
            at_ms: now,
            training_gpus: self.held.iter().sum(),
            serving_gpus: (0..self.held.len()).map(serving).sum(),
            waiting_jobs: self.waiting,
            lent_gpus: self.lent(),
        });
    }

    fn finish(mut self, now: Ms) -> Outcome {
        let span = now.min(self.setup.measured_ms) as f64;
        for (index, (class, held_ms)) in self.setup.classes.iter().zip(&self.held_ms).enumerate() {
            let all = f64::from(class.gpus) * span;
            let (busy, held) = self
                .serving
                .iter()
                .filter(|s| s.class() == index)
                .map(Serving::gpu_ms)
                .fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
            self.outcome.classes.push(ClassUse {
                name: class.name.clone(),
                gpus: class.gpus,
                training: held_ms / all.max(1.0),
                inference_busy: busy / all.max(1.0),
                inference_held: held / all.max(1.0),
            });
        }
        self.outcome.lent_gpu_hours = self.lent_ms / 3_600_000.0;
        self.outcome.models = self.serving.iter().map(Serving::summary).collect();
        self.outcome.unfinished = u32::try_from(self.open).unwrap_or(u32::MAX);
        self.outcome.jobs = self.runs.iter().filter_map(Run::ended).collect();
        self.outcome
    }
}

fn unknown(what: &str, index: usize) -> Error {
    Error::Usage(format!("the policy named {what} {index}, which does not exist"))
}

#[cfg(test)]
mod tests;
