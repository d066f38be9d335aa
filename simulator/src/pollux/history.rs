//! How much work a run will take, from runs of the same recipe that have ended.
//!
//! Keeps the last [`KEPT`] totals of each recipe. A run is expected to end like those of them that went further than it has
//! got (their mean); once it has passed them all, or when there is none, nothing is known but how far runs have got.
//! Pure; units are the caller's, but the same for all runs of a recipe.

use std::collections::{BTreeMap, VecDeque};

use super::elastic::Size;

/// Totals kept per recipe: enough for a mean, few enough to follow change.
const KEPT: usize = 32;

/// Totals of ended runs by recipe.
#[derive(Clone, Debug)]
pub struct History<K> {
    totals: BTreeMap<K, VecDeque<u64>>,
}

impl<K: Ord> Default for History<K> {
    fn default() -> Self {
        Self { totals: BTreeMap::new() }
    }
}

impl<K: Ord> History<K> {
    /// A run has ended by itself after so many units.
    pub fn ended(&mut self, recipe: K, units: u64) {
        let totals = self.totals.entry(recipe).or_default();
        totals.push_back(units);
        if totals.len() > KEPT {
            totals.pop_front();
        }
    }

    /// The whole work of a run that has made `attained` units; `furthest` is the most that any unfinished run of the recipe
    /// has made.
    pub fn size(&self, recipe: &K, attained: u64, furthest: u64) -> Size {
        let longer = || self.totals.get(recipe).into_iter().flatten().filter(|total| **total > attained);
        let (count, sum) = longer().fold((0u64, 0u64), |(count, sum), total| (count + 1, sum.saturating_add(*total)));
        sum.checked_div(count).map_or(Size::AtLeast(furthest.max(attained)), Size::Predicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_expected_to_end_like_those_that_went_further() {
        let mut history = History::default();
        for units in [10, 100, 300] {
            history.ended("a", units);
        }
        assert_eq!(history.size(&"a", 0, 0), Size::Predicted(410 / 3));
        assert_eq!(history.size(&"a", 50, 50), Size::Predicted(200));
        assert_eq!(history.size(&"a", 300, 300), Size::AtLeast(300));
        assert_eq!(history.size(&"b", 5, 7), Size::AtLeast(7));
    }

    #[test]
    fn old_runs_are_forgotten() {
        let mut history = History::default();
        history.ended((), 1_000_000);
        (0..KEPT).for_each(|_| history.ended((), 10));
        assert_eq!(history.size(&(), 0, 0), Size::Predicted(10));
    }
}
