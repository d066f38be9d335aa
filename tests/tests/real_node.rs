//! Tidegate in pods on a real kubelet, from its own image: operator, router, node agent, replicas and workers are containers, and nobody plays
//! a part of theirs. There is no controller: the test makes the pods that controllers would make of manifests.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::api::{Api, PostParams};
use nvml_fake::{Script, install};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_api::kinds::{GpuHealth, GpuNode, Model, ModelStatus, Pool, TrainingJob, TrainingJobStatus, TrainingPhase};
use tidegate_tests::control_plane::{ControlPlane, IMAGE, TEAM};
use tidegate_tests::harness::until;
use tidegate_tests::kubelet::Node;
use tidegate_tests::onnx;

/// A container's start and a training job's restart, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_mins(2);
const CONTROL: &str = "http://127.0.0.1:8090";
const ROUTER: &str = "http://127.0.0.1:7000";
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

/// Folders that containers see.
struct Folders {
    models: TempDir,
    checkpoints: TempDir,
    driver: TempDir,
}

impl Folders {
    fn make(script: &Script) -> Result<Self> {
        let folders = Self { models: TempDir::new()?, checkpoints: TempDir::new()?, driver: TempDir::new()? };
        fs::write(folders.models.path().join("digits.onnx"), onnx::model_of("Relu"))?;
        install(folders.driver.path(), script)?;
        for folder in [&folders.models, &folders.checkpoints, &folders.driver] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
        }
        Ok(folders)
    }
}

/// A pod of our image on the node's network, which sees these paths of the node under the same names.
async fn run(plane: &ControlPlane, name: &str, command: &[&str], paths: &[&Path], kubeconfig: &Path) -> Result<()> {
    let all: Vec<&Path> = paths.iter().copied().chain([kubeconfig]).collect();
    let volumes = all.iter().enumerate().map(|(number, path)| json!({"name": format!("v{number}"), "hostPath": {"path": path}}));
    let mounts = all.iter().enumerate().map(|(number, path)| json!({"name": format!("v{number}"), "mountPath": path}));
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": Node::NAME, "hostNetwork": true, "terminationGracePeriodSeconds": 10,
            "volumes": volumes.collect::<Vec<Value>>(),
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": command,
                "env": [{"name": "KUBECONFIG", "value": kubeconfig}, {"name": "TIDEGATE_LOG", "value": "info"}],
                "volumeMounts": mounts.collect::<Vec<Value>>(), "securityContext": {"runAsUser": 0},
            }],
        },
    });
    plane.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    Ok(())
}

async fn operator(plane: &ControlPlane) -> Result<()> {
    let command = [
        "/usr/bin/tidegate",
        "operator",
        "--listen=127.0.0.1:9101",
        "--control-listen=127.0.0.1:8090",
        &format!("--control-url={CONTROL}"),
        "--progress-url=http://127.0.0.1:9101",
        &format!("--replica-image={IMAGE}"),
        "--lease-seconds=8",
        "--check-seconds=1",
    ];
    run(plane, "operator", &command, &[], &plane.at("kubeconfig")).await
}

fn model(models: &Path) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Model", "metadata": {"name": "digits"},
        "spec": {
            "queue": "product", "source": {"onnx": "/models/digits.onnx"}, "sloMilliseconds": SLO_MS,
            "coldStartBudgetMilliseconds": 120_000, "replicas": {"min": 0, "max": 1}, "scaleToZeroAfterSeconds": 3,
            "podSpec": {
                "hostNetwork": true,
                "containers": [{"name": "replica", "volumeMounts": [{"name": "models", "mountPath": "/models"}]}],
                "volumes": [{"name": "models", "hostPath": {"path": models}}],
            },
        },
    })
}

fn training_job(checkpoints: &Path) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "night"},
        "spec": {
            "queue": "research", "workers": {"min": 1, "max": 2}, "gpu": {"count": 1},
            "checkpoint": {"directory": "/checkpoints", "graceSeconds": 5},
            "template": {
                "image": "localhost/busybox:1", "command": ["/bin/sh", "-c", WORKER],
                "podSpec": {
                    "hostNetwork": true,
                    "containers": [{"name": "worker", "volumeMounts": [{"name": "kept", "mountPath": "/checkpoints"}]}],
                    "volumes": [{"name": "kept", "hostPath": {"path": checkpoints}}],
                },
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
    let script = Script::of(GPUS, "NVIDIA H100 80GB HBM3", 81_559);
    let uuids: Vec<String> = script.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    let folders = Folders::make(&script).unwrap();
    let mut plane = ControlPlane::start().await.unwrap();
    plane.real_node(&uuids).await.unwrap();
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
    let router = ["/usr/bin/tidegate", "router", "--listen=127.0.0.1:7000", &format!("--control={CONTROL}")];
    run(&plane, "router", &router, &[], &plane.at("kubeconfig")).await.unwrap();
    let library = folders.driver.path().join("libnvidia-ml.so.1");
    let agent = [
        "/usr/bin/tidegate-node-agent",
        "--listen=127.0.0.1:9400",
        &format!("--nvml-library={}", library.display()),
        &format!("--node-name={}", Node::NAME),
    ];
    let sockets = Path::new("/var/lib/kubelet/pod-resources");
    run(&plane, "agent", &agent, &[folders.driver.path(), sockets], &plane.at("admin-kubeconfig")).await.unwrap();
    let gpus: Api<GpuNode> = Api::all(plane.client.clone());
    let look = || async {
        let status = gpus.get(Node::NAME).await?.status.unwrap_or_default();
        let healthy = status.gpus.iter().filter(|gpu| gpu.health == GpuHealth::Healthy).count();
        Ok((healthy == GPUS as usize).then_some(()))
    };
    until("the agent to tell of its GPUs", SOON, look).await.with_context(|| plane.said()).unwrap();

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
