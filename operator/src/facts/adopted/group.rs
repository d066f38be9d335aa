//! One pod template of an object that is started as a whole: what each of its pods asks for, read as from a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;
use tidegate_api::labels;

use crate::facts::PodFacts;
use crate::facts::seat::HOSTNAME;

/// Annotations that may stand on the object instead of on its templates.
const OF_THE_OBJECT: [&str; 5] =
    [labels::PREEMPTIBLE, labels::EXPECTED_SECONDS, labels::REQUIRED_TOPOLOGY, labels::PREFERRED_TOPOLOGY, labels::GPU_CLASSES];
/// What single nodes are called as a level of the topology.
const NODE: &str = "node";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// A pod as the template makes it, named after the object.
    pub pod: PodFacts,
    /// Pods that run at once.
    pub count: u32,
    /// Kubernetes' class of their priority.
    pub priority_class: Option<String>,
    /// We bind them; else another scheduler does, where we say.
    pub by_us: bool,
}

impl Group {
    /// What a template says; or why its pods cannot be placed.
    pub fn of(object: &DynamicObject, template: &Value, count: u32, kueue: bool) -> Result<Self, String> {
        let mut pod: Pod = serde_json::from_value(template.clone()).map_err(|e| e.to_string())?;
        let mut spec = pod.spec.take().unwrap_or_default();
        for (field, set) in [("nodeName", spec.node_name.is_some()), ("schedulingGroup", spec.scheduling_group.is_some())] {
            if set {
                return Err(format!("spec.{field}: Tidegate starts its pods together and says where; leave it out"));
            }
        }
        if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
            return Err(
                "its pod asks for a ResourceClaim: such objects are given no claims yet; ask for nvidia.com/gpu".to_owned()
            );
        }
        let by_us = spec.scheduler_name.as_deref() == Some(labels::SCHEDULER);
        let priority_class = spec.priority_class_name.clone().filter(|class| !class.is_empty());
        spec.scheduler_name = Some(labels::SCHEDULER.to_owned());
        pod.metadata.annotations = Some(annotations(object, &pod, kueue));
        let all = pod.metadata.labels.get_or_insert_default();
        all.remove(labels::GANG);
        // Whose it is the object says.
        all.insert(labels::QUEUE.to_owned(), "-".to_owned());
        (pod.metadata.name, pod.metadata.namespace) = (Some(object.name_any()), object.namespace());
        pod.spec = Some(spec);
        Self::read(&pod, count, priority_class, by_us)
    }

    fn read(pod: &Pod, count: u32, priority_class: Option<String>, by_us: bool) -> Result<Self, String> {
        let mut pod = PodFacts::of(pod);
        if let Some(problem) = pod.ours.as_ref().and_then(|ours| ours.problem.clone()) {
            return Err(format!("its pod {problem}"));
        }
        let claims = pod.needs.as_mut().map(|needs| &mut needs.claims);
        if let Some(claims) = claims {
            if by_us && claims.iter().any(|claim| claim.own) {
                return Err("spec.volumes: an `ephemeral` volume is made for a pod that is there; name a claim, or another \
                            scheduler in schedulerName"
                    .to_owned());
            }
            // Made for each pod on the node that we choose, by the scheduler that the pods are for.
            claims.retain(|claim| !claim.own);
        }
        Ok(Self { pod, count, priority_class, by_us })
    }

    /// What its pods ask of a node.
    pub fn ask(&self) -> tidegate_core::ask::Ask {
        self.pod.ours.as_ref().map(|ours| (*ours.ask).clone()).unwrap_or_default()
    }
}

/// The template's, and what the object and Kueue say in their own.
fn annotations(object: &DynamicObject, pod: &Pod, kueue: bool) -> BTreeMap<String, String> {
    let mut all = pod.metadata.annotations.clone().unwrap_or_default();
    for name in [labels::GANG_SIZE, labels::SEAT_OF] {
        all.remove(name);
    }
    let level = |key: &String| if key == HOSTNAME { NODE.to_owned() } else { key.clone() };
    let theirs = [
        (labels::REQUIRED_TOPOLOGY, labels::KUEUE_REQUIRED_TOPOLOGY),
        (labels::PREFERRED_TOPOLOGY, labels::KUEUE_PREFERRED_TOPOLOGY),
    ];
    let said = theirs.iter().filter(|_| kueue).filter_map(|(ours, theirs)| Some(((*ours).to_owned(), level(all.get(*theirs)?))));
    let said: Vec<(String, String)> = said.collect();
    let above = OF_THE_OBJECT.iter().filter_map(|name| Some(((*name).to_owned(), object.annotations().get(*name)?.clone())));
    for (name, value) in above.chain(said) {
        all.entry(name).or_insert(value);
    }
    all
}

/// Whether its pods are ours to bind, as the template says.
pub(super) fn is_by_us(spec: Option<&Value>) -> bool {
    spec.and_then(|spec| spec.get("schedulerName")).and_then(Value::as_str) == Some(labels::SCHEDULER)
}
