//! What goes wrong with GPUs and drivers, one scenario a test: it is seen, said, and over when it is over.

use nvml_fake::{Code, Link, Script, install};
use serde_json::json;
use tempfile::TempDir;

use super::agent::{Agent, with};

fn h100s(count: u32) -> Script {
    Script::of(count, "NVIDIA H100 80GB HBM3", 81_559)
}

#[test]
fn a_row_that_waits_for_a_reset_degrades_and_a_failed_one_is_sick() {
    with(async {
        let mut script = h100s(2);
        let agent = Agent::start(&script, &[]).await;
        agent.until_health(0, "healthy").await;
        script.gpus[0].remap_pending = true;
        agent.becomes(&script);
        assert_eq!(agent.until_health(0, "degraded").await, ["remapPending"]);
        script.gpus[0].remap_failed = true;
        agent.becomes(&script);
        assert_eq!(agent.until_health(0, "sick").await, ["remapFailed", "remapPending"]);
        agent.until_health(1, "healthy").await;
        (script.gpus[0].remap_failed, script.gpus[0].remap_pending) = (false, false);
        agent.becomes(&script);
        agent.until_health(0, "healthy").await;
        agent.end().await;
    });
}

#[test]
fn a_fatal_xid_is_heard_counted_and_over_when_the_driver_was_reset() {
    with(async {
        let mut script = h100s(2);
        let agent = Agent::start(&script, &[]).await;
        agent.until_health(1, "healthy").await;
        script.xid(0, 1, 119);
        agent.becomes(&script);
        assert_eq!(agent.until_health(1, "sick").await, ["fatalXid"]);
        let uuid = script.gpus[1].uuid.clone();
        let series = format!("tidegate_node_agent_gpu_xid_events_total{{gpu=\"{uuid}\",xid=\"119\"}}");
        assert_eq!(agent.value(&series).await, Some(1.0));
        script.events.clear();
        script.driver_load += 1;
        agent.becomes(&script);
        agent.until_health(1, "healthy").await;
        assert_eq!(agent.value(&series).await, Some(1.0), "what was counted stays counted");
        agent.end().await;
    });
}

#[test]
fn an_xid_that_comes_before_its_gpu_is_read_is_not_lost() {
    with(async {
        let mut script = h100s(1);
        // What was before anybody listened is told to nobody: time begins later.
        script.clock_ms = Some(0);
        script.xid(0, 0, 143);
        let agent = Agent::start(&script, &[]).await;
        assert_eq!(agent.until_health(0, "sick").await, ["fatalXid"]);
        agent.end().await;
    });
}

#[test]
fn a_finding_survives_a_restart_of_the_agent_and_not_one_of_the_machine() {
    with(async {
        let mut script = Script::of(1, "NVIDIA H100 80GB HBM3", 81_559);
        script.gpus[0].errors.insert("nvmlDeviceGetFieldValues".into(), Code::NotSupported);
        let kept = tempfile::tempdir().unwrap();
        let file = kept.path().join("state.json");
        let flags = ["--state", file.to_str().unwrap()];
        let agent = Agent::start(&script, &flags).await;
        agent.until("a reading", |gpus| !gpus["gpus"][0]["reading"].is_null()).await;
        script.xid(0, 0, 48);
        agent.becomes(&script);
        agent.until_health(0, "sick").await;
        agent.end().await;
        script.events.clear();
        let agent = Agent::start(&script, &flags).await;
        agent.until("a reading", |gpus| !gpus["gpus"][0]["reading"].is_null()).await;
        assert_eq!(agent.until_health(0, "sick").await, ["fatalXid"]);
        agent.end().await;
        let text = std::fs::read_to_string(&file).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        std::fs::write(&file, text.replace(boot.trim(), "another boot")).unwrap();
        let agent = Agent::start(&script, &flags).await;
        agent.until("a reading", |gpus| !gpus["gpus"][0]["reading"].is_null()).await;
        agent.until_health(0, "healthy").await;
        agent.end().await;
        std::fs::write(&file, text.replace("\"driver\":\"", "\"driver\":\"another ")).unwrap();
        let agent = Agent::start(&script, &flags).await;
        agent.until("a reading", |gpus| !gpus["gpus"][0]["reading"].is_null()).await;
        agent.until_health(0, "healthy").await;
        agent.end().await;
    });
}

