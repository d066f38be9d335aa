//! What the operator's engine believes, from its downloaded snapshot, beside what the API's objects say.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::Value;
use tidegate_core::names::JobName;
use tidegate_core::state::Phase;
use tidegate_core::{Engine, explain};
use tidegate_tests::control_plane::witness::holds;
use tidegate_tests::control_plane::{ADMIN, ControlPlane, SOON, TEAM};
use tidegate_tests::harness::until;

/// What runs: units, each with the nodes of its pods and the devices that it has by name.
type Running = BTreeMap<String, (Vec<String>, BTreeSet<String>)>;

/// Waits until the operator is done, and compares: what it believes to run and to wait is what the objects say, its engine, restored
/// here, orders nothing, and explains a waiting job in the same words.
pub async fn check(plane: &ControlPlane, port: u16) -> Result<()> {
    let last = std::cell::RefCell::new(String::new());
    let look = || async {
        let differs = compare(plane, port).await?;
        let same = differs.is_none();
        *last.borrow_mut() = differs.unwrap_or_default();
        Ok(same.then_some(()))
    };
    let agreed = until("the engine and the objects to say the same", SOON, look).await;
    agreed.with_context(|| last.borrow().clone())
}

/// In what they differ.
async fn compare(plane: &ControlPlane, port: u16) -> Result<Option<String>> {
    let (status, text) = plane.ask(port, "/snapshot", Some(ADMIN)).await?;
    ensure!(status == 200, "/snapshot: {status} {text}");
    let mut engine = Engine::restore(&text)?;
    let pods = plane.list().await?;
    let claims: Api<ResourceClaim> = Api::namespaced(plane.client.clone(), TEAM);
    let claims = claims.list(&ListParams::default()).await?.items;
    check_claims(&claims)?;
    let (believes, says) = (believed(&engine), said(&pods, &claims));
    if believes != says {
        return Ok(Some(format!("it believes that there run {believes:?}, and the objects say {says:?}")));
    }
    let (waiting, complete, there) = (waiting(&engine), waiting_units(&pods, true), waiting_units(&pods, false));
    if !waiting.is_subset(&there) || !complete.is_subset(&waiting) {
        return Ok(Some(format!(
            "it believes that there wait {waiting:?}, and the objects say {there:?}, complete {complete:?}"
        )));
    }
    if let Some(open) = engine.outstanding().next() {
        return Ok(Some(format!("it is at {open:?}")));
    }
    engine.is_consistent().map_err(anyhow::Error::msg)?;
    let now = engine.state().now;
    let first =
        engine.state().jobs.iter().find(|(_, job)| matches!(job.phase, Phase::Waiting { .. })).map(|(name, _)| name.clone());
    if let Some(name) = first {
        let (theirs, ours) = (explained(plane, port, &name).await?, explain::job(&engine, &name, now).context("no such job")?);
        let ours =
            [vec![ours.status], ours.because, ours.would_change].concat().iter().map(|line| wordless(line)).collect::<Vec<_>>();
        if theirs != ours {
            return Ok(Some(format!("of {name} it says {theirs:?}, and the snapshot {ours:?}")));
        }
    }
    engine.mark_dirty();
    let plan = engine.decide(now);
    Ok((!plan.actions.is_empty()).then(|| format!("the snapshot would go on with {:?}", plan.actions)))
}

/// What the operator says of a job, line by line, without numbers: some of them are moments.
async fn explained(plane: &ControlPlane, port: u16, job: &JobName) -> Result<Vec<String>> {
    let (status, text) = plane.ask(port, &format!("/explain?job={}", job.0.replace('#', "%23")), Some(ADMIN)).await?;
    ensure!(status == 200, "/explain of {job}: {status} {text}");
    let answer: Value = serde_json::from_str(&text)?;
    let lines = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let all = [vec![answer["status"].clone()], lines("because"), lines("wouldChange")].concat();
    Ok(all.iter().filter_map(Value::as_str).map(wordless).collect())
}

fn wordless(line: &str) -> String {
    let mut text = String::new();
    for c in line.chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if c != '0' || !text.ends_with('0') {
            text.push(c);
        }
    }
    text
}

/// A unit's name without what tells one life of it from the next, or a part from the whole.
fn unit_of(job: &str) -> String {
    let name = job.split_once('#').map_or(job, |(name, _)| name);
    name.strip_prefix("rest/").map_or_else(|| name.to_owned(), |gang| format!("gang/{gang}"))
}

