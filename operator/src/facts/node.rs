//! A node: what it has for work, and what keeps work away from it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{self, Node};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use tidegate_api::{labels, quantity};
use tidegate_core::mig::Instance;
use tidegate_core::names::Class;
use tidegate_core::node::{Effect, MAX_DEVICES, Taint};

/// The resource of whole GPUs.
pub const GPU: &str = "nvidia.com/gpu";
/// The resource of a node's own disk.
pub const STORAGE: &str = "ephemeral-storage";
/// Label that tells the engine how much of that disk is free, in MiB: it does not know disks. No label of Kubernetes has a colon.
pub const FREE_STORAGE_LABEL: &str = "ephemeral-storage:free-mib";
/// Where nodes can be named by a requirement on labels: the API's field of the same name.
pub const NAME_LABEL: &str = "metadata.name";
/// What GPU feature discovery says of the memory of a node's GPUs.
const PRODUCT_MIB: &str = "nvidia.com/gpu.memory";
/// What the resources of MIG instances begin with: such an instance is a device of a class of its own, `mig-1g.10gb`.
pub const MIG: &str = "nvidia.com/mig-";
/// A class when nothing tells it.
const UNKNOWN_CLASS: &str = "gpu";
/// The memory of a device of which none is known.
pub const UNKNOWN_MIB: u64 = 81_920;
/// What `kubectl cordon` means.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    /// With [`NAME_LABEL`].
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub storage_mib: u64,
    /// Pods that it takes.
    pub pods: u64,
    /// Whole GPUs with those that are not well: pods that hold these are there all the same.
    pub all_gpus: u64,
    /// What it gives away by count: whole GPUs first, then parts of GPUs. A node has at most [`MAX_DEVICES`] of all kinds.
    pub devices: Vec<Counted>,
}

/// Devices of one kind that a node gives away by count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub count: u32,
    pub class: Class,
    pub memory_mib: u64,
    /// They are parts of GPUs, so many thousandths of one each.
    pub part: Option<u16>,
}

/// The class of the parts of GPUs that a resource is.
pub fn part_class(resource: &str) -> Option<&str> {
    resource.starts_with(MIG).then(|| resource.trim_start_matches("nvidia.com/"))
}

impl NodeFacts {
    /// What the object says.
    pub fn of(node: &Node) -> Self {
        let name = node.name_any();
        let mut all = node.metadata.labels.clone().unwrap_or_default();
        all.insert(NAME_LABEL.to_owned(), name.clone());
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let has = |resource: &str, read: fn(&Quantity) -> u64| allocatable.and_then(|all| all.get(resource)).map_or(0, read);
        let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref()?.get(GPU)).map_or(0, quantity::whole);
        Self {
            taints: taints(node),
            cpu_milli: has("cpu", quantity::milli),
            memory_mib: has("memory", quantity::mib_there),
            storage_mib: has(STORAGE, quantity::mib_there),
            pods: has("pods", quantity::whole),
            all_gpus: capacity.max(has(GPU, quantity::whole)),
            devices: devices(allocatable, &all),
            name,
            labels: all,
        }
    }
}

fn devices(allocatable: Option<&BTreeMap<String, Quantity>>, labels: &BTreeMap<String, String>) -> Vec<Counted> {
    let gpu_mib = labels.get(PRODUCT_MIB).and_then(|mib| mib.parse().ok());
    let whole = |count: u32| {
        let class = labels::gpu_class(labels).unwrap_or_else(|| UNKNOWN_CLASS.to_owned());
        Counted { count, class: class.into(), memory_mib: gpu_mib.unwrap_or(UNKNOWN_MIB), part: None }
    };
    let part = |class: &str, count: u32| {
        let instance = class.strip_prefix(labels::MIG_CLASS).and_then(|profile| Instance::of(profile, gpu_mib));
        // One that is no profile's counts as a whole GPU.
        let (memory_mib, part) = instance.map_or((UNKNOWN_MIB, 1000), |instance| (instance.memory_mib, instance.part));
        Counted { count, class: class.into(), memory_mib, part: Some(part) }
    };
    let all = allocatable.into_iter().flatten();
    let found = all.filter_map(|(resource, quantity)| {
        let count = u32::try_from(quantity::whole(quantity)).unwrap_or(u32::MAX);
        if resource == GPU { Some(whole(count)) } else { Some(part(part_class(resource)?, count)) }
    });
    let mut devices: Vec<Counted> = found.filter(|devices| devices.count > 0).collect();
    let mut left = u32::try_from(MAX_DEVICES).unwrap_or(u32::MAX);
    for counted in &mut devices {
        counted.count = counted.count.min(left);
        left -= counted.count;
    }
    devices
}

