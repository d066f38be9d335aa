//! Which nodes a worker must and would rather be on, by their labels: Kubernetes' node affinity. It stands beside
//! [`super::Ask::selector`] and the tolerations; all of them must hold.

use serde::{Deserialize, Serialize};

use crate::labels::{Labels, LabelsError, MOST_REQUIREMENTS, Requirement, within};

/// Terms of each kind at most: every node is looked at by all of them once.
pub const MOST_TERMS: usize = 16;
/// The heaviest wish.
pub const MOST_WEIGHT: u32 = 100;

/// Wishes for nodes. The default has none.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(deny_unknown_fields)]
pub struct Affinity {
    /// One of these at least must hold; empty: any node will do.
    #[serde(default)]
    pub required: Vec<Term>,
    /// The node with the larger sum of weights is taken, of those that can start it as soon on as fast devices.
    #[serde(default)]
    pub preferred: Vec<Preference>,
}

/// All of its expressions must hold; without any it never does.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(transparent)]
pub struct Term(pub Vec<Requirement>);

/// A wish, from 1 to [`MOST_WEIGHT`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    pub weight: u32,
    pub term: Term,
}

impl Term {
    /// Whether a node with these labels satisfies it.
    pub fn holds(&self, labels: &Labels) -> bool {
        !self.0.is_empty() && self.0.iter().all(|requirement| requirement.holds(labels))
    }

    fn check(&self, field: &'static str) -> Result<(), LabelsError> {
        if self.0.is_empty() {
            return Err(LabelsError::EmptyTerm { field });
        }
        within(field, self.0.len(), MOST_REQUIREMENTS)?;
        self.0.iter().try_for_each(Requirement::check)
    }
}

impl Affinity {
    /// Whether a node with these labels will do.
    pub fn allows(&self, labels: &Labels) -> bool {
        self.required.is_empty() || self.required.iter().any(|term| term.holds(labels))
    }

    /// Weights of the wishes that a node with these labels does not fulfil, in 127ths of all: 0 is the best.
    pub fn distance(&self, labels: &Labels) -> u8 {
        let weigh = |open: bool| {
            let wishes = self.preferred.iter().filter(move |wish| !open || !wish.term.holds(labels));
            wishes.fold(0_u64, |sum, wish| sum + u64::from(wish.weight))
        };
        u8::try_from((weigh(true) * 127).div_ceil(weigh(false).max(1))).unwrap_or(127)
    }

    /// Whether it makes sense and is within the bounds.
    pub fn check(&self) -> Result<(), LabelsError> {
        within("affinity.required", self.required.len(), MOST_TERMS)?;
        within("affinity.preferred", self.preferred.len(), MOST_TERMS)?;
        self.required.iter().try_for_each(|term| term.check("affinity.required"))?;
        self.preferred.iter().try_for_each(|wish| match wish.weight {
            1..=MOST_WEIGHT => wish.term.check("affinity.preferred"),
            found => Err(LabelsError::Weight { found, most: MOST_WEIGHT }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Rule;

    fn term(key: &str, value: &str) -> Term {
        Term(vec![Requirement { key: key.to_owned(), rule: Rule::In(vec![value.to_owned()]) }])
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn any_of_the_required_terms_is_enough_and_all_of_a_terms_expressions_are_needed() {
        let both = Term([term("zone", "a").0, term("disk", "ssd").0].concat());
        let affinity = Affinity { required: vec![both, term("zone", "b")], preferred: Vec::new() };
        assert!(affinity.allows(&labels(&[("zone", "a"), ("disk", "ssd")])));
        assert!(affinity.allows(&labels(&[("zone", "b")])));
        assert!(!affinity.allows(&labels(&[("zone", "a")])));
        assert!(Affinity::default().allows(&Labels::new()));
        assert!(!Affinity { required: vec![Term::default()], preferred: Vec::new() }.allows(&Labels::new()));
    }

    #[test]
    fn the_distance_is_what_is_missing_of_all_weights() {
        let wish = |weight: u32, key: &str| Preference { weight, term: term(key, "yes") };
        let affinity = Affinity { required: Vec::new(), preferred: vec![wish(75, "near"), wish(25, "new")] };
        assert_eq!(affinity.distance(&labels(&[("near", "yes"), ("new", "yes")])), 0);
        assert_eq!(affinity.distance(&labels(&[("near", "yes")])), 32);
        assert_eq!(affinity.distance(&labels(&[("new", "yes")])), 96);
        assert_eq!(affinity.distance(&Labels::new()), 127);
        assert_eq!(Affinity::default().distance(&Labels::new()), 0);
    }

    #[test]
    fn what_makes_no_sense_or_is_too_large_is_refused_by_field() {
        let preferred =
            |weight: u32| Affinity { preferred: vec![Preference { weight, term: term("zone", "a") }], ..Affinity::default() };
        assert_eq!(preferred(100).check(), Ok(()));
        assert_eq!(preferred(0).check(), Err(LabelsError::Weight { found: 0, most: 100 }));
        let required = |required: Vec<Term>| Affinity { required, ..Affinity::default() }.check();
        assert_eq!(required(vec![Term::default()]), Err(LabelsError::EmptyTerm { field: "affinity.required" }));
        let many = required(vec![term("zone", "a"); 17]).unwrap_err();
        assert_eq!(many.to_string(), "`affinity.required` has 17 entries: give at most 16");
    }
}
