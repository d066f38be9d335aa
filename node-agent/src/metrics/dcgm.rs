//! The names of dcgm-exporter, in its units, so that dashboards and alerts made for it go on. One series a GPU: pods are
//! named only where exactly one container holds the GPU, since a value that is copied to several adds up to too much.

use tidegate_nvml::{Activity, Fact};

use super::Sheet;
use super::table::{self as t, Def};
use crate::gpu::Gpu;
use crate::node::Node;

const MIB: f64 = 1_048_576.0;

pub(super) fn write(node: &Node, hostname: &str, sheet: &mut Sheet) {
    let driver = node.driver.as_ref().and_then(|driver| driver.driver.known()).map_or("", String::as_str);
    for gpu in node.gpus.values().filter(|gpu| gpu.fault.is_none()) {
        one(gpu, hostname, driver, sheet);
    }
}

fn one(gpu: &Gpu, hostname: &str, driver: &str, sheet: &mut Sheet) {
    let Some((reading, _)) = &gpu.reading else { return };
    let identity = &gpu.identity;
    let minor = identity.minor.known().copied().unwrap_or(identity.index);
    let text = |fact: &Fact<String>| fact.known().cloned().unwrap_or_default();
    let mut holders = gpu.usage.users.iter().filter(|(_, user)| user.allocated).map(|(holder, _)| holder);
    let only = holders.next().filter(|_| holders.next().is_none());
    let (namespace, pod, container) =
        only.map_or(("", "", ""), |holder| (holder.namespace.as_str(), holder.pod.as_str(), holder.container.as_str()));
    let (pci, name) = (text(&identity.pci_bus_id), text(&identity.name));
    let device = format!("nvidia{minor}");
    let labels = [&minor.to_string(), identity.uuid.as_str(), &pci, &device, &name, hostname, driver, namespace, pod, container];
    let mut add = |def: &'static Def, value: Option<f64>| sheet.add(def, &labels, value);
    let number = |fact: &Fact<u32>| fact.known().map(|value| f64::from(*value));
    add(&t::D_SM_CLOCK, number(&reading.clocks.sm_mhz));
    add(&t::D_MEM_CLOCK, number(&reading.clocks.memory_mhz));
    add(&t::D_GPU_TEMP, number(&reading.temperatures.gpu_celsius));
    add(&t::D_MEMORY_TEMP, number(&reading.temperatures.memory_celsius));
    add(&t::D_POWER, number(&reading.power.draw_milliwatts).map(|milliwatts| milliwatts / 1000.0));
    add(&t::D_ENERGY, gpu.totals.energy.get().map(|millijoules| millijoules as f64));
    add(&t::D_REPLAYS, gpu.totals.pcie_replays.get().map(|replays| replays as f64));
    let utilization = reading.utilization.known();
    add(&t::D_UTIL, utilization.map(|utilization| f64::from(utilization.resident_permille) / 10.0));
    add(&t::D_MEM_UTIL, utilization.map(|utilization| f64::from(utilization.memory_permille) / 10.0));
    let last = gpu.xids.iter().max_by_key(|(_, count)| count.last).map_or(0.0, |(xid, _)| *xid as f64);
    add(&t::D_XID, Some(last));
    let memory = reading.memory.known();
    let free = |memory: &tidegate_nvml::Memory| memory.total_bytes.saturating_sub(memory.used_bytes + memory.reserved_bytes);
    add(&t::D_FB_FREE, memory.map(|memory| free(memory) as f64 / MIB));
    add(&t::D_FB_USED, memory.map(|memory| memory.used_bytes as f64 / MIB));
    add(&t::D_FB_RESERVED, memory.map(|memory| memory.reserved_bytes as f64 / MIB));
    let rows = reading.remapped_rows.known();
    add(&t::D_REMAP_UNC, rows.map(|rows| rows.uncorrected as f64));
    add(&t::D_REMAP_COR, rows.map(|rows| rows.corrected as f64));
    add(&t::D_REMAP_FAILURE, rows.map(|rows| f64::from(u8::from(rows.failed))));
    let share = |of: fn(&Activity) -> &Fact<f64>| reading.activity.as_ref().and_then(|activity| of(activity).known().copied());
    add(&t::D_SM_ACTIVE, share(|activity| &activity.sm));
    add(&t::D_SM_OCCUPANCY, share(|activity| &activity.occupancy));
    add(&t::D_TENSOR, share(|activity| &activity.tensor));
    add(&t::D_DRAM, share(|activity| &activity.memory_bandwidth));
}
