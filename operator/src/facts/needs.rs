//! What a pod asks for that other objects, or other pods, decide on. Few pods ask for any of it.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;

use super::device_claim::DeviceUse;
use super::volume::ClaimUse;
use super::{HostPort, beside};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Key of the `PodGroup` that it names.
    pub group: Option<String>,
    pub ports: Vec<HostPort>,
    pub claims: Vec<ClaimUse>,
    /// Claims of devices.
    pub devices: Vec<DeviceUse>,
}

impl Needs {
    /// `None` for the many that ask for nothing of it.
    pub fn of(pod: &Pod, spec: &PodSpec) -> Option<Box<Self>> {
        let namespace = pod.namespace().unwrap_or_default();
        let group = group(spec).map(|name| beside::key(&namespace, name));
        let name = pod.name_any();
        let claims = spec.volumes.iter().flatten().filter_map(|volume| ClaimUse::of(&namespace, &name, volume)).collect();
        let needs = Self { group, ports: HostPort::all(spec), claims, devices: DeviceUse::all(pod, spec) };
        (needs != Self::default()).then(|| Box::new(needs))
    }
}

/// The `PodGroup` that a pod names.
pub fn group(spec: &PodSpec) -> Option<&str> {
    spec.scheduling_group.as_ref()?.pod_group_name.as_deref().filter(|name| !name.is_empty())
}
