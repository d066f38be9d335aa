//! One GPU as the agent knows it: what it is, its last reading, totals that never go back, who used it, its health.
//! Pure: readings and the time are arguments.

mod instance;
mod throttle;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidegate_nvml::{Activity, Event, EventKind, Fact, Fault, Identity, MigInstance, PcieError, Reading, Throttle};

use crate::counter::{Pace, Seconds, Step, Total};
use crate::health::{Cause, Health, Signs, Transition};
use crate::pods::{Owners, Place};

pub use instance::Instance;
pub use throttle::{REASONS, Reason};
pub use usage::{Holder, Running, Share, Usage, User};

/// XIDs are counted by number; above so many different ones the rest is counted together as 0.
const MOST_XIDS: usize = 64;

/// Totals of a GPU since the driver began to count them, or since the agent first saw it.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Time that samples stand for.
    pub pace: Pace,
    /// Any kernel was resident.
    pub resident: Seconds,
    /// Memory was read or written.
    pub memory_active: Seconds,
    /// What GPM measures.
    pub busy: Busy,
    /// By reason, in the order of [`REASONS`].
    pub throttled: [Seconds; REASONS.len()],
    /// Millijoules of the driver's counter.
    pub energy: Total,
    /// Joules of sampled power over time, where there is no counter.
    pub sampled_joules: Option<f64>,
    pub pcie_tx: Total,
    pub pcie_rx: Total,
    pub pcie_replays: Total,
    pub pcie_errors: BTreeMap<PcieError, Total>,
    pub nvlink_tx: Total,
    pub nvlink_rx: Total,
    /// By link.
    pub link_errors: BTreeMap<u32, Total>,
    pub ecc_corrected: Total,
    pub ecc_uncorrected: Total,
}

/// Seconds of what GPM measures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Busy {
    pub sm: Seconds,
    pub occupancy: Seconds,
    pub tensor: Seconds,
    pub memory_bandwidth: Seconds,
}

impl Busy {
    fn add(&mut self, activity: &Activity, seconds: f64) {
        let pairs = [
            (&mut self.sm, &activity.sm),
            (&mut self.occupancy, &activity.occupancy),
            (&mut self.tensor, &activity.tensor),
            (&mut self.memory_bandwidth, &activity.memory_bandwidth),
        ];
        for (total, share) in pairs {
            if let Fact::Known(share) = share {
                total.add(*share, seconds);
            }
        }
    }
}

/// Of one XID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XidCount {
    pub count: u64,
    /// Since the agent's start.
    pub last: Duration,
}

/// From where the busy time of a GPU is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivitySource {
    /// Multiprocessors with a warp, measured by the hardware.
    Gpm,
    /// Sampled: any kernel was resident.
    Resident,
}

impl ActivitySource {
    /// For labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gpm => "sm",
            Self::Resident => "resident",
        }
    }
}

/// The moment of a reading.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Another number after the driver went away.
    pub load: u32,
    pub at: Duration,
    /// A longer gap since the last reading is not filled with samples.
    pub longest: Duration,
}

/// One GPU.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub identity: Identity,
    /// Under which opening of NVML it was last there.
    pub seen: u32,
    /// The last one, and when it was.
    pub reading: Option<(Reading, Duration)>,
    /// Why the last try gave none.
    pub fault: Option<Fault>,
    pub totals: Totals,
    pub health: Health,
    pub xids: BTreeMap<u64, XidCount>,
    /// Other events of the driver.
    pub events: BTreeMap<EventKind, u64>,
    /// By UUID.
    pub instances: BTreeMap<String, Instance>,
    pub usage: Usage,
}

