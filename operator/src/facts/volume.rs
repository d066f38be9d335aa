//! Claims of volumes, volumes, and the classes of both: where a pod that uses a claim may be.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm, Volume};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use tidegate_core::ask::Term;
use tidegate_core::labels::{Requirement, Rule};

use super::{beside, selection};

/// On a claim: the node of its first user, for which the volume is made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: it has its volume, and the volume has it.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The class of a claim before there was a field for it; it still counts first.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Where a volume without affinity says where it is; several values are parted by two underscores.
const PLACES: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
/// The provisioner of classes that make no volumes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// A claim, as a pod names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    pub key: String,
    /// It is made for this pod alone, and ends with it.
    pub own: bool,
}

impl ClaimUse {
    /// Of a pod's volume, if it is one of a claim.
    pub fn of(namespace: &str, pod: &str, volume: &Volume) -> Option<Self> {
        let own = volume.ephemeral.is_some();
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        let name = named.or_else(|| own.then(|| format!("{pod}-{}", volume.name)))?;
        Some(Self { key: beside::key(namespace, &name), own })
    }
}

/// How far a claim has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bond {
    Unbound,
    /// It names a volume, which is not its own yet.
    Promised,
    Bound(String),
    /// Its volume is gone.
    Lost,
}

/// A `PersistentVolumeClaim`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimFacts {
    pub key: String,
    pub uid: String,
    pub resource_version: String,
    pub bond: Bond,
    pub class: Option<String>,
    pub selected: Option<String>,
    /// One pod at a time may use it.
    pub alone: bool,
    /// Uid of the pod for which it was made.
    pub controller: Option<String>,
    pub ending: bool,
}

