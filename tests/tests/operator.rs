//! The operator on a real API server: what it binds, and what it never does, whoever is killed.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimStatus, ResourceSlice};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidegate_api::kinds::TrainingPhase;
use tidegate_tests::control_plane::{ADMIN, ControlPlane, NOBODY, POD_GROUPS, SOON, TEAM};
use tidegate_tests::harness::until;

const PORT: u16 = 9001;
const OTHER_PORT: u16 = 9002;
/// Long enough for a decision and its writes, on a busy machine; nothing happens by then that should not.
const A_WHILE: Duration = Duration::from_secs(3);

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
    let status = plane.until_queue("a", |status| status.running == 4 && status.waiting == 1).await.unwrap();
    assert_eq!((status.gpus_used.as_str(), status.gpus_owned.as_str()), ("4", "2"));
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
    let preempted = plane.until_event(&victim, "Preempted").await.unwrap();
    assert!(preempted.note.as_ref().is_some_and(|note| note.contains("b-0")), "{preempted:?}");
    plane.until_event(&waits, "FailedScheduling").await.unwrap();
    plane.end(&victim).await.unwrap();
    let look = || async { Ok(plane.bound().await?.iter().any(|(pod, _)| pod == "b-0").then_some(())) };
    until("b to have its GPU", SOON, look).await.unwrap();
    plane.check_nodes(2).await.unwrap();
    plane.check_belief(PORT).await.unwrap();
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
    assert!(told.contains("1 of the 2 pods of its gang Job/night are there"), "{told}");
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

/// At every point of a gang's bindings the leader ends, and the next one finds what it left.
#[tokio::test]
async fn a_leader_that_ends_in_the_middle_of_a_gang_is_followed_by_one_that_makes_it_whole() {
    const GANG: u64 = 4;
    let mut plane = plane(&[("n1", 2), ("n2", 2)], &[("a", 4)]).await;
    for after in 1..=GANG {
        for number in 0..GANG {
            plane.pod(&format!("w{after}-{number}"), "a", gang("g", 4)).await.unwrap();
        }
        let (first, second) = (format!("first-{after}"), format!("second-{after}"));
        plane.operator(&first, PORT, &["--abort-after", &after.to_string()]).unwrap();
        plane.ended(&first).await.unwrap();
        let early: BTreeSet<(String, String)> = plane.bound().await.unwrap().into_iter().collect();
        assert_eq!(early.len() as u64, after, "it ended in the middle");
        plane.operator(&second, OTHER_PORT, &[]).unwrap();
        let bound: BTreeSet<(String, String)> = plane.until_bound(4).await.unwrap().into_iter().collect();
        assert!(early.is_subset(&bound), "what was bound stays where it is");
        plane.check_nodes(2).await.unwrap();
        for number in 0..GANG {
            plane.says(&format!("w{after}-{number}"), "Running").await.unwrap();
        }
        plane.check_belief(OTHER_PORT).await.unwrap();
        assert!(
            plane.list().await.unwrap().iter().all(|pod| pod.metadata.deletion_timestamp.is_none()),
            "nobody was told to end"
        );
        for number in 0..GANG {
            plane.end(&format!("w{after}-{number}")).await.unwrap();
        }
        plane.signal(&second, Signal::SIGTERM).unwrap();
        plane.ended(&second).await.unwrap();
    }
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

/// One GPU on a node that is claimed by name, as a driver publishes it, and claims for it.
async fn publish(plane: &ControlPlane, node: &str, claims: &[&str]) {
    let class: DeviceClass = serde_json::from_value(json!({
        "metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]},
    }))
    .unwrap();
    Api::all(plane.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    let slice: ResourceSlice = serde_json::from_value(json!({
        "metadata": {"name": format!("{node}-gpu.example.com")},
        "spec": {
            "driver": "gpu.example.com", "nodeName": node, "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [{
                "name": "gpu-0",
                "attributes": {"productName": {"string": "Example 80"}, "driverVersion": {"version": "1.2.3"}},
                "capacity": {"memory": {"value": "80Gi"}},
            }],
        },
    }))
    .unwrap();
    Api::all(plane.client.clone()).create(&PostParams::default(), &slice).await.unwrap();
    let expression = "device.capacity['gpu.example.com'].memory.compareTo(quantity('40Gi')) >= 0 && \
                      device.attributes['gpu.example.com'].driverVersion.isGreaterThan(semver('1.0.0'))";
    for name in claims {
        let exactly = json!({"deviceClassName": "gpu", "selectors": [{"cel": {"expression": expression}}]});
        let claim: ResourceClaim = serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
        }))
        .unwrap();
        Api::namespaced(plane.client.clone(), TEAM).create(&PostParams::default(), &claim).await.unwrap();
    }
}

