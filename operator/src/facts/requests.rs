//! What a pod asks of its node in all, as the kubelet counts it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tidegate_api::quantity;

use super::node::{self, GPU, STORAGE};

/// Amounts on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// Whole GPUs, and parts of GPUs by their class.
    pub gpus: u32,
    pub parts: BTreeMap<String, u32>,
    /// Of the node's own disk.
    pub storage_mib: u64,
}

impl Requests {
    /// Devices of one kind, whole or parts, and the class of parts. Who asks for several kinds is not placed; what it holds where somebody
    /// else has placed it counts as its whole GPUs, else as one of the kinds.
    pub fn devices(&self) -> (u32, Option<&str>) {
        let part = self.parts.first_key_value().filter(|_| self.gpus == 0);
        part.map_or((self.gpus, None), |(class, count)| (*count, Some(class)))
    }

    /// Why devices of several kinds cannot be given.
    pub fn problem(&self) -> Option<String> {
        let parts = self.parts.keys().map(|class| format!("nvidia.com/{class}"));
        let kinds: Vec<String> = (self.gpus > 0).then(|| GPU.to_owned()).into_iter().chain(parts).collect();
        (kinds.len() > 1)
            .then(|| format!("asks for {}: a pod is given GPUs of one kind, so let it ask for one of them", kinds.join(" and ")))
    }

    fn plus(self, other: Self) -> Self {
        Self {
            parts: merged(self.parts, other.parts, u32::saturating_add),
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            gpus: self.gpus.saturating_add(other.gpus),
            storage_mib: self.storage_mib.saturating_add(other.storage_mib),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            parts: merged(self.parts, other.parts, u32::max),
            cpu_milli: self.cpu_milli.max(other.cpu_milli),
            memory_mib: self.memory_mib.max(other.memory_mib),
            gpus: self.gpus.max(other.gpus),
            storage_mib: self.storage_mib.max(other.storage_mib),
        }
    }

    fn of_list(list: &BTreeMap<String, Quantity>) -> Self {
        let count = |quantity: &Quantity| u32::try_from(quantity::whole(quantity)).unwrap_or(u32::MAX);
        let parts = list.iter().filter_map(|(name, quantity)| Some((node::part_class(name)?.to_owned(), count(quantity))));
        Self {
            cpu_milli: list.get("cpu").map_or(0, quantity::milli),
            memory_mib: list.get("memory").map_or(0, quantity::mib),
            gpus: list.get(GPU).map_or(0, count),
            parts: parts.filter(|(_, count)| *count > 0).collect(),
            storage_mib: list.get(STORAGE).map_or(0, quantity::mib),
        }
    }
}

/// Counts of both.
fn merged(mut all: BTreeMap<String, u32>, other: BTreeMap<String, u32>, of: fn(u32, u32) -> u32) -> BTreeMap<String, u32> {
    for (class, count) in other {
        let known = all.entry(class).or_default();
        *known = of(*known, count);
    }
    all
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
            peak = peak.max(stay.clone());
        } else {
            peak = peak.max(stay.clone().plus(own));
        }
    }
    sum = sum.plus(stay).max(peak);
    if let Some(told) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let pod = Requests::of_list(told);
        sum.cpu_milli = if told.contains_key("cpu") { pod.cpu_milli } else { sum.cpu_milli };
        sum.memory_mib = if told.contains_key("memory") { pod.memory_mib } else { sum.memory_mib };
    }
    match &spec.overhead {
        Some(overhead) => sum.plus(Requests::of_list(overhead)),
        None => sum,
    }
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
    fn parts_of_gpus_add_up_by_profile_and_several_kinds_are_told() {
        let ask = |name: &str, limits: Value| json!({"name": name, "resources": {"limits": limits}});
        let of = |containers: Value| of(&serde_json::from_value(json!({"containers": containers})).unwrap());
        let small = json!({"nvidia.com/mig-1g.10gb": "1"});
        let two = of(json!([ask("a", small.clone()), ask("b", small.clone())]));
        assert_eq!((two.devices(), two.problem()), ((2, Some("mig-1g.10gb")), None));
        let both = of(json!([ask("a", small), ask("b", json!({"nvidia.com/mig-2g.20gb": "1", "nvidia.com/gpu": "1"}))]));
        assert_eq!(both.devices(), (1, None));
        let told = both.problem().unwrap();
        assert!(told.starts_with("asks for nvidia.com/gpu and nvidia.com/mig-1g.10gb and nvidia.com/mig-2g.20gb: "), "{told}");
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
