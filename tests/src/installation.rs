//! Tidegate in a whole Kubernetes ([`ControlPlane::whole`]), installed as people install it: the manifests of `examples/kubernetes`, applied by
//! `kubectl`. A node of two cores has no room for what they ask for, and has a GPU driver that is a file: that much is patched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use nvml_fake::{Script, install as install_library};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tidegate_api::kinds::{GpuHealth, GpuNode};

use crate::control_plane::ControlPlane;
use crate::harness::{until, workspace};
use crate::kubelet::Node;

/// A container's start, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_mins(2);
/// Our parts, by their pods' label `app`.
pub const PARTS: [&str; 3] = ["tidegate-operator", "tidegate-router", "tidegate-node-agent"];
/// Where they are.
pub const NAMESPACE: &str = "tidegate-system";

/// Everything that is needed, in the order in which documentation names it.
const MANIFESTS: [&str; 4] = ["rbac.yaml", "operator.yaml", "router.yaml", "node-agent.yaml"];
/// By this label other tools say that a node has GPUs; the agent runs on those.
const HAS_GPUS: &str = "nvidia.com/gpu.present=true";

/// The driver of a node's GPUs.
pub struct Driver {
    folder: TempDir,
    /// By which the device plug-in and the driver call them.
    pub uuids: Vec<String>,
}

impl Driver {
    /// Of so many GPUs.
    pub fn of(gpus: u32) -> Result<Self> {
        let script = Script::of(gpus, "NVIDIA H100 80GB HBM3", 81_559);
        let folder = open_folder()?;
        install_library(folder.path(), &script)?;
        Ok(Self { folder, uuids: script.gpus.into_iter().map(|gpu| gpu.uuid).collect() })
    }

    /// What NVIDIA's runtime does for a container that is to see the driver: its library is in the loader's folder.
    fn mounted(&self) -> Result<Vec<Value>> {
        let loader = PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        let mut mounts = Vec::new();
        for entry in fs::read_dir(self.folder.path())? {
            let name = entry?.file_name();
            mounts.push(json!({"mountPath": loader.join(&name), "subPath": name.to_string_lossy()}));
        }
        Ok(mounted("driver", self.folder.path(), mounts))
    }
}

/// A patch by which a pod has this folder of the node as a volume of that name, mounted so.
fn mounted(name: &str, folder: &Path, mounts: Vec<Value>) -> Vec<Value> {
    let volume = json!({"name": name, "hostPath": {"path": folder}});
    let mut patch = vec![json!({"op": "add", "path": "/spec/template/spec/volumes/-", "value": volume})];
    for mut mount in mounts {
        (mount["name"], mount["readOnly"]) = (json!(name), json!(true));
        patch.push(json!({"op": "add", "path": "/spec/template/spec/containers/0/volumeMounts/-", "value": mount}));
    }
    patch
}

/// A folder of its own in which containers may write, whoever they are.
pub fn open_folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("tidegate-open-").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    Ok(folder)
}

/// The manifests for this node, as `kubectl kustomize` makes them.
struct Overlay(TempDir);