/// A pod that uses the claim of that name.
fn claims(claim: &'static str) -> impl Fn(&mut Value) {
    move |pod| {
        pod["spec"]["containers"][0]["resources"] = json!({"claims": [{"name": "gpu"}]});
        pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": claim}]);
    }
}

/// Claims that are allocated, with the pods for which they are reserved: never more than the one GPU allows.
async fn allocated(plane: &ControlPlane, names: &[&str]) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let api: Api<ResourceClaim> = Api::namespaced(plane.client.clone(), TEAM);
    let mut found = Vec::new();
    for name in names {
        let claim = api.get(name).await?;
        let status: ResourceClaimStatus = claim.status.clone().unwrap_or_default();
        let Some(allocation) = status.allocation else { continue };
        let results = allocation.devices.and_then(|devices| devices.results).unwrap_or_default();
        assert!(results.len() == 1 && results[0].device == "gpu-0" && results[0].request == "gpu", "{results:?}");
        assert!(claim.finalizers().iter().any(|finalizer| finalizer == "resource.kubernetes.io/delete-protection"));
        found.push(((*name).to_owned(), status.reserved_for.unwrap_or_default().into_iter().map(|pod| pod.name).collect()));
    }
    assert!(found.len() <= 1, "one GPU is allocated twice: {found:?}");
    Ok(found)
}

#[tokio::test]
async fn a_gpu_that_is_claimed_by_name_is_given_once_whoever_is_killed_and_goes_to_the_next_pod() {
    const CLAIMS: [&str; 2] = ["p", "q"];
    let mut plane = plane(&[("n1", 0)], &[("a", 2)]).await;
    publish(&plane, "n1", &CLAIMS).await;
    plane.pod("p", "a", claims("p")).await.unwrap();
    plane.pod("q", "a", claims("q")).await.unwrap();
    // It ends between the allocation and the binding.
    plane.operator("first", PORT, &["--abort-after", "1"]).unwrap();
    plane.ended("first").await.unwrap();
    let early = allocated(&plane, &CLAIMS).await.unwrap();
    assert!(early.len() == 1 && plane.bound().await.unwrap().iter().all(|(pod, _)| *pod == early[0].0), "{early:?}");

    plane.operator("second", OTHER_PORT, &[]).unwrap();
    let bound = plane.until_bound(1).await.unwrap();
    assert_eq!(bound[0].1, "n1");
    let held = allocated(&plane, &CLAIMS).await.unwrap();
    assert_eq!(held, [(bound[0].0.clone(), vec![bound[0].0.clone()])], "each pod uses the claim of its name");
    let waits = if bound[0].0 == "p" { "q" } else { "p" };
    let told = || async { Ok(refusal(&plane, waits).await.contains("0 of 1 are free").then_some(())) };
    until("who waits to be told that no device is free", SOON, told).await.unwrap();

    plane.signal("second", Signal::SIGKILL).unwrap();
    plane.ended("second").await.unwrap();
    plane.operator("third", PORT, &[]).unwrap();
    plane.says(&bound[0].0, "Running").await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(allocated(&plane, &CLAIMS).await.unwrap(), held, "what runs keeps what it has");
    assert_eq!(plane.bound().await.unwrap(), bound);

    plane.says(&bound[0].0, "Succeeded").await.unwrap();
    let both = plane.until_bound(2).await.unwrap();
    assert!(both.iter().any(|(pod, _)| pod == waits), "{both:?}");
    let next = allocated(&plane, &CLAIMS).await.unwrap();
    assert_eq!(next, [(waits.to_owned(), vec![waits.to_owned()])]);
    plane.check_belief(PORT).await.unwrap();
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
    plane.check_belief(OTHER_PORT).await.unwrap();
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
    assert!(metrics.contains("\ntidegate_operator_synced 1\n"), "{metrics}");
    // What was downloaded is asked elsewhere.
    let (status, snapshot) = plane.ask(PORT, "/snapshot", Some(ADMIN)).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), snapshot).unwrap();
    let asked = |command: &[&str]| {
        let program = tidegate_tests::harness::binary().unwrap();
        let output = std::process::Command::new(program).args(command).arg("--snapshot").arg(file.path()).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(status, 200);
    assert!(asked(&["eta"]).contains("pod/team/w-0"));
    assert!(asked(&["what-if", "queue/research:gpu=+4"]).contains("what if"));
}

