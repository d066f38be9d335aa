//! One GPU of the script. Rates (`power_watts`, `sm_active`, bytes a second) are integrated into NVML's counters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Code;

/// One GPU.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a device")]
pub struct Gpu {
    /// `GPU-…`.
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// What its silicon can tell; older ones answer *not supported* to more.
    #[serde(default)]
    pub era: Era,
    /// Board serial number.
    #[serde(default = "serial")]
    pub serial: String,
    /// Number of its device file.
    #[serde(default)]
    pub minor: u32,
    /// Memory in MiB.
    pub memory_total_mib: u64,
    /// Held by processes, in MiB.
    #[serde(default)]
    pub memory_used_mib: u64,
    /// Kernel residency in percent.
    #[serde(default)]
    pub utilization_percent: u32,
    /// Time that memory was read or written, in percent.
    #[serde(default)]
    pub memory_utilization_percent: u32,
    /// Share of its multiprocessors with a warp, from 0 to 1.
    #[serde(default)]
    pub sm_active: f64,
    /// Share of the time its tensor cores computed.
    #[serde(default)]
    pub tensor_active: f64,
    /// Share of its memory bandwidth in use.
    #[serde(default)]
    pub dram_active: f64,
    /// Share of the warps that it could hold.
    #[serde(default)]
    pub sm_occupancy: f64,
    /// Drawn power.
    #[serde(default = "idle_watts")]
    pub power_watts: f64,
    /// The power limit in force.
    #[serde(default = "limit_watts")]
    pub power_limit_watts: f64,
    /// Of the multiprocessors.
    #[serde(default = "clock")]
    pub sm_clock_mhz: u32,
    /// Of the memory.
    #[serde(default = "clock")]
    pub memory_clock_mhz: u32,
    /// NVML's bits of reasons for lower clocks.
    #[serde(default)]
    pub throttle_bits: u64,
    /// Of the chip.
    #[serde(default = "temperature")]
    pub temperature_celsius: u32,
    /// Of the memory.
    #[serde(default = "temperature")]
    pub memory_temperature_celsius: u32,
    /// Memory errors that ECC corrected, since the driver was loaded.
    #[serde(default)]
    pub ecc_corrected: u64,
    /// Memory errors that ECC could not correct, since the driver was loaded.
    #[serde(default)]
    pub ecc_uncorrected: u64,
    /// Rows replaced after correctable errors.
    #[serde(default)]
    pub remapped_corrected: u32,
    /// Rows replaced after uncorrectable errors.
    #[serde(default)]
    pub remapped_uncorrected: u32,
    /// A row waits for a reset to be replaced.
    #[serde(default)]
    pub remap_pending: bool,
    /// A row could not be replaced.
    #[serde(default)]
    pub remap_failed: bool,
    /// Pages are retired at the next reset (before Ampere).
    #[serde(default)]
    pub retirement_pending: bool,
    /// The driver's own verdict, `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`: 0 none, 1 reset, 2 reboot, ...
    #[serde(default)]
    pub recovery_action: u32,
    /// Bytes a second to the host.
    #[serde(default)]
    pub pcie_tx_bytes_per_second: f64,
    /// Bytes a second from the host.
    #[serde(default)]
    pub pcie_rx_bytes_per_second: f64,
    /// Repeated transfers.
    #[serde(default)]
    pub pcie_replays: u32,
    /// PCIe errors by number of NVML's field, 173 to 183; none of those that are not named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pcie_errors: BTreeMap<u32, u32>,
    /// Bytes a second to other GPUs, all links together.
    #[serde(default)]
    pub nvlink_tx_bytes_per_second: f64,
    /// Bytes a second from other GPUs, all links together.
    #[serde(default)]
    pub nvlink_rx_bytes_per_second: f64,
    /// Its links by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// NUMA node of its host memory.
    #[serde(default)]
    pub numa_node: u32,
    /// PCI address with the eight-digit domain that NVML writes.
    #[serde(default = "pci_bus_id")]
    pub pci_bus_id: String,
    /// NVML's number: 0 shared, 2 prohibited, 3 exclusive process.
    #[serde(default)]
    pub compute_mode: u32,
    /// The driver stays loaded without clients.
    #[serde(default)]
    pub persistence: bool,
    /// MIG is on.
    #[serde(default)]
    pub mig_enabled: bool,
    /// Its MIG instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
    /// What runs on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<Process>,
    /// Fell off the bus: every function says so.
    #[serde(default)]
    pub lost: bool,
    /// Functions that do not return as long as they are named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hang: Vec<String>,
    /// Functions that fail for this GPU, by C name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, Code>,
}

