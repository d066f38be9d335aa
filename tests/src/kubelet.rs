//! A real node: containerd, the kubelet and a device plug-in. [`Node`] has no API server: its pods are files (static pods). Beside an API
//! server ([`crate::control_plane::ControlPlane::real_node`]) it is one of the cluster's nodes.
//!
//! ```text
//! namespaces  network, mounts, processes of its own: no port collides, and one kill ends all          namespaces
//! cgroups     one of its own in each hierarchy                                                        cgroups
//! image       busybox, packed without a registry                                                      image
//! containerd -> kubelet -> device plug-in -> ready                                                    here
//! ```
//!
//! Assumes root, Linux, and what `cargo xtask test --cluster` prepares. Nodes do not disturb each other nor the machine.

mod cgroups;
mod configuration;
mod container;
pub mod image;
mod leftovers;
pub mod namespaces;
pub mod parts;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::harness::until;
use crate::outside::installed;
use cgroups::Cgroups;
pub use configuration::{DOMAIN, IMAGE as BUSYBOX, PODS};
pub use container::Container;
use parts::{Parts, READY_WITHIN};

/// How a node's folder begins.
const FOLDER: &str = "tidegate-node-";
/// Where containerd listens, in the node's folder.
const CONTAINERD_SOCKET: &str = "run/containerd/containerd.sock";
/// Where a pod's processes say whose they are.
const NODE: &str = "TIDEGATE_TEST_NODE";
const POD: &str = "TIDEGATE_TEST_POD";

/// A running node; dropped, it ends with all that ran on it.
pub struct Node {
    // Ended in this order: processes and their files, then their cgroups.
    parts: Parts,
    kubelet: Kubelet,
}

/// What makes namespaces a node.
pub struct Kubelet {
    cgroups: Cgroups,
    programs: PathBuf,
    /// Where the plug-ins are by which pods have a network of their own. Absent: all are on the node's.
    network: Option<PathBuf>,
}

/// What containerd knows of a container, by the labels that the kubelet gave it.
#[derive(Deserialize, Debug, PartialEq, Eq)]
pub struct Labels {
    #[serde(rename = "io.kubernetes.pod.namespace")]
    pub namespace: String,
    #[serde(rename = "io.kubernetes.pod.name")]
    pub pod: String,
    #[serde(rename = "io.kubernetes.pod.uid")]
    pub uid: String,
    #[serde(rename = "io.kubernetes.container.name")]
    pub container: String,
}

impl Node {
    /// Starts it and waits until it takes pods. The kubelet learns of these GPUs soon after, from the plug-in.
    pub async fn start(gpus: &[String]) -> Result<Self> {
        let kubelet = Kubelet::create()?;
        let mut node = Self { parts: Parts::open(FOLDER).await?, kubelet };
        let ready = node.kubelet.start(&mut node.parts, gpus, None).await;
        ready.with_context(|| node.parts.said())?;
        Ok(node)
    }

    /// The name by which the kubelet calls it, and by which static pods end.
    pub const NAME: &'static str = "node";

    /// The kubelet's socket that tells which pod holds which device.
    pub fn pod_resources(&self) -> PathBuf {
        self.at("lib/kubelet/pod-resources/kubelet.sock")
    }

    /// Its `/var/log`.
    pub fn logs(&self) -> PathBuf {
        self.at("log")
    }

    /// Makes a pod of one container, `main`, that holds so many GPUs until it is told to end.
    pub fn create(&self, pod: &str, gpus: u32) -> Result<()> {
        let draft = self.at("pod.draft");
        fs::write(&draft, configuration::pod(pod, gpus, self.kubelet.cgroups.name()))?;
        fs::rename(draft, self.manifest(pod)).with_context(|| format!("create the pod {pod}"))
    }

    /// Deletes a pod; its containers get SIGTERM.
    pub fn delete(&self, pod: &str) -> Result<()> {
        fs::remove_file(self.manifest(pod)).with_context(|| format!("delete the pod {pod}"))
    }

    /// The first process of a pod's container, if it runs.
    pub fn container(&self, pod: &str) -> Result<Option<Container>> {
        self.kubelet.container(pod)
    }

    /// Waits until a pod's container runs, and is not the one `before`.
    pub async fn running(&self, pod: &str, before: Option<&Container>) -> Result<Container> {
        let what = format!("a container of the pod {pod}");
        until(&what, READY_WITHIN, || async {
            Ok(self.container(pod)?.filter(|now| before.is_none_or(|old| old.pid != now.pid)))
        })
        .await
    }

    /// What containerd knows of the container with this id.
    pub fn labels(&self, container: &str) -> Result<Labels> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(rename = "Labels")]
            labels: Labels,
        }
        let output = self.kubelet.ctr(&self.parts, &["containers", "info", container]).output()?;
        ensure!(output.status.success(), "ctr containers info: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice::<Info>(&output.stdout)?.labels)
    }

    /// From now on the device plug-in calls these GPUs unhealthy and all others healthy.
    pub fn sicken(&self, gpus: &[&str]) -> Result<()> {
        let draft = self.at("unhealthy.draft");
        fs::write(&draft, gpus.join("\n"))?;
        Ok(fs::rename(draft, self.at("unhealthy"))?)
    }

    /// The cgroup that all its pods are in, and that ends with it; also in the environment of all their processes.
    pub fn cgroup(&self) -> &str {
        self.kubelet.cgroups.name()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.parts.at(name)
    }

    fn manifest(&self, pod: &str) -> PathBuf {
        self.at("pods").join(format!("{pod}.yaml"))
    }
}

