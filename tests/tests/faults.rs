//! The operator while others do what they should not: everybody's writes in its way, a history that etcd has forgotten, clocks that are
//! wrong, an agent that is gone. GPUs are given once at every moment, gangs are whole, all converges, and somebody is told why.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidegate_api::kinds::GpuNode;
use tidegate_tests::control_plane::witness::Witness;
use tidegate_tests::control_plane::{ADMIN, ControlPlane, SOON, figure};
use tidegate_tests::harness::{binary, until};
use tidegate_tests::outside::installed;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PORT: u16 = 9001;
const OTHER_PORT: u16 = 9002;
/// Long enough for a decision and its writes, on a busy machine; nothing happens by then that should not.
const A_WHILE: Duration = Duration::from_secs(3);

async fn plane(nodes: &[(&str, u32)], queues: &[(&str, u32)]) -> ControlPlane {
    let plane = ControlPlane::start().await.unwrap();
    for (name, gpus) in nodes {
        plane.node(name, *gpus).await.unwrap();
    }
    for (name, nominal) in queues {
        plane.queue(name, *nominal).await.unwrap();
    }
    plane
}

fn gang(name: &str, size: usize) -> impl Fn(&mut Value) + use<'_> {
    move |pod| {
        pod["metadata"]["labels"]["tidegate.dev/gang"] = json!(name);
        pod["metadata"]["annotations"]["tidegate.dev/gang-size"] = json!(size.to_string());
    }
}

/// Why a pod waits, once it is told with this word.
async fn until_told(plane: &ControlPlane, pod: &str, word: &str) -> String {
    let message = |pod: Pod| {
        let conditions = pod.status?.conditions?;
        conditions.into_iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?.message
    };
    let look = || async { Ok(message(plane.pods().get(pod).await?).filter(|message| message.contains(word))) };
    until(&format!("{pod} to be told of `{word}`"), SOON, look).await.unwrap()
}

async fn metrics(plane: &ControlPlane, port: u16) -> String {
    plane.ask(port, "/metrics", None).await.unwrap().1
}

async fn until_leads(plane: &ControlPlane, port: u16) {
    let look = || async {
        let (_, metrics) = plane.ask(port, "/metrics", None).await?;
        Ok((figure(&metrics, "tidegate_operator_synced") == Some(1)).then_some(()))
    };
    until("the operator to lead and to know everything", SOON, look).await.unwrap();
}

/// Changes what says nothing to anybody on these pods, one request after the other.
async fn patch_for_ever(pods: Api<Pod>, names: Vec<String>, quit: CancellationToken) -> u64 {
    let mut count = 0;
    while !quit.is_cancelled() {
        for name in &names {
            count += 1;
            let noise = if count % 2 == 0 { "labels" } else { "annotations" };
            let noise = Patch::Merge(json!({"metadata": {noise: {"example.com/noise": count.to_string()}}}));
            // A pod that is not there yet, or not any more, is left alone.
            drop(pods.patch(name, &PatchParams::default(), &noise).await);
        }
    }
    count
}

