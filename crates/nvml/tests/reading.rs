//! Everything that is asked of a GPU while it runs, against the fake library.

#![expect(clippy::unwrap_used, reason = "tests")]

use nvml_fake::{Code, Era, Gpu, Instance, Link, Process, ProcessKind, Script, install};
use serde_json::json;
use tempfile::TempDir;
use tidegate_nvml::ProcessKind as Kind;
use tidegate_nvml::{EventKind, Fact, Fault, Inventory, PcieError, Reach, Reading};

const GIB: u64 = 1 << 30;

struct Machine {
    script: Script,
    path: std::path::PathBuf,
    library: std::path::PathBuf,
    _dir: TempDir,
}

impl Machine {
    /// Its clock stands at 10 s.
    fn new(mut script: Script) -> Self {
        let dir = TempDir::new().unwrap();
        script.clock_ms = Some(10_000);
        let (library, path) = install(dir.path(), &script).unwrap();
        Self { script, path, library, _dir: dir }
    }

    fn open(&self) -> Inventory {
        Inventory::open(Some(&self.library)).unwrap()
    }

    fn at(&mut self, seconds: u64) {
        self.script.clock_ms = Some(seconds * 1000);
        self.script.write(&self.path).unwrap();
    }
}

fn h100() -> Script {
    Script::of(1, "NVIDIA H100 80GB HBM3", 81_559)
}

fn read(script: Script) -> Reading {
    let machine = Machine::new(script);
    let inventory = machine.open();
    inventory.gpu(0).unwrap().read().unwrap()
}

#[test]
fn every_number_has_its_unit() {
    let mut script = h100();
    let gpu = &mut script.gpus[0];
    (gpu.power_watts, gpu.power_limit_watts, gpu.sm_clock_mhz, gpu.memory_clock_mhz) = (500.0, 650.0, 1755, 2619);
    (gpu.temperature_celsius, gpu.memory_temperature_celsius, gpu.throttle_bits) = (61, 70, 0x24);
    (gpu.ecc_corrected, gpu.ecc_uncorrected, gpu.remapped_uncorrected, gpu.remap_pending) = (5, 1, 2, true);
    (gpu.pcie_tx_bytes_per_second, gpu.nvlink_rx_bytes_per_second, gpu.pcie_replays) = (1e9, 2e9, 3);
    gpu.pcie_errors = [(173, 7), (180, 1)].into();
    gpu.links = vec![Link { peer: None, up: true, errors: 4 }, Link { peer: None, up: false, errors: 0 }];
    (gpu.utilization_percent, gpu.memory_utilization_percent, gpu.recovery_action) = (80, 30, 1);
    let reading = read(script);
    assert_eq!(reading.power.draw_milliwatts, Fact::Known(500_000));
    assert_eq!(reading.power.limit_milliwatts, Fact::Known(650_000));
    assert_eq!(reading.power.energy_millijoules, Fact::Known(5_000_000), "ten seconds");
    assert_eq!((reading.clocks.sm_mhz, reading.clocks.memory_mhz), (Fact::Known(1755), Fact::Known(2619)));
    assert_eq!(reading.clocks.performance_state, Fact::Known(0));
    assert_eq!(reading.temperatures.memory_celsius, Fact::Known(70));
    assert_eq!(reading.throttle.known().unwrap().bits, 0x24);
    assert_eq!((reading.ecc.corrected, reading.ecc.uncorrected), (Fact::Known(5), Fact::Known(1)));
    let rows = *reading.remapped_rows.known().unwrap();
    assert_eq!((rows.uncorrected, rows.pending, rows.failed), (2, true, false));
    assert_eq!(reading.pcie.tx_bytes, Fact::Known(10_000_000_000));
    assert_eq!(reading.pcie.replays, Fact::Known(3));
    let errors = |kind| reading.pcie.errors.iter().find(|errors| errors.kind == kind).unwrap().count.clone();
    let told = [PcieError::Correctable, PcieError::Fatal, PcieError::Lane].map(errors);
    assert_eq!(told, [Fact::Known(7), Fact::Known(1), Fact::Known(0)]);
    assert_eq!(reading.nvlink.rx_bytes, Fact::Known(20_000_000_000 / 1024 * 1024), "the driver counts KiB");
    let up: Vec<_> = reading.nvlink.links.iter().map(|link| (link.up.clone(), link.errors.clone())).collect();
    assert_eq!(up, [(Fact::Known(true), Fact::Known(12)), (Fact::Known(false), Fact::Known(0))]);
    let utilization = reading.utilization.known().unwrap();
    assert_eq!((utilization.resident_permille, utilization.memory_permille), (800, 300));
    assert_eq!(reading.recovery_action, Fact::Known(1));
    assert_eq!(reading.activity, None, "a chain of samples needs a beginning");
}

