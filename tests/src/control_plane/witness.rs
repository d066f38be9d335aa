//! What the API's objects say that GPUs are used for: at one moment, and, by a watch, at every moment.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ControlPlane, SOON};

/// The pod by whose appearance a witness knows that it has seen all that was before.
const LAST: &str = "witness-has-seen-all";

/// Where a pod holds GPUs, and how many: it is bound and not over.
pub fn holds(pod: &Pod) -> Option<(String, u32)> {
    let (spec, phase) = (pod.spec.as_ref()?, pod.status.as_ref().and_then(|status| status.phase.as_deref()));
    let over = matches!(phase, Some("Succeeded" | "Failed"));
    spec.node_name.clone().filter(|_| !over).map(|node| (node, gpus(pod)))
}

/// GPUs that a pod asks for as an extended resource.
pub fn gpus(pod: &Pod) -> u32 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let limits = containers.filter_map(|container| container.resources.as_ref()?.limits.as_ref()?.get("nvidia.com/gpu"));
    limits.filter_map(|quantity| quantity.0.parse::<u32>().ok()).sum()
}

/// What was seen of all pods.
#[derive(Clone, Debug, Default)]
pub struct Testimony {
    /// Nodes that gave away more GPUs than they have, and pods that were on two nodes; empty if all is well.
    pub wrong: Vec<String>,
    /// Pods by name and uid that were ever bound, and where.
    pub bound: BTreeMap<(String, String), String>,
    /// Those of them that were told to end, or failed.
    pub disturbed: BTreeSet<String>,
    here: BTreeMap<String, (String, u32)>,
    held: BTreeMap<String, u32>,
}

impl Testimony {
    fn pod(&mut self, pod: &Pod, limit: u32) {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        self.leave(&uid);
        let failed = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Failed"));
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
            if pod.metadata.deletion_timestamp.is_some() || failed {
                self.disturbed.insert(name.clone());
            }
            let before = self.bound.insert((name.clone(), uid.clone()), node.clone());
            self.wrong
                .extend(before.filter(|before| *before != node).map(|before| format!("{name} was on {before} and is on {node}")));
        }
        let Some((node, gpus)) = holds(pod) else { return };
        let held = self.held.entry(node.clone()).or_default();
        *held += gpus;
        if *held > limit {
            self.wrong.push(format!("{node} gives {held} GPUs of {limit}, the last to {name}"));
        }
        self.here.insert(uid, (node, gpus));
    }

    fn leave(&mut self, uid: &str) {
        let Some((node, gpus)) = self.here.remove(uid) else { return };
        *self.held.entry(node).or_default() -= gpus;
    }

    /// A pod is gone; one that was bound and not over was disturbed.
    fn gone(&mut self, pod: &Pod) {
        self.leave(&pod.uid().unwrap_or_default());
        if holds(pod).is_some() {
            self.disturbed.insert(pod.name_any());
        }
    }
}

/// Watches all pods of the team, in the order in which they changed.
pub struct Witness {
    task: JoinSet<Result<Testimony>>,
}

impl Witness {
    /// Looks on from now; each node has so many GPUs.
    pub fn of(plane: &ControlPlane, gpus: u32) -> Self {
        let pods = plane.pods();
        let mut task = JoinSet::new();
        task.spawn(look_on(pods, gpus));
        Self { task }
    }

    /// Waits until it has seen all that was until now.
    pub async fn tells(mut self, plane: &ControlPlane) -> Result<Testimony> {
        let last = json!({
            "metadata": {"name": LAST},
            "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "none"}]},
        });
        plane.pods().create(&PostParams::default(), &serde_json::from_value(last)?).await?;
        let told = timeout(SOON, self.task.join_next()).await.context("the witness has not seen the last pod")?;
        plane.end(LAST).await?;
        told.context("there is no witness")??
    }
}

async fn look_on(pods: Api<Pod>, gpus: u32) -> Result<Testimony> {
    let mut seen = Testimony::default();
    let mut listed: Vec<Pod> = Vec::new();
    let mut events = std::pin::pin!(watcher(pods, Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod)) if pod.name_any() == LAST => return Ok(seen),
            Ok(Event::Apply(pod)) => seen.pod(&pod, gpus),
            Ok(Event::Delete(pod)) => seen.gone(&pod),
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => listed.push(pod),
            // A list is one moment: it stands for all that was before.
            Ok(Event::InitDone) => {
                (seen.here, seen.held) = (BTreeMap::new(), BTreeMap::new());
                for pod in &listed {
                    seen.pod(pod, gpus);
                }
                if listed.iter().any(|pod| pod.name_any() == LAST) {
                    return Ok(seen);
                }
            }
            // The API server, or its network, is away; the watch begins anew.
            Err(_) => {}
        }
    }
    bail!("the watch of the witness ended")
}

/// No node gives away more GPUs than it has.
pub fn check_held(pods: &[Pod], gpus: u32) -> Result<()> {
    let mut held = BTreeMap::<String, u32>::new();
    for (node, gpus) in pods.iter().filter_map(holds) {
        *held.entry(node).or_default() += gpus;
    }
    for (node, count) in held {
        ensure!(count <= gpus, "{node} gives {count} GPUs of {gpus}");
    }
    Ok(())
}
