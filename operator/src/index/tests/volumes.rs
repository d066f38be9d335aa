//! Claims, their volumes and classes.

use super::*;
use crate::facts::volume::{ClaimFacts, ClassFacts, VolumeFacts};

fn claim(name: &str, change: impl FnOnce(&mut Value)) -> Beside {
    let mut claim = json!({
        "metadata": {"namespace": "team", "name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "annotations": {}},
        "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Pending"},
    });
    change(&mut claim);
    Beside::Claim(ClaimFacts::of(&serde_json::from_value(claim).unwrap()))
}

fn bound(claim: &mut Value) {
    claim["spec"]["volumeName"] = json!("v");
    claim["status"]["phase"] = json!("Bound");
}

fn selected(node: &'static str) -> impl Fn(&mut Value) {
    move |claim| claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = json!(node)
}

/// A volume that is reached from one node.
fn volume(node: &str) -> Beside {
    let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    let volume = json!({
        "metadata": {"name": "v"},
        "spec": {"claimRef": {"namespace": "team", "name": "data"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}},
    });
    Beside::Volume(VolumeFacts::of(&serde_json::from_value(volume).unwrap()))
}

fn class(mode: &str, provisioner: &str) -> Beside {
    let class = json!({"metadata": {"name": "late"}, "provisioner": provisioner, "volumeBindingMode": mode});
    Beside::Class(ClassFacts::of(&serde_json::from_value(class).unwrap()))
}

fn late() -> Beside {
    class("WaitForFirstConsumer", "csi.example.com")
}

fn uses(pod: &mut Value) {
    pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
}

fn rig() -> Rig {
    Rig::with(&[("n1", 2), ("n2", 2)], &[("a", 4)])
}

#[test]
fn a_pod_goes_where_its_volume_is() {
    for node in ["n1", "n2"] {
        let mut rig = rig();
        rig.beside(claim("data", bound));
        rig.see("p", uses);
        assert!(rig.turn().is_empty(), "the volume is not known yet");
        rig.beside(volume(node));
        assert_eq!(rig.bind_all(uses), [("p".to_owned(), node.to_owned())]);
    }
}

#[test]
fn who_waits_for_a_claim_is_told_what_is_wrong_with_it() {
    let mut rig = rig();
    rig.see("p", uses);
    let told = |rig: &mut Rig, object: Option<Beside>| {
        if let Some(object) = object {
            rig.beside(object);
        }
        assert!(rig.turn().is_empty());
        rig.told().pop().unwrap_or_default()
    };
    let says = |told: String, part: &str| assert!(told.contains(part) && told.contains("team/data"), "{told}");
    says(told(&mut rig, None), "does not exist: create it");
    says(told(&mut rig, Some(claim("data", |claim| claim["spec"]["storageClassName"] = json!("")))), "names no class");
    says(told(&mut rig, Some(claim("data", |_| {}))), "StorageClass late, which does not exist");
    says(told(&mut rig, Some(class("Immediate", "csi.example.com"))), "binds at once");
    says(told(&mut rig, Some(class("WaitForFirstConsumer", "kubernetes.io/no-provisioner"))), "makes none");
    says(told(&mut rig, Some(claim("data", |claim| claim["status"]["phase"] = json!("Lost")))), "lost its volume");
    let ending = |claim: &mut Value| claim["metadata"]["deletionTimestamp"] = json!("2026-11-29T00:00:00Z");
    says(told(&mut rig, Some(claim("data", ending))), "is being deleted");
    rig.see("q", |_| {});
    assert_eq!(rig.bind_all(|_| {}).len(), 1, "nobody else waits for that");
}

