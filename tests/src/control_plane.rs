//! A real API server with its etcd, and operators beside it. There is no controller, and no kubelet unless a test starts one
//! ([`ControlPlane::real_node`]): nodes and pods are objects, and a test says what a kubelet would say of them.
//! [`ControlPlane::whole`] has all that a cluster has.
//!
//! Everything is on a network of its own, which the test's thread enters too: no port collides, nothing leaves the machine.

pub mod kwok;
mod whole;
pub mod witness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{
    Api, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams, ValidationDirective,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::Scope;
use kube::{Client, Config, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidegate_api::kinds::{self, Queue, QueueStatus, TrainingJob, TrainingJobStatus, TrainingPhase};

use crate::harness::{binary, binary_of, until, workspace};
use crate::kubelet::namespaces::ADDRESS;
use crate::kubelet::parts::{Parts, READY_WITHIN};
use crate::kubelet::{self, Kubelet, image};
use crate::outside::installed;

mod postgres;

const FOLDER: &str = "tidegate-plane-";
/// Where everything is in that network.
const API_SERVER: &str = "https://127.0.0.1:6443";
const ETCD: &str = "http://127.0.0.1:2379";
/// Tokens that the API server knows: who may do everything, and who may do nothing.
pub const ADMIN: &str = "admin-token";
pub const NOBODY: &str = "nobody-token";
/// Of operators, who may do what `examples/kubernetes` says, and of kube-scheduler, who may do what is its own.
const OPERATOR: &str = "operator-token";
const KUBE_SCHEDULER: &str = "kube-scheduler-token";
/// What a person waits for, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_mins(3);
/// By which the API server serves `PodGroup`s: without them it has none.
pub const POD_GROUPS: [&str; 2] = ["--feature-gates=GenericWorkload=true", "--runtime-config=scheduling.k8s.io/v1beta1=true"];
/// Of an API server without controllers: nobody makes service accounts, or needs its address.
const ALONE: [&str; 3] =
    ["--bind-address=127.0.0.1", "--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount"];
/// Our image on a real node, by the name that manifests have in `examples/kubernetes`.
pub const IMAGE: &str = "registry.example/tidegate:0.1.0";
/// The namespace of the pods.
pub const TEAM: &str = "team";

/// A running API server; dropped, it ends with all that was started beside it.
pub struct ControlPlane {
    // Ended in this order: processes and their files, then the cgroups of a real node, then a database's files.
    parts: Parts,
    kubelet: Option<Kubelet>,
    database: Option<postgres::Folder>,
    /// Of the API server.
    flags: Vec<String>,
    pub client: Client,
}

impl ControlPlane {
    /// Starts it and waits until it serves our kinds. The calling thread is on its network from then on.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// With more flags of the API server.
    pub async fn start_with(flags: &[&str]) -> Result<Self> {
        let plane = Self::served(&[&ALONE, flags].concat()).await?;
        plane.prepare().await?;
        Ok(plane)
    }

    async fn served(flags: &[&str]) -> Result<Self> {
        let programs = installed("TIDEGATE_TEST_CONTROLPLANE")?;
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut parts = Parts::open(FOLDER).await?;
        parts.namespaces.enter_network()?;
        let client = Self::serve(&mut parts, &programs, &flags).await;
        let client = client.with_context(|| parts.said())?;
        Ok(Self { parts, kubelet: None, database: None, flags, client })
    }

    async fn serve(parts: &mut Parts, programs: &Path, flags: &[String]) -> Result<Client> {
        start_etcd(parts, programs)?;
        fs::write(parts.at("tokens.csv"), tokens())?;
        let key = parts.at("service-accounts.pem").display().to_string();
        let made = Command::new(installed("TIDEGATE_TEST_OPENSSL")?).args(["genrsa", "-out", &key, "2048"]).output()?;
        ensure!(made.status.success(), "openssl genrsa: {}", String::from_utf8_lossy(&made.stderr));
        start_api_server(parts, programs, flags)?;
        fs::write(parts.at("kubeconfig"), kubeconfig(OPERATOR))?;
        fs::write(parts.at("admin-kubeconfig"), kubeconfig(ADMIN))?;
        let file = Kubeconfig::from_yaml(&kubeconfig(ADMIN))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        until("the API server", READY_WITHIN, || async { Ok(client.apiserver_version().await.ok()) }).await?;
        Ok(client)
    }

    /// Ends the API server, or etcd, as a crash does.
    pub async fn crash(&mut self, part: &str) -> Result<()> {
        // It is the first process in a namespace of processes below `nsenter`, which ends with it.
        let pid = Pid::from_raw(i32::try_from(self.pid(part)?)?);
        kill(pid, Signal::SIGKILL)?;
        self.ended(part).await.map(drop)
    }

    /// Makes etcd forget all but the newest version of each object, so that who watches from an older one is told `410 Gone`.
    pub async fn forget_history(&self) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        let post = |path: &str, body: Value| client.post(format!("{ETCD}/v3/{path}")).body(body.to_string()).send();
        // Any key will do: the answer's header has the revision.
        let answer = post("kv/range", json!({"key": "YQ=="})).await?.error_for_status()?.text().await?;
        let answer: Value = serde_json::from_str(&answer)?;
        let revision = answer["header"]["revision"].as_str().with_context(|| format!("no revision: {answer}"))?;
        post("kv/compaction", json!({"revision": revision, "physical": true})).await?.error_for_status()?;
        Ok(())
    }

    /// Starts what was ended on what it had stored, and waits until the API server answers.
    pub async fn start_again(&mut self, part: &str) -> Result<()> {
        let programs = installed("TIDEGATE_TEST_CONTROLPLANE")?;
        match part {
            "etcd" => start_etcd(&mut self.parts, &programs)?,
            _ => start_api_server(&mut self.parts, &programs, &self.flags)?,
        }
        until("the API server", READY_WITHIN, || async { Ok(self.list().await.ok()) }).await.map(drop)
    }

    /// Our kinds, and a namespace.
    async fn prepare(&self) -> Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for definition in kinds::definitions() {
            definitions.create(&PostParams::default(), &definition).await?;
        }
        let queues: Api<Queue> = Api::all(self.client.clone());
        until("our kinds", READY_WITHIN, || async { Ok(queues.list(&ListParams::default()).await.ok()) }).await?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let team: Namespace = serde_json::from_value(json!({"metadata": {"name": TEAM}}))?;
        until("the namespace", READY_WITHIN, || async { Ok(namespaces.create(&PostParams::default(), &team).await.ok()) })
            .await?;
        let roles: Api<ClusterRole> = Api::all(self.client.clone());
        for role in example("rbac.yaml")? {
            roles.create(&PostParams::default(), &role).await?;
        }
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": {"name": "operator"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tidegate-operator"},
            "subjects": [{"kind": "ServiceAccount", "name": "tidegate-operator", "namespace": "tidegate-system"}],
        }))?;
        Api::<ClusterRoleBinding>::all(self.client.clone()).create(&PostParams::default(), &binding).await?;
        Ok(())
    }

    /// The queues of the example: `research` and `product`, four GPUs each.
    pub async fn example_queues(&self) -> Result<()> {
        let queues: Api<Queue> = Api::all(self.client.clone());
        for queue in example("queues.yaml")? {
            queues.create(&PostParams::default(), &queue).await?;
        }
        Ok(())
    }

    /// Pods of the team.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), TEAM)
    }

    /// A node that is ready, with so many GPUs.
    pub async fn node(&self, name: &str, gpus: u32) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        nodes.create(&PostParams::default(), &node).await?;
        let amounts = json!({"cpu": "64", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": gpus.to_string()});
        let status =
            json!({"status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}});
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        // As the node controller does once it is ready.
        let ready = json!({"spec": {"taints": null}});
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(ready)).await?;
        Ok(())
    }

    /// Starts containerd and a kubelet, which is a node of the cluster, with these GPUs and our image ([`IMAGE`]).
    pub async fn real_node(&mut self, gpus: &[String]) -> Result<()> {
        self.node_of(Kubelet::create()?, gpus).await
    }

    async fn node_of(&mut self, kubelet: Kubelet, gpus: &[String]) -> Result<()> {
        let kubelet = self.kubelet.insert(kubelet);
        let server = self.parts.at("admin-kubeconfig");
        let started = kubelet.start(&mut self.parts, gpus, Some(&server)).await;
        started.with_context(|| self.parts.said())?;
        let executables = [binary()?, binary_of("tidegate-node-agent")?];
        kubelet.import(&self.parts, &image::tidegate(IMAGE, &executables.each_ref().map(PathBuf::as_path))?)?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let wanted = (!gpus.is_empty()).then(|| Quantity(gpus.len().to_string()));
        let ready = || async {
            let status = nodes.get(kubelet::Node::NAME).await?.status.unwrap_or_default();
            let is_ready = status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
            Ok((is_ready && status.allocatable.is_some_and(|all| all.get("nvidia.com/gpu") == wanted.as_ref())).then_some(()))
        };
        until("the node to be ready", READY_WITHIN, ready).await.with_context(|| self.parts.said())?;
        // As the node controller does once it is ready.
        let taints = json!({"spec": {"taints": null}});
        nodes.patch(kubelet::Node::NAME, &PatchParams::default(), &Patch::Merge(taints)).await?;
        Ok(())
    }

    /// Starts a driver on the real node that publishes these GPUs by name, for `ResourceClaim`s.
    pub fn dra_driver(&mut self, gpus: &[String]) -> Result<()> {
        let server = self.parts.at("admin-kubeconfig");
        let kubelet = self.kubelet.as_ref().context("no real node")?;
        kubelet.dra_driver(&mut self.parts, gpus, &server)
    }

    /// The real node's kubelet.
    pub fn kubelet(&self) -> Result<&Kubelet> {
        self.kubelet.as_ref().context("no real node")
    }

    /// A path in the folder of this cluster.
    pub fn at(&self, name: &str) -> PathBuf {
        self.parts.at(name)
    }

    /// A node is gone with all that ran on it, as the node controller sees to.
    pub async fn lose_node(&self, name: &str) -> Result<()> {
        Api::<Node>::all(self.client.clone()).delete(name, &DeleteParams::default()).await?;
        for (pod, _) in self.bound().await?.into_iter().filter(|(_, node)| node == name) {
            self.end(&pod).await?;
        }
        Ok(())
    }

    /// Every object of a file in `examples/kubernetes` is accepted, each namespace named in it being there.
    pub async fn accepts(&self, file: &str) -> Result<()> {
        let text = fs::read_to_string(workspace().join("examples/kubernetes").join(file))?;
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object = DynamicObject::deserialize(document)?;
            let kind = object.types.as_ref().context("no kind")?;
            let kind = GroupVersionKind::try_from(kind)?;
            let (resource, capabilities) = kube::discovery::pinned_kind(&self.client, &kind).await?;
            let objects: Api<DynamicObject> = match capabilities.scope {
                Scope::Cluster => Api::all_with(self.client.clone(), &resource),
                Scope::Namespaced => {
                    Api::namespaced_with(self.client.clone(), &object.namespace().unwrap_or_default(), &resource)
                }
            };
            let strict =
                PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("test").force() };
            let name = object.name_any();
            objects
                .patch(&name, &strict, &Patch::Apply(&object))
                .await
                .with_context(|| format!("{file}: {} {name}", kind.kind))?;
        }
        Ok(())
    }

    /// A queue with so many GPUs of its own, which borrows what others leave.
    pub async fn queue(&self, name: &str, nominal: u32) -> Result<()> {
        self.queue_below(name, None, nominal).await
    }

    /// The same, below another one.
    pub async fn queue_below(&self, name: &str, parent: Option<&str>, nominal: u32) -> Result<()> {
        let queues: Api<Queue> = Api::all(self.client.clone());
        let queue: Queue = serde_json::from_value(json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": {"nominal": nominal, "parent": parent},
        }))?;
        queues.create(&PostParams::default(), &queue).await?;
        Ok(())
    }

    /// Waits until a queue's status satisfies `is`.
    pub async fn until_queue(&self, name: &str, is: impl Fn(&QueueStatus) -> bool) -> Result<QueueStatus> {
        let queues: Api<Queue> = Api::all(self.client.clone());
        let look = || async { Ok(queues.get(name).await?.status.filter(&is)) };
        until(&format!("the status of queue {name}"), SOON, look).await.with_context(|| self.parts.said())
    }

    /// A pod of one GPU.
    pub async fn pod(&self, name: &str, queue: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"tidegate.dev/queue": queue}, "annotations": {}},
            "spec": {
                "schedulerName": "tidegate", "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
            },
        });
        change(&mut pod);
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok(())
    }

    /// The training job of the example, changed.
    pub async fn training_job(&self, change: impl FnOnce(&mut TrainingJob)) -> Result<()> {
        let jobs: Api<TrainingJob> = Api::namespaced(self.client.clone(), TEAM);
        let mut job = example::<TrainingJob>("training-job.yaml")?.remove(0);
        change(&mut job);
        jobs.create(&PostParams::default(), &job).await?;
        Ok(())
    }

    /// Waits until the training job is in that phase; what its status says then.
    pub async fn until_training(&self, name: &str, phase: TrainingPhase) -> Result<TrainingJobStatus> {
        let jobs: Api<TrainingJob> = Api::namespaced(self.client.clone(), TEAM);
        let look = || async { Ok(jobs.get(name).await?.status.filter(|status| status.phase == phase)) };
        until(&format!("{name} to be {phase:?}"), SOON, look).await.with_context(|| self.parts.said())
    }

    /// What a kubelet says of a pod.
    pub async fn says(&self, pod: &str, phase: &str) -> Result<()> {
        let status = json!({"status": {"phase": phase}});
        self.pods().patch_status(pod, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// A pod is gone, as when a kubelet has ended it.
    pub async fn end(&self, pod: &str) -> Result<()> {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.pods().delete(pod, &now).await?;
        Ok(())
    }

    /// All pods of the team.
    pub async fn list(&self) -> Result<Vec<Pod>> {
        Ok(self.pods().list(&ListParams::default()).await?.items)
    }

    /// Pods that are bound, by name, with their nodes.
    pub async fn bound(&self) -> Result<Vec<(String, String)>> {
        let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let mut bound: Vec<_> = self.list().await?.iter().filter_map(|pod| Some((pod.name_any(), node(pod)?))).collect();
        bound.sort();
        Ok(bound)
    }

    /// Waits until so many pods are bound; these.
    pub async fn until_bound(&self, count: usize) -> Result<Vec<(String, String)>> {
        let look = || async { Ok(Some(self.bound().await?).filter(|bound| bound.len() >= count)) };
        until(&format!("{count} pods to be bound"), SOON, look).await.with_context(|| self.parts.said())
    }

    /// Starts an operator of this name, which answers on that port.
    pub fn operator(&mut self, name: &str, port: u16, flags: &[&str]) -> Result<()> {
        self.operator_of(&binary()?, name, port, flags, &[])
    }

    /// The same of another build of `tidegate`, or with more in its environment.
    pub fn operator_of(
        &mut self,
        program: &Path,
        name: &str,
        port: u16,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<()> {
        let mut command = self.parts.namespaces.on_network(program);
        command.args(["operator", "--listen", &format!("127.0.0.1:{port}"), "--identity", name]).args(flags);
        // Unless the flags say otherwise.
        command.env("TIDEGATE_OPERATOR_LEASE_SECONDS", "8").env("TIDEGATE_OPERATOR_CHECK_SECONDS", "1");
        command.env("KUBECONFIG", self.parts.at("kubeconfig")).env("RUST_LOG", "info");
        // As its manifest has it.
        command.envs([("MIMALLOC_PURGE_DELAY", "0"), ("MIMALLOC_ALLOW_THP", "0")]);
        // A port of its own: they are all on one network.
        command.env("TIDEGATE_OPERATOR_CONTROL_LISTEN", format!("127.0.0.1:{}", port + 1_000));
        command.envs(environment.iter().copied());
        self.parts.spawn(name, command)
    }

    /// Starts PostgreSQL with an empty database; where it is.
    pub async fn postgres(&mut self) -> Result<String> {
        self.database = Some(postgres::start(&mut self.parts).await?);
        Ok(postgres::PLACE.to_owned())
    }

    /// Starts `tidegate` with these arguments, on the network alone.
    pub fn program(&mut self, name: &str, args: &[String]) -> Result<()> {
        let mut command = self.parts.namespaces.on_network(&binary()?);
        command.args(args).env("TIDEGATE_LOG", "info");
        self.parts.spawn(name, command)
    }

    /// Starts kube-scheduler with its client's limits lifted.
    pub fn kube_scheduler(&mut self, name: &str) -> Result<()> {
        fs::write(self.at("scheduler-kubeconfig"), kubeconfig(KUBE_SCHEDULER))?;
        let config = format!(
            "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection:
  kubeconfig: {}
  qps: 5000
  burst: 10000
leaderElection:
  leaderElect: false
",
            self.at("scheduler-kubeconfig").display()
        );
        fs::write(self.parts.at("scheduler.yaml"), config)?;
        let mut scheduler = self.parts.command(&installed("TIDEGATE_TEST_CONTROLPLANE")?.join("kube-scheduler"));
        scheduler.arg("--config").arg(self.parts.at("scheduler.yaml"));
        scheduler.args(["--bind-address=127.0.0.1", "--feature-gates=GenericWorkload=true"]);
        self.parts.spawn(name, scheduler)
    }

    /// The process of a part: `nsenter` waits for it, if it is in a namespace of processes too.
    pub fn pid(&mut self, name: &str) -> Result<u32> {
        let pid = self.parts.child(name)?.id();
        if fs::read_to_string(format!("/proc/{pid}/comm"))?.trim_end() != "nsenter" {
            return Ok(pid);
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        children.split_whitespace().next().map_or(Ok(pid), |child| Ok(child.parse()?))
    }

    /// Waits for an event on an object, of that reason.
    pub async fn until_event(&self, object: &str, reason: &str) -> Result<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), TEAM);
        let about = |event: &Event| {
            let name = event.regarding.as_ref().and_then(|regarding| regarding.name.as_deref());
            name == Some(object) && event.reason.as_deref() == Some(reason)
        };
        let look = || async { Ok(events.list(&ListParams::default()).await?.items.into_iter().find(about)) };
        until(&format!("the event {reason} on {object}"), SOON, look).await.with_context(|| self.parts.said())
    }

    /// The ends of all logs.
    pub fn said(&self) -> String {
        self.parts.said()
    }

    /// Sends an operator a signal.
    pub fn signal(&mut self, name: &str, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.parts.child(name)?.id())?);
        Ok(kill(pid, signal)?)
    }

    /// Waits until an operator has ended; its exit code.
    pub async fn ended(&mut self, name: &str) -> Result<Option<i32>> {
        let parts = std::cell::RefCell::new(&mut self.parts);
        let status = until("an operator to end", SOON, || async { Ok(parts.borrow_mut().child(name)?.try_wait()?) }).await?;
        Ok(status.code())
    }

    /// What a part has said.
    pub fn log(&self, name: &str) -> String {
        self.parts.log(name)
    }

    /// What an operator answers: the status and the text.
    pub async fn ask(&self, port: u16, path: &str, token: Option<&str>) -> Result<(u16, String)> {
        self.get(&format!("http://127.0.0.1:{port}{path}"), token).await
    }

    /// What is answered at a URL: the status and the text.
    pub async fn get(&self, url: &str, token: Option<&str>) -> Result<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        let request = client.get(url);
        let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// What an operator answers to a question that has a body.
    pub async fn ask_with(&self, port: u16, path: &str, token: &str, body: &str) -> Result<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        let request = client.post(format!("http://127.0.0.1:{port}{path}")).bearer_auth(token).body(body.to_owned());
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Posts to an operator, as a worker does: the status.
    pub async fn post(&self, url: &str, body: &str) -> Result<u16> {
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        Ok(client.post(url).body(body.to_owned()).send().await?.status().as_u16())
    }

    /// What an operator believes is what a list says, at two comparisons from now.
    pub async fn check_belief(&self, port: u16) -> Result<()> {
        let compared = |text: &str| figure(text, "tidegate_operator_drift_checks_total").unwrap_or(0);
        // One that has just begun does not listen yet.
        let said = || async { self.ask(port, "/metrics", None).await.map(|(_, text)| text).unwrap_or_default() };
        let before = compared(&said().await);
        let look = || async {
            let now = said().await;
            Ok((compared(&now) >= before + 2).then_some(now))
        };
        let now = until("two comparisons with a fresh list", SOON, look).await?;
        ensure!(figure(&now, "tidegate_operator_drift_nodes") == Some(0), "drift: {now}");
        Ok(())
    }

    /// No node gives away more GPUs than it has, whoever bound the pods.
    pub async fn check_nodes(&self, gpus: u32) -> Result<()> {
        witness::check_held(&self.list().await?, gpus)
    }
}

