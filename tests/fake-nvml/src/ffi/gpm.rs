//! GPM: two samples of the integrals, and their difference as percentages. Hopper and later.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t, nvmlReturn_t};

use super::{Answer, SUCCESS, answer, at, put};
use crate::script::{Code, Era};
use crate::state;
use crate::timeline::Integrals;

/// What a sample handle points to.
#[derive(Default)]
struct Sample {
    at_ms: u64,
    integrals: Integrals,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmQueryDeviceSupport(handle: nvmlDevice_t, support: *mut nvmlGpmSupport_t) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlGpmQueryDeviceSupport", handle)?;
        let able = c_uint::from(at.gpu()?.era >= Era::Hopper);
        // SAFETY: NVML's contract: null or one struct.
        unsafe { put(support, nvmlGpmSupport_t { version: 1, isSupportedDevice: able }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleAlloc(sample: *mut nvmlGpmSample_t) -> nvmlReturn_t {
    answer(|| {
        state::call("nvmlGpmSampleAlloc")?;
        let made = Box::into_raw(Box::<Sample>::default());
        // SAFETY: NVML's contract: null or one handle. A null pointer leaks one sample.
        unsafe { put(sample, made.cast()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> nvmlReturn_t {
    if !sample.is_null() {
        // SAFETY: NVML's contract: it came from `nvmlGpmSampleAlloc` and is freed once.
        drop(unsafe { Box::from_raw(sample.cast::<Sample>()) });
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleGet(handle: nvmlDevice_t, sample: nvmlGpmSample_t) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlGpmSampleGet", handle)?;
        at.whole(Era::Hopper)?;
        let taken = Sample { at_ms: at.moment.ms, integrals: at.integrals()? };
        // SAFETY: NVML's contract: null or a sample of `nvmlGpmSampleAlloc`.
        unsafe { put(sample.cast(), taken) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmMigSampleGet(handle: nvmlDevice_t, instance: c_uint, sample: nvmlGpmSample_t) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlGpmMigSampleGet", handle)?;
        let gpu = at.whole(Era::Hopper)?;
        if !gpu.instances.iter().any(|found| found.gpu_instance == instance) {
            return Err(Code::InvalidArgument);
        }
        let taken = Sample { at_ms: at.moment.ms, integrals: at.moment.instance_integrals(gpu, instance) };
        // SAFETY: NVML's contract: null or a sample of `nvmlGpmSampleAlloc`.
        unsafe { put(sample.cast(), taken) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut nvmlGpmMetricsGet_t) -> nvmlReturn_t {
    answer(|| {
        state::call("nvmlGpmMetricsGet")?;
        // SAFETY: NVML's contract: null or one struct whose samples came from `nvmlGpmSampleAlloc`.
        let request = unsafe { request.as_mut() }.ok_or(Code::InvalidArgument)?;
        // SAFETY: as above.
        let (first, second) = unsafe { (request.sample1.cast::<Sample>().as_ref(), request.sample2.cast::<Sample>().as_ref()) };
        metrics(request.numMetrics as usize, &mut request.metrics, first.zip(second).ok_or(Code::InvalidArgument)?)
    })
}

fn metrics(count: usize, metrics: &mut [nvml_wrapper_sys::bindings::nvmlGpmMetric_t], samples: (&Sample, &Sample)) -> Answer {
    let (first, second) = samples;
    let seconds = second.at_ms.saturating_sub(first.at_ms) as f64 / 1000.0;
    if seconds <= 0.0 {
        return Err(Code::InvalidArgument);
    }
    let used = second.integrals.plus(&first.integrals, -1.0);
    for metric in metrics.iter_mut().take(count) {
        // NVML_GPM_METRIC_SM_UTIL, _SM_OCCUPANCY, _ANY_TENSOR_UTIL, _DRAM_BW_UTIL; in percent.
        let found = match metric.metricId {
            2 => Some(used.sm),
            3 => Some(used.occupancy),
            5 => Some(used.tensor),
            10 => Some(used.dram),
            _ => None,
        };
        (metric.nvmlReturn, metric.value) = match found {
            Some(busy) => (SUCCESS, busy / seconds * 100.0),
            None => (Code::NotSupported as nvmlReturn_t, 0.0),
        };
    }
    Ok(())
}
