//! What a user does to a running `up` from the command line, and what survives a `kill -9` of it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use tidegate_tests::harness::{Options, Up, until};
use tidegate_tests::{manifests, processes};

const SOON: Duration = Duration::from_secs(30);

async fn start() -> Up {
    Up::start(Options::with_manifest(&manifests::queues(), 4).unwrap()).await.unwrap()
}

/// Applies a job through standard input's twin, a file.
fn apply(up: &Up, yaml: &str) -> String {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), yaml).unwrap();
    cli(up, &["apply", "-f", &file.path().to_string_lossy()])
}

/// Runs a client command that must succeed; what it printed.
fn cli(up: &Up, arguments: &[&str]) -> String {
    let output = up.cli(arguments).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tidegate {}: {} {said}\n{}", arguments.join(" "), output.status, up.log());
    String::from_utf8(output.stdout).unwrap()
}

async fn in_phase(up: &Up, job: &str, phase: &str) -> tidegate_api::view::Job {
    let what = format!("{job} to be {phase}");
    let found = until(&what, SOON, || async { Ok(up.job(job).await.ok().filter(|job| job.phase == phase)) }).await;
    match found {
        Ok(job) => job,
        Err(error) => panic!("{error:#}; it is {:?}\n{}", up.job(job).await, up.log()),
    }
}

/// The workers of a job that run now.
fn workers(up: &Up, job: &str) -> Vec<processes::Process> {
    let all = processes::of(&up.data()).unwrap();
    all.into_iter().filter(|process| process.worker().is_some_and(|worker| worker.job == job)).collect()
}

#[tokio::test]
async fn a_job_is_applied_paused_resumed_explained_logged_cancelled_and_deleted() {
    let up = start().await;
    assert!(apply(&up, &manifests::shell_job("night", 1, 1, manifests::ENDLESS)).contains("created"));
    assert_eq!(in_phase(&up, "night", "running").await.attempt, 1);
    assert!(apply(&up, &manifests::shell_job("night", 1, 1, manifests::ENDLESS)).contains("unchanged"));
    let logged = until("its log", SOON, || async {
        Ok(Some(cli(&up, &["logs", "job/night"])).filter(|log| log.contains("attempt 1 rank 0 of 1")))
    });
    logged.await.unwrap();

    cli(&up, &["pause", "job/night"]);
    in_phase(&up, "night", "paused").await;
    assert_eq!(workers(&up, "night"), []);
    assert!(cli(&up, &["logs", "job/night"]).contains("told to stop"));
    assert!(cli(&up, &["explain", "job/night"]).contains("resume"), "{}", cli(&up, &["explain", "job/night"]));

    cli(&up, &["resume", "job/night"]);
    assert_eq!(in_phase(&up, "night", "running").await.attempt, 2);
    cli(&up, &["cancel", "job/night"]);
    in_phase(&up, "night", "cancelled").await;
    assert_eq!(workers(&up, "night"), []);
    cli(&up, &["delete", "job/night"]);
    until("it to be gone", SOON, || async { Ok(up.job("night").await.is_err().then_some(())) }).await.unwrap();
    let drained = up.drain().await.unwrap();
    assert!(drained.status.success() && drained.left.is_empty(), "{drained:?}");
}

#[tokio::test]
async fn a_drained_device_is_freed_and_used_again_when_it_is_given_back() {
    let up = start().await;
    apply(&up, &manifests::shell_job("wide", 1, 4, manifests::ENDLESS));
    let grown = || async { Ok(up.job("wide").await?.workers == 4).map(|all| all.then_some(())) };
    until("the job to take all devices", SOON, grown).await.unwrap();
    let device = up.state().await.unwrap().devices[0].id.clone();

    cli(&up, &["drain", &format!("gpu/{device}")]);
    let free = || async {
        let state = up.state().await?;
        let drained = state.devices.iter().any(|d| d.id == device && d.holders.is_empty() && d.health == "draining");
        Ok((drained && up.job("wide").await?.workers == 3).then_some(()))
    };
    until("the device to be free", SOON, free).await.unwrap();
    cli(&up, &["drain", &format!("gpu/{device}"), "--undo"]);
    until("the job to take it again", SOON, grown).await.unwrap();
}

#[tokio::test]
async fn a_job_that_cannot_start_says_why_and_what_would_change_it() {
    let up = start().await;
    apply(&up, &manifests::shell_job("first", 4, 4, manifests::ENDLESS));
    in_phase(&up, "first", "running").await;
    apply(&up, &manifests::shell_job("second", 2, 2, manifests::ENDLESS));
    in_phase(&up, "second", "waiting").await;
    let explained = cli(&up, &["explain", "job/second"]);
    assert!(explained.contains("first") || explained.contains("device"), "{explained}");
    let json: serde_json::Value = up.get("/api/v1/explain/job/second").await.unwrap();
    assert!(!json["would_change"].as_array().unwrap().is_empty(), "{json}");
}

