//! The world of quota-only workloads: carries orders out at their cost, tells what happened, and keeps its own books.
//!
//! ```text
//!   cycle at t:  |- cycle_us -|- evict_us -|...|- admit_us -|- admit_us -|...  next cycle not before the end of it
//!                                              ^ runs from here for its run time; its quota is free release_ms later
//! ```
//!
//! One writer carries orders out, one after another: that is what bounds Kueue's published figures (its client is limited
//! to 50 writes per second), so both rules pay it. An eviction frees its quota when it is written.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};
use tidegate_core::quota::{NodeIx, Tree};

use super::figures::Figures;
use super::nodes::Nodes;
use super::{Admission, Clock, Ms, Orders, QuotaScheduler, Setup, Workload, WorkloadIx};
use crate::Error;

/// What decisions cost in virtual time, the same for every rule.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Of each cycle, in microseconds; above 0.
    pub cycle_us: u64,
    /// Of each admission, in microseconds.
    pub admit_us: u64,
    /// Of each eviction, in microseconds.
    pub evict_us: u64,
    /// From the end of a workload's run time to the moment when its quota is free, in milliseconds.
    pub release_ms: Ms,
}

/// How a run is measured and when it ends.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub latency: Latency,
    /// Ends the run at this time; 0: when nothing is left to do.
    pub until_ms: Ms,
    /// Before each so many cycles the scheduler forgets its verdicts; such cycles are measured apart. 0: never.
    pub cold_every: u64,
}

impl Run {
    /// All of it, with verdicts kept.
    pub fn all(latency: Latency) -> Self {
        Self { latency, until_ms: 0, cold_every: 0 }
    }
}

/// In the order in which they are told when they happen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Done(WorkloadIx, u32),
    Evicted(WorkloadIx, u32),
    Landed(WorkloadIx, u32),
    Created(WorkloadIx),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Waiting,
    Admitted,
    Ended,
}

/// The books on one workload.
#[derive(Clone, Debug, Default)]
struct Book {
    phase: Phase,
    /// Raised at each eviction: what was planned for an earlier one is void.
    round: u32,
    landed_us: Option<u64>,
    admit_ms: Ms,
    nodes: Vec<(u32, u32)>,
    evicting: bool,
}

/// One run.
struct World<'a> {
    setup: &'a Setup,
    run: Run,
    clock: &'a Clock<'a>,
    tree: Tree,
    nodes: Option<Nodes>,
    books: Vec<Book>,
    coming: BinaryHeap<Reverse<(u64, Happening)>>,
    next_created: usize,
    /// When the first workload comes that was not there at the start.
    settled_us: u64,
    used: u128,
    figures: Figures,
}

/// Runs a setup under a scheduler.
///
/// # Errors
/// When the scheduler orders what cannot be: over quota, over a node, or of a workload that is not there to be ordered.
pub fn run(setup: &Setup, scheduler: &mut dyn QuotaScheduler, run: Run, clock: &Clock<'_>) -> Result<Figures, Error> {
    let resources = u16::try_from(setup.scene.resources.len()).unwrap_or(u16::MAX);
    let tree = Tree::build(resources, setup.scene.queues.clone()).map_err(|error| Error::Usage(error.to_string()))?;
    let nodes = setup.scene.layout.as_ref().map(|layout| Nodes::new(layout, usize::from(resources)));
    let mut world = World {
        setup,
        run,
        clock,
        tree,
        nodes,
        books: vec![Book::default(); setup.workloads.len()],
        coming: BinaryHeap::new(),
        next_created: 0,
        settled_us: setup
            .workloads
            .iter()
            .find(|workload| workload.created_ms > 0)
            .map_or(0, |workload| workload.created_ms * 1000),
        used: 0,
        figures: Figures::default(),
    };
    world.go(scheduler)?;
    Ok(world.sum_up())
}

