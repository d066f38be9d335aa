//! MIG devices: handles, modes, numbers, sizes.

use std::ffi::c_uint;
use std::ptr;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlDeviceAttributes_t, nvmlReturn_t};

use super::{MIG_SHIFT, answer, at, device_value, put};
use crate::script::{Code, Era};

device_value!(nvmlDeviceGetMaxMigDeviceCount, c_uint, |at| at.whole(Era::Ampere).map(|_| 7)?);
device_value!(nvmlDeviceGetGpuInstanceId, c_uint, |at| at.instance()?.ok_or(Code::NotSupported)?.gpu_instance);
device_value!(nvmlDeviceGetComputeInstanceId, c_uint, |at| at.instance()?.ok_or(Code::NotSupported)?.compute_instance);
device_value!(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, nvmlDevice_t, |at| super::gpu_handle(at.index));
device_value!(nvmlDeviceGetAttributes_v2, nvmlDeviceAttributes_t, |at| {
    let instance = at.instance()?.ok_or(Code::NotSupported)?;
    nvmlDeviceAttributes_t {
        multiprocessorCount: instance.slices * 16,
        sharedCopyEngineCount: 1,
        sharedDecoderCount: 0,
        sharedEncoderCount: 0,
        sharedJpegCount: 0,
        sharedOfaCount: 0,
        gpuInstanceSliceCount: instance.slices,
        computeInstanceSliceCount: instance.slices,
        memorySizeMB: instance.memory_total_mib,
    }
});

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(handle: nvmlDevice_t, now: *mut c_uint, pending: *mut c_uint) -> nvmlReturn_t {
    answer(|| {
        let on = c_uint::from(at("nvmlDeviceGetMigMode", handle)?.whole(Era::Ampere)?.mig_enabled);
        // SAFETY: NVML's contract: each is null or one integer.
        unsafe { put(now, on).and_then(|()| put(pending, on)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    handle: nvmlDevice_t,
    place: c_uint,
    mig: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetMigDeviceHandleByIndex", handle)?;
        let gpu = at.whole(Era::Ampere)?;
        let place = place as usize;
        if !gpu.mig_enabled || place >= gpu.instances.len() {
            return Err(Code::NotFound);
        }
        // SAFETY: NVML's contract: null or one handle.
        unsafe { put(mig, ptr::without_provenance_mut((at.index + 1) | ((place + 1) << MIG_SHIFT))) }
    })
}
