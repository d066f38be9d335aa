//! Which questions a GPU did not answer, and the words of small enumerations.

use std::collections::BTreeMap;

use tidegate_nvml::{ComputeMode, Fact, ProcessKind, Reading};

/// For labels.
pub fn compute(mode: ComputeMode) -> &'static str {
    match mode {
        ComputeMode::Shared => "shared",
        ComputeMode::ExclusiveProcess => "exclusive_process",
        ComputeMode::Prohibited => "prohibited",
    }
}

/// For labels.
pub fn process_kind(kind: ProcessKind) -> &'static str {
    match kind {
        ProcessKind::Compute => "compute",
        ProcessKind::Mps => "mps",
        ProcessKind::Graphics => "graphics",
    }
}

/// How many questions were not answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub unsupported: usize,
    /// By category of the fault.
    pub failed: BTreeMap<&'static str, usize>,
}

/// A question's name and, if it was not answered, why: nothing for "not supported", else the fault's category.
type Silence = (&'static str, Option<&'static str>);

/// Counts them.
pub fn answers(reading: &Reading) -> Answers {
    let mut answers = Answers::default();
    for (_, why) in silent(reading) {
        match why {
            None => answers.unsupported += 1,
            Some(category) => *answers.failed.entry(category).or_default() += 1,
        }
    }
    answers
}

/// The questions that were not answered.
pub fn silent(reading: &Reading) -> Vec<Silence> {
    fn why<T>(name: &'static str, fact: &Fact<T>) -> Option<Silence> {
        match fact {
            Fact::Known(_) => None,
            Fact::Unsupported => Some((name, None)),
            Fact::Failed(fault) => Some((name, Some(fault.category()))),
        }
    }
    let activity = reading.activity.as_ref();
    [
        why("memory", &reading.memory),
        why("utilisation", &reading.utilization),
        activity.and_then(|activity| why("SM activity", &activity.sm)),
        activity.and_then(|activity| why("tensor activity", &activity.tensor)),
        activity.and_then(|activity| why("memory bandwidth", &activity.memory_bandwidth)),
        why("power", &reading.power.draw_milliwatts),
        why("power limit", &reading.power.limit_milliwatts),
        why("energy", &reading.power.energy_millijoules),
        why("SM clock", &reading.clocks.sm_mhz),
        why("memory clock", &reading.clocks.memory_mhz),
        why("performance state", &reading.clocks.performance_state),
        why("throttle reasons", &reading.throttle),
        why("temperature", &reading.temperatures.gpu_celsius),
        why("memory temperature", &reading.temperatures.memory_celsius),
        why("ECC mode", &reading.ecc.enabled),
        why("ECC errors", &reading.ecc.uncorrected),
        why("remapped rows", &reading.remapped_rows),
        why("retired pages", &reading.retirement_pending),
        why("recovery action", &reading.recovery_action),
        why("PCIe bytes", &reading.pcie.tx_bytes),
        why("PCIe replays", &reading.pcie.replays),
        reading.pcie.errors.iter().find_map(|errors| why("PCIe errors", &errors.count)),
        why("PCIe link", &reading.pcie.generation),
        why("NVLink bytes", &reading.nvlink.tx_bytes),
        why("compute mode", &reading.modes.compute),
        why("persistence mode", &reading.modes.persistence),
        why("MIG mode", &reading.modes.mig),
        why("MIG instances", &reading.instances),
        why("processes", &reading.processes),
    ]
    .into_iter()
    .flatten()
    .collect()
}
