//! Why something is as it is: a placeholder with the final signatures until the real one lands.

use crate::engine::{Block, Engine};
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

/// Why a waiting job waits, in one sentence; empty when it does not wait.
pub fn waiting(engine: &Engine, name: &JobName) -> String {
    let state = engine.state();
    let Some(job) = state.jobs.get(name) else { return String::new() };
    let Phase::Waiting { not_before, .. } = &job.phase else { return String::new() };
    if job.paused {
        return "paused by a person; `resume` lets it run".to_owned();
    }
    if let Some(at) = not_before.filter(|at| *at > state.now) {
        let (failures, limit, wait) = (job.failures, job.spec.backoff_limit, at.since(state.now).div_ceil(1000));
        return format!(
            "attempt {} failed ({failures} in a row, limit {limit}); the next starts in {wait} s",
            job.attempts
        );
    }
    match engine.blocked(name) {
        Some(Block::Quota { at, .. }) => format!("queue {at} has no more quota"),
        Some(Block::Queue(why)) => why.clone(),
        Some(Block::EvictionCap) => "the cap on evictions per minute is reached".to_owned(),
        Some(Block::Behind(first)) => format!("job/{first} goes before it"),
        Some(Block::Unsuitable { .. }) => "no device here would do".to_owned(),
        Some(Block::Spread { level }) => format!("its workers would not be together in one {level}"),
        Some(Block::Capacity { .. }) | None => "not enough devices are free".to_owned(),
    }
}

/// Explains a job; `None` if there is none of this name.
pub fn job(engine: &Engine, name: &JobName, now: At) -> Option<Explanation> {
    let job = engine.state().jobs.get(name)?;
    let mut answer = Explanation::default();
    match &job.phase {
        Phase::Waiting { .. } => {
            answer.status = format!("job/{name} waits");
            answer.because.push(waiting(engine, name));
        }
        Phase::Running(run) => {
            answer.status = format!("job/{name} runs attempt {} with {} worker(s)", run.attempt, run.seats.len());
            let lost = job.lost_work_ms(now) / 1000;
            answer.would_change.push(format!("if it had to give way now it would lose {lost} device-seconds"));
        }
        Phase::Finished(end) => {
            answer.status = match end {
                End::Succeeded { .. } => format!("job/{name} has succeeded"),
                End::Failed { .. } => format!("job/{name} has failed"),
                End::Cancelled { .. } => format!("job/{name} was cancelled"),
            };
        }
    }
    Some(answer)
}

/// Explains a model; `None` if there is none of this name.
pub fn model(engine: &Engine, name: &ModelName, now: At) -> Option<Explanation> {
    let state = engine.state();
    let model = state.models.get(name)?;
    let has = state.replicas.values().filter(|replica| replica.model == *name && replica.stop.is_none()).count();
    let target = model.target(now, &state.policy);
    let status = format!("model/{name} should have {target} replica(s) and has {has}");
    let rate = model.demand.milli_rows_per_s;
    let because = vec![format!("{}.{} rows/s arrive", rate / 1000, rate % 1000 / 100)];
    Some(Explanation { status, because, would_change: Vec::new() })
}