#[test]
fn a_state_file_that_is_not_ours_is_not_touched() {
    with(async {
        let mut script = Script::of(1, "NVIDIA H100 80GB HBM3", 81_559);
        let kept = tempfile::tempdir().unwrap();
        let file = kept.path().join("diary.txt");
        std::fs::write(&file, "dear diary").unwrap();
        let agent = Agent::start(&script, &["--state", file.to_str().unwrap()]).await;
        agent.until("a reading", |gpus| !gpus["gpus"][0]["reading"].is_null()).await;
        script.xid(0, 0, 48);
        agent.becomes(&script);
        agent.until_health(0, "sick").await;
        agent.end().await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "dear diary");
    });
}

#[test]
fn an_xid_of_a_program_is_counted_and_changes_nothing() {
    with(async {
        let mut script = h100s(1);
        let agent = Agent::start(&script, &[]).await;
        agent.until_health(0, "healthy").await;
        script.xid(0, 0, 31);
        agent.becomes(&script);
        let gpus = agent.until("the XID", |gpus| gpus["gpus"][0]["xids"][0]["xid"] == 31).await;
        assert_eq!(gpus["gpus"][0]["health"]["state"], "healthy");
        agent.end().await;
    });
}

#[test]
fn uncorrected_memory_errors_make_a_gpu_sick_until_the_driver_is_reset() {
    with(async {
        let mut script = h100s(1);
        let agent = Agent::start(&script, &[]).await;
        agent.until("a reading", |gpus| !gpus["gpus"][0]["reading"].is_null()).await;
        script.gpus[0].ecc_uncorrected = 2;
        agent.becomes(&script);
        assert_eq!(agent.until_health(0, "sick").await, ["uncorrectedEcc"]);
        (script.gpus[0].ecc_uncorrected, script.driver_load) = (0, 1);
        agent.becomes(&script);
        agent.until_health(0, "healthy").await;
        let series = format!("tidegate_node_agent_gpu_ecc_errors_total{{gpu=\"{}\",kind=\"uncorrected\"}}", script.gpus[0].uuid);
        assert_eq!(agent.value(&series).await, Some(2.0), "the total never goes back");
        agent.end().await;
    });
}

#[test]
fn a_gpu_that_falls_off_the_bus_is_lost_and_the_others_are_read_on() {
    with(async {
        let mut script = h100s(2);
        let agent = Agent::start(&script, &[]).await;
        agent.until_health(0, "healthy").await;
        script.gpus[0].lost = true;
        agent.becomes(&script);
        assert_eq!(agent.until_health(0, "lost").await, ["offTheBus"]);
        let others = |gpus: &serde_json::Value| gpus["gpus"][1]["readingAgeSeconds"].as_f64().is_some_and(|age| age < 1.0);
        agent.until("the other GPU to be read on", others).await;
        let uuid = &script.gpus[0].uuid;
        let series = format!("tidegate_node_agent_gpu_memory_used_bytes{{gpu=\"{uuid}\"}}");
        assert_eq!(agent.value(&series).await, None, "no value of a GPU that cannot be read");
        script.gpus[0].lost = false;
        agent.becomes(&script);
        agent.until("it to be read again", |gpus| gpus["gpus"][0]["fault"].is_null()).await;
        agent.end().await;
    });
}

#[test]
fn a_gpu_that_the_driver_counts_no_more_stays_in_the_list_as_lost() {
    with(async {
        let mut script = h100s(2);
        let agent = Agent::start(&script, &[]).await;
        agent.until_health(1, "healthy").await;
        let gone = script.gpus.pop().unwrap();
        agent.becomes(&script);
        agent.until_health(1, "lost").await;
        script.gpus.push(gone);
        agent.becomes(&script);
        agent
            .until("it to be read again", |gpus| gpus["gpus"][1]["readingAgeSeconds"].as_f64().is_some_and(|age| age < 0.5))
            .await;
        agent.end().await;
    });
}

#[test]
fn a_driver_that_is_loaded_anew_with_another_order_keeps_each_gpus_totals() {
    with(async {
        let mut script = h100s(2);
        (script.gpus[0].power_watts, script.gpus[1].power_watts) = (700.0, 70.0);
        let agent = Agent::start(&script, &[]).await;
        let hot = script.gpus[0].uuid.clone();
        let energy = |gpus: &serde_json::Value, uuid: &str| {
            let gpu = gpus["gpus"].as_array().into_iter().flatten().find(|gpu| gpu["identity"]["uuid"] == uuid).cloned();
            gpu.and_then(|gpu| gpu["totals"]["energyJoules"].as_f64()).unwrap_or(0.0)
        };
        let before = energy(&agent.until("some energy", |gpus| energy(gpus, &hot) > 100.0).await, &hot);
        script.gpus.swap(0, 1);
        script.driver_load = 1;
        script.driver_version = "580.95.05".into();
        agent.becomes(&script);
        let is = |gpus: &serde_json::Value| {
            gpus["driver"]["driver"]["known"] == "580.95.05" && gpus["gpus"][1]["identity"]["uuid"] == hot.as_str()
        };
        let after = energy(&agent.until("the new order", is).await, &hot);
        assert!(after >= before, "{after} < {before}");
        agent.until_health(0, "healthy").await;
        agent.end().await;
    });
}

