//! One object of Kueue on its way to a Queue: what it says by itself, then what its neighbours make of it.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::state::Resource;

use super::documents::Document;
use super::names::{Names, is_object_name};
use super::quotas::{Flavors, Quotas, Role, amount};
use super::read::{Found, Input};
use super::spec::{ClusterQueue, FairSharing, QueueingStrategy};
use super::told;
use super::tree::Planned;
use super::weights::Share;
use crate::kinds::{Discipline, LabelOperator, LabelRequirement, NamespaceSelector, Queue, QueueSpec};
use crate::labels;
use crate::manifest::Problem;
use crate::quantity::NANO;

/// Every namespace has this label.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
const WEIGHT: &str = "spec.fairSharing.weight";

/// An object that becomes a Queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node<'a> {
    Cohort(&'a str),
    ClusterQueue(&'a str),
}

impl<'a> Node<'a> {
    /// Its name, if it is a cohort.
    pub fn cohort(self) -> Option<&'a str> {
        if let Self::Cohort(name) = self { Some(name) } else { None }
    }

    /// Its name, if it is a ClusterQueue.
    pub fn cluster_queue(self) -> Option<&'a str> {
        if let Self::ClusterQueue(name) = self { Some(name) } else { None }
    }
}

/// What is known of it.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// The cohort above it.
    pub parent: Option<&'a str>,
    /// Absent for a cohort that is only named.
    document: Option<&'a Document>,
    pub quotas: Quotas,
    /// In billionths.
    pub weight: i128,
    told: Vec<Problem>,
}

pub type Drafts<'a> = BTreeMap<Node<'a>, Draft<'a>>;

/// All objects, each by itself, and the cohorts that they name.
pub fn drafts<'a>(input: &'a Input, flavors: &mut Flavors, problems: &mut Vec<Problem>) -> Drafts<'a> {
    let mut drafts = Drafts::new();
    for (name, Found { document, spec, told }) in &input.cohorts {
        let mut told = told.clone();
        let quotas = Quotas::of(document, &spec.resource_groups, Role::Cohort, flavors, problems, &mut told);
        let parent = parent(document, ["parentName", "parent"], spec.parent_name.as_deref(), problems);
        let weight = weight(document, &spec.fair_sharing, problems);
        drafts.insert(Node::Cohort(name), Draft { parent, document: Some(document), quotas, weight, told });
    }
    for (name, found) in &input.cluster_queues {
        let Found { document, spec, .. } = found;
        let mut told = told::cluster_queue(found);
        let quotas = Quotas::of(document, &spec.resource_groups, Role::ClusterQueue, flavors, problems, &mut told);
        let parent = parent(document, ["cohortName", "cohort"], spec.cohort_name.as_deref(), problems);
        let weight = weight(document, &spec.fair_sharing, problems);
        drafts.insert(Node::ClusterQueue(name), Draft { parent, document: Some(document), quotas, weight, told });
    }
    let named: Vec<&str> = drafts.values().filter_map(|draft| draft.parent).collect();
    for name in named {
        drafts.entry(Node::Cohort(name)).or_insert_with(Draft::only_named);
    }
    drafts
}

/// The cohort that an object names in one of these fields.
fn parent<'a>(document: &Document, fields: [&str; 2], name: Option<&'a str>, problems: &mut Vec<Problem>) -> Option<&'a str> {
    let name = name.filter(|name| !name.is_empty())?;
    if is_object_name(name) {
        return Some(name);
    }
    let there = |field: &&str| document.value.get("spec").is_some_and(|spec| spec.get(*field).is_some());
    let field = fields.into_iter().find(there).unwrap_or_default();
    problems.push(document.problem(&format!("spec.{field}"), "is not a name of a cohort", "name a Cohort"));
    None
}

fn weight(document: &Document, fair_sharing: &FairSharing, problems: &mut Vec<Problem>) -> i128 {
    fair_sharing.weight.as_ref().map_or(NANO, |weight| amount(document, WEIGHT, weight, problems))
}

