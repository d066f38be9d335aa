//! Parts of GPUs on a real API server: what is given of them, and never twice.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, DeviceRequestAllocationResult, ResourceClaim, ResourceSlice};
use kube::api::{Api, Patch, PatchParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidegate_tests::control_plane::{ControlPlane, SOON, TEAM};
use tidegate_tests::harness::until;

const PORT: u16 = 9001;
const OTHER_PORT: u16 = 9002;
/// Long enough for a decision and its writes, on a busy machine; nothing happens by then that should not.
const A_WHILE: Duration = Duration::from_secs(3);

const SMALL: &str = "nvidia.com/mig-1g.10gb";
const LARGE: &str = "nvidia.com/mig-3g.40gb";

/// What the device plug-in of a node gives away.
async fn offer(plane: &ControlPlane, node: &str, devices: &[(&str, u32)]) {
    let nodes: Api<Node> = Api::all(plane.client.clone());
    let amounts: BTreeMap<&str, String> = devices.iter().map(|(name, count)| (*name, count.to_string())).collect();
    let status = json!({"status": {"capacity": amounts, "allocatable": amounts}});
    nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

fn asks(limits: &[(&'static str, u32)]) -> impl Fn(&mut Value) {
    let limits: BTreeMap<&str, String> = limits.iter().map(|(name, count)| (*name, count.to_string())).collect();
    move |pod| pod["spec"]["containers"][0]["resources"] = json!({"limits": limits})
}

/// Waits until a pod's condition says this of its placing.
async fn until_told(plane: &ControlPlane, pod: &str, what: &str) {
    let last = std::cell::RefCell::new(String::new());
    let told = |pod: Pod| {
        let conditions = pod.status?.conditions?;
        conditions.into_iter().find(|condition| condition.type_ == "PodScheduled")?.message
    };
    let look = || async {
        *last.borrow_mut() = told(plane.pods().get(pod).await?).unwrap_or_default();
        Ok(last.borrow().contains(what).then_some(()))
    };
    let found = until(&format!("pod {pod} to be told `{what}`"), SOON, look).await;
    assert!(found.is_ok(), "pod {pod} is not told `{what}` but `{}`", last.borrow());
}

#[tokio::test]
async fn mig_instances_are_given_by_profile_within_quota_and_once_whoever_is_killed() {
    let mut plane = ControlPlane::start().await.unwrap();
    plane.node("n1", 1).await.unwrap();
    let labels = Patch::Merge(json!({"metadata": {"labels": {"nvidia.com/gpu.memory": "81559"}}}));
    let nodes: Api<Node> = Api::all(plane.client.clone());
    nodes.patch("n1", &PatchParams::default(), &labels).await.unwrap();
    offer(&plane, "n1", &[(SMALL, 3), (LARGE, 1)]).await;
    plane.queue("a", 1).await.unwrap();
    // Somebody else has one of the small ones.
    plane
        .pod("theirs", "a", |pod| {
            asks(&[(SMALL, 1)])(pod);
            pod["spec"]["schedulerName"] = json!("other");
            pod["spec"]["nodeName"] = json!("n1");
        })
        .await
        .unwrap();
    plane.operator("first", PORT, &[]).unwrap();
    plane.pod("large", "a", asks(&[(LARGE, 1)])).await.unwrap();
    plane.pod("small", "a", asks(&[(SMALL, 2)])).await.unwrap();
    plane.until_bound(3).await.unwrap();
    let status = plane.until_queue("a", |status| status.running == 2).await.unwrap();
    assert_eq!(status.gpus_used, "0.75", "a half and two eighths");
    plane.pod("none-left", "a", asks(&[(SMALL, 1)])).await.unwrap();
    plane.pod("both", "a", asks(&[(SMALL, 1), (LARGE, 1)])).await.unwrap();
    until_told(&plane, "none-left", "0 of 3 are free").await;
    until_told(&plane, "both", "a pod is given GPUs of one kind").await;

    plane.signal("first", Signal::SIGKILL).unwrap();
    plane.ended("first").await.unwrap();
    plane.operator("second", OTHER_PORT, &[]).unwrap();
    plane.says("large", "Running").await.unwrap();
    plane.says("small", "Running").await.unwrap();
    plane.until_queue("a", |status| status.running == 2 && status.waiting >= 1).await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(plane.bound().await.unwrap().len(), 3, "what runs is counted, and nothing is given twice");
    // The plug-in divides another GPU.
    offer(&plane, "n1", &[(SMALL, 4), (LARGE, 1)]).await;
    let bound = plane.until_bound(4).await.unwrap();
    assert!(bound.iter().any(|(pod, _)| pod == "none-left"), "{bound:?}");
    plane.check_belief(OTHER_PORT).await.unwrap();
}

/// A class of all devices of the driver, and what it publishes of node `n1`.
async fn publish(plane: &ControlPlane, slices: &[Value]) {
    let class: DeviceClass = serde_json::from_value(json!({
        "metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]},
    }))
    .unwrap();
    Api::all(plane.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    for (number, told) in slices.iter().enumerate() {
        let pool = json!({"name": "n1", "generation": 1, "resourceSliceCount": slices.len()});
        let mut spec = json!({"driver": "gpu.example.com", "nodeName": "n1", "pool": pool});
        spec.as_object_mut().unwrap().extend(told.as_object().unwrap().clone());
        let slice: ResourceSlice =
            serde_json::from_value(json!({"metadata": {"name": format!("n1-{number}")}, "spec": spec})).unwrap();
        Api::all(plane.client.clone()).create(&PostParams::default(), &slice).await.unwrap();
    }
}

/// A pod with a claim of its name, which asks for that.
async fn claimant(plane: &ControlPlane, name: &str, exactly: Value) {
    let mut request = json!({"deviceClassName": "gpu"});
    request.as_object_mut().unwrap().extend(exactly.as_object().unwrap().clone());
    let claim: ResourceClaim = serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "gpu", "exactly": request}]}},
    }))
    .unwrap();
    Api::namespaced(plane.client.clone(), TEAM).create(&PostParams::default(), &claim).await.unwrap();
    plane
        .pod(name, "a", |pod| {
            pod["spec"]["containers"][0]["resources"] = json!({"claims": [{"name": "gpu"}]});
            pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": name}]);
        })
        .await
        .unwrap();
}

