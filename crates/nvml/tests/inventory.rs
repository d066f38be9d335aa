//! The inventory against a library that speaks NVML's C interface, loaded as the real one is.

#![expect(clippy::unwrap_used, reason = "tests")]

use nvml_fake::{Code, Script, install};
use tempfile::TempDir;
use tidegate_nvml::{ComputeMode, Error, Fact, Fault, Inventory};

const GIB: u64 = 1 << 30;

fn open(script: &Script) -> (TempDir, Result<Inventory, Error>) {
    let dir = TempDir::new().unwrap();
    let (library, _) = install(dir.path(), script).unwrap();
    let inventory = Inventory::open(Some(&library));
    (dir, inventory)
}

fn failing(function: &str, code: Code) -> Script {
    let mut script = Script::of(1, "NVIDIA L4", 23_034);
    script.errors.insert(function.to_owned(), code);
    script
}

#[test]
fn every_fact_of_a_gpu_is_read() {
    let mut script = Script::of(2, "NVIDIA H100 80GB HBM3", 80 << 10);
    script.gpus[1].memory_used_mib = 10 << 10;
    script.gpus[1].utilization_percent = 37;
    script.gpus[1].compute_mode = 3;
    let (_dir, inventory) = open(&script);
    let devices = inventory.unwrap().devices().unwrap();
    assert_eq!(devices.len(), 2);
    let gpu = &devices[1];
    assert_eq!(gpu.index, 1);
    assert_eq!(gpu.uuid.known().unwrap().as_str(), "GPU-00000001-fa4e-4000-8000-000000000000");
    assert_eq!(gpu.name, Fact::Known("NVIDIA H100 80GB HBM3".to_owned()));
    assert_eq!(gpu.memory_total_bytes, Fact::Known(80 * GIB));
    assert_eq!(gpu.memory_used_bytes, Fact::Known(10 * GIB));
    assert_eq!(gpu.utilization_permille, Fact::Known(370));
    assert_eq!(gpu.pci_bus_id, Fact::Known("0000:02:00.0".to_owned()));
    assert_eq!(gpu.compute_mode, Fact::Known(ComputeMode::ExclusiveProcess));
    assert_eq!(gpu.class().unwrap(), "H100-80GB");
}

#[test]
fn what_a_gpu_does_not_offer_is_not_zero() {
    let mut script = Script::of(1, "NVIDIA GB10", 0);
    script.gpus[0].errors.insert("nvmlDeviceGetUtilizationRates".to_owned(), Code::NotSupported);
    script.gpus[0].errors.insert("nvmlDeviceGetMemoryInfo_v2".to_owned(), Code::NotSupported);
    let (_dir, inventory) = open(&script);
    let gpu = inventory.unwrap().devices().unwrap().remove(0);
    assert_eq!(gpu.utilization_permille, Fact::Unsupported);
    assert_eq!(gpu.memory_total_bytes, Fact::Unsupported);
    assert_eq!(gpu.memory_used_bytes, Fact::Unsupported);
    assert_eq!(gpu.class().unwrap(), "GB10", "the size is not known, so the class does not say one");
}

#[test]
fn the_facts_follow_the_machine() {
    let mut script = Script::of(2, "NVIDIA L4", 23_034);
    let dir = TempDir::new().unwrap();
    let (library, path) = install(dir.path(), &script).unwrap();
    let inventory = Inventory::open(Some(&library)).unwrap();
    assert_eq!(inventory.devices().unwrap()[0].utilization_permille, Fact::Known(0));

    script.gpus[0].utilization_percent = 90;
    script.gpus[1].errors.insert("nvmlDeviceGetHandleByIndex_v2".to_owned(), Code::GpuIsLost);
    script.write(&path).unwrap();
    let devices = inventory.devices().unwrap();
    assert_eq!(devices[0].utilization_permille, Fact::Known(900));
    assert_eq!(devices[1].uuid, Fact::Failed(Fault::Lost), "a lost GPU stays in the list");
    assert_eq!(devices[1].class(), None);
}

#[test]
fn each_reason_for_having_no_gpus_is_told_apart() {
    let cases = [
        (failing("nvmlInit_v2", Code::DriverNotLoaded), "driver_not_loaded"),
        (failing("nvmlInit_v2", Code::LibRmVersionMismatch), "version_mismatch"),
        (failing("nvmlInit_v2", Code::NoPermission), "no_permission"),
        (failing("nvmlInit_v2", Code::Unknown), "driver"),
        (failing("nvmlDeviceGetCount_v2", Code::NoPermission), "no_permission"),
        (Script::default(), "no_devices"),
    ];
    for (script, category) in cases {
        let (_dir, inventory) = open(&script);
        assert_eq!(inventory.unwrap_err().category(), category, "{script:?}");
    }
}

#[test]
fn a_driver_that_is_upgraded_under_an_open_inventory_is_an_error_not_an_empty_list() {
    let mut script = Script::of(1, "NVIDIA L4", 23_034);
    let dir = TempDir::new().unwrap();
    let (library, path) = install(dir.path(), &script).unwrap();
    let inventory = Inventory::open(Some(&library)).unwrap();
    script.errors.insert("nvmlDeviceGetCount_v2".to_owned(), Code::LibRmVersionMismatch);
    script.write(&path).unwrap();
    assert!(matches!(inventory.devices(), Err(Error::VersionMismatch)));
}

#[test]
fn a_file_that_is_no_library_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("libnvidia-ml.so.1");
    std::fs::write(&path, "not a library").unwrap();
    assert_eq!(Inventory::open(Some(&path)).unwrap_err().category(), "no_library");
}

#[test]
fn a_library_of_something_else_is_not_taken_for_nvml() {
    let error = Inventory::open(Some("libc.so.6".as_ref())).unwrap_err();
    assert_eq!(error.to_string(), "libc.so.6 is not an NVML library: it has no nvmlInit_v2");
}
