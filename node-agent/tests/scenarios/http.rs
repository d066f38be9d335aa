//! What the agent answers.

use nvml_fake::{Link, Script};
use serde_json::{Value, json};

use super::agent::{Agent, with};

#[test]
fn the_topology_is_links_and_numa_nodes() {
    with(async {
        let mut script = Script::of(3, "NVIDIA H100 80GB HBM3", 81_559);
        script.gpus[0].links = vec![Link { peer: Some(1), up: true, errors: 0 }; 4];
        script.gpus[1].links = vec![Link { peer: Some(0), up: true, errors: 0 }; 4];
        script.gpus[0].links[3].up = false;
        script.gpus[2].numa_node = 1;
        let agent = Agent::start(&script, &[]).await;
        let topology: Value = serde_json::from_str(&agent.get("/topology").await.unwrap().1).unwrap();
        let paths = topology["paths"].as_array().unwrap();
        let told: Vec<_> =
            paths.iter().map(|path| (path["nvlinks"].as_u64().unwrap(), path["pcie"]["known"].as_str().unwrap())).collect();
        assert_eq!(told, [(3, "hostBridge"), (0, "system"), (0, "system")]);
        assert_eq!(topology["gpus"][2]["numaNode"], json!({"known": 1}));
        agent.end().await;
    });
}

#[test]
fn the_names_of_dcgm_are_there_when_asked_for_in_its_units() {
    with(async {
        let mut script = Script::of(1, "NVIDIA H100 80GB HBM3", 81_559);
        (script.gpus[0].memory_used_mib, script.gpus[0].utilization_percent) = (1024, 37);
        let agent = Agent::start(&script, &["--dcgm-names"]).await;
        agent.until("a reading", |gpus| !gpus["gpus"][0]["reading"].is_null()).await;
        let text = agent.metrics().await;
        let value = |name: &str| {
            let line =
                text.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap_or_else(|| panic!("{name}\n{text}"));
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        assert!((value("DCGM_FI_DEV_FB_USED") - 1024.0).abs() < 1e-9);
        assert!((value("DCGM_FI_DEV_GPU_UTIL") - 37.0).abs() < 1e-9);
        assert!((value("DCGM_FI_DEV_SM_CLOCK") - 1980.0).abs() < 1e-9);
        assert!(text.contains("UUID=\"GPU-00000000-fa4e-4000-8000-000000000000\""));
        agent.end().await;
        let agent = Agent::start(&script, &[]).await;
        assert!(!agent.metrics().await.contains("DCGM_"));
        agent.end().await;
    });
}

#[test]
fn a_port_that_is_taken_is_a_usage_error_with_its_remedy() {
    with(async {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let args = super::agent::args(&["--listen", &address, "--nvml-library", "/nonexistent/libnvidia-ml.so.1"]);
        let error = tidegate_node_agent::run(args, tokio_util::sync::CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.code(), 64);
        assert!(error.to_string().contains(&format!("--listen {address}")), "{error}");
    });
}

#[test]
fn one_look_at_a_machine_needs_no_agent() {
    let script = Script::of(2, "NVIDIA L4", 23_034);
    let dir = tempfile::tempdir().unwrap();
    let (library, _) = nvml_fake::install(dir.path(), &script).unwrap();
    let look =
        |library| tidegate_node_agent::gpus::look(&tidegate_node_agent::gpus::Args { nvml_library: Some(library), json: true });
    let gpus = look(library);
    assert_eq!(gpus.gpus.len(), 2);
    assert!(gpus.gpus[0].reading.as_ref().unwrap().activity.is_some(), "two readings make a window");
    let gpus = look("/nonexistent/libnvidia-ml.so.1".into());
    assert_eq!(gpus.closed.unwrap().category, "no_library");
}
