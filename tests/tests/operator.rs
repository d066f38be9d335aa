//! The operator on a real API server: what it binds, and what it never does, whoever is killed.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidegate_tests::control_plane::{ADMIN, ControlPlane, NOBODY, SOON, TEAM};
use tidegate_tests::harness::until;

const PORT: u16 = 9001;
const OTHER_PORT: u16 = 9002;
/// Long enough for a decision and its writes, on a busy machine; nothing happens by then that should not.
const A_WHILE: Duration = Duration::from_secs(3);

/// By which the API server serves PodGroups: without them it has none.
const POD_GROUPS: [&str; 2] = ["--feature-gates=GenericWorkload=true", "--runtime-config=scheduling.k8s.io/v1beta1=true"];

async fn plane(nodes: &[(&str, u32)], queues: &[(&str, u32)]) -> ControlPlane {
    plane_with(&[], nodes, queues).await
}

async fn plane_with(flags: &[&str], nodes: &[(&str, u32)], queues: &[(&str, u32)]) -> ControlPlane {
    let plane = ControlPlane::start_with(flags).await.unwrap();
    for (name, gpus) in nodes {
        plane.node(name, *gpus).await.unwrap();
    }
    for (name, nominal) in queues {
        plane.queue(name, *nominal).await.unwrap();
    }
    plane
}

fn gang(name: &'static str, size: u32) -> impl Fn(&mut Value) {
    move |pod| {
        pod["metadata"]["labels"]["tidegate.dev/gang"] = json!(name);
        pod["metadata"]["annotations"]["tidegate.dev/gang-size"] = json!(size.to_string());
    }
}

/// What a pod's condition says of its placing, once it does.
async fn refusal(plane: &ControlPlane, pod: &str) -> String {
    let told = |pod: Pod| {
        let conditions = pod.status?.conditions?;
        let scheduled = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled")?;
        (scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable")).then_some(scheduled.message?)
    };
    let look = || async { Ok(told(plane.pods().get(pod).await?)) };
    until("a pod to be told why it waits", SOON, look).await.unwrap()
}

#[tokio::test]
async fn pods_are_bound_within_quota_and_who_is_owed_gets_its_gpu_back() {
    let mut plane = plane(&[("n1", 2), ("n2", 2)], &[("a", 2), ("b", 2)]).await;
    plane.operator("operator", PORT, &[]).unwrap();
    for number in 0..5 {
        plane.pod(&format!("a-{number}"), "a", |_| {}).await.unwrap();
    }
    let bound = plane.until_bound(4).await.unwrap();
    for (pod, _) in &bound {
        plane.says(pod, "Running").await.unwrap();
    }
    let waits = (0..5).map(|number| format!("a-{number}")).find(|name| bound.iter().all(|(pod, _)| pod != name)).unwrap();
    assert!(!refusal(&plane, &waits).await.is_empty());
    // The first of b is owed what a borrows: one of a's pods is told to end, and no more than one.
    plane.pod("b-0", "b", |_| {}).await.unwrap();
    let ending = || async {
        let pods = plane.list().await?;
        let ending = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some());
        Ok(ending.map(ResourceExt::name_any).next())
    };
    let victim = until("a pod to be told to end", SOON, ending).await.unwrap();
    plane.end(&victim).await.unwrap();
    let look = || async { Ok(plane.bound().await?.iter().any(|(pod, _)| pod == "b-0").then_some(())) };
    until("b to have its GPU", SOON, look).await.unwrap();
    plane.check_nodes(2).await.unwrap();
    assert!(plane.list().await.unwrap().iter().all(|pod| pod.metadata.deletion_timestamp.is_none()), "one was enough");
}

#[tokio::test]
async fn a_gang_is_bound_whole_or_not_at_all() {
    let mut plane = plane(&[("n1", 2), ("n2", 1)], &[("a", 3)]).await;
    plane.operator("operator", PORT, &[]).unwrap();
    for number in 0..2 {
        plane.pod(&format!("first-{number}"), "a", gang("first", 2)).await.unwrap();
    }
    plane.until_bound(2).await.unwrap();
    for number in 0..2 {
        plane.pod(&format!("second-{number}"), "a", gang("second", 2)).await.unwrap();
    }
    refusal(&plane, "second-0").await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(plane.bound().await.unwrap().len(), 2, "one GPU is free, and the second gang needs two");
    for number in 0..2 {
        plane.end(&format!("first-{number}")).await.unwrap();
    }
    let bound = plane.until_bound(2).await.unwrap();
    assert!(bound.iter().all(|(pod, _)| pod.starts_with("second-")), "{bound:?}");
}

