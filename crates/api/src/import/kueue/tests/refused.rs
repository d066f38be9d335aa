//! What is refused: each with file, document, object, field and remedy; nothing is written then.

use super::*;

fn refusal(text: &str) -> String {
    import_text(text).map_or_else(|problems| problems.to_string(), |imported| panic!("accepted: {}", imported.yaml))
}

fn assert_refused(text: &str, words: &[&str]) {
    let said = refusal(text);
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said:?} for {text}");
    }
}

fn quota(quota: &str) -> String {
    yaml(&format!("ClusterQueue a {{resourceGroups: [{{flavors: [{{name: f, resources: [{quota}]}}]}}]}}"))
}

#[test]
fn wrong_values_are_named_with_their_place() {
    let at = "k.yaml, document 1: ClusterQueue/a: spec.resourceGroups[0].flavors[0].resources[0]";
    for (text, words) in [
        (quota("{name: cpu, nominalQuota: -1}"), [at, ".nominalQuota (-1) is below 0; write 0 or more"]),
        (quota("{name: cpu, nominalQuota: 1, borrowingLimit: '-5'}"), [at, ".borrowingLimit (\"-5\") is below 0"]),
        (
            quota("{name: memory, nominalQuota: 4GB}"),
            [at, ".nominalQuota (\"4GB\") is not a quantity; write one as Kubernetes does"],
        ),
        (quota("{name: cpu, nominalQuota: '٤'}"), [at, "is not a quantity"]),
        (quota("{name: cpu, nominalQuota: [1]}"), [at, "nominalQuota"]),
        (quota("{name: cpu}"), [at, "missing field `nominalQuota`"]),
        (
            quota("{name: cpu, nominalQuota: 1}, {name: cpu, nominalQuota: 1}"),
            ["resources[1]", "second quota of this flavor and resource; keep one"],
        ),
        (quota("{name: cpu, nominalQuota: 9E}"), ["k.yaml, document 1: Queue/a: spec.quotas", "above the maximum"]),
        (yaml("ClusterQueue a {queueingStrategy: LIFO}"), ["spec.queueingStrategy (\"LIFO\")", "StrictFIFO"]),
        (yaml("ClusterQueue a {stopPolicy: Maybe}"), ["spec.stopPolicy (\"Maybe\")", "HoldAndDrain"]),
        (yaml("ClusterQueue a {fairSharing: {weight: -1}}"), ["spec.fairSharing.weight (-1)", "is below 0"]),
        (yaml("ClusterQueue a {cohortName: 'Über Team'}"), ["spec.cohortName (\"Über Team\")", "name a Cohort"]),
        (yaml("Cohort a {parentName: a/b}"), ["spec.parentName", "is not a name of a cohort"]),
        (yaml("ClusterQueue a {namespaceSelector: {matchLabels: [x]}}"), ["spec.namespaceSelector.matchLabels", "map"]),
        (
            yaml("ClusterQueue a {namespaceSelector: {matchExpressions: [{key: x, operator: In}]}}"),
            ["matchExpressions[0]", "In and NotIn need at least one"],
        ),
        (yaml("ClusterQueue a none"), ["ClusterQueue/a: spec (\"none\")", "Kueue's reference"]),
        (yaml("WorkloadPriorityClass high {value: much}"), ["WorkloadPriorityClass/high: value (\"much\")", "whole number"]),
    ] {
        assert_refused(&text, &words);
    }
}

#[test]
fn names_must_be_there_once_and_be_names() {
    for kind in ["ClusterQueue", "Cohort", "LocalQueue", "ResourceFlavor"] {
        for metadata in ["{}", "{name: ''}", "{name: ümlaut}", "{name: A}", "{name: 'a\\nb'}", "{name: 7}", "x"] {
            let text = format!("apiVersion: kueue.x-k8s.io/v1beta2\nkind: {kind}\nmetadata: {metadata}\n");
            assert_refused(&text, &["k.yaml, document 1", "metadata.name", "use 1 to 253 of a-z"]);
        }
        let twice = yaml(&format!("{kind} a\n{kind} b\n{kind} a"));
        assert_refused(
            &twice,
            &[&format!("k.yaml, document 3: {kind}/a: metadata.name"), "twice, also in k.yaml, document 1; keep one"],
        );
    }
    // Of a LocalQueue the namespace is part of the name.
    good(&yaml("LocalQueue x/a\nLocalQueue y/a"));
}

#[test]
fn cohorts_in_a_circle_are_named() {
    for (objects, circle) in [
        ("Cohort a {parentName: a}", "a -> a"),
        ("Cohort b {parentName: c}\nCohort c {parentName: b}\nClusterQueue q {cohortName: c}", "b -> c -> b"),
    ] {
        assert_refused(&yaml(objects), &["spec.parentName", circle, "give one of them another parent"]);
    }
}

#[test]
fn documents_that_are_no_manifests_are_named() {
    for (text, words) in [
        ("just words", ["k.yaml, document 1", "kind is missing; give a Kubernetes manifest"]),
        ("- 1\n- 2", ["k.yaml, document 1", "kind is missing"]),
        ("kind: ClusterQueue", ["ClusterQueue/?: apiVersion is missing", "manifest"]),
        ("a: [", ["k.yaml, document 1", "is not YAML"]),
        ("---\n---\n{}\n---\n\t", ["k.yaml, document", "kind is missing"]),
        ("apiVersion: v1\nkind: List\nitems: [null, 3]", ["document 1, item 1", "document 1, item 2"]),
        (
            "apiVersion: kueue.x-k8s.io/v1alpha1\nkind: Cohort\nmetadata: {name: a}",
            ["Cohort/a: apiVersion (\"kueue.x-k8s.io/v1alpha1\")", "kubectl get cohorts.v1beta1.kueue.x-k8s.io"],
        ),
    ] {
        assert_refused(text, &words);
    }
}

#[test]
fn what_no_queue_can_hold_is_refused() {
    let flavor = |n: usize| format!("ResourceFlavor f{n} {{nodeLabels: {{tidegate.dev/gpu-class: c{n}}}}}\n");
    let flavors = (0..70).map(flavor).collect::<Vec<_>>().concat();
    let all: Vec<String> =
        (0..70).map(|n| format!("{{name: f{n}, resources: [{{name: nvidia.com/gpu, nominalQuota: 1}}]}}")).collect();
    let queue = format!("ClusterQueue a {{resourceGroups: [{{flavors: [{}]}}]}}", all.join(", "));
    assert_refused(&yaml(&(flavors + &queue)), &["document 71", "spec.quotas", "write at most 64"]);
    let values = format!("[{}]", vec!["x"; 65].join(", "));
    let selector =
        format!("ClusterQueue a {{namespaceSelector: {{matchExpressions: [{{key: k, operator: In, values: {values}}}]}}}}");
    assert_refused(&yaml(&selector), &["document 1", "spec.namespaceSelector.matchExpressions[0].values", "at most 64"]);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = yaml("ClusterQueue A\nClusterQueue b {fairSharing: {weight: x}}\nCohort c {parentName: c}");
    assert_eq!(import_text(&text).unwrap_err().0.len(), 3);
}

#[test]
fn a_megabyte_of_nonsense_and_of_aliases_ends_with_a_sentence() {
    assert_refused(&"x".repeat(1 << 20), &["kind is missing"]);
    assert_refused(&"[".repeat(10_000), &["is not YAML"]);
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let one = format!("*a{}", n - 1);
        aliases += format!("a{n}: &a{n} [{}]\n", [one.as_str(); 9].join(", ")).as_str();
    }
    assert_refused(&aliases, &["is not YAML"]);
}
