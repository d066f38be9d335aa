//! Who trains, where and how large: all jobs are packed anew in the order of attained service.
//!
//! Order: level of attained GPU time (a job just started counts as level 0), then running before waiting, then who would
//! lose most by a stop (work since its checkpoint), then age. (Tiresias' discretised two-dimensional least attained
//! service, with lost work as the tie-break.) Packing goes over the order three times:
//!
//! 1. the least size of each job, on its class, or where it fits (any-class jobs prefer the lent class); a running job
//!    that does not fit any more stops;
//! 2. running jobs keep their size if they can, else shrink to their own or least size; starting jobs get their own size;
//! 3. what is left grows elastic jobs that have not changed for `regrow_s`.

use super::super::{Ask, Costs, GpuClass, Ms, Order};
use super::Rule;

/// After so long levels are looked at again when nothing else happened.
const LOOK_AGAIN_MS: Ms = 300_000;
/// Jobs are packed anew at most so often, unless GPUs must be given back.
const PACK_EVERY_MS: Ms = 60_000;

/// All jobs that have not ended.
pub struct Training {
    levels_gpu_s: Vec<f64>,
    margin: u8,
    protect_ms: Ms,
    regrow_ms: Ms,
    is_elastic: bool,
    costs: Costs,
    speeds: Vec<f64>,
    /// By job number; ended ones stay as stubs.
    jobs: Vec<Entry>,
    active: Vec<u32>,
    /// GPUs for training at the last packing, and those in use.
    left: Vec<u32>,
    used: Vec<u32>,
    dirty: bool,
    lend_for_growth: bool,
    /// GPUs wanted by class; absent: to be counted again.
    wanted: Option<Vec<u32>>,
    looked: Ms,
}

struct Entry {
    ask: Ask,
    /// GPU-seconds of the first class had in earlier holdings.
    attained: f64,
    run: Option<Holding>,
    ended: bool,
    plan: Plan,
}

#[derive(Clone, Copy)]
struct Holding {
    class: usize,
    gpus: u32,
    since: Ms,
    started: Ms,
}

#[derive(Clone, Copy, PartialEq)]
enum Plan {
    None,
    Place { class: usize, gpus: u32 },
}

impl Training {
    pub fn new(rule: &Rule, is_elastic: bool, costs: Costs, classes: &[GpuClass]) -> Self {
        Self {
            levels_gpu_s: rule.levels_gpu_hours.iter().map(|hours| hours * 3600.0).collect(),
            margin: rule.resume_margin,
            protect_ms: rule.protect_s * 1000,
            regrow_ms: rule.regrow_s * 1000,
            is_elastic,
            costs,
            speeds: classes.iter().map(|class| class.speed).collect(),
            jobs: Vec::new(),
            active: Vec::new(),
            left: Vec::new(),
            used: vec![0; classes.len()],
            dirty: true,
            lend_for_growth: rule.lend_for_growth && is_elastic,
            wanted: None,
            looked: 0,
        }
    }

    /// Jobs come in ascending order of their numbers.
    pub fn submitted(&mut self, ask: &Ask) {
        let mut ask = ask.clone();
        if !self.is_elastic {
            (ask.min_gpus, ask.max_gpus) = (ask.gpus, ask.gpus);
        }
        let index = ask.job as usize;
        while self.jobs.len() < index {
            self.jobs.push(Entry { ask: ask.clone(), attained: 0.0, run: None, ended: true, plan: Plan::None });
        }
        self.active.push(ask.job);
        self.jobs.push(Entry { ask, attained: 0.0, run: None, ended: false, plan: Plan::None });
        (self.dirty, self.wanted) = (true, None);
    }

    pub fn finished(&mut self, job: u32) {
        if let Some(entry) = self.jobs.get_mut(job as usize) {
            entry.ended = true;
            if let Some((run, used)) = entry.run.and_then(|run| Some((run, self.used.get_mut(run.class)?))) {
                *used -= run.gpus;
            }
        }
        (self.dirty, self.wanted) = (true, None);
    }

