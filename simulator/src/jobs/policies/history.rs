//! Run times that have ended, by owner and size, and what they say about a job that is still at it.
//!
//! Promises: only runs that ended before are used. A question goes to the jobs of the same owner and size, then to all of that
//! size, then to all, and is answered by the first group in which enough jobs ran longer than this one has; where none did, what is
//! left is taken to be as long as what was run (Lindy). Each group remembers its latest runs only, so that a change of habit shows.

use std::collections::{HashMap, VecDeque};

use crate::jobs::Ms;

/// Whose run times are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Owner and recipe.
    pub owner: u32,
    pub gpus: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Own(Group),
    Size(u32),
    All,
}

/// The latest run times of a group, in order of arrival and in order of length.
#[derive(Clone, Debug, Default)]
struct Runs {
    arrival: VecDeque<Ms>,
    sorted: Vec<Ms>,
}

/// Run times by group.
#[derive(Clone, Debug)]
pub struct History {
    groups: HashMap<Key, Runs>,
    /// Runs remembered by group.
    remembers: usize,
    /// Fewer runs than this longer than the asked age: the next wider group is asked.
    at_least: usize,
    /// The answer before anything has ended.
    unknown_ms: Ms,
}

impl History {
    /// Nothing has ended. `at_least` is 1 or more.
    pub fn new(remembers: usize, at_least: usize, unknown_ms: Ms) -> Self {
        Self { groups: HashMap::new(), remembers, at_least: at_least.max(1), unknown_ms }
    }

    /// A job ended after `ran` milliseconds of work.
    pub fn ended(&mut self, group: Group, ran: Ms) {
        for key in keys(group) {
            let runs = self.groups.entry(key).or_default();
            runs.arrival.push_back(ran);
            runs.sorted.insert(runs.sorted.partition_point(|&other| other < ran), ran);
            if runs.arrival.len() > self.remembers
                && let Some(old) = runs.arrival.pop_front()
            {
                runs.sorted.remove(runs.sorted.partition_point(|&other| other < old));
            }
        }
    }

    /// What is left of a job that ran for `ran`, so that the given percent of its like are done by then. At least one second.
    pub fn left(&self, group: Group, ran: Ms, percent: u32) -> Ms {
        let left = match self.longer(group, ran) {
            Some(longer) => {
                let rank = (longer.len() * percent.min(100) as usize).div_ceil(100).max(1) - 1;
                longer.get(rank).map_or(ran, |total| total - ran)
            }
            None => ran.max(self.unknown_ms),
        };
        left.max(1000)
    }

    /// Run times longer than `ran`, ascending, of the narrowest group that has enough of them.
    fn longer(&self, group: Group, ran: Ms) -> Option<&[Ms]> {
        keys(group).iter().find_map(|key| {
            let sorted = &self.groups.get(key)?.sorted;
            let longer = &sorted[sorted.partition_point(|&other| other <= ran)..];
            (longer.len() >= self.at_least).then_some(longer)
        })
    }
}

fn keys(group: Group) -> [Key; 3] {
    [Key::Own(group), Key::Size(group.gpus), Key::All]
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Group = Group { owner: 0, gpus: 1 };
    const OTHER: Group = Group { owner: 1, gpus: 1 };

    fn history() -> History {
        let mut history = History::new(4, 2, 60_000);
        for seconds in [10, 20, 30, 40] {
            history.ended(OWN, seconds * 1000);
        }
        history
    }

    #[test]
    fn what_is_left_is_a_quantile_of_the_longer_runs() {
        let history = history();
        assert_eq!(history.left(OWN, 0, 50), 20_000);
        assert_eq!(history.left(OWN, 15_000, 50), 15_000);
        assert_eq!(history.left(OWN, 15_000, 100), 25_000);
    }

    #[test]
    fn a_job_older_than_its_like_is_taken_to_be_half_done() {
        assert_eq!(history().left(OWN, 39_000, 50), 60_000);
        assert_eq!(history().left(OWN, 500_000, 50), 500_000);
    }

    #[test]
    fn an_unknown_owner_is_judged_by_the_size() {
        assert_eq!(history().left(OTHER, 0, 50), 20_000);
        assert_eq!(History::new(4, 2, 60_000).left(OTHER, 0, 50), 60_000);
    }

    #[test]
    fn the_oldest_runs_are_forgotten() {
        let mut history = history();
        for _ in 0..4 {
            history.ended(OWN, 5_000);
        }
        assert_eq!(history.left(OWN, 0, 100), 5_000);
    }
}
