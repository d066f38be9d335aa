//! Totals against the truth of the script, in virtual time: the script's clock is set by hand, and the agent's core is
//! given the same moments.

use std::collections::HashMap;
use std::time::Duration;

use nvml_fake::{Era, Script, Timeline, install};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;
use tidegate_node_agent::node::{Node, Times};
use tidegate_nvml::{GpuUuid, Inventory};

/// Reads the first GPU every `every_ms` of virtual time until `end_ms`, opening NVML anew when the driver went away.
fn play(script: &mut Script, every_ms: u64, end_ms: u64, mut seen: impl FnMut(&Node)) -> Node {
    let dir = TempDir::new().unwrap();
    script.clock_ms = Some(0);
    let (library, path) = install(dir.path(), script).unwrap();
    let times = Times { interval: Duration::from_millis(every_ms), call_timeout: Duration::from_secs(5) };
    let mut node = Node::new(times, 0.0);
    let uuid = GpuUuid::from(script.gpus[0].uuid.clone());
    let mut now_ms = 0;
    while now_ms <= end_ms {
        let inventory = Inventory::open(Some(&library)).unwrap();
        node.opened(inventory.driver(), inventory.topology().unwrap(), inventory.count().unwrap());
        let mut gpu = inventory.gpu(0).unwrap();
        node.introduce(gpu.identity());
        while now_ms <= end_ms {
            let reading = gpu.read();
            let broken = reading.as_ref().is_err_and(tidegate_nvml::Fault::is_of_the_driver);
            let reading = reading.map(|reading| (reading, HashMap::new()));
            node.observe(&uuid, reading, Duration::ZERO, Duration::from_millis(now_ms));
            seen(&node);
            if broken {
                node.renewed();
                break;
            }
            now_ms += every_ms;
            script.clock_ms = Some(now_ms);
            script.write(&path).unwrap();
        }
    }
    node
}

fn near(told: f64, truth: f64, allowed: f64) -> Result<(), TestCaseError> {
    prop_assert!((told - truth).abs() <= truth.abs() * 0.01 + allowed, "{told} is not {truth}");
    Ok(())
}

prop_compose! {
    /// Rates of one stretch of time.
    fn stretch()(sm in 0.0f64..=1.0, tensor in 0.0f64..=1.0, dram in 0.0f64..=1.0, watts in 50.0f64..700.0, percent in 0u32..=100, pcie in 0.0f64..5e10, nvlink in 0.0f64..4e11)
        -> serde_json::Value {
        json!({
            "sm_active": sm, "tensor_active": tensor, "dram_active": dram, "power_watts": watts, "utilization_percent": percent,
            "pcie_tx_bytes_per_second": pcie, "nvlink_rx_bytes_per_second": nvlink,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn energy_activity_and_bytes_are_those_of_the_script(stretches in prop::collection::vec((stretch(), 3u64..20), 1..6), every_ms in 200u64..1500) {
        let mut script = Script::of(1, "NVIDIA H100 80GB HBM3", 81_559);
        script.gpus[0].links = vec![nvml_fake::Link { peer: None, up: true, errors: 0 }];
        let mut at_ms = 0;
        for (set, seconds) in &stretches {
            script.change(at_ms, Some(0), set);
            at_ms += seconds * 1000;
        }
        // The readings end at a tick, and so does the truth.
        let end_ms = at_ms / every_ms * every_ms;
        let (mut last_active, mut last_energy) = (0.0, 0);
        let mut went_back = false;
        let node = play(&mut script, every_ms, end_ms, |node| {
            let gpu = node.gpus.values().next().unwrap();
            let (active, energy) = (gpu.active_seconds().unwrap_or(0.0), gpu.totals.energy.get().unwrap_or(0));
            // From the first sample on it is measured, so the kind may change once, at the beginning.
            went_back |= active + 1e-9 < last_active || energy < last_energy;
            (last_active, last_energy) = (active, energy);
        });
        prop_assert!(!went_back);
        let totals = &node.gpus.values().next().unwrap().totals;
        let truth = Timeline::new(&script).unwrap().integrals(&script.gpus[0].uuid, end_ms);
        near(totals.energy.get().unwrap() as f64 / 1000.0, truth.joules, 0.01)?;
        near(totals.busy.sm.get().unwrap(), truth.sm, 0.001)?;
        near(totals.busy.tensor.get().unwrap(), truth.tensor, 0.001)?;
        near(totals.busy.memory_bandwidth.get().unwrap(), truth.dram, 0.001)?;
        near(totals.pcie_tx.get().unwrap() as f64, truth.pcie_tx, 1.0)?;
        near(totals.nvlink_rx.get().unwrap() as f64, truth.nvlink_rx, 2048.0)?;
    }

    #[test]
    fn without_counters_sampled_energy_is_right_but_for_the_steps_in_which_it_changed(stretches in prop::collection::vec((stretch(), 20u64..60), 1..4)) {
        let mut script = Script::of(1, "Tesla M40", 11_448);
        script.gpus[0].era = Era::Maxwell;
        let mut at_ms = 0;
        for (set, seconds) in &stretches {
            script.change(at_ms, Some(0), set);
            at_ms += seconds * 1000;
        }
        let node = play(&mut script, 1000, at_ms, |_| {});
        let totals = &node.gpus.values().next().unwrap().totals;
        let truth = Timeline::new(&script).unwrap().integrals(&script.gpus[0].uuid, at_ms);
        // One step a change may be counted at the new rate instead of the old.
        let changes = stretches.len() as f64;
        near(totals.sampled_joules.unwrap(), truth.joules, changes * 700.0)?;
        let resident: f64 = stretches.iter().map(|(set, seconds)| set["utilization_percent"].as_f64().unwrap() / 100.0 * *seconds as f64).sum();
        near(totals.resident.get().unwrap(), resident, changes)?;
    }
}

#[test]
fn a_driver_that_is_loaded_anew_adds_to_the_energy_of_the_old_one() {
    let mut script = Script::of(1, "NVIDIA H100 80GB HBM3", 81_559);
    script.gpus[0].power_watts = 500.0;
    script.change(10_000, None, &json!({"driver_load": 1}));
    let node = play(&mut script, 1000, 20_000, |_| {});
    let gpu = node.gpus.values().next().unwrap();
    let joules = gpu.totals.energy.get().unwrap() / 1000;
    // The second before the driver went away was counted by nobody.
    assert!((9_500..=10_000).contains(&joules), "{joules}");
    assert_eq!(gpu.health.state(), tidegate_node_agent::health::State::Healthy);
}

#[test]
fn the_users_of_a_gpu_and_nobody_add_up_to_its_busy_time() {
    let mut script = Script::of(1, "NVIDIA H100 80GB HBM3", 81_559);
    script.gpus[0].sm_active = 0.8;
    let process =
        |pid: u32, percent: u32| serde_json::from_value(json!({"pid": pid, "memory_mib": 10, "sm_percent": percent})).unwrap();
    script.gpus[0].processes = vec![process(11, 30), process(12, 10)];
    let gone = json!({"processes": []});
    script.change(5_000, Some(0), &gone);
    let node = play(&mut script, 500, 10_000, |node| {
        let gpu = node.gpus.values().next().unwrap();
        let users: f64 = gpu.usage.users.values().map(|user| user.active).sum();
        let all = gpu.totals.busy.sm.get().unwrap_or(0.0);
        assert!((users + gpu.usage.unattributed - all).abs() < 1e-6, "{users} + {} is not {all}", gpu.usage.unattributed);
    });
    assert!((node.gpus.values().next().unwrap().usage.unattributed - 8.0).abs() < 0.1);
}
