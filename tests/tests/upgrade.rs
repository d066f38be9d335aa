//! The operator's life among workloads: it is replaced by its next build while pods and gangs come and go, and it is uninstalled. As
//! `docs/operations.md` has it, step by step. `TIDEGATE_PREVIOUS` names the build that is replaced (`cargo xtask test` keeps the last one that
//! passed all tests, for that); absent: this one by itself.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidegate_api::kinds::{self, TrainingJob, TrainingPhase};
use tidegate_tests::control_plane::kwok::{DONE, DONE_STAGE, GPUS, usual};
use tidegate_tests::control_plane::witness::{Witness, gpus, holds};
use tidegate_tests::control_plane::{ControlPlane, POD_GROUPS, SOON, TEAM, figure};
use tidegate_tests::harness::{binary, until};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const PORT: u16 = 9001;
const OTHER_PORT: u16 = 9002;
const NODES: u32 = 12;
/// Pods of a gang; every third that comes is one.
const GANG: usize = 4;
/// Between two that come: some 50 pods a second would keep the machine busy with itself.
const EVERY: Duration = Duration::from_millis(150);
/// How many of those that run do so until the end; others have done their work as soon as there are more.
const STAY: usize = 40;
/// Pods that come before, while and after the operator is replaced.
const PHASE: usize = 40;

fn previous() -> PathBuf {
    env::var_os("TIDEGATE_PREVIOUS").filter(|path| !path.is_empty()).map_or_else(|| binary().unwrap(), PathBuf::from)
}

/// What was asked for: pods, each with its gang.
type Asked = BTreeMap<String, Option<String>>;

fn pod(name: &str, gang: Option<&str>) -> Result<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"tidegate.dev/queue": "q"}, "annotations": {}},
        "spec": {
            "schedulerName": "tidegate", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
        },
    });
    if let Some(gang) = gang {
        pod["metadata"]["labels"]["tidegate.dev/gang"] = json!(gang);
        pod["metadata"]["annotations"]["tidegate.dev/gang-size"] = json!(GANG.to_string());
    }
    Ok(serde_json::from_value(pod)?)
}

/// Pods and gangs come, one after the other, and the oldest end; until `quit`.
async fn load(pods: Api<Pod>, quit: CancellationToken) -> Result<Asked> {
    let mut asked = Asked::new();
    let mut number = 0;
    while !quit.is_cancelled() {
        number += 1;
        let gang = (number % 3 == 0).then(|| format!("gang-{number}"));
        let names = match &gang {
            Some(gang) => (0..GANG).map(|rank| format!("{gang}-{rank}")).collect(),
            None => vec![format!("single-{number}")],
        };
        for name in names {
            pods.create(&PostParams::default(), &pod(&name, gang.as_deref())?).await?;
            asked.insert(name, gang.clone());
        }
        end_oldest(&pods).await?;
        sleep(EVERY).await;
    }
    Ok(asked)
}

