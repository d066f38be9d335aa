//! Choosing by labels: queues choose namespaces, work chooses nodes. The rules are Kubernetes' label selectors and node
//! selector terms, so that a manifest means here what it means there.
//!
//! **Promises**: a label that is not there satisfies `NotIn` and `DoesNotExist` alone; `Gt` and `Lt` compare integers, and a
//! value that is none satisfies neither. What is larger than the bounds is refused by [`Selector::check`], never cut.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::names::Namespace;

/// Labels of a node or a namespace.
pub type Labels = BTreeMap<String, String>;

/// Requirements of one selector or term at most, and values of one requirement: every look costs all of them.
pub const MOST_REQUIREMENTS: usize = 32;
/// See [`MOST_REQUIREMENTS`].
pub const MOST_VALUES: usize = 64;

/// The label that Kubernetes gives every namespace: its name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The labels of a namespace to which nobody gave more.
pub fn of_namespace(name: &Namespace) -> Labels {
    Labels::from([(NAMESPACE_NAME.to_owned(), name.to_string())])
}

/// What one label must be.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    pub key: String,
    pub rule: Rule,
}

/// See [`Requirement`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    /// Above this number.
    Gt(i64),
    /// Below this number.
    Lt(i64),
}

/// A selector of namespaces: all of it must hold, so an empty one selects all.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    #[serde(default)]
    pub match_labels: Labels,
    #[serde(default)]
    pub match_expressions: Vec<Requirement>,
}

/// What is wrong with requirements.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum LabelsError {
    #[error("`{field}` has {found} entries: give at most {most}")]
    TooMany { field: &'static str, found: usize, most: usize },
    #[error("a label requirement has an empty `key`: name the label")]
    NoKey,
    #[error("the requirement on label `{key}` lists no `values`: In and NotIn need at least one")]
    NoValues { key: String },
    #[error(
        "the requirement on label `{key}` uses Gt or Lt, which only node affinity knows: use In, NotIn, Exists or DoesNotExist"
    )]
    Compares { key: String },
    #[error("a term of `{field}` has no expressions, so that no node satisfies it: give it one, or leave it out")]
    EmptyTerm { field: &'static str },
    #[error("`weight` of a preferred term is {found}: give a number from 1 to {most}")]
    Weight { found: u32, most: u32 },
}

impl Requirement {
    /// Whether these labels satisfy it.
    pub fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.rule {
            Rule::In(values) => value.is_some_and(|value| values.contains(value)),
            Rule::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Rule::Exists => value.is_some(),
            Rule::DoesNotExist => value.is_none(),
            Rule::Gt(than) => number().is_some_and(|number| number > *than),
            Rule::Lt(than) => number().is_some_and(|number| number < *than),
        }
    }

    /// Whether it makes sense and is within the bounds.
    pub fn check(&self) -> Result<(), LabelsError> {
        if self.key.is_empty() {
            return Err(LabelsError::NoKey);
        }
        match &self.rule {
            Rule::In(values) | Rule::NotIn(values) if values.is_empty() => Err(LabelsError::NoValues { key: self.key.clone() }),
            Rule::In(values) | Rule::NotIn(values) => within("values", values.len(), MOST_VALUES),
            Rule::Exists | Rule::DoesNotExist | Rule::Gt(_) | Rule::Lt(_) => Ok(()),
        }
    }
}

/// Whether a list is within its bound.
pub(crate) fn within(field: &'static str, found: usize, most: usize) -> Result<(), LabelsError> {
    if found <= most { Ok(()) } else { Err(LabelsError::TooMany { field, found, most }) }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.rule {
            Rule::In(values) => write!(f, "{key} in ({})", values.join(", ")),
            Rule::NotIn(values) => write!(f, "{key} not in ({})", values.join(", ")),
            Rule::Exists => write!(f, "{key}"),
            Rule::DoesNotExist => write!(f, "no {key}"),
            Rule::Gt(than) => write!(f, "{key} above {than}"),
            Rule::Lt(than) => write!(f, "{key} below {than}"),
        }
    }
}

