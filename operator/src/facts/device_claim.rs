//! A `ResourceClaim`, the `DeviceClass`es that it names, and how a pod names it.

use k8s_openapi::api::core::v1::{NodeSelector, Pod, PodSpec};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClaim, DeviceClass, DeviceRequest, DeviceRequestAllocationResult, DeviceSelector, DeviceToleration,
    ExactDeviceRequest, ResourceClaim,
};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;
use tidegate_api::labels;
use tidegate_core::ask::Toleration;
use tidegate_core::names::DeviceId;
use tidegate_core::time::At;

use super::device::{PoolKey, is_gpu};
use super::node::NAME_LABEL;
use super::share::{self, Amounts};
use super::{PodKey, beside, node};

/// On a claim that is allocated: it may not go before its devices are free.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// A claim, as a pod names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceUse {
    /// What the pod calls it.
    pub name: String,
    /// Absent: it is not made yet.
    pub key: Option<String>,
    /// It is made for this pod alone, from a template.
    pub own: bool,
}

impl DeviceUse {
    /// All of a pod's. One that its maker found not to be needed is none.
    pub fn all(pod: &Pod, spec: &PodSpec) -> Vec<Self> {
        let namespace = pod.namespace().unwrap_or_default();
        let key = |name: &String| beside::key(&namespace, name);
        let made = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref()).unwrap_or_default();
        let used = spec.resource_claims.iter().flatten().filter_map(|claim| {
            let found = |key: Option<String>, own: bool| Some(Self { name: claim.name.clone(), key, own });
            match (&claim.resource_claim_name, made.iter().find(|status| status.name == claim.name)) {
                (Some(name), _) => found(Some(key(name)), false),
                (None, None) => found(None, true),
                (None, Some(status)) => found(Some(key(status.resource_claim_name.as_ref()?)), true),
            }
        });
        used.collect()
    }
}

/// A `DeviceClass`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClassFacts {
    pub name: String,
    pub selectors: Vec<String>,
    /// For drivers, as the object has it.
    pub config: Vec<Value>,
}

impl DeviceClassFacts {
    /// What the object says.
    pub fn of(class: &DeviceClass) -> Self {
        let spec = class.spec.as_ref();
        Self {
            name: class.name_any(),
            selectors: spec.iter().flat_map(|spec| spec.selectors.iter().flatten()).map(expression).collect(),
            config: spec.iter().flat_map(|spec| spec.config.iter().flatten()).map(json).collect(),
        }
    }
}

/// A `ResourceClaim`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClaimFacts {
    pub key: String,
    pub uid: String,
    pub resource_version: String,
    pub created: At,
    /// What it asks for, or which field asks for what is not looked at.
    pub requests: Result<Vec<Request>, String>,
    /// For drivers, as the object has it.
    pub config: Vec<Value>,
    pub allocation: Option<Allocation>,
    /// Pods that may use it, with their uids.
    pub reserved: Vec<(PodKey, String)>,
    /// So many others, that are no pods, may use it.
    pub other_consumers: usize,
    /// We have given it its devices, and take them back.
    pub ours: bool,
    /// It has the finalizer that goes with an allocation.
    pub protected: bool,
    /// Uid of the pod for which it was made.
    pub controller: Option<String>,
    pub ending: bool,
}

/// Some devices of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub name: String,
    pub class: String,
    pub selectors: Vec<String>,
    pub count: u32,
    /// How much of a device that several may have; empty: a device of its own.
    pub share: Amounts,
    /// What it puts up with, in the engine's words and as the object has it.
    pub tolerations: Vec<Toleration>,
    pub told_tolerations: Vec<Value>,
}

impl Request {
    /// So many devices of a class, whichever.
    pub fn of_class(name: &str, class: &str, count: u32) -> Self {
        Self {
            name: name.to_owned(),
            class: class.to_owned(),
            selectors: Vec::new(),
            count,
            share: Amounts::new(),
            tolerations: Vec::new(),
            told_tolerations: Vec::new(),
        }
    }
}

