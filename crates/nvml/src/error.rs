//! Why a machine's GPUs cannot be listed. Each variant has another remedy, and its text names it.

use std::path::PathBuf;

use nvml_wrapper::error::NvmlError;

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No library of that name can be loaded: no NVIDIA driver, or not on the loader's path.
    #[error("load the NVIDIA driver library {path}: {source}; install the driver, or use simulated devices")]
    NoLibrary {
        /// What was loaded.
        path: PathBuf,
        /// The loader's words.
        #[source]
        source: NvmlError,
    },
    /// The file loads but lacks what every NVML has.
    #[error("{path} is not an NVML library: it has no {symbol}")]
    NotNvml {
        /// What was loaded.
        path: PathBuf,
        /// The missing function.
        symbol: &'static str,
    },
    /// The library is there, the kernel module is not.
    #[error("the NVIDIA kernel driver is not loaded; load it (modprobe nvidia), or use simulated devices")]
    DriverNotLoaded,
    /// The driver was upgraded and its kernel module not yet replaced.
    #[error("the NVIDIA library and kernel driver are of different versions; reload the kernel module or reboot")]
    VersionMismatch,
    /// The device files are closed to this user.
    #[error("no permission to talk to the NVIDIA driver; give this user access to /dev/nvidia*")]
    NoPermission,
    /// The driver works and sees no GPU.
    #[error("the NVIDIA driver sees no GPU on this machine")]
    NoDevices,
    /// Anything else.
    #[error("{context}: {source}")]
    Driver {
        /// What was being done, as a verb phrase.
        context: &'static str,
        /// The driver's words.
        #[source]
        source: NvmlError,
    },
}

impl Error {
    pub(crate) fn of(context: &'static str, source: NvmlError) -> Self {
        match source {
            NvmlError::DriverNotLoaded => Self::DriverNotLoaded,
            NvmlError::LibRmVersionMismatch => Self::VersionMismatch,
            NvmlError::NoPermission => Self::NoPermission,
            source => Self::Driver { context, source },
        }
    }

    /// A bounded word for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NoLibrary { .. } => "no_library",
            Self::NotNvml { .. } => "not_nvml",
            Self::DriverNotLoaded => "driver_not_loaded",
            Self::VersionMismatch => "version_mismatch",
            Self::NoPermission => "no_permission",
            Self::NoDevices => "no_devices",
            Self::Driver { .. } => "driver",
        }
    }
}