#[test]
fn what_was_busy_is_measured_between_readings_and_none_of_it_is_missed() {
    let mut script = h100();
    (script.gpus[0].sm_active, script.gpus[0].dram_active) = (0.5, 0.25);
    script.change(12_000, Some(0), &json!({"sm_active": 1.0}));
    let mut machine = Machine::new(script);
    let inventory = machine.open();
    let mut gpu = inventory.gpu(0).unwrap();
    gpu.read().unwrap();
    machine.at(14);
    let activity = gpu.read().unwrap().activity.unwrap();
    assert!((activity.sm.known().unwrap() - 0.75).abs() < 1e-9, "{activity:?}");
    assert!((activity.memory_bandwidth.known().unwrap() - 0.25).abs() < 1e-9);
    assert_eq!(activity.tensor, Fact::Known(0.0));
}

#[test]
fn an_old_card_answers_unsupported_and_not_zero() {
    let mut script = Script::of(1, "Tesla M40", 11_448);
    script.gpus[0].era = Era::Maxwell;
    let reading = read(script);
    assert_eq!(reading.power.energy_millijoules, Fact::Unsupported);
    assert_eq!(reading.power.draw_milliwatts, Fact::Known(70_000));
    assert_eq!(reading.activity.unwrap().sm, Fact::Unsupported);
    assert_eq!((reading.ecc.uncorrected, reading.remapped_rows), (Fact::Unsupported, Fact::Unsupported));
    assert_eq!((reading.pcie.tx_bytes, reading.nvlink.tx_bytes), (Fact::Unsupported, Fact::Unsupported));
    assert_eq!((reading.modes.mig, reading.recovery_action), (Fact::Unsupported, Fact::Unsupported));
    assert!(reading.pcie.errors.iter().all(|errors| errors.count == Fact::Unsupported));
    assert!(reading.nvlink.links.is_empty());
}

#[test]
fn one_question_that_fails_leaves_the_others() {
    let mut script = h100();
    script.gpus[0].errors.insert("nvmlDeviceGetPowerUsage".to_owned(), Code::NoPermission);
    script.gpus[0].errors.insert("nvmlDeviceGetFieldValues".to_owned(), Code::Unknown);
    let reading = read(script);
    assert_eq!(reading.power.draw_milliwatts, Fact::Failed(Fault::NoPermission));
    assert!(matches!(reading.remapped_rows, Fact::Failed(Fault::Other(_))));
    assert!(reading.pcie.errors.iter().all(|errors| matches!(errors.count, Fact::Failed(Fault::Other(_)))));
    assert_eq!(reading.temperatures.gpu_celsius, Fact::Known(35));
}

#[test]
fn a_lost_gpu_and_a_driver_that_went_away_are_faults_as_a_whole() {
    let mut machine = Machine::new(h100());
    let inventory = machine.open();
    let mut gpu = inventory.gpu(0).unwrap();
    machine.script.gpus[0].lost = true;
    machine.at(11);
    assert_eq!(gpu.read().unwrap_err(), Fault::Lost);
    (machine.script.gpus[0].lost, machine.script.driver_load) = (false, 1);
    machine.at(12);
    let fault = gpu.read().unwrap_err();
    assert!(fault == Fault::DriverGone && fault.is_of_the_driver());
    drop(gpu);
    drop(inventory);
    assert!(machine.open().gpu(0).unwrap().read().is_ok(), "opened again it answers");
}

#[test]
fn processes_of_all_kinds_are_listed_once_with_what_each_computed() {
    let process = |pid: u32, kind: ProcessKind, sm_percent: u32| Process {
        pid,
        memory_mib: Some(1024),
        sm_percent,
        kind,
        gpu_instance: None,
        compute_instance: None,
    };
    let mut script = h100();
    script.gpus[0].processes = vec![
        process(1, ProcessKind::Compute, 40),
        process(2, ProcessKind::Graphics, 0),
        process(3, ProcessKind::Mps, 20),
        Process { memory_mib: None, ..process(4, ProcessKind::Compute, 0) },
    ];
    let reading = read(script);
    let processes = &reading.processes.known().unwrap().list;
    let told: Vec<_> = processes.iter().map(|p| (p.pid, p.kind, p.sm.clone())).collect();
    let known = Fact::Known;
    let expected = [
        (1, Kind::Compute, known(0.4)),
        (2, Kind::Graphics, known(0.0)),
        (3, Kind::Mps, known(0.2)),
        (4, Kind::Compute, known(0.0)),
    ];
    assert_eq!(told, expected);
    assert_eq!((&processes[0].memory_bytes, &processes[3].memory_bytes), (&Fact::Known(GIB), &Fact::Unsupported));
}

