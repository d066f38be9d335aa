//! Which nodes a pod may run on, in the engine's words.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Toleration};
use tidegate_core::ask::affinity::MOST_TERMS;
use tidegate_core::ask::{self, Affinity, Preference, Term};
use tidegate_core::labels::{Requirement, Rule};

use super::node;

/// Labels that a node must have.
pub fn selector(spec: &PodSpec) -> BTreeMap<String, Vec<String>> {
    spec.node_selector.iter().flatten().map(|(key, value)| (key.clone(), vec![value.clone()])).collect()
}

/// Node affinity; what only counts while pods are placed is meant, as no node is left because of its labels.
pub fn affinity(spec: &PodSpec) -> Affinity {
    let Some(wanted) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) else {
        return Affinity::default();
    };
    let required = wanted.required_during_scheduling_ignored_during_execution.iter();
    let preferred = wanted.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    Affinity {
        required: required.flat_map(|selector| &selector.node_selector_terms).map(term).collect(),
        preferred: preferred
            .map(|wish| Preference { weight: u32::try_from(wish.weight).unwrap_or(1), term: term(&wish.preference) })
            .collect(),
    }
}

/// Terms that hold where one of both lists holds; an empty list holds everywhere. More than the engine looks at are not made.
pub fn both(one: &[Term], other: &[Term]) -> Vec<Term> {
    let (longer, shorter) = if one.is_empty() { (other, one) } else { (one, other) };
    if shorter.is_empty() {
        return longer.to_vec();
    }
    let mut all = Vec::new();
    for pair in one.iter().flat_map(|one| other.iter().map(move |other| (one, other))) {
        let term = joined(pair.0, pair.1);
        if all.len() <= MOST_TERMS && !all.contains(&term) {
            all.push(term);
        }
    }
    all
}

/// A term without expressions never holds.
fn joined(Term(one): &Term, Term(other): &Term) -> Term {
    if one.is_empty() || other.is_empty() {
        return Term::default();
    }
    let fresh = other.iter().filter(|requirement| !one.contains(requirement));
    Term(one.iter().chain(fresh).cloned().collect())
}

pub(super) fn term(term: &NodeSelectorTerm) -> Term {
    let all = term.match_expressions.iter().flatten().chain(term.match_fields.iter().flatten());
    Term(all.map(requirement).collect())
}

/// An operator that is not known is satisfied by no node: rather wait than run where it must not.
fn requirement(requirement: &NodeSelectorRequirement) -> Requirement {
    let values = requirement.values.clone().unwrap_or_default();
    let number = |else_never: i64| values.first().and_then(|value| value.parse().ok()).unwrap_or(else_never);
    let rule = match requirement.operator.as_str() {
        "NotIn" => Rule::NotIn(values),
        "Exists" => Rule::Exists,
        "DoesNotExist" => Rule::DoesNotExist,
        "Gt" => Rule::Gt(number(i64::MAX)),
        "Lt" => Rule::Lt(number(i64::MIN)),
        "In" => Rule::In(values),
        _ => Rule::In(Vec::new()),
    };
    Requirement { key: requirement.key.clone(), rule }
}

/// Taints that it puts up with.
pub fn tolerations(spec: &PodSpec) -> Vec<ask::Toleration> {
    let mut all: Vec<_> = spec.tolerations.iter().flatten().filter_map(toleration).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn toleration(toleration: &Toleration) -> Option<ask::Toleration> {
    let effect = match toleration.effect.as_deref() {
        None | Some("") => None,
        Some(word) => Some(node::effect(word)?),
    };
    let any_value = toleration.operator.as_deref() == Some("Exists");
    let value = if any_value { None } else { Some(toleration.value.clone().unwrap_or_default()) };
    Some(ask::Toleration { key: toleration.key.clone().filter(|key| !key.is_empty()), value, effect })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidegate_core::ask::Ask;
    use tidegate_core::node::{Effect, NodeSpec, Taint};

    use super::*;

    fn suits(spec: Value, node: &NodeSpec) -> bool {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let ask = Ask { selector: selector(&spec), affinity: affinity(&spec), tolerations: tolerations(&spec), ..Ask::default() };
        ask.suits_node(node)
    }

    fn node(labels: &[(&str, &str)]) -> NodeSpec {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        NodeSpec { labels: labels.collect(), ..NodeSpec::default() }
    }

    #[test]
    fn selectors_and_affinity_choose_nodes_as_kubernetes_does() {
        let (a, b) = (node(&[("zone", "a"), ("metadata.name", "n1")]), node(&[("zone", "b"), ("cores", "9")]));
        assert!(suits(json!({"nodeSelector": {"zone": "a"}}), &a) && !suits(json!({"nodeSelector": {"zone": "a"}}), &b));
        let affinity = |term: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}});
        let by = |key: &str, operator: &str, values: Value| {
            affinity(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        assert!(suits(by("zone", "NotIn", json!(["b"])), &a) && !suits(by("zone", "NotIn", json!(["b"])), &b));
        assert!(suits(by("cores", "Gt", json!(["8"])), &b) && !suits(by("cores", "Gt", json!(["8"])), &a));
        assert!(!suits(by("zone", "Resembles", json!(["a"])), &a), "an operator that nobody knows");
        let field = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]});
        assert!(suits(affinity(field.clone()), &a) && !suits(affinity(field), &b));
        assert!(!suits(affinity(json!({})), &a), "an empty term is satisfied by no node");
    }

    #[test]
    fn of_two_lists_one_term_each_must_hold() {
        let term = |key: &str| Term(vec![Requirement { key: key.to_owned(), rule: Rule::Exists }]);
        let pair = |one: &str, other: &str| Term([term(one).0, term(other).0].concat());
        assert_eq!(both(&[term("a"), term("b")], &[term("c")]), [pair("a", "c"), pair("b", "c")]);
        assert_eq!((both(&[], &[term("a")]), both(&[term("a")], &[])), (vec![term("a")], vec![term("a")]));
        assert_eq!(both(&[term("a")], &[term("a")]), [term("a")], "nothing twice");
        assert_eq!(both(&[Term::default()], &[term("a")]), [Term::default()], "what never holds never does");
        let many: Vec<Term> = (0..10).map(|number| term(&number.to_string())).collect();
        assert_eq!(both(&many, &many[..9]).len(), MOST_TERMS + 1, "so that it is told that these are too many");
    }

    #[test]
    fn tolerations_cover_taints_as_kubernetes_says() {
        let taint = |value: &str, effect| Taint { key: "k".to_owned(), value: value.to_owned(), effect };
        let tainted = |taint| NodeSpec { taints: vec![taint], ..NodeSpec::default() };
        let node = tainted(taint("v", Effect::NoSchedule));
        let with = |toleration: Value| json!({"tolerations": [toleration]});
        assert!(!suits(json!({}), &node));
        assert!(suits(with(json!({"key": "k", "operator": "Exists"})), &node));
        assert!(suits(with(json!({"operator": "Exists"})), &node), "everything");
        assert!(suits(with(json!({"key": "k", "value": "v", "effect": "NoSchedule"})), &node));
        assert!(!suits(with(json!({"key": "k", "value": "w"})), &node));
        assert!(!suits(with(json!({"key": "k", "value": "v", "effect": "NoExecute"})), &node));
        assert!(!suits(with(json!({"key": "k", "value": "v", "effect": "PreferNoSchedule"})), &node));
    }
}
