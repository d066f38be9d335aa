//! A closed system: nothing comes from outside any more.

use std::collections::BTreeMap;

use tidegate_core::event::Event;
use tidegate_core::names::JobName;
use tidegate_core::plan::ActionKind;
use tidegate_core::policy::Policy;

use super::setup::SELDOM_MS;
use super::world::World;

impl World {
    /// Lets everything that was ordered happen, and time pass, until the engine wants nothing more. Returns the stops.
    pub fn settle(&mut self) -> u64 {
        // Nothing ends in a closed system: jobs would be put in order, and by what was used take turns, for ever.
        let seldom = Policy { rank_every_ms: SELDOM_MS, half_life_ms: 1_000 * SELDOM_MS, ..self.state().policy.clone() };
        self.tell(Event::PolicySet(seldom));
        let (before, began) = (self.stops, self.now);
        for round in 0..400 {
            while self.carry_out(0) {
                self.decide();
            }
            let plan = self.decide();
            match plan.wake_at {
                // Nothing ends by itself here: a reservation is renewed for ever, later each time.
                Some(at) if plan.actions.is_empty() && at.since(began) > 30 * 86_400_000 => return self.stops - before,
                Some(at) if plan.actions.is_empty() => self.now = at,
                None if plan.actions.is_empty() && self.pending.is_empty() => return self.stops - before,
                _ => {}
            }
            assert!(round < 399, "the engine never comes to rest: {:?} {:?}", self.pending, plan);
        }
        0
    }

    /// Everything that is ordered happens at once, at one moment, until nothing more is ordered.
    ///
    /// The bound: at one moment a job is stopped at most once, so it is started at most twice, and as many replicas start and
    /// stop as models may have; every decision but the last orders something.
    pub fn freeze(&mut self) {
        self.now = self.now.plus(1);
        let jobs = self.state().jobs.len();
        let bound = 2 + 3 * jobs + 3 * 4 * self.models;
        let mut stopped: BTreeMap<JobName, u32> = BTreeMap::new();
        for decided in 0.. {
            let plan = self.decide();
            for action in &plan.actions {
                if let ActionKind::StopJob { job, .. } = &action.kind {
                    let times = stopped.entry(job.clone()).or_default();
                    *times += 1;
                    assert!(*times < 2, "{job} is stopped twice at one moment: {action:?}");
                }
            }
            if plan.actions.is_empty() && self.pending.is_empty() {
                return;
            }
            assert!(decided < bound, "no rest after {decided} decisions of {jobs} jobs: {plan:?}");
            for _ in 0..self.ready().len() {
                self.carry_out(0);
            }
        }
    }
}
