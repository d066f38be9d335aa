//! Kueue's rule: one head per queue and cycle, nominated against one snapshot, admitted in order, or preempting.
//!
//! ```text
//!   heads -> nominate (fits | preempts whom | does not fit) -> order (borrowing, priority, age) -> process one by one
//!     ^                                                                                              |
//!     +-- retry, one second after capacity moved in the cohort <-- set aside <-- not admitted -------+
//! ```
//!
//! Written from the facts in `pkg/scheduler` and `pkg/cache/queue` (v0.20-devel) for one flavor per resource, classical
//! preemption with `reclaimWithinCohort: Any`, `withinClusterQueue: LowerPriority`, no borrowing while preempting, no fair
//! sharing, no partial admission. A top-level node of the tree is a cohort of its own: the tree's root is not looked at.

mod pending;
mod preempt;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use tidegate_core::quota::{NodeIx, ResourceIx, Tree};

use super::nodes::Nodes;
use super::{Admission, Class, Ms, Orders, QuotaScheduler, Scene, WorkloadIx};
use crate::Error;
pub use pending::Strategy;
use pending::{Pending, Waiting, Why};

/// The settings of Kueue that matter here.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RuleSettings {
    pub strategy: Strategy,
    /// Whether workloads of one shape share a verdict (`SchedulingEquivalenceHashing`).
    pub equivalence_hashing: bool,
    /// After capacity moved in a cohort, what was set aside is tried again so much later (`requeueBatchPeriod`).
    pub requeue_batch_ms: Ms,
    /// A cycle that admits nobody is followed by a pause of 1 ms, doubled each time up to this (`wait.UntilWithBackoff`).
    pub backoff_max_ms: Ms,
}

/// A workload that holds quota.
#[derive(Clone, Debug)]
struct Job {
    queue: NodeIx,
    class: u16,
    priority: i32,
    admitted_ms: Ms,
    /// Its eviction was ordered.
    leaving: bool,
    nodes: Vec<(u32, u32)>,
}

/// A head in its cycle.
#[derive(Clone, Debug)]
struct Entry {
    queue: NodeIx,
    waiting: Waiting,
    verdict: Verdict,
    /// Levels up to the node whose quota covers it; 0: it does not borrow.
    height: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Fits(Vec<(u32, u32)>),
    /// Evicting these makes room; none: nobody may be evicted.
    Preempts(Vec<WorkloadIx>),
    NeverFits,
}

/// The state of the rule.
#[derive(Clone, Debug)]
pub struct Rule {
    settings: RuleSettings,
    classes: Vec<Class>,
    totals: Vec<Vec<(ResourceIx, i64)>>,
    tree: Tree,
    nodes: Option<Nodes>,
    /// By node of the tree; leaves only.
    pending: Vec<Option<Pending>>,
    running: Vec<BTreeSet<WorkloadIx>>,
    jobs: HashMap<WorkloadIx, Job>,
    created: HashMap<WorkloadIx, Ms>,
    /// When what was set aside in a cohort is tried again.
    retry: BTreeMap<NodeIx, Ms>,
    /// Cohorts where something had quota, but no nodes.
    short_of_nodes: BTreeSet<NodeIx>,
    backoff_ms: Ms,
}

impl Rule {
    /// The rule for a scene.
    ///
    /// # Errors
    /// When the queues are not a tree.
    pub fn new(scene: &Scene, settings: RuleSettings) -> Result<Self, Error> {
        let resources = u16::try_from(scene.resources.len()).unwrap_or(u16::MAX);
        let tree = Tree::build(resources, scene.queues.clone()).map_err(|error| Error::Usage(error.to_string()))?;
        let pending = |node: u32| {
            let leaf = tree.children(NodeIx(node)).is_empty();
            leaf.then(|| Pending::new(settings.strategy, settings.equivalence_hashing))
        };
        Ok(Self {
            settings,
            totals: scene.classes.iter().map(Class::total).collect(),
            classes: scene.classes.clone(),
            pending: (0..u32::try_from(tree.len()).unwrap_or(0)).map(pending).collect(),
            running: vec![BTreeSet::new(); tree.len()],
            nodes: scene.layout.as_ref().map(|layout| Nodes::new(layout, usize::from(resources))),
            tree,
            jobs: HashMap::new(),
            created: HashMap::new(),
            retry: BTreeMap::new(),
            short_of_nodes: BTreeSet::new(),
            backoff_ms: 1,
        })
    }