#[test]
fn a_claim_that_waits_for_its_first_user_is_told_the_node_and_the_pod_is_bound_when_it_has_a_volume() {
    let mut rig = rig();
    rig.beside(late());
    rig.beside(claim("data", |_| {}));
    rig.see("p", uses);
    let writes = rig.turn();
    let [Write::SelectNode { claim: key, uid, node, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!((key.as_str(), uid.as_str()), ("team/data", "uid-data"));
    let node: &'static str = if node == "n1" { "n1" } else { "n2" };
    rig.done(&writes[0], Ok(()));
    rig.beside(claim("data", selected(node)));
    assert!(rig.turn().is_empty(), "there is no volume yet");
    rig.beside(claim("data", |claim| {
        selected(node)(claim);
        bound(claim);
    }));
    assert!(rig.turn().is_empty(), "nobody knows where it is");
    rig.beside(volume(node));
    let writes = rig.index.take_writes();
    assert!(matches!(writes.as_slice(), [Write::Bind { node: to, .. }] if to == node), "{writes:?}");
    rig.done(&writes[0], Ok(()));
    assert!(rig.engine.state().actions.is_empty());
}

#[test]
fn a_claim_for_which_no_volume_can_be_made_gives_the_node_back() {
    let mut rig = rig();
    rig.beside(late());
    rig.beside(claim("data", |_| {}));
    rig.see("p", uses);
    let node: &'static str = match rig.turn().as_slice() {
        [Write::SelectNode { node, .. }] if node == "n1" => "n1",
        _ => "n2",
    };
    rig.beside(claim("data", selected(node)));
    rig.beside(claim("data", |_| {}));
    assert!(rig.index.take_writes().is_empty());
    assert!(rig.told()[0].contains("no volume can be made for claim team/data"));
    rig.now = rig.now.plus(120_000);
    assert_eq!(rig.turn().len(), 1, "it is tried again later");
}

#[test]
fn a_volume_that_does_not_come_is_not_waited_for_for_ever() {
    let mut rig = rig();
    rig.beside(late());
    rig.beside(claim("data", |_| {}));
    rig.see("p", uses);
    assert_eq!(rig.turn().len(), 1);
    rig.now = rig.now.plus(601_000);
    let events = rig.index.look(rig.now);
    rig.tell(events);
    assert_eq!(rig.running(), 0);
    let told = rig.told();
    assert!(told[0].contains("no volume in 600 s for claim team/data"), "{told:?}");
}

#[test]
fn of_a_gang_nobody_is_bound_before_all_volumes_are_there() {
    let mut rig = rig();
    rig.beside(late());
    rig.beside(claim("data", |_| {}));
    let both = |pod: &mut Value| {
        gang(2)(pod);
        uses(pod);
    };
    rig.see("w-0", both);
    rig.see("w-1", gang(2));
    let writes = rig.turn();
    let [Write::SelectNode { node, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    let node = node.clone();
    rig.beside(claim("data", bound));
    rig.beside(volume(&node));
    assert_eq!(rig.index.take_writes().len(), 2);
}

#[test]
fn a_gang_of_which_a_pod_goes_while_volumes_are_made_is_given_up() {
    let mut rig = rig();
    rig.beside(late());
    rig.beside(claim("data", |_| {}));
    let both = |pod: &mut Value| {
        gang(2)(pod);
        uses(pod);
    };
    rig.see("w-0", both);
    rig.see("w-1", gang(2));
    assert_eq!(rig.turn().len(), 1);
    rig.gone("w-1");
    assert!(rig.turn().is_empty());
    assert!(rig.engine.state().actions.is_empty() && rig.running() == 0);
}

#[test]
fn two_pods_that_share_a_claim_without_a_volume_choose_one_node() {
    let mut rig = Rig::with(&[("n1", 1), ("n2", 1)], &[("a", 4)]);
    rig.beside(late());
    rig.beside(claim("data", |_| {}));
    rig.see("p", uses);
    rig.see("q", uses);
    assert_eq!(rig.turn().len(), 1, "each node has one GPU, and the first pod has chosen");
    assert!(rig.told()[0].contains("is wanted on n"));
}

#[test]
fn after_a_restart_a_claim_that_was_told_its_node_keeps_it() {
    let mut rig = rig();
    rig.beside(late());
    rig.beside(claim("data", selected("n2")));
    rig.see("p", uses);
    assert!(rig.turn().is_empty(), "it is told already");
    rig.beside(claim("data", bound));
    rig.beside(volume("n2"));
    let writes = rig.index.take_writes();
    assert!(matches!(writes.as_slice(), [Write::Bind { node, .. }] if node == "n2"), "{writes:?}");
}

#[test]
fn a_claim_in_conflict_is_told_again_and_one_that_refuses_is_given_up() {
    let mut rig = rig();
    rig.beside(late());
    rig.beside(claim("data", |_| {}));
    rig.see("p", uses);
    let first = rig.turn().remove(0);
    rig.beside(claim("data", |claim| claim["metadata"]["resourceVersion"] = json!("2")));
    rig.done(&first, Err(Failure::Conflict));
    let writes = rig.index.take_writes();
    let [again @ Write::SelectNode { resource_version, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(resource_version, "2");
    rig.done(again, Err(Failure::Refused("a webhook says no".into())));
    assert_eq!(rig.running(), 0);
    assert!(rig.told()[0].contains("claim team/data: a webhook says no"));
}

#[test]
fn what_one_pod_may_use_at_a_time_is_used_by_one() {
    let mut rig = rig();
    rig.beside(volume("n1"));
    rig.beside(claim("data", |claim| {
        bound(claim);
        claim["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    }));
    rig.see("theirs", |pod| {
        foreign(pod);
        uses(pod);
        pod["spec"]["nodeName"] = json!("n1");
        pod["spec"]["containers"][0]["resources"] = json!({});
    });
    rig.see("p", uses);
    rig.see("q", uses);
    assert!(rig.turn().is_empty());
    assert!(rig.told().iter().all(|told| told.contains("in use by pod team/theirs")));
    rig.gone("theirs");
    assert_eq!(rig.bind_all(uses).len(), 1);
    let told = rig.told();
    assert!(told.len() == 1 && told[0].contains("in use by pod"), "{told:?}");
}
