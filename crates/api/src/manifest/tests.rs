//! Each rule of the kinds refuses what it should, with field and remedy, and nothing else.

use super::*;

const JOB: &str = "queue: q, template: {command: [a]}";
const MODEL: &str = "queue: q, source: {onnx: m.onnx}, sloMilliseconds: 100";

fn told(kind: &str, spec: &str) -> Vec<String> {
    let text = format!("apiVersion: {GROUP}/{VERSION}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{{spec}}}\n");
    parse(&text, "x.yaml").map_or_else(|problems| problems.0.iter().map(ToString::to_string).collect(), |_| Vec::new())
}

fn assert_fine(kind: &str, spec: &str) {
    assert_eq!(told(kind, spec), [""; 0], "{kind} {spec}");
}

fn assert_refused(kind: &str, spec: &str, words: &[&str]) {
    let said = told(kind, spec).join("\n");
    for word in words {
        assert!(said.contains(word), "{kind} {spec}: no {word:?} in {said:?}");
    }
}

#[test]
fn every_manifest_of_the_first_release_is_still_valid() {
    assert_fine("Queue", "nominal: 4");
    assert_fine("Queue", "nominal: 0, borrowingLimit: 4");
    assert_fine("TrainingJob", &format!("{JOB}, gpu: {{memoryMib: 8192, classes: [H100-80GB, A100-40GB]}}"));
    assert_fine("Model", &format!("{MODEL}, gpu: {{memoryMib: 8192}}"));
    assert_fine("Pool", "headroomPercent: 15, lendAfterSeconds: 6, growAfterSeconds: 4, maxEvictionsPerMinute: 30");
}

#[test]
fn a_queue_says_the_quota_of_a_resource_once() {
    assert_refused(
        "Queue",
        "nominal: 4, quotas: [{resource: gpu, nominal: 4}]",
        &["spec", "nominal", "borrowingLimit", "quotas"],
    );
    assert_refused("Queue", "borrowingLimit: 4, quotas: [{resource: gpu, nominal: 4}]", &["borrowingLimit", "quotas"]);
    assert_fine("Queue", "nominal: 4, quotas: [{resource: cpu, nominal: 4}]");
    let twice = "quotas: [{resource: cpu, nominal: 1}, {resource: cpu, nominal: 2}]";
    assert_refused("Queue", twice, &["spec.quotas", "two quotas of one resource; keep one"]);
}

#[test]
fn a_queue_names_resources_that_there_are() {
    for resource in ["gpu", "cpu", "memory", "gpu/H100-80GB", "gpu/RTX-4090-24GB"] {
        assert_fine("Queue", &format!("quotas: [{{resource: {resource}, nominal: 1}}]"));
    }
    for resource in ["gpus", "gpu/", "gpu/-x", "'gpu/a b'", "disk", "gpu/a/b"] {
        let spec = format!("quotas: [{{resource: {resource}, nominal: 1}}]");
        assert_refused("Queue", &spec, &["spec.quotas[0].resource", "write gpu, gpu/CLASS, cpu or memory"]);
    }
}

#[test]
fn a_queues_numbers_have_bounds() {
    assert_refused("Queue", "weight: 0", &["Queue/x: spec.weight (0)", "write at least 1"]);
    assert_refused("Queue", "weight: 1001", &["spec.weight", "at most 1000"]);
    assert_refused("Queue", "parent: ''", &["spec.parent", "must name a Queue"]);
    assert_refused("Queue", "discipline: Lifo", &["spec.discipline", "Lifo", "StrictFifo"]);
    let quota = |more: &str| format!("quotas: [{{resource: gpu, nominal: 1, {more}}}]");
    assert_refused("Queue", &quota("lendingLimit: -1"), &["spec.quotas[0].lendingLimit"]);
    assert_refused("Queue", "quotas: [{resource: gpu, nominal: 1000000000001}]", &["spec.quotas[0].nominal", "at most"]);
    assert_refused("Queue", "quotas: [{resource: gpu, nominal: 0.5}]", &["spec.quotas[0].nominal", "0.5"]);
    assert_refused("Queue", "quotas: [{resource: gpu}]", &["nominal"]);
    assert_refused("Queue", &quota("budget: 1"), &["spec.quotas.0.budget", "is not a field"]);
}

