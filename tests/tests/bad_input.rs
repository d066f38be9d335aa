//! Bad input on a real API server, as tables: what is refused at admission and with which words; what is taken and told what is wrong with
//! it, while the objects beside it are served.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use tidegate_tests::control_plane::{ControlPlane, SOON, TEAM};
use tidegate_tests::harness::until;

const PORT: u16 = 9001;
/// Sorts after [`TEAM`], so that of two objects that were made in one second that of the team is the first.
const OTHER: &str = "zoo";

/// Objects of a kind, in a namespace where the kind has some.
fn api(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = if kind == "Job" { ("batch", "v1") } else { ("tidegate.dev", "v1alpha1") };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match kind {
        "Pool" | "Queue" | "GpuNode" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

fn object(kind: &str, name: &str, spec: &Value) -> DynamicObject {
    let version = if kind == "Job" { "batch/v1" } else { "tidegate.dev/v1alpha1" };
    let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

/// A good specification of a kind with these fields instead.
fn spec(kind: &str, fields: Value) -> Value {
    let mut spec = match kind {
        "TrainingJob" => json!({"queue": "research", "template": {"command": ["train"], "image": "train:1"}}),
        "Model" => json!({"queue": "research", "source": {"onnx": "/models/m.onnx"}, "sloMilliseconds": 100}),
        _ => json!({}),
    };
    let Value::Object(fields) = fields else { return fields };
    spec.as_object_mut().unwrap().extend(fields);
    spec
}

async fn make(client: &Client, kind: &str, namespace: &str, name: &str, fields: Value) {
    let made = api(client, kind, namespace).create(&PostParams::default(), &object(kind, name, &spec(kind, fields))).await;
    made.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
}

/// What an API server says to an object or a change that it does not take.
fn refusal<T: std::fmt::Debug>(case: &str, answer: Result<T, Error>) -> String {
    match answer.unwrap_err() {
        Error::Api(status) => status.message,
        other => panic!("{case}: {other}"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "tests write JSON in place")]
fn group(name: &str, more: Value) -> Value {
    let mut group = json!({"name": name, "min": 1, "max": 2});
    group.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    group
}

#[expect(clippy::needless_pass_by_value, reason = "tests write JSON in place")]
fn template(fields: Value) -> Value {
    let mut template = json!({"command": ["train"], "image": "train:1"});
    template.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"template": template})
}

fn env(name: &str, value: &str) -> Value {
    template(json!({"env": [{"name": name, "value": value}]}))
}

const LABEL: &str = "use 1 to 63 of a-z, 0-9 and -";

/// Kind, name, fields, words of the answer.
fn refused_at_admission() -> Vec<(&'static str, String, Value, Vec<&'static str>)> {
    let long = |length: usize| "x".repeat(length);
    let twice = json!([{"resource": "cpu", "nominal": 1}, {"resource": "cpu", "nominal": 2}]);
    let selector = |key: &str| json!({"namespaceSelector": {"matchLabels": {key: "a"}}});
    let groups = |groups: Value| json!({"groups": groups});
    let rows: Vec<(&str, &str, Value, &[&str])> = vec![
        ("Pool", "a.b", json!({}), &["metadata.name", LABEL]),
        ("Pool", "x", json!({"headroomPercent": 401}), &["spec.headroomPercent", "less than or equal to 400"]),
        ("Pool", "x", json!({"topologyLevels": ["node"]}), &["spec.topologyLevels", "node and island are levels without"]),
        ("Pool", "x", json!({"topologyLevels": [long(318)]}), &["spec.topologyLevels[0]", "317"]),
        ("Queue", "a.b", json!({}), &["metadata.name", LABEL]),
        ("Queue", "x", json!({"parent": "x"}), &["spec.parent names the queue itself", "or leave it out"]),
        ("Queue", "x", json!({"parent": ""}), &["spec.parent", "must name a Queue; or leave it out"]),
        ("Queue", "x", json!({"parent": long(64)}), &["spec.parent", "63"]),
        ("Queue", "x", json!({"weight": 0}), &["spec.weight", "greater than or equal to 1"]),
        ("Queue", "x", json!({"quotas": twice}), &["spec.quotas", "two quotas of one resource; keep one"]),
        ("Queue", "x", json!({"quotas": [{"resource": "gpu/漢字", "nominal": 1}]}), &["write gpu, gpu/CLASS, cpu or memory"]),
        ("Queue", "x", json!({"nominal": 1, "quotas": [{"resource": "gpu", "nominal": 1}]}), &["nominal", "keep one of the two"]),
        ("Queue", "x", selector(&long(318)), &["matchLabels", "at most 317 characters"]),
        ("TrainingJob", "a.b", json!({}), &["metadata.name", LABEL]),
        ("TrainingJob", "x", json!({"queue": ""}), &["spec.queue", "must name a Queue"]),
        ("TrainingJob", "x", json!({"queue": long(64)}), &["spec.queue", "63"]),
        ("TrainingJob", "x", json!({"priority": 1001}), &["spec.priority", "1000"]),
        ("TrainingJob", "x", json!({"workers": {"min": 2, "max": 1}}), &["spec.workers", "lower workers.min or raise"]),
        ("TrainingJob", "x", groups(json!([group("a", json!({})), group("a", json!({}))])), &["spec.groups", "rename one"]),
        ("TrainingJob", "x", groups(json!([group("Ärger", json!({}))])), &["spec.groups[0].name", "is not a DNS label; use"]),
        (
            "TrainingJob",
            "x",
            json!({"gpu": {"count": 1, "milli": 1}}),
            &["spec.gpu", "keep one of count, memoryMib, milli and mig"],
        ),
        ("TrainingJob", "x", json!({"gpu": {"classes": [long(64)]}}), &["spec.gpu.classes[0]", "63"]),
        (
            "TrainingJob",
            "x",
            json!({"gpu": {"deviceClassName": "No Class"}}),
            &["spec.gpu.deviceClassName", "kubectl get deviceclasses"],
        ),
        (
            "TrainingJob",
            "x",
            json!({"gpu": {"deviceClassName": "gpu", "milli": 500}}),
            &["spec.gpu", "beside a share of a device"],
        ),
        ("TrainingJob", "x", json!({"recipe": "漢".repeat(254)}), &["spec.recipe", "253"]),
        ("TrainingJob", "x", env("RANK", "1"), &["spec.template.env", "variable of the training contract; remove it"]),
        ("TrainingJob", "x", env("a=b", "1"), &["spec.template.env[0].name", "use letters, digits and _"]),
        ("TrainingJob", "x", env("naïf", "1"), &["spec.template.env[0].name", "use letters, digits and _"]),
        ("TrainingJob", "x", env("A", &long(131_073)), &["spec.template.env[0].value", "131072"]),
        ("TrainingJob", "x", template(json!({"command": []})), &["spec.template.command"]),
        ("TrainingJob", "x", template(json!({"command": [""]})), &["spec.template.command", "must hold a program to run"]),
        ("TrainingJob", "x", template(json!({"command": vec!["a"; 1025]})), &["spec.template.command", "1024"]),
        ("TrainingJob", "x", template(json!({"command": [long(131_073)]})), &["spec.template.command[0]", "131072"]),
        ("TrainingJob", "x", template(json!({"workingDir": long(4097)})), &["spec.template.workingDir", "4096"]),
        ("Model", "a.b", json!({}), &["metadata.name", LABEL]),
        ("Model", "x", json!({"queue": ""}), &["spec.queue", "must name a Queue"]),
        ("Model", "x", json!({"source": {"onnx": ""}}), &["spec.source.onnx", "must be the path of an ONNX file"]),
        ("Model", "x", json!({"source": {"onnx": long(4097)}}), &["spec.source.onnx", "4096"]),
        ("Model", "x", json!({"embedding": {"tokenizer": ""}}), &["spec.embedding.tokenizer", "must be the path of"]),
        ("Model", "x", json!({"gpu": {"count": 2}}), &["spec.gpu", "remove count, or ask for a share"]),
        ("Model", "x", json!({"replicas": {"min": 3, "max": 2}}), &["spec.replicas", "lower replicas.min or raise"]),
        ("Model", "x", json!({"sloMilliseconds": 0}), &["spec.sloMilliseconds", "greater than or equal to 1"]),
        ("Model", "x", json!({"memory": {"weightsMib": 1}}), &["spec", "set maxSharers above 1, or remove memory"]),
    ];
    let row = |(kind, name, fields, words): (&'static str, &str, Value, &[&'static str])| {
        (kind, name.to_owned(), fields, words.to_vec())
    };
    let named = ["Pool", "Queue", "TrainingJob", "Model"].map(|kind| (kind, long(64), json!({}), vec!["metadata.name", LABEL]));
    rows.into_iter().map(row).chain(named).collect()
}

/// Changes of a job of two groups that has started, with words of the answer; without words it is taken.
fn changes() -> Vec<(Value, &'static [&'static str])> {
    let groups = |first: Value, second: Value| json!({"groups": [first, second]});
    let (a, b) = (group("a", json!({"gpu": {"count": 1}})), group("b", json!({})));
    vec![
        (json!({"queue": "other", "priority": 5, "backoffLimit": 1, "checkpoint": {"graceSeconds": 5}}), &[]),
        (groups(group("a", json!({"gpu": {"count": 1}, "max": 5})), b.clone()), &[]),
        (groups(b.clone(), a.clone()), &["spec.groups has other names, or another order", "apply it anew"]),
        (groups(a.clone(), group("c", json!({}))), &["spec.groups has other names"]),
        (json!({"groups": [a]}), &["spec.groups has other names"]),
        (json!({"groups": null, "workers": {"min": 1, "max": 1}}), &["spec.groups has other names"]),
        (groups(group("a", json!({"gpu": {"count": 2}})), b.clone()), &["ask of them", "delete the job and apply it anew"]),
        (groups(group("a", json!({})), b), &["ask of them"]),
        (json!({"gpu": {"classes": ["H100"]}}), &["spec.gpu", "delete the job and apply it anew"]),
        (json!({"cpuMilli": 1}), &["spec.cpuMilli", "change it back"]),
        (json!({"template": {"image": "train:2"}}), &["spec.template has changed", "delete the job and apply it anew"]),
        (json!({"template": {"podSpec": {"hostNetwork": true}}}), &["spec.template has changed"]),
        (json!({"checkpoint": {"directory": "/elsewhere"}}), &["spec.checkpoint.directory has changed", "change it back"]),
        (json!({"checkpoint": {"directory": null}}), &["spec.checkpoint.directory has changed"]),
    ]
}