impl Selector {
    /// The first requirement that these labels do not satisfy, in words; `None`: they are selected.
    pub fn refuses(&self, labels: &Labels) -> Option<String> {
        let label = self.match_labels.iter().find(|(key, value)| labels.get(*key) != Some(*value));
        let label = label.map(|(key, value)| format!("{key} = {value}"));
        label.or_else(|| self.match_expressions.iter().find(|requirement| !requirement.holds(labels)).map(ToString::to_string))
    }

    /// Whether it makes sense and is within the bounds.
    pub fn check(&self) -> Result<(), LabelsError> {
        within("matchLabels", self.match_labels.len(), MOST_REQUIREMENTS)?;
        within("matchExpressions", self.match_expressions.len(), MOST_REQUIREMENTS)?;
        self.match_expressions.iter().try_for_each(|requirement| match requirement.rule {
            Rule::Gt(_) | Rule::Lt(_) => Err(LabelsError::Compares { key: requirement.key.clone() }),
            _ => requirement.check(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn requirement(key: &str, rule: Rule) -> Requirement {
        Requirement { key: key.to_owned(), rule }
    }

    #[test]
    fn each_rule_says_what_kubernetes_says() {
        let labels = labels(&[("team", "vision"), ("gpus", "8"), ("rack", "r7")]);
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let table = [
            ("team", Rule::In(values(&["speech", "vision"])), true),
            ("team", Rule::In(values(&["speech"])), false),
            ("zone", Rule::In(values(&["a"])), false),
            ("team", Rule::NotIn(values(&["speech"])), true),
            ("team", Rule::NotIn(values(&["vision"])), false),
            ("zone", Rule::NotIn(values(&["a"])), true),
            ("team", Rule::Exists, true),
            ("zone", Rule::Exists, false),
            ("team", Rule::DoesNotExist, false),
            ("zone", Rule::DoesNotExist, true),
            ("gpus", Rule::Gt(7), true),
            ("gpus", Rule::Gt(8), false),
            ("gpus", Rule::Lt(9), true),
            ("gpus", Rule::Lt(8), false),
            ("rack", Rule::Gt(0), false),
            ("zone", Rule::Lt(9), false),
        ];
        for (key, rule, holds) in table {
            let requirement = requirement(key, rule);
            assert_eq!(requirement.holds(&labels), holds, "{requirement}");
        }
    }

    #[test]
    fn a_selector_needs_all_that_it_says_and_names_what_is_missing() {
        let selector = Selector {
            match_labels: labels(&[("team", "vision")]),
            match_expressions: vec![requirement("env", Rule::NotIn(vec!["test".to_owned()]))],
        };
        assert_eq!(selector.refuses(&labels(&[("team", "vision"), ("env", "prod")])), None);
        assert_eq!(selector.refuses(&labels(&[("team", "speech")])), Some("team = vision".to_owned()));
        let tested = labels(&[("team", "vision"), ("env", "test")]);
        assert_eq!(selector.refuses(&tested), Some("env not in (test)".to_owned()));
        assert_eq!(Selector::default().refuses(&Labels::new()), None);
    }

    #[test]
    fn what_makes_no_sense_or_is_too_large_is_refused_by_field() {
        let of = |rule: Rule| Selector { match_expressions: vec![requirement("k", rule)], ..Selector::default() }.check();
        assert_eq!(of(Rule::Exists), Ok(()));
        assert_eq!(of(Rule::In(Vec::new())), Err(LabelsError::NoValues { key: "k".to_owned() }));
        assert_eq!(of(Rule::Gt(1)), Err(LabelsError::Compares { key: "k".to_owned() }));
        assert!(requirement("k", Rule::Gt(1)).check().is_ok());
        assert_eq!(requirement("", Rule::Exists).check(), Err(LabelsError::NoKey));
        let many = of(Rule::NotIn(vec![String::new(); 65])).unwrap_err();
        assert_eq!(many.to_string(), "`values` has 65 entries: give at most 64");
        let many = vec![requirement("k", Rule::Exists); 33];
        assert!(Selector { match_expressions: many, ..Selector::default() }.check().is_err());
    }
}