#[tokio::test]
async fn people_ask_when_and_what_if_and_the_page_shows_who_holds_what_to_those_who_may() {
    let mut plane = plane(&[("n1", 1)], &[("a", 1)]).await;
    plane.operator("operator", PORT, &[]).unwrap();
    plane.pod("first", "a", |_| {}).await.unwrap();
    plane.until_bound(1).await.unwrap();
    plane.pod("second", "a", |_| {}).await.unwrap();
    refusal(&plane, "second").await;
    let (status, text) = plane.ask(PORT, "/eta?job=pod/team/second", Some(ADMIN)).await.unwrap();
    assert!(status == 200 && text.contains("pod/team/second"), "{status} {text}");
    let more = r#"{"changes": [{"add_nodes": {"like": "n1", "count": 1}}], "horizon_ms": 3600000}"#;
    let (status, text) = plane.ask_with(PORT, "/what-if", ADMIN, more).await.unwrap();
    assert!(status == 200 && text.contains("pod/team/second"), "{status} {text}");
    let (status, text) = plane.ask_with(PORT, "/what-if", NOBODY, more).await.unwrap();
    assert!(status == 403 && text.contains("post") && text.contains("/what-if"), "{status} {text}");
    // The page is everybody's; what it shows is not, though Kubernetes lets everybody read what is below /api.
    let (status, text) = plane.ask(PORT, "/", None).await.unwrap();
    assert!(status == 200 && text.contains("Tidegate"), "{status} {text}");
    let (status, text) = plane.ask(PORT, "/api/v1/state", Some(NOBODY)).await.unwrap();
    assert!(status == 403 && text.contains("/state"), "{status} {text}");
    let shown = || async {
        let (status, text) = plane.ask(PORT, "/api/v1/state", Some(ADMIN)).await?;
        let state: tidegate_api::view::State = serde_json::from_str(&text)?;
        let held = state.devices.iter().any(|device| device.holders.iter().any(|holder| holder.name == "pod/team/first"));
        let waits = state.jobs.iter().any(|job| job.name == "pod/team/second" && job.phase == "waiting");
        Ok((status == 200 && held && waits).then_some(()))
    };
    until("the page to show who holds and who waits", SOON, shown).await.unwrap();
    let (status, text) = plane.ask(PORT, "/history", Some(ADMIN)).await.unwrap();
    assert!(status == 404 && text.contains("--ledger"), "{status} {text}");
}

/// Waits until the history of `night` has a word.
/// What a container of a pod finds in its environment under that name.
fn env(pod: &Pod, name: &str) -> Option<String> {
    let container = pod.spec.as_ref()?.containers.first()?;
    container.env.as_ref()?.iter().find(|variable| variable.name == name)?.value.clone()
}

