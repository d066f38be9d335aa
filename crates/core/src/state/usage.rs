//! Device-time, integrated as time goes on: rates that hold between two changes, and what has ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EVICTION_WINDOW_MS, Phase, State};
use crate::names::QueueName;
use crate::quota::decay;
use crate::time::At;

/// Device-milliseconds since the engine was made.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub at: Option<At>,
    pub device_ms: u64,
    /// Used above a queue's nominal while others used less than theirs.
    pub lent_ms: u64,
    /// Devices that are not lost, and thousandths that are lent, since the last change.
    pub devices: u64,
    pub lent_milli: u64,
    /// By `job/NAME` and `model/NAME`, of what has ended. [`State::held_ms`] adds what still runs.
    pub held_ms: BTreeMap<String, u64>,
    /// GPU-milliseconds by queue, halved after each [`crate::policy::Policy::half_life_ms`].
    pub decayed_ms: BTreeMap<QueueName, u64>,
    /// The same as of the last moment at which it faded. Shares go by this: between two of these moments they do not move by
    /// themselves, and nobody has to look.
    #[serde(default)]
    pub settled_ms: BTreeMap<QueueName, u64>,
    /// Thousandths of GPUs by queue, since the last decision; empty when nothing counts the past.
    #[serde(default)]
    pub used_milli: BTreeMap<QueueName, u64>,
}

impl State {
    /// Moves time forward: books what was held since, and forgets evictions that left the window.
    pub(crate) fn advance(&mut self, at: At) {
        self.now = self.now.max(at);
        let now = self.now;
        if self.evictions.first().is_some_and(|at| now.since(*at) >= EVICTION_WINDOW_MS) {
            self.evictions.retain(|at| now.since(*at) < EVICTION_WINDOW_MS);
        }
        if !self.remembered.is_empty() && self.remembered.until <= now {
            self.remembered = super::Remembered::default();
        }
        let elapsed = self.usage.at.map_or(0, |from| now.since(from));
        self.usage.at = Some(now);
        self.usage.device_ms += self.usage.devices * elapsed;
        self.usage.lent_ms += self.usage.lent_milli * elapsed / 1000;
        self.remember_used(elapsed);
    }

    /// Lets the past fade, and adds what queues used for the last `elapsed` milliseconds.
    fn remember_used(&mut self, elapsed: u64) {
        let (from, now, half_life_ms) = (At(self.now.0 - elapsed), self.now, self.policy.half_life_ms);
        let fades = decay::next_step(from, half_life_ms) <= now;
        let usage = &mut self.usage;
        usage.decayed_ms.values_mut().for_each(|past| *past = decay::faded(*past, from, now, half_life_ms));
        usage.decayed_ms.retain(|_, past| *past > 0);
        for (queue, milli) in usage.used_milli.iter().filter(|_| elapsed > 0) {
            let past = usage.decayed_ms.entry(queue.clone()).or_default();
            *past = past.saturating_add(milli.saturating_mul(elapsed) / 1000);
        }
        if fades {
            usage.settled_ms.clone_from(&usage.decayed_ms);
        }
    }

    /// The next moment at which the past fades.
    pub(crate) fn next_fade(&self) -> At {
        decay::next_step(self.now, self.policy.half_life_ms)
    }

    /// Books what a holder held from `since` until now.
    pub(crate) fn book(&mut self, holder: String, milli: u64, since: At) {
        *self.usage.held_ms.entry(holder).or_default() += milli * self.now.since(since) / 1000;
    }

    /// Device-milliseconds by `job/NAME` and `model/NAME`, what still runs included.
    pub fn held_ms(&self) -> BTreeMap<String, u64> {
        let mut held = self.usage.held_ms.clone();
        for (name, job) in self.jobs.iter() {
            if let Phase::Running(run) = &job.phase {
                let milli: u64 = run.seats.iter().map(|seat| job.seat_milli(self, seat)).sum();
                *held.entry(format!("job/{name}")).or_default() += milli * self.now.since(run.since) / 1000;
            }
        }
        for replica in self.replicas.values() {
            let milli = replica.milli(self);
            *held.entry(format!("model/{}", replica.model)).or_default() += milli * self.now.since(replica.since) / 1000;
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_moments_of_fading_the_past_by_which_shares_go_stands_still() {
        let mut state = State::default();
        // It fades once a second.
        state.policy.half_life_ms = 1_000 * decay::STEPS;
        state.usage.used_milli.insert("q".into(), 1_000);
        state.advance(At(10_100));
        state.advance(At(10_900));
        assert_eq!(state.usage.decayed_ms[&"q".into()], 800);
        assert!(state.usage.settled_ms.is_empty(), "{:?}", state.usage);
        state.advance(At(11_000));
        let settled = state.usage.decayed_ms.clone();
        assert_eq!(state.usage.settled_ms, settled);
        state.advance(At(11_900));
        assert!(state.usage.settled_ms == settled && state.usage.decayed_ms != settled, "{:?}", state.usage);
    }
}
