//! How long work of a kind ran before, and so how long it will: quantiles over what has finished, by owner and recipe.
//!
//! The remaining time of a run that has lasted `d` is read from the samples longer than `d` (a run that has outlived most of
//! its kind is likely to be a long one). Where owner and recipe together have too few, the recipe alone is asked; then whoever
//! submitted the run, if they have said something; then the owner's runs, then all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Samples kept of one kind, the newest.
const KEPT: usize = 200;
/// Samples longer than the run's age that a prediction needs before a wider kind is asked.
const ENOUGH: usize = 4;
/// The same for a rank, which looks at the whole distribution.
const ENOUGH_TO_RANK: usize = 20;
/// Kinds kept; the one unused for longest goes.
const KINDS: usize = 4_096;

/// Run times of one kind, in milliseconds at the smallest size.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
struct Samples {
    /// In the order of their ends.
    recent: Vec<u64>,
    /// The same, ascending.
    sorted: Vec<u64>,
    /// Ends of anything until the last of this kind.
    used: u64,
}

impl Samples {
    fn add(&mut self, ms: u64, used: u64) {
        self.used = used;
        if self.recent.len() == KEPT {
            let oldest = self.recent.remove(0);
            if let Ok(at) = self.sorted.binary_search(&oldest) {
                self.sorted.remove(at);
            }
        }
        self.recent.push(ms);
        let at = self.sorted.partition_point(|known| *known < ms);
        self.sorted.insert(at, ms);
    }

    /// Least expected time per completion: the least over all spans d of E[min(left, d)] / P(left <= d).
    fn rank(&self, elapsed: u64) -> Option<u64> {
        let longer = self.sorted.get(self.sorted.partition_point(|ms| *ms <= elapsed)..)?;
        let count = longer.len() as u64;
        let (mut spent, mut best) = (0_u64, u64::MAX);
        for (done, total) in (1_u64..).zip(longer) {
            let left = total - elapsed;
            spent = spent.saturating_add(left);
            best = best.min(spent.saturating_add((count - done).saturating_mul(left)) / done);
        }
        (longer.len() >= ENOUGH_TO_RANK).then_some(best)
    }

    /// The mean of those longer than `elapsed`.
    fn mean(&self, elapsed: u64) -> Option<u64> {
        let longer = self.sorted.get(self.sorted.partition_point(|ms| *ms <= elapsed)..)?;
        longer.iter().fold(0_u64, |sum, ms| sum.saturating_add(*ms)).checked_div(longer.len() as u64)
    }

    /// The quantile of those longer than `elapsed`.
    fn beyond(&self, elapsed: u64, percent: usize) -> Option<u64> {
        let longer = self.sorted.get(self.sorted.partition_point(|ms| *ms <= elapsed)..)?;
        let at = (longer.len() * percent / 100).min(longer.len().saturating_sub(1));
        (longer.len() >= ENOUGH).then(|| longer.get(at).copied()).flatten()
    }
}

/// Which runs speak for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Like {
    /// Those of its recipe, its owner's first; none for a run without one.
    Recipe,
    /// The owner's, then all.
    Other,
}

/// What is remembered of finished runs.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// `owner\nrecipe`, `\nrecipe`, `owner\n`, `\n`.
    kinds: BTreeMap<String, Samples>,
    ends: u64,
}

/// The kinds of a run by owner and recipe, the narrowest first; without an owner or a recipe there are fewer.
fn kinds<'a>(owner: &'a str, recipe: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let all = [(owner, recipe), ("", recipe), (owner, ""), ("", "")];
    (0..all.len()).filter_map(move |at| all.get(at).copied().filter(|kind| !all.iter().take(at).any(|known| known == kind)))
}

fn key((owner, recipe): (&str, &str)) -> String {
    format!("{owner}\n{recipe}")
}

impl History {
    /// A run of this kind has succeeded after `ms` at its smallest size.
    pub fn add(&mut self, owner: &str, recipe: &str, ms: u64) {
        self.ends += 1;
        for kind in kinds(owner, recipe) {
            self.kinds.entry(key(kind)).or_default().add(ms, self.ends);
        }
        if self.kinds.len() > KINDS {
            let stalest = self.kinds.iter().min_by_key(|(_, samples)| samples.used).map(|(kind, _)| kind.clone());
            self.kinds.remove(&stalest.unwrap_or_default());
        }
    }

    /// Whether the other has seen more.
    pub(crate) fn is_shorter(&self, than: &Self) -> bool {
        self.ends < than.ends
    }

