//! From what owners wrote down to a [`Tree`]: every mistake is refused by name before anything is computed from it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Cell, NONE, NodeIx, QueueQuota, Quota, ResourceIx, Tree};
use crate::names::QueueName;

/// Why queues are not a tree. Each names the queue, what was found and what to do.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum QuotaError {
    /// Two queues of one name.
    #[error("queue `{queue}` is there twice: rename one")]
    Twice { queue: QueueName },
    /// Two queues named `""`.
    #[error("there are two roots: two queues have the empty name; keep one of them or name the other")]
    TwoRoots,
    /// The root may not hang below another queue.
    #[error("the root, the queue with the empty name, names the parent `{parent}`: leave its parent out")]
    RootBelow { parent: QueueName },
    /// The parent is not in the list.
    #[error("queue `{queue}` names the parent `{parent}`, which does not exist: create `{parent}` or name another")]
    NoParent { queue: QueueName, parent: QueueName },
    /// A queue is below itself.
    #[error("queue `{queue}` is below itself ({path}): give one of these another parent")]
    Cycle { queue: QueueName, path: String },
    /// A nominal quota or a limit below zero.
    #[error("queue `{queue}`: {field} of resource {resource} is {found}: it must be 0 or more")]
    Negative { queue: QueueName, resource: ResourceIx, field: &'static str, found: i64 },
    /// Weight 0: the queue would never get anything that is left over.
    #[error("queue `{queue}`: weight is 0: it must be above 0")]
    NoWeight { queue: QueueName },
    /// One resource twice in one queue.
    #[error("queue `{queue}`: resource {resource} has two quotas: keep one")]
    ResourceTwice { queue: QueueName, resource: ResourceIx },
    /// An index beyond the number of resources.
    #[error("queue `{queue}`: resource {resource} is unknown: there are {resources}")]
    NoResource { queue: QueueName, resource: ResourceIx, resources: ResourceIx },
    /// Usage of a node or resource that the tree does not have; only in a damaged snapshot.
    #[error("usage at node {node} of resource {resource} is {found}: the snapshot is damaged")]
    Usage { node: u32, resource: ResourceIx, found: i64 },
}

/// The serialised form: the queues as written and what was added at each of them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    resources: ResourceIx,
    queues: Vec<QueueQuota>,
    usage: Vec<(u32, ResourceIx, i64)>,
}

impl From<Tree> for Saved {
    fn from(tree: Tree) -> Self {
        let usage = tree.own_usages().map(|(node, resource, amount)| (node.0, resource, amount)).collect();
        Self { resources: tree.resources, queues: tree.queues, usage }
    }
}

impl TryFrom<Saved> for Tree {
    type Error = QuotaError;

    fn try_from(saved: Saved) -> Result<Self, QuotaError> {
        let mut tree = Tree::build(saved.resources, saved.queues)?;
        for (node, resource, found) in saved.usage {
            if found < 0 || resource >= tree.resources || node as usize >= tree.len() {
                return Err(QuotaError::Usage { node, resource, found });
            }
            tree.add_usage(NodeIx(node), resource, found);
        }
        Ok(tree)
    }
}

impl Tree {
    /// A tree without usage. Queue `i` of the list becomes [`NodeIx`]`(i)`; the root, unless it is in the list, comes last.
    pub fn build(resources: ResourceIx, mut queues: Vec<QueueQuota>) -> Result<Self, QuotaError> {
        for queue in &queues {
            check(queue, resources)?;
        }
        let root = QueueName::default();
        if !queues.iter().any(|queue| queue.name == root) {
            queues.push(QueueQuota { name: root.clone(), parent: None, weight_milli: 1000, quotas: Vec::new() });
        }
        let index = index(&queues)?;
        let parents = parents(&queues, &index)?;
        let order = order(&queues, &parents)?;
        let mut children = vec![Vec::new(); queues.len()];
        for (node, parent) in (0..).zip(&parents) {
            if let Some(siblings) = children.get_mut(*parent as usize) {
                siblings.push(NodeIx(node));
            }
        }
        let cells = vec![Cell::default(); queues.len() * usize::from(resources)];
        let root = index.get(&root).copied().unwrap_or(NodeIx(0));
        let mut tree = Self { resources, queues, index, parents, children, order, root, cells };
        tree.sum_up();
        Ok(tree)
    }

    /// The tree of other queues with this one's usage where a queue of the same name is still there. What was used at
    /// queues that are gone is not counted any more: the caller moves that work first, or holds it.
    pub fn rebuilt(&self, queues: Vec<QueueQuota>) -> Result<Self, QuotaError> {
        let mut tree = Self::build(self.resources, queues)?;
        for (node, resource, amount) in self.own_usages() {
            if let Some(node) = self.queue(node).and_then(|queue| tree.node(&queue.name)) {
                tree.add_usage(node, resource, amount);
            }
        }
        Ok(tree)
    }