#[test]
fn a_call_that_hangs_is_reported_and_everything_else_goes_on() {
    with(async {
        let mut script = h100s(2);
        let agent = Agent::start(&script, &[]).await;
        agent.until_health(0, "healthy").await;
        script.gpus[0].hang = vec!["nvmlDeviceGetPowerUsage".into()];
        agent.becomes(&script);
        assert_eq!(agent.until_health(0, "sick").await, ["notAnswering"]);
        assert_eq!(agent.value("tidegate_node_agent_hung_calls").await, Some(1.0));
        assert_eq!(agent.get("/readyz").await.unwrap().0, 503);
        assert_eq!(agent.get("/healthz").await.unwrap().0, 200);
        let gpus = agent.gpus().await.unwrap();
        assert!(gpus["gpus"][1]["readingAgeSeconds"].as_f64().unwrap() < 1.0, "the other GPU is read on");
        script.gpus[0].hang.clear();
        agent.becomes(&script);
        agent
            .until("it to be read again", |gpus| gpus["gpus"][0]["readingAgeSeconds"].as_f64().is_some_and(|age| age < 0.4))
            .await;
        let ready = async {
            while agent.get("/readyz").await.unwrap().0 != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), ready).await.unwrap();
        agent.end().await;
    });
}

#[test]
fn an_agent_whose_driver_hangs_ends_all_the_same() {
    with(async {
        let mut script = h100s(1);
        let agent = Agent::start(&script, &[]).await;
        script.gpus[0].hang = vec!["*".into()];
        agent.becomes(&script);
        agent.until_health(0, "sick").await;
        agent.end().await;
    });
}

#[test]
fn an_nvlink_that_goes_down_degrades_both_ends_as_each_sees_it() {
    with(async {
        let mut script = h100s(2);
        for (gpu, peer) in [(0, 1), (1, 0)] {
            script.gpus[gpu].links = vec![Link { peer: Some(peer), up: true, errors: 0 }; 4];
        }
        let agent = Agent::start(&script, &[]).await;
        agent.until_health(0, "healthy").await;
        script.gpus[0].links[2] = Link { peer: Some(1), up: false, errors: 7 };
        agent.becomes(&script);
        assert_eq!(agent.until_health(0, "degraded").await, ["linkDown"]);
        let gpus = agent.gpus().await.unwrap();
        assert_eq!(gpus["gpus"][0]["health"]["findings"][0]["evidence"], "NVLink 2 of 4 down");
        agent.until_health(1, "healthy").await;
        agent.end().await;
    });
}

#[test]
fn overheating_and_its_throttling_are_seen_and_timed() {
    with(async {
        let mut script = h100s(1);
        let agent = Agent::start(&script, &[]).await;
        agent.until_health(0, "healthy").await;
        (script.gpus[0].temperature_celsius, script.gpus[0].throttle_bits) = (90, 0x40);
        agent.becomes(&script);
        assert_eq!(agent.until_health(0, "degraded").await, ["overheating"]);
        script.gpus[0].temperature_celsius = 92;
        agent.becomes(&script);
        assert_eq!(agent.until_health(0, "sick").await, ["shutdownTemperature", "overheating"]);
        let series =
            format!("tidegate_node_agent_gpu_throttled_seconds_total{{gpu=\"{}\",reason=\"hw_thermal\"}}", script.gpus[0].uuid);
        assert!(agent.value(&series).await.unwrap() > 0.0);
        agent.end().await;
    });
}

