//! Models on a real API server: the operator, a router and replicas are real processes; the test plays the kubelet that starts and ends them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidegate_api::kinds::{Model, ModelStatus, Pool};
use tidegate_tests::control_plane::{ControlPlane, NOBODY, SOON, TEAM};
use tidegate_tests::harness::until;
use tidegate_tests::onnx;

const PORT: u16 = 9001;
const OTHER_PORT: u16 = 9002;
const CONTROL: [&str; 6] =
    ["--control-listen", "127.0.0.1:8090", "--control-url", "http://127.0.0.1:8090", "--replica-image", "tidegate:test"];
const ROUTER: &str = "http://127.0.0.1:7000";
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Long enough for a decision and its writes, on a busy machine; nothing happens by then that should not.
const A_WHILE: Duration = Duration::from_secs(3);

/// Starts the processes of replicas' pods, each on an address of its own, and ends what is told to end.
#[derive(Default)]
struct Kubelet {
    /// The last part of a pod's address.
    addresses: BTreeMap<String, u8>,
    next: u8,
}

impl Kubelet {
    async fn step(&mut self, plane: &mut ControlPlane) -> Result<()> {
        for pod in plane.list().await? {
            let name = pod.name_any();
            let is_replica = pod.annotations().contains_key("tidegate.dev/replica");
            if pod.metadata.deletion_timestamp.is_some() {
                if self.addresses.remove(&name).is_some() {
                    plane.signal(&name, Signal::SIGTERM)?;
                    ensure!(plane.ended(&name).await? == Some(0), "{name} did not drain");
                }
                plane.end(&name).await?;
            } else if is_replica && !self.addresses.contains_key(&name) {
                self.run(plane, &pod)?;
            } else if let Some(number) = self.addresses.get(&name).filter(|_| !is_ready(&pod)) {
                say_ready(plane, &name, *number).await?;
            }
        }
        Ok(())
    }

    fn run(&mut self, plane: &mut ControlPlane, pod: &Pod) -> Result<()> {
        self.next += 1;
        let number = self.next + 1;
        let args = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.args.clone()).unwrap_or_default();
        // Where a kubelet would mount the pod's token.
        let tokens = plane.at("tokens").display().to_string();
        let here =
            |arg: &String| arg.replace("0.0.0.0", &format!("127.0.0.{number}")).replace("/var/run/secrets/tidegate.dev", &tokens);
        let args: Vec<String> = args.iter().map(here).collect();
        self.addresses.insert(pod.name_any(), number);
        plane.program(&pod.name_any(), &args)
    }

    /// Steps until `done`.
    async fn until(&mut self, plane: &mut ControlPlane, what: &str, done: impl AsyncFn(&ControlPlane) -> Result<bool>) {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            self.step(plane).await.unwrap();
            if done(plane).await.unwrap_or(false) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "waited for {what}\n{}", plane.said());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What a readiness probe finds, and then what a kubelet says.
async fn say_ready(plane: &ControlPlane, pod: &str, number: u8) -> Result<()> {
    let address = format!("127.0.0.{number}");
    let probe = reqwest::Client::builder().no_proxy().build()?.get(format!("http://{address}:9001/readyz")).send().await;
    if !probe.is_ok_and(|answer| answer.status().is_success()) {
        return Ok(());
    }
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now().to_string()});
    let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]});
    let patch = json!({"status": status});
    plane.pods().patch_status(pod, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

async fn infer() -> Result<u16> {
    let row = json!({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, -2.0, 3.0, -4.0]}]});
    let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
    let answer = client.post(format!("{ROUTER}/v2/models/digits/infer")).body(row.to_string()).send().await?;
    let status = answer.status().as_u16();
    let answer: Value = answer.json().await?;
    if status == 200 {
        ensure!(answer["outputs"][0]["data"] == json!([1.0, 0.0, 3.0, 0.0]), "{answer}");
    }
    Ok(status)
}

async fn status(plane: &ControlPlane) -> Result<ModelStatus> {
    let models: Api<Model> = Api::namespaced(plane.client.clone(), TEAM);
    Ok(models.get("digits").await?.status.unwrap_or_default())
}

async fn replicas(plane: &ControlPlane) -> Result<Vec<String>> {
    let pods = plane.list().await?;
    Ok(pods.iter().filter(|pod| pod.annotations().contains_key("tidegate.dev/replica")).map(ResourceExt::name_any).collect())
}

async fn start(onnx: &str) -> ControlPlane {
    let plane = ControlPlane::start().await.unwrap();
    plane.node("n1", 2).await.unwrap();
    plane.queue("research", 1).await.unwrap();
    plane.queue("product", 1).await.unwrap();
    let pool = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "all"}, "spec": {"lendAfterSeconds": 1},
    });
    let pools: Api<Pool> = Api::all(plane.client.clone());
    pools.create(&PostParams::default(), &serde_json::from_value(pool).unwrap()).await.unwrap();
    let model = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Model", "metadata": {"name": "digits"},
        "spec": {
            "queue": "product", "source": {"onnx": onnx}, "sloMilliseconds": 5000, "coldStartBudgetMilliseconds": 60000,
            "replicas": {"min": 0, "max": 1}, "scaleToZeroAfterSeconds": 2,
        },
    });
    let models: Api<Model> = Api::namespaced(plane.client.clone(), TEAM);
    models.create(&PostParams::default(), &serde_json::from_value(model).unwrap()).await.unwrap();
    plane
}