    fn priority(&self, class: u16) -> i32 {
        self.classes.get(usize::from(class)).map_or(0, |class| class.priority)
    }

    fn total(&self, class: u16) -> Vec<(ResourceIx, i64)> {
        self.totals.get(usize::from(class)).cloned().unwrap_or_default()
    }

    /// Where its pods would go now; empty without nodes, absent if there is no room for them.
    fn place(&self, class: u16) -> Option<Vec<(u32, u32)>> {
        match (&self.nodes, self.classes.get(usize::from(class))) {
            (Some(nodes), Some(class)) => nodes.place(class),
            _ => Some(Vec::new()),
        }
    }

    /// The top-level node above a queue.
    fn cohort(&self, queue: NodeIx) -> NodeIx {
        self.tree.path(queue).take_while(|node| *node != self.tree.root()).last().unwrap_or(queue)
    }

    /// Takes what a workload holds out of the snapshot.
    fn lift(&mut self, workload: WorkloadIx) {
        self.shift(workload, false);
    }

    /// Puts it back.
    fn lower(&mut self, workload: WorkloadIx) {
        self.shift(workload, true);
    }

    fn shift(&mut self, workload: WorkloadIx, hold: bool) {
        let Self { jobs, tree, nodes, totals, classes, .. } = self;
        let Some(job) = jobs.get(&workload) else { return };
        let (Some(total), Some(class)) = (totals.get(usize::from(job.class)), classes.get(usize::from(job.class))) else {
            return;
        };
        if hold {
            tree.add(job.queue, total);
        } else {
            tree.remove(job.queue, total);
        }
        match nodes {
            Some(nodes) if hold => {
                nodes.take(class, &job.nodes);
            }
            Some(nodes) => nodes.give(class, &job.nodes),
            None => {}
        }
    }

    /// What held quota holds none any more.
    fn forget(&mut self, now: Ms, workload: WorkloadIx) -> Option<Job> {
        self.lift(workload);
        let job = self.jobs.remove(&workload)?;
        if let Some(running) = self.running.get_mut(job.queue.0 as usize) {
            running.remove(&workload);
        }
        // Quota is shared by those of one cohort, nodes by all: who waited for nodes is tried again too.
        self.short_of_nodes.insert(self.cohort(job.queue));
        for cohort in std::mem::take(&mut self.short_of_nodes) {
            self.retry.entry(cohort).or_insert(now + self.settings.requeue_batch_ms);
        }
        Some(job)
    }

    fn retry_due(&mut self, now: Ms) {
        let due: Vec<NodeIx> = self.retry.iter().filter(|(_, at)| **at <= now).map(|(cohort, _)| *cohort).collect();
        for cohort in due {
            self.retry.remove(&cohort);
            let mut below = vec![cohort];
            while let Some(node) = below.pop() {
                below.extend(self.tree.children(node));
                if let Some(Some(pending)) = self.pending.get_mut(node.0 as usize) {
                    pending.retry();
                }
            }
        }
    }

    /// The verdict on a head if it alone were tried.
    fn nominate(&mut self, queue: NodeIx, waiting: Waiting) -> Entry {
        let total = self.total(waiting.class);
        let height = |(resource, amount): &(ResourceIx, i64)| self.tree.lowest_cover(queue, *resource, *amount).1;
        let height = total.iter().map(height).max().unwrap_or(0);
        let verdict = self.verdict(queue, waiting.class, &total);
        Entry { queue, waiting, verdict, height }
    }

