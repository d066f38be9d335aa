//! Kueue's quotas, per flavor and resource, as those of a Queue, per resource: flavors are summed up, GPUs also by class.
//!
//! Sums are in billionths, as exact as quantities are, and rounded down at the end: never more than in Kueue.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tidegate_core::names::Class;
use tidegate_core::state::Resource;

use super::documents::Document;
use super::spec::{FlavorQuotas, ResourceGroup, ResourceQuota};
use crate::kinds;
use crate::manifest::Problem;
use crate::quantity::{self, NANO};

/// The resource of whole GPUs.
const GPU: &str = "nvidia.com/gpu";
const GROUPS: &str = "spec.resourceGroups";

/// What is known of flavors.
#[derive(Clone, Debug, Default)]
pub struct Flavors {
    /// The GPU class that each names, if it does.
    pub classes: BTreeMap<String, Option<Class>>,
    /// Those of which there are quotas of GPUs.
    pub with_gpus: BTreeSet<String>,
}

impl Flavors {
    /// The class of a flavor's GPUs.
    pub fn class(&self, flavor: &str) -> Option<&Class> {
        self.classes.get(flavor).and_then(Option::as_ref)
    }

    /// Every class of which there are quotas.
    pub fn all_classes(&self) -> BTreeSet<Class> {
        self.with_gpus.iter().filter_map(|flavor| self.class(flavor)).cloned().collect()
    }
}

/// Whose quotas: what the absence of a lending limit means differs where children lend too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    ClusterQueue,
    Cohort,
}

/// Of one resource, in billionths of a device, a core or a byte. A limit that is absent is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amounts {
    nominal: i128,
    borrowing: Option<i128>,
    lending: Option<i128>,
}

const CLOSED: Amounts = Amounts { nominal: 0, borrowing: Some(0), lending: None };

/// The quotas of one Queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    amounts: BTreeMap<Resource, Amounts>,
    /// Some flavor with GPUs names no class.
    any_class: bool,
}

/// What one flavor says of one resource.
struct Part<'a> {
    flavor: &'a str,
    amounts: Amounts,
}

type Parts<'a> = BTreeMap<Resource, Vec<Part<'a>>>;

impl Quotas {
    /// The sums over the flavors of an object.
    pub fn of(
        document: &Document,
        groups: &[ResourceGroup],
        role: Role,
        known: &mut Flavors,
        problems: &mut Vec<Problem>,
        told: &mut Vec<Problem>,
    ) -> Self {
        let mut parts = Parts::new();
        let mut others = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (path, flavor, quota) in entries(groups) {
            if !seen.insert((&flavor.name, &quota.name)) {
                problems.push(document.problem(&path, "is the second quota of this flavor and resource", "keep one of the two"));
            }
            let amounts = amounts(document, &path, quota, problems);
            let part = |resource| (resource, Part { flavor: &flavor.name, amounts });
            let parts_of = match quota.name.as_str() {
                "cpu" => vec![part(Resource::Cpu)],
                "memory" => vec![part(Resource::Memory)],
                GPU => {
                    if known.with_gpus.insert(flavor.name.clone()) && !known.classes.contains_key(&flavor.name) {
                        told.push(unknown(document, &flavor.name));
                    }
                    let class = known.class(&flavor.name).cloned().map(Resource::Class);
                    class.into_iter().chain([Resource::Gpu]).map(part).collect()
                }
                other => {
                    others.entry(other).or_insert(path);
                    Vec::new()
                }
            };
            for (resource, part) in parts_of {
                parts.entry(resource).or_default().push(part);
            }
        }
        for (resource, path) in others {
            let what = format!("is a quota of {resource}, which is not counted, and is left out");
            told.push(document.remark(&format!("{path}.nominalQuota"), &what, "work is limited by what nodes have of it"));
        }
        Self::summed_up(document, &parts, role, known, told)
    }

