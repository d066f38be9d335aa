//! The script over time: which machine stands at a moment, and what its counters have come to by then.
//!
//! Rates are constant between changes, so that a counter is exact: the sum of rate times duration.

use serde_json::Value;

use crate::script::{Gpu, Script};

/// Counters of one GPU, each the integral of a rate of the script.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Integrals {
    /// Energy.
    pub joules: f64,
    /// PCIe bytes.
    pub pcie_tx: f64,
    /// PCIe bytes.
    pub pcie_rx: f64,
    /// NVLink bytes.
    pub nvlink_tx: f64,
    /// NVLink bytes.
    pub nvlink_rx: f64,
    /// Seconds.
    pub sm: f64,
    /// Seconds.
    pub tensor: f64,
    /// Seconds.
    pub dram: f64,
    /// Seconds.
    pub occupancy: f64,
}

/// A machine from a moment on.
#[derive(Clone, Debug)]
struct Phase {
    from_ms: u64,
    machine: Script,
}

/// A script with its changes worked out.
#[derive(Clone, Debug)]
pub struct Timeline {
    phases: Vec<Phase>,
}

impl Timeline {
    /// Works the changes out.
    ///
    /// # Errors
    /// Names the change whose fields make no machine.
    pub fn new(script: &Script) -> Result<Self, String> {
        let bare = Script { changes: Vec::new(), events: Vec::new(), clock_ms: None, ..script.clone() };
        let mut value = serde_json::to_value(&bare).map_err(|e| e.to_string())?;
        let mut phases = vec![Phase { from_ms: 0, machine: bare }];
        for (i, change) in script.changes.iter().enumerate() {
            let target = match change.gpu {
                None => Some(&mut value),
                Some(gpu) => value.get_mut("gpus").and_then(|gpus| gpus.get_mut(gpu)),
            };
            let fields =
                target.and_then(Value::as_object_mut).ok_or_else(|| format!("field changes[{i}].gpu: no such GPU then"))?;
            fields.extend(change.set.clone());
            let machine: Script = serde_path_to_error::deserialize(&value)
                .map_err(|e| format!("field changes[{i}].set, {}: {}", e.path(), e.inner()))?;
            phases.push(Phase { from_ms: change.at_ms, machine });
        }
        Ok(Self { phases })
    }

    /// The machine at a moment.
    pub fn at(&self, ms: u64) -> Option<&Script> {
        self.phases.iter().rev().find(|phase| phase.from_ms <= ms).map(|phase| &phase.machine)
    }

    /// What the counters of the GPU with this UUID count from the last driver load (or the beginning) until a moment.
    pub fn integrals(&self, uuid: &str, until_ms: u64) -> Integrals {
        self.sum(until_ms, |machine| machine.gpus.iter().find(|gpu| gpu.uuid == uuid).map(Integrals::of))
    }

    /// The same for a MIG instance; only the shares of time are counted.
    pub fn instance_integrals(&self, gpu: &str, gpu_instance: u32, until_ms: u64) -> Integrals {
        self.sum(until_ms, |machine| {
            let gpu = machine.gpus.iter().find(|found| found.uuid == gpu)?;
            let instance = gpu.instances.iter().find(|instance| instance.gpu_instance == gpu_instance)?;
            Some(Integrals {
                sm: instance.sm_active,
                tensor: instance.tensor_active,
                dram: instance.dram_active,
                occupancy: instance.sm_occupancy,
                ..Integrals::default()
            })
        })
    }

    fn sum(&self, until_ms: u64, rates: impl Fn(&Script) -> Option<Integrals>) -> Integrals {
        let mut total = Integrals::default();
        let mut load = None;
        let ends = self.phases.iter().skip(1).map(|phase| phase.from_ms).chain([u64::MAX]);
        for (phase, end) in self.phases.iter().zip(ends) {
            if phase.from_ms > until_ms {
                break;
            }
            if load.replace(phase.machine.driver_load).is_some_and(|before| before != phase.machine.driver_load) {
                total = Integrals::default();
            }
            let seconds = (end.min(until_ms).saturating_sub(phase.from_ms)) as f64 / 1000.0;
            if let Some(rates) = rates(&phase.machine) {
                total = total.plus(&rates, seconds);
            }
        }
        total
    }
}

impl Integrals {
    fn of(gpu: &Gpu) -> Self {
        Self {
            joules: gpu.power_watts,
            pcie_tx: gpu.pcie_tx_bytes_per_second,
            pcie_rx: gpu.pcie_rx_bytes_per_second,
            nvlink_tx: gpu.nvlink_tx_bytes_per_second,
            nvlink_rx: gpu.nvlink_rx_bytes_per_second,
            sm: gpu.sm_active,
            tensor: gpu.tensor_active,
            dram: gpu.dram_active,
            occupancy: gpu.sm_occupancy,
        }
    }

    /// This and `seconds` of those rates.
    #[must_use]
    pub fn plus(&self, rates: &Self, seconds: f64) -> Self {
        Self {
            joules: self.joules + rates.joules * seconds,
            pcie_tx: self.pcie_tx + rates.pcie_tx * seconds,
            pcie_rx: self.pcie_rx + rates.pcie_rx * seconds,
            nvlink_tx: self.nvlink_tx + rates.nvlink_tx * seconds,
            nvlink_rx: self.nvlink_rx + rates.nvlink_rx * seconds,
            sm: self.sm + rates.sm * seconds,
            tensor: self.tensor + rates.tensor * seconds,
            dram: self.dram + rates.dram * seconds,
            occupancy: self.occupancy + rates.occupancy * seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_counter_is_the_sum_of_rates_times_durations() {
        let mut script = Script::of(1, "X", 1024);
        script.gpus[0].power_watts = 100.0;
        script.change(2_000, Some(0), &json!({"power_watts": 300.0, "sm_active": 0.5}));
        let timeline = Timeline::new(&script).unwrap();
        let uuid = &script.gpus[0].uuid;
        let told = timeline.integrals(uuid, 5_000);
        assert!((told.joules - 1_100.0).abs() < 1e-9 && (told.sm - 1.5).abs() < 1e-9, "{told:?}");
        assert!(timeline.at(1_999).unwrap().gpus[0].sm_active < 0.1);
        assert!(timeline.at(2_000).unwrap().gpus[0].sm_active > 0.4);
    }

    #[test]
    fn a_driver_that_is_loaded_again_counts_from_zero() {
        let mut script = Script::of(1, "X", 1024);
        script.change(4_000, None, &json!({"driver_load": 1}));
        let timeline = Timeline::new(&script).unwrap();
        let told = timeline.integrals(&script.gpus[0].uuid, 5_000);
        assert!((told.joules - 70.0).abs() < 1e-9, "{told:?}");
    }

    #[test]
    fn a_change_that_makes_no_machine_is_named() {
        let mut script = Script::of(1, "X", 1024);
        script.change(1, Some(0), &json!({"temperature": 95}));
        let why = Timeline::new(&script).unwrap_err();
        assert!(why.starts_with("field changes[0].set, gpus[0]") && why.contains("temperature"), "{why}");
    }
}
