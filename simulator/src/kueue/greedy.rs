//! The simplest other rule: whoever is first by priority and age and fits is admitted; nobody is ever evicted.
//!
//! It is the yardstick between Kueue's rule and ours, shows how [`QuotaScheduler`] is meant to be implemented, and lets the
//! studies run where the engine is not plugged in.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use tidegate_core::quota::{NodeIx, ResourceIx, Tree};

use super::nodes::Nodes;
use super::{Admission, Class, Ms, Orders, QuotaScheduler, Scene, WorkloadIx};
use crate::Error;

/// A workload that holds quota: its queue, class and nodes.
type Held = (NodeIx, u16, Vec<(u32, u32)>);

/// The state of the rule.
#[derive(Clone, Debug)]
pub struct Greedy {
    classes: Vec<Class>,
    totals: Vec<Vec<(ResourceIx, i64)>>,
    tree: Tree,
    nodes: Option<Nodes>,
    /// By priority, age, then queue and class.
    waiting: BTreeSet<(Reverse<i32>, Ms, WorkloadIx, NodeIx, u16)>,
    held: HashMap<WorkloadIx, Held>,
    /// Admissions of one cycle: the writer is not kept busy with the small while something larger may come.
    most: usize,
}

impl Greedy {
    /// The rule for a scene; at most `most` admissions per cycle.
    ///
    /// # Errors
    /// When the queues are not a tree.
    pub fn new(scene: &Scene, most: usize) -> Result<Self, Error> {
        let resources = u16::try_from(scene.resources.len()).unwrap_or(u16::MAX);
        Ok(Self {
            classes: scene.classes.clone(),
            totals: scene.classes.iter().map(Class::total).collect(),
            tree: Tree::build(resources, scene.queues.clone()).map_err(|error| Error::Usage(error.to_string()))?,
            nodes: scene.layout.as_ref().map(|layout| Nodes::new(layout, usize::from(resources))),
            waiting: BTreeSet::new(),
            held: HashMap::new(),
            most,
        })
    }

    fn total(&self, class: u16) -> &[(ResourceIx, i64)] {
        self.totals.get(usize::from(class)).map_or(&[], Vec::as_slice)
    }

    /// Takes quota and nodes; absent if it does not fit.
    fn hold(&mut self, queue: NodeIx, class: u16) -> Option<Vec<(u32, u32)>> {
        self.tree.fits(queue, self.total(class)).ok()?;
        let of = self.classes.get(usize::from(class))?;
        let placed = match &mut self.nodes {
            Some(nodes) => nodes.place(of).filter(|placed| nodes.take(of, placed))?,
            None => Vec::new(),
        };
        let Self { tree, totals, .. } = self;
        tree.add(queue, totals.get(usize::from(class)).map_or(&[], Vec::as_slice));
        Some(placed)
    }
}

impl QuotaScheduler for Greedy {
    fn submit(&mut self, now: Ms, workload: WorkloadIx, queue: NodeIx, class: u16) {
        let priority = self.classes.get(usize::from(class)).map_or(0, |class| class.priority);
        self.waiting.insert((Reverse(priority), now, workload, queue, class));
    }

    fn finish(&mut self, _now: Ms, workload: WorkloadIx) {
        let Some((queue, class, placed)) = self.held.remove(&workload) else { return };
        let Self { tree, totals, nodes, classes, .. } = self;
        tree.remove(queue, totals.get(usize::from(class)).map_or(&[], Vec::as_slice));
        if let (Some(nodes), Some(class)) = (nodes, classes.get(usize::from(class))) {
            nodes.give(class, &placed);
        }
    }

    fn evicted(&mut self, _now: Ms, _workload: WorkloadIx) {}

    fn cycle(&mut self, now: Ms, orders: &mut Orders) -> Option<Ms> {
        // One refusal stands for all of the same queue and class.
        let mut refused: BTreeSet<(NodeIx, u16)> = BTreeSet::new();
        let mut admitted = Vec::new();
        let mut waiting = std::mem::take(&mut self.waiting);
        for entry in &waiting {
            let (_, _, workload, queue, class) = *entry;
            if admitted.len() >= self.most {
                break;
            }
            if refused.contains(&(queue, class)) {
                continue;
            }
            match self.hold(queue, class) {
                Some(nodes) => {
                    self.held.insert(workload, (queue, class, nodes.clone()));
                    orders.admit.push(Admission { workload, nodes });
                    admitted.push(*entry);
                }
                None => {
                    refused.insert((queue, class));
                }
            }
        }
        for entry in &admitted {
            waiting.remove(entry);
        }
        self.waiting = waiting;
        (!admitted.is_empty()).then_some(now)
    }
}