#[test]
fn mig_instances_are_devices_of_their_own() {
    let mut script = h100();
    script.gpus[0].mig_enabled = true;
    let instance = |n: u32| -> Instance {
        let told = json!({"uuid": format!("MIG-{n}"), "gpu_instance": n, "profile": "1g.10gb", "memory_total_mib": 9_728, "sm_active": 0.5});
        serde_json::from_value(told).unwrap()
    };
    script.gpus[0].instances = vec![instance(7), instance(9)];
    let mut machine = Machine::new(script);
    let inventory = machine.open();
    let mut gpu = inventory.gpu(0).unwrap();
    gpu.read().unwrap();
    machine.at(12);
    let reading = gpu.read().unwrap();
    assert_eq!(reading.utilization, Fact::Unsupported, "the driver gives none while MIG is on");
    let instances = reading.instances.known().unwrap();
    assert_eq!(instances.len(), 2);
    assert_eq!((instances[1].uuid.as_str(), instances[1].gpu_instance), ("MIG-9", 9));
    assert_eq!((&instances[0].profile, &instances[0].slices), (&Fact::Known("1g.10gb".to_owned()), &Fact::Known(1)));
    assert!((instances[0].activity.as_ref().unwrap().sm.known().unwrap() - 0.5).abs() < 1e-9);
    machine.script.gpus[0].instances = vec![instance(9)];
    machine.at(13);
    assert_eq!(gpu.read().unwrap().instances.known().unwrap().len(), 1);
}

#[test]
fn xids_come_by_the_queue_each_once_with_their_instance() {
    let mut script = Script::of(2, "NVIDIA H100 80GB HBM3", 81_559);
    script.xid(20_000, 1, 79);
    script.xid(20_000, 1, 13);
    script.events[1].gpu_instance = Some(3);
    script.gpus[0].errors.insert("nvmlDeviceRegisterEvents".to_owned(), Code::NotSupported);
    let mut machine = Machine::new(script);
    let inventory = machine.open();
    let watch = inventory.watch().unwrap();
    assert_eq!(watch.deaf().len(), 1, "one GPU without events leaves the others heard");
    assert_eq!(watch.next(0).unwrap(), None);
    machine.at(20);
    let first = watch.next(1000).unwrap().unwrap();
    assert_eq!((first.kind, first.data, first.gpu_instance), (EventKind::Xid, 79, None));
    assert_eq!(first.gpu.unwrap().as_str(), machine.script.gpus[1].uuid);
    let second = watch.next(1000).unwrap().unwrap();
    assert_eq!((second.data, second.gpu_instance), (13, Some(3)));
    assert_eq!(watch.next(0).unwrap(), None);
}

#[test]
fn the_topology_counts_links_and_places_gpus_in_the_tree() {
    let mut script = Script::of(3, "NVIDIA H100 80GB HBM3", 81_559);
    let to = |peer: Option<usize>, count: usize| vec![Link { peer, up: true, errors: 0 }; count];
    script.gpus[0].links = [to(Some(1), 2), to(None, 3)].concat();
    script.gpus[1].links = [to(Some(0), 2), to(None, 1)].concat();
    script.gpus[2].numa_node = 1;
    let machine = Machine::new(script);
    let topology = machine.open().topology().unwrap();
    let paths: Vec<_> = topology.paths.iter().map(|path| (path.nvlinks, path.pcie.clone())).collect();
    let (near, far) = (Fact::Known(Reach::HostBridge), Fact::Known(Reach::System));
    assert_eq!(paths, [(2, near), (0, far.clone()), (0, far)]);
    assert_eq!(topology.gpus.iter().map(|gpu| gpu.switch_links).collect::<Vec<_>>(), [3, 1, 0]);
}

#[test]
fn identity_and_versions_are_read_once() {
    let machine = Machine::new(h100());
    let inventory = machine.open();
    let gpu = inventory.gpu(0).unwrap();
    let identity = gpu.identity();
    assert_eq!((identity.class().unwrap().as_str(), &identity.architecture), ("H100-80GB", &Fact::Known("Hopper".to_owned())));
    assert_eq!((&identity.slowdown_celsius, &identity.shutdown_celsius), (&Fact::Known(89), &Fact::Known(92)));
    assert_eq!(identity.serial.known().unwrap(), &Gpu::numbered(0, "", 0).serial);
    assert_eq!(inventory.driver().cuda, Fact::Known("12.8".to_owned()));
}
