//! What a pod asks of its node in all, as the kubelet counts it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tidegate_api::quantity;

use super::node::{GPU, STORAGE};

/// Amounts on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub gpus: u32,
    /// Of the node's own disk.
    pub storage_mib: u64,
}

impl Requests {
    fn plus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            gpus: self.gpus.saturating_add(other.gpus),
            storage_mib: self.storage_mib.saturating_add(other.storage_mib),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.max(other.cpu_milli),
            memory_mib: self.memory_mib.max(other.memory_mib),
            gpus: self.gpus.max(other.gpus),
            storage_mib: self.storage_mib.max(other.storage_mib),
        }
    }

    fn of_list(list: &BTreeMap<String, Quantity>) -> Self {
        let gpus = list.get(GPU).map_or(0, quantity::whole);
        Self {
            cpu_milli: list.get("cpu").map_or(0, quantity::milli),
            memory_mib: list.get("memory").map_or(0, quantity::mib),
            gpus: u32::try_from(gpus).unwrap_or(u32::MAX),
            storage_mib: list.get(STORAGE).map_or(0, quantity::mib),
        }
    }
}

/// Init containers run one after the other, before the containers, except those that restart: these stay. What is asked for all
/// containers together (`spec.resources`) counts instead of their sum. Kubernetes' `PodRequests`.
pub fn of(spec: &PodSpec) -> Requests {
    let mut sum = spec.containers.iter().map(of_container).fold(Requests::default(), Requests::plus);
    let (mut stay, mut peak) = (Requests::default(), Requests::default());
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            stay = stay.plus(own);
            peak = peak.max(stay);
        } else {
            peak = peak.max(stay.plus(own));
        }
    }
    sum = sum.plus(stay).max(peak);
    if let Some(told) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let pod = Requests::of_list(told);
        sum.cpu_milli = if told.contains_key("cpu") { pod.cpu_milli } else { sum.cpu_milli };
        sum.memory_mib = if told.contains_key("memory") { pod.memory_mib } else { sum.memory_mib };
    }
    spec.overhead.as_ref().map_or(sum, |overhead| sum.plus(Requests::of_list(overhead)))
}

/// Without a request the limit counts.
fn of_container(container: &Container) -> Requests {
    let Some(ResourceRequirements { requests, limits, .. }) = &container.resources else { return Requests::default() };
    let mut list = limits.clone().unwrap_or_default();
    list.extend(requests.clone().unwrap_or_default());
    Requests::of_list(&list)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn requests(spec: Value) -> (u64, u64, u32) {
        let found = of(&serde_json::from_value(spec).unwrap());
        (found.cpu_milli, found.memory_mib, found.gpus)
    }

    fn container(cpu: &str, gpus: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"nvidia.com/gpu": gpus}}})
    }

    #[test]
    fn containers_add_up_and_init_containers_count_at_their_peak() {
        let two = json!([container("1", "1"), container("500m", "2")]);
        assert_eq!(requests(json!({"containers": two})), (1500, 2048, 3));
        let one = json!([container("1", "1")]);
        assert_eq!(requests(json!({"containers": one, "initContainers": [container("4", "0")]})), (4000, 1024, 1));
    }

    #[test]
    fn the_nodes_disk_is_counted_in_the_same_way() {
        let disk = |mib: &str| json!({"name": "c", "resources": {"requests": {"ephemeral-storage": mib}}});
        let of = |spec: Value| of(&serde_json::from_value(spec).unwrap()).storage_mib;
        let spec = json!({
            "containers": [disk("1Gi"), disk("512Mi")], "initContainers": [disk("3Gi")], "overhead": {"ephemeral-storage": "8Mi"},
        });
        assert_eq!(of(spec), 3 * 1024 + 8);
        assert_eq!(of(json!({"containers": [container("1", "1")]})), 0);
    }

    #[test]
    fn a_sidecar_stays() {
        let mut sidecar = container("1", "0");
        sidecar["restartPolicy"] = json!("Always");
        let spec = json!({"containers": [container("2", "1")], "initContainers": [sidecar, container("3", "0")]});
        assert_eq!(requests(spec), (4000, 2048, 1), "the second init container runs beside the sidecar");
    }

    #[test]
    fn the_pod_as_a_whole_may_say_it_and_the_runtime_adds_its_own() {
        let spec =
            json!({"containers": [container("1", "1")], "resources": {"requests": {"cpu": "3"}}, "overhead": {"cpu": "250m"}});
        assert_eq!(requests(spec), (3250, 1024, 1));
        assert_eq!(requests(json!({"containers": [{"name": "c"}]})), (0, 0, 0));
    }
}