/// Plays kubelet until a training job's pods are gone that were told to end.
async fn until_ended(plane: &ControlPlane, what: &str, done: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
    let look = || async {
        let pods = plane.list().await?;
        for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
            plane.end(&pod.name_any()).await?;
        }
        Ok(done(&pods).then_some(pods))
    };
    until(what, SOON, look).await.unwrap()
}

#[tokio::test]
async fn a_training_job_runs_gives_way_and_survives_its_operator() {
    let mut plane = plane(&[("n1", 2), ("n2", 2)], &[("research", 2), ("product", 2)]).await;
    let progress = format!("http://127.0.0.1:{PORT}");
    plane.operator("first", PORT, &["--progress-url", &progress]).unwrap();
    plane.training_job(|job| job.spec.checkpoint.grace_seconds = 1).await.unwrap();
    // It takes what nobody else uses.
    let pods = until_ended(&plane, "four workers", |pods| pods.len() == 4).await;
    assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().node_name.is_some()), "made where they run");
    for pod in &pods {
        plane.says(&pod.name_any(), "Running").await.unwrap();
    }
    let status = plane.until_training("night-1", TrainingPhase::Running).await.unwrap();
    assert_eq!((status.workers, status.gpus, status.attempts), (4, 4, 1));
    let url = env(&pods[0], "TIDEGATE_PROGRESS_URL").unwrap();
    let report = "{\"step\": 9, \"checkpoint\": {\"step\": 8}}";
    assert_eq!(plane.post(&url, report).await.unwrap(), 204);
    assert_eq!(plane.post(&url.replace("token=", "token=x"), report).await.unwrap(), 403);
    // Somebody is owed two of them: it goes on with its least.
    for number in 0..2 {
        plane.pod(&format!("p-{number}"), "product", |_| {}).await.unwrap();
    }
    let second = |pod: &&Pod| env(pod, "TIDEGATE_ATTEMPT").as_deref() == Some("2");
    let pods = until_ended(&plane, "a second attempt of two", |pods| pods.iter().filter(second).count() == 2).await;
    let again: Vec<String> = pods.iter().filter(second).map(ResourceExt::name_any).collect();
    plane.until_bound(4).await.unwrap();
    plane.check_nodes(2).await.unwrap();
    for pod in &again {
        plane.says(pod, "Running").await.unwrap();
    }
    let status = plane.until_training("night-1", TrainingPhase::Running).await.unwrap();
    assert_eq!((status.workers, status.attempts, status.checkpoint_step), (2, 2, Some(8)));
    assert_eq!(plane.post(&url, report).await.unwrap(), 409, "the first attempt is over");
    // The next leader disturbs nothing, and sees its end.
    plane.signal("first", Signal::SIGKILL).unwrap();
    plane.ended("first").await.unwrap();
    plane.operator("second", OTHER_PORT, &[]).unwrap();
    let look = || async {
        let (status, metrics) = plane.ask(OTHER_PORT, "/metrics", None).await?;
        Ok((status == 200 && metrics.contains("\ntidegate_operator_synced 1\n")).then_some(()))
    };
    until("the next leader", SOON, look).await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    plane.check_belief(OTHER_PORT).await.unwrap();
    let left: Vec<String> = plane.list().await.unwrap().iter().filter(second).map(ResourceExt::name_any).collect();
    assert_eq!(left, again);
    for pod in &again {
        plane.says(pod, "Succeeded").await.unwrap();
    }
    let status = plane.until_training("night-1", TrainingPhase::Succeeded).await.unwrap();
    plane.until_event("night-1", "Succeeded").await.unwrap();
    assert_eq!((status.workers, status.failures), (0, 0));
}

