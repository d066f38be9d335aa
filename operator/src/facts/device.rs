//! A `ResourceSlice`: devices that a driver gives away by their names.
//!
//! Kept are those of drivers whose name contains `gpu` (`gpu.nvidia.com`, `gpu.amd.com`, `gpu.intel.com`): other devices count
//! against nobody's quota. A device is a whole GPU, a partition of one (it consumes counters), or one of which several
//! claims have shares.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{Counter, Device, DeviceAttribute, DeviceTaint, ResourceSlice};
use kube::ResourceExt;
use tidegate_api::quantity;
use tidegate_core::names::DeviceId;
use tidegate_core::node::Taint;

use super::node::{self, UNKNOWN_MIB};
use super::share::{self, Amounts, Shared};

/// What the names of drivers contain whose devices count as GPUs.
const GPU: &str = "gpu";
/// Attributes that name the product, the best first.
const PRODUCTS: [&str; 3] = ["productName", "model", "type"];
/// The attribute that names a partition's size.
const PROFILE: &str = "profile";
/// The capacity that is a device's memory.
pub const MEMORY: &str = "memory";

/// Whether a driver's devices count as GPUs.
pub fn is_gpu(driver: &str) -> bool {
    driver.contains(GPU)
}

/// A pool of a driver's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolKey {
    pub driver: String,
    pub name: String,
}

impl PoolKey {
    /// The engine's name of a device of the pool: neither a driver's nor a device's name has a slash.
    pub fn device(&self, name: &str) -> DeviceId {
        DeviceId::from(format!("{}/{}/{name}", self.driver, self.name))
    }
}

/// Driver, pool and device of [`PoolKey::device`].
pub fn parts(device: &DeviceId) -> Option<(&str, &str, &str)> {
    let (driver, rest) = device.0.split_once('/')?;
    let (pool, device) = rest.rsplit_once('/')?;
    Some((driver, pool, device))
}

/// Counters by the name of their set, in billionths.
pub type Counters = BTreeMap<String, Amounts>;

/// A `ResourceSlice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceFacts {
    pub name: String,
    pub pool: PoolKey,
    pub generation: i64,
    /// Slices of the pool in that generation.
    pub of: i64,
    /// What its pool's devices consume together at most.
    pub counters: Counters,
    /// None of a driver whose devices are no GPUs.
    pub devices: Vec<DeviceFacts>,
    /// Operations of a node that an allocation skips: it says so.
    pub skips: Option<Vec<String>>,
}

/// A device of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    pub name: String,
    /// The one node that has it.
    pub node: Option<String>,
    /// What kind of GPU it is, by `productName`, else `model`, else `type`, else the driver: as the label of a node's GPUs is written.
    pub class: String,
    pub memory_mib: u64,
    /// As they are called in the slice: what has no domain is the driver's.
    pub attributes: BTreeMap<String, Attribute>,
    pub capacity: BTreeMap<String, String>,
    /// Several claims may have it at once.
    pub several: bool,
    /// What shares of it are measured by.
    pub shared: Option<Shared>,
    /// Counters of its pool that it consumes.
    pub consumes: Counters,
    /// What the driver calls a partition of its size.
    pub profile: Option<String>,
    /// Those that keep work away.
    pub taints: Vec<Taint>,
    /// Why it is given to nobody here, as the end of "those that ...".
    pub barred: Option<&'static str>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    Text(String),
    Int(i64),
    Bool(bool),
    Version(String),
    List(Vec<Attribute>),
}

impl SliceFacts {
    /// What the object says.
    pub fn of(slice: &ResourceSlice) -> Self {
        let spec = &slice.spec;
        let pool = PoolKey { driver: spec.driver.clone(), name: spec.pool.name.clone() };
        let gpus = spec.devices.iter().flatten().filter(|_| is_gpu(&pool.driver));
        let devices = gpus.map(|device| DeviceFacts::of(device, &pool.driver, spec.node_name.as_deref()));
        Self {
            name: slice.name_any(),
            generation: spec.pool.generation,
            of: spec.pool.resource_slice_count,
            counters: spec.shared_counters.iter().flatten().map(|set| (set.name.clone(), amounts(&set.counters))).collect(),
            devices: devices.collect(),
            skips: spec.skip_node_operations.clone(),
            pool,
        }
    }
}

