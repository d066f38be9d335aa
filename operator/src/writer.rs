//! Writes to the API server: so many at a time, each tried until it is answered, none once this process may not act any more.

mod adopt;
mod claims;

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, EvictParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use tidegate_api::kinds::{GROUP, Model, Pool, Queue, TrainingJob, VERSION, cut};
use tidegate_api::labels;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::facts::PodKey;
use crate::facts::seat::HOSTNAME;
use crate::facts::volume::SELECTED_NODE;
use crate::index::{Failure, Note, Ours, Write};
use crate::lease::{Fence, REQUEST_WITHIN};
use crate::metrics::Metrics;
use adopt::adopt;

/// Requests in flight: the API server's own limits stand above that, and each takes some milliseconds.
const AT_ONCE: usize = 64;
/// Pauses after a request that was not answered, or refused for now.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// The API server's bound on the text of an event, in bytes.
const MAX_NOTE: usize = 1024;
/// Bytes of an answer that are kept: it may hold all of an object that was refused.
const MAX_ANSWER: usize = 4096;
/// Of an object's name in an event's: that has room for no more than 253 characters with what makes it its own.
const MAX_NAME: usize = 200;
/// Requests that only inform and wait: more events are dropped.
const MOST_LATER: usize = 20_000;
/// How often a process that may not act looks whether it may again.
const FENCED_PAUSE: Duration = Duration::from_millis(200);

/// What became of a write.
pub type Written = (Write, Result<(), Failure>);

/// See the module.
pub struct Writer {
    client: Client,
    fence: Fence,
    metrics: Metrics,
    abort_after: Option<u64>,
    /// What somebody waits for, and what only informs.
    urgent: VecDeque<Write>,
    later: VecDeque<Write>,
    running: JoinSet<Written>,
}

impl Writer {
    /// `abort_after`: see [`crate::Args`].
    pub fn new(client: Client, fence: Fence, metrics: Metrics, abort_after: Option<u64>) -> Self {
        Self { client, fence, metrics, abort_after, urgent: VecDeque::new(), later: VecDeque::new(), running: JoinSet::new() }
    }

    /// Queues a write.
    pub fn push(&mut self, write: Write) {
        // Nobody waits for these, and a server that is away for long does not fill the memory.
        if matches!(write, Write::Note { .. }) && self.later.len() >= MOST_LATER {
            self.metrics.wrote(&write, "dropped");
            return;
        }
        if write.informs() {
            self.later.push_back(write);
        } else if write.makes_room() {
            self.urgent.push_front(write);
        } else {
            self.urgent.push_back(write);
        }
        self.fill();
    }

    /// The next write that is done; waits for ever while there is none.
    pub async fn next(&mut self) -> Written {
        loop {
            match self.running.join_next().await {
                Some(Ok(written)) => {
                    self.count_down(&written);
                    self.fill();
                    return written;
                }
                Some(Err(error)) => tracing::error!(%error, "a write broke off"),
                None => std::future::pending().await,
            }
        }
    }

    fn count_down(&mut self, (write, result): &Written) {
        let Some(left) = self.abort_after.as_mut().filter(|_| result.is_ok() && !write.informs()) else { return };
        *left = left.saturating_sub(1);
        if *left == 0 {
            tracing::error!("aborting, as --abort-after says");
            std::process::abort();
        }
    }

    /// Writes that are not done.
    pub fn open(&self) -> usize {
        self.urgent.len() + self.later.len() + self.running.len()
    }

    /// Writes that somebody waits for and that have not begun.
    pub fn waiting(&self) -> usize {
        self.urgent.len()
    }

    /// Begins no more, and waits for those under way.
    pub async fn finish(&mut self) {
        (self.urgent, self.later) = (VecDeque::new(), VecDeque::new());
        drop(timeout(REQUEST_WITHIN, async { while self.running.join_next().await.is_some() {} }).await);
        self.running.shutdown().await;
    }

    fn fill(&mut self) {
        // Where the process is to end in the middle, one request comes after the other.
        let at_once = if self.abort_after.is_some() { 1 } else { AT_ONCE };
        while self.running.len() < at_once {
            let Some(write) = self.urgent.pop_front().or_else(|| self.later.pop_front()) else { return };
            self.running.spawn(insist(self.client.clone(), self.fence.clone(), self.metrics.clone(), write));
        }
    }
}