#[tokio::test]
async fn what_an_api_server_can_see_it_refuses_with_field_and_remedy() {
    let plane = ControlPlane::start().await.unwrap();
    let try_it = PostParams { dry_run: true, ..PostParams::default() };
    for kind in ["Pool", "Queue", "TrainingJob", "Model", "GpuNode"] {
        // 63 characters, and in a field for people any language.
        let fields = if kind == "TrainingJob" { json!({"owner": "Müller 漢字 😀"}) } else { json!({}) };
        let good = object(kind, &"x".repeat(63), &spec(kind, fields));
        api(&plane.client, kind, TEAM).create(&try_it, &good).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
    for (kind, name, fields, words) in refused_at_admission() {
        let case = format!("{kind} {name} {}", fields.to_string().chars().take(200).collect::<String>());
        let answer = api(&plane.client, kind, TEAM).create(&try_it, &object(kind, &name, &spec(kind, fields))).await;
        let said = refusal(&case, answer);
        for word in words {
            assert!(said.contains(word), "{case}: no {word:?} in: {}", said.chars().take(500).collect::<String>());
        }
    }
    // Once it has started, what its pods are made of stays.
    let jobs = api(&plane.client, "TrainingJob", TEAM);
    let groups = json!([group("a", json!({"gpu": {"count": 1}})), group("b", json!({}))]);
    let mut fields = template(json!({"podSpec": {"hostNetwork": false}}));
    fields["groups"] = groups;
    fields["checkpoint"] = json!({"directory": "/kept"});
    make(&plane.client, "TrainingJob", TEAM, "night", fields).await;
    let change = async |spec: &Value| {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        jobs.patch("night", &params, &Patch::Merge(json!({"spec": spec}))).await
    };
    for (fields, _) in changes() {
        change(&fields).await.unwrap_or_else(|error| panic!("before its start: {fields}: {error}"));
    }
    let started = json!({"status": {"attempts": 1}});
    jobs.patch_status("night", &PatchParams::default(), &Patch::Merge(started)).await.unwrap();
    for (fields, words) in changes() {
        let (case, answer) = (fields.to_string(), change(&fields).await);
        if words.is_empty() {
            answer.unwrap_or_else(|error| panic!("{case}: {error}"));
            continue;
        }
        let said = refusal(&case, answer);
        assert!(words.iter().all(|word| said.contains(word)), "{case}: {said}");
    }
}

/// See [`told_in_their_condition`].
type Told = (&'static str, &'static str, &'static str, Value, &'static str, Vec<&'static str>);

/// What a queue, a pool, a training job or a model is told: kind, namespace, name, fields, reason, words.
fn told_in_their_condition() -> Vec<Told> {
    let in_queue = |queue: &str| json!({"queue": queue});
    let class = |class: &str| json!({"gpu": {"classes": [class]}});
    let size = |queue: &str, workers: u32| json!({"queue": queue, "workers": {"min": workers, "max": workers}});
    let many: Vec<String> = (10..42).map(|number| format!("{number}{}", "漢".repeat(61))).collect();
    let large = json!({"volumes": [{"name": "x".repeat(1 << 20), "emptyDir": {}}]});
    vec![
        ("Queue", "", "circle-a", json!({"parent": "circle-b"}), "Invalid", vec!["is below itself"]),
        ("Queue", "", "circle-b", json!({"parent": "circle-a"}), "", vec![]),
        ("Queue", "", "orphan", json!({"parent": "nobody"}), "Invalid", vec!["`nobody`, which does not exist"]),
        ("Queue", "", "tight", json!({"nominal": 1, "borrowingLimit": 0}), "", vec![]),
        ("Queue", "", "closed", json!({"namespaceSelector": {"matchLabels": {"team": "nobody"}}}), "", vec![]),
        ("Pool", "", "first", json!({}), "", vec![]),
        ("Pool", "", "second", json!({}), "Invalid", vec!["the Pool first counts", "keep one of the two"]),
        ("TrainingJob", TEAM, "nowhere", in_queue("nobody"), "NoSuchQueue", vec!["nobody", "apply a Queue of this name"]),
        ("TrainingJob", TEAM, "circling", in_queue("circle-a"), "QueueNotAccepted", vec!["is below itself"]),
        ("TrainingJob", TEAM, "uninvited", in_queue("closed"), "NamespaceNotTaken", vec!["closed", "`team`"]),
        ("TrainingJob", TEAM, "classy", class("漢字-80GB"), "NoSuchClass", vec!["漢字-80GB", "choose from"]),
        ("TrainingJob", TEAM, "wordy", json!({"gpu": {"classes": many}}), "NoSuchClass", vec!["10漢", "漢"]),
        ("TrainingJob", TEAM, "giant", size("research", 5), "LargerThanCluster", vec!["needs 5 workers", "would hold 4"]),
        (
            "TrainingJob",
            TEAM,
            "greedy",
            size("tight", 2),
            "LargerThanQuota",
            vec!["tight may never use more than 1", "raise its quota"],
        ),
        ("TrainingJob", TEAM, "faceless", json!({"template": {"command": ["a"]}}), "Invalid", vec!["template.image", "name one"]),
        (
            "TrainingJob",
            TEAM,
            "shapeless",
            template(json!({"podSpec": {"volumes": "many"}})),
            "Invalid",
            vec!["template.podSpec"],
        ),
        (
            "TrainingJob",
            TEAM,
            "stout",
            template(json!({"podSpec": large.clone()})),
            "Invalid",
            vec!["template.podSpec", "at most 262144"],
        ),
        ("Model", TEAM, "nowhere", in_queue("nobody"), "NoSuchQueue", vec!["nobody", "apply a Queue of this name"]),
        ("Model", TEAM, "circling", in_queue("circle-a"), "QueueNotAccepted", vec!["is below itself"]),
        ("Model", TEAM, "uninvited", in_queue("closed"), "NamespaceNotTaken", vec!["closed", "`team`"]),
        ("Model", TEAM, "classy", class("漢字-80GB"), "NoSuchClass", vec!["漢字-80GB", "choose from"]),
        ("Model", TEAM, "relative", json!({"source": {"onnx": "m.onnx"}}), "Invalid", vec!["source.onnx", "absolute path"]),
        ("Model", TEAM, "stout", json!({"podSpec": large}), "Invalid", vec!["podSpec", "at most 262144"]),
        ("Model", TEAM, "twin", in_queue("closed"), "", vec![]),
        ("Model", OTHER, "twin", json!({}), "Invalid", vec!["metadata.name", "the Model team/twin has this name"]),
    ]
}

/// What a pod is told: its name, what it says, words.
fn told_pods() -> Vec<(String, Value, Vec<&'static str>)> {
    let annotation = |name: &str, value: String| json!({"annotations": {format!("tidegate.dev/{name}"): value}});
    let labels = |labels: Value| json!({"labels": labels});
    let rows: Vec<(&str, Value, Vec<&str>)> = vec![
        ("nowhere", labels(json!({"tidegate.dev/queue": "nobody"})), vec!["queue nobody does not exist"]),
        ("queueless", labels(json!({"tidegate.dev/queue": null})), vec!["add the label tidegate.dev/queue"]),
        ("circling", labels(json!({"tidegate.dev/queue": "circle-a"})), vec!["is below itself"]),
        ("classy", annotation("gpu-classes", "漢字-80GB".to_owned()), vec!["漢字-80GB", "choose from"]),
        ("wordy", annotation("gpu-classes", "漢,".repeat(60_000)), vec!["tidegate.dev/gpu-classes", "at most 32"]),
        ("russian", annotation("preemptible", "нет".repeat(40_000)), vec!["`нетнет", "give true or false"]),
        ("wide", annotation("expected-seconds", "６０".to_owned()), vec!["`６０`", "give whole seconds"]),
    ];
    let gang = |number: u32| {
        let gang = json!({"labels": {"tidegate.dev/gang": "giants"}, "annotations": {"tidegate.dev/gang-size": "5"}});
        (format!("giant-{number}"), gang, vec!["needs 5 workers", "would hold 4"])
    };
    rows.into_iter().map(|(name, says, words)| (name.to_owned(), says, words)).chain((0..5).map(gang)).collect()
}

/// Pods that are well: at the bounds of what Kubernetes takes.
fn served_pods() -> Vec<(String, Value)> {
    let limit = "q".repeat(63);
    vec![
        ("p".repeat(253), json!({})),
        // An event's name is made of it, and this one has a dot where that is cut.
        (format!("{}.{}", "d".repeat(199), "e".repeat(53)), json!({})),
        ("heavy".to_owned(), json!({"annotations": {"example.com/note": "😀".repeat(65_000)}})),
        ("limit".to_owned(), json!({"labels": {"tidegate.dev/queue": limit}})),
    ]
}

/// The condition `Accepted`: its status, reason and message.
async fn accepted(client: &Client, kind: &str, namespace: &str, name: &str) -> Option<(String, String, String)> {
    let object = api(client, kind, namespace).get(name).await.ok()?;
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted")?;
    let [status, reason, message] =
        ["status", "reason", "message"].map(|field| accepted[field].as_str().unwrap_or_default().to_owned());
    Some((status, reason, message))
}

async fn is_told(plane: &ControlPlane, kind: &str, namespace: &str, name: &str, reason: &str, words: &[&str]) {
    let look = || async {
        let (status, is, message) = accepted(&plane.client, kind, namespace, name).await.unwrap_or_default();
        let right = status == "False" && is == reason && words.iter().all(|word| message.contains(word));
        anyhow::ensure!(right, "{kind} {name} is told {status} {is}: {message}");
        Ok(Some(message))
    };
    let message = until("the condition Accepted", SOON, look).await.unwrap_or_else(|error| panic!("{error:#}\n{}", plane.said()));
    assert!(message.len() <= 1024, "{kind} {name}: {} bytes", message.len());
}

async fn pod_is_told(plane: &ControlPlane, pod: &str, words: &[&str]) {
    let look = || async {
        let conditions = plane.pods().get(pod).await?.status.and_then(|status| status.conditions).unwrap_or_default();
        let placed = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled");
        let message = placed.filter(|placed| placed.status == "False").and_then(|placed| placed.message).unwrap_or_default();
        anyhow::ensure!(words.iter().all(|word| message.contains(word)), "pod {pod} is told: {message}");
        Ok(Some(message))
    };
    let message = until("why a pod waits", SOON, look).await.unwrap_or_else(|error| panic!("{error:#}\n{}", plane.said()));
    assert!(message.len() <= 1024, "{pod}: {} bytes", message.len());
}

/// Merges what a pod says into a good one.
fn merge(pod: &mut Value, says: &Value) {
    for (part, entries) in says.as_object().unwrap() {
        for (key, value) in entries.as_object().unwrap() {
            pod["metadata"][part][key] = value.clone();
        }
    }
    pod["metadata"]["labels"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
}

/// Makes a job as large as etcd takes it: nothing can be added to it, be it only its status.
async fn make_the_largest(client: &Client, name: &str) {
    let jobs = api(client, "TrainingJob", TEAM);
    let variables = |length: usize| {
        let parts = (0..length).step_by(100_000).map(|from| "x".repeat((length - from).min(100_000)));
        let all: Vec<Value> = parts.enumerate().map(|(at, value)| json!({"name": format!("V{at}"), "value": value})).collect();
        json!({"template": {"command": ["a"], "env": all}})
    };
    for length in (1_560_000..1_572_000).rev().step_by(200) {
        let job = object("TrainingJob", name, &spec("TrainingJob", variables(length)));
        match jobs.create(&PostParams::default(), &job).await {
            Ok(_) => return,
            Err(Error::Api(status)) if status.message.contains("too large") => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no size is taken");
}

#[tokio::test]
async fn what_only_the_operator_can_see_is_told_and_holds_nobody_up() {
    let mut plane = ControlPlane::start().await.unwrap();
    plane.node("n1", 4).await.unwrap();
    plane.queue("research", 4).await.unwrap();
    plane.queue(&"q".repeat(63), 0).await.unwrap();
    let other: Namespace = serde_json::from_value(json!({"metadata": {"name": OTHER}})).unwrap();
    Api::<Namespace>::all(plane.client.clone()).create(&PostParams::default(), &other).await.unwrap();
    make_the_largest(&plane.client, "largest").await;
    for (kind, namespace, name, fields, ..) in told_in_their_condition() {
        make(&plane.client, kind, namespace, name, fields).await;
    }
    let waits = json!({
        "suspend": true,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}},
    });
    let mut night = object("Job", "night", &waits);
    night.metadata.labels = Some([("tidegate.dev/queue".to_owned(), "nobody".to_owned())].into());
    api(&plane.client, "Job", TEAM).create(&PostParams::default(), &night).await.unwrap();
    for (name, says, _) in told_pods() {
        plane.pod(&name, "research", |pod| merge(pod, &says)).await.unwrap();
    }
    let control = ["--control-url", "http://127.0.0.1:10001", "--replica-image", "tidegate:test"];
    plane.operator("operator", PORT, &control).unwrap();
    // They come after all that is wrong, and are served.
    for (name, says) in served_pods() {
        plane.pod(&name, "research", |pod| merge(pod, &says)).await.unwrap();
    }
    let bound = plane.until_bound(4).await.unwrap();
    let mut names: Vec<String> = served_pods().into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(bound.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
    for name in &names {
        plane.until_event(name, "Scheduled").await.unwrap();
    }
    for (kind, namespace, name, _, reason, words) in told_in_their_condition() {
        if !reason.is_empty() {
            is_told(&plane, kind, namespace, name, reason, &words).await;
        }
    }
    for (name, _, words) in told_pods() {
        pod_is_told(&plane, &name, &words).await;
    }
    plane.until_event("night", "FailedScheduling").await.unwrap();
    // What the object itself cannot hold an event says; it is not tried for ever.
    plane.until_event("largest", "Refused").await.unwrap();
    let refused = || async {
        let (_, metrics) = plane.ask(PORT, "/metrics", None).await?;
        let line = metrics.lines().find(|line| line.contains("write=\"status\"") && line.contains("answer=\"refused\""));
        Ok(line.map(str::to_owned))
    };
    until("its status to be refused", SOON, refused).await.unwrap();
    // Freed places go to the next: nothing wrong stands in the way.
    plane.end("heavy").await.unwrap();
    plane.pod("next", "research", |_| {}).await.unwrap();
    let next = || async { Ok(plane.bound().await?.iter().any(|(name, _)| name == "next").then_some(())) };
    until("the next pod to be bound", SOON, next).await.unwrap();
    plane.check_belief(PORT).await.unwrap();
}

#[tokio::test]
async fn a_job_whose_secret_is_missing_is_told_so_and_gives_its_place_to_others_in_time() {
    let mut plane = ControlPlane::start().await.unwrap();
    plane.node("n1", 1).await.unwrap();
    plane.queue("research", 1).await.unwrap();
    plane.operator("operator", PORT, &[]).unwrap();
    let secret = json!([{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "nobody", "key": "k"}}}]);
    let mut fields = template(json!({"podSpec": {"containers": [{"name": "worker", "env": secret}]}}));
    fields["gangTimeoutSeconds"] = json!(20);
    make(&plane.client, "TrainingJob", TEAM, "secretive", fields).await;
    let made = || async { Ok(plane.list().await?.into_iter().find_map(|pod| pod.metadata.name)) };
    let worker = until("its pod", SOON, made).await.unwrap();
    // What a kubelet says of it.
    let waiting = json!({"reason": "CreateContainerConfigError", "message": "secret \"nobody\" not found"});
    let container = json!({"name": "worker", "ready": false, "restartCount": 0, "image": "train:1", "imageID": "", "state": {"waiting": waiting}});
    let status = json!({"status": {"phase": "Pending", "containerStatuses": [container]}});
    plane.pods().patch_status(&worker, &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    is_told(&plane, "TrainingJob", TEAM, "secretive", "CannotStart", &[&worker, "secret \"nobody\" not found"]).await;
    // At its time-out it gives way.
    let ending = || async { Ok(plane.pods().get(&worker).await?.metadata.deletion_timestamp.map(drop)) };
    until("its pod to be told to end", SOON, ending).await.unwrap();
}
