//! Why clocks are lower than they could be.

/// One reason, by NVML's bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// For labels.
    pub word: &'static str,
    pub bits: u64,
}

/// `nvmlClocksEventReason*` of the NVML API reference. Idle is not among them: clocks that fall because nothing runs are
/// no throttling.
pub const REASONS: [Reason; 8] = [
    Reason { word: "applications_clocks", bits: 0x2 },
    Reason { word: "sw_power_cap", bits: 0x4 },
    Reason { word: "hw_slowdown", bits: 0x8 },
    Reason { word: "sync_boost", bits: 0x10 },
    Reason { word: "sw_thermal", bits: 0x20 },
    Reason { word: "hw_thermal", bits: 0x40 },
    Reason { word: "hw_power_brake", bits: 0x80 },
    Reason { word: "display_clocks", bits: 0x100 },
];
