//! The few calls that the wrapper makes wrongly or not at all, with nothing but numbers around them.
//!
//! * Field values: the wrapper cannot give a scope, which NVLink totals need.
//! * Events: the wrapper drops the MIG instance, cuts off kinds that it does not know, and frees the set when one
//!   registration fails.
//! * Numbers of MIG instances: not wrapped.
#![expect(unsafe_code, reason = "C calls without a wrapper")]

use std::mem;
use std::ptr;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlFieldValue_t, nvmlReturn_t, nvmlValue_t, nvmlValueType_t,
};

use crate::fact::Fact;

/// A field by number with its scope, for instance a link; most have none (0).
pub type Field = (u32, u32);

/// Reads whole numbers by [`Field`], each a fact of its own.
pub fn facts<const N: usize>(device: &Device<'_>, wanted: [Field; N]) -> [Fact<u64>; N] {
    match fields(device, wanted) {
        Ok(answers) => answers.map(Fact::read),
        Err(e) => {
            let why: Fact<u64> = Fact::read(Err(e));
            std::array::from_fn(|_| why.clone())
        }
    }
}

fn fields<const N: usize>(device: &Device<'_>, wanted: [Field; N]) -> Result<[Result<u64, NvmlError>; N], NvmlError> {
    let get = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    let mut values = wanted.map(|(field, scope)| {
        // SAFETY: all-zero is a valid value of this plain C struct.
        let mut value: nvmlFieldValue_t = unsafe { mem::zeroed() };
        (value.fieldId, value.scopeId) = (field, scope);
        value
    });
    let count = i32::try_from(N).map_err(|_| NvmlError::InvalidArg)?;
    // SAFETY: the handle is of this library, and `values` has `count` entries.
    nvml_try(unsafe { get(device.handle(), count, values.as_mut_ptr()) })?;
    Ok(values.map(|value| nvml_try(value.nvmlReturn).and_then(|()| number(value.valueType, value.value))))
}

/// `nvmlValueType_t`: 0 double, 1 unsigned, 2 unsigned long, 3 unsigned long long, 4 long long, 5 int, 6 unsigned short.
fn number(kind: nvmlValueType_t, value: nvmlValue_t) -> Result<u64, NvmlError> {
    let signed = |value: i64| u64::try_from(value).map_err(|_| NvmlError::Unknown);
    // SAFETY: NVML says which member it has written; every bit pattern is valid for each.
    unsafe {
        match kind {
            1 => Ok(value.uiVal.into()),
            2 => Ok(value.ulVal),
            3 => Ok(value.ullVal),
            4 => signed(value.sllVal),
            5 => signed(value.siVal.into()),
            6 => Ok(value.usVal.into()),
            other => Err(NvmlError::UnexpectedVariant(other)),
        }
    }
}

/// Numbers of the GPU instance and the compute instance behind a MIG handle.
pub fn instance_numbers(mig: &Device<'_>) -> Result<(u32, u32), NvmlError> {
    let lib = mig.nvml().lib();
    let (gpu, compute) =
        (nvml_sym(lib.nvmlDeviceGetGpuInstanceId.as_ref())?, nvml_sym(lib.nvmlDeviceGetComputeInstanceId.as_ref())?);
    let (mut gpu_id, mut compute_id) = (0, 0);
    // SAFETY: the handle is of this library, and each pointer is to one integer.
    nvml_try(unsafe { gpu(mig.handle(), &raw mut gpu_id) })?;
    // SAFETY: as above.
    nvml_try(unsafe { compute(mig.handle(), &raw mut compute_id) })?;
    Ok((gpu_id, compute_id))
}

/// One entry of the event queue.
#[derive(Clone, Copy, Debug)]
pub struct RawEvent {
    /// The device's handle as a number, to be compared with [`handle`].
    pub device: usize,
    pub kind: u64,
    pub data: u64,
    pub gpu_instance: u32,
    pub compute_instance: u32,
}

/// A device's handle as a number.
pub fn handle(device: &Device<'_>) -> usize {
    // SAFETY: it is only compared.
    unsafe { device.handle() }.addr()
}

/// An event set that lives as long as its library is open.
#[derive(Debug)]
pub struct EventSet<'a> {
    nvml: &'a Nvml,
    set: nvmlEventSet_t,
    free: unsafe extern "C" fn(nvmlEventSet_t) -> nvmlReturn_t,
}

impl<'a> EventSet<'a> {
    pub fn new(nvml: &'a Nvml) -> Result<Self, NvmlError> {
        let create = nvml_sym(nvml.lib().nvmlEventSetCreate.as_ref())?;
        let free = *nvml_sym(nvml.lib().nvmlEventSetFree.as_ref())?;
        let mut set: nvmlEventSet_t = ptr::null_mut();
        // SAFETY: the pointer is to one handle.
        nvml_try(unsafe { create(&raw mut set) })?;
        Ok(Self { nvml, set, free })
    }

    /// The kinds that a device can report.
    pub fn supported(&self, device: &Device<'_>) -> Result<u64, NvmlError> {
        let supported = nvml_sym(self.nvml.lib().nvmlDeviceGetSupportedEventTypes.as_ref())?;
        let mut kinds = 0;
        // SAFETY: the handle is of this library, and the pointer is to one number.
        nvml_try(unsafe { supported(device.handle(), &raw mut kinds) })?;
        Ok(kinds)
    }

    /// From now on hears of these kinds.
    pub fn register(&self, device: &Device<'_>, kinds: u64) -> Result<(), NvmlError> {
        let register = nvml_sym(self.nvml.lib().nvmlDeviceRegisterEvents.as_ref())?;
        // SAFETY: handle and set are of this library.
        nvml_try(unsafe { register(device.handle(), kinds, self.set) })
    }

    /// Blocks until an event or the time-out, which is no error.
    pub fn wait(&self, timeout_ms: u32) -> Result<Option<RawEvent>, NvmlError> {
        let wait = nvml_sym(self.nvml.lib().nvmlEventSetWait_v2.as_ref())?;
        let none: nvmlDevice_t = ptr::null_mut();
        let mut data = nvmlEventData_t { device: none, eventType: 0, eventData: 0, gpuInstanceId: 0, computeInstanceId: 0 };
        // SAFETY: the set is of this library, and the pointer is to one struct.
        match nvml_try(unsafe { wait(self.set, &raw mut data, timeout_ms) }) {
            Ok(()) => Ok(Some(RawEvent {
                device: data.device.addr(),
                kind: data.eventType,
                data: data.eventData,
                gpu_instance: data.gpuInstanceId,
                compute_instance: data.computeInstanceId,
            })),
            Err(NvmlError::Timeout) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Drop for EventSet<'_> {
    fn drop(&mut self) {
        // SAFETY: the set is of this library, which outlives it, and is freed once.
        let _nothing_to_do_about_it = unsafe { (self.free)(self.set) };
    }
}
