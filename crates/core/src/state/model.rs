//! A model, its demand and its replicas.

use serde::{Deserialize, Serialize};

use super::{Seat, State};
use crate::ask::{Amount, Ask};
use crate::demand::{self, Budget, Demand, Margin, Need, Promise};
use crate::names::{ModelName, Namespace, QueueName};
use crate::plan::{ActionId, Reason};
use crate::policy::Policy;
use crate::time::At;

/// What a user asked for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    pub queue: QueueName,
    /// Where it was submitted.
    #[serde(default)]
    pub namespace: Namespace,
    pub priority: i32,
    pub ask: Ask,
    pub slo_ms: u64,
    pub min: u32,
    pub max: u32,
    /// With `min` 0: idle time after which the last replica is stopped.
    pub zero_after_ms: u64,
    pub max_rows: u32,
    /// While its need fits such a slice, its one replica has a device together with as many as `max_sharers - 1` others; 1: it
    /// never shares. Only for models whose replica asks for one whole device.
    #[serde(default = "one")]
    pub max_sharers: u32,
    /// Device memory of a replica; absent: a slice counts as its part of the device's memory.
    #[serde(default)]
    pub memory: Option<ModelMemory>,
    /// Rises when replicas must be replaced because what they serve changed.
    pub generation: u64,
}

fn one() -> u32 {
    1
}

/// Device memory of one replica: what stays, and what a batch takes beside it.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelMemory {
    pub weights_mib: u64,
    /// Activations of one row.
    pub row_kib: u64,
}

impl ModelMemory {
    /// With batches of so many rows.
    pub fn mib(self, rows: u32) -> u64 {
        self.weights_mib.saturating_add(self.row_kib.saturating_mul(u64::from(rows)).div_ceil(1024))
    }
}

impl ModelSpec {
    /// Models with which one of its replicas may take turns, itself included.
    pub fn sharers(&self) -> u32 {
        if self.ask.amount == Amount::Whole(1) { self.max_sharers.max(1) } else { 1 }
    }
}

/// A model.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub spec: ModelSpec,
    pub paused: bool,
    pub removed: bool,
    pub demand: Demand,
    /// Devices that the last demand asks for, within the model's limits.
    pub want: u32,
    /// Above 1: it asks for one slice of a device that so many models share.
    #[serde(default = "one")]
    pub want_sharers: u32,
    /// Higher wants of the past, each with the moment until which it held, falling in height.
    pub past_wants: Vec<(At, Need)>,
    /// Late rows, which decide on its head-room.
    #[serde(default)]
    pub budget: Budget,
    /// The highest want ever.
    pub peak_want: u32,
    pub last_request: Option<At>,
    /// From start to ready, decayed average.
    pub load_ms: u64,
    /// Failed replicas since the last that got ready.
    pub failures: u32,
    pub not_before: Option<At>,
}

/// Assumed before the first replica was measured.
const FIRST_LOAD_MS: u64 = 2_000;

impl Model {
    /// A model that was just added.
    pub fn new(spec: ModelSpec) -> Self {
        Self {
            want: spec.min,
            peak_want: 0,
            spec,
            paused: false,
            removed: false,
            demand: Demand::default(),
            want_sharers: 1,
            past_wants: Vec::new(),
            budget: Budget::default(),
            last_request: None,
            load_ms: FIRST_LOAD_MS,
            failures: 0,
            not_before: None,
        }
    }

    /// Takes in a demand sample: what it asks for now, and until when the former want held.
    /// `turn_slo_us` is the strictest SLO of the models that take turns.
    pub fn observe(&mut self, at: At, demand: Demand, policy: &Policy, lead_ms: u64, ready: u32, turn_slo_us: u64) {
        if !demand.is_idle() {
            self.last_request = Some(at);
        }
        let promise = Promise {
            slo_us: self.spec.slo_ms * 1000,
            max_rows: self.spec.max_rows,
            headroom_percent: policy.headroom_percent,
            lead_ms,
        };
        if let Some(late_ppm) = demand.late_ppm {
            self.budget.observe(at, demand.milli_rows_per_s, late_ppm);
        }
        let margin = Margin {
            sigmas_percent: policy.burst_sigmas_percent,
            factor_milli: self.budget.factor_milli(policy.late_ppm),
            max_sharers: self.spec.sharers(),
            turn_slo_us,
        };
        let asked = demand::need(&demand, promise, margin, ready);
        self.peak_want = self.peak_want.max(asked.devices);
        let devices = asked.devices.clamp(self.spec.min, self.spec.max);
        let want = Need { devices, sharers: if devices > 1 { 1 } else { asked.sharers } };
        let former = Need { devices: self.want, sharers: self.want_sharers };
        if want.milli() < former.milli() {
            self.past_wants.retain(|(_, past)| past.milli() > former.milli());
            self.past_wants.push((at, former));
        }
        (self.want, self.want_sharers) = (want.devices, want.sharers);
        self.past_wants.retain(|(until, past)| past.milli() > want.milli() && at.since(*until) < policy.lend_after_ms);
        self.demand = demand;
    }

