//! Processes: NVML's three lists, and the sampled use of each process.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlProcessInfo_t, nvmlProcessUtilizationSample_t, nvmlReturn_t};

use super::{Answer, answer, at, put_list};
use crate::script::{Code, Era, Process, ProcessKind};

/// `NVML_VALUE_NOT_AVAILABLE`.
const UNKNOWN_MEMORY: c_ulonglong = c_ulonglong::MAX;
/// "No MIG instance".
const NONE: c_uint = c_uint::MAX;

/// # Safety
/// The contract of [`put_list`].
unsafe fn list(name: &str, kind: ProcessKind, handle: nvmlDevice_t, count: *mut c_uint, to: *mut nvmlProcessInfo_t) -> Answer {
    let at = at(name, handle)?;
    let instance = at.instance()?;
    let here = |process: &&Process| process.kind == kind && instance.is_none_or(|i| process.gpu_instance == Some(i.gpu_instance));
    let found = at.gpu()?.processes.iter().filter(here).map(|process| nvmlProcessInfo_t {
        pid: process.pid,
        usedGpuMemory: process.memory_mib.map_or(UNKNOWN_MEMORY, |mib| mib << 20),
        gpuInstanceId: process.gpu_instance.unwrap_or(NONE),
        computeInstanceId: process.compute_instance.unwrap_or(NONE),
    });
    // SAFETY: this function's contract.
    unsafe { put_list(found.collect(), count, to) }
}

macro_rules! process_list {
    ($name:ident, $kind:expr) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(handle: nvmlDevice_t, count: *mut c_uint, to: *mut nvmlProcessInfo_t) -> nvmlReturn_t {
            // SAFETY: NVML's contract is that of `list`.
            answer(|| unsafe { list(stringify!($name), $kind, handle, count, to) })
        }
    };
}

process_list!(nvmlDeviceGetComputeRunningProcesses_v3, ProcessKind::Compute);
process_list!(nvmlDeviceGetGraphicsRunningProcesses_v3, ProcessKind::Graphics);
process_list!(nvmlDeviceGetMPSComputeRunningProcesses_v3, ProcessKind::Mps);

/// One sample a process, taken now; *not found* when nothing is newer than `last_seen` (microseconds).
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    handle: nvmlDevice_t,
    to: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    last_seen: c_ulonglong,
) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetProcessUtilization", handle)?;
        let gpu = at.whole(Era::Turing)?;
        if gpu.mig_enabled {
            return Err(Code::NotSupported);
        }
        let now = at.moment.ms * 1000 + 1;
        let sample = |process: &Process| nvmlProcessUtilizationSample_t {
            pid: process.pid,
            timeStamp: now,
            smUtil: process.sm_percent,
            memUtil: 0,
            encUtil: 0,
            decUtil: 0,
        };
        let samples: Vec<_> = gpu.processes.iter().filter(|process| process.sm_percent > 0).map(sample).collect();
        if now <= last_seen || samples.is_empty() {
            return Err(Code::NotFound);
        }
        // SAFETY: NVML's contract is that of `put_list`.
        unsafe { put_list(samples, count, to) }
    })
}
