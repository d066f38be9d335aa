//! The node agent beside a real kubelet: who holds which GPU is right through a pod's life. The truth to compare with
//! comes from elsewhere: the environment of the containers' processes, and containerd's labels.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nvml_fake::{Script, install};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_tests::harness::{binary, free_port, until};
use tidegate_tests::kubelet::{Container, Labels, Node};

/// A pod's start or end, seen by the agent, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_mins(1);
const GPUS: u32 = 3;

/// `tidegate node-agent` on a machine with a kubelet.
struct Agent {
    child: Child,
    url: String,
    script: Script,
    dir: TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A node that takes pods, and its agent, which knows that all GPUs can be given away.
async fn start() -> (Node, Agent) {
    let script = Script::of(GPUS, "NVIDIA H100 80GB HBM3", 81_559);
    let uuids: Vec<String> = script.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    let node = Node::start(&uuids).await.unwrap();
    let dir = TempDir::new().unwrap();
    let (library, _) = install(dir.path(), &script).unwrap();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let mut command = Command::new(binary().unwrap());
    command.args(["node-agent", "--listen", &address, "--interval-ms", "100", "--pod-interval-ms", "100", "--nvml-library"]);
    command.arg(library).arg("--pod-resources").arg(node.pod_resources()).arg("--pod-logs").arg(node.logs());
    let child = command.stdin(Stdio::null()).spawn().unwrap();
    let agent = Agent { child, url: format!("http://{address}"), script, dir };
    agent.until("all GPUs to be healthy", |gpus| gpus.iter().all(|gpu| gpu["pluginHealthy"] == true)).await;
    (node, agent)
}

impl Agent {
    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        Ok(client.get(format!("{}{path}", self.url)).send().await?.error_for_status()?.text().await?)
    }

    /// All GPUs, once they are so.
    async fn until(&self, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let last = std::cell::RefCell::new(String::new());
        let look = || async {
            let text = self.get("/gpus").await?;
            let all: Value = serde_json::from_str(&text)?;
            last.replace(text);
            let gpus = all["gpus"].as_array().cloned().unwrap_or_default();
            Ok((gpus.len() == GPUS as usize && is(&gpus)).then_some(gpus))
        };
        let found = until(what, SOON, look).await;
        found.unwrap_or_else(|error| panic!("{error:#}; last: {}", last.borrow()))
    }

    /// Waits until exactly these containers hold exactly these GPUs, in `/gpus` and in `/metrics`.
    async fn until_held(&self, node: &Node, pods: &[&str]) {
        let mut wanted = BTreeMap::new();
        for pod in pods {
            let gpus = node.container(pod).unwrap().unwrap().gpus;
            wanted.extend(gpus.into_iter().map(|gpu| (gpu, format!("default/{pod}-{}/main", Node::NAME))));
        }
        self.until(&format!("{wanted:?}"), |gpus| held(gpus) == wanted).await;
        // These are made once a second.
        let look = || async { Ok((counted(&self.get("/metrics").await?) == wanted).then_some(())) };
        until(&format!("{wanted:?} in /metrics"), SOON, look).await.unwrap();
    }

    /// From now on the driver sees these containers' processes, each on the GPUs with these UUIDs.
    fn run(&mut self, processes: &[(&Container, &BTreeSet<String>)]) {
        for gpu in &mut self.script.gpus {
            let here = processes.iter().filter(|(_, gpus)| gpus.contains(&gpu.uuid));
            let process = |pid| json!({"pid": pid, "memory_mib": 1000, "sm_percent": 50});
            gpu.processes = here.map(|(container, _)| serde_json::from_value(process(container.pid)).unwrap()).collect();
        }
        self.script.write(&self.dir.path().join("libnvidia-ml.so.1.json")).unwrap();
    }

    /// Waits until the driver's only process on each of the container's GPUs is seen, in the container that containerd knows.
    async fn until_placed(&self, node: &Node, pod: &str, container: &Container) {
        let own = |gpus: &[Value]| -> Vec<Value> {
            gpus.iter()
                .filter(|gpu| gpu["identity"]["uuid"].as_str().is_some_and(|uuid| container.gpus.contains(uuid)))
                .cloned()
                .collect()
        };
        let seen = |gpu: &Value| gpu["processes"][0]["pid"] == container.pid && gpu["mismatches"] == json!([]);
        let gpus = self.until(&format!("{container:?}"), |gpus| own(gpus).iter().all(seen)).await;
        for gpu in own(&gpus) {
            let place = &gpu["processes"][0]["place"]["pod"];
            let labels = node.labels(place["container"].as_str().unwrap()).unwrap();
            let uid = place["uid"].as_str().unwrap().to_owned();
            let pod = format!("{pod}-{}", Node::NAME);
            assert_eq!(labels, Labels { namespace: "default".into(), pod: pod.clone(), uid, container: "main".into() });
            assert_eq!((&gpu["users"][0]["pod"], &gpu["users"][0]["processes"]), (&json!(pod), &json!(1)), "{gpu:#}");
        }
    }
}

