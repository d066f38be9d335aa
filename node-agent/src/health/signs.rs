//! What one reading says about the health of its GPU.

use tidegate_nvml::{Fact, Fault, Identity, Reading};

use super::Cause;

/// `nvmlClocksEventReason{Sw,Hw}ThermalSlowdown` and `HwPowerBrakeSlowdown`.
const THERMAL: u64 = 0x20 | 0x40;
const POWER_BRAKE: u64 = 0x80;

/// About one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It is so; the evidence in words.
    Bad(String),
    /// It is not so, or cannot be on this GPU.
    Good,
    /// It could not be read.
    Unknown,
}

impl Sign {
    fn of(fact: Fact<Option<String>>) -> Self {
        match fact {
            Fact::Known(Some(evidence)) => Self::Bad(evidence),
            Fact::Known(None) | Fact::Unsupported => Self::Good,
            Fact::Failed(_) => Self::Unknown,
        }
    }

    fn when(bad: bool, evidence: &str) -> Option<String> {
        bad.then(|| evidence.to_owned())
    }
}

/// All signs of one reading.
#[derive(Clone, Debug)]
pub struct Signs {
    /// The GPU answered.
    pub answers: bool,
    /// The driver says that it needs nothing.
    pub absolved: bool,
    /// Another number after the driver went away.
    pub load: u32,
    list: Vec<(Cause, Sign)>,
}

impl Signs {
    /// The GPU answered.
    pub fn of(identity: &Identity, reading: &Reading, load: u32) -> Self {
        let mut signs: Vec<(Cause, Sign)> = [Cause::OffTheBus, Cause::DriverGone, Cause::NotAnswering, Cause::ResetRequired]
            .map(|cause| (cause, Sign::Good))
            .into();
        if let Some(Fault::ResetRequired) = reading.memory.fault() {
            signs.retain(|(cause, _)| *cause != Cause::ResetRequired);
            signs.push((Cause::ResetRequired, Sign::Bad("the driver answers RESET_REQUIRED".into())));
        }
        let rows = reading.remapped_rows.clone();
        let pending = match reading.retirement_pending {
            Fact::Known(true) => Sign::Bad("a memory page waits for a reset to be retired".into()),
            _ => Sign::of(rows.clone().map(|rows| Sign::when(rows.pending, "a memory row waits for a reset to be replaced"))),
        };
        signs.push((Cause::RemapPending, pending));
        signs
            .push((Cause::RemapFailed, Sign::of(rows.map(|rows| Sign::when(rows.failed, "a memory row could not be replaced")))));
        let action =
            |action: u32| (action != 0).then(|| format!("the driver asks for recovery action {action}: {}", recovery(action)));
        signs.push((Cause::RecoveryAction, Sign::of(reading.recovery_action.clone().map(action))));
        signs.push((Cause::LinkDown, links(reading)));
        signs.push((Cause::ShutdownTemperature, shutdown(identity, reading)));
        signs.push((Cause::Overheating, overheating(identity, reading)));
        let brake =
            reading.throttle.clone().map(|throttle| Sign::when(throttle.bits & POWER_BRAKE != 0, "the power brake is on"));
        signs.push((Cause::PowerBrake, Sign::of(brake)));
        Self { answers: true, absolved: reading.recovery_action == Fact::Known(0), load, list: signs }
    }

    /// The GPU could not be read, for one reason.
    pub fn none(cause: Cause, evidence: impl Into<String>, load: u32) -> Self {
        Self { answers: false, absolved: false, load, list: vec![(cause, Sign::Bad(evidence.into()))] }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Cause, &Sign)> {
        self.list.iter().map(|(cause, sign)| (*cause, sign))
    }
}

/// `nvmlDeviceGpuRecoveryAction_t`.
fn recovery(action: u32) -> &'static str {
    match action {
        0 => "none",
        1 => "reset the GPU",
        2 => "reboot the node",
        3 => "drain P2P traffic",
        4 => "drain and reset",
        _ => "see the driver's documentation",
    }
}

fn links(reading: &Reading) -> Sign {
    let links = &reading.nvlink.links;
    let down: Vec<String> =
        links.iter().filter(|link| link.up == Fact::Known(false)).map(|link| link.number.to_string()).collect();
    if !down.is_empty() {
        return Sign::Bad(format!("NVLink {} of {} down", down.join(", "), links.len()));
    }
    if links.iter().any(|link| link.up.fault().is_some()) { Sign::Unknown } else { Sign::Good }
}

fn shutdown(identity: &Identity, reading: &Reading) -> Sign {
    let Fact::Known(limit) = identity.shutdown_celsius else { return Sign::Good };
    let near = |celsius: u32| (celsius + 1 >= limit).then(|| format!("{celsius} °C; shuts down at {limit} °C"));
    Sign::of(reading.temperatures.gpu_celsius.clone().map(near))
}

fn overheating(identity: &Identity, reading: &Reading) -> Sign {
    if reading.throttle.known().is_some_and(|throttle| throttle.bits & THERMAL != 0) {
        return Sign::Bad("a thermal slowdown is on".into());
    }
    let hot = |celsius: u32| match identity.slowdown_celsius {
        Fact::Known(limit) => (celsius >= limit).then(|| format!("{celsius} °C; slows down at {limit} °C")),
        Fact::Unsupported | Fact::Failed(_) => None,
    };
    Sign::of(reading.temperatures.gpu_celsius.clone().map(hot))
}

#[cfg(test)]
impl Signs {
    /// A GPU that answers, with exactly these things wrong that a reading can show.
    pub(super) fn test(bad: &[Cause], load: u32) -> Self {
        let sign = |cause: Cause| (cause, if bad.contains(&cause) { Sign::Bad("test".into()) } else { Sign::Good });
        Self { answers: true, absolved: false, load, list: super::CAUSES.map(sign).into() }
    }

    pub(super) fn replace(&mut self, cause: Cause, sign: Sign) {
        self.list.retain(|(known, _)| *known != cause);
        self.list.push((cause, sign));
    }
}