#[tokio::test]
async fn what_does_not_exist_is_refused_with_its_name() {
    let up = start().await;
    for command in [
        ["pause", "job/nobody"],
        ["explain", "model/nobody"],
        ["cancel", "job/nobody"],
        ["drain", "gpu/nobody"],
        ["delete", "queue/nobody"],
        ["logs", "job/nobody"],
    ] {
        let output = up.cli(&command).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{command:?}: {said}");
        assert!(said.contains("nobody"), "{command:?}: {said}");
    }
}

#[tokio::test]
async fn a_killed_up_comes_back_to_the_same_workers_and_never_runs_a_job_twice() {
    let mut up = start().await;
    apply(&up, &manifests::shell_job("steady", 2, 2, manifests::ENDLESS));
    in_phase(&up, "steady", "running").await;
    let before = workers(&up, "steady");
    assert_eq!(before.len(), 2);
    up.kill().unwrap();
    assert!(before.iter().all(processes::Process::is_alive), "training goes on without up");
    up.start_again().unwrap();
    up.ready().await.unwrap();
    let job = in_phase(&up, "steady", "running").await;
    assert_eq!((job.attempt, workers(&up, "steady")), (1, before));
    let drained = up.drain().await.unwrap();
    assert!(drained.status.success() && drained.left.is_empty(), "{drained:?}");
}

#[tokio::test]
async fn a_job_that_ended_while_up_was_dead_is_not_run_again() {
    let mut up = start().await;
    let gate = up.data().join("gate");
    apply(&up, &manifests::shell_job("short", 1, 1, &format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display())));
    in_phase(&up, "short", "running").await;
    up.kill().unwrap();
    std::fs::write(&gate, "").unwrap();
    until("it to end", SOON, || async { Ok(workers(&up, "short").is_empty().then_some(())) }).await.unwrap();
    up.start_again().unwrap();
    up.ready().await.unwrap();
    assert_eq!(in_phase(&up, "short", "succeeded").await.attempt, 1);
}

#[tokio::test]
async fn a_job_that_fails_is_tried_again_up_to_its_limit_with_its_output_kept() {
    let up = start().await;
    let script = "echo \"attempt $TIDEGATE_ATTEMPT\"; exit 3";
    let yaml = manifests::shell_job("broken", 1, 1, script) + "  backoffLimit: 1\n";
    apply(&up, &yaml);
    let job = in_phase(&up, "broken", "failed").await;
    assert_eq!((job.attempt, job.failures), (2, 2), "{}", job.reason);
    assert!(job.reason.contains("limit 1") && job.reason.contains("logs job/broken"), "{}", job.reason);
    assert!(cli(&up, &["logs", "job/broken"]).contains("attempt 2"));
}

#[tokio::test]
async fn a_stale_attempt_is_refused_its_progress() {
    let up = start().await;
    // Each attempt leaves its progress URL behind.
    let urls = up.data().join("urls");
    let script = format!("echo \"$TIDEGATE_PROGRESS_URL\" >> {}; {}", urls.display(), manifests::ENDLESS);
    apply(&up, &manifests::shell_job("told", 1, 1, &script));
    in_phase(&up, "told", "running").await;
    cli(&up, &["pause", "job/told"]);
    in_phase(&up, "told", "paused").await;
    cli(&up, &["resume", "job/told"]);
    in_phase(&up, "told", "running").await;
    let two = || async { Ok(std::fs::read_to_string(&urls).ok().filter(|text| text.lines().count() == 2)) };
    let text = until("two attempts", SOON, two).await.unwrap();
    let (old, new) = text.trim().split_once('\n').unwrap();
    let line = r#"{"step":120,"metrics":{"loss":0.41},"checkpoint":{"step":100}}"#;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |url: &str| http.post(url).body(line).send();
    assert!(matches!(post(old).await.unwrap().status().as_u16(), 409 | 410));
    assert!(post(new).await.unwrap().status().is_success());
    let forged = format!("{new}0");
    assert!(post(&forged).await.unwrap().status().is_client_error());
    let seen = || async { Ok(Some(up.job("told").await?).filter(|job| job.step == 120 && job.checkpoint_step == 100)) };
    let job = until("the progress to be seen", SOON, seen).await.unwrap();
    assert_eq!(job.metrics.get("loss"), Some(&0.41));
}
