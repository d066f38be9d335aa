//! What the fake answers: the machine as one JSON file, read anew at every call so that a test can change
//! the machine while a process looks at it.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Its driver.
    #[serde(default = "driver_version")]
    pub driver_version: String,
    /// Its GPUs by index.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
    /// Functions that fail, by C name, for instance `nvmlInit_v2`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, Code>,
}

/// One GPU.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// `GPU-…`.
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// Memory in MiB.
    pub memory_total_mib: u64,
    /// Held by processes, in MiB.
    #[serde(default)]
    pub memory_used_mib: u64,
    /// Kernel residency in percent.
    #[serde(default)]
    pub utilization_percent: u32,
    /// PCI address with the eight-digit domain that NVML writes.
    #[serde(default = "pci_bus_id")]
    pub pci_bus_id: String,
    /// NVML's number: 0 shared, 2 prohibited, 3 exclusive process.
    #[serde(default)]
    pub compute_mode: u32,
    /// Functions that fail for this GPU, by C name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, Code>,
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
        Self { driver_version: driver_version(), gpus: Vec::new(), errors: BTreeMap::new() }
    }
}

impl Script {
    /// `count` equal idle GPUs with made-up identities.
    pub fn of(count: u32, name: &str, memory_total_mib: u64) -> Self {
        let gpus = (0..count).map(|i| Gpu::numbered(i, name, memory_total_mib)).collect();
        Self { gpus, ..Self::default() }
    }

    /// Puts it where a fake reads it. A reader sees the old machine or the new one, never half of one.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let draft = path.with_extension("draft");
        fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        fs::rename(draft, path)
    }

    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}

impl Gpu {
    /// An idle GPU whose identity follows from its number.
    pub fn numbered(number: u32, name: &str, memory_total_mib: u64) -> Self {
        Self {
            uuid: format!("GPU-{number:08x}-fa4e-4000-8000-000000000000"),
            name: name.to_owned(),
            memory_total_mib,
            memory_used_mib: 0,
            utilization_percent: 0,
            pci_bus_id: format!("00000000:{:02X}:00.0", number + 1),
            compute_mode: 0,
            errors: BTreeMap::new(),
        }
    }
}

fn driver_version() -> String {
    "570.86.15".to_owned()
}

fn pci_bus_id() -> String {
    "00000000:01:00.0".to_owned()
}
