//! What labels must be, in the engine's words.

use tidegate_core::ask::{Affinity, Preference, Term};
use tidegate_core::labels::{Requirement, Rule, Selector};

use crate::kinds::{LabelOperator, LabelRequirement, NamespaceSelector, NodeAffinity, NodeTerm};

/// Namespaces of a queue.
pub(super) fn selector(selector: &NamespaceSelector) -> Selector {
    let match_expressions = selector.match_expressions.iter().map(requirement).collect();
    Selector { match_labels: selector.match_labels.clone(), match_expressions }
}

/// Nodes of a worker or a replica.
pub fn affinity(affinity: &NodeAffinity) -> Affinity {
    let required = affinity.required_during_scheduling_ignored_during_execution.iter();
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter();
    Affinity {
        required: required.flat_map(|selector| &selector.node_selector_terms).map(term).collect(),
        preferred: preferred.map(|wish| Preference { weight: wish.weight, term: term(&wish.preference) }).collect(),
    }
}

fn term(term: &NodeTerm) -> Term {
    Term(term.match_expressions.iter().map(requirement).collect())
}

fn requirement(requirement: &LabelRequirement) -> Requirement {
    let values = &requirement.values;
    // Anything but a number is refused by validation, and would satisfy nothing.
    let number = |else_never: i64| values.first().and_then(|value| value.parse().ok()).unwrap_or(else_never);
    let rule = match requirement.operator {
        LabelOperator::In => Rule::In(values.clone()),
        LabelOperator::NotIn => Rule::NotIn(values.clone()),
        LabelOperator::Exists => Rule::Exists,
        LabelOperator::DoesNotExist => Rule::DoesNotExist,
        LabelOperator::Gt => Rule::Gt(number(i64::MAX)),
        LabelOperator::Lt => Rule::Lt(number(i64::MIN)),
    };
    Requirement { key: requirement.key.clone(), rule }
}