/// Who holds each GPU that is held, as the agent says.
fn held(gpus: &[Value]) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let holders = |gpu: &Value| -> Vec<String> {
        let users = gpu["users"].as_array().cloned().unwrap_or_default();
        let name = |user: &Value| ["namespace", "pod", "container"].map(|part| text(&user[part])).join("/");
        users.iter().filter(|user| user["allocated"] == true).map(name).collect()
    };
    let all = gpus.iter().map(|gpu| (text(&gpu["identity"]["uuid"]), holders(gpu).join(" and ")));
    all.filter(|(_, holders)| !holders.is_empty()).collect()
}

/// Who holds each GPU that is held, as the metrics say.
fn counted(metrics: &str) -> BTreeMap<String, String> {
    let series = metrics.lines().filter_map(|line| line.strip_prefix("tidegate_node_agent_pod_allocated{")?.strip_suffix("} 1"));
    let label = |series: &str, name: &str| {
        let value = series.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'));
        value.unwrap_or_default().to_owned()
    };
    let holder = |series| ["workload_namespace", "workload_pod", "workload_container"].map(|name| label(series, name)).join("/");
    series.map(|series| (label(series, "gpu"), holder(series))).collect()
}

#[tokio::test]
async fn holders_are_right_when_pods_are_created_crash_and_are_deleted() {
    let (node, mut agent) = start().await;
    node.create("trainer", 2).unwrap();
    let first = node.running("trainer", None).await.unwrap();
    assert_eq!(first.gpus.len(), 2);
    agent.until_held(&node, &["trainer"]).await;

    node.create("server", 1).unwrap();
    let server = node.running("server", None).await.unwrap();
    assert_eq!(server.gpus.len(), 1);
    agent.until_held(&node, &["trainer", "server"]).await;
    agent.run(&[(&first, &first.gpus), (&server, &server.gpus)]);
    agent.until_placed(&node, "trainer", &first).await;
    agent.until_placed(&node, "server", &server).await;

    first.crash().unwrap();
    let second = node.running("trainer", Some(&first)).await.unwrap();
    assert_eq!(second.gpus, first.gpus, "a container keeps its devices when it is started again");
    agent.until_held(&node, &["trainer", "server"]).await;
    agent.run(&[(&second, &second.gpus), (&server, &server.gpus)]);
    agent.until_placed(&node, "trainer", &second).await;

    agent.run(&[(&server, &server.gpus)]);
    node.delete("trainer").unwrap();
    agent.until_held(&node, &["server"]).await;
    node.create("next", 2).unwrap();
    let next = node.running("next", None).await.unwrap();
    assert_eq!(next.gpus, first.gpus, "they are free again");
    agent.until_held(&node, &["server", "next"]).await;
}

#[tokio::test]
async fn a_process_on_a_gpu_that_its_pod_was_not_given_is_told_from_its_cgroup() {
    let (node, mut agent) = start().await;
    for pod in ["owner", "thief"] {
        node.create(pod, 1).unwrap();
    }
    let owner = node.running("owner", None).await.unwrap();
    let thief = node.running("thief", None).await.unwrap();
    agent.until_held(&node, &["owner", "thief"]).await;
    agent.run(&[(&thief, &owner.gpus)]);
    let expected = json!([
        {"kind": "usedNotAllocated", "who": "default/thief-node/main"},
        {"kind": "allocatedUsedByOthers", "who": "default/owner-node/main"},
    ]);
    let robbed = |gpu: &Value| gpu["identity"]["uuid"].as_str().is_some_and(|uuid| owner.gpus.contains(uuid));
    agent.until("both sides", |gpus| gpus.iter().any(|gpu| robbed(gpu) && gpu["mismatches"] == expected)).await;
}

#[tokio::test]
async fn a_device_that_its_plugin_calls_unhealthy_shows_until_it_is_well() {
    let (node, agent) = start().await;
    let sick = agent.script.gpus[1].uuid.clone();
    node.sicken(&[&sick]).unwrap();
    let only_it = |gpus: &[Value]| gpus.iter().all(|gpu| gpu["pluginHealthy"] == json!(gpu["identity"]["uuid"] != sick));
    agent.until("it alone to be unhealthy", only_it).await;
    let series = format!("tidegate_node_agent_gpu_plugin_healthy{{gpu=\"{sick}\"}} 0");
    let look = || async { Ok(agent.get("/metrics").await?.lines().any(|line| line == series).then_some(())) };
    until(&series, SOON, look).await.unwrap();
    node.sicken(&[]).unwrap();
    agent.until("all to be healthy", |gpus| gpus.iter().all(|gpu| gpu["pluginHealthy"] == true)).await;
}

#[tokio::test]
async fn a_node_leaves_no_process_no_mount_and_no_cgroup() {
    let node = Node::start(&["GPU-1".to_owned()]).await.unwrap();
    node.create("sleeper", 1).unwrap();
    let container = node.running("sleeper", None).await.unwrap();
    let (name, folder) = (node.cgroup().to_owned(), node.logs().parent().unwrap().to_owned());
    let cgroups = || std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid)).unwrap_or_default();
    assert!(cgroups().contains(&name), "it runs below the node's own cgroup: {}", cgroups());
    drop(node);
    assert_eq!(cgroups(), "");
    assert!(!folder.exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*folder.to_string_lossy()), "{mounts}");
    let left = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().filter(|entry| entry.path().join(&name).exists());
    assert_eq!(left.count(), 0);
}
