//! What a run came to.

use std::collections::BTreeMap;

use super::Ms;

/// A mean over workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mean {
    pub count: u64,
    pub sum: u64,
}

impl Mean {
    pub fn add(&mut self, value: u64) {
        self.count += 1;
        self.sum += value;
    }

    /// 0 of nothing.
    pub fn value(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }
}

/// Figures of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Workloads that ended.
    pub workloads: u64,
    /// From the start to the last end.
    pub makespan_ms: Ms,
    /// Admitted usage over nominal quota, over all of the makespan, in percent; of the first resource.
    pub usage_percent: f64,
    /// From creation to the last admission, by group of classes.
    pub admit_ms: BTreeMap<String, Mean>,
    /// Evictions carried out.
    pub evictions: u64,
    pub cycles: u64,
    /// Time spent in the scheduler's functions.
    pub scheduler_ns: u64,
    /// Time of each cycle with verdicts kept, ascending.
    pub cycle_ns: Vec<u64>,
    /// Time of each cycle with every queue dirty and no verdicts kept, ascending.
    pub cold_ns: Vec<u64>,
    /// Time spent in the scheduler since the first workload came that was not there at the start, and events told since.
    pub steady_ns: u64,
    pub steady_events: u64,
}

impl Figures {
    /// Workloads over time spent in the scheduler; 0 where no clock was given.
    pub fn per_scheduler_second(&self) -> f64 {
        if self.scheduler_ns == 0 { 0.0 } else { self.workloads as f64 * 1e9 / self.scheduler_ns as f64 }
    }

    /// Workloads over virtual time.
    pub fn per_virtual_second(&self) -> f64 {
        if self.makespan_ms == 0 { 0.0 } else { self.workloads as f64 * 1e3 / self.makespan_ms as f64 }
    }

    /// Mean time in the scheduler per event told, cycles included, once the start is over; in microseconds.
    pub fn steady_event_us(&self) -> f64 {
        if self.steady_events == 0 { 0.0 } else { self.steady_ns as f64 / 1e3 / self.steady_events as f64 }
    }

    /// Mean time to admission of a group in seconds.
    pub fn admit_s(&self, group: &str) -> f64 {
        self.admit_ms.get(group).map_or(0.0, |mean| mean.value() / 1e3)
    }
}

/// The time that `per_mille` of all do not exceed, in milliseconds; `nanos` ascending.
pub fn quantile_ms(nanos: &[u64], per_mille: usize) -> f64 {
    let at = (nanos.len() * per_mille).div_ceil(1000).saturating_sub(1);
    nanos.get(at).map_or(0.0, |nanos| *nanos as f64 / 1e6)
}