    /// GPUs of a class that its jobs want: what they asked for, or may grow to. Waiting any-class jobs want the last class.
    pub fn wanted(&mut self, class: usize) -> u32 {
        if self.wanted.is_none() {
            self.wanted = Some(self.count_wanted());
        }
        self.wanted.as_ref().and_then(|wanted| wanted.get(class)).copied().unwrap_or(0)
    }

    fn count_wanted(&self) -> Vec<u32> {
        let mut wanted = vec![0_u32; self.speeds.len()];
        let last = self.speeds.len().saturating_sub(1);
        for entry in self.active.iter().filter_map(|job| self.jobs.get(*job as usize)).filter(|entry| !entry.ended) {
            let on = entry.run.map_or(if entry.ask.any_class { last } else { 0 }, |run| run.class);
            let gpus = if self.lend_for_growth { entry.ask.max_gpus } else { entry.ask.gpus };
            if let Some(wanted) = wanted.get_mut(on) {
                *wanted = wanted.saturating_add(Ask::on(gpus, speed(&self.speeds, on)));
            }
        }
        wanted
    }

    /// Orders for `left` GPUs by class.
    pub fn decide(&mut self, now: Ms, left: &[u32], orders: &mut Vec<Order>) {
        let is_short = self.used.iter().zip(left).any(|(used, left)| used > left);
        let is_quiet = !self.dirty && self.left == left && now < self.looked + LOOK_AGAIN_MS;
        if !is_short && (is_quiet || (self.looked > 0 && now < self.looked + PACK_EVERY_MS)) {
            return;
        }
        (self.dirty, self.wanted, self.looked) = (false, None, now);
        self.left.clear();
        self.left.extend_from_slice(left);
        self.sort(now);
        let mut left = left.to_vec();
        self.place(&mut left);
        self.size(&mut left);
        self.grow(now, &mut left);
        self.order(now, orders);
    }

    fn sort(&mut self, now: Ms) {
        let (jobs, levels, margin) = (&self.jobs, &self.levels_gpu_s, self.margin);
        self.active.retain(|job| jobs.get(*job as usize).is_some_and(|entry| !entry.ended));
        let key = |job: &u32| {
            let Some(entry) = jobs.get(*job as usize) else { return (u8::MAX, true, 0, *job) };
            let Some(run) = entry.run else {
                let again = if entry.attained > 0.0 { margin } else { 0 };
                return (
                    level(levels, entry.attained).saturating_add(again),
                    true,
                    u64::from(level(levels, entry.attained)),
                    *job,
                );
            };
            let had = entry.attained + span_s(run.since, now) * f64::from(run.gpus) * speed(&self.speeds, run.class);
            let is_protected = now < run.started + self.protect_ms;
            let lost = lost_gpu_s(&run, now, &self.costs);
            (
                if is_protected { 0 } else { level(levels, had) },
                false,
                (u64::from(entry.ask.gpus) << 40) + (1 << 39) - lost.min(1 << 39),
                *job,
            )
        };
        self.active.sort_by_cached_key(key);
    }

    fn place(&mut self, left: &mut [u32]) {
        for job in &self.active {
            let Some(entry) = self.jobs.get_mut(*job as usize) else { continue };
            let least = |class| Ask::on(entry.ask.min_gpus, speed(&self.speeds, class));
            let classes = match entry.run {
                Some(run) => run.class..run.class + 1,
                None if entry.ask.any_class => 0..left.len(),
                None => 0..1,
            };
            let fits = |class: &usize| left.get(*class).is_some_and(|free| *free >= least(*class));
            let class = classes.rev().find(fits);
            entry.plan = class.map_or(Plan::None, |class| Plan::Place { class, gpus: least(class) });
            if let Some(free) = class.and_then(|class| left.get_mut(class)) {
                *free -= class.map_or(0, least);
            }
        }
    }

