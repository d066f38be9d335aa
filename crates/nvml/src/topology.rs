//! How GPUs reach each other and the host: over how many NVLinks, else over which part of the PCIe tree.

use std::collections::BTreeMap;

use nvml_wrapper::enum_wrappers::device::TopologyLevel;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};

use crate::device::{GpuUuid, sysfs_address};
use crate::fact::{Fact, Fault};

/// `NVML_NVLINK_MAX_LINKS`.
const MAX_LINKS: u32 = 18;

/// The machine's GPUs and the way between each two.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// By index; those that cannot be read are left out.
    pub gpus: Vec<TopologyGpu>,
    /// Each pair once, the lower index first.
    pub paths: Vec<Path>,
}

/// A GPU's place.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TopologyGpu {
    /// Which.
    pub uuid: GpuUuid,
    /// NVML's index.
    pub index: u32,
    /// PCI address as sysfs writes it.
    pub pci_bus_id: Fact<String>,
    /// NUMA node of the host memory next to it.
    pub numa_node: Fact<u32>,
    /// NVLinks that are up and end at a switch: every GPU behind it is reached over these.
    pub switch_links: u32,
}

/// The way between two GPUs.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Path {
    /// One end.
    pub from: GpuUuid,
    /// The other.
    pub to: GpuUuid,
    /// NVLinks that are up between them; through a switch: the smaller number of both ends.
    pub nvlinks: u32,
    /// The way without NVLink.
    pub pcie: Fact<Reach>,
}

/// How far apart two GPUs are in the PCIe tree.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum Reach {
    /// On one board.
    Board,
    /// Below one PCIe switch.
    Switch,
    /// Below several PCIe switches, not through the host bridge.
    Switches,
    /// Through the host bridge.
    HostBridge,
    /// Through the links within a NUMA node.
    Node,
    /// Through the links between NUMA nodes.
    System,
}

struct Found<'a> {
    device: Device<'a>,
    gpu: TopologyGpu,
    /// Links that are up, by the PCI address at their other end.
    ends: BTreeMap<String, u32>,
}

pub(crate) fn read(nvml: &Nvml, count: u32) -> Topology {
    let mut found: Vec<Found<'_>> = (0..count).filter_map(|index| find(nvml, index).ok()).collect();
    let addresses: Vec<String> = found.iter().filter_map(|found| found.gpu.pci_bus_id.known().cloned()).collect();
    for found in &mut found {
        let to_switches = found.ends.iter().filter(|(address, _)| !addresses.contains(address));
        found.gpu.switch_links = to_switches.map(|(_, links)| links).sum();
    }
    let mut paths = Vec::new();
    for (i, from) in found.iter().enumerate() {
        paths.extend(found.iter().skip(i + 1).map(|to| path(nvml, from, to)));
    }
    Topology { gpus: found.into_iter().map(|found| found.gpu).collect(), paths }
}

fn find(nvml: &Nvml, index: u32) -> Result<Found<'_>, Fault> {
    let device = nvml.device_by_index(index).map_err(|e| Fault::of(&e))?;
    let uuid = device.uuid().map(GpuUuid::from).map_err(|e| Fault::of(&e))?;
    let mut ends = BTreeMap::new();
    for number in 0..MAX_LINKS {
        let link = device.link_wrapper_for(number);
        match (link.is_active(), link.remote_pci_info()) {
            (Ok(true), Ok(pci)) => *ends.entry(sysfs_address(&pci.bus_id)).or_default() += 1,
            (Ok(_), _) => {}
            // Links are numbered without gaps.
            (Err(_), _) => break,
        }
    }
    let pci_bus_id = Fact::read(device.pci_info()).map(|pci| sysfs_address(&pci.bus_id));
    let numa_node = Fact::read(device.numa_node_id());
    Ok(Found { gpu: TopologyGpu { uuid, index, pci_bus_id, numa_node, switch_links: 0 }, device, ends })
}

fn path(nvml: &Nvml, from: &Found<'_>, to: &Found<'_>) -> Path {
    let direct = to.gpu.pci_bus_id.known().and_then(|address| from.ends.get(address)).copied().unwrap_or(0);
    Path {
        from: from.gpu.uuid.clone(),
        to: to.gpu.uuid.clone(),
        nvlinks: direct.max(from.gpu.switch_links.min(to.gpu.switch_links)),
        pcie: Fact::read(nvml.topology_common_ancestor(&from.device, &to.device)).map(reach),
    }
}

fn reach(level: TopologyLevel) -> Reach {
    match level {
        TopologyLevel::Internal => Reach::Board,
        TopologyLevel::Single => Reach::Switch,
        TopologyLevel::Multiple => Reach::Switches,
        TopologyLevel::HostBridge => Reach::HostBridge,
        TopologyLevel::Node => Reach::Node,
        TopologyLevel::System => Reach::System,
    }
}