    fn verdict(&mut self, queue: NodeIx, class: u16, total: &[(ResourceIx, i64)]) -> Verdict {
        if !self.tree.fits_empty(queue, total) {
            return Verdict::NeverFits;
        }
        let unfit = |(resource, amount): &&(ResourceIx, i64)| *amount > self.tree.available(queue, *resource);
        let mut short: Vec<ResourceIx> = total.iter().filter(unfit).map(|(resource, _)| *resource).collect();
        if short.is_empty() {
            if let Some(nodes) = self.place(class) {
                return Verdict::Fits(nodes);
            }
            short = total.iter().map(|(resource, _)| *resource).collect();
            self.short_of_nodes.insert(self.cohort(queue));
        }
        // Preemption is tried only for what is covered by nominal quota of a part of the cohort.
        let cohort = self.cohort(queue);
        let covered = |resource: &ResourceIx| {
            let amount = total.iter().find(|(asked, _)| asked == resource).map_or(0, |(_, amount)| *amount);
            let cover = self.tree.lowest_cover(queue, *resource, amount).0;
            amount <= self.tree.quota(queue, *resource).nominal || (cover != cohort && cover != self.tree.root())
        };
        if !short.iter().all(covered) {
            return Verdict::NeverFits;
        }
        Verdict::Preempts(self.victims(queue, class, total, &short))
    }

    /// Carries an entry out against what is left by those before it. `gone` are this cycle's victims, `held` what is kept
    /// free for preemptors until the end of the cycle.
    fn process(&mut self, now: Ms, entry: &Entry, cycle: &mut Cycle<'_>) -> Result<(), Why> {
        let total = self.total(entry.waiting.class);
        match &entry.verdict {
            Verdict::NeverFits => Err(Why::NoFit),
            Verdict::Preempts(victims) if victims.is_empty() => Err(Why::NoFit),
            Verdict::Preempts(victims) => {
                if victims.iter().any(|victim| cycle.gone.contains(victim)) {
                    return Err(Why::Overtaken);
                }
                let all: Vec<WorkloadIx> = cycle.gone.iter().chain(victims).copied().collect();
                if !self.fits_without(entry.queue, &total, &all) {
                    return Err(Why::Overtaken);
                }
                self.tree.add(entry.queue, &total);
                cycle.held.push((entry.queue, entry.waiting.class));
                for victim in victims {
                    cycle.gone.insert(*victim);
                    if let Some(job) = self.jobs.get_mut(victim).filter(|job| !job.leaving) {
                        job.leaving = true;
                        cycle.orders.evict.push(*victim);
                    }
                }
                Err(Why::Preempting)
            }
            Verdict::Fits(nodes) => {
                let gone: Vec<WorkloadIx> = cycle.gone.iter().copied().collect();
                // Kueue asks only the first; where victims free more than their preemptor takes it over-admits for a moment,
                // which the world would refuse.
                let fits = self.fits_without(entry.queue, &total, &gone) && self.fits_now(entry.queue, &total, &cycle.held);
                let nodes = if fits { self.take(entry.waiting.class, nodes) } else { None };
                let nodes = nodes.ok_or(Why::Overtaken)?;
                self.assume(now, entry, nodes, cycle);
                Ok(())
            }
        }
    }

    /// Takes the nominated nodes, or others if somebody was there first.
    fn take(&mut self, class: u16, nominated: &[(u32, u32)]) -> Option<Vec<(u32, u32)>> {
        let Some(of) = self.classes.get(usize::from(class)).cloned() else { return Some(Vec::new()) };
        let Some(nodes) = &mut self.nodes else { return Some(Vec::new()) };
        if nodes.take(&of, nominated) {
            return Some(nominated.to_vec());
        }
        nodes.place(&of).filter(|placed| nodes.take(&of, placed))
    }

    fn assume(&mut self, now: Ms, entry: &Entry, nodes: Vec<(u32, u32)>, cycle: &mut Cycle<'_>) {
        let Waiting { rank, class } = entry.waiting;
        let workload = rank.2;
        self.tree.add(entry.queue, &self.total(class));
        let priority = self.priority(class);
        let job = Job { queue: entry.queue, class, priority, admitted_ms: now, leaving: false, nodes: nodes.clone() };
        self.jobs.insert(workload, job);
        if let Some(running) = self.running.get_mut(entry.queue.0 as usize) {
            running.insert(workload);
        }
        cycle.orders.admit.push(Admission { workload, nodes });
    }