fn believed(engine: &Engine) -> Running {
    let state = engine.state();
    let mut running = Running::new();
    for (name, job) in state.jobs.iter() {
        for seat in job.run().map_or(&[][..], |run| &run.seats) {
            let (nodes, devices) = running.entry(unit_of(&name.0)).or_default();
            nodes.extend(state.nodes.name(seat.node).map(ToString::to_string));
            devices.extend(state.devices_of(seat).filter(|device| device.named).map(|device| device.id.to_string()));
        }
    }
    for (nodes, _) in running.values_mut() {
        nodes.sort();
    }
    running
}

fn said(pods: &[Pod], claims: &[ResourceClaim]) -> Running {
    let mut running = Running::new();
    for pod in pods {
        let Some((node, _)) = holds(pod) else { continue };
        let (nodes, devices) = running.entry(unit(pod).0).or_default();
        nodes.push(node);
        devices.extend(claims.iter().filter(|claim| is_for(claim, pod)).flat_map(devices_of));
    }
    for (nodes, _) in running.values_mut() {
        nodes.sort();
    }
    running
}

fn is_for(claim: &ResourceClaim, pod: &Pod) -> bool {
    let reserved = claim.status.as_ref().and_then(|status| status.reserved_for.as_ref());
    reserved.is_some_and(|all| all.iter().any(|consumer| Some(&consumer.uid) == pod.metadata.uid.as_ref()))
}

/// Devices that a claim is allocated, as the engine calls them.
fn devices_of(claim: &ResourceClaim) -> Vec<String> {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let results = allocation.and_then(|allocation| allocation.devices.as_ref()?.results.as_ref());
    results.into_iter().flatten().map(|result| format!("{}/{}/{}", result.driver, result.pool, result.device)).collect()
}

/// No device is allocated to two claims.
fn check_claims(claims: &[ResourceClaim]) -> Result<()> {
    let mut all = BTreeMap::new();
    for claim in claims {
        for device in devices_of(claim) {
            let before = all.insert(device.clone(), claim.name_any());
            ensure!(before.is_none(), "{device} is allocated to {} and to {before:?}", claim.name_any());
        }
    }
    Ok(())
}

fn waiting(engine: &Engine) -> BTreeSet<String> {
    let jobs = engine.state().jobs.iter().filter(|(_, job)| matches!(job.phase, Phase::Waiting { .. }));
    jobs.map(|(name, _)| unit_of(&name.0)).collect()
}

/// Units with pods that are not bound; `complete`: of which so many are there as must start together.
fn waiting_units(pods: &[Pod], complete: bool) -> BTreeSet<String> {
    let mut counts = BTreeMap::<(String, usize), usize>::new();
    for pod in pods.iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())) {
        *counts.entry(unit(pod)).or_default() += 1;
    }
    counts.into_iter().filter(|((_, size), count)| !complete || count >= size).map(|((unit, _), _)| unit).collect()
}

/// The unit of a pod, as `docs/operator.md` has it, and how many of it must start together: of a `PodGroup`'s pods the test says so too.
fn unit(pod: &Pod) -> (String, usize) {
    let group = pod.spec.as_ref().and_then(|spec| spec.scheduling_group.as_ref()?.pod_group_name.clone());
    let label = pod.labels().get("tidegate.dev/gang").cloned();
    let size = pod.annotations().get("tidegate.dev/gang-size").or_else(|| pod.annotations().get(GROUP_SIZE));
    let size = size.and_then(|size| size.parse().ok());
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    let gang = group.map(|group| format!("PodGroup/{group}")).or(label);
    let gang = gang.or_else(|| owner.filter(|_| size.is_some()).map(|owner| format!("{}/{}", owner.kind, owner.name)));
    match gang {
        Some(gang) => (format!("gang/{TEAM}/{gang}"), size.unwrap_or(usize::MAX)),
        None => (format!("pod/{TEAM}/{}", pod.name_any()), 1),
    }
}

/// What the test notes of a `PodGroup`'s size on its pods.
pub const GROUP_SIZE: &str = "test.tidegate.dev/group-size";

/// Of each gang so many were bound as must start together, or none.
pub fn check_gangs(pods: &[Pod]) -> Result<()> {
    let mut bound = BTreeMap::<(String, usize), usize>::new();
    for pod in pods {
        let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        *bound.entry(unit(pod)).or_default() += usize::from(is_bound);
    }
    for ((unit, size), count) in bound {
        ensure!(count == 0 || count >= size, "{unit}: {count} pods are bound, of {size} that must start together");
    }
    Ok(())
}