/// A metric of that name and labels, as `/metrics` has it.
pub fn figure(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value?.trim().parse().ok()
}

fn start_etcd(parts: &mut Parts, programs: &Path) -> Result<()> {
    let mut etcd = parts.command(&programs.join("etcd"));
    etcd.arg("--data-dir").arg(parts.at("etcd")).args(["--unsafe-no-fsync", "--log-level", "warn"]);
    etcd.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD, "--listen-peer-urls", "http://127.0.0.1:2380"]);
    parts.spawn("etcd", etcd)
}

fn start_api_server(parts: &mut Parts, programs: &Path, flags: &[String]) -> Result<()> {
    let key = parts.at("service-accounts.pem").display().to_string();
    let mut server = parts.command(&programs.join("kube-apiserver"));
    server.args(["--secure-port=6443".to_owned(), format!("--advertise-address={ADDRESS}")]);
    server.args([format!("--etcd-servers={ETCD}"), "--service-cluster-ip-range=10.0.0.0/24".to_owned()]);
    server.arg(format!("--cert-dir={}", parts.at("certs").display()));
    server.arg(format!("--token-auth-file={}", parts.at("tokens.csv").display()));
    server.args([format!("--service-account-key-file={key}"), format!("--service-account-signing-key-file={key}")]);
    server.args(["--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC"]);
    server.arg("--v=1").args(flags);
    parts.spawn("kube-apiserver", server)
}

/// Who everybody is: of groups too, since the API server serves members of some of them before others.
fn tokens() -> String {
    let account = "system:serviceaccount:tidegate-system:tidegate-operator";
    [
        format!("{ADMIN},admin,admin,\"system:masters\"\n"),
        format!("{NOBODY},nobody,nobody\n"),
        format!("{OPERATOR},{account},operator,\"system:serviceaccounts,system:serviceaccounts:tidegate-system\"\n"),
        format!("{KUBE_SCHEDULER},system:kube-scheduler,kube-scheduler\n"),
    ]
    .concat()
}

/// The objects of a file in `examples/kubernetes`.
fn example<K: DeserializeOwned>(file: &str) -> Result<Vec<K>> {
    let text = fs::read_to_string(workspace().join("examples/kubernetes").join(file))?;
    serde_yaml::Deserializer::from_str(&text).map(|document| Ok(K::deserialize(document)?)).collect()
}

/// For a client of the API server, whose certificate is its own.
fn kubeconfig(token: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: test
  cluster:
    server: {API_SERVER}
    insecure-skip-tls-verify: true
users:
- name: admin
  user:
    token: {token}
contexts:
- name: test
  context:
    cluster: test
    user: admin
current-context: test
"
    )
}