    /// Whether it would fit by quota without these.
    fn fits_without(&mut self, queue: NodeIx, total: &[(ResourceIx, i64)], without: &[WorkloadIx]) -> bool {
        for workload in without {
            self.lift(*workload);
        }
        let fits = self.tree.fits(queue, total).is_ok();
        for workload in without {
            self.lower(*workload);
        }
        fits
    }

    /// Whether it fits by quota while the victims of this cycle are still there and their preemptors are not.
    fn fits_now(&mut self, queue: NodeIx, total: &[(ResourceIx, i64)], held: &[(NodeIx, u16)]) -> bool {
        let Self { tree, totals, .. } = self;
        let of = |class: &u16| totals.get(usize::from(*class)).map_or(&[][..], Vec::as_slice);
        for (preemptor, class) in held {
            tree.remove(*preemptor, of(class));
        }
        let fits = tree.fits(queue, total).is_ok();
        for (preemptor, class) in held {
            tree.add(*preemptor, of(class));
        }
        fits
    }

    fn heads(&mut self) -> Vec<(NodeIx, Waiting)> {
        let queues = (0..).map(NodeIx).zip(&mut self.pending);
        queues.filter_map(|(node, pending)| pending.as_mut().and_then(Pending::pop).map(|head| (node, head))).collect()
    }

    /// When to be asked again.
    fn wake(&mut self, now: Ms, admitted: bool) -> Option<Ms> {
        let waits = self.pending.iter().flatten().any(Pending::has_head);
        let pause = if admitted { 0 } else { self.backoff_ms };
        self.backoff_ms = if admitted { 1 } else { (self.backoff_ms * 2).min(self.settings.backoff_max_ms) };
        let again = waits.then_some(now + pause);
        again.into_iter().chain(self.retry.values().copied()).min()
    }
}

/// What one cycle gathers.
struct Cycle<'a> {
    gone: BTreeSet<WorkloadIx>,
    held: Vec<(NodeIx, u16)>,
    orders: &'a mut Orders,
}

impl QuotaScheduler for Rule {
    fn submit(&mut self, now: Ms, workload: WorkloadIx, queue: NodeIx, class: u16) {
        self.created.insert(workload, now);
        let waiting = Waiting { rank: (Reverse(self.priority(class)), now, workload), class };
        if let Some(Some(pending)) = self.pending.get_mut(queue.0 as usize) {
            pending.push(waiting);
        }
    }

    fn finish(&mut self, now: Ms, workload: WorkloadIx) {
        self.forget(now, workload);
        self.created.remove(&workload);
    }

    fn evicted(&mut self, now: Ms, workload: WorkloadIx) {
        let created = self.created.get(&workload).copied().unwrap_or(now);
        let Some(job) = self.forget(now, workload) else { return };
        let waiting = Waiting { rank: (Reverse(job.priority), created, workload), class: job.class };
        if let Some(Some(pending)) = self.pending.get_mut(job.queue.0 as usize) {
            pending.push(waiting);
        }
    }

    fn cycle(&mut self, now: Ms, orders: &mut Orders) -> Option<Ms> {
        self.retry_due(now);
        let heads = self.heads();
        let mut entries: Vec<Entry> = heads.into_iter().map(|(queue, waiting)| self.nominate(queue, waiting)).collect();
        entries.sort_by_key(|entry| (entry.height, entry.waiting.rank));
        let mut cycle = Cycle { gone: BTreeSet::new(), held: Vec::new(), orders };
        let results: Vec<Result<(), Why>> = entries.iter().map(|entry| self.process(now, entry, &mut cycle)).collect();
        for (queue, class) in cycle.held {
            let total = self.total(class);
            self.tree.remove(queue, &total);
        }
        for (entry, result) in entries.iter().zip(results) {
            if let (Err(why), Some(Some(pending))) = (result, self.pending.get_mut(entry.queue.0 as usize)) {
                pending.put_back(entry.waiting, why);
            }
        }
        let admitted = !orders.admit.is_empty();
        self.wake(now, admitted)
    }
}

#[cfg(test)]
mod tests;