#[test]
fn an_ask_says_how_much_at_most_once() {
    let gpu = |gpu: &str| format!("{JOB}, gpu: {{{gpu}}}");
    for one in ["count: 8", "count: 0", "memoryMib: 1", "milli: 1000", "mig: 3g"] {
        assert_fine("TrainingJob", &gpu(one));
    }
    let ways = ["count: 1", "memoryMib: 1", "milli: 1", "mig: 1g"];
    for (at, one) in ways.iter().enumerate() {
        for other in ways.iter().skip(at + 1) {
            let words = ["spec.gpu", "keep one of count, memoryMib, milli and mig"];
            assert_refused("TrainingJob", &gpu(&format!("{one}, {other}")), &words);
            assert_refused("Model", &format!("{MODEL}, gpu: {{{one}, {other}}}"), &words);
        }
    }
    assert_refused("TrainingJob", &gpu("count: 65"), &["spec.gpu.count", "at most 64"]);
    assert_refused("TrainingJob", &gpu("milli: 1001"), &["spec.gpu.milli", "at most 1000"]);
    assert_refused("TrainingJob", &gpu("milli: 0"), &["spec.gpu.milli", "at least 1"]);
    assert_refused("TrainingJob", &gpu("mig: 5g"), &["spec.gpu.mig", "5g", "1gDouble"]);
}

#[test]
fn a_class_is_named_once() {
    let gpu = |gpu: &str| format!("{JOB}, gpu: {{{gpu}}}");
    let speed = |class: &str| format!("{{class: {class}, speedMilli: 500}}");
    assert_fine("TrainingJob", &gpu(&format!("classes: [a], classSpeeds: [{}, {}]", speed("b"), speed("c"))));
    assert_refused("TrainingJob", &gpu(&format!("classes: [a], classSpeeds: [{}]", speed("a"))), &["spec.gpu", "classSpeeds"]);
    assert_refused("TrainingJob", &gpu(&format!("classSpeeds: [{}, {}]", speed("b"), speed("b"))), &["spec.gpu", "twice"]);
    assert_refused("TrainingJob", &gpu("classes: ['']"), &["spec.gpu.classes[0]", "at least 1"]);
    let slow = gpu("classSpeeds: [{class: a, speedMilli: 0}]");
    assert_refused("TrainingJob", &slow, &["spec.gpu.classSpeeds[0].speedMilli", "at least 1"]);
}

#[test]
fn a_replica_uses_one_device() {
    assert_fine("Model", &format!("{MODEL}, gpu: {{count: 1}}"));
    for count in ["0", "2"] {
        let spec = format!("{MODEL}, gpu: {{count: {count}}}");
        assert_refused("Model", &spec, &["spec.gpu", "a replica uses one device", "ask for a share"]);
    }
}

#[test]
fn a_speedup_curve_never_falls() {
    let curve = |points: &str| format!("{JOB}, speedup: [{points}]");
    let point = |workers: u32, speed: u32| format!("{{workers: {workers}, speedMilli: {speed}}}");
    assert_fine("TrainingJob", &curve(&format!("{}, {}, {}", point(4, 2500), point(1, 1000), point(8, 2500))));
    let falls = curve(&format!("{}, {}", point(1, 1000), point(2, 900)));
    assert_refused("TrainingJob", &falls, &["spec.speedup", "falls with more workers"]);
    let twice = curve(&format!("{}, {}", point(1, 1000), point(1, 1000)));
    assert_refused("TrainingJob", &twice, &["spec.speedup", "two points of one size and choice; keep one"]);
}

#[test]
fn points_of_one_size_are_told_apart_by_their_choice() {
    let curve = |points: &[(u32, u32, Option<u32>)]| {
        let point = |(workers, speed, choice): &(u32, u32, Option<u32>)| {
            let choice = choice.map(|choice| format!(", choice: {choice}")).unwrap_or_default();
            format!("{{workers: {workers}, speedMilli: {speed}{choice}}}")
        };
        format!("{JOB}, speedup: [{}]", points.iter().map(point).collect::<Vec<_>>().join(", "))
    };
    assert_fine("TrainingJob", &curve(&[(1, 1000, Some(32)), (1, 900, Some(64)), (2, 1500, Some(32)), (2, 1900, Some(64))]));
    assert_fine("TrainingJob", &curve(&[(1, 1000, Some(32)), (2, 800, Some(32)), (2, 1900, Some(64))]));
    let falls = curve(&[(1, 1000, Some(32)), (2, 900, Some(64)), (2, 800, Some(32))]);
    assert_refused("TrainingJob", &falls, &["spec.speedup", "falls with more workers"]);
    let twice = curve(&[(1, 1000, Some(32)), (1, 900, Some(32))]);
    assert_refused("TrainingJob", &twice, &["spec.speedup", "two points of one size and choice"]);
    let some = curve(&[(1, 1000, Some(32)), (2, 1900, None)]);
    assert_refused("TrainingJob", &some, &["spec.speedup", "name one in each, or in none"]);
    let large = curve(&[(1, 1000, Some(1_000_000_001))]);
    assert_refused("TrainingJob", &large, &["spec.speedup[0].choice", "at most 1000000000"]);
}

