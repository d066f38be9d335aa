//! The `GpuNode` status on Kubernetes: facts at a low rate, at once on a change of health. The agent writes its own half
//! of the object by server-side apply, and nothing else in the cluster.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use tidegate_api::kinds::{GpuFinding, GpuHealth, GpuNode, GpuNodeSpec, GpuNodeStatus, GpuStatus, MigStatus};
use tidegate_nvml::Fact;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::args::Status;
use crate::collect::Shared;
use crate::gpu::Gpu;
use crate::health::State;
use crate::node::Node;

const MANAGER: &str = "tidegate-node-agent";
/// How often a change of health is looked for: nobody learns of it later than this and one write.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Health that flaps is written no more often.
const AT_MOST_EVERY: Duration = Duration::from_secs(3);
/// A write that takes longer is given up.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Bounds of the kind's schema.
const MOST_GPUS: usize = 64;
const MOST_INSTANCES: usize = 16;
const LONGEST_EVIDENCE: usize = 256;
const LONGEST_WHY: usize = 512;

/// Why the status was not written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("write the status of GpuNode {node}: {source}")]
    Write {
        node: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("write the status of GpuNode {node}: no answer within {WRITE_WITHIN:?}")]
    Slow { node: String },
}

/// Writes until `shutdown`. Without a cluster says so once and ends.
pub async fn write(shared: Arc<Shared>, wanted: Status, shutdown: CancellationToken) {
    let client = match Client::try_default().await {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(%error, "--node-name is given and no cluster is configured: no GpuNode status is written");
            return;
        }
    };
    let api: Api<GpuNode> = Api::all(client);
    let (mut written, mut failing) = (None, false);
    loop {
        let (due, version) = due(&shared, &wanted, written);
        if due {
            let status = status(&shared.node.lock(), Timestamp::now(), shared.at());
            let done = shutdown.run_until_cancelled(apply(&api, &wanted.node, status)).await;
            let Some(done) = done else { return };
            let mut node = shared.node.lock();
            match done {
                Ok(()) => node.own.status_writes += 1,
                Err(_) => node.own.status_errors += 1,
            }
            drop(node);
            if let Err(error) = &done
                && !failing
            {
                tracing::warn!(%error, "trying again");
            }
            failing = done.is_err();
            // A failed write is tried again soon, as if health had changed.
            written = Some((if failing { u64::MAX } else { version }, shared.at()));
        }
        if shutdown.run_until_cancelled(sleep(LOOK_EVERY)).await.is_none() {
            return;
        }
    }
}

/// Whether to write now, and which version of health that tells.
fn due(shared: &Shared, wanted: &Status, written: Option<(u64, Duration)>) -> (bool, u64) {
    let version = shared.node.lock().health_version;
    let due = written.is_none_or(|(told, at)| {
        let age = shared.at().saturating_sub(at);
        age >= wanted.every || (told != version && age >= AT_MOST_EVERY)
    });
    (due, version)
}

async fn apply(api: &Api<GpuNode>, node: &str, status: GpuNodeStatus) -> Result<(), Error> {
    let written = tokio::time::timeout(WRITE_WITHIN, exchange(api, node, status)).await;
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(Error::Write { node: node.to_owned(), source: Box::new(source) }),
        Err(_) => Err(Error::Slow { node: node.to_owned() }),
    }
}

async fn exchange(api: &Api<GpuNode>, node: &str, status: GpuNodeStatus) -> Result<(), kube::Error> {
    let manager = PatchParams::apply(MANAGER).force();
    let object = object(node, status);
    let patched = api.patch_status(node, &manager, &Patch::Apply(&object)).await;
    match patched {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            let made = api.patch(node, &manager, &Patch::Apply(&GpuNode::new(node, GpuNodeSpec {}))).await?;
            tracing::info!(name = made.name_any(), "made the GpuNode of this node");
            api.patch_status(node, &manager, &Patch::Apply(&object)).await.map(drop)
        }
        patched => patched.map(drop),
    }
}

/// The node's object, with the half of it that the agent writes.
fn object(node: &str, status: GpuNodeStatus) -> GpuNode {
    GpuNode { status: Some(status), ..GpuNode::new(node, GpuNodeSpec {}) }
}

/// What the node looks like at `at`, which is `now`.
pub fn status(node: &Node, now: Timestamp, at: Duration) -> GpuNodeStatus {
    let mut gpus: Vec<&Gpu> = node.gpus.values().collect();
    gpus.sort_by_key(|gpu| gpu.identity.index);
    let gpus: Vec<GpuStatus> = gpus.into_iter().take(MOST_GPUS).map(|gpu| of_gpu(gpu, now, at)).collect();
    GpuNodeStatus {
        observed_at: now.to_string(),
        driver: node.driver.as_ref().and_then(|driver| driver.driver.known().cloned()).filter(|_| node.closed.is_none()),
        closed: node.closed.as_ref().map(|(_, why)| cut(why, LONGEST_WHY)),
        gpu_count: u32::try_from(gpus.len()).unwrap_or(u32::MAX),
        health: health(node.health()),
        gpus,
    }
}

fn of_gpu(gpu: &Gpu, now: Timestamp, at: Duration) -> GpuStatus {
    let identity = &gpu.identity;
    let since = |then: Duration| {
        let ago = k8s_openapi::jiff::SignedDuration::try_from(at.saturating_sub(then)).unwrap_or_default();
        now.checked_sub(ago).unwrap_or(now).to_string()
    };
    let findings = gpu.health.findings().map(|(cause, finding)| GpuFinding {
        cause: cause.rule().word.to_owned(),
        evidence: cut(&finding.evidence, LONGEST_EVIDENCE),
        since: since(finding.since),
    });
    let instance = |instance: &crate::gpu::Instance| MigStatus {
        uuid: instance.told.uuid.to_string(),
        profile: instance.told.profile.known().cloned(),
    };
    let known = |fact: &Fact<u32>| fact.known().copied();
    GpuStatus {
        uuid: identity.uuid.to_string(),
        index: identity.index,
        class: identity.class(),
        pci_bus_id: identity.pci_bus_id.known().cloned(),
        numa_node: known(&identity.numa_node),
        memory_mib: identity.memory_total_bytes.known().and_then(|bytes| u32::try_from(bytes >> 20).ok()),
        health: health(gpu.health.state()),
        findings: findings.collect(),
        mig: gpu.instances.values().take(MOST_INSTANCES).map(instance).collect(),
    }
}

fn health(state: State) -> GpuHealth {
    match state {
        State::Healthy => GpuHealth::Healthy,
        State::Degraded => GpuHealth::Degraded,
        State::Sick => GpuHealth::Sick,
        State::Lost => GpuHealth::Lost,
    }
}

/// At most `longest` characters.
fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

#[cfg(test)]
mod tests;
