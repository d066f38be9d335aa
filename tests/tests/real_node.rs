//! Tidegate in pods on a real kubelet, from its own image: operator, router, node agent, replicas and workers are containers, and nobody plays
//! a part of theirs. What people write is applied by `kubectl`: the manifests of `examples/kubernetes`, queues, a model, a training job.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::api::Api;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_api::kinds::{Model, ModelStatus, TrainingJob, TrainingJobStatus, TrainingPhase};
use tidegate_api::labels;
use tidegate_tests::control_plane::{ControlPlane, TEAM};
use tidegate_tests::harness::until;
use tidegate_tests::installation::{self, Driver, NAMESPACE, SOON, open_folder, pod_spec};
use tidegate_tests::kubelet::BUSYBOX;
use tidegate_tests::onnx;

const SLO_MS: u64 = 5_000;
/// How long requests come.
const RUSH: Duration = Duration::from_secs(6);
const GPUS: u32 = 2;

/// Counts; on SIGTERM it keeps what it has counted, as a checkpoint. Busybox is all that its image has.
const WORKER: &str = r#"
file="$TIDEGATE_CHECKPOINT_DIR/step"
step=$(/bin/busybox cat "$file" 2>/dev/null || echo 0)
trap '[ "$RANK" = 0 ] && echo "$step" > "$file"; exit 0' TERM
while :; do step=$((step + 1)); /bin/busybox sleep 0.1 & wait $!; done
"#;

/// What containers see.
struct Folders {
    models: TempDir,
    checkpoints: TempDir,
    driver: Driver,
}

fn queue(name: &str) -> Value {
    json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": {"nominal": 1}})
}

fn pool() -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "all"},
        "spec": {"lendAfterSeconds": 1, "growAfterSeconds": 1},
    })
}

fn model(models: &Path) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Model", "metadata": {"name": "digits"},
        "spec": {
            "queue": "product", "source": {"onnx": models.join("digits.onnx")}, "sloMilliseconds": SLO_MS,
            "coldStartBudgetMilliseconds": 120_000, "replicas": {"min": 0, "max": 1}, "scaleToZeroAfterSeconds": 3,
            "podSpec": pod_spec("replica", &[models]),
        },
    })
}

fn training_job(checkpoints: &Path) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "night"},
        "spec": {
            "queue": "research", "workers": {"min": 1, "max": 2}, "gpu": {"count": 1},
            "checkpoint": {"directory": checkpoints, "graceSeconds": 5},
            "template": {
                "image": BUSYBOX, "command": ["/bin/sh", "-c", WORKER],
                "podSpec": pod_spec("worker", &[checkpoints]),
            },
        },
    })
}

async fn infer(router: &str) -> Result<(u16, Duration)> {
    let row = json!({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, -2.0, 3.0, -4.0]}]});
    let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
    let began = Instant::now();
    let answer = client.post(format!("{router}/v2/models/digits/infer")).body(row.to_string()).send().await?;
    let status = answer.status().as_u16();
    answer.bytes().await?;
    Ok((status, began.elapsed()))
}

async fn model_status(plane: &ControlPlane) -> Result<ModelStatus> {
    let models: Api<Model> = Api::namespaced(plane.client.clone(), TEAM);
    models.get("digits").await?.status.context("no status yet")
}

/// Waits until the training job runs with so many workers; how it stands then.
async fn until_workers(plane: &ControlPlane, workers: u32) -> TrainingJobStatus {
    let jobs: Api<TrainingJob> = Api::namespaced(plane.client.clone(), TEAM);
    let is = |status: &TrainingJobStatus| status.phase == TrainingPhase::Running && status.workers == workers;
    let look = || async { Ok(jobs.get("night").await?.status.filter(is)) };
    let found = until(&format!("training with {workers} workers"), SOON, look).await;
    found.with_context(|| plane.said()).unwrap()
}

async fn until_model(plane: &ControlPlane, what: &str, is: impl Fn(&ModelStatus) -> bool) {
    let look = || async { Ok(is(&model_status(plane).await?).then_some(())) };
    until(what, SOON, look).await.with_context(|| plane.said()).unwrap();
}

async fn start() -> (ControlPlane, Folders) {
    let folders =
        Folders { models: open_folder().unwrap(), checkpoints: open_folder().unwrap(), driver: Driver::of(GPUS).unwrap() };
    fs::write(folders.models.path().join("digits.onnx"), onnx::model_of("Relu")).unwrap();
    let plane = ControlPlane::whole(&folders.driver.uuids).await.unwrap();
    installation::admit_replicas(&plane).await.unwrap();
    let installed = installation::install(&plane, &folders.driver, folders.models.path()).await;
    installed.with_context(|| plane.said()).unwrap();
    installation::apply(&plane, &[queue("research"), queue("product"), pool()], TEAM).await.unwrap();
    (plane, folders)
}

#[tokio::test]
async fn training_gives_a_gpu_to_requests_and_takes_it_back_with_every_part_in_a_container() {
    let (plane, folders) = start().await;
    let router = installation::router(&plane).await.unwrap();
    installation::apply(&plane, &[model(folders.models.path())], TEAM).await.unwrap();
    until_model(&plane, "a replica to tell the model's tensors", |status| status.tensors.is_some()).await;
    until_model(&plane, "the model to sleep", |status| status.ready + status.starting == 0).await;
    installation::apply(&plane, &[training_job(folders.checkpoints.path())], TEAM).await.unwrap();
    let large = until_workers(&plane, 2).await;

    // The first request is held until its GPU is back; those after it keep their SLO.
    assert_eq!(infer(&router).await.unwrap().0, 200);
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < RUSH {
        let (status, took) = infer(&router).await.unwrap();
        assert_eq!(status, 200);
        slowest = slowest.max(took);
    }
    assert!(slowest < Duration::from_millis(SLO_MS), "{slowest:?}");
    let small = until_workers(&plane, 1).await;
    assert!(small.attempts > large.attempts && small.failures == 0, "{small:?}");
    let kept = || fs::read_to_string(folders.checkpoints.path().join("step")).unwrap().trim().parse::<u64>().unwrap();
    let first = kept();

    // Other operators find all as it is.
    plane.kubectl(&["delete", "pod", "--selector=app=tidegate-operator", "--namespace", NAMESPACE], "").await.unwrap();
    assert_eq!(infer(&router).await.unwrap().0, 200);
    installation::all_are_ready(&plane).await.unwrap();
    let grown = until_workers(&plane, 2).await;
    assert_eq!((grown.attempts, grown.failures), (small.attempts + 1, 0), "it grew once, when nobody asked any more");
    assert!(kept() > first, "it went on from its checkpoint");
    until_model(&plane, "the model to sleep again", |status| status.ready == 0).await;

    // What was installed goes; what it made for people stays.
    installation::uninstall(&plane, &folders.driver, folders.models.path()).await.unwrap();
    let of_night = format!("--selector={}=night", labels::TRAINING_JOB_NAME);
    let asked = ["get", "pods", "--namespace", TEAM, &of_night, "--field-selector=status.phase=Running", "--output=name"];
    let running = plane.kubectl(&asked, "").await.unwrap();
    assert_eq!(running.lines().count(), 2, "training goes on");
}