#[test]
fn groups_stand_instead_of_workers_and_have_names_and_sizes() {
    let groups = |groups: &str| format!("{JOB}, groups: [{groups}]");
    let one = "{name: learner, min: 1, max: 2}";
    assert_fine("TrainingJob", &groups(&format!("{one}, {{name: actor, min: 4, max: 4, gpu: {{count: 0}}, cpuMilli: 500}}")));
    let both = format!("{}, workers: {{min: 1, max: 1}}", groups(one));
    assert_refused("TrainingJob", &both, &["TrainingJob/x", "in workers and in groups; keep one of the two"]);
    assert_refused("TrainingJob", &groups(&format!("{one}, {one}")), &["spec.groups", "two groups of one name"]);
    assert_refused("TrainingJob", &groups("{name: a, min: 2, max: 1}"), &["spec.groups[0]", "lower min or raise max"]);
    assert_refused("TrainingJob", &groups("{name: a, min: 0, max: 1}"), &["spec.groups[0].min", "at least 1"]);
    assert_refused("TrainingJob", &groups("{name: A_b, min: 1, max: 1}"), &["spec.groups[0].name", "is not a DNS label"]);
    assert_refused("TrainingJob", &groups("{name: '', min: 1, max: 1}"), &["spec.groups[0].name", "at least 1"]);
    assert_refused("TrainingJob", &groups("{name: a, min: 1}"), &["max"]);
    let ask = groups("{name: a, min: 1, max: 1, gpu: {count: 1, milli: 5}}");
    assert_refused("TrainingJob", &ask, &["spec.groups[0].gpu", "keep one of count"]);
    let many: Vec<String> = (0..17).map(|n| format!("{{name: g{n}, min: 1, max: 1}}")).collect();
    assert_refused("TrainingJob", &groups(&many.join(", ")), &["spec.groups", "at most 16"]);
}

#[test]
fn only_who_asks_for_a_whole_device_shares_it_by_turns() {
    assert_fine("Model", &format!("{MODEL}, maxSharers: 4, gpu: {{classes: [a]}}"));
    assert_fine("Model", &format!("{MODEL}, maxSharers: 1, gpu: {{milli: 500}}"));
    for share in ["milli: 500", "memoryMib: 4096", "mig: 1g"] {
        let spec = format!("{MODEL}, maxSharers: 2, gpu: {{{share}}}");
        assert_refused("Model", &spec, &["by maxSharers, but gpu asks for a part of one", "keep one of the two"]);
    }
    assert_refused("Model", &format!("{MODEL}, maxSharers: 0"), &["spec.maxSharers", "at least 1"]);
    assert_refused("Model", &format!("{MODEL}, maxSharers: 65"), &["spec.maxSharers", "at most 64"]);
}

#[test]
fn a_jobs_numbers_have_bounds() {
    let cases = [
        ("minRuntimeSeconds: 604801", "spec.minRuntimeSeconds"),
        ("maxDisruptionsPerHour: 0", "spec.maxDisruptionsPerHour"),
        ("gangTimeoutSeconds: 0", "spec.gangTimeoutSeconds"),
        ("expectedSeconds: 0", "spec.expectedSeconds"),
        ("cpuMilli: 1024001", "spec.cpuMilli"),
        ("memoryMib: -1", "spec.memoryMib"),
        ("recipe: ''", "spec.recipe"),
        ("spread: {level: ''}", "spec.spread.level"),
        ("spread: {required: true}", "spec.spread"),
        ("preemptible: maybe", "spec.preemptible"),
    ];
    for (wrong, field) in cases {
        assert_refused("TrainingJob", &format!("{JOB}, {wrong}"), &[field]);
    }
    assert_refused("TrainingJob", &format!("{JOB}, owner: {}", "a".repeat(254)), &["spec.owner", "at most 253"]);
}

#[test]
fn a_pools_numbers_have_bounds() {
    for (wrong, field) in [
        ("burstSigmasPercent: 1001", "spec.burstSigmasPercent"),
        ("predictPercent: 0", "spec.predictPercent"),
        ("predictPercent: 100", "spec.predictPercent"),
        ("halfLifeSeconds: 0", "spec.halfLifeSeconds"),
        ("historyPercent: 1001", "spec.historyPercent"),
        ("maxReservations: 1001", "spec.maxReservations"),
        ("topologyLevels: [rack, rack]", "spec.topologyLevels"),
        ("topologyLevels: [node]", "spec.topologyLevels"),
        ("topologyLevels: ['']", "spec.topologyLevels"),
        ("consolidate: maybe", "spec.consolidate"),
        ("fairReclaim: maybe", "spec.fairReclaim"),
    ] {
        assert_refused("Pool", wrong, &[field]);
    }
}

