//! What a device is: identity, limits, place in the machine.

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlPciInfo_t, nvmlReturn_t};

use super::{Answer, answer, array, at, device_value, put, put_text};
use crate::script::{Code, Era};

/// Celsius: where an H100 slows down and shuts down.
const SLOWDOWN: c_uint = 89;
const SHUTDOWN: c_uint = 92;

device_value!(nvmlDeviceGetIndex, c_uint, |at| c_uint::try_from(at.index).map_err(|_| Code::Unknown)?);
device_value!(nvmlDeviceGetMinorNumber, c_uint, |at| at.gpu()?.minor);
device_value!(nvmlDeviceGetNumaNodeId, c_uint, |at| at.whole(Era::Ampere)?.numa_node);
device_value!(nvmlDeviceGetPciInfo_v3, nvmlPciInfo_t, |at| pci_info(&at.gpu()?.pci_bus_id)?);
device_value!(nvmlDeviceGetMaxPcieLinkGeneration, c_uint, |at| at.whole(Era::Maxwell).map(|_| 5)?);
device_value!(nvmlDeviceGetMaxPcieLinkWidth, c_uint, |at| at.whole(Era::Maxwell).map(|_| 16)?);
// NVML_DEVICE_ARCH_*: 3 Maxwell, 6 Turing, 7 Ampere, 9 Hopper.
device_value!(nvmlDeviceGetArchitecture, c_uint, |at| match at.gpu()?.era {
    Era::Maxwell => 3,
    Era::Turing => 6,
    Era::Ampere => 7,
    Era::Hopper => 9,
});

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(handle: nvmlDevice_t, text: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetUUID", handle)?;
        let uuid = at.instance()?.map_or(&at.gpu()?.uuid, |instance| &instance.uuid);
        // SAFETY: NVML's contract: `text` has room for `length` bytes.
        unsafe { put_text(uuid, text, length) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(handle: nvmlDevice_t, text: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetName", handle)?;
        let name = &at.gpu()?.name;
        let name = at.instance()?.map_or_else(|| name.clone(), |instance| format!("{name} MIG {}", instance.profile));
        // SAFETY: NVML's contract: `text` has room for `length` bytes.
        unsafe { put_text(&name, text, length) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSerial(handle: nvmlDevice_t, text: *mut c_char, length: c_uint) -> nvmlReturn_t {
    // SAFETY: NVML's contract: `text` has room for `length` bytes.
    answer(|| unsafe { put_text(&at("nvmlDeviceGetSerial", handle)?.whole(Era::Maxwell)?.serial, text, length) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(handle: nvmlDevice_t, which: c_uint, value: *mut c_uint) -> nvmlReturn_t {
    answer(|| {
        at("nvmlDeviceGetTemperatureThreshold", handle)?.whole(Era::Maxwell)?;
        // NVML_TEMPERATURE_THRESHOLD_SHUTDOWN is 0, _SLOWDOWN 1.
        let celsius = match which {
            0 => SHUTDOWN,
            1 => SLOWDOWN,
            _ => return Err(Code::NotSupported),
        };
        // SAFETY: NVML's contract: null or one integer.
        unsafe { put(value, celsius) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(handle: nvmlDevice_t, _clock: c_uint, value: *mut c_uint) -> nvmlReturn_t {
    answer(|| {
        at("nvmlDeviceGetMaxClockInfo", handle)?.whole(Era::Maxwell)?;
        // SAFETY: NVML's contract: null or one integer.
        unsafe { put(value, 1980) }
    })
}

/// Two GPUs of one NUMA node hang on one host bridge (30), others on different CPUs (50): `nvmlGpuTopologyLevel_t`.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(a: nvmlDevice_t, b: nvmlDevice_t, level: *mut c_uint) -> nvmlReturn_t {
    answer(|| {
        let (a, b) = (at("nvmlDeviceGetTopologyCommonAncestor", a)?, at("nvmlDeviceGetTopologyCommonAncestor", b)?);
        let (one, other) = (a.gpu()?, b.gpu()?);
        let found = if a.index == b.index {
            0
        } else if one.numa_node == other.numa_node {
            30
        } else {
            50
        };
        // SAFETY: NVML's contract: null or one integer.
        unsafe { put(level, found) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkState(handle: nvmlDevice_t, link: c_uint, up: *mut c_uint) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetNvLinkState", handle)?;
        let link = at.whole(Era::Ampere)?.links.get(link as usize).ok_or(Code::NotSupported)?;
        // SAFETY: NVML's contract: null or one integer.
        unsafe { put(up, c_uint::from(link.up)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    handle: nvmlDevice_t,
    link: c_uint,
    info: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetNvLinkRemotePciInfo_v2", handle)?;
        let link = at.whole(Era::Ampere)?.links.get(link as usize).ok_or(Code::NotSupported)?;
        let address = match link.peer {
            Some(peer) => at.moment.machine().gpus.get(peer).ok_or(Code::InvalidArgument)?.pci_bus_id.clone(),
            None => "00000000:F0:00.0".to_owned(),
        };
        // SAFETY: NVML's contract: null or one struct.
        unsafe { put(info, pci_info(&address)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    handle: nvmlDevice_t,
    link: c_uint,
    _kind: c_uint,
    value: *mut u64,
) -> nvmlReturn_t {
    answer(|| {
        let at = at("nvmlDeviceGetNvLinkErrorCounter", handle)?;
        let link = at.whole(Era::Ampere)?.links.get(link as usize).ok_or(Code::NotSupported)?;
        // SAFETY: NVML's contract: null or one number.
        unsafe { put(value, link.errors) }
    })
}

fn pci_info(address: &str) -> Result<nvmlPciInfo_t, Code> {
    let mut parts = address.split([':', '.']).map(|p| c_uint::from_str_radix(p, 16).map_err(|_| Code::Unknown));
    let mut part = || parts.next().unwrap_or(Err(Code::Unknown));
    let (domain, bus, device) = (part()?, part()?, part()?);
    Ok(nvmlPciInfo_t {
        busIdLegacy: array(address),
        domain,
        bus,
        device,
        pciDeviceId: 0,
        pciSubSystemId: 0,
        busId: array(address),
    })
}

/// Both directions: no MIG device has power, links or clocks of its own.
pub(super) fn whole_only(instance: bool) -> Answer {
    if instance { Err(Code::NotSupported) } else { Ok(()) }
}
