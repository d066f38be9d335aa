//! A whole Kubernetes on one real node: the controllers, the scheduler of pods that are not ours, addresses of services and names, so that
//! manifests are applied as people apply them.
//!
//! ```text
//! kube-controller-manager   deployments, daemon sets, service accounts, endpoints, what was left behind
//! kube-scheduler            our own pods
//! kube-proxy                addresses of services, by nftables
//! CoreDNS                   names of services and of workers
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::Api;
use tokio::io::AsyncWriteExt;

use super::{ControlPlane, POD_GROUPS, TEAM};
use crate::harness::{binary, until};
use crate::kubelet::namespaces::ADDRESS;
use crate::kubelet::parts::READY_WITHIN;
use crate::kubelet::{DOMAIN, Kubelet, Node, PODS};
use crate::outside::installed;

/// Of the API server, which pods reach at the node's address.
const REACHED: &str = "--bind-address=0.0.0.0";
/// Nobody is there, and nobody is asked: what goes to a service's address is sent on to one of its pods before.
const GATEWAY: &str = "10.99.0.2";

impl ControlPlane {
    /// Starts it with these GPUs on its node, and waits until pods can be made in the team's namespace.
    pub async fn whole(gpus: &[String]) -> Result<Self> {
        let mut plane = Self::served(&[&[REACHED], &POD_GROUPS[..]].concat()).await?;
        let started = plane.rest(gpus).await;
        started.with_context(|| plane.said())?;
        Ok(plane)
    }

    async fn rest(&mut self, gpus: &[String]) -> Result<()> {
        let programs = installed("TIDEGATE_TEST_CONTROLPLANE")?;
        self.controllers()?;
        self.kube_scheduler("kube-scheduler")?;
        self.node_of(Kubelet::with_pod_network()?, gpus).await?;
        self.proxy(&programs)?;
        self.names(&programs)?;
        let definitions = Command::new(binary()?).arg("crd").output().context("run `tidegate crd`")?;
        self.apply(&String::from_utf8(definitions.stdout)?).await?;
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=2m"], "").await?;
        self.kubectl(&["create", "namespace", TEAM], "").await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), TEAM);
        until("a service account", READY_WITHIN, || async { Ok(accounts.get_opt("default").await?) }).await.map(drop)
    }

    /// Starts kube-controller-manager.
    pub fn controllers(&mut self) -> Result<()> {
        let programs = installed("TIDEGATE_TEST_CONTROLPLANE")?;
        let mut manager = self.parts.command(&programs.join("kube-controller-manager"));
        let file = |flag: &str, path: PathBuf| format!("--{flag}={}", path.display());
        manager.arg(file("kubeconfig", self.at("admin-kubeconfig")));
        manager.arg(file("service-account-private-key-file", self.at("service-accounts.pem")));
        // The API server made it for itself; the one that signed it comes with it.
        manager.arg(file("root-ca-file", self.at("certs/apiserver.crt")));
        manager.arg(file("cert-dir", self.at("controllers")));
        manager.args(["--bind-address=127.0.0.1", "--leader-elect=false"]);
        self.parts.spawn("kube-controller-manager", manager)
    }

    /// Without a route elsewhere nothing would be sent to a service's address at all.
    fn proxy(&mut self, programs: &Path) -> Result<()> {
        let mut route = self.parts.command(&installed("TIDEGATE_TEST_IP")?);
        let added = route.args(["route", "add", "default", "via", GATEWAY]).output()?;
        ensure!(added.status.success(), "ip route: {}", String::from_utf8_lossy(&added.stderr));
        let mut proxy = self.parts.command(&programs.join("kube-proxy"));
        let nft = installed("TIDEGATE_TEST_NFT")?;
        let path = std::env::var("PATH").unwrap_or_default();
        proxy.env("PATH", format!("{}:{path}", nft.parent().unwrap_or(&nft).display()));
        proxy.arg(format!("--kubeconfig={}", self.at("admin-kubeconfig").display()));
        proxy.args([format!("--hostname-override={}", Node::NAME), format!("--cluster-cidr={PODS}")]);
        // Limits of the whole machine are not ours to set.
        proxy.args(["--proxy-mode=nftables", "--conntrack-max-per-core=0"]);
        self.parts.spawn("kube-proxy", proxy)
    }

    fn names(&mut self, programs: &Path) -> Result<()> {
        let (file, server) = (self.at("Corefile"), self.at("admin-kubeconfig"));
        let zone = format!("kubernetes {DOMAIN} {{\n    kubeconfig {}\n  }}", server.display());
        fs::write(&file, format!(".:53 {{\n  bind {ADDRESS}\n  errors\n  {zone}\n}}\n"))?;
        let mut names = self.parts.command(&programs.join("coredns"));
        names.arg("-conf").arg(&file);
        self.parts.spawn("coredns", names)
    }

    /// `kubectl apply` of these manifests.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl(&["apply", "--filename", "-"], manifests).await.map(drop)
    }

    /// What `kubectl` prints, given this on its standard input.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.parts.namespaces.on_network(&installed("TIDEGATE_TEST_CONTROLPLANE")?.join("kubectl"));
        command.args(arguments).env("KUBECONFIG", self.at("admin-kubeconfig")).env("HOME", self.at(""));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().context("start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8(output.stdout)?)
    }
}