#[test]
fn a_selector_of_namespaces_is_kubernetes_and_within_bounds() {
    let selector = |selector: &str| format!("namespaceSelector: {{{selector}}}");
    let expression = |more: &str| selector(&format!("matchExpressions: [{{key: team, {more}}}]"));
    assert_fine("Queue", &selector(""));
    assert_fine("Queue", &selector("matchLabels: {kubernetes.io/metadata.name: team-a, empty: ''}"));
    assert_fine("Queue", &expression("operator: In, values: [a, b]"));
    assert_fine("Queue", &expression("operator: DoesNotExist"));
    let at = "spec.namespaceSelector.matchExpressions[0]";
    assert_refused("Queue", &expression("operator: In"), &[at, "lists no values; In and NotIn need at least one"]);
    assert_refused("Queue", &expression("operator: NotIn, values: []"), &[at, "need at least one"]);
    assert_refused("Queue", &expression("operator: Exists, values: [a]"), &[at, "do not look at; remove them"]);
    let number = expression("operator: Gt, values: ['1']");
    assert_refused("Queue", &number, &["spec.namespaceSelector", "write In, NotIn, Exists or DoesNotExist"]);
    assert_refused("Queue", &expression("operator: Equals, values: [a]"), &["operator", "Equals", "DoesNotExist"]);
    let empty = selector("matchExpressions: [{key: '', operator: Exists}]");
    assert_refused("Queue", &empty, &[&format!("{at}.key"), "at least 1"]);
    let values = format!("operator: In, values: [{}]", vec!["a"; 65].join(", "));
    assert_refused("Queue", &expression(&values), &[&format!("{at}.values"), "65 items", "at most 64"]);
    let labels: Vec<String> = (0..33).map(|n| format!("k{n}: v")).collect();
    let labels = selector(&format!("matchLabels: {{{}}}", labels.join(", ")));
    assert_refused("Queue", &labels, &["spec.namespaceSelector.matchLabels", "33 entries", "at most 32"]);
    let long = selector(&format!("matchLabels: {{team: {}}}", "a".repeat(64)));
    assert_refused("Queue", &long, &["spec.namespaceSelector.matchLabels.team", "at most 63"]);
    assert_refused("Queue", &selector("matchLabel: {a: b}"), &["spec.namespaceSelector.matchLabel", "is not a field"]);
}

#[test]
fn a_queues_priority_has_bounds() {
    assert_fine("Queue", "priority: -1000");
    assert_refused("Queue", "priority: 1001", &["spec.priority (1001)", "at most 1000"]);
}

#[test]
fn node_affinity_is_kubernetes_and_within_bounds() {
    let required = |terms: &str| {
        format!("nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{terms}]}}}}")
    };
    let term = |expression: &str| format!("{{matchExpressions: [{{key: zone, {expression}}}]}}");
    let preferred = |weight: u32| {
        let wish = format!("{{weight: {weight}, preference: {}}}", term("operator: Exists"));
        format!("nodeAffinity: {{preferredDuringSchedulingIgnoredDuringExecution: [{wish}]}}")
    };
    let terms = "spec.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    for (kind, good) in [("TrainingJob", JOB), ("Model", MODEL)] {
        let refused = |spec: &str, words: &[&str]| assert_refused(kind, &format!("{good}, {spec}"), words);
        assert_fine(kind, &format!("{good}, nodeAffinity: {{}}"));
        for expression in ["operator: In, values: [a]", "operator: Lt, values: ['-12']", "operator: Exists"] {
            assert_fine(kind, &format!("{good}, {}", required(&term(expression))));
        }
        assert_fine(kind, &format!("{good}, {}", preferred(100)));
        refused(&preferred(0), &["preferredDuringSchedulingIgnoredDuringExecution[0].weight", "at least 1"]);
        refused(&preferred(101), &["preferredDuringSchedulingIgnoredDuringExecution[0].weight", "at most 100"]);
        refused(&required(""), &[terms, "at least 1"]);
        refused(&required("{matchExpressions: []}"), &[&format!("{terms}[0].matchExpressions"), "at least 1"]);
        refused(&required("{matchFields: []}"), &["matchFields"]);
        refused(&required(&vec![term("operator: Exists"); 17].join(", ")), &[terms, "17 items", "at most 16"]);
        for values in ["", ", values: []", ", values: [x]", ", values: ['1', '2']", ", values: ['1e3']"] {
            let spec = required(&term(&format!("operator: Gt{values}")));
            refused(&spec, &["matchExpressions[0]", "one value, a whole number in quotes"]);
        }
        refused(&required(&term("operator: In")), &["matchExpressions[0]", "need at least one"]);
    }
    let group = format!("{JOB}, groups: [{{name: a, min: 1, max: 1, {}}}]", required(&term("operator: NotIn")));
    assert_refused("TrainingJob", &group, &["spec.groups[0].nodeAffinity", "need at least one"]);
}