    /// Replicas that it should have: the highest want of the last `lend_after_ms`, and one while it is not asleep.
    pub fn target(&self, now: At, policy: &Policy) -> u32 {
        if self.paused || self.removed {
            return 0;
        }
        let past = self.past(now, policy).map_or(0, |past| past.devices);
        let awake = u32::from(self.awake_until().is_some_and(|until| now < until));
        past.max(self.want).max(awake).clamp(self.spec.min, self.spec.max)
    }

    /// The highest want of the last `lend_after_ms`, if it was higher than that of now.
    fn past(&self, now: At, policy: &Policy) -> Option<Need> {
        let past = self.past_wants.iter().filter(|(until, _)| now.since(*until) < policy.lend_after_ms);
        past.map(|(_, want)| *want).max_by_key(|want| want.milli())
    }

    /// Above 1: what it wanted for `lend_after_ms` fits the slice of a device that so many share.
    pub fn sharers(&self, now: At, policy: &Policy) -> u32 {
        self.past(now, policy).map_or(self.want_sharers, |past| past.sharers)
    }

    /// The SLO to which turns on a shared device must be cut; absent: it takes none.
    pub fn turn_slo_us(&self) -> Option<u64> {
        let slo_us = self.spec.slo_ms * 1000;
        let can = self.demand.service.is_none_or(|service| service.may_share(slo_us, 2));
        (self.spec.sharers() > 1 && !self.removed && can).then_some(slo_us)
    }

    /// What a new replica asks for.
    pub fn ask(&self, now: At, policy: &Policy) -> Ask {
        let sharers = self.sharers(now, policy);
        match u16::try_from(1000 / sharers.max(1)) {
            Ok(milli) if sharers > 1 => {
                let with = |memory: ModelMemory| Amount::Slice { milli, mib: memory.mib(self.spec.max_rows) };
                Ask { amount: self.spec.memory.map_or(Amount::Milli(milli), with), ..self.spec.ask.clone() }
            }
            _ => self.spec.ask.clone(),
        }
    }

    /// The next moment at which [`Self::target`] may fall by itself.
    pub fn next_change(&self, now: At, policy: &Policy) -> Option<At> {
        let past = self.past_wants.iter().map(|(until, _)| until.plus(policy.lend_after_ms));
        past.chain(self.awake_until()).chain(self.not_before).filter(|at| *at > now).min()
    }

    /// Until when the last request keeps one replica.
    fn awake_until(&self) -> Option<At> {
        self.last_request.map(|at| at.plus(self.spec.zero_after_ms))
    }
}

/// A replica on a device.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub model: ModelName,
    /// What it holds: the model may ask for something else by now.
    pub ask: Ask,
    /// Where it is; the group is 0.
    pub seat: Seat,
    pub generation: u64,
    pub since: At,
    pub phase: ReplicaPhase,
    pub stop: Option<ReplicaStop>,
    /// The action that starts it; it may still wait for others.
    pub start: ActionId,
}

impl Replica {
    /// Thousandths of devices that it holds.
    pub fn milli(&self, state: &State) -> u64 {
        state.devices_of(&self.seat).map(|device| u64::from(self.ask.milli_on(device))).sum()
    }
}

/// How far a replica is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaPhase {
    /// Ordered: waiting for its device, or loading.
    Starting,
    Ready,
}

/// A replica that was told to end.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStop {
    pub action: ActionId,
    pub reason: Reason,
}