impl Draft<'_> {
    fn only_named() -> Self {
        Self { parent: None, document: None, quotas: Quotas::default(), weight: NANO, told: Vec::new() }
    }

    /// What others of the tree have quotas of and this one has not, it may borrow.
    pub fn tell_of_open(&mut self, listed: &BTreeSet<Resource>) {
        let mine: BTreeSet<&Resource> = self.quotas.resources().collect();
        let open = [Resource::Cpu, Resource::Memory].into_iter().filter(|it| listed.contains(it) && !mine.contains(it));
        let open: Vec<String> = open.map(String::from).collect();
        if let Some(document) = self.document.filter(|_| !open.is_empty()) {
            let what = format!(
                "lists no {}: such work is not let in by Kueue; the Queue borrows it from its cohort",
                open.join(" and no ")
            );
            let remedy = "add quotas of it with borrowingLimit 0 to forbid that";
            self.told.push(document.remark("spec.resourceGroups", &what, remedy));
        }
    }

    /// The Queue.
    pub fn into_queue(self, node: Node<'_>, share: &Share, names: &Names, input: &Input) -> Planned {
        let Self { parent, document, quotas, told: lost, .. } = self;
        let (old, name) = match node {
            Node::Cohort(name) => (name, names.cohorts.get(name)),
            Node::ClusterQueue(name) => (name, names.cluster_queues.get(name)),
        };
        let name = name.map_or(old, String::as_str);
        let mut told: Vec<Problem> = renamed(node, old, name, document).into_iter().collect();
        told.extend(lost);
        if let (Some(document), Some(what)) = (document, &share.told) {
            told.push(document.remark(WEIGHT, what, "change it if shares should differ"));
        }
        let spec = QueueSpec {
            parent: parent.and_then(|cohort| names.cohorts.get(cohort)).cloned(),
            quotas: quotas.written(document, &mut told),
            weight: share.weight,
            priority: share.priority,
            ..node.cluster_queue().and_then(|name| input.cluster_queues.get(name)).map(own).unwrap_or_default()
        };
        let place = document.map_or_else(|| format!("cohort {old}"), |document| document.place.clone());
        Planned { place, queue: Queue::new(name, spec), told }
    }
}

/// What only a ClusterQueue says.
fn own(found: &Found<ClusterQueue>) -> QueueSpec {
    let selector = found.spec.namespace_selector.clone().unwrap_or_else(no_namespace);
    QueueSpec {
        // Empty selects every namespace, as absent does.
        namespace_selector: Some(selector).filter(|selector| *selector != NamespaceSelector::default()),
        discipline: match found.spec.queueing_strategy {
            QueueingStrategy::Strict => Discipline::StrictFifo,
            QueueingStrategy::BestEffort => Discipline::BestEffort,
        },
        ..QueueSpec::default()
    }
}

fn no_namespace() -> NamespaceSelector {
    let lacks_name =
        LabelRequirement { key: NAMESPACE_NAME.to_owned(), operator: LabelOperator::DoesNotExist, values: Vec::new() };
    NamespaceSelector { match_expressions: vec![lacks_name], ..NamespaceSelector::default() }
}

/// What is told of another name.
fn renamed(node: Node<'_>, old: &str, name: &str, document: Option<&Document>) -> Option<Problem> {
    if old == name {
        return None;
    }
    let why = "names of Queues are distinct DNS labels";
    let remedy = match node {
        Node::Cohort(_) => "nothing to do: pods name no cohort".to_owned(),
        Node::ClusterQueue(_) => format!("write {}: {name} in the pods", labels::QUEUE),
    };
    let what = format!("becomes the Queue {name}: {why}");
    match document {
        Some(document) => Some(document.remark("metadata.name", &what, &remedy)),
        None => Some(Problem::of_file(&format!("cohort {old}"), &what, &remedy)),
    }
}