impl DeviceFacts {
    fn of(device: &Device, driver: &str, node: Option<&str>) -> Self {
        let all = device.attributes.iter().flatten();
        let attributes: BTreeMap<_, _> = all.filter_map(|(name, value)| Some((name.clone(), Attribute::of(value)?))).collect();
        let capacity = device.capacity.iter().flatten();
        let capacity: BTreeMap<_, _> = capacity.map(|(name, capacity)| (name.clone(), capacity.value.clone())).collect();
        let text = |wanted: &str| {
            let found = attributes.iter().find(|(name, _)| is_named(name, driver, wanted));
            found.and_then(|(_, value)| if let Attribute::Text(text) = value { Some(text.as_str()) } else { None })
        };
        let memory =
            capacity.iter().find(|(name, _)| is_named(name, driver, MEMORY)).map(|(_, amount)| quantity::mib_there(amount));
        let shared = Shared::of(device, driver).filter(|_| device.allow_multiple_allocations == Some(true));
        let product = PRODUCTS.iter().find_map(|name| text(name)).unwrap_or(driver);
        let node = node.or(device.node_name.as_deref()).filter(|node| !node.is_empty()).map(str::to_owned);
        Self {
            name: device.name.clone(),
            class: product.trim_start_matches("NVIDIA ").replace(' ', "-"),
            memory_mib: memory.filter(|mib| *mib > 0).unwrap_or(UNKNOWN_MIB),
            taints: device.taints.iter().flatten().filter_map(taint).collect(),
            barred: barred(device, shared.as_ref(), text("type"), node.is_some()),
            several: device.allow_multiple_allocations == Some(true),
            shared,
            profile: text(PROFILE).map(str::to_owned),
            consumes: consumes(device),
            capacity: capacity.into_iter().map(|(name, amount)| (name, amount.0)).collect(),
            node,
            attributes,
        }
    }

    /// What the engine calls its class: a part of a GPU is of one of its size, and one with taints of another, which only asks name that put up
    /// with them.
    pub fn engine_class(&self, of_node: Option<&str>, is_part: bool) -> String {
        let class = of_node.unwrap_or(&self.class);
        let size = || self.profile.clone().unwrap_or_else(|| format!("{}Mi", self.memory_mib));
        let class = if is_part { format!("{class}-{}", size()) } else { class.to_owned() };
        let taints: Vec<String> =
            self.taints.iter().map(|taint| format!("{}={}:{:?}", taint.key, taint.value, taint.effect)).collect();
        if taints.is_empty() { class } else { format!("{class} with taint {}", taints.join(", ")) }
    }
}

/// Whether a name in a slice of a driver's is that one of the driver's: what has no domain is.
pub fn is_named(name: &str, driver: &str, wanted: &str) -> bool {
    name.rsplit_once('/').is_none_or(|(domain, _)| domain == driver) && tail(name) == wanted
}

/// A name without its domain.
fn tail(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, name)| name)
}

/// Effects that are not known keep nothing away, as the API says.
fn taint(taint: &DeviceTaint) -> Option<Taint> {
    let effect = node::effect(&taint.effect)?;
    Some(Taint { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default(), effect })
}

fn amounts(counters: &BTreeMap<String, Counter>) -> Amounts {
    counters.iter().filter_map(|(name, counter)| Some((name.clone(), share::nano(&counter.value)?))).collect()
}

fn consumes(device: &Device) -> Counters {
    let all = device.consumes_counters.iter().flatten();
    all.map(|consumption| (consumption.counter_set.clone(), amounts(&consumption.counters))).collect()
}

fn barred(device: &Device, shared: Option<&Shared>, kind: Option<&str>, on_a_node: bool) -> Option<&'static str> {
    // `gpu` of NVIDIA, `amdgpu` and `amdgpu-partition` of AMD, `mig` and `vfio` of NVIDIA.
    let whole = kind.is_none_or(|kind| kind.contains(GPU) && !kind.contains("partition"));
    let counters = || device.consumes_counters.iter().flatten();
    let in_groups = counters().any(|consumption| consumption.compatibility_groups.as_ref().is_some_and(|all| !all.is_empty()));
    let found = [
        (in_groups, "consume counters by compatibility groups"),
        (
            device.allow_multiple_allocations == Some(true) && counters().next().is_some(),
            "consume counters and may be allocated several times",
        ),
        (
            device.allow_multiple_allocations == Some(true) && shared.is_none(),
            "may be allocated several times and have no capacity `memory` to share",
        ),
        (!whole && counters().next().is_none(), "are no whole GPU by their attribute `type`, and consume no counters"),
        (device.binding_conditions.as_ref().is_some_and(|all| !all.is_empty()), "set conditions for binding"),
        (
            device.node_allocatable_resources.as_ref().is_some_and(|all| !all.is_empty()),
            "give away a part of the node's own resources",
        ),
        (!on_a_node, "are not of one node"),
    ];
    found.into_iter().find(|(is, _)| *is).map(|(_, why)| why)
}