    /// The Gittins rank of a run that has lasted `elapsed_ms`: the time that it is worth waiting for it to end. `None` when
    /// not enough like it has finished yet.
    pub fn rank(&self, owner: &str, recipe: &str, elapsed_ms: u64, like: Like) -> Option<u64> {
        self.first(owner, recipe, like, |samples| samples.rank(elapsed_ms))
    }

    /// Mean whole run time of those runs of the owner's recipe that lasted longer than `elapsed_ms`; without any, of the
    /// recipe's. `None` when there is none, or no recipe.
    pub fn mean(&self, owner: &str, recipe: &str, elapsed_ms: u64) -> Option<u64> {
        self.first(owner, recipe, Like::Recipe, |samples| samples.mean(elapsed_ms))
    }

    /// The quantile (0 to 100 percent) of the whole run time, given that it has lasted `elapsed_ms`; `None` when not enough like
    /// it has finished yet.
    pub fn quantile(&self, owner: &str, recipe: &str, elapsed_ms: u64, percent: usize, like: Like) -> Option<u64> {
        self.first(owner, recipe, like, |samples| samples.beyond(elapsed_ms, percent))
    }

    /// The answer of the narrowest kind that has one.
    fn first(&self, owner: &str, recipe: &str, like: Like, ask: impl Fn(&Samples) -> Option<u64>) -> Option<u64> {
        let mut asked = kinds(owner, recipe).filter(|(_, recipe)| recipe.is_empty() == (like == Like::Other));
        asked.find_map(|kind| ask(self.kinds.get(&key(kind))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_expected_to_last_as_its_kind_did_and_longer_when_it_has_outlived_most() {
        let mut history = History::default();
        for ms in [10, 11, 12, 13, 100, 110, 120, 130] {
            history.add("ann", "bert", ms);
        }
        assert_eq!(history.quantile("ann", "bert", 0, 50, Like::Recipe), Some(100));
        assert_eq!(history.quantile("ann", "bert", 50, 50, Like::Recipe), Some(120));
        assert_eq!(history.quantile("bob", "bert", 0, 50, Like::Recipe), Some(100), "the recipe alone");
        assert_eq!(history.quantile("bob", "gpt", 0, 0, Like::Other), Some(10), "everything");
        assert_eq!(history.quantile("bob", "bert", 0, 50, Like::Recipe), Some(100));
        for (owner, recipe) in [("bob", "gpt"), ("ann", "gpt"), ("ann", "")] {
            assert_eq!(history.quantile(owner, recipe, 0, 50, Like::Recipe), None, "{owner} {recipe}");
        }
        assert_eq!(History::default().quantile("ann", "bert", 0, 50, Like::Recipe), None);
    }

    #[test]
    fn a_run_is_expected_to_end_like_those_of_its_recipe_that_went_further() {
        let mut history = History::default();
        for ms in [10, 100, 300] {
            history.add("ann", "bert", ms);
        }
        assert_eq!(history.mean("ann", "bert", 0), Some(410 / 3));
        assert_eq!(history.mean("bob", "bert", 50), Some(200), "the recipe alone");
        assert_eq!(history.mean("ann", "bert", 300), None);
        assert_eq!(history.mean("ann", "gpt", 0), None);
        assert_eq!(history.mean("ann", "", 0), None);
    }

    #[test]
    fn among_runs_of_two_lengths_the_rank_is_that_of_the_short_until_it_is_outlived() {
        let mut history = History::default();
        for n in 0..40 {
            history.add("ann", "bert", if n % 2 == 0 { 10 } else { 1000 });
        }
        assert_eq!(history.rank("ann", "bert", 0, Like::Recipe), Some(20), "one of two ends after 10");
        assert_eq!(history.rank("ann", "bert", 10, Like::Recipe), Some(990));
        assert_eq!(history.rank("ann", "bert", 1000, Like::Recipe), None);
    }

    #[test]
    fn a_run_without_owner_and_recipe_counts_once() {
        let mut history = History::default();
        history.add("", "", 10);
        history.add("ann", "", 10);
        assert_eq!(history.kinds.values().map(|samples| samples.recent.len()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn old_samples_are_forgotten() {
        let mut history = History::default();
        for ms in 0..1000 {
            history.add("ann", "bert", ms);
        }
        assert!(history.quantile("ann", "bert", 0, 0, Like::Recipe).unwrap() >= 1000 - KEPT as u64);
    }
}