#[tokio::test]
async fn a_training_job_that_cannot_run_here_is_told_why_and_holds_nobody_up() {
    let mut plane = plane(&[("n1", 2)], &[("research", 2)]).await;
    plane.operator("operator", PORT, &[]).unwrap();
    plane
        .training_job(|job| {
            job.metadata.name = Some("silly".to_owned());
            job.spec.template.image = None;
        })
        .await
        .unwrap();
    plane.training_job(|_| {}).await.unwrap();
    let status = plane.until_training("silly", TrainingPhase::Refused).await.unwrap();
    assert!(status.message.contains("template.image"), "{}", status.message);
    assert!(status.conditions.iter().any(|condition| condition.kind == "Accepted" && condition.status == "False"));
    plane.until_training("night-1", TrainingPhase::Starting).await.unwrap();
}

#[tokio::test]
async fn queues_in_a_circle_are_told_so_and_hold_nobody_up() {
    let mut plane = plane(&[("n1", 2)], &[("a", 2)]).await;
    plane.queue_below("x", Some("y"), 1).await.unwrap();
    plane.queue_below("y", Some("x"), 1).await.unwrap();
    plane.operator("operator", PORT, &[]).unwrap();
    plane.pod("lost", "x", |_| {}).await.unwrap();
    plane.pod("well", "a", |_| {}).await.unwrap();
    let bound = plane.until_bound(1).await.unwrap();
    assert_eq!(bound[0].0, "well");
    let refused = |status: &tidegate_api::kinds::QueueStatus| status.conditions.iter().any(|one| one.status == "False");
    let status = plane.until_queue("x", refused).await.unwrap();
    assert!(status.conditions[0].message.contains('x'), "{:?}", status.conditions);
    plane.until_queue("a", |status| status.conditions.iter().any(|one| one.status == "True")).await.unwrap();
    assert!(refusal(&plane, "lost").await.contains('x'));
}

#[tokio::test]
async fn the_manifests_of_the_examples_are_accepted() {
    let plane = ControlPlane::start().await.unwrap();
    for file in ["operator.yaml", "node-agent.yaml", "router.yaml", "queues.yaml", "training-job.yaml", "model.yaml"] {
        plane.accepts(file).await.unwrap();
    }
}

/// Shorter than a lease: nobody has to begin anew.
#[tokio::test]
async fn an_api_server_or_etcd_that_starts_anew_costs_nobody_anything() {
    let mut plane = plane(&[("n1", 2), ("n2", 2)], &[("a", 4)]).await;
    plane.operator("operator", PORT, &["--lease-seconds", "60"]).unwrap();
    plane.pod("first", "a", |_| {}).await.unwrap();
    plane.until_bound(1).await.unwrap();
    for (number, part) in ["kube-apiserver", "etcd"].into_iter().enumerate() {
        plane.crash(part).await.unwrap();
        tokio::time::sleep(A_WHILE).await;
        plane.start_again(part).await.unwrap();
        plane.pod(&format!("after-{number}"), "a", |_| {}).await.unwrap();
        plane.until_bound(number + 2).await.unwrap();
    }
    let (_, metrics) = plane.ask(PORT, "/metrics", None).await.unwrap();
    assert!(metrics.contains("tidegate_operator_watch_failures_total{"), "watches were broken off: {metrics}");
    plane.check_nodes(2).await.unwrap();
    plane.check_belief(PORT).await.unwrap();
}

/// Longer than the lease: the leader ends with a word, and the next one finds all that there was.
#[tokio::test]
async fn without_an_api_server_a_leader_gives_up_and_the_next_one_goes_on() {
    let mut plane = plane(&[("n1", 2)], &[("a", 2)]).await;
    plane.operator("first", PORT, &[]).unwrap();
    plane.pod("w-0", "a", |_| {}).await.unwrap();
    plane.until_bound(1).await.unwrap();
    plane.crash("kube-apiserver").await.unwrap();
    assert_eq!(plane.ended("first").await.unwrap(), Some(1));
    assert!(plane.log("first").contains("keep the lease"), "{}", plane.log("first"));
    plane.start_again("kube-apiserver").await.unwrap();
    for name in ["w-1", "w-2"] {
        plane.pod(name, "a", |_| {}).await.unwrap();
    }
    plane.operator("second", OTHER_PORT, &[]).unwrap();
    plane.until_bound(2).await.unwrap();
    plane.check_belief(OTHER_PORT).await.unwrap();
    assert_eq!(plane.bound().await.unwrap().len(), 2);
    plane.check_nodes(2).await.unwrap();
}

