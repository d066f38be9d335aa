//! The C functions. Each looks at the machine, asks whether it is told to fail or to hang, and else writes its answer.
//!
//! A handle is a number, so that none can dangle: the GPU's index plus one, and for a MIG device its place in the GPU's
//! list plus one, shifted by [`MIG_SHIFT`].

mod device;
mod event;
mod field;
mod gpm;
mod mig;
mod process;
mod reading;
mod system;

use std::ffi::{c_char, c_uint};
use std::ptr;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::script::{Code, Era, Gpu, Instance};
use crate::state::{self, Moment};
use crate::timeline::Integrals;

type Answer = Result<(), Code>;

const SUCCESS: nvmlReturn_t = 0;
const MIG_SHIFT: usize = 16;
const GPU_MASK: usize = (1 << MIG_SHIFT) - 1;

/// A GPU, or a MIG device of one, at the moment of a call.
struct At {
    moment: Moment,
    index: usize,
    instance: Option<usize>,
}

impl At {
    fn gpu(&self) -> Result<&Gpu, Code> {
        self.moment.machine().gpus.get(self.index).ok_or(Code::GpuIsLost)
    }

    /// The MIG device that the handle names, if it names one.
    fn instance(&self) -> Result<Option<&Instance>, Code> {
        match self.instance {
            None => Ok(None),
            Some(place) => self.gpu()?.instances.get(place).map(Some).ok_or(Code::InvalidArgument),
        }
    }

    /// A whole GPU, of an era that can answer; else *not supported*.
    fn whole(&self, since: Era) -> Result<&Gpu, Code> {
        let gpu = self.gpu()?;
        if self.instance.is_some() || gpu.era < since { Err(Code::NotSupported) } else { Ok(gpu) }
    }

    fn integrals(&self) -> Result<Integrals, Code> {
        Ok(self.moment.integrals(self.gpu()?))
    }
}

/// The device behind a handle, unless the script says that `function` fails for it.
fn at(function: &str, handle: nvmlDevice_t) -> Result<At, Code> {
    let moment = state::call(function)?;
    let number = handle.addr();
    let index = (number & GPU_MASK).checked_sub(1).ok_or(Code::InvalidArgument)?;
    let hangs = |moment: &Moment| {
        let gpu = moment.machine().gpus.get(index);
        gpu.is_some_and(|gpu| gpu.hang.iter().any(|hung| hung == function || hung == "*"))
    };
    let at = At { moment: state::hang(moment, hangs)?, index, instance: (number >> MIG_SHIFT).checked_sub(1) };
    let gpu = at.gpu()?;
    if gpu.lost {
        return Err(Code::GpuIsLost);
    }
    state::refused(&gpu.errors, function).map_or(Ok(at), Err)
}

fn gpu_handle(index: usize) -> nvmlDevice_t {
    ptr::without_provenance_mut(index + 1)
}

fn answer(f: impl FnOnce() -> Answer) -> nvmlReturn_t {
    match f() {
        Ok(()) => SUCCESS,
        Err(code) => code as nvmlReturn_t,
    }
}

fn whole_number(value: f64) -> u64 {
    // The integrals are sums of rates that are not negative; the cast saturates.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let whole = value.max(0.0) as u64;
    whole
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

/// NVML's way to hand out a list: with too little room it says how much is needed.
///
/// # Safety
/// `count` is null or points to one integer that says for how many `T` `to` has room; `to` may be null when that is 0.
unsafe fn put_list<T>(list: Vec<T>, count: *mut c_uint, to: *mut T) -> Answer {
    // SAFETY: this function's contract.
    let room = unsafe { count.as_ref() }.copied().ok_or(Code::InvalidArgument)? as usize;
    let needed = list.len();
    // SAFETY: not null, as was just seen.
    unsafe { put(count, c_uint::try_from(needed).map_err(|_| Code::Unknown)?)? };
    if needed > 0 && (to.is_null() || room < needed) {
        return Err(Code::InsufficientSize);
    }
    for (i, item) in list.into_iter().enumerate() {
        // SAFETY: `to` has room for `room` items and `i < needed <= room`.
        unsafe { to.add(i).write(item) };
    }
    Ok(())
}

/// One C function that writes one value about a device: its name, the type of the value, and how the value is found.
macro_rules! device_value {
    ($name:ident, $type:ty, |$at:ident| $value:expr) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(handle: nvmlDevice_t, value: *mut $type) -> nvmlReturn_t {
            answer(|| {
                let $at = at(stringify!($name), handle)?;
                let found: $type = $value;
                // SAFETY: NVML's contract: the pointer is null or points to one value.
                unsafe { put(value, found) }
            })
        }
    };
}
use device_value;