    fn summed_up(document: &Document, parts: &Parts<'_>, role: Role, known: &Flavors, told: &mut Vec<Problem>) -> Self {
        let classless = |part: &&Part<'_>| known.class(part.flavor).is_none();
        let gpu = parts.get(&Resource::Gpu).map(Vec::as_slice).unwrap_or_default();
        let any_class = gpu.iter().any(|part| classless(&part));
        for (resource, parts) in parts {
            // GPUs of flavors with classes are told of by class.
            let told_of: Vec<&Part<'_>> = parts.iter().filter(|part| *resource != Resource::Gpu || classless(part)).collect();
            told.extend(merged(document, resource, &told_of));
        }
        if any_class && gpu.iter().any(|part| !classless(&part)) {
            let what = format!(
                "has flavors with and without a GPU class: GPUs of {} count as `gpu`",
                flavors(gpu.iter().filter(classless))
            );
            told.push(document.remark(
                GROUPS,
                &what,
                "name a class in the nodeLabels of each ResourceFlavor to have quotas by class",
            ));
        }
        Self { amounts: parts.iter().map(|(resource, parts)| (resource.clone(), sum(parts, role))).collect(), any_class }
    }

    /// The resources of which something was said.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.amounts.keys()
    }

    /// What a ClusterQueue does not list it may not borrow. CPU and memory stay open: pods nearly always ask for them.
    pub fn close_others(&mut self, classes: &BTreeSet<Class>) {
        let gpus = self.amounts.contains_key(&Resource::Gpu);
        self.amounts.entry(Resource::Gpu).or_insert(CLOSED);
        if gpus && !self.any_class {
            for class in classes {
                self.amounts.entry(Resource::Class(class.clone())).or_insert(CLOSED);
            }
        }
    }

    /// Nothing of these resources is borrowed from or lent to what is outside of the tree below.
    pub fn close(&mut self, resources: &BTreeSet<Resource>) {
        for resource in resources.iter().chain([&Resource::Gpu]) {
            let amounts = self.amounts.entry(resource.clone()).or_default();
            *amounts = Amounts { borrowing: Some(0), lending: Some(0), ..*amounts };
        }
    }

    /// As a Queue says it; what is rounded is told.
    pub fn written(&self, document: Option<&Document>, told: &mut Vec<Problem>) -> Vec<kinds::ResourceQuota> {
        let has_class = self.amounts.keys().any(|resource| matches!(resource, Resource::Class(_)));
        let open = |amounts: &Amounts| amounts.borrowing.is_none() && amounts.lending.is_none();
        // Who has quotas of classes alone owns as many `gpu`: no need to say so.
        let implied =
            |resource: &Resource, amounts: &Amounts| *resource == Resource::Gpu && has_class && !self.any_class && open(amounts);
        let written = self.amounts.iter().filter(|(resource, amounts)| !implied(resource, amounts));
        let mut quotas = Vec::new();
        for (resource, amounts) in written {
            let unit = if *resource == Resource::Memory { NANO << 20 } else { NANO };
            let units = |nano: i128| u64::try_from(nano / unit).unwrap_or(u64::MAX);
            let all = [Some(amounts.nominal), amounts.borrowing, amounts.lending];
            let resource = String::from(resource.clone());
            if let Some(document) = document
                && all.into_iter().flatten().any(|nano| nano % unit != 0)
            {
                let what = format!("has amounts of {resource} that are not whole {} and are rounded down", unit_name(&resource));
                told.push(document.remark(GROUPS, &what, "write more if less is too little"));
            }
            quotas.push(kinds::ResourceQuota {
                resource,
                nominal: units(amounts.nominal),
                borrowing_limit: amounts.borrowing.map(units),
                lending_limit: amounts.lending.map(units),
            });
        }
        quotas
    }
}