#[test]
fn memory_is_told_of_models_that_share_and_has_bounds() {
    let shares = |memory: &str| format!("{MODEL}, maxSharers: 2, memory: {{{memory}}}");
    assert_fine("Model", &shares("weightsMib: 14336, perRowKib: 2048"));
    assert_fine("Model", &shares("weightsMib: 14336"));
    let alone = format!("{MODEL}, memory: {{weightsMib: 14336}}");
    assert_refused("Model", &alone, &["only for a model that shares", "set maxSharers above 1, or remove memory"]);
    assert_refused("Model", &shares("weightsMib: 0"), &["spec.memory.weightsMib", "at least 1"]);
    assert_refused("Model", &shares("perRowKib: 1"), &["spec.memory", "weightsMib"]);
    assert_refused("Model", &shares("weightsMib: 14Gi"), &["spec.memory.weightsMib", "14Gi"]);
    assert_refused("Model", &shares("weightsMib: 1, perRowKib: 1073741825"), &["spec.memory.perRowKib", "at most"]);
}

/// What is said of a good object of this kind with this metadata.
fn told_of(kind: &str, metadata: &str) -> String {
    let spec = match kind {
        "TrainingJob" => JOB,
        "Model" => MODEL,
        _ => "",
    };
    let text = format!("apiVersion: {GROUP}/{VERSION}\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n");
    parse(&text, "x.yaml").map_or_else(|problems| problems.to_string(), |_| String::new())
}

#[test]
fn work_is_in_a_namespace_and_what_stands_above_is_in_none() {
    for kind in KINDS {
        assert_eq!(told_of(kind, "name: x, namespace: default"), "", "{kind}");
    }
    for kind in ["TrainingJob", "Model"] {
        assert_eq!(told_of(kind, "name: x, namespace: team-a"), "", "{kind}");
        let said = told_of(kind, "name: x, namespace: Team_A");
        assert!(said.contains("metadata.namespace (\"Team_A\") is not a DNS label; use 1 to 63"), "{said}");
        assert!(told_of(kind, "name: x, namespace: ''").contains("metadata.namespace"), "{kind}");
    }
    for kind in ["Pool", "Queue"] {
        let said = told_of(kind, "name: x, namespace: team-a");
        assert!(said.contains("metadata.namespace") && said.contains("stands above namespaces; remove it"), "{said}");
    }
}

#[test]
fn nothing_is_without_a_name_and_no_work_without_a_queue() {
    for kind in KINDS {
        for metadata in ["name: ''", ""] {
            let said = told_of(kind, metadata);
            assert!(said.contains("metadata.name") && said.contains("is not a DNS label; use 1 to 63"), "{kind}: {said}");
        }
    }
    assert_refused("TrainingJob", "queue: '', template: {command: [a]}", &["spec.queue", "must name a Queue"]);
    assert_refused("Model", &MODEL.replace("queue: q", "queue: ''"), &["spec.queue", "must name a Queue"]);
}

#[test]
fn every_text_has_a_bound_and_a_variable_a_name() {
    let long = |length: usize| "x".repeat(length);
    let template = |more: &str| format!("queue: q, template: {{command: [a], {more}}}");
    assert_refused("Queue", &format!("parent: {}", long(64)), &["spec.parent", "at most 63"]);
    assert_refused(
        "TrainingJob",
        &template(&format!("workingDir: {}", long(4097))),
        &["spec.template.workingDir", "at most 4096"],
    );
    let key = format!("namespaceSelector: {{matchLabels: {{{}: a}}}}", long(318));
    assert_refused("Queue", &key, &["spec.namespaceSelector.matchLabels", "use at most 317 characters"]);
    for name in ["a=b", "naïf", "'a\tb'"] {
        let spec = template(&format!("env: [{{name: {name}}}]"));
        assert_refused("TrainingJob", &spec, &["spec.template.env[0].name", "use letters, digits and _"]);
    }
    assert_fine("TrainingJob", &template("env: [{name: A_1, value: 'é=漢'}]"));
}