#[tokio::test]
async fn a_model_takes_what_it_is_owed_sleeps_wakes_for_a_request_and_outlives_its_operator() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("digits.onnx");
    std::fs::write(&file, onnx::model_of("Relu")).unwrap();
    let mut plane = start(&file.display().to_string()).await;
    let mut kubelet = Kubelet::default();
    plane.operator("first", PORT, &CONTROL).unwrap();
    let router = ["router", "--listen", "127.0.0.1:7000", "--control", "http://127.0.0.1:8090"];
    plane.program("router", &router.map(str::to_owned)).unwrap();
    // Nobody knows yet what the file says: a replica tells it, and sleeps.
    kubelet.until(&mut plane, "the model's tensors", async |plane| Ok(status(plane).await?.tensors.is_some())).await;
    kubelet.until(&mut plane, "the model to sleep", async |plane| Ok(replicas(plane).await?.is_empty())).await;
    // Research borrows what product does not need.
    for number in 0..2 {
        plane.pod(&format!("w-{number}"), "research", |_| {}).await.unwrap();
    }
    plane.until_bound(2).await.unwrap();
    // A request for a sleeping model is held until its GPU is back and the replica is there.
    let held = tokio::task::LocalSet::new();
    let asked = held.run_until(async {
        let asked = tokio::task::spawn_local(infer());
        kubelet.until(&mut plane, "the model to answer", async |plane| Ok(status(plane).await?.ready == 1)).await;
        asked.await.unwrap()
    });
    assert_eq!(asked.await.unwrap(), 200);
    assert_eq!(plane.bound().await.unwrap().len(), 2, "one of research's gave way");
    plane.check_nodes(2).await.unwrap();
    plane.until_event("digits", "ReplicaStarting").await.unwrap();
    // Without an operator requests are answered; the next one starts and ends nothing.
    let before = replicas(&plane).await.unwrap();
    plane.signal("first", Signal::SIGKILL).unwrap();
    plane.ended("first").await.unwrap();
    assert_eq!(infer().await.unwrap(), 200);
    plane.operator("second", OTHER_PORT, &CONTROL).unwrap();
    let synced = async |plane: &ControlPlane| {
        infer().await?;
        Ok(plane.ask(OTHER_PORT, "/metrics", None).await?.1.contains("\ntidegate_operator_synced 1\n"))
    };
    kubelet.until(&mut plane, "the next leader", synced).await;
    let until = std::time::Instant::now() + A_WHILE;
    while std::time::Instant::now() < until {
        assert_eq!(infer().await.unwrap(), 200);
        kubelet.step(&mut plane).await.unwrap();
        tokio::time::sleep(LOOK_EVERY).await;
    }
    assert_eq!(replicas(&plane).await.unwrap(), before);
    plane.check_belief(OTHER_PORT).await.unwrap();
    // When nobody asks any more its GPU goes to who waits.
    plane.pod("w-2", "research", |_| {}).await.unwrap();
    let lent = async |plane: &ControlPlane| Ok(plane.bound().await?.iter().any(|(pod, _)| pod == "w-2"));
    kubelet.until(&mut plane, "the GPU to be lent", lent).await;
    plane.check_nodes(2).await.unwrap();
}

#[tokio::test]
async fn another_file_is_rolled_out_without_a_failed_request() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    for name in ["one.onnx", "two.onnx"] {
        std::fs::write(file(name), onnx::model_of("Relu")).unwrap();
    }
    let mut plane = start(&file("one.onnx")).await;
    let mut kubelet = Kubelet::default();
    let models: Api<Model> = Api::namespaced(plane.client.clone(), TEAM);
    let change = async |spec: Value| {
        models.patch("digits", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
    };
    change(json!({"replicas": {"min": 1, "max": 1}})).await;
    plane.operator("operator", PORT, &CONTROL).unwrap();
    let router = ["router", "--listen", "127.0.0.1:7000", "--control", "http://127.0.0.1:8090"];
    plane.program("router", &router.map(str::to_owned)).unwrap();
    kubelet.until(&mut plane, "the model to answer", async |_| Ok(infer().await? == 200)).await;
    let old = replicas(&plane).await.unwrap();
    change(json!({"source": {"onnx": file("two.onnx")}})).await;
    let renewed = async |plane: &ControlPlane| {
        let status = infer().await?;
        assert_eq!(status, 200, "while it is rolled out");
        let all = replicas(plane).await?;
        Ok(all.len() == 1 && all != old)
    };
    kubelet.until(&mut plane, "the new file to be served alone", renewed).await;
    assert_eq!(infer().await.unwrap(), 200);
}