#[tokio::test]
async fn gangs_are_bound_whole_while_their_pods_are_changed_hundreds_of_times_a_second() {
    const GANGS: [&str; 4] = ["a", "b", "c", "d"];
    const SIZE: usize = 6;
    let mut plane = plane(&[("n1", 8), ("n2", 8), ("n3", 8)], &[("q", 24)]).await;
    let witness = Witness::of(&plane, 8);
    plane.operator("operator", PORT, &[]).unwrap();
    until_leads(&plane, PORT).await;
    let (mut storm, quit) = (JoinSet::new(), CancellationToken::new());
    let all: Vec<String> = GANGS.iter().flat_map(|gang| (0..SIZE).map(move |number| format!("{gang}-{number}"))).collect();
    for some in all.chunks(SIZE) {
        storm.spawn(patch_for_ever(plane.pods(), some.to_vec(), quit.clone()));
    }
    // One pod has somebody for itself alone.
    storm.spawn(patch_for_ever(plane.pods(), vec!["a-0".to_owned()], quit.clone()));
    for name in GANGS {
        for number in 0..SIZE {
            plane.pod(&format!("{name}-{number}"), "q", gang(name, SIZE)).await.unwrap();
        }
    }
    let bound = plane.until_bound(all.len()).await.unwrap();
    assert_eq!(bound.len(), all.len());
    // Who takes part in the storm is told to end in it, and others come.
    for number in 0..SIZE {
        plane.end(&format!("d-{number}")).await.unwrap();
    }
    for number in 0..SIZE {
        plane.pod(&format!("e-{number}"), "q", gang("e", SIZE)).await.unwrap();
    }
    plane.until_bound(all.len()).await.unwrap();
    quit.cancel();
    let patches: u64 = storm.join_all().await.into_iter().sum();
    let text = metrics(&plane, PORT).await;
    let conflicts = figure(&text, r#"tidegate_operator_writes_total{answer="conflict",write="bind"}"#);
    assert!(conflicts.is_some_and(|count| count > 0), "{patches} patches were in nobody's way: {text}");
    let log = plane.log("operator");
    assert!(log.contains("not done") && log.contains("Conflict"), "{log}");
    plane.check_belief(PORT).await.unwrap();
    let seen = witness.tells(&plane).await.unwrap();
    assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
    assert!(seen.disturbed.iter().all(|pod| pod.starts_with("d-")), "{:?}", seen.disturbed);
}

/// While it sleeps the API server is made anew, much changes, and etcd forgets what was before.
#[tokio::test]
async fn an_operator_whose_watches_have_expired_lists_afresh() {
    let mut plane = plane(&[("n1", 4), ("n2", 4)], &[("q", 8)]).await;
    plane.operator("operator", PORT, &["--lease-seconds", "300"]).unwrap();
    for number in 0..8 {
        plane.pod(&format!("early-{number}"), "q", |_| {}).await.unwrap();
    }
    plane.until_bound(8).await.unwrap();
    plane.pod("never", "q", |_| {}).await.unwrap();
    until_told(&plane, "never", "0 of 8 are free").await;
    plane.check_belief(PORT).await.unwrap();

    plane.signal("operator", Signal::SIGSTOP).unwrap();
    plane.crash("kube-apiserver").await.unwrap();
    plane.start_again("kube-apiserver").await.unwrap();
    // What it believes to run is gone, and so is a node; others came.
    for pod in ["early-0", "early-1", "early-2", "never"] {
        plane.end(pod).await.unwrap();
    }
    plane.node("n3", 2).await.unwrap();
    plane.lose_node("n2").await.unwrap();
    let left = plane.bound().await.unwrap();
    for number in 0..8 {
        plane.pod(&format!("late-{number}"), "q", |_| {}).await.unwrap();
    }
    plane.forget_history().await.unwrap();
    plane.signal("operator", Signal::SIGCONT).unwrap();

    let bound = plane.until_bound(6).await.unwrap();
    assert!(left.iter().all(|pod| bound.contains(pod)), "{left:?} run on: {bound:?}");
    plane.check_belief(PORT).await.unwrap();
    plane.check_nodes(4).await.unwrap();
    assert_eq!(plane.bound().await.unwrap().len(), 6, "n1 has four GPUs, n3 two");
    assert!(bound.iter().all(|(_, node)| node != "n2"), "{bound:?}");
    let log = plane.log("operator");
    assert!(log.contains("a watch was broken off; it begins anew") && log.contains("too old"), "{log}");
    assert!(log.contains("what was broken off was listed anew"), "nothing is placed on a node that is gone: {log}");
    assert_eq!(log.matches("every kind was listed").count(), 1, "it is the same leader: {log}");
}

/// An operator whose clock is wrong by so much; time passes for it as for others.
fn start_at(plane: &mut ControlPlane, shift: &str, name: &str, port: u16, flags: &[&str]) {
    let library = installed("TIDEGATE_TEST_FAKETIME").unwrap();
    let shifted = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME", shift),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    plane.operator_of(&binary().unwrap(), name, port, flags, &shifted).unwrap();
}

/// How many hours the lease was renewed in the future.
async fn renewed_in_hours(plane: &ControlPlane) -> i64 {
    let leases: Api<Lease> = Api::namespaced(plane.client.clone(), "default");
    let lease = leases.get("tidegate-operator").await.unwrap();
    let ahead = lease.spec.unwrap().renew_time.unwrap().0.as_second() - k8s_openapi::jiff::Timestamp::now().as_second();
    (ahead + 1_800).div_euclid(3_600)
}

/// Leaders whose clocks are hours before and behind follow each other, each at a point where time counts.
#[tokio::test]
async fn leaders_whose_clocks_are_wrong_by_hours_follow_each_other_and_disturb_nobody() {
    const SIZE: usize = 4;
    let mut plane = plane(&[("n1", 4), ("n2", 4)], &[("a", 4), ("b", 4)]).await;
    let witness = Witness::of(&plane, 4);
    // It ends in the middle of a gang, six hours from now.
    for number in 0..SIZE {
        plane.pod(&format!("w-{number}"), "a", gang("w", SIZE)).await.unwrap();
    }
    start_at(&mut plane, "+6h", "ahead", PORT, &["--abort-after", "2"]);
    plane.ended("ahead").await.unwrap();
    assert_eq!(plane.bound().await.unwrap().len(), 2, "it ended in the middle");
    assert_eq!(renewed_in_hours(&plane).await, 6);
    // The next one, six hours ago, makes the gang whole. Its pods are not running yet.
    start_at(&mut plane, "-6h", "behind", OTHER_PORT, &[]);
    let bound = plane.until_bound(SIZE).await.unwrap();
    until_leads(&plane, OTHER_PORT).await;
    assert_eq!(renewed_in_hours(&plane).await, -6);
    plane.check_belief(OTHER_PORT).await.unwrap();
    plane.signal("behind", Signal::SIGTERM).unwrap();
    plane.ended("behind").await.unwrap();
    // To one with the clock ahead a gang that was bound this minute is hours old: it is not late for all that.
    start_at(&mut plane, "+6h", "ahead-again", PORT, &[]);
    until_leads(&plane, PORT).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(plane.bound().await.unwrap(), bound);
    for number in 0..SIZE {
        plane.says(&format!("w-{number}"), "Running").await.unwrap();
    }
    // It binds, and takes back what is owed, as any other.
    for number in 0..SIZE {
        plane.pod(&format!("guest-{number}"), "a", |_| {}).await.unwrap();
    }
    plane.until_bound(2 * SIZE).await.unwrap();
    for number in 0..SIZE {
        plane.says(&format!("guest-{number}"), "Running").await.unwrap();
    }
    plane.pod("owner", "b", |_| {}).await.unwrap();
    let ending = || async {
        let pods = plane.list().await?;
        Ok(pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_some()).map(ResourceExt::name_any))
    };
    let victim = until("a pod to be told to end", SOON, ending).await.unwrap();
    assert!(victim.starts_with("guest-"), "a gang of four is more than one GPU, and older: {victim}");
    plane.end(&victim).await.unwrap();
    let owner = || async { Ok(plane.bound().await?.iter().any(|(pod, _)| pod == "owner").then_some(())) };
    until("the owner to have its GPU", SOON, owner).await.unwrap();
    plane.check_belief(PORT).await.unwrap();
    let seen = witness.tells(&plane).await.unwrap();
    assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
    assert_eq!(seen.disturbed.into_iter().collect::<Vec<_>>(), [victim]);
}

