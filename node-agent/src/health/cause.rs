//! What can be wrong with a GPU, how bad that is, and when it is over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::State;

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Degraded,
    Sick,
    Lost,
}

impl Severity {
    /// The state that it makes.
    pub fn state(self) -> State {
        match self {
            Self::Degraded => State::Degraded,
            Self::Sick => State::Sick,
            Self::Lost => State::Lost,
        }
    }
}

/// What is wrong.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    OffTheBus,
    DriverGone,
    NotAnswering,
    ResetRequired,
    FatalXid,
    UncorrectedEcc,
    RemapFailed,
    RecoveryAction,
    ShutdownTemperature,
    ContainedXid,
    UnknownXid,
    LinkXid,
    CorrectedEccStorm,
    RemapPending,
    LinkDown,
    Overheating,
    PowerBrake,
}

/// How a cause is judged. The documentation's table is made of these.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// For labels.
    pub word: &'static str,
    pub severity: Severity,
    /// It comes by an event and has no sign that lasts.
    pub by_event: bool,
    /// Without the sign (or the event) for so long it is over.
    pub quiet: Duration,
    /// What raises it, for people.
    pub raised: &'static str,
    /// Whose word that is.
    pub source: &'static str,
}

/// All of them, the worst first.
pub const CAUSES: [Cause; 17] = [
    Cause::OffTheBus,
    Cause::DriverGone,
    Cause::NotAnswering,
    Cause::ResetRequired,
    Cause::FatalXid,
    Cause::UncorrectedEcc,
    Cause::RemapFailed,
    Cause::RecoveryAction,
    Cause::ShutdownTemperature,
    Cause::ContainedXid,
    Cause::UnknownXid,
    Cause::LinkXid,
    Cause::CorrectedEccStorm,
    Cause::RemapPending,
    Cause::LinkDown,
    Cause::Overheating,
    Cause::PowerBrake,
];

const RETURNS: &str = "NVML API reference, nvmlReturn_t";
const XID: &str = "NVIDIA Xid Errors, Analyzing Xid Errors with the Xid Catalog, table 1";
const FLAGS: &str = "NVIDIA GPU Memory Error Management, Error Recovery and Response Flags";
const EVENTS: &str = "NVML API reference, nvmlEventTypes";
const CLOCKS: &str = "NVML API reference, nvmlClocksEventReasons";

/// Signs that flicker are one bad period.
const FLICKER: u64 = 10;
/// A cause of which only an event tells is believed for so long, when neither a reset nor the driver ends it before.
const MEMORY_OF_EVENTS: u64 = 600;

impl Cause {
    /// How it is judged.
    pub fn rule(self) -> Rule {
        use Severity::{Degraded, Lost, Sick};
        let sign = |word, severity, seconds, raised, source| Rule {
            word,
            severity,
            by_event: false,
            quiet: Duration::from_secs(seconds),
            raised,
            source,
        };
        let event = |word, severity, raised, source| Rule {
            word,
            severity,
            by_event: true,
            quiet: Duration::from_secs(MEMORY_OF_EVENTS),
            raised,
            source,
        };
        match self {
            Self::OffTheBus => {
                sign("off_the_bus", Lost, 30, "a call answers GPU_IS_LOST, XID 79, or the driver counts it no more", RETURNS)
            }
            Self::DriverGone => sign("driver_gone", Lost, 0, "NVML is not open: no driver, or it is being replaced", RETURNS),
            Self::NotAnswering => {
                sign("not_answering", Sick, FLICKER, "a call did not return in `--call-timeout-ms`", "this agent")
            }
            Self::ResetRequired => sign("reset_required", Sick, FLICKER, "a call answers RESET_REQUIRED", RETURNS),
            Self::FatalXid => event("fatal_xid", Sick, "an XID whose remedy is a reset or a reboot, see below", XID),
            Self::UncorrectedEcc => {
                event("uncorrected_ecc", Sick, "the counter of uncorrected memory errors grows, or the driver says so", EVENTS)
            }
            Self::RemapFailed => sign("remap_failed", Sick, 0, "a memory row could not be replaced", FLAGS),
            Self::RecoveryAction => {
                sign("recovery_action", Sick, 0, "the driver says that the GPU needs a reset, a reboot or a drain", FLAGS)
            }
            Self::ShutdownTemperature => sign(
                "shutdown_temperature",
                Sick,
                60,
                "within 1 °C of the shutdown threshold",
                "NVML API reference, nvmlTemperatureThresholds_t",
            ),
            Self::ContainedXid => event("contained_xid", Degraded, "an error that ended a process and no more (XID 94)", XID),
            Self::UnknownXid => {
                event("unknown_xid", Degraded, "an XID that the table below does not have, or to which it names no remedy", XID)
            }
            Self::LinkXid => event("link_xid", Degraded, "an XID of NVLink, see below", XID),
            Self::CorrectedEccStorm => {
                event("corrected_ecc_storm", Degraded, "the driver reports a storm of corrected errors, XID 92", EVENTS)
            }
            Self::RemapPending => {
                sign("remap_pending", Degraded, 0, "a memory row (before Ampere: a page) waits for a reset to be replaced", FLAGS)
            }
            Self::LinkDown => sign(
                "link_down",
                Degraded,
                FLICKER,
                "an NVLink of the board is not up",
                "NVML API reference, nvmlDeviceGetNvLinkState",
            ),
            Self::Overheating => {
                sign("overheating", Degraded, 30, "at the slowdown threshold, or a thermal slowdown is on", CLOCKS)
            }
            Self::PowerBrake => sign("power_brake", Degraded, 30, "the board's power brake is on", CLOCKS),
        }
    }
}
