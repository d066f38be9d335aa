//! Expected starts as the page and `top` show them: a few seconds old, since each look runs the engine ahead.

use std::collections::BTreeMap;

use tidegate_core::Engine;
use tidegate_core::eta::{self, Eta, Limits};
use tidegate_core::names::JobName;
use tidegate_core::state::{Job, Phase};
use tidegate_core::time::At;

/// How old what is shown may be: a person does not plan by seconds, and the world has other things to do.
const EVERY_MS: u64 = 5_000;
/// Moments looked at, a tenth of what `tidegate eta` gets: a few milliseconds of the world's own task.
const STEPS: u32 = 2_000;

/// The last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Etas {
    at: At,
    starts: BTreeMap<JobName, Eta>,
}

impl Etas {
    /// Looks again if the last look is old and somebody waits.
    pub fn refresh(&mut self, engine: &Engine, now: At) {
        if now.since(self.at) < EVERY_MS {
            return;
        }
        self.at = now;
        let waits = engine.state().jobs.values().any(is_waiting);
        self.starts = if waits { eta::all(engine, now, Limits { steps: STEPS, ..Limits::default() }) } else { BTreeMap::new() };
    }

    /// When this job is expected to start; `None` if it does not wait for its turn, or was not looked at yet.
    pub fn of(&self, name: &JobName, job: &Job) -> Option<&Eta> {
        self.starts.get(name).filter(|_| is_waiting(job))
    }
}

/// Whether a start is to be expected: nobody has paused or cancelled it.
fn is_waiting(job: &Job) -> bool {
    matches!(job.phase, Phase::Waiting { .. }) && !job.is_unwanted()
}

#[cfg(test)]
mod tests {
    use tidegate_core::Event;
    use tidegate_core::ask::Ask;
    use tidegate_core::state::{Device, JobSpec, Queue};

    use super::*;

    fn busy() -> Engine {
        let mut engine = Engine::default();
        let job = |expected_ms| JobSpec { expected_ms: Some(expected_ms), ..JobSpec::workers("q", 1, 1, Ask::whole(1)) };
        engine.apply(At(0), Event::DeviceSeen(Device::new("gpu-0", "box", "H100-80GB", 81_920)));
        engine.apply(At(0), Event::QueueSet { name: "q".into(), queue: Queue::devices(1, None) });
        engine.apply(At(0), Event::JobSet { name: "first".into(), spec: job(60_000).into() });
        engine.decide(At(0));
        engine.apply(At(1), Event::JobStarted { name: "first".into(), attempt: 1 });
        engine.apply(At(1), Event::JobSet { name: "second".into(), spec: job(60_000).into() });
        engine.decide(At(1));
        engine
    }

    #[test]
    fn who_waits_has_an_expected_start_and_who_runs_has_none() {
        let (engine, mut etas) = (busy(), Etas::default());
        etas.refresh(&engine, At(10_000));
        let of = |name: &str| {
            let name = JobName::from(name);
            etas.of(&name, engine.state().jobs.get(&name).unwrap()).and_then(|eta| eta.at)
        };
        let second = of("second").unwrap();
        assert!((60_000..62_000).contains(&second.0), "{second:?}");
        assert_eq!(of("first"), None);
    }

    #[test]
    fn a_look_serves_for_five_seconds() {
        let (mut engine, mut etas) = (busy(), Etas::default());
        etas.refresh(&engine, At(10_000));
        engine.apply(At(10_001), Event::JobRemoved("second".into()));
        engine.decide(At(10_001));
        etas.refresh(&engine, At(14_999));
        assert_eq!(etas.starts.len(), 1);
        etas.refresh(&engine, At(15_000));
        assert_eq!(etas.starts.len(), 0);
    }
}
