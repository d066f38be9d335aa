//! Opening, closing, versions, handles.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use super::{SUCCESS, answer, at, gpu_handle, put, put_text};
use crate::script::Code;
use crate::state;

/// What NVML and CUDA of these days call themselves.
const NVML_VERSION: &str = "12.570.86.15";
const CUDA_VERSION: c_int = 12_080;

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    answer(|| state::open("nvmlInit_v2"))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    answer(|| state::open("nvmlInitWithFlags"))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(_code: nvmlReturn_t) -> *const c_char {
    c"an error of the fake NVML".as_ptr()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answer(|| {
        let moment = state::call("nvmlSystemGetDriverVersion")?;
        // SAFETY: NVML's contract: `text` has room for `length` bytes.
        unsafe { put_text(&moment.machine().driver_version, text, length) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetNVMLVersion(text: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answer(|| {
        state::call("nvmlSystemGetNVMLVersion")?;
        // SAFETY: NVML's contract: `text` has room for `length` bytes.
        unsafe { put_text(NVML_VERSION, text, length) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nvmlReturn_t {
    answer(|| {
        state::call("nvmlSystemGetCudaDriverVersion_v2")?;
        // SAFETY: NVML's contract: null or one integer.
        unsafe { put(version, CUDA_VERSION) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    answer(|| {
        let gpus = state::call("nvmlDeviceGetCount_v2")?.machine().gpus.len();
        // SAFETY: NVML's contract: null or one integer.
        unsafe { put(count, c_uint::try_from(gpus).map_err(|_| Code::Unknown)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, handle: *mut nvmlDevice_t) -> nvmlReturn_t {
    answer(|| {
        const NAME: &str = "nvmlDeviceGetHandleByIndex_v2";
        let index = index as usize;
        if index >= state::call(NAME)?.machine().gpus.len() {
            return Err(Code::InvalidArgument);
        }
        at(NAME, gpu_handle(index))?;
        // SAFETY: NVML's contract: null or one handle.
        unsafe { put(handle, gpu_handle(index)) }
    })
}
