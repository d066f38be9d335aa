//! The tree of Queues: Cohorts, also those that are only named, as inner nodes, ClusterQueues below them.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::names::Class;
use tidegate_core::state::Resource;

use super::draft::{Draft, Drafts, Node, drafts};
use super::names::{Names, names};
use super::read::Input;
use super::weights::{Share, shares};
use super::{cycles, told};
use crate::kinds::Queue;
use crate::manifest::Problem;

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Parents before children.
    pub queues: Vec<Planned>,
    /// Of what became no Queue.
    pub told: Vec<Problem>,
}

/// A Queue with what was lost on the way.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Where it comes from.
    pub place: String,
    pub queue: Queue,
    pub told: Vec<Problem>,
}

/// The Queues for all objects; what is wrong goes to `problems`.
pub fn plan(input: &Input, problems: &mut Vec<Problem>) -> Plan {
    let mut flavors = told::classes(&input.flavors);
    let mut drafts = drafts(input, &mut flavors, problems);
    let circles = circles(input, &drafts);
    if !circles.is_empty() {
        problems.extend(circles);
        return Plan::default();
    }
    let names = names(drafts.keys().filter_map(|node| node.cluster_queue()), drafts.keys().filter_map(|node| node.cohort()));
    let order = order(&drafts);
    close(&mut drafts, &order, &flavors.all_classes());
    let mut general = input.told.clone();
    general.extend(told::flavors(&input.flavors, &flavors));
    let mut local_queues = local_queues(input, &names, &mut general);
    let mut shares = shared_out(&drafts);
    let mut queues = Vec::new();
    for Placed { node, .. } in order {
        let (Some(draft), Some(share)) = (drafts.remove(&node), shares.remove(&node)) else { continue };
        let below = node.cluster_queue().and_then(|name| local_queues.remove(name)).unwrap_or_default();
        let mut planned = draft.into_queue(node, &share, &names, input);
        planned.told.extend(below);
        queues.push(planned);
    }
    Plan { queues, told: general }
}

fn circles(input: &Input, drafts: &Drafts<'_>) -> Vec<Problem> {
    let parents = drafts.iter().filter_map(|(node, draft)| Some((node.cohort()?, draft.parent))).collect();
    let problem = |circle: Vec<&str>| {
        let first = circle.first().copied()?;
        let path = format!("{} -> {first}", circle.join(" -> "));
        let what = format!("makes a circle of cohorts: {path}");
        let document = &input.cohorts.get(first)?.document;
        Some(document.problem("spec.parentName", &what, "give one of them another parent"))
    };
    cycles::cycles(&parents).into_iter().filter_map(problem).collect()
}

/// A node with the top of its tree.
struct Placed<'a> {
    node: Node<'a>,
    top: Node<'a>,
}

/// All nodes, trees one after the other, each node right before those below it.
fn order<'a>(drafts: &Drafts<'a>) -> Vec<Placed<'a>> {
    let mut children: BTreeMap<Option<&str>, Vec<Node<'a>>> = BTreeMap::new();
    for (node, draft) in drafts {
        children.entry(draft.parent).or_default().push(*node);
    }
    let tops = children.remove(&None).unwrap_or_default();
    let mut open: Vec<Placed<'a>> = tops.into_iter().rev().map(|node| Placed { node, top: node }).collect();
    let mut order = Vec::new();
    while let Some(placed) = open.pop() {
        let below = placed.node.cohort().and_then(|name| children.remove(&Some(name))).unwrap_or_default();
        open.extend(below.into_iter().rev().map(|node| Placed { node, top: placed.top }));
        order.push(placed);
    }
    order
}

/// What Kueue takes for granted: trees share nothing, and a ClusterQueue uses nothing that it does not list.
fn close<'a>(drafts: &mut Drafts<'a>, order: &[Placed<'a>], classes: &BTreeSet<Class>) {
    let mut listed: BTreeMap<Node<'_>, BTreeSet<Resource>> = BTreeMap::new();
    for Placed { node, top } in order {
        let resources = drafts.get(node).into_iter().flat_map(|draft| draft.quotas.resources().cloned());
        listed.entry(*top).or_default().extend(resources);
    }
    for Placed { node, top } in order {
        let (Some(draft), Some(listed)) = (drafts.get_mut(node), listed.get(top)) else { continue };
        if node.cluster_queue().is_some() {
            draft.tell_of_open(listed);
            draft.quotas.close_others(classes);
        }
        if node == top {
            draft.quotas.close(listed);
        }
    }
}

/// Each node's share among those beside it.
fn shared_out<'a>(drafts: &Drafts<'a>) -> BTreeMap<Node<'a>, Share> {
    let mut siblings: BTreeMap<Option<&str>, Vec<(Node<'a>, &Draft<'a>)>> = BTreeMap::new();
    for (node, draft) in drafts {
        siblings.entry(draft.parent).or_default().push((*node, draft));
    }
    let each = siblings.into_values().flat_map(|siblings| {
        let weights: Vec<i128> = siblings.iter().map(|(_, draft)| draft.weight).collect();
        siblings.into_iter().map(|(node, _)| node).zip(shares(&weights))
    });
    each.collect()
}

/// What is told of LocalQueues, by ClusterQueue; of those without one in `general`.
fn local_queues<'a>(input: &'a Input, names: &Names, general: &mut Vec<Problem>) -> BTreeMap<&'a str, Vec<Problem>> {
    let mut told_at: BTreeMap<&str, Vec<Problem>> = BTreeMap::new();
    for found in input.local_queues.values() {
        let target = found.spec.cluster_queue.as_deref().unwrap_or_default();
        let queue = names.cluster_queues.get(target).map(String::as_str);
        let told = told::local_queue(found, queue);
        match queue {
            Some(_) => told_at.entry(target).or_default().extend(told),
            None => general.extend(told),
        }
    }
    told_at
}
