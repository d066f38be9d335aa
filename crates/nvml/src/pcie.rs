//! A GPU's traffic with the host and what went wrong with it. The fields are of `nvml.h` (`NVML_FI_DEV_PCIE_COUNT_*`); a GPU
//! or a driver that does not count one of them says so, field by field.

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings::field_id as id;
use serde::{Deserialize, Serialize};

use crate::fact::Fact;
use crate::raw;

/// Traffic with the host. Counters count since the driver was loaded.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Pcie {
    /// Sent by the GPU, in bytes; may wrap around.
    pub tx_bytes: Fact<u64>,
    /// Received by the GPU, in bytes; may wrap around.
    pub rx_bytes: Fact<u64>,
    /// Transfers that were repeated.
    pub replays: Fact<u64>,
    /// Errors of each kind, in the order of [`PcieError::ALL`].
    pub errors: Vec<PcieErrors>,
    /// Generation in use; lower while idle.
    pub generation: Fact<u32>,
    /// Lanes in use.
    pub width: Fact<u32>,
}

/// Errors of one kind.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PcieErrors {
    pub kind: PcieError,
    pub count: Fact<u64>,
}

/// A kind of error that a PCIe device counts.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum PcieError {
    Correctable,
    NaksReceived,
    Receiver,
    BadTlp,
    NaksSent,
    BadDllp,
    NonFatal,
    Fatal,
    UnsupportedRequest,
    Lcrc,
    Lane,
}

impl PcieError {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Correctable,
        Self::NaksReceived,
        Self::Receiver,
        Self::BadTlp,
        Self::NaksSent,
        Self::BadDllp,
        Self::NonFatal,
        Self::Fatal,
        Self::UnsupportedRequest,
        Self::Lcrc,
        Self::Lane,
    ];

    /// For labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Correctable => "correctable",
            Self::NaksReceived => "naks_received",
            Self::Receiver => "receiver",
            Self::BadTlp => "bad_tlp",
            Self::NaksSent => "naks_sent",
            Self::BadDllp => "bad_dllp",
            Self::NonFatal => "non_fatal",
            Self::Fatal => "fatal",
            Self::UnsupportedRequest => "unsupported_request",
            Self::Lcrc => "lcrc",
            Self::Lane => "lane",
        }
    }

    fn field(self) -> u32 {
        match self {
            Self::Correctable => id::NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS,
            Self::NaksReceived => id::NVML_FI_DEV_PCIE_COUNT_NAKS_RECEIVED,
            Self::Receiver => id::NVML_FI_DEV_PCIE_COUNT_RECEIVER_ERROR,
            Self::BadTlp => id::NVML_FI_DEV_PCIE_COUNT_BAD_TLP,
            Self::NaksSent => id::NVML_FI_DEV_PCIE_COUNT_NAKS_SENT,
            Self::BadDllp => id::NVML_FI_DEV_PCIE_COUNT_BAD_DLLP,
            Self::NonFatal => id::NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR,
            Self::Fatal => id::NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR,
            Self::UnsupportedRequest => id::NVML_FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ,
            Self::Lcrc => id::NVML_FI_DEV_PCIE_COUNT_LCRC_ERROR,
            Self::Lane => id::NVML_FI_DEV_PCIE_COUNT_LANE_ERROR,
        }
    }
}

impl Pcie {
    pub(crate) fn read(device: &Device<'_>) -> Self {
        let [tx_bytes, rx_bytes] = raw::facts(
            device,
            [id::NVML_FI_DEV_PCIE_COUNT_TX_BYTES, id::NVML_FI_DEV_PCIE_COUNT_RX_BYTES].map(|field| (field, 0)),
        );
        let counts = raw::facts(device, PcieError::ALL.map(|kind| (kind.field(), 0)));
        let errors = PcieError::ALL.into_iter().zip(counts).map(|(kind, count)| PcieErrors { kind, count });
        Self {
            tx_bytes,
            rx_bytes,
            replays: Fact::read(device.pcie_replay_counter()).map(u64::from),
            errors: errors.collect(),
            generation: Fact::read(device.current_pcie_link_gen()),
            width: Fact::read(device.current_pcie_link_width()),
        }
    }
}