fn entries(groups: &[ResourceGroup]) -> impl Iterator<Item = (String, &FlavorQuotas, &ResourceQuota)> {
    groups.iter().enumerate().flat_map(|(group, ResourceGroup { flavors })| {
        flavors.iter().enumerate().flat_map(move |(at, flavor)| {
            let path = move |resource| format!("{GROUPS}[{group}].flavors[{at}].resources[{resource}]");
            flavor.resources.iter().enumerate().map(move |(resource, quota)| (path(resource), flavor, quota))
        })
    })
}

fn amounts(document: &Document, path: &str, quota: &ResourceQuota, problems: &mut Vec<Problem>) -> Amounts {
    let mut read = |field: &str, quantity: &Quantity| amount(document, &format!("{path}.{field}"), quantity, problems);
    Amounts {
        nominal: read("nominalQuota", &quota.nominal_quota),
        borrowing: quota.borrowing_limit.as_ref().map(|limit| read("borrowingLimit", limit)),
        lending: quota.lending_limit.as_ref().map(|limit| read("lendingLimit", limit)),
    }
}

/// A quantity of 0 or more in billionths.
pub fn amount(document: &Document, path: &str, quantity: &Quantity, problems: &mut Vec<Problem>) -> i128 {
    let mut wrong = |what: &str, remedy: &str| {
        problems.push(document.problem(path, what, remedy));
        0
    };
    match quantity::nano(quantity) {
        None => wrong("is not a quantity", "write one as Kubernetes does: 8, 500m, 1.5Gi"),
        Some(nano) if nano < 0 => wrong("is below 0", "write 0 or more"),
        Some(nano) => nano,
    }
}

fn sum(parts: &[Part<'_>], role: Role) -> Amounts {
    let all = |limit: fn(&Amounts) -> Option<i128>| {
        parts.iter().map(|part| limit(&part.amounts)).try_fold(0_i128, |sum, limit| Some(sum.saturating_add(limit?)))
    };
    // A ClusterQueue lends at most what it owns, so that a flavor without a limit lends just that.
    let lent = |part: &Part<'_>| part.amounts.lending.map_or(part.amounts.nominal, |limit| limit.min(part.amounts.nominal));
    let limited = parts.iter().any(|part| part.amounts.lending.is_some());
    Amounts {
        nominal: parts.iter().fold(0, |sum, part| sum.saturating_add(part.amounts.nominal)),
        borrowing: all(|amounts| amounts.borrowing),
        lending: match role {
            Role::ClusterQueue => limited.then(|| parts.iter().map(lent).fold(0, i128::saturating_add)),
            Role::Cohort => all(|amounts| amounts.lending),
        },
    }
}

/// What is told of several flavors that are one quota.
fn merged(document: &Document, resource: &Resource, parts: &[&Part<'_>]) -> Option<Problem> {
    if parts.len() < 2 {
        return None;
    }
    let resource = String::from(resource.clone());
    let mut what = format!("counts {resource} of the flavors {} together", flavors(parts.iter().copied()));
    let limited = parts.iter().filter(|part| part.amounts.borrowing.is_some()).count();
    if (1..parts.len()).contains(&limited) {
        what.push_str(", without a borrowing limit since not all have one");
    }
    let remedy = match resource.as_str() {
        "cpu" | "memory" => "nothing to do unless flavors must be limited one by one: there is no quota of a part of the nodes",
        _ => "give their nodes different labels tidegate.dev/gpu-class, and the ResourceFlavors the same, to tell them apart",
    };
    Some(document.remark(GROUPS, &what, remedy))
}

fn unknown(document: &Document, flavor: &str) -> Problem {
    let what = format!("names the flavor {flavor}, which is not in the input: its GPUs count as of any class");
    document.remark(GROUPS, &what, "add its ResourceFlavor to the input to have quotas by class")
}

fn flavors<'a>(parts: impl Iterator<Item = &'a Part<'a>>) -> String {
    parts.map(|part| part.flavor).collect::<Vec<_>>().join(", ")
}

fn unit_name(resource: &str) -> &'static str {
    match resource {
        "cpu" => "cores",
        "memory" => "MiB",
        _ => "devices",
    }
}
