//! What is written.

use super::*;

/// A ClusterQueue's or Cohort's groups of one flavor: `resource: nominal` pairs.
fn groups(flavor: &str, resources: &str) -> String {
    let quotas = resources.split(' ').map(|quota| {
        let (name, amounts) = quota.split_once('=').unwrap();
        let name = if name == "gpu" { "nvidia.com/gpu" } else { name };
        let (nominal, lending) = amounts.split_once('-').map_or((amounts, ""), |(nominal, lending)| (nominal, lending));
        let (nominal, borrowing) = nominal.split_once('+').unwrap_or((nominal, ""));
        let limit = |field: &str, value: &str| if value.is_empty() { String::new() } else { format!(", {field}: {value}") };
        format!(
            "{{name: {name}, nominalQuota: {nominal}{}{}}}",
            limit("borrowingLimit", borrowing),
            limit("lendingLimit", lending)
        )
    });
    let quotas: Vec<String> = quotas.collect();
    format!("{{coveredResources: [], flavors: [{{name: {flavor}, resources: [{}]}}]}}", quotas.join(", "))
}

fn spec(more: &str, all: &[(&str, &str)]) -> String {
    let all: Vec<String> = all.iter().map(|(flavor, resources)| groups(flavor, resources)).collect();
    let comma = if more.is_empty() { "" } else { ", " };
    format!("{{namespaceSelector: {{}}, resourceGroups: [{}]{comma}{more}}}", all.join(", "))
}

fn queue(name: &str, more: &str, all: &[(&str, &str)]) -> String {
    format!("ClusterQueue {name} {}\n", spec(more, all))
}

fn cohort(name: &str, more: &str, all: &[(&str, &str)]) -> String {
    format!("Cohort {name} {}\n", spec(more, all).replace("namespaceSelector: {}, ", ""))
}

const FLAVORS: &str = "ResourceFlavor h {nodeLabels: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}}
    ResourceFlavor hspot {nodeLabels: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3, spot: 'true'}}
    ResourceFlavor t {nodeLabels: {tidegate.dev/gpu-class: T4, nvidia.com/gpu.product: Tesla-T4}}
    ResourceFlavor any {}
    ";

