//! The user's part of a pod that Tidegate makes: fields of a `PodSpec` in an object of ours, whose first container is the worker or the
//! replica.

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value};
use tidegate_api::labels;
use tidegate_core::ask::{Affinity, Amount, Ask};

use super::claimed::Claimed;
use super::node::GPU;
use super::pod::{PodKey, unsupported};
use super::volume::ClaimUse;
use super::{requests, selection};

/// Bytes of a user's part of a pod as JSON. It is kept for each group of a job; what Kubernetes' own examples need is below 1 % of it.
const MOST_BYTES: usize = 256 * 1024;

/// A pod of ours with what was written under `field`; its first container, which is added if there is none, has at least the name.
pub(super) fn base(field: &str, written: Option<&Map<String, Value>>, container: &str) -> Result<PodSpec, String> {
    let written = written.cloned().unwrap_or_default();
    let bytes = serde_json::to_vec(&written).map_or(0, |text| text.len());
    if bytes > MOST_BYTES {
        return Err(format!(
            "{field}: is {bytes} bytes long; write at most {MOST_BYTES}, and put what is large into a ConfigMap"
        ));
    }
    let mut pod: PodSpec = serde_json::from_value(Value::Object(written)).map_err(|e| format!("{field}: {e}"))?;
    for (name, set) in [
        ("nodeName", pod.node_name.is_some()),
        ("schedulerName", pod.scheduler_name.is_some()),
        ("restartPolicy", pod.restart_policy.is_some()),
        ("schedulingGates", pod.scheduling_gates.is_some()),
        ("hostname", pod.hostname.is_some()),
        ("subdomain", pod.subdomain.is_some()),
    ] {
        if set {
            return Err(format!("{field}.{name}: is set by Tidegate; remove it"));
        }
    }
    if let Some(problem) = unsupported(&pod).into_iter().next() {
        return Err(format!("{field}: {problem}"));
    }
    if let Some(class) = requests::of(&pod).parts.into_keys().next() {
        return Err(format!(
            "{field}: asks for nvidia.com/{class}; such pods are given whole GPUs by now: say in gpu.count how many"
        ));
    }
    if pod.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Err(format!(
            "{field}.resourceClaims: are made by Tidegate for such pods; say in gpu.deviceClassName of which DeviceClass, and in gpu.count how many"
        ));
    }
    if pod.containers.is_empty() {
        pod.containers.push(Container::default());
    }
    let first = &mut pod.containers[0];
    if first.name.is_empty() {
        container.clone_into(&mut first.name);
    }
    pod.scheduler_name = Some(labels::SCHEDULER.to_owned());
    pod.restart_policy = Some("Never".to_owned());
    Ok(pod)
}

/// What a pod of the owner with this uid claims by name, if that is how it has its devices.
pub(super) fn claimed(uid: &str, device_class: Option<&str>, ask: &Ask) -> Option<Claimed> {
    device_class.filter(|_| ask.devices() > 0).map(|class| Claimed::of(uid, class, ask.devices()))
}

/// The same pod with the devices, CPU and memory of an ask in its first container. `what` in words: workers, replicas.
pub(super) fn with_requests(base: &PodSpec, ask: &Ask, claimed: Option<&Claimed>, what: &str) -> Result<PodSpec, String> {
    let mut pod = base.clone();
    let gpus = match ask.amount {
        Amount::Whole(gpus) => gpus,
        Amount::None => 0,
        Amount::Milli(_) | Amount::MemoryMib(_) | Amount::Slice { .. } | Amount::Mig(_) => {
            return Err(format!("gpu: on Kubernetes {what} have whole GPUs by now; say how many in gpu.count"));
        }
    };
    let resources = pod.containers[0].resources.get_or_insert_with(ResourceRequirements::default);
    let mut say = |resource: &str, amount: u64, unit: &str, most: bool| {
        if amount == 0 {
            return;
        }
        let quantity = Quantity(format!("{amount}{unit}"));
        let list = if most { &mut resources.limits } else { &mut resources.requests };
        list.get_or_insert_default().insert(resource.to_owned(), quantity);
    };
    let counted = if claimed.is_some() { 0 } else { u64::from(gpus) };
    say(GPU, counted, "", true);
    say(GPU, counted, "", false);
    say("cpu", ask.cpu_milli, "m", false);
    say("memory", ask.memory_mib, "Mi", false);
    if let Some(claimed) = claimed {
        claimed.enter(&mut pod);
    }
    Ok(pod)
}

/// What such a pod asks of its node.
pub(super) fn ask(field: &str, wanted: &Ask, claimed: Option<&Claimed>, pod: &PodSpec) -> Result<Ask, String> {
    let counted = requests::of(pod);
    if claimed.is_some() && counted.gpus > 0 {
        return Err(format!(
            "{field}: its containers ask for {} GPUs as nvidia.com/gpu beside gpu.deviceClassName, by which they are claimed; take one of both out",
            counted.gpus
        ));
    }
    if claimed.is_none() && counted.gpus != wanted.devices() {
        return Err(format!("{field}: its containers ask for {} GPUs; say it in gpu.count alone", counted.gpus));
    }
    let affinity = selection::affinity(pod);
    if affinity != Affinity::default() && wanted.affinity != Affinity::default() {
        return Err(format!("nodeAffinity: is said in the object and in {field}; keep one of the two"));
    }
    Ok(Ask {
        cpu_milli: counted.cpu_milli,
        memory_mib: counted.memory_mib,
        selector: selection::selector(pod),
        tolerations: selection::tolerations(pod),
        affinity: if affinity == Affinity::default() { wanted.affinity.clone() } else { affinity },
        named: claimed.is_some(),
        ..wanted.clone()
    })
}

/// Claims of volumes that all pods of an object use.
pub(super) fn claims(field: &str, key: &PodKey, pod: &PodSpec) -> Result<Vec<String>, String> {
    let uses = pod.volumes.iter().flatten().filter_map(|volume| ClaimUse::of(key.namespace(), "", volume));
    let shared = |used: ClaimUse| {
        let own = || format!("{field}.volumes: an `ephemeral` volume ends with its pod; name a persistentVolumeClaim");
        if used.own { Err(own()) } else { Ok(used.key) }
    };
    uses.map(shared).collect()
}