#[tokio::test]
async fn a_training_job_on_a_lost_node_goes_on_elsewhere_and_it_is_no_failure() {
    let mut plane = plane(&[("n1", 1), ("n2", 1), ("n3", 1)], &[("research", 3)]).await;
    plane.operator("operator", PORT, &[]).unwrap();
    let pair = |job: &mut tidegate_api::kinds::TrainingJob| {
        job.spec.workers.as_mut().unwrap().max = 2;
        job.spec.checkpoint.grace_seconds = 1;
    };
    plane.training_job(pair).await.unwrap();
    let pods = until_ended(&plane, "two workers", |pods| pods.len() == 2).await;
    for pod in &pods {
        plane.says(&pod.name_any(), "Running").await.unwrap();
    }
    plane.until_training("night-1", TrainingPhase::Running).await.unwrap();
    let lost = pods[0].spec.as_ref().unwrap().node_name.clone().unwrap();
    plane.lose_node(&lost).await.unwrap();
    let second = |pod: &&Pod| env(pod, "TIDEGATE_ATTEMPT").as_deref() == Some("2");
    let pods = until_ended(&plane, "a second attempt", |pods| pods.iter().filter(second).count() == 2).await;
    let elsewhere = |pod: &&Pod| pod.spec.as_ref().unwrap().node_name.as_deref() != Some(lost.as_str());
    assert_eq!(pods.iter().filter(second).filter(elsewhere).count(), 2);
    let status = plane.until_training("night-1", TrainingPhase::Starting).await.unwrap();
    assert_eq!((status.attempts, status.failures), (2, 0));
}

/// A suspended Job of pods with one GPU.
async fn suspended_job(plane: &ControlPlane, pods: u32, labels: Value, change: impl FnOnce(&mut Value)) -> Api<Job> {
    let jobs: Api<Job> = Api::namespaced(plane.client.clone(), TEAM);
    let mut job = json!({
        "metadata": {"name": "night", "labels": labels},
        "spec": {
            "suspend": true, "parallelism": pods, "completions": pods,
            "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
            }},
        },
    });
    change(&mut job);
    jobs.create(&PostParams::default(), &serde_json::from_value(job).unwrap()).await.unwrap();
    jobs
}

/// What is read of a Job's template to know whether Tidegate has marked it.
fn is_marked(job: &Job) -> bool {
    serde_json::to_string(&job.spec.as_ref().unwrap().template).unwrap().contains("tidegate.dev/seat")
}

async fn until_job(jobs: &Api<Job>, what: &str, is: impl Fn(&Job) -> bool) -> Job {
    let look = || async { Ok(Some(jobs.get("night").await?).filter(&is)) };
    until(what, SOON, look).await.unwrap()
}

fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().unwrap().suspend == Some(true)
}

/// Plays the Job controller: pods as the template has them, and that it has started.
async fn make_pods(plane: &ControlPlane, jobs: &Api<Job>, round: u32) -> Vec<String> {
    let job = until_job(jobs, "the Job to be resumed", |job| !is_suspended(job)).await;
    let spec = job.spec.as_ref().unwrap();
    let mut names = Vec::new();
    for number in 0..spec.parallelism.unwrap() {
        let name = format!("night-{round}-{number}");
        let mut pod = serde_json::to_value(&spec.template).unwrap();
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "night", "uid": job.metadata.uid, "controller": true}]);
        plane.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        names.push(name);
    }
    let status = json!({"status": {"startTime": "2026-11-29T00:00:00Z", "active": names.len()}});
    jobs.patch_status("night", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    names
}

