//! The operator's ledger: what was decided and learned is there for the next leader, whoever is killed.
#![expect(clippy::unwrap_used, reason = "tests")]

use nix::sys::signal::Signal;
use tidegate_tests::control_plane::{ADMIN, ControlPlane, SOON};
use tidegate_tests::harness::until;

const PORT: u16 = 9001;
const OTHER_PORT: u16 = 9002;

async fn plane() -> ControlPlane {
    let plane = ControlPlane::start().await.unwrap();
    plane.node("n1", 1).await.unwrap();
    plane.queue("a", 1).await.unwrap();
    plane
}

async fn until_told(plane: &ControlPlane, port: u16, word: &str) {
    let look = || async {
        let (status, text) = plane.ask(port, "/history?job=pod/team/night", Some(ADMIN)).await?;
        Ok((status == 200 && text.contains(word)).then_some(()))
    };
    until("history to be told", SOON, look).await.unwrap();
}

async fn until_read(plane: &ControlPlane, port: u16) {
    let look = || async {
        let (_, metrics) = plane.ask(port, "/metrics", None).await?;
        Ok(metrics.contains("\ntidegate_operator_ledger_read 1\n").then_some(()))
    };
    until("the ledger to be read", SOON, look).await.unwrap();
}

/// A pod starts and ends; the leader is killed. The next one tells both, and schedules.
async fn the_next_leader_knows(plane: &mut ControlPlane, ledger: &str) {
    plane.operator("first", PORT, &["--ledger", ledger]).unwrap();
    plane.pod("night", "a", |_| {}).await.unwrap();
    plane.until_bound(1).await.unwrap();
    until_told(plane, PORT, "start_job").await;
    plane.says("night", "Succeeded").await.unwrap();
    until_told(plane, PORT, "job_ended").await;
    plane.signal("first", Signal::SIGKILL).unwrap();
    plane.ended("first").await.unwrap();
    plane.operator("second", OTHER_PORT, &["--ledger", ledger]).unwrap();
    until_read(plane, OTHER_PORT).await;
    let (status, text) = plane.ask(OTHER_PORT, "/history?job=pod/team/night", Some(ADMIN)).await.unwrap();
    assert!(status == 200 && text.contains("start_job") && text.contains("job_ended"), "{status} {text}");
    plane.check_belief(OTHER_PORT).await.unwrap();
}

#[tokio::test]
async fn what_was_decided_is_known_after_the_leader_was_killed() {
    let mut plane = plane().await;
    let folder = tempfile::tempdir().unwrap();
    the_next_leader_knows(&mut plane, &format!("sqlite:{}", folder.path().display())).await;
}

#[tokio::test]
async fn a_ledger_in_postgresql_serves_whoever_leads_and_scheduling_goes_on_without_it() {
    let mut plane = plane().await;
    let ledger = plane.postgres().await.unwrap();
    the_next_leader_knows(&mut plane, &ledger).await;
    plane.crash("postgres").await.unwrap();
    plane.pod("morning", "a", |_| {}).await.unwrap();
    plane.until_bound(2).await.unwrap();
    let look = || async {
        let (_, metrics) = plane.ask(OTHER_PORT, "/metrics", None).await?;
        Ok((!metrics.contains("\ntidegate_operator_ledger_failures_total 0\n")).then_some(()))
    };
    until("the ledger's absence to be counted", SOON, look).await.unwrap();
}
