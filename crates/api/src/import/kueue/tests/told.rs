//! What is told of what is lost.

use super::*;

/// Each line of the table is told, in this order, and nothing else.
fn assert_told(objects: &str, expected: &[&[&str]]) {
    let (_, told) = good(&yaml(objects));
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, words) in told.iter().zip(expected) {
        for word in *words {
            assert!(line.contains(word), "no {word:?} in {line:?}");
        }
        assert!(line.starts_with("k.yaml, document ") && line.contains("; "), "{line:?} names place and remedy");
    }
}

fn queue(spec: &str) -> String {
    format!("ClusterQueue a {{namespaceSelector: {{}}, {spec}}}")
}

fn gpu(flavor: &str, more: &str) -> String {
    format!("{{name: {flavor}, resources: [{{name: nvidia.com/gpu, nominalQuota: 1{more}}}]}}")
}

#[test]
fn nothing_is_told_of_what_is_carried_over_or_says_nothing() {
    let defaults = "preemption: {}, flavorFungibility: {whenCanBorrow: MayStopSearch, whenCanPreempt: TryNextFlavor}, stopPolicy: None, admissionChecks: []";
    assert_told(&queue(defaults), &[]);
    assert_told("Cohort a", &[]);
    assert_told(
        &format!(
            "ResourceFlavor f {{nodeLabels: {{tidegate.dev/gpu-class: A}}}}\n{}",
            queue(&format!("resourceGroups: [{{coveredResources: [nvidia.com/gpu], flavors: [{}]}}]", gpu("f", "")))
        ),
        &[],
    );
}

#[test]
fn policies_are_told_with_what_happens_instead() {
    for (field, words) in [
        ("preemption: {withinClusterQueue: Never, reclaimWithinCohort: Any}", "tidegate.dev/preemptible"),
        ("admissionChecks: [x]", "PodScheduled"),
        ("admissionChecksStrategy: {admissionChecks: [{name: x}]}", "PodScheduled"),
        ("stopPolicy: HoldAndDrain", "namespaceSelector that no namespace satisfies"),
        ("stopPolicy: Hold", "work that waits would start"),
        ("admissionScope: {admissionMode: UsageBasedAdmissionFairSharing}", "historyPercent"),
        ("concurrentAdmissionPolicy: {migration: {mode: TryPreferredFlavors}}", "consolidate"),
        ("excludeResourcePrefixes: [example.com]", "only GPUs, cpu and memory are counted"),
        ("somethingNew: {x: 1}", "is not known to this command"),
    ] {
        let name = format!("ClusterQueue/a: spec.{}", field.split(':').next().unwrap());
        assert_told(&queue(field), &[&[&name, words]]);
    }
    assert_told("ClusterQueue a", &[&["spec.namespaceSelector is absent", "remove it there"]]);
}

#[test]
fn flavors_that_become_one_quota_are_told() {
    let two = |more: &str| {
        format!(
            "flavorFungibility: {{whenCanBorrow: TryNextFlavor}}, cohortName: c, resourceGroups: [{{flavors: [{}, {}]}}]",
            gpu("f", more),
            gpu("g", "")
        )
    };
    let given = "ResourceFlavor f\nResourceFlavor g {nodeLabels: {tidegate.dev/gpu-class: A_100}}\n";
    assert_told(
        &(given.to_owned() + &queue(&two(", borrowingLimit: 1"))),
        &[
            &["ResourceFlavor/f: spec.nodeLabels name no GPU class", "add tidegate.dev/gpu-class: CLASS"],
            &["ResourceFlavor/g: spec.nodeLabels name the GPU class \"A_100\", which no Queue can"],
            &["spec.flavorFungibility is not carried over", "tidegate.dev/gpu-classes"],
            &[
                "spec.resourceGroups counts gpu of the flavors f, g together, without a borrowing limit since not all have one",
                "gpu-class",
            ],
        ],
    );
    let mixed = "ResourceFlavor f {nodeLabels: {tidegate.dev/gpu-class: A}}\n".to_owned()
        + &queue(&two("").replace("flavorFungibility: {whenCanBorrow: TryNextFlavor}, ", ""));
    assert_told(
        &mixed,
        &[
            &["names the flavor g, which is not in the input", "add its ResourceFlavor"],
            &["with and without a GPU class: GPUs of g count as `gpu`"],
        ],
    );
}