/// What claims were given.
async fn given(plane: &ControlPlane) -> Vec<DeviceRequestAllocationResult> {
    let claims: Api<ResourceClaim> = Api::namespaced(plane.client.clone(), TEAM);
    let claims = claims.list(&kube::api::ListParams::default()).await.unwrap();
    let allocations = claims.items.into_iter().filter_map(|claim| claim.status?.allocation?.devices?.results);
    allocations.flatten().collect()
}

#[tokio::test]
async fn shares_of_a_device_are_allocated_as_the_api_server_has_them_and_never_beyond_it() {
    let mut plane = ControlPlane::start().await.unwrap();
    plane.node("n1", 0).await.unwrap();
    plane.queue("a", 4).await.unwrap();
    let policy = json!({"default": "10Gi", "validRange": {"min": "10Gi", "max": "80Gi", "step": "10Gi"}});
    publish(
        &plane,
        &[json!({"devices": [{
            "name": "gpu-0", "allowMultipleAllocations": true, "attributes": {"productName": {"string": "Example 80"}},
            "capacity": {"memory": {"value": "80Gi", "requestPolicy": policy}},
        }]})],
    )
    .await;
    for name in ["p", "q", "r"] {
        claimant(&plane, name, json!({"capacity": {"requests": {"memory": "31Gi"}}})).await;
    }
    plane.operator("first", PORT, &[]).unwrap();
    let bound = plane.until_bound(2).await.unwrap();
    let waits = ["p", "q", "r"].into_iter().find(|name| bound.iter().all(|(pod, _)| pod != name)).unwrap();
    until_told(&plane, waits, "needs 40 GiB of one device of Example-80").await;
    let shares = given(&plane).await;
    let ids: std::collections::BTreeSet<_> = shares.iter().filter_map(|share| share.share_id.clone()).collect();
    assert!(shares.len() == 2 && ids.len() == 2, "{shares:?}");
    for share in &shares {
        let consumed = share.consumed_capacity.as_ref().unwrap()["memory"].0.clone();
        assert!(consumed == "40Gi" || consumed == "42949672960", "{consumed}");
    }
    plane.says(&bound[0].0, "Running").await.unwrap();
    plane.says(&bound[1].0, "Running").await.unwrap();
    plane.signal("first", Signal::SIGKILL).unwrap();
    plane.ended("first").await.unwrap();
    plane.operator("second", OTHER_PORT, &[]).unwrap();
    plane.until_queue("a", |status| status.running == 2 && status.waiting == 1).await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(given(&plane).await.len(), 2, "what runs keeps its share, and no third one is given");
    plane.says(&bound[0].0, "Succeeded").await.unwrap();
    let all = plane.until_bound(3).await.unwrap();
    assert!(all.iter().any(|(pod, _)| pod == waits), "{all:?}");
    assert_eq!(given(&plane).await.len(), 2);
    plane.check_belief(OTHER_PORT).await.unwrap();
}