/// Tries until there is an answer that stands.
async fn insist(client: Client, fence: Fence, metrics: Metrics, write: Write) -> Written {
    let mut pause = FIRST_PAUSE;
    loop {
        if !fence.allows() {
            sleep(FENCED_PAUSE).await;
            continue;
        }
        let answer = timeout(REQUEST_WITHIN, carry_out(&client, &write)).await;
        match answer.map_err(|_| None).and_then(|answer| answer.map_err(Some)) {
            Ok(()) => {
                metrics.wrote(&write, "done");
                return (write, Ok(()));
            }
            Err(error) => {
                if let Some(failure) = error.as_ref().and_then(lasting) {
                    metrics.wrote(&write, word(&failure));
                    tracing::info!(write = write.word(), object = %write.subject(), ?failure, "not done");
                    return (write, Err(failure));
                }
                metrics.wrote(&write, "again");
                let error = error.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
                tracing::debug!(write = write.word(), object = %write.subject(), error, "trying again");
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
            Some(refused(&status.message))
        }
        // What etcd does not take, as an object is near its bound: the API server calls that a failure of its own.
        kube::Error::Api(status) if status.message.contains("request is too large") => Some(refused(&status.message)),
        _ => None,
    }
}

fn refused(message: &str) -> Failure {
    Failure::Refused(cut(message, MAX_ANSWER).to_owned())
}

fn event(object: &PodKey, note: &Note) -> Event {
    // Kinds of others are said with their group and version.
    let (api_version, kind) = match note.kind.rsplit_once('/') {
        Some((api_version, kind)) => (api_version.to_owned(), kind),
        None if note.kind == "Pod" => ("v1".to_owned(), note.kind),
        None => (format!("{GROUP}/{VERSION}"), note.kind),
    };
    Event {
        metadata: ObjectMeta {
            // A part of a name between dots does not begin with `-`.
            generate_name: Some(format!("{}-", cut(object.name(), MAX_NAME).trim_end_matches('.'))),
            namespace: Some(object.namespace().to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        reporting_controller: Some("tidegate.dev/operator".to_owned()),
        reporting_instance: Some("tidegate-operator".to_owned()),
        action: Some(note.action.to_owned()),
        reason: Some(note.reason.to_owned()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        note: Some(cut(&note.text, MAX_NOTE).to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind.to_owned()),
            namespace: Some(object.namespace().to_owned()),
            name: Some(object.name().to_owned()),
            uid: Some(note.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// What a request that was sent twice made is there: its name is its own.
fn made<T>(answer: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => Ok(()),
        answer => answer.map(drop),
    }
}

async fn carry_out(client: &Client, write: &Write) -> Result<(), kube::Error> {
    let namespace = write.subject().namespace();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    match write {
        Write::MakePod { manifest, .. } => made(pods.create(&PostParams::default(), manifest).await),
        Write::MakeService { manifest, .. } => {
            made(Api::<Service>::namespaced(client.clone(), namespace).create(&PostParams::default(), manifest).await)
        }
        Write::MakeClaimTemplate { manifest, .. } => {
            let templates: Api<ResourceClaimTemplate> = Api::namespaced(client.clone(), namespace);
            made(templates.create(&PostParams::default(), manifest).await)
        }
        Write::EndPod { pod, uid, now } => {
            let preconditions = uid.clone().map(|uid| Preconditions { uid: Some(uid), resource_version: None });
            let grace_period_seconds = now.then_some(0);
            let delete = DeleteParams { grace_period_seconds, preconditions, ..DeleteParams::default() };
            pods.delete(pod.name(), &delete).await.map(drop)
        }
        Write::Note { object, note } => {
            let events: Api<Event> = Api::namespaced(client.clone(), namespace);
            events.create(&PostParams::default(), &event(object, note)).await.map(drop)
        }
        Write::Status { kind, object, uid, status } => {
            let resource = match kind {
                Ours::Pool => ApiResource::erase::<Pool>(&()),
                Ours::Queue => ApiResource::erase::<Queue>(&()),
                Ours::TrainingJob => ApiResource::erase::<TrainingJob>(&()),
                Ours::Model => ApiResource::erase::<Model>(&()),
            };
            let objects: Api<DynamicObject> = match namespace {
                "" => Api::all_with(client.clone(), &resource),
                namespace => Api::namespaced_with(client.clone(), namespace, &resource),
            };
            let patch = json!({"metadata": {"uid": uid}, "status": status});
            objects.patch_status(object.name(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        }
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
        Write::Allocate { pod, pod_uid, claim, uid, resource_version, allocation } => {
            let given = claims::Given { pod, pod_uid, allocation };
            claims::allocate(client, claim, (uid, resource_version), &given).await
        }
        Write::Free { claim, uid, resource_version, allocated } => {
            claims::free(client, claim, (uid, resource_version), *allocated).await
        }
        Write::Adopt { object, adoption, uid, resource_version, change } => {
            adopt(client, object, adoption, (uid, resource_version), change).await
        }
        Write::Place { pod, uid, resource_version, hostname } => {
            let patch = json!({
                "metadata": {"uid": uid, "resourceVersion": resource_version},
                "spec": {
                    "nodeSelector": {HOSTNAME: hostname},
                    "schedulingGates": [{"$patch": "delete", "name": labels::SEAT_GATE}],
                },
            });
            pods.patch(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_within_the_api_servers_bounds_whatever_its_object_is_called() {
        let note = |text: &str| Note {
            kind: "Pod",
            uid: "u".to_owned(),
            warning: true,
            reason: "R",
            action: "A",
            text: text.to_owned(),
        };
        let name = format!("{}.{}", "a".repeat(MAX_NAME - 1), "b".repeat(52));
        let event = event(&PodKey::new("team", &name), &note(&"漢".repeat(1_000)));
        assert_eq!(event.metadata.generate_name.unwrap(), format!("{}-", "a".repeat(MAX_NAME - 1)));
        assert_eq!(event.note.unwrap(), "漢".repeat(MAX_NOTE / 3));
    }

    #[test]
    fn what_etcd_cannot_hold_is_not_tried_again() {
        let answer = |code: u16, message: &str| {
            let status = kube::core::Status { code, message: message.to_owned(), ..kube::core::Status::default() };
            lasting(&kube::Error::Api(status.boxed()))
        };
        assert!(matches!(answer(500, "etcdserver: request is too large"), Some(Failure::Refused(_))));
        assert_eq!(answer(500, "etcdserver: leader changed"), None);
        let Some(Failure::Refused(long)) = answer(422, &"é".repeat(1 << 20)) else { panic!() };
        assert_eq!(long.len(), MAX_ANSWER);
    }
}
