use std::collections::HashMap;

use nvml_fake::{Script, install};
use serde_json::json;
use tidegate_nvml::Inventory;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A GPU, and readings of it at the given seconds of the script's time.
fn readings(script: &Script, seconds: &[u64]) -> (Gpu, Vec<(Reading, Duration)>) {
    let (dir, mut script) = (tempfile::tempdir().unwrap(), script.clone());
    script.clock_ms = Some(0);
    let (library, path) = install(dir.path(), &script).unwrap();
    let inventory = Inventory::open(Some(&library)).unwrap();
    let mut handle = inventory.gpu(0).unwrap();
    let gpu = Gpu::new(handle.identity().clone());
    let mut read = |second: &u64| {
        script.clock_ms = Some(second * 1000);
        script.write(&path).unwrap();
        (handle.read().unwrap(), SECOND * u32::try_from(*second).unwrap())
    };
    let all = seconds.iter().map(&mut read).collect();
    (gpu, all)
}

fn observe(gpu: &mut Gpu, reading: (Reading, Duration)) {
    let now = Now { load: 1, at: reading.1, longest: SECOND * 5 };
    gpu.observe(reading.0, &HashMap::new(), &Owners::default(), now);
}

#[test]
fn a_gap_is_bridged_by_what_the_driver_counts_and_not_by_samples() {
    let mut script = Script::of(1, "NVIDIA H100 80GB HBM3", 81_559);
    (script.gpus[0].sm_active, script.gpus[0].utilization_percent, script.gpus[0].power_watts) = (0.5, 100, 100.0);
    let (mut gpu, all) = readings(&script, &[0, 1, 2, 62]);
    for reading in all {
        observe(&mut gpu, reading);
    }
    assert!((gpu.totals.busy.sm.get().unwrap() - 31.0).abs() < 1e-6, "samples of GPM chain");
    assert!((gpu.totals.resident.get().unwrap() - 2.0).abs() < 1e-6, "a sample stands for no minute");
    assert_eq!(gpu.totals.energy.get(), Some(6_200_000));
    assert!((gpu.totals.pace.unobserved - 60.0).abs() < 1e-6);
}

#[test]
fn xids_beyond_the_bound_are_counted_together() {
    let (mut gpu, _) = readings(&Script::of(1, "X", 1024), &[]);
    for xid in 1..=200 {
        let event = Event { gpu: None, kind: EventKind::Xid, data: xid, gpu_instance: None, compute_instance: None };
        gpu.event(&event, 1, SECOND);
    }
    assert_eq!(gpu.xids.len(), MOST_XIDS + 1);
    assert_eq!(gpu.xids[&0].count, 200 - MOST_XIDS as u64);
}

#[test]
fn throttling_is_seconds_by_reason() {
    let mut script = Script::of(1, "NVIDIA H100 80GB HBM3", 81_559);
    script.gpus[0].throttle_bits = 0x4 | 0x1;
    script.change(2_500, Some(0), &json!({"throttle_bits": 0}));
    let (mut gpu, all) = readings(&script, &[0, 1, 2, 3, 4]);
    for reading in all {
        observe(&mut gpu, reading);
    }
    let told: Vec<_> =
        REASONS.iter().zip(gpu.totals.throttled).map(|(reason, seconds)| (reason.word, seconds.get().unwrap())).collect();
    assert!(told.contains(&("sw_power_cap", 2.0)) && told.contains(&("hw_thermal", 0.0)), "{told:?}");
}