/// What a claim was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The one node that can use it.
    pub node: Option<String>,
    /// Those that count as GPUs.
    pub devices: Vec<DeviceId>,
    /// Shares of such, and what they consume.
    pub shares: Vec<(DeviceId, Amounts)>,
}

impl Allocation {
    /// Devices of which it has all or a share.
    pub fn all(&self) -> impl Iterator<Item = &DeviceId> {
        self.devices.iter().chain(self.shares.iter().map(|(device, _)| device))
    }

    /// What it consumes of a device; none if it has all of it.
    pub fn consumes(&self, wanted: &DeviceId) -> Option<Vec<&Amounts>> {
        let shares = self.shares.iter().filter(|(device, _)| device == wanted).map(|(_, amounts)| amounts);
        (!self.devices.contains(wanted)).then(|| shares.collect())
    }
}

impl DeviceClaimFacts {
    /// What the object says.
    pub fn of(claim: &ResourceClaim) -> Self {
        let namespace = claim.namespace().unwrap_or_default();
        let devices = claim.spec.as_ref().and_then(|spec| spec.devices.as_ref());
        let status = claim.status.as_ref();
        let consumers = || status.into_iter().flat_map(|status| status.reserved_for.iter().flatten());
        let is_pod = |group: Option<&str>, resource: &str| group.unwrap_or_default().is_empty() && resource == "pods";
        let pods = consumers().filter(|consumer| is_pod(consumer.api_group.as_deref(), &consumer.resource));
        let reserved: Vec<_> = pods.map(|pod| (PodKey::new(&namespace, &pod.name), pod.uid.clone())).collect();
        let created = claim.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond());
        Self {
            key: beside::key(&namespace, &claim.name_any()),
            uid: claim.uid().unwrap_or_default(),
            resource_version: claim.resource_version().unwrap_or_default(),
            created: At(u64::try_from(created).unwrap_or(0)),
            requests: devices.map_or_else(|| Err("spec.devices.requests: is empty; ask for a device".to_owned()), requests),
            config: devices.iter().flat_map(|devices| devices.config.iter().flatten()).map(json).collect(),
            allocation: status.and_then(|status| status.allocation.as_ref()).map(Allocation::of),
            other_consumers: consumers().count() - reserved.len(),
            reserved,
            ours: claim.annotations().contains_key(labels::ALLOCATED),
            protected: claim.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
            controller: claim
                .owner_references()
                .iter()
                .find(|owner| owner.controller == Some(true))
                .map(|owner| owner.uid.clone()),
            ending: claim.metadata.deletion_timestamp.is_some(),
        }
    }
}

impl Allocation {
    fn of(allocation: &AllocationResult) -> Self {
        let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        let gpus = results.filter(|result| is_gpu(&result.driver) && result.admin_access != Some(true));
        let name =
            |driver: &str, pool: &str, device: &str| PoolKey { driver: driver.to_owned(), name: pool.to_owned() }.device(device);
        let (shares, whole): (Vec<_>, Vec<_>) = gpus.partition(|result| result.share_id.is_some());
        let id = |result: &DeviceRequestAllocationResult| name(&result.driver, &result.pool, &result.device);
        let consumed = |result: &DeviceRequestAllocationResult| result.consumed_capacity.as_ref().map(share::amounts);
        Self {
            node: allocation.node_selector.as_ref().and_then(only_node),
            devices: whole.into_iter().map(id).collect(),
            shares: shares.into_iter().map(|result| (id(result), consumed(result).unwrap_or_default())).collect(),
        }
    }
}

/// The node that a selector names, if it names one.
fn only_node(selector: &NodeSelector) -> Option<String> {
    let [term] = selector.node_selector_terms.as_slice() else { return None };
    let field = term.match_fields.iter().flatten().find(|field| field.key == NAME_LABEL && field.operator == "In")?;
    if let Some([node]) = field.values.as_deref() { Some(node.clone()) } else { None }
}

