//! What has no counterpart in a Queue, and what Tidegate does instead.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate_core::names::Class;

use super::documents::Document;
use super::quotas::Flavors;
use super::read::Found;
use super::spec::{ClusterQueue, LocalQueue, ResourceFlavor, StopPolicy};
use crate::labels;
use crate::manifest::Problem;

const LEFT_OUT: &str = "is not carried over";

/// Of a ClusterQueue.
pub fn cluster_queue(found: &Found<ClusterQueue>) -> Vec<Problem> {
    let Found { document, spec, told } = found;
    let choice = spec.resource_groups.iter().any(|group| group.flavors.len() > 1);
    let fields = [
        (
            "preemption",
            &spec.preemption,
            "a Queue always takes back what is its own from those who borrow it, and stops lower priority of its \
             own; borrowing stops nobody, but for fairReclaim of the Pool. Pods that must not be \
             stopped get the annotation tidegate.dev/preemptible: \"false\"",
        ),
        (
            "flavorFungibility",
            &spec.flavor_fungibility.clone().filter(|_| choice),
            "placement chooses among all nodes that fit; pods name classes that will do in the annotation tidegate.dev/gpu-classes",
        ),
        ("admissionChecks", &spec.admission_checks, ADMISSION),
        ("admissionChecksStrategy", &spec.admission_checks_strategy, ADMISSION),
        ("admissionScope", &spec.admission_scope, "past use counts by historyPercent and halfLifeSeconds of the Pool"),
        ("concurrentAdmissionPolicy", &spec.concurrent_admission_policy, "consolidate of the Pool moves running work"),
        (
            "excludeResourcePrefixes",
            &spec.exclude_resource_prefixes,
            "only GPUs, cpu and memory are counted, and of these what some Queue has a quota of",
        ),
    ];
    let mut all = told.clone();
    all.extend(left_out(document, fields));
    all.extend(stopped(document, spec.stop_policy, "give the Queue a namespaceSelector that no namespace satisfies"));
    if spec.namespace_selector.is_none() {
        let what = "is absent: Kueue then takes work of no namespace, and the Queue has a selector that none satisfies";
        all.push(document.remark("spec.namespaceSelector", what, "remove it there to take work of every namespace"));
    }
    all
}

const ADMISSION: &str =
    "work is let in without outside checks; node autoscalers see waiting pods by their condition PodScheduled";

/// Of a LocalQueue whose ClusterQueue became the Queue `queue`.
pub fn local_queue(found: &Found<LocalQueue>, queue: Option<&str>) -> Vec<Problem> {
    let Found { document, spec, told } = found;
    let name = document.meta("name").unwrap_or_default();
    let namespace = document.meta("namespace").map_or("its namespace".to_owned(), |name| format!("namespace {name}"));
    let (what, remedy) = match (&spec.cluster_queue, queue) {
        (Some(_), Some(queue)) => (
            format!(
                "LocalQueues are read for objects that wait suspended alone (`--kueue`): pods of {namespace} name the Queue itself"
            ),
            format!("replace their label kueue.x-k8s.io/queue-name: {name} by {}: {queue}", labels::QUEUE),
        ),
        (Some(_), None) => ("names a ClusterQueue that is not in the input".to_owned(), "add it to the input".to_owned()),
        (None, _) => ("is absent".to_owned(), "nothing to do: no work could use it".to_owned()),
    };
    let fields = [
        (
            "fairSharing",
            &spec.fair_sharing,
            "shares are dealt between Queues; make a Queue for each namespace to have a weight each",
        ),
        ("wallTimePolicy", &spec.wall_time_policy, "a Queue for the namespace alone can have budgetGpuHours"),
    ];
    let mut all = vec![document.remark("spec.clusterQueue", &what, &remedy)];
    all.extend(told.clone());
    all.extend(left_out(document, fields));
    all.extend(stopped(document, spec.stop_policy, "leave its namespace out of the Queue's namespaceSelector"));
    all
}

/// The classes that flavors name.
pub fn classes(flavors: &BTreeMap<String, Found<ResourceFlavor>>) -> Flavors {
    let class = |found: &Found<ResourceFlavor>| labels::gpu_class(&found.spec.node_labels).filter(|class| is_class(class));
    let classes = flavors.iter().map(|(name, found)| (name.clone(), class(found).map(Class::from)));
    Flavors { classes: classes.collect(), ..Flavors::default() }
}

/// Of flavors.
pub fn flavors(flavors: &BTreeMap<String, Found<ResourceFlavor>>, known: &Flavors) -> Vec<Problem> {
    let told = flavors.iter().flat_map(|(name, found)| {
        let classless = known.with_gpus.contains(name) && known.class(name).is_none();
        found.told.iter().cloned().chain(flavor(found, classless))
    });
    told.collect()
}

fn flavor(found: &Found<ResourceFlavor>, classless: bool) -> Vec<Problem> {
    let Found { document, spec, .. } = found;
    let mut all = Vec::new();
    if classless {
        let what = match labels::gpu_class(&spec.node_labels) {
            None => "name no GPU class: its GPUs count as of any class".to_owned(),
            Some(class) => format!("name the GPU class {class:?}, which no Queue can: its GPUs count as of any class"),
        };
        let remedy = format!("add {}: CLASS, of letters, digits, - and ., and label its nodes so", labels::GPU_CLASS);
        all.push(document.remark("spec.nodeLabels", &what, &remedy));
    }
    let others = spec.node_labels.keys().filter(|key| ![labels::GPU_CLASS, labels::GPU_PRODUCT].contains(&key.as_str()));
    let others: Vec<&str> = others.map(String::as_str).collect();
    if !others.is_empty() {
        let what = format!("bind pods to nodes by {} in Kueue; Tidegate changes no pod", others.join(", "));
        all.push(document.remark(
            "spec.nodeLabels",
            &what,
            "write nodeSelector or nodeAffinity in the pods that need these nodes",
        ));
    }
    let fields = [
        ("nodeTaints", &spec.node_taints, "nothing to do: taints are read from the nodes"),
        ("tolerations", &spec.tolerations, "write them in the pods: Tidegate changes no pod"),
        ("topologyName", &spec.topology_name, "write the levels of that Topology in topologyLevels of the Pool"),
        ("resourceWeights", &spec.resource_weights, "the largest share of GPUs, cpu or memory counts"),
    ];
    all.extend(left_out(document, fields));
    all
}

/// What a Queue takes as `gpu/CLASS`.
fn is_class(class: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (1..=63).contains(&class.len()) && class.chars().all(good) && class.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn left_out<const N: usize>(document: &Document, fields: [(&str, &Option<Value>, &str); N]) -> Vec<Problem> {
    let there = fields.into_iter().filter(|(_, value, _)| value.as_ref().is_some_and(|value| !is_empty(value)));
    there.map(|(field, _, instead)| document.remark(&format!("spec.{field}"), LEFT_OUT, instead)).collect()
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

fn stopped(document: &Document, policy: StopPolicy, remedy: &str) -> Option<Problem> {
    let what = "is not carried over: work that waits would start";
    (policy != StopPolicy::None).then(|| document.remark("spec.stopPolicy", what, remedy))
}