#[test]
fn a_mig_layout_that_changes_is_followed() {
    with(async {
        let instance = |n: u32, profile: &str| {
            serde_json::from_value(json!({
                "uuid": format!("MIG-{profile}-{n}"), "gpu_instance": n, "profile": profile, "memory_total_mib": 9_728, "sm_active": 0.5
            }))
            .unwrap()
        };
        let mut script = h100s(1);
        script.gpus[0].mig_enabled = true;
        script.gpus[0].instances = (7..14).map(|n| instance(n, "1g.10gb")).collect();
        let agent = Agent::start(&script, &[]).await;
        let seven = |gpus: &serde_json::Value| gpus["gpus"][0]["instances"].as_array().is_some_and(|all| all.len() == 7);
        agent.until("seven instances", seven).await;
        script.gpus[0].instances = vec![instance(1, "3g.40gb"), instance(2, "3g.40gb")];
        agent.becomes(&script);
        let two = |gpus: &serde_json::Value| gpus["gpus"][0]["instances"].as_array().is_some_and(|all| all.len() == 2);
        agent.until("two instances", two).await;
        let text = agent.metrics().await;
        assert!(text.contains("profile=\"3g.40gb\"") && !text.contains("1g.10gb"), "no series of what is gone");
        script.gpus[0].mig_enabled = false;
        agent.becomes(&script);
        agent.until("MIG off", |gpus| gpus["gpus"][0]["instances"].as_array().is_some_and(Vec::is_empty)).await;
        agent.end().await;
    });
}

#[test]
fn no_driver_is_a_fact_and_a_driver_that_comes_is_found() {
    with(async {
        let dir = TempDir::new().unwrap();
        let (library, script) = (dir.path().join("libnvidia-ml.so.1"), dir.path().join("libnvidia-ml.so.1.json"));
        let path = dir.path().to_owned();
        let agent = Agent::on(dir, &library, script, &[]).await;
        let gpus = agent.until("the reason", |gpus| gpus["closed"]["category"] == "no_library").await;
        assert!(gpus["closed"]["why"].as_str().unwrap().contains("install the driver"), "{gpus}");
        assert_eq!(agent.value("tidegate_node_agent_nvml_open{why=\"no_library\"}").await, Some(0.0));
        install(&path, &h100s(1)).unwrap();
        agent.until_health(0, "healthy").await;
        agent.end().await;
    });
}

#[test]
fn a_driver_without_gpus_and_one_that_is_unloaded_are_told_apart() {
    with(async {
        let agent = Agent::start(&Script::default(), &[]).await;
        agent.until("no devices", |gpus| gpus["closed"]["category"] == "no_devices").await;
        let mut script = h100s(1);
        agent.becomes(&script);
        agent.until_health(0, "healthy").await;
        script.errors.insert("*".into(), Code::DriverNotLoaded);
        agent.becomes(&script);
        agent.until("the driver to be gone", |gpus| gpus["closed"]["category"] == "driver_not_loaded").await;
        assert_eq!(agent.until_health(0, "lost").await, ["driverGone"]);
        script.errors.clear();
        agent.becomes(&script);
        agent.until_health(0, "healthy").await;
        agent.end().await;
    });
}

#[test]
fn an_old_card_says_what_it_can_and_nothing_is_zero_instead() {
    with(async {
        let mut script = Script::of(1, "Tesla M40", 11_448);
        script.gpus[0].era = nvml_fake::Era::Maxwell;
        (script.gpus[0].power_watts, script.gpus[0].utilization_percent) = (200.0, 50);
        let agent = Agent::start(&script, &[]).await;
        let has_energy =
            |gpus: &serde_json::Value| gpus["gpus"][0]["totals"]["energyJoules"].as_f64().is_some_and(|joules| joules > 20.0);
        let gpus = agent.until("sampled energy", has_energy).await;
        assert_eq!(gpus["gpus"][0]["totals"]["activitySource"], "resident");
        assert_eq!(gpus["gpus"][0]["reading"]["ecc"]["uncorrected"], "unsupported");
        let text = agent.metrics().await;
        assert!(text.contains("source=\"power\"") && text.contains("source=\"resident\""));
        for absent in ["ecc_errors_total", "remap_pending", "nvlink_bytes", "pcie_bytes", "tensor_active", "mig_enabled"] {
            assert!(!text.contains(&format!("tidegate_node_agent_gpu_{absent}")), "{absent}");
        }
        agent.end().await;
    });
}

#[test]
fn thousands_of_processes_are_read_and_bounded() {
    with(async {
        let mut script = h100s(1);
        let process = |pid| serde_json::from_value(json!({"pid": pid, "memory_mib": 1, "sm_percent": 1})).unwrap();
        script.gpus[0].processes = (1_000_000..1_009_000).map(process).collect();
        let agent = Agent::start(&script, &[]).await;
        let series = format!("tidegate_node_agent_gpu_processes{{gpu=\"{}\",kind=\"compute\"}}", script.gpus[0].uuid);
        agent.until("a reading", |gpus| !gpus["gpus"][0]["reading"].is_null()).await;
        assert_eq!(agent.value(&series).await, Some(8192.0));
        let gpus = agent.gpus().await.unwrap();
        assert_eq!(gpus["gpus"][0]["reading"]["processes"]["known"]["leftOut"], 808);
        agent.end().await;
    });
}
