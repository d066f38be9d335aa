//! What a device does at the moment.

use std::ffi::{c_uint, c_ulonglong};
use std::mem;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlMemory_v2_t, nvmlReturn_t, nvmlUtilization_t};

use super::{answer, at, device_value, put, whole_number};
use crate::script::{Code, Era};

/// `NVML_STRUCT_VERSION(Memory, 2)`.
const MEMORY_VERSION: usize = mem::size_of::<nvmlMemory_v2_t>() | (2 << 24);

device_value!(nvmlDeviceGetUtilizationRates, nvmlUtilization_t, |at| {
    let gpu = at.whole(Era::Maxwell)?;
    if gpu.mig_enabled {
        return Err(Code::NotSupported);
    }
    nvmlUtilization_t { gpu: gpu.utilization_percent, memory: gpu.memory_utilization_percent }
});
device_value!(nvmlDeviceGetPowerUsage, c_uint, |at| milliwatts(at.whole(Era::Maxwell)?.power_watts));
device_value!(nvmlDeviceGetEnforcedPowerLimit, c_uint, |at| milliwatts(at.whole(Era::Maxwell)?.power_limit_watts));
device_value!(nvmlDeviceGetTotalEnergyConsumption, c_ulonglong, |at| {
    at.whole(Era::Turing)?;
    whole_number(at.integrals()?.joules * 1000.0)
});
// Level 0 is the highest, 8 what an idle board falls to.
device_value!(nvmlDeviceGetPerformanceState, c_uint, |at| if at.whole(Era::Maxwell)?.utilization_percent > 0 { 0 } else { 8 });
device_value!(nvmlDeviceGetCurrentClocksThrottleReasons, c_ulonglong, |at| at.whole(Era::Maxwell)?.throttle_bits);
device_value!(nvmlDeviceGetPcieReplayCounter, c_uint, |at| at.whole(Era::Maxwell)?.pcie_replays);
device_value!(nvmlDeviceGetCurrPcieLinkGeneration, c_uint, |at| at.whole(Era::Maxwell).map(|_| 5)?);
device_value!(nvmlDeviceGetCurrPcieLinkWidth, c_uint, |at| at.whole(Era::Maxwell).map(|_| 16)?);
device_value!(nvmlDeviceGetPersistenceMode, c_uint, |at| c_uint::from(at.whole(Era::Maxwell)?.persistence));
device_value!(nvmlDeviceGetComputeMode, c_uint, |at| at.whole(Era::Maxwell)?.compute_mode);
device_value!(nvmlDeviceGetRetiredPagesPendingStatus, c_uint, |at| {
    let gpu = at.whole(Era::Turing)?;
    // Ampere and later replace rows instead.
    if gpu.era >= Era::Ampere {
        return Err(Code::NotSupported);
    }
    c_uint::from(gpu.retirement_pending)
});

fn milliwatts(watts: f64) -> c_uint {
    c_uint::try_from(whole_number(watts * 1000.0)).unwrap_or(c_uint::MAX)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: nvmlDevice_t, memory: *mut nvmlMemory_v2_t) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetMemoryInfo_v2", handle)?;
        let gpu = at.gpu()?;
        let whole = (gpu.memory_total_mib, gpu.memory_used_mib);
        let (total, used) = at.instance()?.map_or(whole, |part| (part.memory_total_mib, part.memory_used_mib));
        // SAFETY: NVML's contract: `memory` is null or points to a struct that starts with its version.
        let version = unsafe { memory.as_ref() }.ok_or(Code::InvalidArgument)?.version;
        if version as usize != MEMORY_VERSION {
            return Err(Code::ArgumentVersionMismatch);
        }
        let (total, used) = (total << 20, used << 20);
        let free = total.saturating_sub(used);
        // SAFETY: not null and of that version, as was just seen.
        unsafe { put(memory, nvmlMemory_v2_t { version, total, reserved: 0, free, used }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetClockInfo(handle: nvmlDevice_t, clock: c_uint, mhz: *mut c_uint) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetClockInfo", handle)?;
        let gpu = at.whole(Era::Maxwell)?;
        // NVML_CLOCK_MEM is 2; graphics (0), SM (1) and video (3) go together here.
        let found = if clock == 2 { gpu.memory_clock_mhz } else { gpu.sm_clock_mhz };
        // SAFETY: NVML's contract: null or one integer.
        unsafe { put(mhz, found) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperature(handle: nvmlDevice_t, _sensor: c_uint, celsius: *mut c_uint) -> nvmlReturn_t {
    // SAFETY: NVML's contract: null or one integer.
    answer(|| unsafe { put(celsius, at("nvmlDeviceGetTemperature", handle)?.whole(Era::Maxwell)?.temperature_celsius) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEccMode(handle: nvmlDevice_t, now: *mut c_uint, pending: *mut c_uint) -> nvmlReturn_t {
    answer(|| {
        at("nvmlDeviceGetEccMode", handle)?.whole(Era::Turing)?;
        // SAFETY: NVML's contract: each is null or one integer.
        unsafe { put(now, 1).and_then(|()| put(pending, 1)) }
    })
}

/// The lifetime's counts are those since the driver was loaded: a fake has no past.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    handle: nvmlDevice_t,
    kind: c_uint,
    _since: c_uint,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetTotalEccErrors", handle)?;
        let gpu = at.whole(Era::Turing)?;
        // NVML_MEMORY_ERROR_TYPE_CORRECTED is 0, _UNCORRECTED 1.
        let found = if kind == 0 { gpu.ecc_corrected } else { gpu.ecc_uncorrected };
        // SAFETY: NVML's contract: null or one number.
        unsafe { put(count, found) }
    })
}
