//! Whom to evict so that a workload fits: Kueue's classical preemption (`pkg/scheduler/preemption/classical`).
//!
//! Candidates are the workloads of lower priority in the same queue, and those of queues that borrow what the queue may
//! claim back. They are removed one by one, in order, until the workload fits; then, from the last but one backwards, those
//! that turn out not to be needed are put back.

use std::cmp::Reverse;

use tidegate_core::quota::{NodeIx, ResourceIx};

use super::super::WorkloadIx;
use super::Rule;

/// Over whom the preemptor has which right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// The quota is the preemptor's own, or that of a node nearer to it.
    Hierarchy,
    /// Only if the preemptor does not borrow in turn.
    NotBorrowing,
    SameQueue,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    workload: WorkloadIx,
    right: Right,
    /// The node below which both queues are; candidates must borrow at each node below it.
    common: NodeIx,
}

impl Rule {
    /// The victims that make room for `class` in `queue`; none if there is no such set.
    pub(super) fn victims(
        &mut self,
        queue: NodeIx,
        class: u16,
        amounts: &[(ResourceIx, i64)],
        short: &[ResourceIx],
    ) -> Vec<WorkloadIx> {
        let (reclaimable, mut own) = (self.reclaimable(queue, amounts, short), self.lower_in_queue(queue, class));
        let others = !reclaimable.is_empty();
        let hierarchical = reclaimable.iter().any(|candidate| candidate.right == Right::Hierarchy);
        let below_nominal =
            short.iter().all(|resource| self.tree.usage(queue, *resource) < self.tree.guaranteed(queue, *resource));
        let attempts: &[bool] = match (others && below_nominal, hierarchical) {
            (false, _) => &[true],
            (true, false) => &[false, true],
            (true, true) => &[true, false],
        };
        let mut all = reclaimable;
        all.append(&mut own);
        // What is leaving already comes first, then as they are: claimed back by hierarchy, by priority, the own queue.
        let order = |candidate: &Candidate| match candidate.right {
            Right::Hierarchy => 0,
            Right::NotBorrowing => 1,
            Right::SameQueue => 2,
        };
        all.sort_by_cached_key(|candidate| {
            let job = self.jobs.get(&candidate.workload);
            let leaving = job.is_some_and(|job| job.leaving);
            let (priority, since) = job.map_or((0, 0), |job| (job.priority, job.admitted_ms));
            (!leaving, order(candidate), priority, Reverse(since), candidate.workload)
        });
        for borrow in attempts {
            let victims = self.try_victims(queue, class, amounts, short, &all, *borrow);
            if !victims.is_empty() {
                return victims;
            }
        }
        Vec::new()
    }

    fn try_victims(
        &mut self,
        queue: NodeIx,
        class: u16,
        amounts: &[(ResourceIx, i64)],
        short: &[ResourceIx],
        candidates: &[Candidate],
        borrow: bool,
    ) -> Vec<WorkloadIx> {
        let mut gone = Vec::new();
        let mut fits = false;
        for candidate in candidates {
            if !self.is_valid(candidate, short, borrow) {
                continue;
            }
            self.lift(candidate.workload);
            gone.push(candidate.workload);
            if self.would_fit(queue, class, amounts, borrow) {
                fits = true;
                break;
            }
        }
        let needed = if fits { self.fill_back(queue, class, amounts, borrow, &mut gone) } else { Vec::new() };
        for workload in gone {
            self.lower(workload);
        }
        needed
    }

    /// Puts back who is not needed, from the last but one backwards; the rest stays lifted, and is in `gone`.
    fn fill_back(
        &mut self,
        queue: NodeIx,
        class: u16,
        amounts: &[(ResourceIx, i64)],
        borrow: bool,
        gone: &mut Vec<WorkloadIx>,
    ) -> Vec<WorkloadIx> {
        for at in (0..gone.len().saturating_sub(1)).rev() {
            let Some(workload) = gone.get(at).copied() else { continue };
            self.lower(workload);
            if self.would_fit(queue, class, amounts, borrow) {
                gone.swap_remove(at);
            } else {
                self.lift(workload);
            }
        }
        gone.clone()
    }

    /// Whether a candidate may still be taken when those before it are gone.
    fn is_valid(&self, candidate: &Candidate, short: &[ResourceIx], borrow: bool) -> bool {
        if candidate.right == Right::SameQueue {
            return true;
        }
        if borrow && candidate.right == Right::NotBorrowing {
            return false;
        }
        let Some(job) = self.jobs.get(&candidate.workload) else { return false };
        let borrows = |node: NodeIx| short.iter().any(|resource| self.tree.borrowing(node, *resource));
        self.tree.path(job.queue).take_while(|node| *node != candidate.common).all(borrows)
    }

    fn would_fit(&self, queue: NodeIx, class: u16, amounts: &[(ResourceIx, i64)], borrow: bool) -> bool {
        let within = borrow || self.tree.fits_nominal(queue, amounts).is_ok();
        within && self.tree.fits(queue, amounts).is_ok() && self.place(class).is_some()
    }

    fn lower_in_queue(&self, queue: NodeIx, class: u16) -> Vec<Candidate> {
        let priority = self.priority(class);
        let running = self.running.get(queue.0 as usize).into_iter().flatten();
        let lower = running.filter(|workload| self.jobs.get(workload).is_some_and(|job| job.priority < priority));
        lower.map(|workload| Candidate { workload: *workload, right: Right::SameQueue, common: queue }).collect()
    }

    /// Workloads of queues that use more than their quota of what is short, below each node from the queue's parent up.
    fn reclaimable(&self, queue: NodeIx, amounts: &[(ResourceIx, i64)], short: &[ResourceIx]) -> Vec<Candidate> {
        let mut found = Vec::new();
        let mut rest = amounts.to_vec();
        let mut advantage = self.covers(queue, &mut rest);
        let mut below = queue;
        for node in self.tree.path(queue).skip(1).filter(|node| *node != self.tree.root()) {
            let right = if advantage { Right::Hierarchy } else { Right::NotBorrowing };
            for child in self.tree.children(node) {
                if *child != below {
                    self.collect(*child, node, right, short, &mut found);
                }
            }
            advantage |= self.covers(node, &mut rest);
            below = node;
        }
        found
    }

    fn collect(&self, node: NodeIx, common: NodeIx, right: Right, short: &[ResourceIx], found: &mut Vec<Candidate>) {
        if !short.iter().any(|resource| self.tree.borrowing(node, *resource)) {
            return;
        }
        for child in self.tree.children(node) {
            self.collect(*child, common, right, short, found);
        }
        let running = self.running.get(node.0 as usize).into_iter().flatten();
        found.extend(running.map(|workload| Candidate { workload: *workload, right, common }));
    }

    /// Whether the node's own quota would cover the amounts; what it cannot keep to itself is left for the next.
    fn covers(&self, node: NodeIx, amounts: &mut [(ResourceIx, i64)]) -> bool {
        let mut covers = true;
        for (resource, amount) in amounts {
            let (usage, subtree) = (self.tree.usage(node, *resource), self.tree.guaranteed(node, *resource));
            covers &= usage + *amount <= subtree;
            *amount = (*amount - self.tree.room(node, *resource)).max(0);
        }
        covers
    }
}