impl Gpu {
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            seen: 0,
            reading: None,
            fault: None,
            totals: Totals::default(),
            health: Health::default(),
            xids: BTreeMap::new(),
            events: BTreeMap::new(),
            instances: BTreeMap::new(),
            usage: Usage::default(),
        }
    }

    /// A reading, with where its processes run and who was given what.
    pub fn observe(&mut self, reading: Reading, places: &HashMap<u32, Place>, owners: &Owners, now: Now) -> Option<Transition> {
        let Now { load, at, longest } = now;
        let step = self.totals.pace.step(at, longest);
        let uncorrected = self.totals.ecc_uncorrected.get();
        let busy = self.integrate(&reading, load, step);
        let instances = self.instances(&reading, step);
        let allocated = owners.holders_of(&self.identity, &reading.instances);
        self.usage.observe(&reading, &Share { busy, elapsed: step.elapsed, instances }, &allocated, places, owners);
        let signs = Signs::of(&self.identity, &reading, load);
        let (from, _) = (self.health.state(), self.health.observe(&signs, at));
        if let (Some(before), Some(now)) = (uncorrected, self.totals.ecc_uncorrected.get())
            && now > before
        {
            self.health.event(Cause::UncorrectedEcc, &format!("{} uncorrected memory errors more", now - before), load, at);
        }
        (self.reading, self.fault) = (Some((reading, at)), None);
        let to = self.health.state();
        (from != to).then_some(Transition { from, to })
    }

    /// A reading that failed as a whole.
    pub fn failed(&mut self, fault: Fault, load: u32, at: Duration) -> Option<Transition> {
        let (cause, evidence) = match &fault {
            Fault::Lost | Fault::NotFound => (Cause::OffTheBus, "the driver answers GPU_IS_LOST".to_owned()),
            Fault::VersionMismatch | Fault::DriverGone => (Cause::DriverGone, "the driver is being replaced".to_owned()),
            Fault::ResetRequired => (Cause::ResetRequired, "the driver answers RESET_REQUIRED".to_owned()),
            Fault::NoPermission | Fault::Other(_) => (Cause::NotAnswering, format!("cannot be read: {fault:?}")),
        };
        self.fault = Some(fault);
        self.health.observe(&Signs::none(cause, evidence, load), at)
    }

    /// Nothing is heard of it at all.
    pub fn missing(&mut self, cause: Cause, evidence: impl Into<String>, load: u32, at: Duration) -> Option<Transition> {
        self.health.observe(&Signs::none(cause, evidence, load), at)
    }

    /// The driver reports something by itself.
    pub fn event(&mut self, event: &Event, load: u32, at: Duration) -> Option<Transition> {
        let text = |what: &str| format!("the driver reports {what}");
        let cause = match event.kind {
            EventKind::Xid => {
                self.count_xid(event.data, at);
                return self.health.xid(event.data, load, at);
            }
            EventKind::UncorrectedEcc => (Cause::UncorrectedEcc, text("an uncorrected memory error")),
            EventKind::CorrectedEccStorm => (Cause::CorrectedEccStorm, text("a storm of corrected memory errors")),
            EventKind::PoisonContained => (Cause::ContainedXid, text("a contained memory error")),
            // The next reading tells what came of these.
            EventKind::PageRetired | EventKind::MigChanged | EventKind::Unavailable | EventKind::RecoveryAction => {
                *self.events.entry(event.kind).or_default() += 1;
                return None;
            }
        };
        *self.events.entry(event.kind).or_default() += 1;
        self.health.event(cause.0, &cause.1, load, at)
    }

    /// Which of the two kinds of busy time this GPU gives.
    pub fn activity_source(&self) -> ActivitySource {
        if self.totals.busy.sm.get().is_some() { ActivitySource::Gpm } else { ActivitySource::Resident }
    }

    /// Busy seconds of that kind.
    pub fn active_seconds(&self) -> Option<f64> {
        self.totals.busy.sm.get().or(self.totals.resident.get())
    }

    fn count_xid(&mut self, xid: u64, at: Duration) {
        let known = self.xids.contains_key(&xid) || self.xids.len() < MOST_XIDS;
        let entry = self.xids.entry(if known { xid } else { 0 }).or_insert(XidCount { count: 0, last: at });
        entry.count += 1;
        entry.last = at;
    }

    /// Adds the reading to the totals; says for how much of the step the GPU was busy.
    fn integrate(&mut self, reading: &Reading, load: u32, step: Step) -> f64 {
        let totals = &mut self.totals;
        let mut resident = 0.0;
        if let Fact::Known(utilization) = &reading.utilization {
            resident = f64::from(utilization.resident_permille) / 1000.0 * step.sampled;
            totals.resident.add(f64::from(utilization.resident_permille) / 1000.0, step.sampled);
            totals.memory_active.add(f64::from(utilization.memory_permille) / 1000.0, step.sampled);
        }
        if let Some(activity) = &reading.activity {
            // Its samples chain over all the time since the last reading, gaps too.
            totals.busy.add(activity, step.elapsed);
        }
        if let Fact::Known(Throttle { bits }) = reading.throttle {
            for (seconds, reason) in totals.throttled.iter_mut().zip(REASONS) {
                seconds.add(if bits & reason.bits == 0 { 0.0 } else { 1.0 }, step.sampled);
            }
        }
        self.energy(reading, load, step);
        self.counters(reading, load);
        match (self.activity_source(), reading.activity.as_ref().map(|activity| &activity.sm)) {
            (ActivitySource::Gpm, Some(Fact::Known(share))) => share * step.elapsed,
            // Between two measured steps nothing is measured; a sample would be of another kind.
            (ActivitySource::Gpm, _) => 0.0,
            (ActivitySource::Resident, _) => resident,
        }
    }

    fn energy(&mut self, reading: &Reading, load: u32, step: Step) {
        match (&reading.power.energy_millijoules, &reading.power.draw_milliwatts) {
            (Fact::Known(millijoules), _) => self.totals.energy.observe(*millijoules, load),
            (Fact::Unsupported, Fact::Known(milliwatts)) => {
                let joules = f64::from(*milliwatts) / 1000.0 * step.sampled;
                self.totals.sampled_joules = Some(self.totals.sampled_joules.unwrap_or(0.0) + joules);
            }
            _ => {}
        }
    }

    fn counters(&mut self, reading: &Reading, load: u32) {
        let totals = &mut self.totals;
        let pairs = [
            (&mut totals.pcie_tx, &reading.pcie.tx_bytes),
            (&mut totals.pcie_rx, &reading.pcie.rx_bytes),
            (&mut totals.pcie_replays, &reading.pcie.replays),
            (&mut totals.nvlink_tx, &reading.nvlink.tx_bytes),
            (&mut totals.nvlink_rx, &reading.nvlink.rx_bytes),
            (&mut totals.ecc_corrected, &reading.ecc.corrected),
            (&mut totals.ecc_uncorrected, &reading.ecc.uncorrected),
        ];
        for (total, raw) in pairs {
            if let Fact::Known(raw) = raw {
                total.observe(*raw, load);
            }
        }
        for errors in &reading.pcie.errors {
            if let Fact::Known(count) = errors.count {
                totals.pcie_errors.entry(errors.kind).or_default().observe(count, load);
            }
        }
        for link in &reading.nvlink.links {
            if let Fact::Known(errors) = link.errors {
                totals.link_errors.entry(link.number).or_default().observe(errors, load);
            }
        }
    }

    /// Keeps what is there, begins what is new, drops what was destroyed. Says for how much of the step each was busy.
    fn instances(&mut self, reading: &Reading, step: Step) -> Vec<(String, f64)> {
        let Fact::Known(list) = &reading.instances else { return Vec::new() };
        self.instances.retain(|uuid, _| list.iter().any(|instance| instance.uuid.as_str() == uuid));
        let observe = |told: &MigInstance| {
            let instance = self.instances.entry(told.uuid.to_string()).or_insert_with(|| Instance::new(told.clone()));
            let before = instance.busy.sm.get().unwrap_or(0.0);
            instance.observe(told.clone(), step.elapsed);
            (told.uuid.to_string(), instance.busy.sm.get().unwrap_or(0.0) - before)
        };
        list.iter().map(observe).collect()
    }
}

#[cfg(test)]
mod tests;
