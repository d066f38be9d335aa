//! A native `PodGroup`: how many of the pods that name it start together.
//!
//! Its priority is not read, as pods have theirs; nor is its disruption mode, as a gang is always stopped whole.

use k8s_openapi::api::scheduling::v1beta1::{PodGroup, PodGroupSchedulingPolicy};
use kube::ResourceExt;
use tidegate_core::state::Spread;

use super::beside;
use super::gang::MOST_GANG;
use super::seat::HOSTNAME;

/// What single nodes are called as a level of the topology.
const NODE: &str = "node";

/// A `PodGroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFacts {
    pub key: String,
    /// How many start together; `None`: each of its pods is on its own. Or why it cannot be told, as a pod is told.
    pub size: Result<Option<u32>, String>,
    pub spread: Option<Spread>,
}

impl GroupFacts {
    /// What the object says.
    pub fn of(group: &PodGroup) -> Self {
        let constraints = group.spec.scheduling_constraints.as_ref().and_then(|constraints| constraints.topology.as_ref());
        let level = |key: &str| if key == HOSTNAME { NODE.to_owned() } else { key.to_owned() };
        Self {
            key: beside::key(&group.namespace().unwrap_or_default(), &group.name_any()),
            size: size(&group.name_any(), &group.spec.scheduling_policy),
            spread: constraints.into_iter().flatten().next().map(|to| Spread { level: level(&to.key), required: true }),
        }
    }
}

fn size(name: &str, policy: &PodGroupSchedulingPolicy) -> Result<Option<u32>, String> {
    match (&policy.gang, &policy.basic) {
        (Some(gang), _) => {
            let size = u32::try_from(gang.min_count).ok().filter(|size| (1..=MOST_GANG).contains(size));
            size.map(Some).ok_or_else(|| {
                let found = gang.min_count;
                format!("names the PodGroup {name}, whose gang.minCount is {found}: give a number from 1 to {MOST_GANG}")
            })
        }
        (None, Some(_)) => Ok(None),
        (None, None) => {
            Err(format!("names the PodGroup {name}, whose schedulingPolicy is neither basic nor gang: give one of them"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "tests write JSON in place")]
    fn group(spec: Value) -> GroupFacts {
        GroupFacts::of(&serde_json::from_value(json!({"metadata": {"namespace": "team", "name": "g"}, "spec": spec})).unwrap())
    }

    #[test]
    fn a_pod_group_is_a_gang_or_none() {
        let gang = group(json!({"schedulingPolicy": {"gang": {"minCount": 4}}}));
        assert_eq!((gang.key.as_str(), gang.size, gang.spread), ("team/g", Ok(Some(4)), None));
        assert_eq!(group(json!({"schedulingPolicy": {"basic": {}}})).size, Ok(None));
        let none = group(json!({"schedulingPolicy": {}})).size.unwrap_err();
        assert!(none.contains("neither basic nor gang"), "{none}");
        let silly = group(json!({"schedulingPolicy": {"gang": {"minCount": 0}}})).size.unwrap_err();
        assert!(silly.contains("minCount is 0"), "{silly}");
    }

    #[test]
    fn its_topology_is_a_level_of_the_pool() {
        let within = |key: &str| {
            let spec = json!({"schedulingPolicy": {"basic": {}}, "schedulingConstraints": {"topology": [{"key": key}]}});
            group(spec).spread.map(|spread| (spread.level, spread.required))
        };
        assert_eq!(within("example.com/rack"), Some(("example.com/rack".to_owned(), true)));
        assert_eq!(within("kubernetes.io/hostname"), Some(("node".to_owned(), true)));
    }
}
