//! Who uses a GPU: the processes with a context on it, and how much each computed.

use std::collections::BTreeMap;

use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use serde::{Deserialize, Serialize};

use crate::fact::Fact;

/// More processes on one GPU than anybody runs; those above are left out and counted.
const MOST: usize = 8192;

/// How a process uses the GPU.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum ProcessKind {
    /// CUDA, alone in its time slice.
    Compute,
    /// CUDA through the Multi-Process Service.
    Mps,
    /// OpenGL, Vulkan.
    Graphics,
}

/// One process on one GPU.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// As the driver sees it: of the host, unless this process has a namespace of its own.
    pub pid: u32,
    /// How it uses the GPU.
    pub kind: ProcessKind,
    /// Memory that it holds, in bytes.
    pub memory_bytes: Fact<u64>,
    /// Share of the multiprocessors' time, averaged over the driver's samples since the last reading. Unsupported on MIG.
    pub sm: Fact<f64>,
    /// Its MIG GPU instance.
    pub gpu_instance: Option<u32>,
    /// Its MIG compute instance.
    pub compute_instance: Option<u32>,
}

/// All of them at one moment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Processes {
    /// By pid.
    pub list: Vec<Process>,
    /// How many there were above the bound.
    pub left_out: u32,
}

/// Remembers up to when samples were read, so that each counts once.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    last_seen_us: u64,
}

impl Reader {
    pub fn read(&mut self, device: &Device<'_>) -> Fact<Processes> {
        let compute = Fact::read(device.running_compute_processes());
        let compute = match compute {
            Fact::Known(list) => list,
            Fact::Unsupported => return Fact::Unsupported,
            Fact::Failed(fault) => return Fact::Failed(fault),
        };
        let mut found = BTreeMap::new();
        // A process of several lists is what the last of them says.
        let mut add = |list: Vec<ProcessInfo>, kind| found.extend(list.into_iter().map(|info| (info.pid, process(&info, kind))));
        add(device.running_graphics_processes().unwrap_or_default(), ProcessKind::Graphics);
        add(compute, ProcessKind::Compute);
        add(device.mps_running_compute_processes().unwrap_or_default(), ProcessKind::Mps);
        if !found.is_empty() {
            self.usage(device, &mut found);
        }
        let left_out = u32::try_from(found.len().saturating_sub(MOST)).unwrap_or(u32::MAX);
        Fact::Known(Processes { list: found.into_values().take(MOST).collect(), left_out })
    }

    /// The driver samples several times a second; what counts is the average, not the last.
    fn usage(&mut self, device: &Device<'_>, processes: &mut BTreeMap<u32, Process>) {
        let samples = match device.process_utilization_stats(self.last_seen_us) {
            Ok(samples) => samples,
            // Nobody computed since.
            Err(NvmlError::NotFound) => Vec::new(),
            Err(e) => {
                let why: Fact<f64> = Fact::read(Err(e));
                for process in processes.values_mut() {
                    process.sm = why.clone();
                }
                return;
            }
        };
        let mut sums: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        for sample in samples {
            self.last_seen_us = self.last_seen_us.max(sample.timestamp);
            let (sum, count) = sums.entry(sample.pid).or_default();
            *sum += f64::from(sample.sm_util.min(100)) / 100.0;
            *count += 1.0;
        }
        for (pid, process) in processes {
            process.sm = Fact::Known(sums.get(pid).map_or(0.0, |(sum, count)| sum / count));
        }
    }
}

fn process(info: &ProcessInfo, kind: ProcessKind) -> Process {
    Process {
        pid: info.pid,
        kind,
        memory_bytes: match info.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Fact::Known(bytes),
            UsedGpuMemory::Unavailable => Fact::Unsupported,
        },
        sm: Fact::Unsupported,
        gpu_instance: info.gpu_instance_id,
        compute_instance: info.compute_instance_id,
    }
}
