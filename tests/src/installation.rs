//! Tidegate on a real node ([`ControlPlane::real_node`]): operator, router and node agent as pods of our image on the node's network. There
//! is no controller, so these are the pods that controllers would make of manifests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{Api, PostParams};
use nvml_fake::{Script, install};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tidegate_api::kinds::{GpuHealth, GpuNode};

use crate::control_plane::{ControlPlane, IMAGE};
use crate::harness::until;
use crate::kubelet::Node;
use crate::kubelet::namespaces::ADDRESS;

/// A container's start, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_mins(2);
/// Where clients ask, workers report and people ask, and the agent tells.
pub const ROUTER: &str = "http://127.0.0.1:7000";
pub const OPERATOR_PORT: u16 = 9101;
pub const AGENT: &str = "http://127.0.0.1:9400";
/// Our pods.
pub const PARTS: [&str; 3] = ["operator", "router", "agent"];

/// The driver of a node's GPUs.
pub struct Driver {
    folder: TempDir,
    library: PathBuf,
    /// By which the device plug-in and the driver call them.
    pub uuids: Vec<String>,
}

impl Driver {
    /// Of so many GPUs.
    pub fn of(gpus: u32) -> Result<Self> {
        let script = Script::of(gpus, "NVIDIA H100 80GB HBM3", 81_559);
        let folder = open_folder()?;
        let (library, _) = install(folder.path(), &script)?;
        Ok(Self { folder, library, uuids: script.gpus.into_iter().map(|gpu| gpu.uuid).collect() })
    }
}

/// A folder of its own in which containers may write, whoever they are.
pub fn open_folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("tidegate-open-").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    Ok(folder)
}

/// Starts the operator. Replicas reach it wherever they are.
pub async fn operator(plane: &ControlPlane) -> Result<()> {
    let command = [
        "/usr/bin/tidegate",
        "operator",
        &format!("--listen=127.0.0.1:{OPERATOR_PORT}"),
        "--control-listen=0.0.0.0:8090",
        &format!("--control-url=http://{ADDRESS}:8090"),
        &format!("--progress-url=http://127.0.0.1:{OPERATOR_PORT}"),
        &format!("--replica-image={IMAGE}"),
        // One that is told to end gives its lease up at once; on a busy machine a short one is lost.
        "--lease-seconds=30",
        "--check-seconds=1",
    ];
    run(plane, "operator", &command, &[], &plane.at("kubeconfig")).await
}

/// Starts the router, which sees these paths of the node.
pub async fn router(plane: &ControlPlane, paths: &[&Path]) -> Result<()> {
    let command = ["/usr/bin/tidegate", "router", "--listen=127.0.0.1:7000", "--control=http://127.0.0.1:8090"];
    run(plane, "router", &command, paths, &plane.at("kubeconfig")).await
}

/// Starts the agent, and waits until it has told of all GPUs.
pub async fn agent(plane: &ControlPlane, driver: &Driver) -> Result<()> {
    let command = [
        "/usr/bin/tidegate-node-agent",
        "--listen=127.0.0.1:9400",
        &format!("--nvml-library={}", driver.library.display()),
        &format!("--node-name={}", Node::NAME),
    ];
    let sockets = Path::new("/var/lib/kubelet/pod-resources");
    run(plane, "agent", &command, &[driver.folder.path(), sockets], &plane.at("admin-kubeconfig")).await?;
    let nodes: Api<GpuNode> = Api::all(plane.client.clone());
    let look = || async {
        let status = nodes.get(Node::NAME).await?.status.unwrap_or_default();
        let healthy = status.gpus.iter().filter(|gpu| gpu.health == GpuHealth::Healthy).count();
        Ok((healthy == driver.uuids.len()).then_some(()))
    };
    until("the agent to tell of its GPUs", SOON, look).await.with_context(|| plane.said())
}

/// Fields of a `PodSpec` by which its container, of this name, sees these paths of the node under the same names.
pub fn pod_spec(container: &str, paths: &[&Path]) -> Map<String, Value> {
    let named = |number: usize| format!("v{number}");
    let volumes = paths.iter().enumerate().map(|(number, path)| json!({"name": named(number), "hostPath": {"path": path}}));
    let mounts = paths.iter().enumerate().map(|(number, path)| json!({"name": named(number), "mountPath": path}));
    let container = json!({"name": container, "volumeMounts": mounts.collect::<Vec<Value>>()});
    let fields = [("volumes", volumes.collect()), ("containers", json!([container]))];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

async fn run(plane: &ControlPlane, name: &str, command: &[&str], paths: &[&Path], kubeconfig: &Path) -> Result<()> {
    let all: Vec<&Path> = paths.iter().copied().chain([kubeconfig]).collect();
    let mut spec = Value::Object(pod_spec("main", &all));
    spec["nodeName"] = json!(Node::NAME);
    spec["hostNetwork"] = json!(true);
    spec["terminationGracePeriodSeconds"] = json!(10);
    let container = &mut spec["containers"][0];
    container["image"] = json!(IMAGE);
    container["imagePullPolicy"] = json!("Never");
    container["command"] = json!(command);
    container["env"] = json!([{"name": "KUBECONFIG", "value": kubeconfig}, {"name": "TIDEGATE_LOG", "value": "info"}]);
    container["securityContext"] = json!({"runAsUser": 0});
    let pod = json!({"metadata": {"name": name}, "spec": spec});
    plane.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    Ok(())
}