impl ClaimFacts {
    /// What the object says.
    pub fn of(claim: &PersistentVolumeClaim) -> Self {
        let spec = claim.spec.clone().unwrap_or_default();
        let annotation = |name: &str| claim.annotations().get(name).cloned().filter(|value| !value.is_empty());
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let bound = phase == "Bound" || annotation(BIND_COMPLETED).is_some();
        let controller = claim.owner_references().iter().find(|owner| owner.controller == Some(true));
        Self {
            key: beside::key(&claim.namespace().unwrap_or_default(), &claim.name_any()),
            uid: claim.uid().unwrap_or_default(),
            resource_version: claim.resource_version().unwrap_or_default(),
            bond: match spec.volume_name.filter(|name| !name.is_empty()) {
                _ if phase == "Lost" => Bond::Lost,
                Some(volume) if bound => Bond::Bound(volume),
                Some(_) => Bond::Promised,
                None => Bond::Unbound,
            },
            class: annotation(CLASS).or(spec.storage_class_name).filter(|class| !class.is_empty()),
            selected: annotation(SELECTED_NODE),
            alone: spec.access_modes.iter().flatten().any(|mode| mode == "ReadWriteOncePod"),
            controller: controller.map(|owner| owner.uid.clone()),
            ending: claim.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// A `PersistentVolume`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFacts {
    pub name: String,
    /// Nodes that reach it: one of these; none: all do.
    pub terms: Vec<Term>,
    /// Key of the claim that has it.
    pub claim: Option<String>,
}

impl VolumeFacts {
    /// What the object says.
    pub fn of(volume: &PersistentVolume) -> Self {
        let spec = volume.spec.as_ref();
        let affinity = spec.and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
        let terms: Vec<Term> = affinity.iter().flat_map(|required| &required.node_selector_terms).map(selection::term).collect();
        let claim = spec.and_then(|spec| spec.claim_ref.as_ref());
        let of = |key: &str| Some((key.to_owned(), volume.labels().get(key)?.split("__").map(str::to_owned).collect()));
        let places = all_in(PLACES.iter().filter_map(|key| of(key)).collect());
        Self {
            name: volume.name_any(),
            terms: selection::both(&terms, places.as_slice()),
            claim: claim.and_then(|to| Some(beside::key(to.namespace.as_deref()?, to.name.as_deref()?))),
        }
    }
}

/// A `StorageClass`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassFacts {
    pub name: String,
    /// Its volumes are made when it is known where the first pod will be.
    pub waits: bool,
    /// It makes volumes.
    pub provisions: bool,
    /// Nodes for which it makes them: one of these; none: for all.
    pub terms: Vec<Term>,
}

impl ClassFacts {
    /// What the object says.
    pub fn of(class: &StorageClass) -> Self {
        let term = |term: &TopologySelectorTerm| {
            let all = term.match_label_expressions.iter().flatten();
            all_in(all.map(|wanted| (wanted.key.clone(), wanted.values.clone())).collect()).unwrap_or_default()
        };
        Self {
            name: class.name_any(),
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisions: class.provisioner != NO_PROVISIONER,
            terms: class.allowed_topologies.iter().flatten().map(term).collect(),
        }
    }
}

/// Labels that must all have one of their values.
fn all_in(wanted: BTreeMap<String, Vec<String>>) -> Option<Term> {
    let all = wanted.into_iter().map(|(key, values)| Requirement { key, rule: Rule::In(values) });
    Some(Term(all.collect())).filter(|Term(all)| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(change: impl FnOnce(&mut Value)) -> ClaimFacts {
        let mut claim =
            json!({"metadata": {"namespace": "team", "name": "data"}, "spec": {"storageClassName": "fast"}, "status": {}});
        change(&mut claim);
        ClaimFacts::of(&serde_json::from_value(claim).unwrap())
    }

    #[test]
    fn a_claim_is_bound_when_both_sides_say_so() {
        assert_eq!((claim(|_| {}).bond, claim(|_| {}).class.as_deref()), (Bond::Unbound, Some("fast")));
        let named = |claim: &mut Value| claim["spec"]["volumeName"] = json!("v");
        assert_eq!(claim(named).bond, Bond::Promised);
        let bound = claim(|claim| {
            named(claim);
            claim["status"]["phase"] = json!("Bound");
        });
        assert_eq!(bound.bond, Bond::Bound("v".to_owned()));
        let completed = claim(|claim| {
            named(claim);
            claim["metadata"]["annotations"] = json!({BIND_COMPLETED: "yes"});
        });
        assert_eq!(completed.bond, Bond::Bound("v".to_owned()));
        assert_eq!(claim(|claim| claim["status"]["phase"] = json!("Lost")).bond, Bond::Lost);
    }

    #[test]
    fn a_pods_own_volume_is_of_a_claim_that_is_named_after_both() {
        let of = |volume: Value| ClaimUse::of("team", "p", &serde_json::from_value(volume).unwrap());
        let own = of(json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}));
        assert_eq!(own, Some(ClaimUse { key: "team/p-scratch".to_owned(), own: true }));
        let named = of(json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}}));
        assert_eq!(named, Some(ClaimUse { key: "team/data".to_owned(), own: false }));
        assert_eq!(of(json!({"name": "v", "emptyDir": {}})), None);
    }

    #[test]
    fn a_volume_says_which_nodes_reach_it() {
        let volume = |labels: Value, spec: Value| {
            VolumeFacts::of(&serde_json::from_value(json!({"metadata": {"name": "v", "labels": labels}, "spec": spec})).unwrap())
        };
        let terms = json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]);
        let found = volume(
            json!({}),
            json!({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}, "claimRef": {"namespace": "team", "name": "data"}}),
        );
        let requirement = |key: &str, values: &[&str]| Requirement {
            key: key.to_owned(),
            rule: Rule::In(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        assert_eq!((found.terms, found.claim.as_deref()), (vec![Term(vec![requirement("zone", &["a"])])], Some("team/data")));
        let labelled = volume(json!({"topology.kubernetes.io/zone": "a__b"}), json!({}));
        assert_eq!(labelled.terms, [Term(vec![requirement("topology.kubernetes.io/zone", &["a", "b"])])]);
        assert!(volume(json!({}), json!({})).terms.is_empty());
    }

    #[test]
    fn a_class_says_when_and_where_its_volumes_are_made() {
        let class = |class: Value| ClassFacts::of(&serde_json::from_value(class).unwrap());
        let late = class(json!({
            "metadata": {"name": "fast"}, "provisioner": "csi.example.com", "volumeBindingMode": "WaitForFirstConsumer",
            "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}],
        }));
        assert!(late.waits && late.provisions && late.terms.len() == 1);
        let local = class(json!({"metadata": {"name": "local"}, "provisioner": NO_PROVISIONER}));
        assert!(!local.waits && !local.provisions && local.terms.is_empty());
    }
}