impl Kubelet {
    /// Nothing runs yet.
    pub fn create() -> Result<Self> {
        Ok(Self { cgroups: Cgroups::create()?, programs: installed("TIDEGATE_TEST_CONTROLPLANE")?, network: None })
    }

    /// The same, and pods that are not on the node's network have an address of their own, and ask the node for names.
    pub fn with_pod_network() -> Result<Self> {
        Ok(Self { network: Some(installed("TIDEGATE_TEST_CNI")?), ..Self::create()? })
    }

    /// Starts all of it; with a file by which the kubelet reaches an API server, as one of its nodes.
    pub async fn start(&self, parts: &mut Parts, gpus: &[String], server: Option<&Path>) -> Result<()> {
        self.containerd(parts).await?;
        self.kubelet(parts, server).await?;
        self.device_plugin(parts, gpus)
    }

    /// Gives the node an image.
    pub fn import(&self, parts: &Parts, archive: &[u8]) -> Result<()> {
        let file = parts.at("image.tar");
        fs::write(&file, archive)?;
        let imported = self.ctr(parts, &["images", "import"]).arg(&file).output()?;
        ensure!(imported.status.success(), "ctr images import: {}", String::from_utf8_lossy(&imported.stderr));
        Ok(fs::remove_file(file)?)
    }

    async fn containerd(&self, parts: &mut Parts) -> Result<()> {
        let file = parts.at("containerd.toml");
        let networks = parts.at("networks");
        fs::create_dir(&networks)?;
        let network = match &self.network {
            Some(_) => configuration::network(&parts.at("addresses")),
            None => configuration::NETWORK.to_owned(),
        };
        fs::write(networks.join("pods.conflist"), network)?;
        fs::write(&file, configuration::containerd(&networks, self.network.as_deref()))?;
        let mut command = parts.command(&self.programs.join("containerd"));
        // It looks for its shim and for runc on the path.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.programs.display()));
        command.arg("--config").arg(&file);
        let (address, program) = (parts.at(CONTAINERD_SOCKET), self.programs.join("ctr"));
        let answers = |_: &Parts| Ok(ctr(&program, &address, &["version"]).output()?.status.success());
        parts.start("containerd", command, answers).await?;
        self.import(parts, &image::busybox(configuration::IMAGE, &installed("TIDEGATE_TEST_BUSYBOX")?)?)
    }

    async fn kubelet(&self, parts: &mut Parts, server: Option<&Path>) -> Result<()> {
        let pods = parts.at("pods");
        fs::create_dir(&pods)?;
        let file = parts.at("kubelet.yaml");
        let names = self.network.as_ref().map(|_| namespaces::ADDRESS);
        fs::write(&file, configuration::kubelet(&pods, self.cgroups.name(), names))?;
        let mut command = parts.command(&self.programs.join("kubelet"));
        command.arg("--config").arg(&file).args(["--hostname-override", Node::NAME]);
        if let Some(server) = server {
            command.arg("--kubeconfig").arg(server).args(["--node-ip", namespaces::ADDRESS]);
        }
        let sockets =
            ["lib/kubelet/device-plugins/kubelet.sock", "lib/kubelet/pod-resources/kubelet.sock"].map(|at| parts.at(at));
        let all_listen = |_: &Parts| Ok(sockets.iter().all(|socket| UnixStream::connect(socket).is_ok()));
        parts.start("kubelet", command, all_listen).await
    }

    /// Starts a driver that publishes these GPUs by name and prepares claims for the kubelet.
    pub fn dra_driver(&self, parts: &mut Parts, gpus: &[String], server: &Path) -> Result<()> {
        let mut command = parts.command(&self.programs.join("dradriver"));
        command.args(["-node", Node::NAME, "-product", "Example 80", "-devices", &gpus.join(",")]);
        command.arg("-kubeconfig").arg(server);
        parts.spawn("dradriver", command)
    }

    /// What a pod's container must have in its environment, so that [`Self::container`] finds it.
    pub fn marks<'a>(&'a self, pod: &'a str) -> [(&'static str, &'a str); 2] {
        [(NODE, self.cgroups.name()), (POD, pod)]
    }

    /// The first process of a pod's container, if it runs.
    pub fn container(&self, pod: &str) -> Result<Option<Container>> {
        container::find(&self.marks(pod))
    }

    fn device_plugin(&self, parts: &mut Parts, gpus: &[String]) -> Result<()> {
        if gpus.is_empty() {
            return Ok(());
        }
        let mut command = parts.command(&self.programs.join("deviceplugin"));
        command.arg("-folder").arg(parts.at("lib/kubelet/device-plugins"));
        command.args(["-devices", &gpus.join(",")]).arg("-unhealthy").arg(parts.at("unhealthy"));
        parts.spawn("deviceplugin", command)
    }

    fn ctr(&self, parts: &Parts, arguments: &[&str]) -> Command {
        ctr(&self.programs.join("ctr"), &parts.at(CONTAINERD_SOCKET), arguments)
    }
}

/// containerd's own client.
fn ctr(program: &Path, socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--address").arg(socket);
    command.args(["--connect-timeout", "5s", "--timeout", "30s", "--namespace", "k8s.io"]).args(arguments);
    command
}

/// Looks until it is so, or for so long.
#[expect(clippy::disallowed_methods, reason = "a destructor cannot await")]
fn block_until(within: Duration, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}