#[tokio::test]
async fn pods_of_a_job_that_say_its_size_are_bound_together() {
    let mut plane = plane(&[("n1", 2)], &[("a", 2)]).await;
    plane.operator("operator", PORT, &[]).unwrap();
    let of_job = |pod: &mut Value| {
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "night", "uid": "none", "controller": true}]);
        pod["metadata"]["annotations"]["tidegate.dev/gang-size"] = json!("2");
    };
    plane.pod("night-a", "a", of_job).await.unwrap();
    let told = refusal(&plane, "night-a").await;
    assert!(told.contains("1 of its gang are there"), "{told}");
    plane.pod("night-b", "a", of_job).await.unwrap();
    plane.until_bound(2).await.unwrap();
}

#[tokio::test]
async fn a_native_pod_group_is_bound_whole_once_it_exists() {
    let mut plane = plane_with(&POD_GROUPS, &[("n1", 2)], &[("a", 2)]).await;
    plane.operator("operator", PORT, &[]).unwrap();
    let grouped = |pod: &mut Value| pod["spec"]["schedulingGroup"] = json!({"podGroupName": "night"});
    plane.pod("night-a", "a", grouped).await.unwrap();
    let told = refusal(&plane, "night-a").await;
    assert!(told.contains("PodGroup team/night, which does not exist"), "{told}");
    let group: PodGroup = serde_json::from_value(json!({
        "metadata": {"name": "night"}, "spec": {"schedulingPolicy": {"gang": {"minCount": 2}}},
    }))
    .unwrap();
    let groups: Api<PodGroup> = Api::namespaced(plane.client.clone(), TEAM);
    groups.create(&PostParams::default(), &group).await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert!(plane.bound().await.unwrap().is_empty(), "one of two");
    plane.pod("night-b", "a", grouped).await.unwrap();
    plane.until_bound(2).await.unwrap();
}

