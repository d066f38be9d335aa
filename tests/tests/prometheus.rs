//! The node agent under a real Prometheus: promtool has nothing to say about its metrics, and a server scrapes them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nvml_fake::{Link, Script, install};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_tests::harness::{binary, until};
use tidegate_tests::outside::installed;

const SOON: Duration = Duration::from_mins(1);

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A machine with everything that has a metric.
fn script() -> Script {
    let mut script = Script::of(3, "NVIDIA H100 80GB HBM3", 81_559);
    (script.gpus[0].sm_active, script.gpus[0].power_watts) = (0.5, 500.0);
    script.gpus[0].links = vec![Link { peer: None, up: true, errors: 1 }];
    script.gpus[0].processes = vec![serde_json::from_value(json!({"pid": 1, "memory_mib": 10, "sm_percent": 5})).unwrap()];
    script.gpus[1].mig_enabled = true;
    let instance = json!({"uuid": "MIG-1", "gpu_instance": 1, "profile": "1g.10gb", "memory_total_mib": 9_728});
    script.gpus[1].instances = vec![serde_json::from_value(instance).unwrap()];
    script.gpus[2].era = nvml_fake::Era::Maxwell;
    script
}

/// A running agent that has read every GPU, and its address.
async fn agent(dir: &TempDir, flags: &[&str]) -> (Running, String) {
    let (library, _) = install(dir.path(), &script()).unwrap();
    let address = free();
    let mut command = Command::new(binary().unwrap());
    command.args(["node-agent", "--listen", &address, "--interval-ms", "100", "--pod-interval-ms", "0", "--nvml-library"]);
    let child = command.arg(library).args(flags).stdin(Stdio::null()).spawn().unwrap();
    let running = Running(child);
    let read = || async {
        let gpus: Value = get(&format!("http://{address}/gpus")).await?;
        let all = gpus["gpus"].as_array().cloned().unwrap_or_default();
        Ok((all.len() == 3 && all.iter().all(|gpu| !gpu["reading"].is_null())).then_some(()))
    };
    until("every GPU to be read", SOON, read).await.unwrap();
    (running, address)
}

async fn get(url: &str) -> anyhow::Result<Value> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    Ok(client.get(url).send().await?.error_for_status()?.json().await?)
}

/// What an instant query finds.
async fn query(listen: &str, text: &str) -> anyhow::Result<Vec<Value>> {
    let answer = get(&format!("http://{listen}/api/v1/query?query={text}")).await?;
    Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    let dir = TempDir::new().unwrap();
    let (_agent, address) = agent(&dir, &[]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = client.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
    let mut promtool = Command::new(installed("TIDEGATE_TEST_PROMTOOL").unwrap());
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[tokio::test]
async fn a_real_prometheus_scrapes_the_agent_and_its_counters_rise() {
    let dir = TempDir::new().unwrap();
    let (_agent, address) = agent(&dir, &["--dcgm-names"]).await;
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: agent, static_configs: [{{targets: ['{address}']}}]}}]\n"
    );
    std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let listen = free();
    let mut command = Command::new(installed("TIDEGATE_TEST_PROMETHEUS").unwrap());
    command.arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
    command.arg(format!("--web.listen-address={listen}")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _prometheus = Running(command.spawn().unwrap());
    let up = || async { Ok(query(&listen, "up").await?.iter().find(|r| r["value"][1] == "1").cloned()) };
    until("the target to be up", SOON, up).await.unwrap();
    let rate = "rate(tidegate_node_agent_gpu_energy_joules_total%7Bsource=%22counter%22%7D%5B10s%5D)";
    let watts = || async {
        let found: Vec<Value> = query(&listen, rate).await?;
        let near = |result: &&Value| {
            result["value"][1].as_str().and_then(|w| w.parse::<f64>().ok()).is_some_and(|w| (450.0..550.0).contains(&w))
        };
        Ok(found.iter().find(near).cloned())
    };
    until("the rate of energy to be the power", SOON, watts).await.unwrap();
    assert!(!query(&listen, "DCGM_FI_DEV_GPU_TEMP").await.unwrap().is_empty());
}
