//! Nodes whose kubelet KWOK plays: it says that they are ready and that what is bound there runs, and never refuses a pod.

use std::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::harness::until;

/// Requests at once while objects are made.
pub const AT_ONCE: usize = 32;
/// For all of them to be ready.
const READY_WITHIN: Duration = Duration::from_mins(8);

/// Makes nodes `node-0`, `node-1` ... that have this much each, and waits until KWOK keeps them alive.
pub async fn make_nodes(plane: &ControlPlane, count: u32, amounts: &Value) -> Result<()> {
    let nodes: Api<Node> = Api::all(plane.client.clone());
    let make = |number: u32| {
        let (nodes, amounts) = (nodes.clone(), amounts.clone());
        async move {
            let name = format!("node-{number}");
            let node: Node = serde_json::from_value(json!({
                "metadata": {
                    "name": name, "annotations": {"kwok.x-k8s.io/node": "fake"},
                    "labels": {"kubernetes.io/hostname": name, "type": "kwok"},
                },
                "status": {"capacity": amounts, "allocatable": amounts},
            }))?;
            nodes.create(&PostParams::default(), &node).await?;
            // As the node controller does once it is ready.
            let ready = json!({"spec": {"taints": null}});
            nodes.patch(&name, &PatchParams::default(), &Patch::Merge(ready)).await?;
            anyhow::Ok(())
        }
    };
    stream::iter(0..count).map(make).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    let is_ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
    };
    let look = || async {
        let all = nodes.list(&ListParams::default()).await?;
        Ok((all.items.iter().filter(|node| is_ready(node)).count() == count as usize).then_some(()))
    };
    until("all nodes to be ready", READY_WITHIN, look).await
}
