//! What the fake answers: a machine, and what happens to it over time, as one JSON file. It is looked at anew at every
//! call, so that a test can change the machine while a process looks at it.

mod gpu;

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use gpu::{Era, Gpu, Instance, Link, Process, ProcessKind};

/// A machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Its driver.
    #[serde(default = "driver_version")]
    pub driver_version: String,
    /// How often its driver was loaded. Another number than at the last `nvmlInit`: every call says *uninitialized* until
    /// NVML is opened again, and counters begin anew.
    #[serde(default)]
    pub driver_load: u32,
    /// Its GPUs by index.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
    /// Functions that fail, by C name, for instance `nvmlInit_v2`; `*` is all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, Code>,
    /// The time since the beginning in milliseconds, set by hand. Absent: the clock's, from when the file is first read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ms: Option<u64>,
    /// What becomes different, in the order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// What the driver reports as events, in the order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// From a moment on some fields have other values.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When.
    pub at_ms: u64,
    /// Of the GPU with this index; absent: of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<usize>,
    /// Fields and their new values.
    pub set: Map<String, Value>,
}

/// One entry of NVML's event queue.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When.
    pub at_ms: u64,
    /// Index of its GPU.
    pub gpu: usize,
    /// NVML's event bit; 8 is an XID.
    #[serde(default = "xid_event")]
    pub kind: u64,
    /// The XID, or what else the kind carries.
    pub data: u64,
    /// The MIG GPU instance that it struck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_instance: Option<u32>,
    /// The MIG compute instance that it struck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_instance: Option<u32>,
}

/// How NVML says no; the numbers are those of `nvmlReturn_t`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are NVML's own")]
pub enum Code {
    Uninitialized = 1,
    InvalidArgument = 2,
    NotSupported = 3,
    NoPermission = 4,
    NotFound = 6,
    InsufficientSize = 7,
    DriverNotLoaded = 9,
    Timeout = 10,
    GpuIsLost = 15,
    ResetRequired = 16,
    LibRmVersionMismatch = 18,
    ArgumentVersionMismatch = 25,
    Unknown = 999,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            driver_version: driver_version(),
            driver_load: 0,
            gpus: Vec::new(),
            errors: BTreeMap::new(),
            clock_ms: None,
            changes: Vec::new(),
            events: Vec::new(),
        }
    }
}

impl Script {
    /// `count` equal idle GPUs with made-up identities.
    pub fn of(count: u32, name: &str, memory_total_mib: u64) -> Self {
        let gpus = (0..count).map(|i| Gpu::numbered(i, name, memory_total_mib)).collect();
        Self { gpus, ..Self::default() }
    }

    /// From `at_ms` on the fields of the JSON object `set` have new values, of one GPU or (`None`) of the machine.
    pub fn change(&mut self, at_ms: u64, gpu: Option<usize>, set: &Value) {
        let set = set.as_object().cloned().unwrap_or_default();
        self.changes.push(Change { at_ms, gpu, set });
    }

    /// The driver reports an XID of a GPU.
    pub fn xid(&mut self, at_ms: u64, gpu: usize, xid: u64) {
        self.events.push(Event { at_ms, gpu, kind: xid_event(), data: xid, gpu_instance: None, compute_instance: None });
    }

    /// Puts it where a fake reads it. A reader sees the old machine or the new one, never half of one.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let draft = path.with_extension("draft");
        fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        fs::rename(draft, path)
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// Says the line and the field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json = &mut serde_json::Deserializer::from_str(text);
        let script: Self = serde_path_to_error::deserialize(json).map_err(|e| {
            let (field, line) = (e.path().to_string(), e.inner().line());
            format!("line {line}, field {field}: {}", e.inner())
        })?;
        script.check()?;
        Ok(script)
    }

    fn check(&self) -> Result<(), String> {
        for (i, gpu) in self.gpus.iter().enumerate() {
            gpu.check().map_err(|why| format!("field gpus[{i}].{why}"))?;
        }
        let known = |gpu: usize, field: String| {
            let here = self.gpus.len();
            if gpu < here { Ok(()) } else { Err(format!("field {field}: there are {here} GPUs, numbered from 0")) }
        };
        for (i, change) in self.changes.iter().enumerate() {
            change.gpu.map_or(Ok(()), |gpu| known(gpu, format!("changes[{i}].gpu")))?;
        }
        for (i, event) in self.events.iter().enumerate() {
            known(event.gpu, format!("events[{i}].gpu"))?;
        }
        ordered("changes", self.changes.iter().map(|change| change.at_ms))?;
        ordered("events", self.events.iter().map(|event| event.at_ms))
    }
}

fn ordered(name: &str, times: impl Iterator<Item = u64>) -> Result<(), String> {
    let mut before = 0;
    for (i, at_ms) in times.enumerate() {
        if at_ms < before {
            return Err(format!("field {name}[{i}].at_ms: {at_ms} comes before {before}; write the list in the order of time"));
        }
        before = at_ms;
    }
    Ok(())
}

fn driver_version() -> String {
    "570.86.15".to_owned()
}

/// `nvmlEventTypeXidCriticalError`.
fn xid_event() -> u64 {
    8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Script::parse(text).unwrap_err()
    }

    #[test]
    fn a_malformed_script_is_told_its_line_and_field() {
        let text = "{\"gpus\": [\n {\"uuid\": \"GPU-1\", \"name\": \"X\", \"memory_total_mib\": \"many\"}]}";
        let why = wrong(text);
        assert!(why.starts_with("line 2, field gpus[0].memory_total_mib: invalid type"), "{why}");
        let why = wrong("{\n\n\"gpu\": []}");
        assert!(why.starts_with("line 3") && why.contains("unknown field `gpu`"), "{why}");
    }

    #[test]
    fn values_that_make_no_sense_are_told_by_field() {
        let mut script = Script::of(1, "X", 1024);
        script.gpus[0].sm_active = 1.5;
        assert_eq!(wrong(&serde_json::to_string(&script).unwrap()), "field gpus[0].sm_active: 1.5 is not a share from 0 to 1");
        let mut script = Script::of(1, "X", 1024);
        script.xid(5, 1, 79);
        assert_eq!(wrong(&serde_json::to_string(&script).unwrap()), "field events[0].gpu: there are 1 GPUs, numbered from 0");
        let mut script = Script::of(1, "X", 1024);
        script.change(9, Some(0), &serde_json::json!({"sm_active": 1.0}));
        script.change(3, Some(0), &serde_json::json!({"sm_active": 0.0}));
        assert!(wrong(&serde_json::to_string(&script).unwrap()).starts_with("field changes[1].at_ms: 3 comes before 9"));
    }
}
