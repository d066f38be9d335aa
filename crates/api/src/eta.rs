//! Expected starts of waiting jobs, as the engine answers them and as people and scripts read them. A running `up` and the
//! command line with a snapshot give the same answers, since both ask here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidegate_core::Engine;
use tidegate_core::eta::{self, Estimate, Limits};
use tidegate_core::names::JobName;
use tidegate_core::time::At;

/// When a waiting job is expected to start, as things stand.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Eta {
    /// Milliseconds since the epoch; absent: not before `until_ms`, as far as can be seen.
    pub at_ms: Option<u64>,
    /// How far was looked.
    pub until_ms: u64,
    /// `certain`, `progress`, `history`, `user` or `unknown`: what has to end first, and how its end is known.
    pub rests_on: Estimate,
    /// The moment as a person reads it.
    pub text: String,
}

/// Expected starts by job.
pub type Etas = BTreeMap<String, Eta>;

/// A job that has no expected start.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NoEta {
    #[error("there is no job/{0}")]
    Unknown(String),
    #[error("job/{0} does not wait; `tidegate explain job/{0}` tells how it is")]
    NotWaiting(String),
}

impl Eta {
    /// The engine's answer as seen at `now`.
    pub fn of(eta: &eta::Eta, now: At) -> Self {
        Self { at_ms: eta.at.map(|at| at.0), until_ms: eta.until.0, rests_on: eta.rests_on, text: eta.told(now) }
    }
}

/// Of all jobs that wait.
pub fn all(engine: &Engine, now: At) -> Etas {
    let etas = eta::all(engine, now, Limits::default());
    etas.into_iter().map(|(name, eta)| (name.to_string(), Eta::of(&eta, now))).collect()
}

/// Of one job.
pub fn of(engine: &Engine, job: &str, now: At) -> Result<Etas, NoEta> {
    let name = JobName::from(job);
    if !engine.state().jobs.contains_key(&name) {
        return Err(NoEta::Unknown(name.to_string()));
    }
    let eta = eta::of(engine, &name, now).ok_or_else(|| NoEta::NotWaiting(name.to_string()))?;
    Ok(Etas::from([(name.to_string(), Eta::of(&eta, now))]))
}

#[cfg(test)]
mod tests {
    use tidegate_core::Event;
    use tidegate_core::ask::Ask;
    use tidegate_core::state::{Device, JobSpec, Queue};

    use super::*;

    /// One device; `first` runs for a minute on it, `second` waits.
    fn busy() -> Engine {
        let mut engine = Engine::default();
        let job = || JobSpec { expected_ms: Some(60_000), ..JobSpec::workers("q", 1, 1, Ask::whole(1)) };
        engine.apply(At(0), Event::DeviceSeen(Device::new("gpu-0", "box", "H100-80GB", 81_920)));
        engine.apply(At(0), Event::QueueSet { name: "q".into(), queue: Queue::devices(1, None) });
        engine.apply(At(0), Event::JobSet { name: "first".into(), spec: job().into() });
        engine.decide(At(0));
        engine.apply(At(0), Event::JobStarted { name: "first".into(), attempt: 1 });
        engine.apply(At(0), Event::JobSet { name: "second".into(), spec: job().into() });
        engine.decide(At(0));
        engine
    }

    #[test]
    fn who_waits_is_told_with_what_it_rests_on() {
        let etas = all(&busy(), At(0));
        assert_eq!(etas.keys().collect::<Vec<_>>(), ["second"]);
        let eta = &etas["second"];
        assert_eq!((eta.at_ms, eta.rests_on), (Some(60_000), Estimate::User));
        assert_eq!(eta.text, "00:01 UTC (in 60 s)");
        assert_eq!(of(&busy(), "second", At(0)), Ok(etas));
    }

    #[test]
    fn who_runs_or_is_unknown_is_told_apart() {
        assert_eq!(of(&busy(), "first", At(0)), Err(NoEta::NotWaiting("first".to_owned())));
        assert_eq!(of(&busy(), "third", At(0)).unwrap_err().to_string(), "there is no job/third");
    }
}
