//! What the kinds say about quota, devices and progress is acted on by a running `up`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use tidegate_api::view::Job;
use tidegate_tests::harness::{Options, Up, until};
use tidegate_tests::manifests;

const SOON: Duration = Duration::from_secs(30);

/// Says in its log what it sees, then runs until it is told to stop.
fn tells_devices() -> String {
    format!("echo \"sees $CUDA_VISIBLE_DEVICES\"; {}", manifests::ENDLESS)
}

fn job(name: &str, queue: &str, more: &str) -> String {
    let yaml = manifests::shell_job(name, 1, 1, &tells_devices());
    yaml.replace("  queue: research\n", &format!("  queue: {queue}\n{more}"))
}

fn apply(up: &Up, yaml: &str) -> (Option<i32>, String) {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), yaml).unwrap();
    let output = up.cli(&["apply", "-f", &file.path().to_string_lossy()]).unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

async fn in_phase(up: &Up, job: &str, phase: &str) -> Job {
    let found = until(phase, SOON, || async { Ok(up.job(job).await.ok().filter(|job| job.phase == phase)) }).await;
    found.unwrap_or_else(|error| panic!("{job}: {error:#}\n{}", up.log()))
}

async fn log_with(up: &Up, job: &str, words: &str) -> String {
    let log = || async {
        let output = up.cli(&["logs", &format!("job/{job}")])?;
        Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()).filter(|log| log.contains(words)))
    };
    until(words, SOON, log).await.unwrap()
}

#[tokio::test]
async fn a_worker_of_several_devices_sees_them_all_and_one_of_none_sees_none() {
    let yaml =
        manifests::queues() + &job("wide", "research", "  gpu: {count: 2}\n") + &job("bare", "research", "  gpu: {count: 0}\n");
    let up = Up::start(Options::with_manifest(&yaml, 4).unwrap()).await.unwrap();
    in_phase(&up, "wide", "running").await;
    in_phase(&up, "bare", "running").await;
    let seen = log_with(&up, "wide", "sees ").await;
    let seen: Vec<&str> = seen.lines().find_map(|line| line.strip_prefix("sees ")).unwrap().split(',').collect();
    let state = up.state().await.unwrap();
    let holds = |device: &&tidegate_api::view::Device| device.holders.iter().any(|holder| holder.name == "wide");
    let held: Vec<&str> = state.devices.iter().filter(holds).map(|device| device.id.as_str()).collect();
    assert_eq!((seen.len(), &seen), (2, &held));
    assert!(log_with(&up, "bare", "sees").await.lines().any(|line| line.trim_end() == "sees"));
    assert!(state.devices.iter().all(|device| device.holders.iter().all(|holder| holder.name != "bare")));
}

#[tokio::test]
async fn shares_of_one_device_stand_side_by_side() {
    let small = |name: &str, gpu: &str| job(name, "research", &format!("  gpu: {gpu}\n"));
    let yaml =
        manifests::queue("research", 1) + &small("a", "{milli: 500}") + &small("b", "{mig: 3g}") + &small("c", "{milli: 400}");
    let up = Up::start(Options::with_manifest(&yaml, 2).unwrap()).await.unwrap();
    for name in ["a", "b", "c"] {
        in_phase(&up, name, "running").await;
    }
    let state = up.state().await.unwrap();
    let mut held: Vec<usize> = state.devices.iter().map(|device| device.holders.len()).collect();
    held.sort_unstable();
    // An instance and a share do not mix on one device: the shares are together.
    assert_eq!(held, [1, 2], "{state:?}");
}

#[tokio::test]
async fn a_child_queue_uses_what_its_parent_owns_and_no_more_than_it_may_borrow() {
    // The parent comes last in the file.
    let team = |name: &str| manifests::document("Queue", name, "  parent: org\n  nominal: 1\n");
    let yaml = team("vision") + &team("speech") + &manifests::document("Queue", "org", "  nominal: 0\n  borrowingLimit: 0\n");
    let up = Up::start(Options::with_manifest(&yaml, 4).unwrap()).await.unwrap();
    let run = |name: &str| job(name, "vision", "");
    for name in ["one", "two"] {
        assert_eq!(apply(&up, &run(name)).0, Some(0));
        in_phase(&up, name, "running").await;
    }
    assert_eq!(apply(&up, &run("three")).0, Some(0));
    let waits = in_phase(&up, "three", "waiting").await;
    assert!(waits.reason.contains("org"), "the queue whose limit binds is named: {}", waits.reason);
    let vision = up.state().await.unwrap().queues.into_iter().find(|queue| queue.name == "vision").unwrap();
    assert_eq!((vision.parent.as_deref(), vision.nominal, vision.used), (Some("org"), 1, 2));
}

#[tokio::test]
async fn work_that_may_not_be_stopped_waits_for_its_queues_own_quota() {
    let yaml = manifests::queue("research", 1) + &manifests::queue("others", 3);
    let up = Up::start(Options::with_manifest(&yaml, 4).unwrap()).await.unwrap();
    let firm = |name: &str| job(name, "research", "  preemptible: false\n");
    assert_eq!(apply(&up, &(firm("first") + &firm("second"))).0, Some(0));
    in_phase(&up, "first", "running").await;
    in_phase(&up, "second", "waiting").await;
    assert_eq!(apply(&up, &job("lent", "research", "")).0, Some(0));
    in_phase(&up, "lent", "running").await;
    assert_eq!(in_phase(&up, "second", "waiting").await.attempt, 0);
}