#[tokio::test]
async fn two_pods_with_one_host_port_are_on_two_nodes() {
    let mut plane = plane(&[("n1", 4), ("n2", 4)], &[("a", 8)]).await;
    plane.operator("operator", PORT, &[]).unwrap();
    let port = |pod: &mut Value| {
        pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 8080}]);
    };
    for name in ["p", "q", "r"] {
        plane.pod(name, "a", port).await.unwrap();
    }
    let bound = plane.until_bound(2).await.unwrap();
    assert_ne!(bound[0].1, bound[1].1);
    let waits = ["p", "q", "r"].into_iter().find(|name| bound.iter().all(|(pod, _)| pod != name)).unwrap();
    let told = refusal(&plane, waits).await;
    assert!(told.contains("host port 8080/TCP is taken on"), "{told}");
    assert_eq!(plane.bound().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_claim_is_told_the_node_of_its_first_user_and_the_pod_is_bound_when_its_volume_is_there() {
    let mut plane = plane(&[("n1", 1), ("n2", 1)], &[("a", 2)]).await;
    plane.operator("operator", PORT, &[]).unwrap();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(plane.client.clone(), TEAM);
    let volume = |pod: &mut Value| {
        pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    };
    plane.pod("p", "a", volume).await.unwrap();
    let told = refusal(&plane, "p").await;
    assert!(told.contains("team/data, which does not exist"), "{told}");

    let class: StorageClass = serde_json::from_value(json!({
        "metadata": {"name": "late"}, "provisioner": "csi.example.com", "volumeBindingMode": "WaitForFirstConsumer",
    }))
    .unwrap();
    Api::all(plane.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": {"name": "data"},
        "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }))
    .unwrap();
    claims.create(&PostParams::default(), &claim).await.unwrap();
    let selected = || async {
        let claim = claims.get("data").await?;
        Ok(claim.annotations().get("volume.kubernetes.io/selected-node").cloned())
    };
    let node = until("the claim to be told its node", SOON, selected).await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert!(plane.bound().await.unwrap().is_empty(), "there is no volume yet");

    // As a provisioner and the volume controller do.
    let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    let made: PersistentVolume = serde_json::from_value(json!({
        "metadata": {"name": "v"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "late",
            "csi": {"driver": "csi.example.com", "volumeHandle": "v"}, "claimRef": {"namespace": TEAM, "name": "data"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        },
    }))
    .unwrap();
    Api::all(plane.client.clone()).create(&PostParams::default(), &made).await.unwrap();
    let named = Patch::Merge(json!({"spec": {"volumeName": "v"}}));
    claims.patch("data", &PatchParams::default(), &named).await.unwrap();
    let bound = Patch::Merge(json!({"status": {"phase": "Bound"}}));
    claims.patch_status("data", &PatchParams::default(), &bound).await.unwrap();
    assert_eq!(plane.until_bound(1).await.unwrap(), [("p".to_owned(), node)]);
}

#[tokio::test]
async fn a_leader_that_is_killed_is_followed_by_one_that_binds_nothing_twice() {
    let mut plane = plane(&[("n1", 8), ("n2", 8), ("n3", 8)], &[("a", 24)]).await;
    for number in 0..30 {
        plane.pod(&format!("w-{number}"), "a", |_| {}).await.unwrap();
    }
    plane.operator("first", PORT, &[]).unwrap();
    plane.until_bound(1).await.unwrap();
    plane.signal("first", Signal::SIGKILL).unwrap();
    plane.ended("first").await.unwrap();
    let early: BTreeSet<(String, String)> = plane.bound().await.unwrap().into_iter().collect();
    plane.operator("second", OTHER_PORT, &[]).unwrap();
    let bound: BTreeSet<(String, String)> = plane.until_bound(24).await.unwrap().into_iter().collect();
    assert!(early.is_subset(&bound), "what was bound stays where it is");
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(plane.bound().await.unwrap().len(), 24);
    plane.check_nodes(8).await.unwrap();
    assert!(plane.list().await.unwrap().iter().all(|pod| pod.metadata.deletion_timestamp.is_none()), "nobody was told to end");
}

#[tokio::test]
async fn a_leader_that_sleeps_through_its_lease_writes_no_more() {
    let mut plane = plane(&[("n1", 2)], &[("a", 2)]).await;
    plane.operator("first", PORT, &[]).unwrap();
    plane.pod("w-0", "a", |_| {}).await.unwrap();
    plane.until_bound(1).await.unwrap();
    plane.operator("second", OTHER_PORT, &[]).unwrap();
    plane.signal("first", Signal::SIGSTOP).unwrap();
    plane.pod("w-1", "a", |_| {}).await.unwrap();
    plane.until_bound(2).await.unwrap();
    plane.signal("first", Signal::SIGCONT).unwrap();
    assert_eq!(plane.ended("first").await.unwrap(), Some(1));
    let said = plane.log("first");
    assert!(said.contains("keep the lease"), "{said}");
    plane.check_nodes(2).await.unwrap();
}

#[tokio::test]
async fn what_is_observed_is_published_and_nothing_is_changed() {
    let mut plane = plane(&[("n1", 2)], &[]).await;
    plane.example_queues().await.unwrap();
    plane.operator("operator", PORT, &["--mode", "observe"]).unwrap();
    plane.pod("w-0", "research", |_| {}).await.unwrap();
    let look = || async {
        let (status, text) = plane.ask(PORT, "/plans", Some(ADMIN)).await?;
        Ok((status == 200 && text.contains("job/pod/team/w-0")).then_some(text))
    };
    let published = until("the plan to be published", SOON, look).await.unwrap();
    assert!(published.contains("\"n1\"") && published.contains("start_job"), "{published}");
    assert!(plane.bound().await.unwrap().is_empty());
    let (status, text) = plane.ask(PORT, "/plans", None).await.unwrap();
    assert!(status == 401 && text.contains("Bearer"), "{status} {text}");
    let (status, text) = plane.ask(PORT, "/snapshot", Some(NOBODY)).await.unwrap();
    assert!(status == 403 && text.contains("nobody") && text.contains("/snapshot"), "{status} {text}");
    let (status, text) = plane.ask(PORT, "/explain?job=pod/team/w-0", Some(ADMIN)).await.unwrap();
    assert!(status == 200 && text.contains("wouldChange"), "{status} {text}");
    let (_, metrics) = plane.ask(PORT, "/metrics", None).await.unwrap();
    assert!(metrics.contains("tidegate_operator_synced 1"), "{metrics}");
}
