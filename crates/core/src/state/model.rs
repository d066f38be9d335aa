//! A model, its demand and its replicas.

use serde::{Deserialize, Serialize};

use super::{Seat, State};
use crate::ask::Ask;
use crate::demand::{self, Demand, Promise};
use crate::names::{ModelName, QueueName};
use crate::plan::{ActionId, Reason};
use crate::policy::Policy;
use crate::time::At;

/// What a user asked for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    pub queue: QueueName,
    pub priority: i32,
    pub ask: Ask,
    pub slo_ms: u64,
    pub min: u32,
    pub max: u32,
    /// With `min` 0: idle time after which the last replica is stopped.
    pub zero_after_ms: u64,
    pub max_rows: u32,
    /// Rises when replicas must be replaced because what they serve changed.
    pub generation: u64,
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
    /// Higher wants of the past, each with the moment until which it held, falling in height.
    pub past_wants: Vec<(At, u32)>,
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
            past_wants: Vec::new(),
            last_request: None,
            load_ms: FIRST_LOAD_MS,
            failures: 0,
            not_before: None,
        }
    }

    /// Takes in a demand sample: what it asks for now, and until when the former want held.
    pub fn observe(&mut self, at: At, demand: Demand, policy: &Policy, lead_ms: u64, ready: u32) {
        if !demand.is_idle() {
            self.last_request = Some(at);
        }
        let promise = Promise {
            slo_us: self.spec.slo_ms * 1000,
            max_rows: self.spec.max_rows,
            headroom_percent: policy.headroom_percent,
            lead_ms,
        };
        let asked = demand::devices(&demand, promise, ready);
        self.peak_want = self.peak_want.max(asked);
        let want = asked.clamp(self.spec.min, self.spec.max);
        if want < self.want {
            self.past_wants.retain(|(_, height)| *height > self.want);
            self.past_wants.push((at, self.want));
        }
        self.want = want;
        self.past_wants.retain(|(until, height)| *height > want && at.since(*until) < policy.lend_after_ms);
        self.demand = demand;
    }

    /// Replicas that it should have: the highest want of the last `lend_after_ms`, and one while it is not asleep.
    pub fn target(&self, now: At, policy: &Policy) -> u32 {
        if self.paused || self.removed {
            return 0;
        }
        let past = self.past_wants.iter().filter(|(until, _)| now.since(*until) < policy.lend_after_ms).map(|(_, want)| *want);
        let awake = u32::from(self.awake_until().is_some_and(|until| now < until));
        past.fold(self.want.max(awake), u32::max).clamp(self.spec.min, self.spec.max)
    }

    /// The next moment at which [`Self::target`] may fall by itself.
    pub fn next_change(&self, now: At, policy: &Policy) -> Option<At> {
        let past = self.past_wants.iter().map(|(until, _)| until.plus(policy.lend_after_ms));
        past.chain(self.awake_until()).chain(self.not_before).filter(|at| *at > now).min()
    }

    /// Thousandths of devices that a replica's seat takes.
    pub fn seat_milli(&self, state: &State, seat: &Seat) -> u64 {
        state.devices_of(seat).map(|device| u64::from(self.spec.ask.milli_on(device))).sum()
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
    /// Where it is; the group is 0.
    pub seat: Seat,
    pub generation: u64,
    pub since: At,
    pub phase: ReplicaPhase,
    pub stop: Option<ReplicaStop>,
    /// The action that starts it; it may still wait for others.
    pub start: ActionId,
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