/// Plays kube-scheduler: binds a pod where it was told to go.
async fn bind_where_told(plane: &ControlPlane, pod: &str) {
    let told = |pod: Pod| {
        let spec = pod.spec?;
        let free = spec.scheduling_gates.is_none_or(|gates| gates.is_empty());
        spec.node_selector?.get("kubernetes.io/hostname").cloned().filter(|_| free)
    };
    let look = || async { Ok(told(plane.pods().get(pod).await?)) };
    let node = until("a pod to be told where to go", SOON, look).await.unwrap();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod, "namespace": TEAM},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let bound = plane.pods().create_subresource::<_, Value>("binding", pod, &PostParams::default(), &binding).await;
    bound.unwrap();
    plane.says(pod, "Running").await.unwrap();
}

#[tokio::test]
async fn a_suspended_job_is_resumed_gives_way_and_goes_on() {
    let mut plane = plane(&[("n1", 2), ("n2", 2)], &[("spare", 0), ("owner", 4)]).await;
    plane.operator("first", PORT, &[]).unwrap();
    let jobs = suspended_job(&plane, 3, json!({"tidegate.dev/queue": "spare"}), |_| {}).await;
    let pods = make_pods(&plane, &jobs, 1).await;
    plane.until_event("night", "Started").await.unwrap();
    for pod in &pods {
        bind_where_told(&plane, pod).await;
    }
    plane.check_nodes(2).await.unwrap();
    plane.check_belief(PORT).await.unwrap();
    // The next leader reads from the objects what runs where.
    plane.signal("first", Signal::SIGKILL).unwrap();
    plane.ended("first").await.unwrap();
    plane.operator("second", OTHER_PORT, &[]).unwrap();
    for name in ["p-0", "p-1"] {
        plane.pod(name, "owner", |_| {}).await.unwrap();
    }
    // One GPU is free; for the other the Job gives way as a whole.
    let job = until_job(&jobs, "the Job to be suspended", is_suspended).await;
    assert!(is_marked(&job), "its pods are still there");
    plane.until_event("night", "Preempted").await.unwrap();
    let bound = plane.bound().await.unwrap();
    assert!(bound.len() <= 4, "{bound:?}");
    for pod in &pods {
        plane.end(pod).await.unwrap();
    }
    let status = json!({"status": {"active": 0}});
    jobs.patch_status("night", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let bound = plane.until_bound(2).await.unwrap();
    assert!(bound.iter().all(|(pod, _)| pod.starts_with("p-")), "{bound:?}");
    // While it waits it is as its maker wrote it.
    until_job(&jobs, "the marks to be taken off", |job| !is_marked(job)).await;
    plane.until_event("night", "FailedScheduling").await.unwrap();
    plane.check_belief(OTHER_PORT).await.unwrap();
    // A second start, of a Job that has run before.
    plane.end("p-0").await.unwrap();
    let pods = make_pods(&plane, &jobs, 2).await;
    for pod in &pods {
        bind_where_told(&plane, pod).await;
    }
    plane.check_nodes(2).await.unwrap();
    plane.check_belief(OTHER_PORT).await.unwrap();
}

#[tokio::test]
async fn what_waits_in_a_queue_of_kueues_is_started_and_its_pods_for_us_are_bound() {
    let mut plane = plane(&[("n1", 2)], &[("a", 2)]).await;
    plane.operator("operator", PORT, &["--kueue"]).unwrap();
    let by_us = |job: &mut Value| job["spec"]["template"]["spec"]["schedulerName"] = json!("tidegate");
    let jobs = suspended_job(&plane, 2, json!({"kueue.x-k8s.io/queue-name": "a"}), by_us).await;
    let pods = make_pods(&plane, &jobs, 1).await;
    plane.until_bound(2).await.unwrap();
    plane.pod("later", "a", |_| {}).await.unwrap();
    refusal(&plane, "later").await;
    for pod in &pods {
        plane.says(pod, "Succeeded").await.unwrap();
    }
    jobs.delete("night", &DeleteParams::background()).await.unwrap();
    plane.until_bound(3).await.unwrap();
    plane.check_belief(PORT).await.unwrap();
}
