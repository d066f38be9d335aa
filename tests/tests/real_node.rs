//! Tidegate in pods on a real kubelet, from its own image: operator, router, node agent, replicas and workers are containers, and nobody plays
//! a part of theirs. There is no controller: the test makes the pods that controllers would make of manifests.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_api::kinds::{Model, ModelStatus, Pool, TrainingJob, TrainingJobStatus, TrainingPhase};
use tidegate_tests::control_plane::{ControlPlane, TEAM};
use tidegate_tests::harness::until;
use tidegate_tests::installation::{Driver, ROUTER, SOON, agent, open_folder, operator, pod_spec, router};
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

fn on_the_node_s_network(container: &str, path: &Path) -> Value {
    let mut spec = Value::Object(pod_spec(container, &[path]));
    spec["hostNetwork"] = json!(true);
    spec
}

fn model(models: &Path) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Model", "metadata": {"name": "digits"},
        "spec": {
            "queue": "product", "source": {"onnx": models.join("digits.onnx")}, "sloMilliseconds": SLO_MS,
            "coldStartBudgetMilliseconds": 120_000, "replicas": {"min": 0, "max": 1}, "scaleToZeroAfterSeconds": 3,
            "podSpec": on_the_node_s_network("replica", models),
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
                "podSpec": on_the_node_s_network("worker", checkpoints),
            },
        },
    })
}

async fn infer() -> Result<(u16, Duration)> {
    let row = json!({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, -2.0, 3.0, -4.0]}]});
    let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
    let began = Instant::now();
    let answer = client.post(format!("{ROUTER}/v2/models/digits/infer")).body(row.to_string()).send().await?;
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
    let mut plane = ControlPlane::start().await.unwrap();
    plane.real_node(&folders.driver.uuids).await.unwrap();
    plane.queue("research", 1).await.unwrap();
    plane.queue("product", 1).await.unwrap();
    let pool = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "all"},
        "spec": {"lendAfterSeconds": 1, "growAfterSeconds": 1},
    });
    let pools: Api<Pool> = Api::all(plane.client.clone());
    pools.create(&PostParams::default(), &serde_json::from_value(pool).unwrap()).await.unwrap();
    (plane, folders)
}

#[tokio::test]
async fn training_gives_a_gpu_to_requests_and_takes_it_back_with_every_part_in_a_container() {
    let (plane, folders) = start().await;
    operator(&plane).await.unwrap();
    router(&plane, &[]).await.unwrap();
    agent(&plane, &folders.driver).await.unwrap();

    let models: Api<Model> = Api::namespaced(plane.client.clone(), TEAM);
    models.create(&PostParams::default(), &serde_json::from_value(model(folders.models.path())).unwrap()).await.unwrap();
    until_model(&plane, "a replica to tell the model's tensors", |status| status.tensors.is_some()).await;
    until_model(&plane, "the model to sleep", |status| status.ready + status.starting == 0).await;
    let jobs: Api<TrainingJob> = Api::namespaced(plane.client.clone(), TEAM);
    let job = training_job(folders.checkpoints.path());
    jobs.create(&PostParams::default(), &serde_json::from_value(job).unwrap()).await.unwrap();
    let large = until_workers(&plane, 2).await;

    // The first request is held until its GPU is back; those after it keep their SLO.
    assert_eq!(infer().await.unwrap().0, 200);
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < RUSH {
        let (status, took) = infer().await.unwrap();
        assert_eq!(status, 200);
        slowest = slowest.max(took);
    }
    assert!(slowest < Duration::from_millis(SLO_MS), "{slowest:?}");
    let small = until_workers(&plane, 1).await;
    assert!(small.attempts > large.attempts && small.failures == 0, "{small:?}");
    let kept = || fs::read_to_string(folders.checkpoints.path().join("step")).unwrap().trim().parse::<u64>().unwrap();
    let first = kept();

    // Another operator finds all as it is.
    plane.end("operator").await.unwrap();
    let gone = || async { Ok(plane.pods().get_opt("operator").await?.is_none().then_some(())) };
    until("the operator to be gone", SOON, gone).await.unwrap();
    assert_eq!(infer().await.unwrap().0, 200);
    operator(&plane).await.unwrap();
    let grown = until_workers(&plane, 2).await;
    assert_eq!((grown.attempts, grown.failures), (small.attempts + 1, 0), "it grew once, when nobody asked any more");
    assert!(kept() > first, "it went on from its checkpoint");
    until_model(&plane, "the model to sleep again", |status| status.ready == 0).await;
}
