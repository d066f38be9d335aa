//! GPUs that are claimed by name, on a real kubelet with a driver: what a container sees is what Tidegate allocated.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use kube::api::{Api, PostParams};
use nvml_fake::Script;
use serde_json::json;
use tidegate_tests::control_plane::{ControlPlane, SOON, TEAM};
use tidegate_tests::harness::until;
use tidegate_tests::kubelet::Container;

const PORT: u16 = 9001;
const HOLD: &str = "trap 'exit 0' TERM; /bin/busybox sleep 2147483647 & wait";

/// A claim of one GPU, and a pod of that name that holds it until it is told to end.
async fn hold(plane: &ControlPlane, name: &str) {
    let exactly = json!({"deviceClassName": "gpu"});
    let claim: ResourceClaim = serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
    }))
    .unwrap();
    let claims: Api<ResourceClaim> = Api::namespaced(plane.client.clone(), TEAM);
    claims.create(&PostParams::default(), &claim).await.unwrap();
    let marks = plane.kubelet().unwrap().marks(name).map(|(name, value)| json!({"name": name, "value": value}));
    let holds = |pod: &mut serde_json::Value| {
        pod["spec"]["hostNetwork"] = json!(true);
        pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": name}]);
        pod["spec"]["containers"] = json!([{
            "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", HOLD],
            "env": marks, "resources": {"claims": [{"name": "gpu"}]},
        }]);
    };
    plane.pod(name, "a", holds).await.unwrap();
}

async fn running(plane: &ControlPlane, pod: &str) -> Container {
    let look = || async { plane.kubelet()?.container(pod) };
    until(&format!("a container of {pod}"), SOON, look).await.map_err(|error| format!("{error:#}\n{}", plane.said())).unwrap()
}

#[tokio::test]
async fn a_container_sees_the_gpu_that_its_claim_was_given_and_the_next_one_gets_it_after_it() {
    let gpus: Vec<String> = Script::of(2, "NVIDIA H100 80GB HBM3", 81_559).gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    let mut plane = ControlPlane::start().await.unwrap();
    plane.real_node(&[]).await.unwrap();
    plane.dra_driver(&gpus).unwrap();
    plane.queue("a", 2).await.unwrap();
    let class: DeviceClass = serde_json::from_value(json!({
        "metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]},
    }))
    .unwrap();
    Api::all(plane.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    plane.operator("first", PORT, &[]).unwrap();
    for name in ["p", "q"] {
        hold(&plane, name).await;
    }
    let (p, q) = (running(&plane, "p").await, running(&plane, "q").await);
    let all: BTreeSet<String> = gpus.into_iter().collect();
    assert!(p.gpus.len() == 1 && q.gpus.len() == 1 && &p.gpus | &q.gpus == all, "{p:?} {q:?}");

    // The kubelet ends it, the driver is told, and the operator gives its device to who waits.
    hold(&plane, "r").await;
    plane.pods().delete("p", &kube::api::DeleteParams::default()).await.unwrap();
    let r = running(&plane, "r").await;
    assert_eq!(r.gpus, p.gpus);
    assert_eq!(plane.kubelet().unwrap().container("q").unwrap(), Some(q), "who runs is not disturbed");
    plane.check_belief(PORT).await.unwrap();
}
