//! Totals that never go back, made of what the driver gives: counters that restart when a driver is loaded, and samples.

use std::time::Duration;

/// The total of a counter of the driver.
///
/// Begins with the driver's own value, so that a restart of the agent is no step. When a driver is loaded anew its counter
/// begins at zero, and the total goes on; a counter that goes back for another reason (it wrapped, it was cleared) adds
/// nothing for that step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    sum: u64,
    last: Option<u64>,
    load: u32,
}

impl Total {
    /// The driver says `raw`; `load` is another number after the driver went away.
    pub fn observe(&mut self, raw: u64, load: u32) {
        let step = match self.last {
            None => raw,
            Some(last) if raw >= last => raw - last,
            Some(_) if load != self.load => raw,
            Some(_) => 0,
        };
        self.sum = self.sum.saturating_add(step);
        (self.last, self.load) = (Some(raw), load);
    }

    /// Absent until the driver has said anything.
    pub fn get(&self) -> Option<u64> {
        self.last.map(|_| self.sum)
    }
}

/// Seconds during which something was so, or a share of it. Absent until the first observation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seconds(Option<f64>);

impl Seconds {
    /// For `seconds` the share from 0 to 1 was so much.
    pub fn add(&mut self, share: f64, seconds: f64) {
        let before = self.0.unwrap_or(0.0);
        self.0 = Some(before + share.clamp(0.0, 1.0) * seconds.max(0.0));
    }

    /// So far.
    pub fn get(&self) -> Option<f64> {
        self.0
    }
}

/// How long ago the last observation was, and how much of that a sample may stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    last: Option<Duration>,
    /// Seconds that samples stand for.
    pub observed: f64,
    /// Seconds that they do not: the agent was not told anything for too long.
    pub unobserved: f64,
}

/// One step from an observation to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// All the time since the last observation, for what the driver counts itself.
    pub elapsed: f64,
    /// Of it, what a sample stands for: all, or nothing after a gap.
    pub sampled: f64,
}

impl Pace {
    /// An observation at `at`; a gap above `longest` is not filled with its value.
    pub fn step(&mut self, at: Duration, longest: Duration) -> Step {
        let elapsed = self.last.map_or(Duration::ZERO, |last| at.saturating_sub(last));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
        let seconds = elapsed.as_secs_f64();
        if elapsed > longest {
            self.unobserved += seconds;
            return Step { elapsed: seconds, sampled: 0.0 };
        }
        self.observed += seconds;
        Step { elapsed: seconds, sampled: seconds }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_driver_that_is_loaded_anew_goes_on_where_the_old_one_stopped() {
        let mut total = Total::default();
        total.observe(100, 1);
        total.observe(150, 1);
        total.observe(30, 2);
        assert_eq!(total.get(), Some(180));
    }

    #[test]
    fn opening_nvml_again_without_a_new_driver_counts_nothing_twice() {
        let mut total = Total::default();
        total.observe(100, 1);
        total.observe(110, 2);
        assert_eq!(total.get(), Some(110));
    }

    #[test]
    fn a_counter_that_wraps_loses_one_step_and_goes_on() {
        let mut total = Total::default();
        for raw in [4_000_000_000, 10, 20] {
            total.observe(raw, 1);
        }
        assert_eq!(total.get(), Some(4_000_000_010));
    }

    #[test]
    fn a_gap_is_not_filled_with_the_sample_at_its_end() {
        let mut pace = Pace::default();
        let second = Duration::from_secs(1);
        assert_eq!(pace.step(second, second * 5), Step::default());
        assert_eq!(pace.step(second * 2, second * 5), Step { elapsed: 1.0, sampled: 1.0 });
        assert_eq!(pace.step(second * 60, second * 5), Step { elapsed: 58.0, sampled: 0.0 });
        assert_eq!((pace.observed, pace.unobserved), (1.0, 58.0));
    }

    proptest! {
        #[test]
        fn totals_never_go_back(raws in prop::collection::vec((any::<u64>(), 0u32..3), 1..50)) {
            let (mut total, mut before) = (Total::default(), 0);
            for (raw, load) in raws {
                total.observe(raw, load);
                let now = total.get().unwrap();
                prop_assert!(now >= before);
                before = now;
            }
        }

        #[test]
        fn seconds_never_go_back_and_never_exceed_the_time(steps in prop::collection::vec((-1.0f64..2.0, -1.0f64..5.0), 1..50)) {
            let (mut seconds, mut time) = (Seconds::default(), 0.0);
            for (share, length) in steps {
                let before = seconds.get().unwrap_or(0.0);
                seconds.add(share, length);
                time += length.max(0.0);
                prop_assert!(seconds.get().unwrap() >= before && seconds.get().unwrap() <= time + 1e-9);
            }
        }
    }
}