/// A lease that others have written in the far future, or the far past, is over when nobody has renewed it for as long as it lasts.
#[tokio::test]
async fn a_lease_of_any_time_is_over_when_it_is_not_renewed() {
    let mut plane = plane(&[("n1", 2)], &[("q", 2)]).await;
    let leases: Api<Lease> = Api::namespaced(plane.client.clone(), "default");
    for (number, renewed) in ["2999-01-01T00:00:00.000000Z", "1999-01-01T00:00:00.000000Z"].into_iter().enumerate() {
        let lease: Lease = serde_json::from_value(json!({
            "metadata": {"name": "tidegate-operator"},
            "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 8, "acquireTime": renewed, "renewTime": renewed},
        }))
        .unwrap();
        leases.create(&PostParams::default(), &lease).await.unwrap();
        let name = format!("operator-{number}");
        plane.pod(&format!("w-{number}"), "q", |_| {}).await.unwrap();
        let began = std::time::Instant::now();
        plane.operator(&name, PORT, &[]).unwrap();
        plane.until_bound(number + 1).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(8), "somebody may still act: {:?}", began.elapsed());
        plane.signal(&name, Signal::SIGTERM).unwrap();
        plane.ended(&name).await.unwrap();
        leases.delete("tidegate-operator", &DeleteParams::default()).await.unwrap();
    }
}