    fn size(&mut self, left: &mut [u32]) {
        for job in &self.active {
            let Some(entry) = self.jobs.get_mut(*job as usize) else { continue };
            let Plan::Place { class, gpus } = entry.plan else { continue };
            let Some(free) = left.get_mut(class) else { continue };
            let own = Ask::on(entry.ask.gpus, speed(&self.speeds, class));
            let wished = [entry.run.map_or(own, |run| run.gpus), own.min(entry.run.map_or(own, |run| run.gpus))];
            let size = wished.into_iter().find(|size| *size <= gpus + *free).unwrap_or(gpus).max(gpus);
            *free -= size - gpus;
            entry.plan = Plan::Place { class, gpus: size };
        }
    }

    fn grow(&mut self, now: Ms, left: &mut [u32]) {
        for job in &self.active {
            let Some(entry) = self.jobs.get_mut(*job as usize) else { continue };
            let (Plan::Place { class, gpus }, Some(run)) = (entry.plan, entry.run) else { continue };
            let Some(free) = left.get_mut(class) else { continue };
            let most = Ask::on(entry.ask.max_gpus, speed(&self.speeds, class)).min(gpus + *free);
            let own = Ask::on(entry.ask.gpus, speed(&self.speeds, class));
            let is_due = now >= run.since + self.regrow_ms && gpus == run.gpus;
            // Less than a quarter more does not pay for a restart.
            if is_due && (most * 4 >= gpus * 5 || (gpus < own && most >= own)) {
                *free -= most - gpus;
                entry.plan = Plan::Place { class, gpus: most };
            }
        }
    }

    fn order(&mut self, now: Ms, orders: &mut Vec<Order>) {
        self.used.fill(0);
        for job in &self.active {
            let Some(entry) = self.jobs.get_mut(*job as usize) else { continue };
            match (entry.run, entry.plan) {
                (None, Plan::Place { class, gpus }) => {
                    orders.push(Order::Start { job: *job, class, gpus });
                    entry.run = Some(Holding { class, gpus, since: now, started: now });
                }
                (Some(run), Plan::None) => {
                    orders.push(Order::Stop { job: *job });
                    entry.attained += span_s(run.since, now) * f64::from(run.gpus) * speed(&self.speeds, run.class);
                    entry.run = None;
                }
                (Some(run), Plan::Place { gpus, .. }) if gpus != run.gpus => {
                    orders.push(Order::Resize { job: *job, gpus });
                    entry.attained += span_s(run.since, now) * f64::from(run.gpus) * speed(&self.speeds, run.class);
                    entry.run = Some(Holding { gpus, since: now, ..run });
                }
                _ => {}
            }
            if let Some((run, used)) = entry.run.and_then(|run| Some((run, self.used.get_mut(run.class)?))) {
                *used += run.gpus;
            }
        }
    }
}

fn level(levels_gpu_s: &[f64], attained: f64) -> u8 {
    u8::try_from(levels_gpu_s.partition_point(|bound| *bound <= attained)).unwrap_or(u8::MAX)
}

/// GPU-seconds done again if it stopped now: since its last checkpoint, and the restart.
fn lost_gpu_s(run: &Holding, now: Ms, costs: &Costs) -> u64 {
    let ran = span_s(run.since, now);
    let since = if costs.checkpoint_every_s > 0.0 { ran % costs.checkpoint_every_s } else { 0.0 };
    super::super::to_ms((since + costs.restart_s) * f64::from(run.gpus)) / 1000
}

fn speed(speeds: &[f64], class: usize) -> f64 {
    speeds.get(class).copied().unwrap_or(1.0)
}

fn span_s(from: Ms, to: Ms) -> f64 {
    to.saturating_sub(from) as f64 / 1000.0
}

#[cfg(test)]
mod tests;