impl World<'_> {
    fn go(&mut self, scheduler: &mut dyn QuotaScheduler) -> Result<(), Error> {
        let (mut now, mut free_at, mut dirty, mut wake) = (0_u64, 0_u64, false, None);
        let mut orders = Orders::default();
        let end = if self.run.until_ms == 0 { u64::MAX } else { self.run.until_ms * 1000 };
        loop {
            let ask = if dirty { Some(now) } else { wake }.map(|at: u64| at.max(free_at).max(now));
            let happens = self.next_happening();
            let Some(at) = ask.into_iter().chain(happens).min().filter(|at| *at <= end) else { return Ok(()) };
            now = at;
            if happens == Some(now) {
                dirty |= self.tell(now, scheduler);
                continue;
            }
            orders.evict.clear();
            orders.admit.clear();
            let cold = self.run.cold_every > 0 && self.figures.cycles.is_multiple_of(self.run.cold_every);
            if cold {
                scheduler.forget_verdicts();
            }
            let before = (self.clock)();
            wake = scheduler.cycle(now / 1000, &mut orders).map(|at| at * 1000);
            let took = (self.clock)() - before;
            self.figures.cycles += 1;
            if cold {
                self.figures.scheduler_ns += took;
                self.figures.cold_ns.push(took);
            } else {
                self.charge(now, took, 0);
                self.figures.cycle_ns.push(took);
            }
            dirty = false;
            free_at = self.carry_out(now, &orders)?;
        }
    }

    /// Counts time spent in the scheduler; what is there at the start belongs to no steady state.
    fn charge(&mut self, now: u64, took: u64, events: u64) {
        self.figures.scheduler_ns += took;
        if now >= self.settled_us {
            self.figures.steady_ns += took;
            self.figures.steady_events += events;
        }
    }

    fn next_happening(&self) -> Option<u64> {
        let created = self.setup.workloads.get(self.next_created).map(|workload| workload.created_ms * 1000);
        let coming = self.coming.peek().map(|Reverse((at, _))| *at);
        created.into_iter().chain(coming).min()
    }

    /// Tells the scheduler all that happens at this moment; whether it was anything that it did not know.
    fn tell(&mut self, now: u64, scheduler: &mut dyn QuotaScheduler) -> bool {
        let mut news = false;
        while let Some(workload) =
            self.setup.workloads.get(self.next_created).filter(|workload| workload.created_ms * 1000 <= now)
        {
            let _ = workload;
            self.coming
                .push(Reverse((now, Happening::Created(WorkloadIx(u32::try_from(self.next_created).unwrap_or(u32::MAX))))));
            self.next_created += 1;
        }
        while let Some(Reverse((_, happening))) = self.coming.peek().filter(|Reverse((at, _))| *at <= now).copied() {
            self.coming.pop();
            if !self.happen(now, happening) {
                continue;
            }
            let before = (self.clock)();
            match happening {
                Happening::Created(ix) => {
                    let workload = self.workload(ix);
                    scheduler.submit(now / 1000, ix, workload.queue, workload.class);
                }
                Happening::Done(ix, _) => scheduler.finish(now / 1000, ix),
                Happening::Evicted(ix, _) => scheduler.evicted(now / 1000, ix),
                Happening::Landed(..) => continue,
            }
            let took = (self.clock)() - before;
            self.charge(now, took, 1);
            news = true;
        }
        news
    }

    /// Enters it in the books; false when it is void.
    fn happen(&mut self, now: u64, happening: Happening) -> bool {
        match happening {
            Happening::Created(_) => true,
            Happening::Landed(ix, round) => {
                let (workload, release) = (self.workload(ix), self.run.latency.release_ms);
                let Some(book) = self.book(ix).filter(|book| book.round == round) else { return false };
                book.landed_us = Some(now);
                book.admit_ms = (now / 1000).saturating_sub(workload.created_ms);
                let end = now + (workload.runtime_ms + release) * 1000;
                self.coming.push(Reverse((end, Happening::Done(ix, round))));
                true
            }
            Happening::Done(ix, round) => self.free(now, ix, round, Phase::Ended),
            Happening::Evicted(ix, round) => {
                let evicted = self.free(now, ix, round, Phase::Waiting);
                self.figures.evictions += u64::from(evicted);
                evicted
            }
        }
    }

    /// Gives back what a workload held.
    fn free(&mut self, now: u64, ix: WorkloadIx, round: u32, phase: Phase) -> bool {
        let workload = self.workload(ix);
        let Some(book) = self.book(ix).filter(|book| book.round == round && book.phase == Phase::Admitted) else { return false };
        book.phase = phase;
        book.round += 1;
        book.evicting = false;
        let nodes = std::mem::take(&mut book.nodes);
        let (landed, waited) = (book.landed_us.take(), book.admit_ms);
        let Some(class) = self.setup.scene.classes.get(usize::from(workload.class)) else { return false };
        if let Some(books) = &mut self.nodes {
            books.give(class, &nodes);
        }
        let total = class.total();
        self.tree.remove(workload.queue, &total);
        let first = total.first().map_or(0, |(_, amount)| *amount);
        self.used += u128::from(first.unsigned_abs()) * u128::from(landed.map_or(0, |landed| now - landed));
        if phase == Phase::Ended {
            self.figures.workloads += 1;
            self.figures.makespan_ms = now / 1000;
            self.figures.admit_ms.entry(class.group().to_owned()).or_default().add(waited);
        }
        true
    }

    /// Plans what was ordered; when the writer is through with it.
    fn carry_out(&mut self, now: u64, orders: &Orders) -> Result<u64, Error> {
        let Latency { cycle_us, admit_us, evict_us, .. } = self.run.latency;
        let mut at = now + cycle_us.max(1);
        for ix in &orders.evict {
            let wrong = || Error::Usage(format!("workload {} is to be evicted, but it does not run or is evicted already", ix.0));
            let book = self.book(*ix).filter(|book| book.phase == Phase::Admitted && !book.evicting).ok_or_else(wrong)?;
            book.evicting = true;
            let round = book.round;
            at += evict_us;
            self.coming.push(Reverse((at, Happening::Evicted(*ix, round))));
        }
        for admission in &orders.admit {
            self.hold(admission)?;
            at += admit_us;
            let round = self.book(admission.workload).map_or(0, |book| book.round);
            self.coming.push(Reverse((at, Happening::Landed(admission.workload, round))));
        }
        Ok(at)
    }

    /// Takes quota and nodes for an admission, by the world's own books.
    fn hold(&mut self, admission: &Admission) -> Result<(), Error> {
        let ix = admission.workload;
        let wrong = |why: String| Error::Usage(format!("workload {} is to be admitted, but {why}", ix.0));
        let created = (ix.0 as usize) < self.next_created;
        let waits = self.book(ix).is_some_and(|book| book.phase == Phase::Waiting);
        if !created || !waits {
            return Err(wrong("it does not wait".into()));
        }
        let workload = self.workload(ix);
        let class =
            self.setup.scene.classes.get(usize::from(workload.class)).ok_or_else(|| wrong("its class is unknown".into()))?;
        let total = class.total();
        self.tree.fits(workload.queue, &total).map_err(|binding| wrong(format!("its quota is used up: {binding:?}")))?;
        if let Some(nodes) = &mut self.nodes {
            let pods: u32 = admission.nodes.iter().map(|(_, pods)| pods).sum();
            if pods != class.pods || !nodes.take(class, &admission.nodes) {
                return Err(wrong(format!("its {} pods do not fit on {:?}", class.pods, admission.nodes)));
            }
        }
        self.tree.add(workload.queue, &total);
        if let Some(book) = self.book(ix) {
            book.phase = Phase::Admitted;
            book.nodes.clone_from(&admission.nodes);
        }
        Ok(())
    }

    fn workload(&self, ix: WorkloadIx) -> Workload {
        let nobody = Workload { queue: NodeIx(u32::MAX), class: u16::MAX, created_ms: 0, runtime_ms: 0 };
        self.setup.workloads.get(ix.0 as usize).copied().unwrap_or(nobody)
    }

    fn book(&mut self, ix: WorkloadIx) -> Option<&mut Book> {
        self.books.get_mut(ix.0 as usize)
    }

    fn sum_up(mut self) -> Figures {
        let nominal = |queue: &tidegate_core::quota::QueueQuota| queue.quotas.first().map_or(0, |(_, quota)| quota.nominal);
        let nominal: i64 = self.setup.scene.queues.iter().map(nominal).sum();
        let whole = u128::from(nominal.unsigned_abs()) * u128::from(self.figures.makespan_ms) * 1000;
        self.figures.usage_percent = if whole == 0 { 0.0 } else { self.used as f64 * 100.0 / whole as f64 };
        self.figures.cycle_ns.sort_unstable();
        self.figures.cold_ns.sort_unstable();
        self.figures
    }
}

#[cfg(test)]
mod tests;
