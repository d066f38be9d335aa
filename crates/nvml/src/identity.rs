//! What a GPU is: what does not change while a driver is loaded, read once.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureThreshold};
use serde::{Deserialize, Serialize};

use crate::class::class;
use crate::device::{GpuUuid, sysfs_address};
use crate::fact::Fact;

/// A GPU's lasting facts.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// NVML's index, by PCI bus order; may change when the driver is loaded anew.
    pub index: u32,
    /// Its lasting name.
    pub uuid: GpuUuid,
    /// The product name.
    pub name: Fact<String>,
    /// Serial number of its board.
    pub serial: Fact<String>,
    /// PCI address as sysfs writes it.
    pub pci_bus_id: Fact<String>,
    /// Number of its device file, `/dev/nvidiaN`.
    pub minor: Fact<u32>,
    /// For instance `Hopper`.
    pub architecture: Fact<String>,
    /// Memory in bytes, what the driver keeps for itself included.
    pub memory_total_bytes: Fact<u64>,
    /// NUMA node of the host memory next to it.
    pub numa_node: Fact<u32>,
    /// Highest clock of the multiprocessors in MHz.
    pub max_sm_clock_mhz: Fact<u32>,
    /// Where it slows down to cool, in °C.
    pub slowdown_celsius: Fact<u32>,
    /// Where it shuts down, in °C.
    pub shutdown_celsius: Fact<u32>,
    /// Highest PCIe generation of card and slot.
    pub max_pcie_generation: Fact<u32>,
    /// Most PCIe lanes of card and slot.
    pub max_pcie_width: Fact<u32>,
}

impl Identity {
    /// The class that workloads ask for, see [`class`]. Absent when not even the name is known.
    pub fn class(&self) -> Option<String> {
        self.name.known().map(|name| class(name, self.memory_total_bytes.known().copied()))
    }

    pub(crate) fn read(index: u32, uuid: GpuUuid, device: &Device<'_>) -> Self {
        let threshold = |which| Fact::read(device.temperature_threshold(which));
        Self {
            index,
            uuid,
            name: Fact::read(device.name()),
            serial: Fact::read(device.serial()),
            pci_bus_id: Fact::read(device.pci_info()).map(|pci| sysfs_address(&pci.bus_id)),
            minor: Fact::read(device.minor_number()),
            architecture: Fact::read(device.architecture()).map(|architecture| format!("{architecture:?}")),
            memory_total_bytes: Fact::read(device.memory_info()).map(|memory| memory.total),
            numa_node: Fact::read(device.numa_node_id()),
            max_sm_clock_mhz: Fact::read(device.max_clock_info(Clock::SM)),
            slowdown_celsius: threshold(TemperatureThreshold::Slowdown),
            shutdown_celsius: threshold(TemperatureThreshold::Shutdown),
            max_pcie_generation: Fact::read(device.max_pcie_link_gen()),
            max_pcie_width: Fact::read(device.max_pcie_link_width()),
        }
    }
}