    /// What was added at each node and is above 0.
    pub fn own_usages(&self) -> impl Iterator<Item = (NodeIx, ResourceIx, i64)> + '_ {
        let nodes = (0..).map(NodeIx).take(self.len());
        let each = nodes.flat_map(|node| (0..self.resources).map(move |resource| (node, resource)));
        each.map(|(node, resource)| (node, resource, self.own_usage(node, resource))).filter(|(_, _, amount)| *amount != 0)
    }

    /// Computes what each node brings in and keeps, children first.
    fn sum_up(&mut self) {
        for at in 0..self.order.len() {
            let Some(node) = self.order.get(at).copied() else { continue };
            for resource in 0..self.resources {
                let lent = self.children(node).iter().map(|child| self.cell(*child, resource));
                let lent = lent.fold(0_i64, |sum, child| sum.saturating_add(child.subtree - child.local));
                let cell = cell(self.quota(node, resource), lent);
                if let Some(slot) = self.cell_mut(node.0, resource) {
                    *slot = cell;
                }
            }
        }
    }
}

fn cell(quota: Quota, lent: i64) -> Cell {
    let subtree = quota.nominal.saturating_add(lent);
    let local = quota.lending_limit.map_or(0, |limit| subtree.saturating_sub(limit).max(0));
    let beyond = quota.borrowing_limit.map_or(i64::MAX, |limit| (subtree - local).saturating_add(limit));
    Cell { usage: 0, subtree, local, beyond }
}

fn check(queue: &QueueQuota, resources: ResourceIx) -> Result<(), QuotaError> {
    let name = || queue.name.clone();
    if queue.weight_milli == 0 {
        return Err(QuotaError::NoWeight { queue: name() });
    }
    let mut seen = BTreeSet::new();
    for (resource, quota) in &queue.quotas {
        let resource = *resource;
        if resource >= resources {
            return Err(QuotaError::NoResource { queue: name(), resource, resources });
        }
        if !seen.insert(resource) {
            return Err(QuotaError::ResourceTwice { queue: name(), resource });
        }
        let limits = [("borrowing limit", quota.borrowing_limit), ("lending limit", quota.lending_limit)];
        for (field, found) in [("nominal quota", Some(quota.nominal))].into_iter().chain(limits) {
            if let Some(found) = found.filter(|found| *found < 0) {
                return Err(QuotaError::Negative { queue: name(), resource, field, found });
            }
        }
    }
    Ok(())
}

fn index(queues: &[QueueQuota]) -> Result<BTreeMap<QueueName, NodeIx>, QuotaError> {
    let mut index = BTreeMap::new();
    for (node, queue) in (0..).zip(queues) {
        if index.insert(queue.name.clone(), NodeIx(node)).is_some() {
            let root = queue.name.0.is_empty();
            return Err(if root { QuotaError::TwoRoots } else { QuotaError::Twice { queue: queue.name.clone() } });
        }
    }
    Ok(index)
}

fn parents(queues: &[QueueQuota], index: &BTreeMap<QueueName, NodeIx>) -> Result<Vec<u32>, QuotaError> {
    let root = QueueName::default();
    let parent = |queue: &QueueQuota| match &queue.parent {
        Some(parent) if queue.name == root => Err(QuotaError::RootBelow { parent: parent.clone() }),
        None if queue.name == root => Ok(NONE),
        parent => {
            let parent = parent.as_ref().unwrap_or(&root);
            let missing = || QuotaError::NoParent { queue: queue.name.clone(), parent: parent.clone() };
            index.get(parent).map(|node| node.0).ok_or_else(missing)
        }
    };
    queues.iter().map(parent).collect()
}

/// All nodes, children first; refuses a cycle.
fn order(queues: &[QueueQuota], parents: &[u32]) -> Result<Vec<NodeIx>, QuotaError> {
    let parent = |node: u32| parents.get(node as usize).copied().unwrap_or(NONE);
    let mut waiting = vec![0_u32; queues.len()];
    for above in parents {
        if let Some(waiting) = waiting.get_mut(*above as usize) {
            *waiting += 1;
        }
    }
    let mut order: Vec<NodeIx> = (0..).zip(&waiting).filter(|(_, below)| **below == 0).map(|(node, _)| NodeIx(node)).collect();
    let mut next = 0;
    while let Some(node) = order.get(next).copied() {
        next += 1;
        let above = parent(node.0);
        if let Some(waiting) = waiting.get_mut(above as usize) {
            *waiting -= 1;
            if *waiting == 0 {
                order.push(NodeIx(above));
            }
        }
    }
    let stuck = (0..).zip(&waiting).find(|(_, below)| **below > 0).map(|(node, _)| node);
    stuck.map_or(Ok(order), |node| Err(cycle(queues, parent, node)))
}

/// Names the cycle that `node` is on or leads to. Every node that was never freed has a freed-never child, so walking up
/// from it ends in the cycle.
fn cycle(queues: &[QueueQuota], parent: impl Fn(u32) -> u32, node: u32) -> QuotaError {
    let mut seen = Vec::new();
    let mut at = node;
    while !seen.contains(&at) {
        seen.push(at);
        at = parent(at);
    }
    let names = seen.iter().skip_while(|seen| **seen != at).chain(std::iter::once(&at));
    let name = |node: &u32| queues.get(*node as usize).map_or_else(String::new, |queue| queue.name.to_string());
    let path: Vec<String> = names.map(name).collect();
    QuotaError::Cycle { queue: QueueName::from(name(&at)), path: path.join(" > ") }
}