/// Which generation of silicon answers.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "NVIDIA's names")]
pub enum Era {
    Maxwell,
    Turing,
    Ampere,
    #[default]
    Hopper,
}

/// One NVLink.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Index of the GPU at its other end; absent: an NVSwitch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<usize>,
    /// It is up.
    #[serde(default = "yes")]
    pub up: bool,
    /// Replays, recoveries and CRC errors, each this many.
    #[serde(default)]
    pub errors: u64,
}

/// One MIG device: a compute instance in a GPU instance.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// `MIG-…`.
    pub uuid: String,
    /// Number of its GPU instance.
    pub gpu_instance: u32,
    /// Number of its compute instance.
    #[serde(default)]
    pub compute_instance: u32,
    /// For instance `1g.10gb`.
    pub profile: String,
    /// Compute slices.
    #[serde(default = "one")]
    pub slices: u32,
    /// Memory in MiB.
    pub memory_total_mib: u64,
    /// Held by processes, in MiB.
    #[serde(default)]
    pub memory_used_mib: u64,
    /// As of a GPU.
    #[serde(default)]
    pub sm_active: f64,
    /// As of a GPU.
    #[serde(default)]
    pub tensor_active: f64,
    /// As of a GPU.
    #[serde(default)]
    pub dram_active: f64,
    /// As of a GPU.
    #[serde(default)]
    pub sm_occupancy: f64,
}

/// A process with a context on the GPU.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Memory that it holds, in MiB; absent: the driver does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Multiprocessor time in percent.
    #[serde(default)]
    pub sm_percent: u32,
    /// What kind of context.
    #[serde(default)]
    pub kind: ProcessKind,
    /// Its MIG instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_instance: Option<u32>,
    /// Its MIG instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_instance: Option<u32>,
}

/// In which of NVML's lists a process is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "NVML's names")]
pub enum ProcessKind {
    #[default]
    Compute,
    Graphics,
    Mps,
}

impl Gpu {
    /// An idle GPU whose identity follows from its number.
    pub fn numbered(number: u32, name: &str, memory_total_mib: u64) -> Self {
        let told = serde_json::json!({
            "uuid": format!("GPU-{number:08x}-fa4e-4000-8000-000000000000"),
            "name": name,
            "memory_total_mib": memory_total_mib,
            "minor": number,
            "serial": format!("{:013}", 1_320_000_000_000_u64 + u64::from(number)),
            "pci_bus_id": format!("00000000:{:02X}:00.0", number + 1),
        });
        // The other fields have defaults, and these are of the right types.
        serde_json::from_value(told).unwrap_or_else(|_| unreachable!("every field is given or has a default"))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let shares = [
            ("sm_active", self.sm_active),
            ("tensor_active", self.tensor_active),
            ("dram_active", self.dram_active),
            ("sm_occupancy", self.sm_occupancy),
        ];
        if let Some((field, value)) = shares.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return Err(format!("{field}: {value} is not a share from 0 to 1"));
        }
        let rates = [
            ("power_watts", self.power_watts),
            ("pcie_tx_bytes_per_second", self.pcie_tx_bytes_per_second),
            ("pcie_rx_bytes_per_second", self.pcie_rx_bytes_per_second),
            ("nvlink_tx_bytes_per_second", self.nvlink_tx_bytes_per_second),
            ("nvlink_rx_bytes_per_second", self.nvlink_rx_bytes_per_second),
        ];
        match rates.into_iter().find(|(_, value)| !value.is_finite() || *value < 0.0) {
            Some((field, value)) => Err(format!("{field}: {value} is negative or no number")),
            None => Ok(()),
        }
    }
}

fn serial() -> String {
    "1320000000000".to_owned()
}

fn pci_bus_id() -> String {
    "00000000:01:00.0".to_owned()
}

fn idle_watts() -> f64 {
    70.0
}

fn limit_watts() -> f64 {
    700.0
}

fn clock() -> u32 {
    1980
}

fn temperature() -> u32 {
    35
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}