#[tokio::test]
async fn partitions_of_a_gpu_are_allocated_within_its_counters() {
    let mut plane = ControlPlane::start().await.unwrap();
    plane.node("n1", 0).await.unwrap();
    plane.queue("a", 4).await.unwrap();
    let device = |name: &str, profile: &str, slices: u32, memory: &str| {
        let counters = json!({"slices": {"value": slices.to_string()}});
        json!({
            "name": name, "attributes": {"productName": {"string": "Example 80"}, "profile": {"string": profile}},
            "capacity": {"memory": {"value": memory}}, "consumesCounters": [{"counterSet": "gpu-0", "counters": counters}],
        })
    };
    let devices = [
        device("whole", "all", 7, "80Gi"),
        device("half-0", "half", 4, "40Gi"),
        device("half-1", "half", 4, "40Gi"),
        device("small-0", "small", 1, "10Gi"),
        device("small-1", "small", 1, "10Gi"),
        device("small-2", "small", 1, "10Gi"),
    ];
    publish(
        &plane,
        &[json!({"sharedCounters": [{"name": "gpu-0", "counters": {"slices": {"value": "7"}}}]}), json!({"devices": devices})],
    )
    .await;
    let profile = |name: &str| {
        let expression = format!("device.attributes['gpu.example.com'].profile == '{name}'");
        json!({"selectors": [{"cel": {"expression": expression}}]})
    };
    plane.operator("operator", PORT, &[]).unwrap();
    for (name, kind) in [("p", "half"), ("q", "small"), ("r", "small")] {
        claimant(&plane, name, profile(kind)).await;
    }
    plane.until_bound(3).await.unwrap();
    for (name, kind) in [("w", "all"), ("h", "half")] {
        claimant(&plane, name, profile(kind)).await;
        until_told(&plane, name, "made of the same GPU").await;
    }
    let mut devices: Vec<String> = given(&plane).await.into_iter().map(|result| result.device).collect();
    devices.sort();
    let [half, small, other] = devices.as_slice() else { panic!("{devices:?}") };
    assert!(
        half.starts_with("half") && small.starts_with("small") && other.starts_with("small") && small != other,
        "{devices:?}"
    );
    let status = plane.until_queue("a", |status| status.running == 3).await.unwrap();
    assert_eq!(status.gpus_used, "0.75");
    plane.check_belief(PORT).await.unwrap();
}