fn taints(node: &Node) -> Vec<Taint> {
    let spec = node.spec.as_ref();
    let told = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let mut taints: Vec<Taint> = told.iter().filter_map(taint).collect();
    let cordoned = spec.is_some_and(|spec| spec.unschedulable == Some(true));
    if cordoned && taints.iter().all(|taint| taint.key != CORDONED) {
        taints.push(Taint::new(CORDONED));
    }
    taints
}

/// Taints that are only a wish keep nothing away.
fn taint(taint: &v1::Taint) -> Option<Taint> {
    let effect = effect(&taint.effect)?;
    Some(Taint { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default(), effect })
}

/// Kubernetes' word for an effect that keeps work away.
pub fn effect(word: &str) -> Option<Effect> {
    match word {
        "NoSchedule" => Some(Effect::NoSchedule),
        "NoExecute" => Some(Effect::NoExecute),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "tests write JSON in place")]
    fn node(spec: Value, labels: Value) -> NodeFacts {
        let node = json!({
            "metadata": {"name": "n1", "labels": labels}, "spec": spec,
            "status": {"allocatable": {"cpu": "3920m", "memory": "15Gi", "pods": "110", "nvidia.com/gpu": "8"}},
        });
        NodeFacts::of(&serde_json::from_value(node).unwrap())
    }

    #[test]
    fn a_node_offers_what_is_allocatable() {
        let found = node(
            json!({}),
            json!({"zone": "a", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}),
        );
        assert_eq!((found.cpu_milli, found.memory_mib, found.pods), (3920, 15_360, 110));
        let gpus = Counted { count: 8, class: "H100-80GB-HBM3".into(), memory_mib: 81_559, part: None };
        assert_eq!(found.devices, [gpus]);
        assert_eq!(found.labels[NAME_LABEL], "n1");
    }

    #[test]
    fn a_label_of_ours_names_the_class_before_any_other() {
        let found = node(json!({}), json!({"tidegate.dev/gpu-class": "H100", "nvidia.com/gpu.product": "NVIDIA-A"}));
        assert_eq!(found.devices[0].class, "H100".into());
        assert_eq!(node(json!({}), json!({})).devices[0].class, UNKNOWN_CLASS.into());
    }

    #[test]
    fn instances_of_each_profile_are_devices_of_a_class_of_their_own() {
        let node = json!({
            "metadata": {"name": "n1", "labels": {"nvidia.com/gpu.memory": "81559"}},
            "status": {"allocatable": {
                "nvidia.com/gpu": "4", "nvidia.com/mig-1g.10gb": "7", "nvidia.com/mig-1g.20gb": "2", "nvidia.com/mig-3g.40gb": "0",
                "nvidia.com/mig-odd": "80", "nvidia.com/gpu.shared": "9",
            }},
        });
        let found = NodeFacts::of(&serde_json::from_value(node).unwrap()).devices;
        let found: Vec<_> = found.iter().map(|of| (of.class.as_str(), of.count, of.memory_mib, of.part)).collect();
        let expected = [
            ("gpu", 4, 81_559, None),
            ("mig-1g.10gb", 7, 10_240, Some(125)),
            ("mig-1g.20gb", 2, 20_480, Some(250)),
            ("mig-odd", 51, UNKNOWN_MIB, Some(1000)),
        ];
        assert_eq!(found, expected, "and no more than the engine can tell apart");
    }

    #[test]
    fn taints_that_keep_work_away_are_taken_over_and_a_cordon_is_one() {
        let taints = json!([
            {"key": "a", "value": "1", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}, {"key": "c", "effect": "PreferNoSchedule"},
        ]);
        let found = node(json!({"taints": taints, "unschedulable": true}), json!({}));
        let keys: Vec<&str> = found.taints.iter().map(|taint| taint.key.as_str()).collect();
        assert_eq!(keys, ["a", "b", CORDONED]);
        assert_eq!((found.taints[0].value.as_str(), found.taints[1].effect), ("1", Effect::NoExecute));
    }

    #[test]
    fn a_node_that_says_nothing_has_nothing() {
        let found = NodeFacts::of(&Node::default());
        assert_eq!((found.cpu_milli, found.devices.len(), found.pods), (0, 0, 0));
    }
}
