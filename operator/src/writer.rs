//! Writes to the API server: so many at a time, each tried until it is answered, none once this process may not act any more.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, EvictParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::facts::volume::SELECTED_NODE;
use crate::index::{Failure, Write};
use crate::lease::{Fence, REQUEST_WITHIN};
use crate::metrics::Metrics;

/// Requests in flight: the API server's own limits stand above that, and each takes some milliseconds.
const AT_ONCE: usize = 64;
/// Pauses after a request that was not answered, or refused for now.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// How often a process that may not act looks whether it may again.
const FENCED_PAUSE: Duration = Duration::from_millis(200);

/// What became of a write.
pub type Written = (Write, Result<(), Failure>);

/// See the module.
pub struct Writer {
    client: Client,
    fence: Fence,
    metrics: Metrics,
    /// What somebody waits for, and what only informs.
    urgent: VecDeque<Write>,
    later: VecDeque<Write>,
    running: JoinSet<Written>,
}

impl Writer {
    pub fn new(client: Client, fence: Fence, metrics: Metrics) -> Self {
        Self { client, fence, metrics, urgent: VecDeque::new(), later: VecDeque::new(), running: JoinSet::new() }
    }

    /// Queues a write.
    pub fn push(&mut self, write: Write) {
        match write {
            Write::Refuse { .. } => self.later.push_back(write),
            Write::Bind { .. } | Write::Evict { .. } | Write::SelectNode { .. } => self.urgent.push_back(write),
        }
        self.fill();
    }

    /// The next write that is done; waits for ever while there is none.
    pub async fn next(&mut self) -> Written {
        loop {
            match self.running.join_next().await {
                Some(Ok(written)) => {
                    self.fill();
                    return written;
                }
                Some(Err(error)) => tracing::error!(%error, "a write broke off"),
                None => std::future::pending().await,
            }
        }
    }

    /// Writes that are not done.
    pub fn open(&self) -> usize {
        self.urgent.len() + self.later.len() + self.running.len()
    }

    /// Begins no more, and waits for those under way.
    pub async fn finish(&mut self) {
        (self.urgent, self.later) = (VecDeque::new(), VecDeque::new());
        drop(timeout(REQUEST_WITHIN, async { while self.running.join_next().await.is_some() {} }).await);
        self.running.shutdown().await;
    }

    fn fill(&mut self) {
        while self.running.len() < AT_ONCE {
            let Some(write) = self.urgent.pop_front().or_else(|| self.later.pop_front()) else { return };
            self.running.spawn(insist(self.client.clone(), self.fence.clone(), self.metrics.clone(), write));
        }
    }
}

/// Tries until there is an answer that stands.
async fn insist(client: Client, fence: Fence, metrics: Metrics, write: Write) -> Written {
    let pods: Api<Pod> = Api::namespaced(client.clone(), write.pod().namespace());
    let mut pause = FIRST_PAUSE;
    loop {
        if !fence.allows() {
            sleep(FENCED_PAUSE).await;
            continue;
        }
        let answer = timeout(REQUEST_WITHIN, carry_out(&client, &pods, &write)).await;
        match answer.map_err(|_| None).and_then(|answer| answer.map_err(Some)) {
            Ok(()) => {
                metrics.wrote(&write, "done");
                return (write, Ok(()));
            }
            Err(error) => {
                if let Some(failure) = error.as_ref().and_then(lasting) {
                    metrics.wrote(&write, word(&failure));
                    tracing::info!(write = write.word(), pod = %write.pod(), ?failure, "not done");
                    return (write, Err(failure));
                }
                metrics.wrote(&write, "again");
                let error = error.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
                tracing::debug!(write = write.word(), pod = %write.pod(), error, "trying again");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn word(failure: &Failure) -> &'static str {
    match failure {
        Failure::Gone => "gone",
        Failure::Conflict => "conflict",
        Failure::Refused(_) => "refused",
    }
}

/// A failure that trying again does not mend. Too many requests (a budget that forbids an eviction too) and a server that is not
/// well are no such failures.
fn lasting(error: &kube::Error) -> Option<Failure> {
    match error {
        kube::Error::Api(status) if status.code == 404 => Some(Failure::Gone),
        kube::Error::Api(status) if status.code == 409 => Some(Failure::Conflict),
        kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 && status.code != 401 => {
            Some(Failure::Refused(status.message.clone()))
        }
        _ => None,
    }
}

async fn carry_out(client: &Client, pods: &Api<Pod>, write: &Write) -> Result<(), kube::Error> {
    match write {
        Write::Bind { pod, uid, resource_version, node } => {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding",
                "metadata": {"name": pod.name(), "namespace": pod.namespace(), "uid": uid, "resourceVersion": resource_version},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            pods.create_subresource::<_, Value>("binding", pod.name(), &PostParams::default(), &binding).await.map(drop)
        }
        Write::Evict { pod, uid, grace_seconds } => {
            let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let delete = DeleteParams { grace_period_seconds: Some(*grace_seconds), ..DeleteParams::default() }
                .preconditions(preconditions);
            pods.evict(pod.name(), &EvictParams { delete_options: Some(delete), ..EvictParams::default() }).await.map(drop)
        }
        Write::SelectNode { pod, claim, uid, resource_version, node } => {
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), pod.namespace());
            let name = claim.split_once('/').map_or(claim.as_str(), |(_, name)| name);
            let patch = json!({
                "metadata": {"uid": uid, "resourceVersion": resource_version, "annotations": {SELECTED_NODE: node}},
            });
            claims.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        }
        Write::Refuse { pod, uid, message } => {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastTransitionTime": Timestamp::now().to_string(),
            });
            let patch = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
            pods.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
        }
    }
}
