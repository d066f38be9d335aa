//! `tidegate gpus` on machines with and without GPUs.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use nvml_fake::{Era, Script, install};
use serde_json::Value;

fn gpus(library: &Path, flags: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.arg("gpus").args(flags).env("TIDEGATE_NVML_LIBRARY", library).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_table_says_what_is_known_and_never_a_zero_instead() {
    let mut script = Script::of(2, "NVIDIA H100 80GB HBM3", 81_559);
    (script.gpus[0].sm_active, script.gpus[0].power_watts, script.gpus[0].remap_pending) = (0.5, 412.0, true);
    (script.gpus[1].era, script.gpus[1].utilization_percent) = (Era::Maxwell, 30);
    script.gpus[1].errors.insert("nvmlDeviceGetPowerUsage".into(), nvml_fake::Code::NotSupported);
    let dir = tempfile::tempdir().unwrap();
    let (library, _) = install(dir.path(), &script).unwrap();
    let text = gpus(&library, &[]);
    let rows: Vec<Vec<&str>> =
        text.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(rows[0][..4], ["GPU", "CLASS", "HEALTH", "BUSY"]);
    assert_eq!(rows[1][..7], ["0", "H100-80GB", "degraded", "50 %", "0/81559 MiB", "412 W", "35 °C"]);
    assert_eq!(rows[2][2..6], ["healthy", "30 % resident", "0/81559 MiB", "-"]);
    assert!(text.contains("GPU 0: a memory row waits for a reset"), "{text}");
    let json: Value = serde_json::from_str(&gpus(&library, &["--json"])).unwrap();
    assert_eq!(json["gpus"][1]["reading"]["power"]["drawMilliwatts"], "unsupported");
}

#[test]
fn a_machine_without_a_driver_is_told_why_and_what_to_do() {
    let text = gpus("/nonexistent/libnvidia-ml.so.1".as_ref(), &[]);
    assert!(text.starts_with("no GPU can be seen: load the NVIDIA driver library"), "{text}");
    let json: Value = serde_json::from_str(&gpus("/nonexistent/libnvidia-ml.so.1".as_ref(), &["--json"])).unwrap();
    assert_eq!((&json["closed"]["category"], &json["gpus"]), (&Value::from("no_library"), &Value::Array(vec![])));
}
