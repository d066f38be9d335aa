//! What would be different: the engine with some changes, run ahead beside the engine as it is.
//!
//! ```text
//!   engine ----------- run ahead -----> starts, stops, lent, free  \
//!      \                                                            Difference
//!       copy + changes - run ahead ---> starts, stops, lent, free  /
//! ```
//!
//! **Guarantees**: the engine that is asked is not altered; no change, no difference; a change that makes no sense is refused
//! whole, with the field and the remedy.
//!
//! **Assumptions**: those of [`crate::eta`]. Nobody submits anything, so averages over a horizon that is longer than the work
//! at hand say mostly that the cluster stands empty in the end: choose the horizon accordingly.

mod change;
mod difference;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use change::WhatIfError;
pub use difference::{Difference, Disruption, FirstStop, Levels, Moment, Shift};

use crate::engine::Engine;
use crate::eta::ahead::{Ahead, Stopped};
use crate::eta::{self, Limits};
use crate::names::{Class, JobName, NodeName, QueueName};
use crate::state::{JobSpec, Resource};
use crate::time::At;

/// One change. As JSON: `{"quota": {"queue": "vision", "resource": "gpu/H100", "nominal": {"by": 4000}}}`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// The nominal quota of a queue; in thousandths (of a GPU, of a core) or MiB.
    Quota {
        queue: QueueName,
        resource: Resource,
        nominal: Amount,
    },
    /// So many healthy, empty nodes like one that there is.
    AddNodes {
        like: NodeName,
        count: u32,
    },
    /// So many nodes of another kind, which never lack CPU or memory.
    NewNodes {
        class: Class,
        gpus: u32,
        memory_mib: u64,
        count: u32,
    },
    /// The node is gone, with what runs on it.
    RemoveNode {
        node: NodeName,
    },
    /// Its devices take no work any more, and what runs on them is moved.
    DrainNode {
        node: NodeName,
    },
    SubmitJob {
        name: JobName,
        spec: Box<JobSpec>,
    },
    RemoveJob {
        name: JobName,
    },
    Priority {
        job: JobName,
        priority: i32,
    },
    /// A field of [`crate::policy::Policy`] by its name.
    Policy {
        field: String,
        value: serde_json::Value,
    },
}

/// A new value.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// So much more (or, below 0, less) than now.
    By(i64),
    To(i64),
}

/// Runs the engine ahead for `horizon_ms`, as it is and with all changes, and tells the difference.
pub fn run(engine: &Engine, changes: &[Change], now: At, horizon_ms: u64) -> Result<Difference, WhatIfError> {
    if horizon_ms == 0 {
        return Err(WhatIfError::NoHorizon);
    }
    let now = now.max(engine.state().now);
    let mut altered = engine.clone();
    for (index, wish) in changes.iter().enumerate() {
        change::apply(&mut altered, now, index, wish)?;
    }
    let limits = Limits { horizon_ms, ..Limits::default() };
    let (before, after) = (Side::of(engine, now, limits), Side::of(&altered, now, limits));
    Ok(Difference {
        changes: changes.iter().map(change::told).collect(),
        now,
        until: before.until.min(after.until),
        starts: shifts(&before, &after),
        disruptions: disruptions(&before, &after),
        before: before.levels,
        after: after.levels,
    })
}

/// One of the two runs.
struct Side {
    moments: BTreeMap<JobName, Moment>,
    stops: BTreeMap<JobName, Vec<Stopped>>,
    levels: Levels,
    until: At,
}

impl Side {
    fn of(engine: &Engine, now: At, limits: Limits) -> Self {
        let waiting: BTreeSet<JobName> =
            engine.state().jobs.iter().filter(|(_, job)| !job.removed && eta::waits(job)).map(|(name, _)| name.clone()).collect();
        let mut ahead = Ahead::new(engine, now, limits);
        let mut meter = Meter::default();
        while ahead.step_with(|engine, from, to| meter.read(engine, to.since(from))) {}
        let moment = |name: JobName| {
            let start = ahead.starts.get(&name);
            let moment = start.map_or(Moment::NotForeseen, |start| Moment::Starts { at: start.at, rests_on: start.rests_on });
            (name, moment)
        };
        let moments = waiting.into_iter().map(moment).collect();
        let mut stops: BTreeMap<JobName, Vec<Stopped>> = BTreeMap::new();
        for stop in ahead.stops.iter().filter(|stop| stop.to < stop.from) {
            stops.entry(stop.job.clone()).or_default().push(stop.clone());
        }
        Self { moments, stops, levels: meter.levels(), until: ahead.until() }
    }
}

/// Free and lent devices over time.
#[derive(Default)]
struct Meter {
    elapsed: u64,
    free: u64,
    lent: u64,
    settled: Option<Levels>,
    last: Levels,
}

impl Meter {
    fn read(&mut self, engine: &Engine, ms: u64) {
        let (mut gpus, mut free) = (0_u64, 0_u64);
        for node in engine.books().cluster.nodes() {
            let usable = node.devices.iter().enumerate().filter(|(_, device)| device.usable);
            for (index, _) in usable {
                gpus += 1;
                free += u64::from(node.is_free(index));
            }
        }
        let lent_milli = engine.state().usage.lent_milli;
        self.elapsed += ms;
        self.free = self.free.saturating_add(free.saturating_mul(ms));
        self.lent = self.lent.saturating_add(lent_milli.saturating_mul(ms));
        self.last = Levels { gpus, free, lent_milli, ..Levels::default() };
        if ms > 0 && self.settled.is_none() && engine.outstanding().next().is_none() {
            self.settled = Some(self.last);
        }
    }

    fn levels(&self) -> Levels {
        let mean = |sum: u64| sum.checked_div(self.elapsed).unwrap_or(0);
        Levels {
            mean_free_milli: mean(self.free.saturating_mul(1000)),
            mean_lent_milli: mean(self.lent),
            ..self.settled.unwrap_or(self.last)
        }
    }
}

/// Jobs whose start is another one.
fn shifts(before: &Side, after: &Side) -> Vec<Shift> {
    let names: BTreeSet<&JobName> = before.moments.keys().chain(after.moments.keys()).collect();
    let moment = |side: &Side, name: &JobName| side.moments.get(name).copied().unwrap_or(Moment::Absent);
    let shift = |name: &JobName| Shift { job: name.clone(), before: moment(before, name), after: moment(after, name) };
    names.into_iter().map(shift).filter(|shift| shift.before.at() != shift.after.at() || shift.is_only_one_sided()).collect()
}

/// Jobs that are stopped or made smaller more or less often.
fn disruptions(before: &Side, after: &Side) -> Vec<Disruption> {
    let names: BTreeSet<&JobName> = before.stops.keys().chain(after.stops.keys()).collect();
    let of = |side: &Side, name: &JobName| side.stops.get(name).cloned().unwrap_or_default();
    let disruption = |name: &JobName| {
        let (was, is) = (of(before, name), of(after, name));
        let count = |stops: &[Stopped]| u32::try_from(stops.len()).unwrap_or(u32::MAX);
        let first = if is.len() > was.len() { is.first() } else { was.first() };
        let first = first.map(|stop| FirstStop { at: stop.at, from: stop.from, to: stop.to, reason: stop.reason.to_string() });
        Disruption { job: name.clone(), before: count(&was), after: count(&is), first }
    };
    names.into_iter().map(disruption).filter(|disruption| disruption.before != disruption.after).collect()
}
