//! `nvmlDeviceGetFieldValues`: many counters by number, each with its own return code.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::{field_id as id, nvmlDevice_t, nvmlFieldValue_t, nvmlReturn_t, nvmlValue_t};

use super::device::whole_only;
use super::{At, SUCCESS, answer, at, whole_number};
use crate::script::{Code, Era};

/// `NVML_VALUE_TYPE_UNSIGNED_INT` and `_UNSIGNED_LONG_LONG`.
const UNSIGNED: u32 = 1;
const LONG: u32 = 3;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(handle: nvmlDevice_t, count: c_int, values: *mut nvmlFieldValue_t) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetFieldValues", handle)?;
        whole_only(at.instance.is_some())?;
        for i in 0..usize::try_from(count).map_err(|_| Code::InvalidArgument)? {
            // SAFETY: NVML's contract: `values` points to `count` entries.
            let entry = unsafe { values.add(i).as_mut() }.ok_or(Code::InvalidArgument)?;
            match field(&at, entry.fieldId, entry.scopeId) {
                Ok(value) => {
                    entry.nvmlReturn = SUCCESS;
                    (entry.valueType, entry.value) = value;
                }
                Err(code) => entry.nvmlReturn = code as nvmlReturn_t,
            }
        }
        Ok(())
    })
}

fn field(at: &At, field: u32, scope: u32) -> Result<(u32, nvmlValue_t), Code> {
    let long = |value: u64| Ok((LONG, nvmlValue_t { ullVal: value }));
    let int = |value: u32| Ok((UNSIGNED, nvmlValue_t { uiVal: value }));
    let ampere = || at.whole(Era::Ampere);
    match field {
        id::NVML_FI_DEV_MEMORY_TEMP => int(ampere()?.memory_temperature_celsius),
        id::NVML_FI_DEV_REMAPPED_COR => int(ampere()?.remapped_corrected),
        id::NVML_FI_DEV_REMAPPED_UNC => int(ampere()?.remapped_uncorrected),
        id::NVML_FI_DEV_REMAPPED_PENDING => int(u32::from(ampere()?.remap_pending)),
        id::NVML_FI_DEV_REMAPPED_FAILURE => int(u32::from(ampere()?.remap_failed)),
        id::NVML_FI_DEV_PCIE_COUNT_TX_BYTES => long(whole_number(at.whole(Era::Hopper).and(at.integrals())?.pcie_tx)),
        id::NVML_FI_DEV_PCIE_COUNT_RX_BYTES => long(whole_number(at.whole(Era::Hopper).and(at.integrals())?.pcie_rx)),
        id::NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS..=id::NVML_FI_DEV_PCIE_COUNT_LANE_ERROR => {
            int(at.whole(Era::Hopper)?.pcie_errors.get(&field).copied().unwrap_or(0))
        }
        id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => int(at.whole(Era::Hopper)?.recovery_action),
        // In KiB; all links together.
        id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX => long(whole_number(nvlink(at, scope)?.nvlink_tx / 1024.0)),
        id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX => long(whole_number(nvlink(at, scope)?.nvlink_rx / 1024.0)),
        _ => Err(Code::NotSupported),
    }
}

fn nvlink(at: &At, scope: u32) -> Result<crate::timeline::Integrals, Code> {
    let gpu = at.whole(Era::Ampere)?;
    if gpu.links.is_empty() || scope != u32::MAX { Err(Code::NotSupported) } else { at.integrals() }
}