fn requests(claim: &DeviceClaim) -> Result<Vec<Request>, String> {
    if claim.constraints.as_ref().is_some_and(|all| !all.is_empty()) {
        return Err("spec.devices.constraints: are not looked at yet; remove them".to_owned());
    }
    let all: Vec<Request> = claim.requests.iter().flatten().map(request).collect::<Result<_, _>>()?;
    if all.is_empty() {
        return Err("spec.devices.requests: is empty; ask for a device".to_owned());
    }
    Ok(all)
}

fn request(request: &DeviceRequest) -> Result<Request, String> {
    let name = &request.name;
    let field = |rest: &str| format!("spec.devices.requests[{name}].{rest}");
    let Some(exactly) = &request.exactly else {
        return Err(field("firstAvailable: a choice is not looked at yet; use `exactly`"));
    };
    let ExactDeviceRequest {
        admin_access,
        allocation_mode,
        capacity,
        count,
        derived_attributes,
        device_class_name,
        selectors,
        tolerations,
    } = exactly;
    let found = [
        (*admin_access == Some(true), "adminAccess: is not given here; remove it"),
        (
            allocation_mode.as_deref().is_some_and(|mode| mode != "ExactCount"),
            "allocationMode: only `ExactCount` is looked at yet; use it with a `count`",
        ),
        (derived_attributes.as_ref().is_some_and(|all| !all.is_empty()), "derivedAttributes: are not looked at yet; remove them"),
    ];
    if let Some((_, what)) = found.iter().find(|(is, _)| *is) {
        return Err(field(&format!("exactly.{what}")));
    }
    let tolerations = tolerations.as_deref().unwrap_or_default();
    Ok(Request {
        name: name.clone(),
        class: device_class_name.clone(),
        selectors: selectors.iter().flatten().map(expression).collect(),
        count: u32::try_from(count.unwrap_or(1)).unwrap_or(u32::MAX),
        share: capacity.iter().filter_map(|capacity| capacity.requests.as_ref()).flat_map(share::amounts).collect(),
        told_tolerations: tolerations.iter().map(json).collect(),
        tolerations: tolerations.iter().filter_map(toleration).collect(),
    })
}

/// One of a kind that is not known selects nothing.
fn expression(selector: &DeviceSelector) -> String {
    selector.cel.as_ref().map_or_else(|| "false".to_owned(), |cel| cel.expression.clone())
}

fn toleration(toleration: &DeviceToleration) -> Option<Toleration> {
    let effect = match toleration.effect.as_deref() {
        None | Some("") => None,
        Some(word) => Some(node::effect(word)?),
    };
    let any_value = toleration.operator.as_deref() == Some("Exists");
    let value = if any_value { None } else { Some(toleration.value.clone().unwrap_or_default()) };
    Some(Toleration { key: toleration.key.clone().filter(|key| !key.is_empty()), value, effect })
}