#[tokio::test]
async fn a_model_that_cannot_be_served_is_told_why_and_holds_nobody_up() {
    let mut plane = start("digits.onnx").await;
    plane.operator("operator", PORT, &CONTROL).unwrap();
    let look = || async { Ok(Some(status(&plane).await?).filter(|status| status.message.contains("absolute path"))) };
    let status = until("the model to be refused", SOON, look).await.unwrap();
    assert!(status.conditions.iter().any(|condition| condition.kind == "Accepted" && condition.status == "False"));
    plane.pod("w", "research", |_| {}).await.unwrap();
    plane.until_bound(1).await.unwrap();
    plane.until_event("digits", "Refused").await.unwrap();
}

/// A token of a new service account, for the control port.
async fn token(plane: &ControlPlane, account: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.client.clone(), TEAM);
    let made = serde_json::from_value(json!({"metadata": {"name": account}})).unwrap();
    accounts.create(&PostParams::default(), &made).await.unwrap();
    let spec = TokenRequestSpec { audiences: Some(vec!["tidegate-control".to_owned()]), ..TokenRequestSpec::default() };
    let asked = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = accounts.create_token_request(account, &PostParams::default(), &asked).await.unwrap();
    answer.status.unwrap().token.unwrap()
}

/// Gives a service account the role of routers and replicas.
async fn bind(plane: &ControlPlane, account: &str) {
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": account},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tidegate-data-plane"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": TEAM}],
    }))
    .unwrap();
    Api::<ClusterRoleBinding>::all(plane.client.clone()).create(&PostParams::default(), &binding).await.unwrap();
}

#[tokio::test]
async fn a_router_without_the_right_is_told_what_to_bind_and_one_that_loses_it_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("digits.onnx");
    std::fs::write(&file, onnx::model_of("Relu")).unwrap();
    let mut plane = start(&file.display().to_string()).await;
    let models: Api<Model> = Api::namespaced(plane.client.clone(), TEAM);
    let awake = json!({"spec": {"replicas": {"min": 1, "max": 1}}});
    models.patch("digits", &PatchParams::default(), &Patch::Merge(awake)).await.unwrap();
    let (of_router, of_replica) = (token(&plane, "router").await, token(&plane, "replica").await);
    bind(&plane, "replica").await;
    std::fs::create_dir(plane.at("tokens")).unwrap();
    std::fs::write(plane.at("tokens").join("token"), of_replica).unwrap();
    let router_token = plane.at("router-token");
    // One that the API server takes, and that is not meant for the control port.
    std::fs::write(&router_token, NOBODY).unwrap();
    let mut kubelet = Kubelet::default();
    let flags: Vec<&str> = CONTROL.into_iter().chain(["--control-auth"]).collect();
    plane.operator("first", PORT, &flags).unwrap();
    let router = ["router", "--listen", "127.0.0.1:7000", "--control", "http://127.0.0.1:8090", "--control-token-file"];
    let router = router.map(str::to_owned).into_iter().chain([router_token.display().to_string()]);
    plane.program("router", &router.collect::<Vec<_>>()).unwrap();
    let says = |words: &'static str| async move |plane: &ControlPlane| Ok(plane.log("router").contains(words));
    kubelet.until(&mut plane, "an unknown token to be refused", says("no token that Kubernetes knows came along")).await;
    // A file that was written anew is read for the next session.
    std::fs::write(&router_token, of_router).unwrap();
    let words =
        "system:serviceaccount:team:router may not post the nonResourceURL /control: bind the ClusterRole tidegate-data-plane";
    kubelet.until(&mut plane, "the right to be missed", says(words)).await;
    let (_, metrics) = plane.ask(PORT, "/metrics", None).await.unwrap();
    assert!(metrics.contains("tidegate_operator_control_refusals_total{why=\"forbidden\"}"), "{metrics}");
    kubelet.until(&mut plane, "a replica that has the right", async |plane| Ok(status(plane).await?.ready == 1)).await;
    assert_ne!(infer().await.unwrap(), 200, "the router knows no model");
    bind(&plane, "router").await;
    kubelet.until(&mut plane, "the model to answer", async |_| Ok(infer().await? == 200)).await;
    // The right is taken away: who is connected stays so, and who is to connect anew serves on as it was.
    let bindings: Api<ClusterRoleBinding> = Api::all(plane.client.clone());
    bindings.delete("router", &DeleteParams::default()).await.unwrap();
    plane.signal("first", Signal::SIGTERM).unwrap();
    plane.ended("first").await.unwrap();
    plane.operator("second", OTHER_PORT, &flags).unwrap();
    let refused = async |plane: &ControlPlane| {
        let (_, metrics) = plane.ask(OTHER_PORT, "/metrics", None).await?;
        Ok(metrics.contains("tidegate_operator_control_refusals_total{why=\"forbidden\"}"))
    };
    kubelet.until(&mut plane, "the next leader to refuse it", refused).await;
    assert_eq!(infer().await.unwrap(), 200);
}