impl Overlay {
    /// Routers read the tokenizers of models in that folder.
    fn of(driver: &Driver, models: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for file in MANIFESTS {
            fs::copy(workspace().join("examples/kubernetes").join(file), folder.path().join(file))?;
        }
        let small = json!({"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "20m"});
        let patches = [
            (json!({"kind": "Deployment"}), vec![small]),
            (json!({"kind": "Deployment", "name": PARTS[1]}), mounted("models", models, vec![json!({"mountPath": models})])),
            (json!({"kind": "DaemonSet"}), driver.mounted()?),
        ];
        let patches = patches.map(|(target, patch)| json!({"target": target, "patch": Value::Array(patch).to_string()}));
        let all = json!({"resources": MANIFESTS, "patches": patches});
        fs::write(folder.path().join("kustomization.yaml"), all.to_string())?;
        Ok(Self(folder))
    }

    fn folder(&self) -> String {
        self.0.path().display().to_string()
    }
}

/// Applies the manifests, and waits until all parts are ready and the agent has told of all GPUs. Routers see the folder of the models.
pub async fn install(plane: &ControlPlane, driver: &Driver, models: &Path) -> Result<()> {
    plane.kubectl(&["label", "node", Node::NAME, HAS_GPUS], "").await?;
    let overlay = Overlay::of(driver, models)?;
    plane.kubectl(&["apply", "--kustomize", &overlay.folder()], "").await?;
    all_are_ready(plane).await?;
    let nodes: Api<GpuNode> = Api::all(plane.client.clone());
    let look = || async {
        let status = nodes.get(Node::NAME).await?.status.unwrap_or_default();
        let healthy = status.gpus.iter().filter(|gpu| gpu.health == GpuHealth::Healthy).count();
        Ok((healthy == driver.uuids.len()).then_some(()))
    };
    until("the agent to tell of its GPUs", SOON, look).await
}

/// Waits for it.
pub async fn all_are_ready(plane: &ControlPlane) -> Result<()> {
    for part in ["deployment/tidegate-operator", "deployment/tidegate-router", "daemonset/tidegate-node-agent"] {
        plane.kubectl(&["rollout", "status", part, "--namespace", NAMESPACE, "--timeout=2m"], "").await?;
    }
    Ok(())
}

/// Takes all of it away but our kinds.
pub async fn uninstall(plane: &ControlPlane, driver: &Driver, models: &Path) -> Result<()> {
    let overlay = Overlay::of(driver, models)?;
    plane.kubectl(&["delete", "--kustomize", &overlay.folder(), "--timeout=2m"], "").await.map(drop)
}

/// Replicas of these namespaces may connect to the operator, as the example of a model gives them that right.
pub async fn admit_replicas(plane: &ControlPlane) -> Result<()> {
    let text = fs::read_to_string(workspace().join("examples/kubernetes/model.yaml"))?;
    let (binding, _) = text.split_once("\n---\n").context("model.yaml has one document")?;
    plane.apply(binding).await
}

/// `kubectl apply` of objects of ours; those that have a namespace get this one.
pub async fn apply(plane: &ControlPlane, objects: &[impl Serialize], namespace: &str) -> Result<()> {
    let documents: Vec<String> = objects.iter().map(serde_yaml::to_string).collect::<Result<_, _>>()?;
    plane.kubectl(&["apply", "--namespace", namespace, "--filename", "-"], &documents.join("---\n")).await.map(drop)
}

/// Where clients ask: the address of the routers' service.
pub async fn router(plane: &ControlPlane) -> Result<String> {
    let services: Api<Service> = Api::namespaced(plane.client.clone(), NAMESPACE);
    let address = services.get("tidegate-router").await?.spec.and_then(|spec| spec.cluster_ip);
    Ok(format!("http://{}", address.context("the routers' service has no address")?))
}

/// Where the operator that leads answers people.
pub async fn leader(plane: &ControlPlane) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(plane.client.clone(), NAMESPACE);
    let spec = leases.get("tidegate-operator").await?.spec.unwrap_or_default();
    let holder = spec.holder_identity.context("no operator leads")?;
    let leads = |pod: &Pod| holder.starts_with(&pod.name_any());
    Ok(format!("http://{}:8080", address(plane, PARTS[0], leads).await?))
}

/// Where the agent answers.
pub async fn agent(plane: &ControlPlane) -> Result<String> {
    Ok(format!("http://{}:9400", address(plane, PARTS[2], |_| true).await?))
}

/// Of a pod of ours.
async fn address(plane: &ControlPlane, part: &str, is: impl Fn(&Pod) -> bool) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(plane.client.clone(), NAMESPACE);
    let all = pods.list(&ListParams::default().labels(&format!("app={part}"))).await?.items;
    let found = all.into_iter().filter(is).find_map(|pod| pod.status?.pod_ip);
    found.with_context(|| format!("no pod of {part} has an address"))
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
