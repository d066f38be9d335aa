//! Nodes without machines: KWOK says of them, and of the pods on them, what kubelets would say.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::ControlPlane;
use crate::harness::until;
use crate::outside::installed;

/// GPUs of such a node.
pub const GPUS: u32 = 8;
/// Requests at once while objects are made.
pub const AT_ONCE: usize = 32;
/// For all nodes to be ready.
const READY_WITHIN: Duration = Duration::from_mins(8);
/// A running pod that bears this annotation has done its work: see [`DONE_STAGE`].
pub const DONE: &str = "test.tidegate.dev/done";
/// For [`ControlPlane::kwok`]: pods end when a test says so ([`DONE`]).
pub const DONE_STAGE: &str = "
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata:
  name: pod-done
spec:
  resourceRef:
    apiGroup: v1
    kind: Pod
  selector:
    matchAnnotations:
      test.tidegate.dev/done: \"true\"
    matchExpressions:
    - key: '.metadata.deletionTimestamp'
      operator: 'DoesNotExist'
    - key: '.status.phase'
      operator: 'In'
      values:
      - 'Running'
  next:
    statusTemplate: |
      phase: Succeeded
";

impl ControlPlane {
    /// Starts KWOK, which plays the kubelets of the nodes that it is told to. Besides its own stages it has `more`, if that is not empty.
    pub fn kwok(&mut self, more: &str) -> Result<()> {
        let stages = installed("TIDEGATE_TEST_KWOK_STAGES")?;
        let read = |file: &str| fs::read_to_string(stages.join(file)).with_context(|| format!("read KWOK's stage {file}"));
        let files = ["pod/fast/pod-ready.yaml", "pod/fast/pod-delete.yaml", "node/fast/node-initialize.yaml"];
        let lease = "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml";
        let mut texts = files.into_iter().chain([lease]).map(read).collect::<Result<Vec<_>>>()?;
        texts.extend((!more.is_empty()).then(|| more.to_owned()));
        fs::write(self.parts.at("kwok.yaml"), texts.join("\n---\n"))?;
        let mut kwok = self.parts.command(&installed("TIDEGATE_TEST_CONTROLPLANE")?.join("kwok"));
        kwok.arg("-c").arg(self.parts.at("kwok.yaml")).arg("--kubeconfig").arg(self.at("admin-kubeconfig"));
        kwok.args(["--manage-nodes-with-annotation-selector", "kwok.x-k8s.io/node=fake", "--node-lease-duration-seconds", "40"]);
        self.parts.spawn("kwok", kwok)
    }

    /// `node-0` and so on, which KWOK keeps alive, each with so much and with more labels; returns when all are ready.
    pub async fn kwok_nodes(&self, count: u32, amounts: &Value, labels: impl Fn(u32) -> Vec<(String, String)>) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let make = |number: u32| {
            let (nodes, node) = (nodes.clone(), node(number, amounts, labels(number)));
            async move {
                let name = node.metadata.name.clone().unwrap_or_default();
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
}

/// What a node usually has.
pub fn usual() -> Value {
    json!({"cpu": "128", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": GPUS.to_string()})
}

fn node(number: u32, amounts: &Value, labels: Vec<(String, String)>) -> Node {
    let name = format!("node-{number}");
    let mut node = json!({
        "metadata": {
            "name": name, "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "type": "kwok"},
        },
        "status": {"capacity": amounts, "allocatable": amounts},
    });
    for (key, value) in labels {
        node["metadata"]["labels"][key] = Value::String(value);
    }
    serde_json::from_value(node).unwrap_or_default()
}