/// What the kubelet says of a node's GPUs, by the word of its device plug-in.
async fn offers(plane: &ControlPlane, node: &str, gpus: u32) {
    let status = json!({"status": {"allocatable": {"nvidia.com/gpu": gpus.to_string()}}});
    Api::<Node>::all(plane.client.clone()).patch_status(node, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

fn gpu(index: u32, health: &str) -> Value {
    let finding = json!({"cause": "xid", "evidence": "79", "since": "2026-11-29T00:00:00Z"});
    let findings = if health == "Healthy" { json!([]) } else { json!([finding]) };
    json!({"uuid": format!("GPU-{index}"), "index": index, "health": health, "findings": findings})
}

/// Placement goes by what the kubelet offers; what the agent said last keeps nobody off, and its silence neither.
#[tokio::test]
async fn without_its_agent_a_node_is_used_as_far_as_its_kubelet_offers_gpus() {
    let mut plane = plane(&[("n1", 2), ("n2", 1)], &[("q", 3)]).await;
    let witness = Witness::of(&plane, 2);
    let agents: Api<GpuNode> = Api::all(plane.client.clone());
    let object: GpuNode = serde_json::from_value(
        json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "GpuNode", "metadata": {"name": "n1"}, "spec": {}}),
    )
    .unwrap();
    agents.create(&PostParams::default(), &object).await.unwrap();
    let says = |health: &'static str, gpus: Vec<Value>, at: &'static str| {
        let status = json!({"status": {"observedAt": at, "gpuCount": gpus.len(), "health": health, "gpus": gpus}});
        let agents = agents.clone();
        async move { agents.patch_status("n1", &PatchParams::default(), &Patch::Merge(status)).await.unwrap() }
    };
    says("Healthy", vec![gpu(0, "Healthy"), gpu(1, "Healthy")], "2026-11-29T00:00:00Z").await;
    plane.operator("operator", PORT, &[]).unwrap();
    plane.pod("first", "q", |pod| pod["spec"]["nodeSelector"] = json!({"n": "1"})).await.unwrap();
    let labelled = Patch::Merge(json!({"metadata": {"labels": {"n": "1"}}}));
    Api::<Node>::all(plane.client.clone()).patch("n1", &PatchParams::default(), &labelled).await.unwrap();
    plane.until_bound(1).await.unwrap();
    plane.says("first", "Running").await.unwrap();
    // One GPU is sick: the agent says so, and the device plug-in offers it no more. Then the agent is heard of no more.
    offers(&plane, "n1", 1).await;
    says("Sick", vec![gpu(0, "Healthy"), gpu(1, "Sick")], "2026-11-29T00:01:00Z").await;
    for name in ["second", "third"] {
        plane.pod(name, "q", |_| {}).await.unwrap();
    }
    let bound = plane.until_bound(2).await.unwrap();
    assert!(bound.iter().filter(|(_, node)| node == "n1").count() == 1, "the sick one is given to nobody: {bound:?}");
    let waits = if bound.iter().any(|(pod, _)| pod == "second") { "third" } else { "second" };
    until_told(&plane, waits, "0 of 2 are free").await;
    agents.delete("n1", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(plane.bound().await.unwrap(), bound, "without a word from the agent nothing is given that is not offered");
    plane.check_belief(PORT).await.unwrap();
    let (status, why) = plane.ask(PORT, &format!("/explain?job=pod/team/{waits}"), Some(ADMIN)).await.unwrap();
    assert!(status == 200 && why.contains("0 of 2 are free"), "{why}");
    // It is offered again: it was reset, with or without the agent.
    offers(&plane, "n1", 2).await;
    plane.until_bound(3).await.unwrap();
    plane.check_belief(PORT).await.unwrap();
    let seen = witness.tells(&plane).await.unwrap();
    assert!(seen.wrong.is_empty() && seen.disturbed.is_empty(), "{:?} {:?}", seen.wrong, seen.disturbed);
}

/// Fewer GPUs than are held: what runs goes on, and what is freed is not given again.
#[tokio::test]
async fn a_node_that_offers_fewer_gpus_than_are_held_keeps_what_runs_and_gets_nothing_new() -> Result<()> {
    let mut plane = plane(&[("n1", 4)], &[("q", 8)]).await;
    plane.operator("operator", PORT, &[])?;
    for number in 0..4 {
        plane.pod(&format!("w-{number}"), "q", |_| {}).await?;
    }
    for (pod, _) in plane.until_bound(4).await? {
        plane.says(&pod, "Running").await?;
    }
    offers(&plane, "n1", 2).await;
    plane.pod("next", "q", |_| {}).await?;
    until_told(&plane, "next", "needs 1").await;
    for ended in ["w-0", "w-1"] {
        plane.says(ended, "Succeeded").await?;
    }
    tokio::time::sleep(A_WHILE).await;
    let by_name: BTreeMap<String, String> = plane.bound().await?.into_iter().collect();
    assert!(!by_name.contains_key("next"), "two are held, and two are offered: {by_name:?}");
    assert!(plane.list().await?.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()), "nobody was told to end");
    plane.says("w-2", "Succeeded").await?;
    let look = || async { Ok(plane.bound().await?.iter().any(|(pod, _)| pod == "next").then_some(())) };
    until("a GPU that is offered to be given", SOON, look).await?;
    plane.check_belief(PORT).await
}
