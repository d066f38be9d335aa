//! Which pods start together, by what each of them says.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use tidegate_api::labels;

use super::{needs, shown};

/// A gang is placed at once, in one decision.
pub const MOST_GANG: u32 = 100_000;
/// The label that pods of one group of a `LeaderWorkerSet` have in common.
const LWS_GROUP: &str = "leaderworkerset.sigs.k8s.io/group-key";

/// Pods of one namespace that start together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gang {
    /// What a label says, or `KIND/NAME` of what makes them one: a label's value has no slash.
    pub name: String,
    /// Of a `PodGroup`'s it stands there.
    pub size: u32,
}

impl Gang {
    /// Named by its `PodGroup`; else by a label; else, with a size alone, by its group of a `LeaderWorkerSet`; else by what controls
    /// the pod: a Job of whatever kind.
    pub fn of(pod: &Pod, spec: &PodSpec) -> Result<Option<Self>, String> {
        let label = pod.metadata.labels.as_ref().and_then(|all| all.get(labels::GANG));
        let told = pod.metadata.annotations.as_ref().and_then(|all| all.get(labels::GANG_SIZE));
        if let Some(group) = needs::group(spec) {
            if label.or(told).is_some() {
                let (gang, size) = (labels::GANG, labels::GANG_SIZE);
                return Err(format!(
                    "names the PodGroup {group} and has the label {gang} or the annotation {size}: leave one out"
                ));
            }
            return Ok(Some(Self { name: format!("PodGroup/{group}"), size: 1 }));
        }
        let name = label.cloned().or_else(|| leader_and_workers(pod)).or_else(|| controller(pod));
        match (name, told) {
            (Some(name), Some(told)) => Ok(Some(Self { name, size: size(told)? })),
            (_, None) if label.is_some() => {
                Err(format!("is of a gang of unknown size: add the annotation {} to each of its pods", labels::GANG_SIZE))
            }
            (None, Some(_)) => Err(format!(
                "has the annotation {}, and nothing says of which gang: add the label {}, or let a Job make the pods",
                labels::GANG_SIZE,
                labels::GANG
            )),
            (_, None) => Ok(None),
        }
    }
}

/// A leader and its workers, whom different objects control.
fn leader_and_workers(pod: &Pod) -> Option<String> {
    let group = pod.metadata.labels.as_ref()?.get(LWS_GROUP)?;
    Some(format!("LeaderWorkerSet/{group}"))
}

/// What controls the pod, by kind and name.
fn controller(pod: &Pod) -> Option<String> {
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    Some(format!("{}/{}", owner.kind, owner.name))
}

fn size(text: &str) -> Result<u32, String> {
    let size = text.trim().parse().ok().filter(|size| (1..=MOST_GANG).contains(size));
    size.ok_or_else(|| format!("annotation {} is `{}`: give a number from 1 to {MOST_GANG}", labels::GANG_SIZE, shown(text)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "tests write JSON in place")]
    fn gang(metadata: Value) -> Result<Option<Gang>, String> {
        Gang::of(&serde_json::from_value(json!({"metadata": metadata})).unwrap(), &PodSpec::default())
    }

    #[test]
    fn a_gang_has_a_name_and_a_size() {
        let label = json!({"tidegate.dev/gang": "g"});
        let size = |size: &str| json!({"tidegate.dev/gang-size": size});
        assert_eq!(gang(json!({"labels": label, "annotations": size("4")})), Ok(Some(Gang { name: "g".to_owned(), size: 4 })));
        let none = gang(json!({"labels": label})).unwrap_err();
        assert!(none.contains("gang of unknown size"), "{none}");
        let silly = gang(json!({"labels": label, "annotations": size("many")})).unwrap_err();
        assert!(silly.contains("`many`") && silly.contains("from 1 to"), "{silly}");
        assert_eq!(gang(json!({})), Ok(None));
    }

    #[test]
    fn a_pod_group_names_the_gang_and_nothing_else_may() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [], "schedulingGroup": {"podGroupName": "g"}})).unwrap();
        let of = |metadata: Value| Gang::of(&serde_json::from_value(json!({"metadata": metadata})).unwrap(), &spec);
        assert_eq!(of(json!({})), Ok(Some(Gang { name: "PodGroup/g".to_owned(), size: 1 })));
        let both = of(json!({"labels": {"tidegate.dev/gang": "h"}})).unwrap_err();
        assert!(both.contains("PodGroup g") && both.contains("leave one out"), "{both}");
    }

    #[test]
    fn pods_of_one_controller_are_a_gang_if_they_say_its_size() {
        let owner = |controller: bool| json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "night", "uid": "u", "controller": controller}]);
        let size = json!({"tidegate.dev/gang-size": "8"});
        let of = |metadata: Value| gang(metadata).map(|gang| gang.map(|gang| (gang.name, gang.size)));
        let night = Ok(Some(("Job/night".to_owned(), 8)));
        assert_eq!(of(json!({"annotations": size, "ownerReferences": owner(true)})), night);
        assert_eq!(of(json!({"ownerReferences": owner(true)})), Ok(None), "it says nothing of a gang");
        let label = json!({"tidegate.dev/gang": "g"});
        let named = of(json!({"annotations": size, "ownerReferences": owner(true), "labels": label}));
        assert_eq!(named, Ok(Some(("g".to_owned(), 8))), "the label names it");
        let group = json!({"leaderworkerset.sigs.k8s.io/group-key": "k1"});
        let led = of(json!({"annotations": size, "ownerReferences": owner(true), "labels": group}));
        assert_eq!(led, Ok(Some(("LeaderWorkerSet/k1".to_owned(), 8))), "whoever controls its pods");
        let nobody = of(json!({"annotations": size, "ownerReferences": owner(false)})).unwrap_err();
        assert!(nobody.contains("add the label tidegate.dev/gang"), "{nobody}");
    }
}