#[test]
fn trees_and_quotas_are_carried_over() {
    let cases = [
        // A ClusterQueue alone shares with nobody.
        (queue("a", "", &[("any", "gpu=4")]), vec!["a gpu=4+0-0"]),
        (queue("a", "", &[]), vec!["a gpu=0+0-0"]),
        (queue("a", "", &[("any", "cpu=2 memory=4Gi")]), vec!["a gpu=0+0-0 cpu=2+0-0 memory=4096+0-0"]),
        // A cohort that is only named stands above, closed; limits stay.
        (
            queue("a", "cohortName: team", &[("any", "gpu=4+2-1")]) + &queue("b", "cohortName: team", &[("any", "gpu=8")]),
            vec!["team gpu=0+0-0", "a<team gpu=4+2-1", "b<team gpu=8"],
        ),
        // v1beta1's names of the fields.
        (
            queue("a", "cohort: team", &[("any", "gpu=1")]) + &cohort("team", "parent: all", &[]),
            vec!["all gpu=0+0-0", "team<all", "a<team gpu=1"],
        ),
        // What no ClusterQueue lists cannot be borrowed by it.
        (queue("a", "cohortName: c", &[("any", "cpu=1")]), vec!["c gpu=0+0-0 cpu=0+0-0", "a<c gpu=0+0 cpu=1"]),
        // Cohorts with quotas of their own, two levels.
        (
            cohort("org", "", &[("any", "gpu=16")])
                + &cohort("team", "parentName: org", &[("any", "gpu=8+4-2")])
                + &queue("a", "cohortName: team", &[("any", "gpu=2")]),
            vec!["org gpu=16+0-0", "team<org gpu=8+4-2", "a<team gpu=2"],
        ),
        // Classes: by label, ours first; two flavors of one class are one; other classes of the input are closed.
        (
            queue("a", "cohortName: c", &[("h", "gpu=4"), ("hspot", "gpu=2")]) + &queue("b", "cohortName: c", &[("t", "gpu=1")]),
            vec![
                "c gpu=0+0-0 gpu/H100-80GB-HBM3=0+0-0 gpu/T4=0+0-0",
                "a<c gpu/H100-80GB-HBM3=6 gpu/T4=0+0",
                "b<c gpu/H100-80GB-HBM3=0+0 gpu/T4=1",
            ],
        ),
        // Limits of classes are those of all GPUs together, if all have one; lending is at most what is owned.
        (
            queue("a", "cohortName: c", &[("h", "gpu=4+1-9"), ("t", "gpu=2+3")]),
            vec!["c gpu=0+0-0 gpu/H100-80GB-HBM3=0+0-0 gpu/T4=0+0-0", "a<c gpu=6+4-6 gpu/H100-80GB-HBM3=4+1-4 gpu/T4=2+3"],
        ),
        // With and without a class.
        (
            queue("a", "cohortName: c", &[("h", "gpu=4"), ("any", "gpu=2")]),
            vec!["c gpu=0+0-0 gpu/H100-80GB-HBM3=0+0-0", "a<c gpu=6 gpu/H100-80GB-HBM3=4"],
        ),
        // Sums over flavors, rounded once.
        (
            queue("a", "", &[("x", "cpu=1500m memory=1.5Gi"), ("y", "cpu=1.5 memory=1G")]),
            vec!["a gpu=0+0-0 cpu=3+0-0 memory=2489+0-0"],
        ),
        (queue("a", "", &[("x", "cpu=1e3 memory=1048575")]), vec!["a gpu=0+0-0 cpu=1000+0-0 memory=0+0-0"]),
        // Orders.
        (queue("a", "queueingStrategy: StrictFIFO", &[]), vec!["a gpu=0+0-0 StrictFifo"]),
        (queue("a", "queueingStrategy: BestEffortFIFO", &[]), vec!["a gpu=0+0-0"]),
    ];
    for (objects, expected) in cases {
        let (queues, _) = good(&yaml(&(FLAVORS.to_owned() + &objects)));
        assert_eq!(queues.iter().map(short).collect::<Vec<_>>(), expected, "{objects}");
    }
}

