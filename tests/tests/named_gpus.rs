//! GPUs that are claimed by name, on a real kubelet with a driver: what a container sees is what Tidegate allocated.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use nix::sys::signal::Signal;
use nvml_fake::Script;
use serde_json::json;
use tidegate_api::kinds::{GpuAsk, TrainingJob, TrainingPhase};
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

/// A node whose driver publishes these GPUs by name, of a `DeviceClass` called `gpu`, and a queue that owns them all.
async fn start(gpus: &[String]) -> ControlPlane {
    let mut plane = ControlPlane::start().await.unwrap();
    plane.real_node(&[]).await.unwrap();
    plane.dra_driver(gpus).unwrap();
    plane.queue("a", 2).await.unwrap();
    let class: DeviceClass = serde_json::from_value(json!({
        "metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]},
    }))
    .unwrap();
    Api::all(plane.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    plane
}

fn gpus() -> Vec<String> {
    Script::of(2, "NVIDIA H100 80GB HBM3", 81_559).gpus.iter().map(|gpu| gpu.uuid.clone()).collect()
}

#[tokio::test]
async fn a_container_sees_the_gpu_that_its_claim_was_given_and_the_next_one_gets_it_after_it() {
    let gpus = gpus();
    let mut plane = start(&gpus).await;
    plane.operator("first", PORT, &[]).unwrap();
    for name in ["p", "q"] {
        hold(&plane, name).await;
    }
    let (p, q) = (running(&plane, "p").await, running(&plane, "q").await);
    let all: BTreeSet<String> = gpus.into_iter().collect();
    assert!(p.gpus.len() == 1 && q.gpus.len() == 1 && &p.gpus | &q.gpus == all, "{p:?} {q:?}");

    // The kubelet ends it, the driver is told, and the operator gives its device to who waits.
    hold(&plane, "r").await;
    plane.pods().delete("p", &DeleteParams::default()).await.unwrap();
    let r = running(&plane, "r").await;
    assert_eq!(r.gpus, p.gpus);
    assert_eq!(plane.kubelet().unwrap().container("q").unwrap(), Some(q), "who runs is not disturbed");
    plane.check_belief(PORT).await.unwrap();
}

/// Two workers that hold one GPU of the class each.
fn workers(plane: &ControlPlane, job: &mut TrainingJob) {
    let [(node, cgroup), (pod, _)] = plane.kubelet().unwrap().marks("");
    let named = json!({"name": pod, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    let container = json!({
        "name": "worker", "imagePullPolicy": "Never", "env": [{"name": node, "value": cgroup}, named],
    });
    let spec = &mut job.spec;
    "a".clone_into(&mut spec.queue);
    spec.gpu = GpuAsk { count: Some(1), device_class_name: Some("gpu".to_owned()), ..GpuAsk::default() };
    (spec.workers, spec.cpu_milli, spec.memory_mib) = (serde_json::from_value(json!({"min": 2, "max": 2})).unwrap(), 0, 0);
    spec.checkpoint.directory = None;
    spec.template.image = Some("localhost/busybox:1".to_owned());
    spec.template.command = ["/bin/sh", "-c", HOLD].map(str::to_owned).to_vec();
    spec.template.pod_spec = serde_json::from_value(json!({"hostNetwork": true, "containers": [container]})).unwrap();
}

/// Containers of the training job's workers, by pod.
async fn containers(plane: &ControlPlane) -> Vec<(String, Container)> {
    let pods = plane.pods().list(&ListParams::default().labels("tidegate.dev/training-job=night-1")).await.unwrap();
    let mut found = Vec::new();
    for pod in pods {
        let name = pod.metadata.name.unwrap();
        found.push((name.clone(), running(plane, &name).await));
    }
    found
}

#[tokio::test]
async fn workers_that_claim_gpus_of_a_class_see_one_each_and_a_new_leader_leaves_them_alone() {
    let gpus = gpus();
    let mut plane = start(&gpus).await;
    plane.controllers().unwrap();
    plane.operator("first", PORT, &[]).unwrap();
    plane.training_job(|job| workers(&plane, job)).await.unwrap();
    plane.until_training("night-1", TrainingPhase::Running).await.unwrap();
    let before = containers(&plane).await;
    let seen: BTreeSet<String> = before.iter().flat_map(|(_, container)| container.gpus.clone()).collect();
    assert!(before.iter().all(|(_, container)| container.gpus.len() == 1), "{before:?}");
    assert_eq!((before.len(), seen), (2, gpus.iter().cloned().collect()), "{before:?}");
    plane.check_belief(PORT).await.unwrap();

    plane.signal("first", Signal::SIGKILL).unwrap();
    plane.ended("first").await.unwrap();
    plane.operator("second", PORT, &[]).unwrap();
    let leads = || async {
        let said = plane.ask(PORT, "/metrics", None).await;
        Ok(said.is_ok_and(|(_, metrics)| metrics.contains("\ntidegate_operator_synced 1\n")).then_some(()))
    };
    until("the next leader", SOON, leads).await.unwrap();
    plane.check_belief(PORT).await.unwrap();
    assert_eq!(containers(&plane).await, before, "who runs is not disturbed");

    // What the workers had goes to who waits for it.
    hold(&plane, "p").await;
    let jobs: Api<TrainingJob> = Api::namespaced(plane.client.clone(), TEAM);
    jobs.delete("night-1", &DeleteParams::default()).await.unwrap();
    let p = running(&plane, "p").await;
    assert!(p.gpus.len() == 1 && p.gpus.is_subset(&gpus.into_iter().collect()), "{p:?}");
    plane.check_belief(PORT).await.unwrap();
}
