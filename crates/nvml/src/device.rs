//! What is known about one GPU.

use std::fmt;

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::ComputeMode as NvmlComputeMode;
use serde::{Deserialize, Serialize};

use crate::class::class;
use crate::fact::{Fact, Fault};

/// The driver's name of a GPU, `GPU-xxxxxxxx-xxxx-…`. Stable over reboots and moves between slots; what
/// `CUDA_VISIBLE_DEVICES` should carry, because CUDA numbers devices in another order than NVML.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(transparent)]
pub struct GpuUuid(String);

impl GpuUuid {
    /// As the driver writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for GpuUuid {
    fn from(uuid: String) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for GpuUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who may open CUDA contexts on a GPU.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ComputeMode {
    /// Any number of processes.
    Shared,
    /// One process at a time.
    ExclusiveProcess,
    /// None: the device is not for computing.
    Prohibited,
}

/// One GPU at one moment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// NVML's index, by PCI bus order; may change over a reboot.
    pub index: u32,
    /// Its lasting name.
    pub uuid: Fact<GpuUuid>,
    /// The product name, for instance `NVIDIA H100 80GB HBM3`.
    pub name: Fact<String>,
    /// Memory in bytes, what the driver keeps for itself included.
    pub memory_total_bytes: Fact<u64>,
    /// Memory that processes hold, in bytes.
    pub memory_used_bytes: Fact<u64>,
    /// Share of the last sample period (1/6 s to 1 s) in which any kernel was resident, in thousandths.
    /// Residency, not how much of the chip was busy.
    pub utilization_permille: Fact<u16>,
    /// PCI address as sysfs writes it, `0000:01:00.0`.
    pub pci_bus_id: Fact<String>,
    /// Who may use it.
    pub compute_mode: Fact<ComputeMode>,
}

impl DeviceFacts {
    /// The class that workloads ask for, see [`class`]. Absent when not even the name is known.
    pub fn class(&self) -> Option<String> {
        self.name.known().map(|name| class(name, self.memory_total_bytes.known().copied()))
    }

    pub(crate) fn read(index: u32, device: &Device<'_>) -> Self {
        // One call, so that total and used belong together.
        let memory = Fact::read(device.memory_info());
        Self {
            index,
            uuid: Fact::read(device.uuid()).map(GpuUuid::from),
            name: Fact::read(device.name()),
            memory_total_bytes: memory.clone().map(|m| m.total),
            memory_used_bytes: memory.map(|m| m.used),
            utilization_permille: Fact::read(device.utilization_rates()).map(|u| permille(u.gpu)),
            pci_bus_id: Fact::read(device.pci_info()).map(|p| sysfs_address(&p.bus_id)),
            compute_mode: Fact::read(device.compute_mode()).map(compute_mode),
        }
    }

    /// A GPU of which the driver does not even give a handle.
    pub(crate) fn unreadable(index: u32, fault: &Fault) -> Self {
        Self {
            index,
            uuid: Fact::Failed(fault.clone()),
            name: Fact::Failed(fault.clone()),
            memory_total_bytes: Fact::Failed(fault.clone()),
            memory_used_bytes: Fact::Failed(fault.clone()),
            utilization_permille: Fact::Failed(fault.clone()),
            pci_bus_id: Fact::Failed(fault.clone()),
            compute_mode: Fact::Failed(fault.clone()),
        }
    }
}

pub(crate) fn permille(percent: u32) -> u16 {
    u16::try_from(percent.min(100) * 10).unwrap_or(1000)
}

/// NVML writes the PCI domain with eight digits and in capitals, sysfs with four and in small letters.
pub(crate) fn sysfs_address(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.strip_prefix("0000") {
        Some(short) if short.find(':') == Some(4) => short.to_owned(),
        _ => lower,
    }
}

pub(crate) fn compute_mode(mode: NvmlComputeMode) -> ComputeMode {
    match mode {
        NvmlComputeMode::Default => ComputeMode::Shared,
        // "Exclusive thread" is the name that drivers before CUDA 4 had for the same thing.
        NvmlComputeMode::ExclusiveThread | NvmlComputeMode::ExclusiveProcess => ComputeMode::ExclusiveProcess,
        NvmlComputeMode::Prohibited => ComputeMode::Prohibited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_is_written_as_sysfs_writes_it() {
        assert_eq!(sysfs_address("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(sysfs_address("0000:01:00.0"), "0000:01:00.0");
        assert_eq!(sysfs_address("00010000:01:00.0"), "00010000:01:00.0", "a domain that needs more digits keeps them");
    }

    #[test]
    fn utilisation_never_exceeds_the_whole() {
        assert_eq!(permille(37), 370);
        assert_eq!(permille(255), 1000);
    }
}
