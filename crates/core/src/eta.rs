//! When waiting jobs will start, as things stand: the engine run ahead in virtual time.
//!
//! A copy of the engine decides, everything it orders happens at once (a stop after the time that stops take, a replica is
//! ready after the time that its model loads), running jobs end when they are expected to (the median of what the engine
//! expects, see [`State::expected_total_ms`](crate::State::expected_total_ms)), demand stays as it is and nobody submits
//! anything. So the answer knows priorities, quota, reservations, backfill and reclaim, because it *is* the engine.
//!
//! **Guarantees**: the engine that is asked is not changed; the same engine and moment give the same answer; in a world that
//! behaves exactly as estimated, a job starts exactly then (tested on random systems).
//!
//! **Assumptions**: a stopped job wrote a checkpoint; a restart costs `restart_ms`; how long a run takes was settled by what
//! is known now (imagined ends teach nothing). Facts of one moment come in the order of [`ahead::Fact`], then the engine decides.
//!
//! **Cost**: one run-ahead answers for all waiting jobs. It copies the engine once and decides two or three times per start
//! and end, each of which looks only at what changed; hundreds of jobs take milliseconds to tens of them. [`Limits`] bound it.

pub(crate) mod ahead;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::explain::words;
use crate::names::JobName;
use crate::state::{Job, Phase};
use crate::time::At;
use ahead::Ahead;

/// How far to look.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Milliseconds of virtual time.
    pub horizon_ms: u64,
    /// Moments at which something happens.
    pub steps: u32,
}

impl Default for Limits {
    /// Two weeks: estimates add up along a chain of jobs, and a date further away helps nobody to plan. 20 000 moments: with a
    /// decision of less than a millisecond at each, the answer comes within seconds on the largest clusters that are simulated.
    fn default() -> Self {
        Self { horizon_ms: 14 * 86_400_000, steps: 20_000 }
    }
}

/// What an expected moment rests on, the surest first. A chain is as sure as its weakest part.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Estimate {
    /// No run has to end first whose end is only estimated.
    #[default]
    Certain,
    /// How far running work says it is.
    Progress,
    /// Run times of the past.
    History,
    /// Run times that users named.
    User,
    /// Work without an estimate, or that has outlived it.
    Unknown,
}

impl Estimate {
    /// As the end of a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Certain => "rests on no estimate: nothing that runs has to end by itself first",
            Self::Progress => "rests on how far running work says it is",
            Self::History => "rests on run times of the past",
            Self::User => "rests on run times that users named",
            Self::Unknown => "rests on a guess: some work before it has no estimate, or has outlived it",
        }
    }
}

/// When a job is expected to start.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eta {
    /// The moment its workers start; absent: not before `until`, as far as can be seen.
    pub at: Option<At>,
    /// How far was looked.
    pub until: At,
    pub rests_on: Estimate,
}

impl Eta {
    /// The moment as a person reads it at `now`, without what it rests on.
    pub fn told(&self, now: At) -> String {
        match self.at {
            Some(at) if at <= now => "now".to_owned(),
            Some(at) => words::clock(at, now),
            None => format!("not within {}, as far as can be seen", words::span(self.until.since(now))),
        }
    }
}

/// The expected starts of all jobs that wait (those that are being stopped and then wait included).
pub fn all(engine: &Engine, now: At, limits: Limits) -> BTreeMap<JobName, Eta> {
    let waiting = engine.state().jobs.iter().filter(|(_, job)| waits(job)).map(|(name, _)| name.clone()).collect();
    run(engine, waiting, now, limits)
}

/// The expected start of one job; `None` for one that does not wait.
pub fn of(engine: &Engine, name: &JobName, now: At) -> Option<Eta> {
    engine.state().jobs.get(name).filter(|job| waits(job))?;
    run(engine, BTreeSet::from([name.clone()]), now, Limits::default()).remove(name)
}

/// Whether the job waits, or will once it is stopped.
pub(crate) fn waits(job: &Job) -> bool {
    match &job.phase {
        Phase::Waiting { .. } => true,
        Phase::Running(run) => run.stop.as_ref().is_some_and(|stop| stop.keep.is_empty()),
        Phase::Finished(_) => false,
    }
}

fn run(engine: &Engine, asked: BTreeSet<JobName>, now: At, limits: Limits) -> BTreeMap<JobName, Eta> {
    let mut ahead = Ahead::new(engine, now, limits);
    let possible = |name: &&JobName| engine.state().jobs.get(name).is_some_and(|job| !job.is_unwanted());
    let mut open: BTreeSet<JobName> = asked.iter().filter(possible).cloned().collect();
    while !open.is_empty() && ahead.step() {
        for name in ahead.just_started() {
            open.remove(name);
        }
    }
    let until = ahead.until();
    let eta = |name: JobName| {
        let start = ahead.starts.get(&name);
        let eta = Eta { at: start.map(|start| start.at), until, rests_on: start.map(|start| start.rests_on).unwrap_or_default() };
        (name, eta)
    };
    asked.into_iter().map(eta).collect()
}