/// What is copied is a plain structure, which JSON can say.
fn json(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(change: impl FnOnce(&mut Value)) -> DeviceClaimFacts {
        let mut claim = json!({
            "metadata": {"namespace": "team", "name": "c", "uid": "u", "resourceVersion": "1"},
            "spec": {"devices": {"requests": [{
                "name": "gpu",
                "exactly": {"deviceClassName": "gpu.nvidia.com", "count": 2, "allocationMode": "ExactCount", "selectors": [{"cel": {"expression": "true"}}]},
            }]}},
        });
        change(&mut claim);
        DeviceClaimFacts::of(&serde_json::from_value(claim).unwrap())
    }

    #[test]
    fn a_claim_says_how_many_devices_of_which_class_it_wants() {
        let found = claim(|_| {});
        let [request] = found.requests.as_deref().unwrap() else { panic!("{found:?}") };
        assert_eq!((request.name.as_str(), request.class.as_str(), request.count), ("gpu", "gpu.nvidia.com", 2));
        assert_eq!((request.selectors.as_slice(), found.allocation), (["true".to_owned()].as_slice(), None));
    }

    #[test]
    fn a_request_of_capacity_is_one_of_a_share() {
        let found = claim(|claim| {
            claim["spec"]["devices"]["requests"][0]["exactly"]["capacity"] = json!({"requests": {"memory": "1"}});
        });
        assert_eq!(found.requests.unwrap()[0].share, Amounts::from([("memory".to_owned(), 1_000_000_000)]));
    }

    #[test]
    fn what_is_not_looked_at_yet_is_told_with_field_and_remedy() {
        let why = |change: fn(&mut Value)| claim(change).requests.unwrap_err();
        let exactly = |field: &'static str, value: Value| {
            claim(move |claim| claim["spec"]["devices"]["requests"][0]["exactly"][field] = value).requests.unwrap_err()
        };
        assert!(
            why(|claim| claim["spec"]["devices"]["requests"][0] = json!({"name": "gpu", "firstAvailable": []}))
                .contains("requests[gpu].firstAvailable")
        );
        assert!(exactly("allocationMode", json!("All")).contains("use it with a `count`"));
        assert!(exactly("adminAccess", json!(true)).contains("adminAccess"));
        assert!(
            why(|claim| claim["spec"]["devices"]["constraints"] = json!([{"matchAttribute": "a/b"}])).contains("constraints")
        );
        assert!(why(|claim| claim["spec"] = json!({})).contains("ask for a device"));
    }

    #[test]
    fn an_allocation_says_which_gpus_on_which_node_for_whom() {
        let found = claim(|claim| {
            claim["metadata"]["annotations"] = json!({"tidegate.dev/allocated": "true"});
            claim["metadata"]["finalizers"] = json!([FINALIZER]);
            claim["status"] = json!({
                "allocation": {
                    "devices": {"results": [
                        {"request": "gpu", "driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-3"},
                        {
                            "request": "gpu", "driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-4", "shareID": "s",
                            "consumedCapacity": {"memory": "1"},
                        },
                        {"request": "nic", "driver": "nic.example.com", "pool": "n1", "device": "eth0"},
                    ]},
                    "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]},
                },
                "reservedFor": [{"resource": "pods", "name": "p", "uid": "up"}, {"apiGroup": "x", "resource": "groups", "name": "g", "uid": "ug"}],
            });
        });
        let consumed = Amounts::from([("memory".to_owned(), 1_000_000_000)]);
        let allocation = Allocation {
            node: Some("n1".to_owned()),
            devices: vec!["gpu.nvidia.com/n1/gpu-3".into()],
            shares: vec![("gpu.nvidia.com/n1/gpu-4".into(), consumed)],
        };
        assert_eq!((found.allocation, found.other_consumers, found.ours, found.protected), (Some(allocation), 1, true, true));
        assert_eq!(found.reserved, [(PodKey::new("team", "p"), "up".to_owned())]);
    }

    #[test]
    fn a_pod_names_claims_that_are_there_and_claims_that_are_made_for_it() {
        let pod = json!({
            "metadata": {"namespace": "team", "name": "p"},
            "spec": {"containers": [], "resourceClaims": [
                {"name": "a", "resourceClaimName": "c"}, {"name": "b", "resourceClaimTemplateName": "t"},
                {"name": "d", "resourceClaimTemplateName": "t"}, {"name": "e", "resourceClaimTemplateName": "t"},
            ]},
            "status": {"resourceClaimStatuses": [{"name": "d", "resourceClaimName": "p-d-x"}, {"name": "e"}]},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let used = DeviceUse::all(&pod, pod.spec.as_ref().unwrap());
        let found: Vec<_> = used.iter().map(|used| (used.name.as_str(), used.key.as_deref(), used.own)).collect();
        assert_eq!(found, [("a", Some("team/c"), false), ("b", None, true), ("d", Some("team/p-d-x"), true)]);
    }
}