#[test]
fn names_that_clash_or_are_no_labels_are_changed_for_parents_too() {
    let objects = queue("a", "cohortName: a", &[]) + &queue("b.c", "cohortName: x.y", &[]) + &cohort("a", "parentName: x.y", &[]);
    let (queues, told) = good(&yaml(&objects));
    let found: Vec<String> = queues.iter().map(|queue| short(queue).split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(found, ["x-y", "a-cohort<x-y", "a<a-cohort", "b-c<x-y"]);
    let told = told.join("\n");
    for words in
        ["Cohort/a: metadata.name (\"a\") becomes the Queue a-cohort", "write tidegate.dev/queue: b-c in the pods", "cohort x.y:"]
    {
        assert!(told.contains(words), "{words} is not in {told}");
    }
}

#[test]
fn weights_keep_their_ratio_among_siblings() {
    let weighted = |name: &str, weight: &str| queue(name, &format!("cohortName: c, fairSharing: {{weight: {weight}}}"), &[]);
    let cases = [
        (weighted("a", "2") + &weighted("b", "3"), ["w2p0", "w3p0"]),
        (weighted("a", "'0.5'") + &weighted("b", "1"), ["", "w2p0"]),
        (weighted("a", "500m") + &queue("b", "cohortName: c", &[]), ["", "w2p0"]),
        (weighted("a", "0") + &weighted("b", "1"), ["w1p-1", ""]),
        (weighted("a", "5k") + &weighted("b", "10k"), ["", "w2p0"]),
    ];
    for (objects, expected) in cases {
        let (queues, _) = good(&yaml(&objects));
        let found: Vec<String> =
            queues[1..].iter().map(|queue| short(queue).split_once("gpu=0+0").unwrap().1.trim().to_owned()).collect();
        assert_eq!(found, expected, "{objects}");
    }
}

#[test]
fn selectors_of_namespaces_stay_and_absent_is_nobody() {
    let selector = |selector: &str| good(&yaml(&format!("ClusterQueue a {selector}"))).0[0].spec.namespace_selector.clone();
    assert_eq!(selector("{namespaceSelector: {}}"), None);
    let labels =
        selector("{namespaceSelector: {matchLabels: {team: a}, matchExpressions: [{key: x, operator: In, values: [y]}]}}")
            .unwrap();
    assert_eq!(
        (labels.match_labels["team"].as_str(), labels.match_expressions[0].values.as_slice()),
        ("a", &["y".to_owned()][..])
    );
    for nobody in ["{}", "{namespaceSelector: null}"] {
        let nobody = selector(nobody).unwrap();
        let expression = &nobody.match_expressions[0];
        assert_eq!(
            (expression.key.as_str(), expression.operator),
            ("kubernetes.io/metadata.name", crate::kinds::LabelOperator::DoesNotExist)
        );
    }
}

#[test]
fn lists_as_kubectl_prints_them_are_taken_apart() {
    let item = |name: &str| {
        format!(
            "- apiVersion: kueue.x-k8s.io/v1beta1\n  kind: ClusterQueue\n  metadata: {{name: {name}, uid: u, creationTimestamp: null}}\n  spec: {{namespaceSelector: {{}}}}\n  status: {{admittedWorkloads: 3}}\n"
        )
    };
    for head in [
        "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\n",
        "apiVersion: kueue.x-k8s.io/v1beta1\nkind: ClusterQueueList\n",
    ] {
        let (queues, told) = good(&format!("{head}items:\n{}{}", item("a"), item("b")));
        assert_eq!((queues.len(), told), (2, Vec::<String>::new()));
    }
    assert!(good("apiVersion: v1\nkind: List\nitems: []\n").0.is_empty());
}

#[test]
fn queues_do_not_depend_on_the_order_of_documents_and_files() {
    let objects = FLAVORS.to_owned()
        + &cohort("org", "", &[])
        + &queue("a", "cohortName: org", &[("h", "gpu=1")])
        + &queue("b", "cohortName: a", &[("t", "gpu=2")]);
    let (expected, _) = good(&yaml(&objects));
    let mut lines: Vec<&str> = objects.lines().collect();
    for turn in 0..lines.len() {
        lines.rotate_left(1);
        let half = turn.min(lines.len());
        let files = [&lines[..half], &lines[half..]].map(|lines| File { name: "x".to_owned(), text: yaml(&lines.join("\n")) });
        let found = manifest::parse(&import(&files).unwrap().yaml, "x").unwrap();
        let found: Vec<String> = found.iter().map(|object| object.to_json().unwrap()).collect();
        assert_eq!(found, expected.iter().map(|queue| serde_json::to_string(queue).unwrap()).collect::<Vec<_>>());
    }
}

#[test]
fn a_megabyte_is_read_and_written() {
    let line = |number: usize| {
        queue(
            &format!("q{number}"),
            &format!("cohortName: c{}", number / 20),
            &[("h", "gpu=4+2-1 cpu=100 memory=1Ti"), ("t", "gpu=1")],
        )
    };
    let objects: String = FLAVORS.to_owned() + &(0..2_600).map(line).collect::<String>();
    let text = yaml(&objects);
    assert!(text.len() > 1 << 20, "{}", text.len());
    let (queues, _) = good(&text);
    assert_eq!(queues.len(), 2_600 + 130);
}
