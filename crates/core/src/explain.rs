//! Why something is as it is, and what would change it: facts from the state, counterfactuals from the same engine run on a
//! changed copy of it.
//!
//! **Guarantees**: the engine that is asked is never changed; the same engine and moment give the same sentences; a sentence
//! "would start" was tried on a copy and the copy did start it.
//!
//! **Cost**: [`waiting`] and [`lacking`] read what the last decision noted, in one pass over nodes and holders, so that a page may ask it of
//! every waiting job. [`job`] and [`model`] copy the engine a few dozen times at most; they are for one person who asks.

mod barred;
mod claims;
mod counter;
mod look;
mod quota;
mod runs;
mod serves;
mod waits;
pub(crate) mod words;

pub use barred::Barred;
pub(crate) use counter::copy_of;

use crate::engine::Engine;
use crate::names::{JobName, ModelName};
use crate::state::{End, Phase};
use crate::time::At;

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// One sentence.
    pub status: String,
    /// What binds, most important first.
    pub because: Vec<String>,
    /// What would change it.
    pub would_change: Vec<String>,
}

/// Why a waiting job waits, in one sentence; empty for one that does not wait.
pub fn waiting(engine: &Engine, name: &JobName) -> String {
    waits::Waiting::of(engine, name).map_or_else(String::new, |waiting| waiting.cause())
}

/// Explains a job; `None` if there is none of this name.
pub fn job(engine: &Engine, name: &JobName, now: At) -> Option<Explanation> {
    let job = engine.state().jobs.get(name)?;
    Some(match &job.phase {
        Phase::Waiting { .. } => waits::explain(engine, name, now),
        Phase::Running(run) => runs::explain(engine, name, job, run, now),
        Phase::Finished(end) => {
            let status = match end {
                End::Succeeded { .. } => format!("job/{name} has succeeded"),
                End::Failed { .. } => {
                    format!("job/{name} has failed: {} failures in a row, limit {}", job.failures, job.spec.backoff_limit)
                }
                End::Cancelled { .. } => format!("job/{name} was cancelled"),
            };
            Explanation { status, ..Explanation::default() }
        }
    })
}

/// Why a waiting job waits for people and not for its turn, if that is so.
pub fn barred_job(engine: &Engine, name: &JobName) -> Option<Barred> {
    barred::job(engine, name)
}

/// Why a model can have no replica before people change something, if that is so.
pub fn barred_model(engine: &Engine, name: &ModelName) -> Option<Barred> {
    barred::model(engine, name)
}

/// Why a model has fewer replicas than it should, in one sentence; empty if there is none of this name.
pub fn lacking(engine: &Engine, name: &ModelName, now: At) -> String {
    engine.state().models.get(name).map_or_else(String::new, |model| serves::lacking(engine, model, now))
}

/// Explains a model; `None` if there is none of this name.
pub fn model(engine: &Engine, name: &ModelName, now: At) -> Option<Explanation> {
    serves::explain(engine, name, now)
}
