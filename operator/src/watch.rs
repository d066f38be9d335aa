//! Objects of the API server as they are seen: one watch a kind, each object read at once into the facts that are kept.
//!
//! **Promises**: a list that begins anew (a watch that expired, a server that was away) is told whole, so that what went away in
//! between is known to be gone. An object of ours that cannot be read is told as such; it stops nothing.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tidegate_api::kinds::{Pool, PoolSpec, Queue, QueueSpec, TrainingJob};
use tidegate_core::labels::Labels;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::facts::{NodeFacts, PodFacts, PodKey, TrainingFacts};
use crate::metrics::Metrics;

/// What is watched, in the order in which the first lists are told: what others rest on comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Pool,
    Queue,
    Namespace,
    Node,
    TrainingJob,
    Pod,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Pool, Self::Queue, Self::Namespace, Self::Node, Self::TrainingJob, Self::Pod];

    /// Bounded word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Queue => "queue",
            Self::Namespace => "namespace",
            Self::Node => "node",
            Self::TrainingJob => "training_job",
            Self::Pod => "pod",
        }
    }
}

/// One object.
#[derive(Clone, Debug)]
pub enum Object {
    /// What the object says, or why it cannot be read.
    Pool(String, Result<PoolSpec, String>),
    Queue(String, Result<QueueSpec, String>),
    Namespace(String, Labels),
    Node(NodeFacts),
    Training(Box<TrainingFacts>),
    Pod(Box<PodFacts>),
}

/// News of one kind.
#[derive(Clone, Debug)]
pub enum Seen {
    Is(Object),
    Gone(Kind, String),
    /// A list was told whole; these are all that there are.
    Listed(Kind, BTreeSet<String>),
}

/// Watches every kind until `shutdown`.
pub fn start(client: &Client, to: &mpsc::Sender<Seen>, metrics: &Metrics, tasks: &TaskTracker, shutdown: &CancellationToken) {
    let watch = Watch { to: to.clone(), metrics: metrics.clone() };
    let (all, quit) = (client.clone(), shutdown.clone());
    let ours = |resource: ApiResource| Api::<DynamicObject>::all_with(client.clone(), &resource);
    let pools = watch.clone().run(ours(ApiResource::erase::<Pool>(&())), Kind::Pool, |object: DynamicObject| {
        Object::Pool(object.name_any(), spec(&object))
    });
    let queues = watch.clone().run(ours(ApiResource::erase::<Queue>(&())), Kind::Queue, |object: DynamicObject| {
        Object::Queue(object.name_any(), spec(&object))
    });
    let namespaces = watch.clone().run(Api::<Namespace>::all(all.clone()), Kind::Namespace, |object: Namespace| {
        Object::Namespace(object.name_any(), object.metadata.labels.unwrap_or_default())
    });
    let nodes = watch.clone().run(Api::<Node>::all(all.clone()), Kind::Node, |object: Node| Object::Node(NodeFacts::of(&object)));
    let trainings =
        watch.clone().run(ours(ApiResource::erase::<TrainingJob>(&())), Kind::TrainingJob, |object: DynamicObject| {
            Object::Training(Box::new(TrainingFacts::of(&object)))
        });
    let pods = watch.run(Api::<Pod>::all(all), Kind::Pod, |object: Pod| Object::Pod(Box::new(PodFacts::of(&object))));
    tasks.spawn(quit.clone().run_until_cancelled_owned(pools));
    tasks.spawn(quit.clone().run_until_cancelled_owned(queues));
    tasks.spawn(quit.clone().run_until_cancelled_owned(namespaces));
    tasks.spawn(quit.clone().run_until_cancelled_owned(nodes));
    tasks.spawn(quit.clone().run_until_cancelled_owned(trainings));
    tasks.spawn(quit.run_until_cancelled_owned(pods));
}

/// The specification of an object of ours.
fn spec<S: DeserializeOwned>(object: &DynamicObject) -> Result<S, String> {
    let spec = object.data.get("spec").cloned().unwrap_or_else(|| serde_json::json!({}));
    serde_json::from_value(spec).map_err(|e| format!("spec: {e}"))
}

#[derive(Clone)]
struct Watch {
    to: mpsc::Sender<Seen>,
    metrics: Metrics,
}

impl Watch {
    async fn run<K>(self, api: Api<K>, kind: Kind, read: fn(K) -> Object)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let mut listed = BTreeSet::new();
        let mut failing = false;
        let mut stream = pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = stream.next().await {
            let seen = match event {
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    continue;
                }
                Ok(watcher::Event::InitApply(object)) => {
                    listed.insert(key(&object));
                    Seen::Is(read(object))
                }
                Ok(watcher::Event::InitDone) => {
                    failing = false;
                    Seen::Listed(kind, std::mem::take(&mut listed))
                }
                Ok(watcher::Event::Apply(object)) => Seen::Is(read(object)),
                Ok(watcher::Event::Delete(object)) => Seen::Gone(kind, key(&object)),
                Err(error) => {
                    self.metrics.watch_failed(kind);
                    if !failing {
                        tracing::warn!(kind = kind.word(), error = told(&error), "a watch was broken off; it begins anew");
                    }
                    failing = true;
                    continue;
                }
            };
            if self.to.send(seen).await.is_err() {
                return;
            }
        }
    }
}

/// What a watch says, with the remedy where there is one.
fn told(error: &watcher::Error) -> String {
    let missing = |e: &kube::Error| matches!(e, kube::Error::Api(status) if status.code == 404);
    match error {
        watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e) if missing(e) => {
            "the cluster does not know this kind: apply what `tidegate crd` prints".to_owned()
        }
        other => other.to_string(),
    }
}

/// As [`PodKey`] for what has a namespace, else the name.
fn key<K: Resource>(object: &K) -> String {
    object.namespace().map_or_else(|| object.name_any(), |namespace| PodKey::new(&namespace, &object.name_any()).to_string())
}
