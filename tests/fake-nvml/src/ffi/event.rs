//! The event queue: a set hears of what the script says happens to its GPUs from the moment of its making on.

use std::ffi::{c_uint, c_ulonglong};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_t};
use parking_lot::Mutex;

use super::{answer, at, device_value, gpu_handle, put};
use crate::script::{Code, Era, Event};
use crate::state::{self, Moment};

/// How often a waiting call looks at the script: seldom, because the real one sleeps and costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Every kind of event up to the newest, `nvmlEventTypeGpuRecoveryAction`.
const ALL: c_ulonglong = 0xffff;

/// What a set handle points to.
#[derive(Default)]
struct Set {
    gpus: Mutex<Vec<(usize, c_ulonglong)>>,
    /// Events of the script, as far as they were told or were before the set's time.
    told: Mutex<Vec<Event>>,
}

device_value!(nvmlDeviceGetSupportedEventTypes, c_ulonglong, |at| at.whole(Era::Maxwell).map(|_| ALL)?);

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    answer(|| {
        let moment = state::call("nvmlEventSetCreate")?;
        let past = moment.script.events.iter().filter(|event| event.at_ms <= moment.ms && moment.ms > 0).cloned().collect();
        let made = Box::into_raw(Box::new(Set { told: Mutex::new(past), ..Set::default() }));
        // SAFETY: NVML's contract: null or one handle. A null pointer leaks one set.
        unsafe { put(set, made.cast()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    if !set.is_null() {
        // SAFETY: NVML's contract: it came from `nvmlEventSetCreate` and is freed once.
        drop(unsafe { Box::from_raw(set.cast::<Set>()) });
    }
    super::SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceRegisterEvents(handle: nvmlDevice_t, kinds: c_ulonglong, set: nvmlEventSet_t) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceRegisterEvents", handle)?;
        at.whole(Era::Maxwell)?;
        // SAFETY: NVML's contract: null or a set of `nvmlEventSetCreate`.
        let set = unsafe { set.cast::<Set>().as_ref() }.ok_or(Code::InvalidArgument)?;
        set.gpus.lock().push((at.index, kinds));
        Ok(())
    })
}

#[unsafe(no_mangle)]
#[expect(clippy::disallowed_methods, reason = "NVML's wait blocks its caller's thread")]
unsafe extern "C" fn nvmlEventSetWait_v2(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeout_ms: c_uint) -> nvmlReturn_t {
    answer(|| {
        // SAFETY: NVML's contract: null or a set of `nvmlEventSetCreate`.
        let set = unsafe { set.cast::<Set>().as_ref() }.ok_or(Code::InvalidArgument)?;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
        loop {
            let moment = state::call("nvmlEventSetWait_v2")?;
            if let Some(event) = set.next(&moment) {
                // SAFETY: NVML's contract: null or one struct.
                return unsafe { put(data, event) };
            }
            if Instant::now() >= deadline {
                return Err(Code::Timeout);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    })
}

impl Set {
    fn next(&self, moment: &Moment) -> Option<nvmlEventData_t> {
        let gpus = self.gpus.lock();
        let mut told = self.told.lock();
        let wanted = |event: &&Event| {
            let registered = gpus.iter().any(|(index, kinds)| *index == event.gpu && kinds & event.kind != 0);
            registered && event.at_ms <= moment.ms && !told.contains(event)
        };
        let event = moment.script.events.iter().find(wanted)?.clone();
        told.push(event.clone());
        Some(nvmlEventData_t {
            device: gpu_handle(event.gpu),
            eventType: event.kind,
            eventData: event.data,
            gpuInstanceId: event.gpu_instance.unwrap_or(c_uint::MAX),
            computeInstanceId: event.compute_instance.unwrap_or(c_uint::MAX),
        })
    }
}
