//! The open library, and the list of what it sees.

use std::path::{Path, PathBuf};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};

use crate::device::DeviceFacts;
use crate::error::Error;
use crate::event::Watch;
use crate::fact::{Fact, Fault};
use crate::reading::Gpu;
use crate::topology::{self, Topology};

/// What the loader finds when the NVIDIA driver is installed.
const DEFAULT_LIBRARY: &str = "libnvidia-ml.so.1";

/// Versions of what answers.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Driver {
    /// Of the kernel driver, for instance `570.86.15`.
    pub driver: Fact<String>,
    /// Of the library.
    pub nvml: Fact<String>,
    /// The newest CUDA that the driver can run, for instance `12.8`.
    pub cuda: Fact<String>,
}

/// The machine's GPUs.
#[derive(Debug)]
pub struct Inventory {
    nvml: Nvml,
}

impl Inventory {
    /// Loads NVML from `lib_path` (absent: `libnvidia-ml.so.1` on the loader's path) and makes sure that it
    /// sees at least one GPU.
    pub fn open(lib_path: Option<&Path>) -> Result<Self, Error> {
        let path = lib_path.map_or_else(|| PathBuf::from(DEFAULT_LIBRARY), Path::to_path_buf);
        let nvml = Nvml::builder().lib_path(path.as_os_str()).init().map_err(|e| open_error(path.clone(), e))?;
        if nvml.lib().nvmlShutdown.is_err() {
            // Dropping the wrapper would panic on the missing function; the half library stays loaded instead.
            std::mem::forget(nvml);
            return Err(Error::NotNvml { path, symbol: "nvmlShutdown" });
        }
        let inventory = Self { nvml };
        if inventory.count()? == 0 { Err(Error::NoDevices) } else { Ok(inventory) }
    }

    /// Every GPU that the driver counts, by index, read now. One that cannot be read is in the list with
    /// its fault, because a GPU that disappears is news.
    pub fn devices(&self) -> Result<Vec<DeviceFacts>, Error> {
        Ok((0..self.count()?).map(|index| self.device(index)).collect())
    }

    /// Versions of driver and library.
    pub fn driver(&self) -> Driver {
        let cuda = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
        Driver {
            driver: Fact::read(self.nvml.sys_driver_version()),
            nvml: Fact::read(self.nvml.sys_nvml_version()),
            cuda: Fact::read(self.nvml.sys_cuda_driver_version()).map(cuda),
        }
    }

    /// One GPU, to be read again and again. One that cannot tell its UUID cannot be told from others.
    pub fn gpu(&self, index: u32) -> Result<Gpu<'_>, Fault> {
        let device = self.nvml.device_by_index(index).map_err(|e| Fault::of(&e))?;
        Gpu::open(index, device)
    }

    /// What the driver reports by itself from now on, of all GPUs that can.
    pub fn watch(&self) -> Result<Watch<'_>, Error> {
        Watch::start(&self.nvml, self.count()?)
    }

    /// How the GPUs reach each other.
    pub fn topology(&self) -> Result<Topology, Error> {
        Ok(topology::read(&self.nvml, self.count()?))
    }

    fn device(&self, index: u32) -> DeviceFacts {
        match self.nvml.device_by_index(index) {
            Ok(device) => DeviceFacts::read(index, &device),
            Err(e) => DeviceFacts::unreadable(index, &Fault::of(&e)),
        }
    }

    /// How many GPUs the driver counts.
    pub fn count(&self) -> Result<u32, Error> {
        self.nvml.device_count().map_err(|e| Error::of("count GPUs", e))
    }
}

fn open_error(path: PathBuf, error: NvmlError) -> Error {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => Error::NoLibrary { path, source: error },
        NvmlError::FailedToLoadSymbol(_) => Error::NotNvml { path, symbol: "nvmlInit_v2" },
        other => Error::of("start NVML", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_driver_is_told_so() {
        let error = Inventory::open(Some(Path::new("/nonexistent/libnvidia-ml.so.1"))).unwrap_err();
        assert_eq!(error.category(), "no_library");
        assert!(error.to_string().contains("/nonexistent/libnvidia-ml.so.1"), "{error}");
    }
}
