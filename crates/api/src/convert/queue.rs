//! A queue's quotas in the engine's units: thousandths of devices and of cores, MiB.

use std::collections::BTreeMap;

use tidegate_core::mig::Instance;
use tidegate_core::names::QueueName;
use tidegate_core::state::{Discipline, Queue, Quota, Resource};

use super::labels;
use crate::kinds;

/// A queue of the quota tree.
pub fn queue(spec: &kinds::QueueSpec) -> Queue {
    let mut quotas: BTreeMap<Resource, Quota> = spec.quotas.iter().map(quota).collect();
    if spec.nominal.is_some() || spec.borrowing_limit.is_some() {
        quotas.insert(Resource::Gpu, short_form(spec));
    } else if let Some(sum) = sum_of_classes(&quotas).filter(|_| !quotas.contains_key(&Resource::Gpu)) {
        quotas.insert(Resource::Gpu, Quota { nominal: sum, ..Quota::default() });
    }
    Queue {
        parent: spec.parent.as_deref().map(QueueName::from),
        quotas,
        weight_milli: spec.weight * 1000,
        priority: spec.priority,
        discipline: match spec.discipline {
            kinds::Discipline::StrictFifo => Discipline::StrictFifo,
            kinds::Discipline::BestEffort => Discipline::BestEffort,
            kinds::Discipline::Responsive => Discipline::Responsive,
        },
        budget_ms: spec.budget_gpu_hours.map(|hours| hours.saturating_mul(3_600_000)),
        namespaces: spec.namespace_selector.as_ref().map(labels::selector),
    }
}

fn short_form(spec: &kinds::QueueSpec) -> Quota {
    Queue::devices(spec.nominal.unwrap_or(0), spec.borrowing_limit).quotas.remove(&Resource::Gpu).unwrap_or_default()
}

fn quota(quota: &kinds::ResourceQuota) -> (Resource, Quota) {
    let resource = Resource::from(quota.resource.clone());
    let per_unit = if resource == Resource::Memory { 1 } else { 1000 };
    let amount = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX).saturating_mul(per_unit);
    let quota = Quota {
        nominal: amount(quota.nominal),
        borrowing_limit: quota.borrowing_limit.map(amount),
        lending_limit: quota.lending_limit.map(amount),
    };
    (resource, quota)
}

/// A device counts as one of its class and as one of any: who owns four H100 owns four devices, and who owns four MIG instances owns the
/// parts of a device that these are.
fn sum_of_classes(quotas: &BTreeMap<Resource, Quota>) -> Option<i64> {
    let classes = quotas.iter().filter_map(|(resource, quota)| {
        let Resource::Class(class) = resource else { return None };
        let part = class
            .0
            .strip_prefix(crate::labels::MIG_CLASS)
            .and_then(|profile| Instance::of(profile, None))
            .map_or(1000, |of| of.part);
        Some(quota.nominal.saturating_mul(i64::from(part)) / 1000)
    });
    classes.reduce(i64::saturating_add)
}
