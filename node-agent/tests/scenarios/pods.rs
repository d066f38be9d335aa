//! The kubelet's side, on a real gRPC server over a unix socket: right, missing, slow, speaking nonsense.

use std::path::Path;
use std::time::Duration;

use nvml_fake::Script;
use serde_json::json;
use tidegate_node_agent::pods::kubelet::wire;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};
use wire::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};

use super::agent::{Agent, with};

const UID: &str = "6f0c7a2e-1b3d-4e5f-8a9b-0c1d2e3f4a5b";
const CONTAINER: &str = "3b1a5c7e9d0f2468ace13579bdf02468ace13579bdf02468ace13579bdf02468";

/// Answers the same always, after a while.
struct Kubelet {
    pods: Vec<wire::PodResources>,
    allocatable: Vec<String>,
    slow: Duration,
}

#[tonic::async_trait]
impl PodResourcesLister for Kubelet {
    async fn list(&self, _: Request<wire::ListPodResourcesRequest>) -> Result<Response<wire::ListPodResourcesResponse>, Status> {
        tokio::time::sleep(self.slow).await;
        Ok(Response::new(wire::ListPodResourcesResponse { pod_resources: self.pods.clone() }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<wire::AllocatableResourcesRequest>,
    ) -> Result<Response<wire::AllocatableResourcesResponse>, Status> {
        let devices = wire::ContainerDevices { resource_name: "nvidia.com/gpu".into(), device_ids: self.allocatable.clone() };
        Ok(Response::new(wire::AllocatableResourcesResponse { devices: vec![devices] }))
    }
}

/// Serves until the handle is dropped.
fn serve(socket: &Path, kubelet: Kubelet) -> Serving {
    let _absent = std::fs::remove_file(socket);
    let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
    let server = tonic::transport::Server::builder().add_service(PodResourcesListerServer::new(kubelet));
    Serving(tokio::task::spawn_local(async move { server.serve_with_incoming(incoming).await.unwrap() }))
}

struct Serving(tokio::task::JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn pod(name: &str, ids: &[&str]) -> wire::PodResources {
    let devices = wire::ContainerDevices {
        resource_name: "nvidia.com/gpu".into(),
        device_ids: ids.iter().map(ToString::to_string).collect(),
    };
    let container = wire::ContainerResources { name: "main".into(), devices: vec![devices], dynamic_resources: vec![] };
    wire::PodResources { name: name.into(), namespace: "team".into(), containers: vec![container] }
}

fn claimed(name: &str, claim: &str, device: &str) -> wire::PodResources {
    let resource = wire::ClaimResource {
        driver_name: "gpu.nvidia.com".into(),
        pool_name: "node".into(),
        device_name: device.into(),
        cdi_devices: vec![],
    };
    let claim =
        wire::DynamicResource { claim_name: claim.into(), claim_namespace: "team".into(), claim_resources: vec![resource] };
    let container = wire::ContainerResources { name: "main".into(), devices: vec![], dynamic_resources: vec![claim] };
    wire::PodResources { name: name.into(), namespace: "team".into(), containers: vec![container] }
}

fn machine() -> Script {
    let mut script = Script::of(2, "NVIDIA H100 80GB HBM3", 81_559);
    script.gpus[0].sm_active = 0.5;
    script.gpus[0].processes = vec![serde_json::from_value(json!({"pid": 4242, "memory_mib": 1000, "sm_percent": 50})).unwrap()];
    script
}

/// A `/proc` with process 4242 in a pod, and the kubelet's log folders with its name.
fn host(folder: &Path) {
    let process = folder.join("proc/4242");
    std::fs::create_dir_all(&process).unwrap();
    std::fs::write(process.join("stat"), "4242 (python) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 0").unwrap();
    std::fs::write(process.join("cgroup"), format!("0::/kubepods/burstable/pod{UID}/{CONTAINER}")).unwrap();
    std::fs::create_dir_all(folder.join(format!("log/pods/team_trainer_{UID}"))).unwrap();
    std::fs::create_dir_all(folder.join("log/containers")).unwrap();
    std::fs::write(folder.join(format!("log/containers/trainer_team_main-{CONTAINER}.log")), "").unwrap();
}

/// An agent that looks at `folder` for everything of the host.
async fn start(folder: &Path) -> Agent {
    let at = |name: &str| folder.join(name).display().to_string();
    let (socket, proc, log) = (at("kubelet.sock"), at("proc"), at("log"));
    let flags = ["--pod-resources", &socket, "--pod-interval-ms", "100", "--pod-logs", &log, "--proc", &proc];
    Agent::start(&machine(), &flags).await
}

const USER: &str = "gpu=\"GPU-00000000-fa4e-4000-8000-000000000000\",mig=\"\",workload_namespace=\"team\",workload_pod=\"trainer\",workload_container=\"main\"";

#[test]
fn a_pod_has_what_the_kubelet_gave_it_and_what_its_processes_use() {
    with(async {
        let folder = tempfile::tempdir().unwrap();
        host(folder.path());
        let (first, second) = ("GPU-00000000-fa4e-4000-8000-000000000000", "GPU-00000001-fa4e-4000-8000-000000000000");
        let pods = vec![pod("trainer", &[&format!("{first}::0")]), claimed("server", "gpus", "gpu-1")];
        let kubelet = Kubelet { pods, allocatable: vec![first.into()], slow: Duration::ZERO };
        let _serving = serve(&folder.path().join("kubelet.sock"), kubelet);
        let agent = start(folder.path()).await;
        let is_used =
            |gpus: &serde_json::Value| gpus["gpus"][0]["users"][0]["activeSeconds"].as_f64().is_some_and(|seconds| seconds > 0.1);
        let gpus = agent.until("the pod's use", is_used).await;
        let user = &gpus["gpus"][0]["users"][0];
        assert_eq!((&user["pod"], &user["allocated"], &user["processes"]), (&json!("trainer"), &json!(true), &json!(1)));
        assert_eq!(user["memoryBytes"], 1000 << 20);
        assert_eq!(gpus["gpus"][0]["processes"][0]["place"]["pod"]["uid"], UID);
        assert_eq!(gpus["gpus"][0]["mismatches"], json!([]));
        assert_eq!(
            (&gpus["gpus"][1]["users"][0]["pod"], &gpus["gpus"][1]["users"][0]["claim"]),
            (&json!("server"), &json!("team/gpus"))
        );
        assert_eq!(
            (&gpus["gpus"][0]["pluginHealthy"], &gpus["gpus"][1]["pluginHealthy"]),
            (&json!(true), &json!(false)),
            "{second}"
        );
        assert!(agent.value(&format!("tidegate_node_agent_pod_memory_used_bytes{{{USER}}}")).await.is_some());
        agent.end().await;
    });
}

#[test]
fn a_pod_that_uses_what_another_was_given_is_reported_both_ways() {
    with(async {
        let folder = tempfile::tempdir().unwrap();
        host(folder.path());
        let pods = vec![pod("other", &["GPU-00000000-fa4e-4000-8000-000000000000"])];
        let _serving = serve(&folder.path().join("kubelet.sock"), Kubelet { pods, allocatable: vec![], slow: Duration::ZERO });
        let agent = start(folder.path()).await;
        let two = |gpus: &serde_json::Value| gpus["gpus"][0]["mismatches"].as_array().is_some_and(|all| all.len() == 2);
        let gpus = agent.until("both", two).await;
        let expected = json!([
            {"kind": "usedNotAllocated", "who": "team/trainer/main"},
            {"kind": "allocatedUsedByOthers", "who": "team/other/main"},
        ]);
        assert_eq!(gpus["gpus"][0]["mismatches"], expected);
        agent.end().await;
    });
}

#[test]
fn a_socket_that_is_missing_is_said_counted_and_tried_again() {
    with(async {
        let folder = tempfile::tempdir().unwrap();
        host(folder.path());
        let agent = start(folder.path()).await;
        agent.until_health(0, "healthy").await;
        let errors = "tidegate_node_agent_kubelet_errors_total{category=\"connect\"}";
        while agent.value(errors).await.is_none_or(|count| count < 2.0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let pods = vec![pod("trainer", &["GPU-00000000-fa4e-4000-8000-000000000000"])];
        let _serving = serve(&folder.path().join("kubelet.sock"), Kubelet { pods, allocatable: vec![], slow: Duration::ZERO });
        agent.until("the pod", |gpus| gpus["gpus"][0]["users"][0]["allocated"] == true).await;
        agent.end().await;
    });
}

#[test]
fn a_kubelet_that_is_slow_stops_nothing_else() {
    with(async {
        let folder = tempfile::tempdir().unwrap();
        host(folder.path());
        let slow = Kubelet { pods: vec![], allocatable: vec![], slow: Duration::from_mins(10) };
        let _serving = serve(&folder.path().join("kubelet.sock"), slow);
        let agent = start(folder.path()).await;
        let errors = "tidegate_node_agent_kubelet_errors_total{category=\"slow\"}";
        while agent.value(errors).await.is_none_or(|count| count < 1.0) {
            let gpus = agent.gpus().await.unwrap();
            assert!(gpus["gpus"][0]["readingAgeSeconds"].as_f64().is_none_or(|age| age < 2.0), "{gpus}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        agent.end().await;
    });
}

#[test]
fn a_socket_that_speaks_nonsense_is_told_apart_and_facts_go_on() {
    with(async {
        let folder = tempfile::tempdir().unwrap();
        host(folder.path());
        let listener = UnixListener::bind(folder.path().join("kubelet.sock")).unwrap();
        let nonsense = tokio::task::spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _gone =
                    tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n\r\nhello, this is no kubelet").await;
            }
        });
        let agent = start(folder.path()).await;
        let total = |text: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with("tidegate_node_agent_kubelet_errors_total{"));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        while total(&agent.metrics().await) < 2.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let gpus = agent.until("a reading", |gpus| !gpus["gpus"][0]["reading"].is_null()).await;
        assert_eq!(gpus["gpus"][0]["processes"][0]["place"]["pod"]["uid"], UID, "the cgroup needs no kubelet");
        nonsense.abort();
        agent.end().await;
    });
}

#[test]
fn a_pod_on_a_mig_instance_has_the_seconds_of_its_instance() {
    with(async {
        let folder = tempfile::tempdir().unwrap();
        host(folder.path());
        let pods = vec![pod("trainer", &["MIG-1"])];
        let _serving = serve(&folder.path().join("kubelet.sock"), Kubelet { pods, allocatable: vec![], slow: Duration::ZERO });
        let agent = start(folder.path()).await;
        let mut script = machine();
        script.gpus[0].mig_enabled = true;
        let instance = |n: u32| json!({"uuid": format!("MIG-{n}"), "gpu_instance": n, "profile": "1g.10gb", "memory_total_mib": 9_728, "sm_active": 0.5});
        script.gpus[0].instances = [1, 2].map(|n| serde_json::from_value(instance(n)).unwrap()).into();
        agent.becomes(&script);
        let used = |gpus: &serde_json::Value| {
            let first = &gpus["gpus"][0]["users"][0];
            first["mig"] == "MIG-1" && first["activeSeconds"].as_f64().is_some_and(|seconds| seconds > 0.1)
        };
        let gpus = agent.until("the instance's use", used).await;
        let instance = &gpus["gpus"][0]["instances"][0];
        let (own, all) =
            (gpus["gpus"][0]["users"][0]["activeSeconds"].as_f64().unwrap(), instance["activeSeconds"].as_f64().unwrap());
        assert!(own <= all && own > all / 2.0, "{own} of {all}");
        agent.end().await;
    });
}
