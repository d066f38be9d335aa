//! The C functions. Each reads the script, asks whether it is told to fail, and else writes its answer.
//!
//! A device handle is the GPU's index plus one: no memory behind it, so none can dangle.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::{env, mem, ptr};

use crate::script::{Code, Gpu, Script};

type Return = c_int;
type Handle = *mut c_void;
type Answer = Result<(), Code>;

const SUCCESS: Return = 0;

#[repr(C)]
struct Memory {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `NVML_STRUCT_VERSION(Memory, 2)`.
const MEMORY_VERSION: usize = mem::size_of::<Memory>() | (2 << 24);

#[repr(C)]
struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

#[repr(C)]
struct PciInfo {
    bus_id_legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device_id: c_uint,
    pci_sub_system_id: c_uint,
    bus_id: [c_char; 32],
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> Return {
    answer(|| machine("nvmlInit_v2").map(drop))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Return {
    answer(|| machine("nvmlInitWithFlags").map(drop))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> Return {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, length: c_uint) -> Return {
    answer(|| {
        let machine = machine("nvmlSystemGetDriverVersion")?;
        // SAFETY: NVML's contract: `text` has room for `length` bytes.
        unsafe { put_text(&machine.driver_version, text, length) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Return {
    answer(|| {
        let gpus = machine("nvmlDeviceGetCount_v2")?.gpus.len();
        // SAFETY: NVML's contract: `count` is null or points to one integer.
        unsafe { put(count, c_uint::try_from(gpus).map_err(|_| Code::Unknown)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, handle: *mut Handle) -> Return {
    answer(|| {
        let number = index as usize + 1;
        match gpu("nvmlDeviceGetHandleByIndex_v2", ptr::without_provenance_mut(number)) {
            // SAFETY: NVML's contract: `handle` is null or points to one handle.
            Ok(_) => unsafe { put(handle, ptr::without_provenance_mut(number)) },
            Err(Code::GpuIsLost) if machine("nvmlDeviceGetHandleByIndex_v2")?.gpus.len() < number => Err(Code::InvalidArgument),
            Err(code) => Err(code),
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(handle: Handle, text: *mut c_char, length: c_uint) -> Return {
    // SAFETY: NVML's contract: `text` has room for `length` bytes.
    answer(|| unsafe { put_text(&gpu("nvmlDeviceGetUUID", handle)?.uuid, text, length) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(handle: Handle, text: *mut c_char, length: c_uint) -> Return {
    // SAFETY: NVML's contract: `text` has room for `length` bytes.
    answer(|| unsafe { put_text(&gpu("nvmlDeviceGetName", handle)?.name, text, length) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: Handle, memory: *mut Memory) -> Return {
    answer(|| {
        let gpu = gpu("nvmlDeviceGetMemoryInfo_v2", handle)?;
        // SAFETY: NVML's contract: `memory` is null or points to a struct that starts with its version.
        let version = unsafe { memory.as_ref() }.ok_or(Code::InvalidArgument)?.version;
        if version as usize != MEMORY_VERSION {
            return Err(Code::ArgumentVersionMismatch);
        }
        let (total, used) = (gpu.memory_total_mib << 20, gpu.memory_used_mib << 20);
        let free = total.saturating_sub(used);
        // SAFETY: not null and of that version, as was just seen.
        unsafe { put(memory, Memory { version, total, reserved: 0, free, used }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUtilizationRates(handle: Handle, rates: *mut Utilization) -> Return {
    answer(|| {
        let percent = gpu("nvmlDeviceGetUtilizationRates", handle)?.utilization_percent;
        // SAFETY: NVML's contract: `rates` is null or points to one struct.
        unsafe { put(rates, Utilization { gpu: percent, memory: 0 }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(handle: Handle, info: *mut PciInfo) -> Return {
    answer(|| {
        let address = gpu("nvmlDeviceGetPciInfo_v3", handle)?.pci_bus_id;
        let (domain, bus, device) = parse_address(&address).ok_or(Code::Unknown)?;
        let (pci_device_id, pci_sub_system_id) = (0, 0);
        let (bus_id_legacy, bus_id) = (array(&address), array(&address));
        // SAFETY: NVML's contract: `info` is null or points to one struct.
        unsafe { put(info, PciInfo { bus_id_legacy, domain, bus, device, pci_device_id, pci_sub_system_id, bus_id }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeMode(handle: Handle, mode: *mut c_uint) -> Return {
    // SAFETY: NVML's contract: `mode` is null or points to one integer.
    answer(|| unsafe { put(mode, gpu("nvmlDeviceGetComputeMode", handle)?.compute_mode) })
}

fn answer(f: impl FnOnce() -> Answer) -> Return {
    match f() {
        Ok(()) => SUCCESS,
        Err(code) => code as Return,
    }
}

/// The machine, unless the script says that `function` fails.
fn machine(function: &str) -> Result<Script, Code> {
    let script = script_path().and_then(|path| Script::read(&path).ok()).ok_or(Code::Unknown)?;
    match script.errors.get(function) {
        Some(code) => Err(*code),
        None => Ok(script),
    }
}

/// The GPU behind a handle, unless the script says that `function` fails for it.
fn gpu(function: &str, handle: Handle) -> Result<Gpu, Code> {
    let index = handle.addr().checked_sub(1).ok_or(Code::InvalidArgument)?;
    let gpu = machine(function)?.gpus.into_iter().nth(index).ok_or(Code::GpuIsLost)?;
    match gpu.errors.get(function) {
        Some(code) => Err(*code),
        None => Ok(gpu),
    }
}

/// `$TIDEGATE_FAKE_NVML`, else `<this library>.json`.
fn script_path() -> Option<PathBuf> {
    if let Some(path) = env::var_os("TIDEGATE_FAKE_NVML") {
        return Some(path.into());
    }
    let mut name = own_path()?.into_os_string();
    name.push(".json");
    Some(name.into())
}

/// The file that the loader made this library from.
fn own_path() -> Option<PathBuf> {
    // SAFETY: all-zero is a valid `Dl_info`: null pointers.
    let mut info: libc::Dl_info = unsafe { mem::zeroed() };
    let inside: extern "C" fn() -> Return = nvmlShutdown;
    // SAFETY: `inside` is an address in this library and `info` outlives the call.
    let found = unsafe { libc::dladdr(inside as *const c_void, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: on success `dli_fname` is a C string that lives as long as this library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(OsStr::from_bytes(name.to_bytes()).into())
}

/// `00000000:3B:00.0` as domain, bus and device.
fn parse_address(address: &str) -> Option<(c_uint, c_uint, c_uint)> {
    let mut parts = address.split([':', '.']).map(|p| c_uint::from_str_radix(p, 16).ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

/// A fixed C string; what does not fit is cut.
fn array<const N: usize>(text: &str) -> [c_char; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = from.cast_signed();
    }
    out
}

/// # Safety
/// `to` is null or valid for writing one `T`.
unsafe fn put<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(Code::InvalidArgument);
    }
    // SAFETY: not null, and valid by this function's contract.
    unsafe { to.write(value) };
    Ok(())
}

/// # Safety
/// `to` is null or valid for writing `length` bytes.
unsafe fn put_text(text: &str, to: *mut c_char, length: c_uint) -> Answer {
    if to.is_null() {
        return Err(Code::InvalidArgument);
    }
    if text.len() >= length as usize {
        return Err(Code::InsufficientSize);
    }
    // SAFETY: `to` has room for the text and its final zero, as was just seen.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}
