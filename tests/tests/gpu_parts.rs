//! Parts of GPUs on a real API server: what is given of them, and never twice.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidegate_tests::control_plane::{ControlPlane, SOON};
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

/// What a pod's condition says of its placing, once it says this.
async fn until_told(plane: &ControlPlane, pod: &str, what: &str) {
    let told = |pod: Pod| {
        let conditions = pod.status?.conditions?;
        let scheduled = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled")?;
        scheduled.message.filter(|message| message.contains(what))
    };
    let look = || async { Ok(told(plane.pods().get(pod).await?)) };
    until(&format!("pod {pod} to be told `{what}`"), SOON, look).await.unwrap();
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
    plane.pod("theirs", "a", |pod| {
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