impl Attribute {
    fn of(attribute: &DeviceAttribute) -> Option<Self> {
        let list = |all: Option<Vec<Self>>| all.map(Self::List);
        let DeviceAttribute { bool, bools, int, ints, string, strings, version, versions } = attribute.clone();
        let one = bool.map(Self::Bool).or(int.map(Self::Int)).or(string.map(Self::Text)).or(version.map(Self::Version));
        one.or_else(|| list(bools.map(|all| all.into_iter().map(Self::Bool).collect())))
            .or_else(|| list(ints.map(|all| all.into_iter().map(Self::Int).collect())))
            .or_else(|| list(strings.map(|all| all.into_iter().map(Self::Text).collect())))
            .or_else(|| list(versions.map(|all| all.into_iter().map(Self::Version).collect())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidegate_core::node::Effect;

    use super::*;

    fn device(change: impl FnOnce(&mut Value)) -> DeviceFacts {
        let mut device = json!({
            "name": "gpu-0",
            "attributes": {
                "type": {"string": "gpu"}, "productName": {"string": "NVIDIA H100 80GB HBM3"}, "index": {"int": 0},
                "driverVersion": {"version": "570.1.0"}, "resource.kubernetes.io/pcieRoot": {"string": "pci0000:00"},
            },
            "capacity": {"memory": {"value": "81559Mi"}},
        });
        change(&mut device);
        let slice = json!({
            "metadata": {"name": "s"},
            "spec": {
                "driver": "gpu.nvidia.com", "nodeName": "n1", "pool": {"name": "n1", "generation": 3, "resourceSliceCount": 1},
                "devices": [device],
            },
        });
        SliceFacts::of(&serde_json::from_value(slice).unwrap()).devices.remove(0)
    }

    #[test]
    fn a_device_is_called_as_the_label_of_a_node_calls_its_gpus() {
        let found = device(|_| {});
        assert_eq!((found.class.as_str(), found.memory_mib, found.node.as_deref()), ("H100-80GB-HBM3", 81_559, Some("n1")));
        assert_eq!((found.barred, found.engine_class(None, false).as_str()), (None, "H100-80GB-HBM3"));
        assert_eq!(found.engine_class(Some("H100"), false), "H100", "a label of the node says another name");
        assert_eq!(found.attributes["driverVersion"], Attribute::Version("570.1.0".to_owned()));
        let model = device(|device| {
            device["attributes"] = json!({"gpu.nvidia.com/model": {"string": "X 1"}, "other.dev/productName": {"string": "Y"}});
        });
        assert_eq!(model.class, "X-1");
        assert_eq!(device(|device| device["attributes"] = json!({})).class, "gpu.nvidia.com");
        assert_eq!(device(|device| device["capacity"] = json!({})).memory_mib, UNKNOWN_MIB);
    }

    #[test]
    fn parts_and_what_has_nothing_to_share_are_left_out_with_the_reason() {
        let why = |change: fn(&mut Value)| device(change).barred.unwrap_or_default();
        let grouped = |device: &mut Value| {
            let consumed = json!([{"counterSet": "c", "counters": {"m": {"value": "1"}}, "compatibilityGroups": ["g"]}]);
            device["consumesCounters"] = consumed;
        };
        assert!(why(grouped).contains("compatibility groups"));
        let part = device(|device| {
            device["attributes"]["type"]["string"] = json!("mig");
            device["attributes"]["profile"] = json!({"string": "1g.10gb"});
            device["consumesCounters"] = json!([{"counterSet": "c", "counters": {"m": {"value": "1"}}}]);
        });
        assert_eq!((part.barred, part.engine_class(None, true).as_str()), (None, "H100-80GB-HBM3-1g.10gb"));
        let nothing_to_share = |device: &mut Value| {
            device["allowMultipleAllocations"] = json!(true);
            device["capacity"] = json!({"cores": {"value": "100"}});
        };
        assert!(why(nothing_to_share).contains("several times"));
        let shared = device(|device| device["allowMultipleAllocations"] = json!(true));
        assert!(shared.barred.is_none() && shared.several && shared.shared.is_some());
        for kind in ["mig", "vfio", "amdgpu-partition"] {
            let found = device(|device| device["attributes"]["type"]["string"] = json!(kind));
            assert!(found.barred.is_some_and(|why| why.contains("no whole GPU")), "{kind}");
        }
        assert!(why(|device| device["bindingConditions"] = json!(["ready"])).contains("conditions"));
        assert_eq!(device(|device| device["attributes"]["type"]["string"] = json!("amdgpu")).barred, None);
    }

    #[test]
    fn a_device_with_taints_is_of_a_class_of_its_own() {
        let found = device(|device| {
            device["taints"] = json!([{"key": "sick", "value": "xid", "effect": "NoSchedule"}, {"key": "b", "effect": "None"}]);
        });
        assert_eq!((found.taints.len(), found.taints[0].effect), (1, Effect::NoSchedule));
        assert_eq!(found.engine_class(None, false), "H100-80GB-HBM3 with taint sick=xid:NoSchedule");
    }

    #[test]
    fn a_devices_name_says_driver_and_pool() {
        let pool = PoolKey { driver: "gpu.nvidia.com".to_owned(), name: "rack/n1".to_owned() };
        assert_eq!(parts(&pool.device("gpu-0")), Some(("gpu.nvidia.com", "rack/n1", "gpu-0")));
    }

    #[test]
    fn devices_that_are_no_gpus_are_not_kept() {
        let slice = json!({
            "metadata": {"name": "s"},
            "spec": {
                "driver": "nic.example.com", "nodeName": "n1", "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "eth0"}],
            },
        });
        assert!(SliceFacts::of(&serde_json::from_value(slice).unwrap()).devices.is_empty());
    }
}