#[tokio::test]
async fn a_change_that_breaks_the_tree_of_queues_is_refused_whole() {
    let yaml = manifests::queue("org", 4) + &manifests::document("Queue", "team", "  parent: org\n");
    let up = Up::start(Options::with_manifest(&yaml, 4).unwrap()).await.unwrap();
    let circle = manifests::queue("other", 1) + &manifests::document("Queue", "org", "  parent: team\n");
    let (code, said) = apply(&up, &circle);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("Queue/org") && said.contains("is below itself") && said.contains("another parent"), "{said}");
    let names = |state: tidegate_api::view::State| state.queues.into_iter().map(|queue| queue.name).collect::<Vec<_>>();
    assert_eq!(names(up.state().await.unwrap()), ["org", "team"], "nothing of it was applied");
    let output = up.cli(&["delete", "queue/org"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Queue/team"), "{said}");
}

#[tokio::test]
async fn a_job_that_asks_for_more_cores_than_the_box_has_is_refused() {
    let up = Up::start(Options::with_manifest(&manifests::queues(), 4).unwrap()).await.unwrap();
    let (code, said) = apply(&up, &job("greedy", "research", "  cpuMilli: 1024000\n"));
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("TrainingJob/greedy") && said.contains("cpuMilli") && said.contains("thousandths of a core"), "{said}");
}

#[tokio::test]
async fn how_far_a_job_says_it_is_is_shown() {
    let up = Up::start(Options::with_manifest(&manifests::queues(), 4).unwrap()).await.unwrap();
    let urls = up.data().join("url");
    let script = format!("echo \"$TIDEGATE_PROGRESS_URL\" > {}; {}", urls.display(), manifests::ENDLESS);
    assert_eq!(apply(&up, &manifests::shell_job("told", 1, 1, &script)).0, Some(0));
    in_phase(&up, "told", "running").await;
    let url = until("its URL", SOON, || async { Ok(std::fs::read_to_string(&urls).ok().filter(|text| text.ends_with('\n'))) });
    let url = url.await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |line: &'static str| http.post(url.trim()).body(line).send();
    assert_eq!(post("{\"step\":1,\"done\":1.5}").await.unwrap().status().as_u16(), 400);
    assert!(post("{\"step\":30,\"done\":0.25}").await.unwrap().status().is_success());
    let seen = || async { Ok(Some(up.job("told").await?).filter(|job| job.step == 30)) };
    assert_eq!(until("its progress", SOON, seen).await.unwrap().done, Some(0.25));
}

/// The same object in a namespace.
fn in_namespace(yaml: &str, name: &str, namespace: &str) -> String {
    yaml.replace(&format!("  name: {name}\n"), &format!("  name: {name}\n  namespace: {namespace}\n"))
}

#[tokio::test]
async fn a_queue_takes_work_of_the_namespaces_that_it_selects_and_says_so_to_others() {
    let selects = "  nominal: 4\n  namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [team-a]}]}\n";
    let yaml = manifests::document("Queue", "research", selects);
    let up = Up::start(Options::with_manifest(&yaml, 4).unwrap()).await.unwrap();
    let of = |name: &str, namespace: &str| in_namespace(&job(name, "research", ""), name, namespace);
    assert_eq!(apply(&up, &(job("nowhere", "research", "") + &of("theirs", "team-b") + &of("ours", "team-a"))).0, Some(0));
    in_phase(&up, "ours", "running").await;
    let waits = in_phase(&up, "theirs", "waiting").await;
    let words = ["queue research does not take work of namespace `team-b`", "kubernetes.io/metadata.name in (team-a)"];
    assert!(words.iter().all(|word| waits.reason.contains(word)), "{}", waits.reason);
    let nowhere = in_phase(&up, "nowhere", "waiting").await;
    assert!(nowhere.reason.contains("namespace `default`"), "{}", nowhere.reason);
    let explained = up.cli(&["explain", "job/theirs"]).unwrap();
    let explained = String::from_utf8_lossy(&explained.stdout);
    assert!(explained.contains(words[0]), "{explained}");

    let (code, said) = apply(&up, &of("ours", "team-c"));
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("metadata.namespace") && said.contains("team-a") && said.contains("choose another name"), "{said}");

    let open = manifests::document("Queue", "research", "  nominal: 4\n");
    assert_eq!(apply(&up, &open).0, Some(0));
    in_phase(&up, "theirs", "running").await;
    in_phase(&up, "nowhere", "running").await;
}

#[tokio::test]
async fn a_namespace_is_known_while_something_is_in_it() {
    let yaml = manifests::queues() + &in_namespace(&job("night", "research", ""), "night", "team-a");
    let mut up = Up::start(Options::with_manifest(&yaml, 4).unwrap()).await.unwrap();
    assert_eq!(namespaces(&up), ["team-a"]);
    up.kill().unwrap();
    up.start_again().unwrap();
    up.ready().await.unwrap();
    assert_eq!(namespaces(&up), ["team-a"], "and still is after a crash");
    assert!(up.cli(&["delete", "job/night"]).unwrap().status.success());
    assert_eq!(namespaces(&up), [""; 0]);
}

/// Namespaces that the engine knows, by name.
fn namespaces(up: &Up) -> Vec<String> {
    let output = up.cli(&["snapshot"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let known = state["namespaces"].as_object().unwrap();
    for (name, labels) in known {
        assert_eq!(labels, &serde_json::json!({ "kubernetes.io/metadata.name": name }));
    }
    known.keys().cloned().collect()
}
