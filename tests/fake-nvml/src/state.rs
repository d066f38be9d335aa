//! What the library remembers between calls: the script as it was last read, the time, what counters had come to before
//! the script was written anew, and whether NVML is open.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, mem};

use parking_lot::Mutex;

use crate::script::{Code, Gpu, Script};
use crate::timeline::{Integrals, Timeline};

/// How often a hanging function looks whether it still hangs.
const LOOK_EVERY: Duration = Duration::from_millis(5);

static STATE: Mutex<Option<State>> = Mutex::new(None);

struct State {
    path: PathBuf,
    /// Device, inode, time and size of the file that was read.
    read: [u64; 4],
    script: Arc<Script>,
    timeline: Arc<Timeline>,
    began: Instant,
    before: Arc<HashMap<String, Integrals>>,
    opened_load: Option<u32>,
}

/// The machine at the moment of one call.
#[derive(Clone)]
pub struct Moment {
    pub ms: u64,
    pub script: Arc<Script>,
    timeline: Arc<Timeline>,
    before: Arc<HashMap<String, Integrals>>,
}

impl Moment {
    pub fn machine(&self) -> &Script {
        self.timeline.at(self.ms).unwrap_or(&self.script)
    }

    /// Counters of a GPU.
    pub fn integrals(&self, gpu: &Gpu) -> Integrals {
        let now = self.timeline.integrals(&gpu.uuid, self.ms);
        let loaded_anew = self.machine().driver_load != self.script.driver_load;
        self.before.get(&gpu.uuid).filter(|_| !loaded_anew).map_or(now, |before| now.plus(before, 1.0))
    }

    /// Counters of a MIG instance.
    pub fn instance_integrals(&self, gpu: &Gpu, gpu_instance: u32) -> Integrals {
        self.timeline.instance_integrals(&gpu.uuid, gpu_instance, self.ms)
    }
}

/// Looks at the script and the clock.
pub fn now() -> Result<Moment, Code> {
    let mut state = STATE.lock();
    refresh(&mut state).ok_or(Code::Unknown)
}

/// The same for a call, which NVML answers only when it is open, the driver is the one it was opened with, and the script
/// does not say that `function` fails.
pub fn call(function: &str) -> Result<Moment, Code> {
    let mut state = STATE.lock();
    let moment = refresh(&mut state).ok_or(Code::Unknown)?;
    let opened = state.as_ref().and_then(|state| state.opened_load);
    if opened != Some(moment.machine().driver_load) {
        return Err(Code::Uninitialized);
    }
    refused(&moment.machine().errors, function).map_or(Ok(moment), Err)
}

/// Opens NVML for this process.
pub fn open(function: &str) -> Result<(), Code> {
    let mut state = STATE.lock();
    let moment = refresh(&mut state).ok_or(Code::Unknown)?;
    if let Some(code) = refused(&moment.machine().errors, function) {
        return Err(code);
    }
    if let Some(state) = state.as_mut() {
        state.opened_load = Some(moment.machine().driver_load);
    }
    Ok(())
}

/// What the script says of a function: its own entry, else that of `*`.
pub fn refused(errors: &std::collections::BTreeMap<String, Code>, function: &str) -> Option<Code> {
    errors.get(function).or_else(|| errors.get("*")).copied()
}

/// Returns when the function does not hang any more.
#[expect(clippy::disallowed_methods, reason = "a wedged driver blocks its caller's thread, and so does this")]
pub fn hang(moment: Moment, hangs: impl Fn(&Moment) -> bool) -> Result<Moment, Code> {
    let mut moment = moment;
    while hangs(&moment) {
        std::thread::sleep(LOOK_EVERY);
        moment = now()?;
    }
    Ok(moment)
}

fn refresh(state: &mut Option<State>) -> Option<Moment> {
    let path = match state {
        Some(state) => state.path.clone(),
        None => script_path()?,
    };
    let meta = fs::metadata(&path).ok()?;
    let nanoseconds = meta.mtime().cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec().cast_unsigned());
    let read = [meta.dev(), meta.ino(), nanoseconds, meta.size()];
    if state.as_ref().is_none_or(|state| state.read != read) {
        let next = load(&path, read, state.as_ref());
        match next {
            Ok(next) => *state = Some(next),
            Err(why) => {
                complain(&path, &why);
                return None;
            }
        }
    }
    state.as_ref().map(State::moment)
}

/// A test that writes nonsense wants to know where.
fn complain(path: &Path, why: &str) {
    use std::io::Write;
    let _nobody_reads = writeln!(std::io::stderr(), "fake NVML: {}: {why}", path.display());
}

fn load(path: &Path, read: [u64; 4], old: Option<&State>) -> Result<State, String> {
    let script = Script::parse(&fs::read_to_string(path).map_err(|e| e.to_string())?)?;
    let timeline = Arc::new(Timeline::new(&script)?);
    let mut next = State {
        path: path.to_owned(),
        read,
        script: Arc::new(script),
        timeline,
        began: Instant::now(),
        before: Arc::default(),
        opened_load: old.and_then(|old| old.opened_load),
    };
    if let Some(old) = old {
        let only_time_passed =
            Script { clock_ms: None, ..(*old.script).clone() } == Script { clock_ms: None, ..(*next.script).clone() };
        if only_time_passed {
            next.began = old.began;
            next.before = old.before.clone();
        } else {
            next.before = Arc::new(carried(&old.moment(), &next.moment()));
        }
    }
    Ok(next)
}

/// What counters had come to under the old script, less what the new one counts from its own beginning until now.
fn carried(old: &Moment, new: &Moment) -> HashMap<String, Integrals> {
    let same_driver = old.machine().driver_load == new.machine().driver_load;
    let of = |gpu: &Gpu| {
        let before = if same_driver { old.integrals(gpu) } else { Integrals::default() };
        (gpu.uuid.clone(), before.plus(&new.integrals(gpu), -1.0))
    };
    old.machine().gpus.iter().chain(&new.machine().gpus).map(of).collect()
}

impl State {
    fn moment(&self) -> Moment {
        let elapsed = || u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Moment {
            ms: self.script.clock_ms.unwrap_or_else(elapsed),
            script: self.script.clone(),
            timeline: self.timeline.clone(),
            before: self.before.clone(),
        }
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
    let inside: fn() -> Option<PathBuf> = own_path;
    // SAFETY: `inside` is an address in this library and `info` outlives the call.
    let found = unsafe { libc::dladdr(inside as *const c_void, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: on success `dli_fname` is a C string that lives as long as this library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(OsStr::from_bytes(name.to_bytes()).into())
}