/// Of those that run the oldest have done their work, beyond so many.
async fn end_oldest(pods: &Api<Pod>) -> Result<()> {
    let all = pods.list(&ListParams::default()).await?.items;
    let is_done = |pod: &Pod| pod.annotations().contains_key(DONE);
    let mut running: Vec<&Pod> = all.iter().filter(|pod| is_running(pod) && !is_done(pod)).collect();
    running.sort_by_key(|pod| pod.creation_timestamp());
    let done = Patch::Merge(json!({"metadata": {"annotations": {DONE: "true"}}}));
    for pod in running.iter().take(running.len().saturating_sub(STAY)) {
        pods.patch(&pod.name_any(), &PatchParams::default(), &done).await?;
    }
    Ok(())
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

async fn count_bound(plane: &ControlPlane) -> usize {
    plane.bound().await.unwrap().len()
}

/// Waits until so many more pods are bound than are now.
async fn until_more(plane: &ControlPlane, more: usize) {
    let wanted = count_bound(plane).await + more;
    plane.until_bound(wanted).await.unwrap();
}

async fn until_leads(plane: &ControlPlane, port: u16) {
    let look = || async {
        let (_, metrics) = plane.ask(port, "/metrics", None).await?;
        Ok((figure(&metrics, "tidegate_operator_synced") == Some(1)).then_some(()))
    };
    until("the operator to lead and to know everything", SOON, look).await.unwrap();
}

/// `tidegate crd | kubectl apply -f -`.
async fn apply_kinds(plane: &ControlPlane) {
    let definitions: Api<CustomResourceDefinition> = Api::all(plane.client.clone());
    for mut definition in kinds::definitions() {
        definition.metadata.managed_fields = None;
        let apply = PatchParams::apply("kubectl").force();
        definitions.patch(&definition.name_any(), &apply, &Patch::Apply(&definition)).await.unwrap();
    }
}

#[tokio::test]
async fn an_upgrade_under_load_loses_nothing_binds_nothing_twice_and_disturbs_nobody() {
    let mut plane = ControlPlane::start_with(&POD_GROUPS).await.unwrap();
    plane.kwok(DONE_STAGE).unwrap();
    plane.kwok_nodes(NODES, &usual(), |_| Vec::new()).await.unwrap();
    plane.queue("q", NODES * GPUS).await.unwrap();
    let witness = Witness::of(&plane, GPUS);
    plane.operator_of(&previous(), "previous", PORT, &[], &[]).unwrap();
    until_leads(&plane, PORT).await;
    let (mut loads, quit) = (JoinSet::new(), CancellationToken::new());
    loads.spawn(load(plane.pods(), quit.clone()));
    until_more(&plane, PHASE).await;

    apply_kinds(&plane).await;
    plane.operator("next", OTHER_PORT, &[]).unwrap();
    let stands_by = || async {
        let (_, metrics) = plane.ask(OTHER_PORT, "/metrics", None).await?;
        Ok((figure(&metrics, "tidegate_operator_leads") == Some(0)).then_some(()))
    };
    until("the next build to stand by", SOON, stands_by).await.unwrap();
    until_more(&plane, PHASE).await;
    plane.signal("previous", Signal::SIGTERM).unwrap();
    assert_eq!(plane.ended("previous").await.unwrap(), Some(0), "{}", plane.log("previous"));
    until_leads(&plane, OTHER_PORT).await;
    until_more(&plane, PHASE).await;

    quit.cancel();
    let asked = loads.join_all().await.remove(0).unwrap();
    plane.until_bound(asked.len()).await.unwrap();
    plane.check_belief(OTHER_PORT).await.unwrap();
    let pods = plane.list().await.unwrap();
    let there: BTreeSet<String> = pods.iter().map(ResourceExt::name_any).collect();
    assert!(asked.keys().all(|name| there.contains(name)), "a pod is lost");
    let seen = witness.tells(&plane).await.unwrap();
    assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
    assert!(seen.disturbed.is_empty(), "{:?}", seen.disturbed);
    let bound: BTreeSet<&String> = seen.bound.keys().map(|(name, _)| name).collect();
    assert_eq!((bound.len(), seen.bound.len()), (asked.len(), asked.len()), "each was bound once");
    let used: u32 = pods.iter().filter(|pod| holds(pod).is_some()).map(gpus).sum();
    assert!(used > 0 && used <= NODES * GPUS);
}

/// Plays the garbage collector for `--cascade=orphan`: those that the object owns are nobody's from now on, and then it is gone.
async fn orphan(plane: &ControlPlane, job: &str) {
    let jobs: Api<TrainingJob> = Api::namespaced(plane.client.clone(), TEAM);
    jobs.delete(job, &DeleteParams::orphan()).await.unwrap();
    let uid = jobs.get(job).await.unwrap().uid().unwrap();
    for pod in plane.list().await.unwrap() {
        if pod.owner_references().iter().any(|owner| owner.uid == uid) {
            let nobodys = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
            plane.pods().patch(&pod.name_any(), &PatchParams::default(), &nobodys).await.unwrap();
        }
    }
    let done = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    jobs.patch(job, &PatchParams::default(), &done).await.unwrap();
}

#[tokio::test]
async fn an_uninstall_leaves_what_runs_running() {
    let mut plane = ControlPlane::start().await.unwrap();
    plane.kwok(DONE_STAGE).unwrap();
    plane.kwok_nodes(2, &usual(), |_| Vec::new()).await.unwrap();
    plane.queue("research", 16).await.unwrap();
    plane.operator("operator", PORT, &[]).unwrap();
    let gang = |pod: &mut Value| {
        pod["metadata"]["labels"]["tidegate.dev/gang"] = json!("g");
        pod["metadata"]["annotations"]["tidegate.dev/gang-size"] = json!("4");
    };
    for number in 0..4 {
        plane.pod(&format!("g-{number}"), "research", gang).await.unwrap();
    }
    plane.training_job(|job| job.spec.checkpoint.grace_seconds = 1).await.unwrap();
    plane.until_training("night-1", TrainingPhase::Running).await.unwrap();
    plane.until_bound(8).await.unwrap();
    plane.pod("waits", "nowhere", |_| {}).await.unwrap();
    let running = || async {
        let pods = plane.list().await?;
        Ok((pods.iter().filter(|pod| is_running(pod)).count() == 8).then_some(pods))
    };
    let before = until("all pods to run", SOON, running).await.unwrap();

    // 1. The operator.
    plane.signal("operator", Signal::SIGTERM).unwrap();
    assert_eq!(plane.ended("operator").await.unwrap(), Some(0));
    // 2. Objects of ours that own pods.
    orphan(&plane, "night-1").await;
    // 4. The kinds, with all that is left of them; roles; the lease.
    let definitions: Api<CustomResourceDefinition> = Api::all(plane.client.clone());
    for definition in kinds::definitions() {
        definitions.delete(&definition.name_any(), &DeleteParams::default()).await.unwrap();
    }
    let gone = || async { Ok(definitions.list(&ListParams::default()).await?.items.is_empty().then_some(())) };
    until("the kinds to be gone", SOON, gone).await.unwrap();
    let roles: Api<ClusterRole> = Api::all(plane.client.clone());
    for role in ["tidegate-operator", "tidegate-reader"] {
        roles.delete(role, &DeleteParams::default()).await.unwrap();
    }
    Api::<ClusterRoleBinding>::all(plane.client.clone()).delete("operator", &DeleteParams::default()).await.unwrap();
    let leases: Api<Lease> = Api::namespaced(plane.client.clone(), "default");
    leases.delete("tidegate-operator", &DeleteParams::default()).await.unwrap();

    // What runs is what ran; nobody owns it of whom a garbage collector knows that they are gone.
    let after = plane.list().await.unwrap();
    let shown = |pods: &[Pod]| -> BTreeSet<(Option<String>, String, bool)> {
        let told = |pod: &Pod| (pod.uid(), pod.name_any(), is_running(pod) && pod.metadata.deletion_timestamp.is_none());
        pods.iter().map(told).collect()
    };
    assert_eq!(shown(&after), shown(&before));
    assert!(after.iter().all(|pod| pod.owner_references().is_empty() && pod.finalizers().is_empty()));
    // Such a pod ends as any other: nothing of ours is in its way.
    plane.pods().delete("g-0", &DeleteParams::default()).await.unwrap();
    let ended = || async { Ok((plane.list().await?.len() == after.len() - 1).then_some(())) };
    until("a pod to end", SOON, ended).await.unwrap();
}