#[test]
fn resources_that_are_not_counted_and_amounts_that_are_rounded_are_told() {
    let quota = |quota: &str| queue(&format!("resourceGroups: [{{flavors: [{{name: f, resources: [{quota}]}}]}}]"));
    assert_told(
        &quota("{name: pods, nominalQuota: 5}, {name: nvidia.com/mig-1g.5gb, nominalQuota: 2}"),
        &[
            &["resources[1].nominalQuota (2) is a quota of nvidia.com/mig-1g.5gb"],
            &["resources[0].nominalQuota (5) is a quota of pods"],
        ],
    );
    assert_told(&quota("{name: cpu, nominalQuota: 1500m}"), &[&["amounts of cpu that are not whole cores and are rounded down"]]);
    assert_told(&quota("{name: memory, nominalQuota: 1G}"), &[&["amounts of memory that are not whole MiB"]]);
    let open = "ClusterQueue a {namespaceSelector: {}, cohortName: c}\nClusterQueue b {namespaceSelector: {}, cohortName: c, resourceGroups: [{flavors: [{name: f, resources: [{name: cpu, nominalQuota: 1}]}]}]}";
    assert_told(open, &[&["ClusterQueue/a: spec.resourceGroups lists no cpu", "borrowingLimit 0"]]);
}

#[test]
fn flavors_are_told_of_what_they_did_to_pods() {
    assert_told(
        "ResourceFlavor f {nodeLabels: {zone: a, tidegate.dev/gpu-class: A}, nodeTaints: [{key: x, effect: NoSchedule}], tolerations: [{key: x}], topologyName: t, resourceWeights: {cpu: 2}}\nCohort c",
        &[
            &["spec.nodeLabels bind pods to nodes by zone in Kueue", "nodeSelector or nodeAffinity"],
            &["spec.nodeTaints", "read from the nodes"],
            &["spec.tolerations", "write them in the pods"],
            &["spec.topologyName (\"t\")", "topologyLevels of the Pool"],
            &["spec.resourceWeights", "largest share"],
        ],
    );
}

#[test]
fn local_queues_are_told_above_their_queue() {
    let objects = format!(
        "{}\nLocalQueue team/main {{clusterQueue: a}}\nLocalQueue other {{clusterQueue: nowhere}}\nLocalQueue x/y {{clusterQueue: a, stopPolicy: Hold, fairSharing: {{weight: 2}}, wallTimePolicy: {{wallTimeAllocatedHours: 1}}}}\nLocalQueue x/none",
        queue("stopPolicy: None")
    );
    assert_told(
        &objects,
        &[
            &["LocalQueue/other: spec.clusterQueue (\"nowhere\") names a ClusterQueue that is not in the input"],
            &["LocalQueue/x/none: spec.clusterQueue is absent"],
            &["LocalQueue/team/main", "pods of namespace team", "label kueue.x-k8s.io/queue-name: main by tidegate.dev/queue: a"],
            &["LocalQueue/x/y", "pods of namespace x"],
            &["LocalQueue/x/y: spec.fairSharing"],
            &["LocalQueue/x/y: spec.wallTimePolicy", "budgetGpuHours"],
            &["LocalQueue/x/y: spec.stopPolicy (\"Hold\")", "namespaceSelector"],
        ],
    );
}

#[test]
fn priorities_and_other_kinds_are_told() {
    assert_told(
        "WorkloadPriorityClass high {value: 1000, description: d}\nTopology t {levels: [{nodeLabel: rack}]}\nWorkload x/w\nDeployment d\nCohort c",
        &[
            &["WorkloadPriorityClass/high: value (1000)", "kubectl create priorityclass high --value=1000"],
            &["Topology/t: is skipped", "topologyLevels"],
            &["Workload/x/w: is skipped", "nothing to do"],
            &["Deployment/d: is skipped"],
        ],
    );
}

#[test]
fn input_without_queues_writes_nothing_and_says_so() {
    for text in [
        "",
        "---\n",
        "# a comment\n",
        "apiVersion: v1\nkind: List\nitems: []\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n",
    ] {
        let Imported { yaml, told } = import_text(text).unwrap();
        assert_eq!(yaml, "", "{text:?}");
        assert!(told.last().unwrap().contains("no Cohort and no ClusterQueue"), "{told:?}");
    }
}

#[test]
fn no_text_of_the_input_leaves_its_comment() {
    let text = "apiVersion: v1\nkind: \"X\\nY\\u2028kind: Queue\\e[2J\"\nmetadata: {name: \"a\\u0085b\"}\n---\n".to_owned()
        + &yaml("ResourceFlavor f {nodeLabels: {\"x\\nmetadata: evil\": v}}\nClusterQueue a {namespaceSelector: {}}");
    let (queues, told) = good(&text);
    assert_eq!((queues.len(), told.len()), (1, 2));
    assert!(told.iter().all(|line| !line.contains(['\n', '\u{85}', '\u{2028}', '\u{1b}'])), "{told:?}");
}
