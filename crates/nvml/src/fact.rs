//! One thing that was asked of the driver: it is known, this device or driver does not offer it, or the
//! asking failed. A missing reading must never look like an idle GPU, so there is no default value.

use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};

/// NVML's answer for "this struct version is newer than the driver" (`NVML_ERROR_ARGUMENT_VERSION_MISMATCH`);
/// the wrapper has no variant for it.
const ARGUMENT_VERSION_MISMATCH: u32 = 25;

/// The answer to one question.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Fact<T> {
    /// The driver said it.
    Known(T),
    /// This device, or a driver of this age, does not offer it; asking again will not help.
    Unsupported,
    /// It should be there and could not be read.
    Failed(Fault),
}

/// Why a fact could not be read. Each asks for something else to be done about it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// This user may not ask.
    NoPermission,
    /// The device fell off the bus.
    Lost,
    /// The device must be reset before it works again.
    ResetRequired,
    /// The driver was upgraded under this process; it must open NVML again.
    VersionMismatch,
    /// The driver was unloaded under this process; it must open NVML again.
    DriverGone,
    /// There is no such thing (any more), for instance a MIG instance.
    NotFound,
    /// Anything else, in the driver's words.
    Other(String),
}

impl<T> Fact<T> {
    /// The value, when it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unsupported | Self::Failed(_) => None,
        }
    }

    /// Why it could not be read, when it should be there.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Failed(fault) => Some(fault),
            Self::Known(_) | Self::Unsupported => None,
        }
    }

    /// The same knowledge about something derived from the value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known(value) => Fact::Known(f(value)),
            Self::Unsupported => Fact::Unsupported,
            Self::Failed(fault) => Fact::Failed(fault),
        }
    }

    pub(crate) fn read(answer: Result<T, NvmlError>) -> Self {
        use NvmlError as E;
        match answer {
            Ok(value) => Self::Known(value),
            // A function or a struct that the library does not know is a driver too old for the question.
            Err(
                E::NotSupported
                | E::FailedToLoadSymbol(_)
                | E::FunctionNotFound
                | E::UnexpectedVariant(ARGUMENT_VERSION_MISMATCH),
            ) => Self::Unsupported,
            Err(e) => Self::Failed(Fault::of(&e)),
        }
    }
}

impl Fault {
    /// NVML must be opened again before anything can be read.
    pub fn is_of_the_driver(&self) -> bool {
        matches!(self, Self::VersionMismatch | Self::DriverGone)
    }

    /// A bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NoPermission => "no_permission",
            Self::Lost => "lost",
            Self::ResetRequired => "reset_required",
            Self::VersionMismatch => "version_mismatch",
            Self::DriverGone => "driver_gone",
            Self::NotFound => "not_found",
            Self::Other(_) => "other",
        }
    }

    pub(crate) fn of(error: &NvmlError) -> Self {
        match error {
            NvmlError::NoPermission => Self::NoPermission,
            NvmlError::GpuLost => Self::Lost,
            NvmlError::ResetRequired => Self::ResetRequired,
            NvmlError::LibRmVersionMismatch => Self::VersionMismatch,
            NvmlError::Uninitialized | NvmlError::DriverNotLoaded => Self::DriverGone,
            NvmlError::NotFound => Self::NotFound,
            other => Self::Other(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(e: NvmlError) -> Fact<u32> {
        Fact::read(Err(e))
    }

    #[test]
    fn an_old_driver_is_not_a_fault() {
        assert_eq!(read(NvmlError::NotSupported), Fact::Unsupported);
        assert_eq!(read(NvmlError::FailedToLoadSymbol("nvmlDeviceGetMemoryInfo_v2".into())), Fact::Unsupported);
        assert_eq!(read(NvmlError::UnexpectedVariant(25)), Fact::Unsupported);
    }

    #[test]
    fn faults_that_ask_for_different_remedies_are_told_apart() {
        assert_eq!(read(NvmlError::GpuLost), Fact::Failed(Fault::Lost));
        assert_eq!(read(NvmlError::NoPermission), Fact::Failed(Fault::NoPermission));
        assert_eq!(read(NvmlError::ResetRequired), Fact::Failed(Fault::ResetRequired));
        assert_eq!(read(NvmlError::LibRmVersionMismatch), Fact::Failed(Fault::VersionMismatch));
        assert!(matches!(read(NvmlError::Unknown), Fact::Failed(Fault::Other(text)) if text.contains("internal driver error")));
    }

    #[test]
    fn only_a_known_fact_has_a_value() {
        assert_eq!(Fact::Known(0).known(), Some(&0));
        assert_eq!(Fact::<u32>::Unsupported.known(), None);
        assert_eq!(Fact::Known(2).map(|n| n * 10), Fact::Known(20));
        assert_eq!(Fact::<u32>::Failed(Fault::Lost).map(|n| n * 10), Fact::Failed(Fault::Lost));
    }
}
