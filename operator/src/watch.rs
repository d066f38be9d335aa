//! Objects of the API server as they are seen: one watch a kind, each object read at once into the facts that are kept.
//!
//! **Promises**: a list that begins anew (a watch that expired, a server that was away) is told whole, so that what went away in
//! between is known to be gone. When the watch of what pods are placed on breaks off, that is told, and it is listed anew: pods of today
//! are not placed on the nodes of yesterday. An object of ours that cannot be read is told as such; it stops nothing.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tidegate_api::kinds::{Model, Pool, PoolSpec, PoolStatus, Queue, QueueSpec, QueueStatus, TrainingJob};
use tidegate_core::labels::Labels;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::facts::adoption::Adoption;
use crate::facts::device::SliceFacts;
use crate::facts::device_claim::{DeviceClaimFacts, DeviceClassFacts};
use crate::facts::group::GroupFacts;
use crate::facts::priority::{LocalQueueFacts, PriorityFacts};
use crate::facts::volume::{ClaimFacts, ClassFacts, VolumeFacts};
use crate::facts::{
    AdoptedFacts, Adoptions, Beside, BesideKind, DeviceKind, DeviceObject, ModelFacts, NodeFacts, PodFacts, PodKey, TrainingFacts,
};
use crate::index::Listed;
use crate::metrics::Metrics;

/// How often it is asked whether the cluster has by now what it did not have, and the pause after no answer, which doubles.
const SERVED_AGAIN: Duration = Duration::from_mins(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Versions of Kueue's kinds, the one that is read if there are several first.
const KUEUE_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];

/// Pods in one answer to a list.
const PAGE: u32 = 500;

/// What is watched, in the order in which the first lists are told: what others rest on comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Pool,
    Queue,
    Namespace,
    Node,
    Beside(BesideKind),
    Device(DeviceKind),
    /// Of objects that wait suspended, by `KIND.GROUP`.
    Adopted(&'static str),
    TrainingJob,
    Model,
    Pod,
}

impl Kind {
    /// Of every cluster.
    const ALL: [Self; 15] = [
        Self::Pool,
        Self::Queue,
        Self::Namespace,
        Self::Node,
        Self::Beside(BesideKind::Group),
        Self::Beside(BesideKind::Class),
        Self::Beside(BesideKind::Volume),
        Self::Beside(BesideKind::Claim),
        Self::Device(DeviceKind::Class),
        Self::Device(DeviceKind::Slice),
        Self::Device(DeviceKind::Claim),
        Self::Beside(BesideKind::Priority),
        Self::TrainingJob,
        Self::Model,
        Self::Pod,
    ];

    /// All that are watched.
    pub fn all(adoptions: &'static Adoptions) -> BTreeSet<Self> {
        let adopted = adoptions.kinds.iter().map(|kind| Self::Adopted(&kind.name));
        let kueue = [BesideKind::LocalQueue, BesideKind::KueuePriority].into_iter().filter(|_| adoptions.kueue);
        Self::ALL.into_iter().chain(adopted).chain(kueue.map(Self::Beside)).collect()
    }

    /// Whether pods are placed on such: on one that is gone they would be lost.
    fn is_ground(self) -> bool {
        matches!(self, Self::Node | Self::Device(DeviceKind::Slice))
    }

    /// Bounded word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Queue => "queue",
            Self::Namespace => "namespace",
            Self::Node => "node",
            Self::Beside(kind) => kind.word(),
            Self::Device(kind) => kind.word(),
            Self::Adopted(_) => "adopted",
            Self::TrainingJob => "training_job",
            Self::Model => "model",
            Self::Pod => "pod",
        }
    }
}

/// One object.
#[derive(Clone, Debug)]
pub enum Object {
    /// What the object says, or why it cannot be read.
    Pool(Box<Told<PoolSpec, PoolStatus>>),
    Queue(Box<Told<QueueSpec, QueueStatus>>),
    Namespace(String, Labels),
    Node(NodeFacts),
    Beside(Beside),
    Device(DeviceObject),
    Adopted(Box<AdoptedFacts>),
    Training(Box<TrainingFacts>),
    Model(Box<ModelFacts>),
    Pod(Box<PodFacts>),
}

/// News of one kind.
#[derive(Clone, Debug)]
pub enum Seen {
    Is(Object),
    Gone(Kind, String),
    /// A list was told whole; these are all that there are.
    Listed(Kind, BTreeSet<String>),
    /// What is known of this kind may be old until it is listed anew.
    Broken(Kind),
    /// All pods as a list that was asked for says, beside the watch.
    Checked(Vec<Listed>),
}

/// Watches every kind until `shutdown`.
pub fn start(
    client: &Client,
    adoptions: &'static Adoptions,
    to: &mpsc::Sender<Seen>,
    metrics: &Metrics,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let watch = Watch { to: to.clone(), metrics: metrics.clone(), tasks: tasks.clone(), quit: shutdown.clone() };
    let all = || client.clone();
    let ours = |resource: ApiResource| Api::<DynamicObject>::all_with(all(), &resource);
    watch.begin(ours(ApiResource::erase::<Pool>(&())), Kind::Pool, |object| Object::Pool(Box::new(told_of(&object))));
    watch.begin(ours(ApiResource::erase::<Queue>(&())), Kind::Queue, |object| Object::Queue(Box::new(told_of(&object))));
    watch.begin(Api::<Namespace>::all(all()), Kind::Namespace, |object| {
        Object::Namespace(object.name_any(), object.metadata.labels.unwrap_or_default())
    });
    watch.begin(Api::<Node>::all(all()), Kind::Node, |object| Object::Node(NodeFacts::of(&object)));
    watch.begin_once_served(client, Kind::Beside(BesideKind::Group), |object: PodGroup| {
        Object::Beside(Beside::Group(GroupFacts::of(&object)))
    });
    watch.begin(Api::<StorageClass>::all(all()), Kind::Beside(BesideKind::Class), |object| {
        Object::Beside(Beside::Class(ClassFacts::of(&object)))
    });
    watch.begin(Api::<PersistentVolume>::all(all()), Kind::Beside(BesideKind::Volume), |object| {
        Object::Beside(Beside::Volume(VolumeFacts::of(&object)))
    });
    watch.begin(Api::<PersistentVolumeClaim>::all(all()), Kind::Beside(BesideKind::Claim), |object| {
        Object::Beside(Beside::Claim(ClaimFacts::of(&object)))
    });
    watch.begin_once_served(client, Kind::Device(DeviceKind::Class), |object: DeviceClass| {
        Object::Device(DeviceObject::Class(DeviceClassFacts::of(&object)))
    });
    watch.begin_once_served(client, Kind::Device(DeviceKind::Slice), |object: ResourceSlice| {
        Object::Device(DeviceObject::Slice(SliceFacts::of(&object)))
    });
    watch.begin_once_served(client, Kind::Device(DeviceKind::Claim), |object: ResourceClaim| {
        Object::Device(DeviceObject::Claim(Box::new(DeviceClaimFacts::of(&object))))
    });
    watch.begin(Api::<PriorityClass>::all(all()), Kind::Beside(BesideKind::Priority), |object| {
        Object::Beside(Beside::Priority(PriorityFacts::of(&object)))
    });
    for kind in &adoptions.kinds {
        watch.begin_once_one_is_served(client, vec![kind.resource.clone()], Kind::Adopted(&kind.name), adopted(kind, adoptions));
    }
    if adoptions.kueue {
        watch.begin_once_one_is_served(client, kueue("LocalQueue"), Kind::Beside(BesideKind::LocalQueue), |object| {
            Object::Beside(Beside::LocalQueue(LocalQueueFacts::of(&object)))
        });
        let kind = Kind::Beside(BesideKind::KueuePriority);
        watch.begin_once_one_is_served(client, kueue("WorkloadPriorityClass"), kind, |object| {
            Object::Beside(Beside::KueuePriority(PriorityFacts::of_kueue(&object)))
        });
    }
    watch.begin(ours(ApiResource::erase::<TrainingJob>(&())), Kind::TrainingJob, |object| {
        Object::Training(Box::new(TrainingFacts::of(&object)))
    });
    watch.begin(ours(ApiResource::erase::<Model>(&())), Kind::Model, |object| Object::Model(Box::new(ModelFacts::of(&object))));
    watch.begin(Api::<Pod>::all(all()), Kind::Pod, |object| Object::Pod(Box::new(PodFacts::of(&object))));
}

fn adopted(kind: &'static Adoption, all: &'static Adoptions) -> impl Fn(DynamicObject) -> Object + Send + 'static {
    move |object| Object::Adopted(Box::new(AdoptedFacts::of(&object, kind, all)))
}

/// A kind of Kueue's in all versions that are known.
fn kueue(kind: &str) -> Vec<ApiResource> {
    let of = |version| ApiResource::from_gvk(&GroupVersionKind::gvk("kueue.x-k8s.io", version, kind));
    KUEUE_VERSIONS.into_iter().map(of).collect()
}

/// Lists all pods now and then, for [`Seen::Checked`].
pub async fn check(client: Client, to: mpsc::Sender<Seen>, every: Duration) {
    let pods: Api<Pod> = Api::all(client);
    loop {
        sleep(every).await;
        let mut all = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        let whole = loop {
            match pods.list(&page).await {
                Ok(list) => {
                    all.extend(list.items.iter().map(|pod| Listed::from(&PodFacts::of(pod))));
                    match list.metadata.continue_.filter(|token| !token.is_empty()) {
                        Some(token) => page = page.continue_token(&token),
                        None => break true,
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "pods cannot be listed; later again");
                    break false;
                }
            }
        };
        if whole && to.send(Seen::Checked(all)).await.is_err() {
            return;
        }
    }
}

/// An object of ours that stands above namespaces.
#[derive(Clone, Debug)]
pub struct Told<S, T> {
    pub name: String,
    pub uid: String,
    pub generation: i64,
    /// Or why it cannot be read.
    pub spec: Result<S, String>,
    /// What was last written of it.
    pub status: T,
}

fn told_of<S: DeserializeOwned, T: DeserializeOwned + Default>(object: &DynamicObject) -> Told<S, T> {
    let spec = object.data.get("spec").cloned().unwrap_or_else(|| serde_json::json!({}));
    let status = object.data.get("status").cloned().unwrap_or_default();
    Told {
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        spec: serde_json::from_value(spec).map_err(|e| format!("spec: {e}")),
        status: serde_json::from_value(status).unwrap_or_default(),
    }
}

#[derive(Clone)]
struct Watch {
    to: mpsc::Sender<Seen>,
    metrics: Metrics,
    tasks: TaskTracker,
    quit: CancellationToken,
}

impl Watch {
    fn begin<K>(&self, api: Api<K>, kind: Kind, read: impl Fn(K) -> Object + Send + 'static)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let run = self.clone().run(api, kind, read);
        self.tasks.spawn(self.quit.clone().run_until_cancelled_owned(run));
    }

    /// Of a kind that not every cluster has: while it is not served there are none of it.
    fn begin_once_served<K>(&self, client: &Client, kind: Kind, read: impl Fn(K) -> Object + Send + 'static)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        self.begin_once(client, vec![ApiResource::erase::<K>(&())], kind, |client, _| Api::<K>::all(client), read);
    }

    /// Of a kind that not every cluster has, and that has several versions: the first that is served is read.
    fn begin_once_one_is_served(
        &self,
        client: &Client,
        choices: Vec<ApiResource>,
        kind: Kind,
        read: impl Fn(DynamicObject) -> Object + Send + 'static,
    ) {
        self.begin_once(client, choices, kind, Api::all_with, read);
    }

    fn begin_once<K>(
        &self,
        client: &Client,
        choices: Vec<ApiResource>,
        kind: Kind,
        api: fn(Client, &ApiResource) -> Api<K>,
        read: impl Fn(K) -> Object + Send + 'static,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (watch, client) = (self.clone(), client.clone());
        let run = async move {
            let found = loop {
                if let Some(found) = served(&client, &choices, kind).await {
                    break found;
                }
                if watch.to.send(Seen::Listed(kind, BTreeSet::new())).await.is_err() {
                    return;
                }
                sleep(SERVED_AGAIN).await;
            };
            watch.run(api(client, found), kind, read).await;
        };
        self.tasks.spawn(self.quit.clone().run_until_cancelled_owned(run));
    }

    async fn run<K>(self, api: Api<K>, kind: Kind, read: impl Fn(K) -> Object + Send)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let mut failing = false;
        'anew: loop {
            let mut listed = BTreeSet::new();
            let mut whole = false;
            let mut stream = pin!(watcher(api.clone(), watcher::Config::default()).default_backoff());
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
                        (failing, whole) = (false, true);
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
                        if whole && kind.is_ground() {
                            // A watch that goes on does not say when it does; a list does.
                            if self.to.send(Seen::Broken(kind)).await.is_err() {
                                return;
                            }
                            continue 'anew;
                        }
                        continue;
                    }
                };
                if self.to.send(seen).await.is_err() {
                    return;
                }
            }
            return;
        }
    }
}

/// The first of these that the cluster has.
async fn served<'a>(client: &Client, choices: &'a [ApiResource], kind: Kind) -> Option<&'a ApiResource> {
    for choice in choices {
        if is_served(client, choice, kind).await {
            return Some(choice);
        }
    }
    None
}

/// Whether the cluster has a kind, as soon as it says so.
async fn is_served(client: &Client, resource: &ApiResource, kind: Kind) -> bool {
    let mut pause = FIRST_PAUSE;
    loop {
        match client.list_api_group_resources(&resource.api_version).await {
            Ok(list) => return list.resources.iter().any(|found| found.name == resource.plural),
            Err(kube::Error::Api(status)) if status.code == 404 => return false,
            Err(error) => {
                tracing::warn!(kind = kind.word(), %error, "it is not known whether the cluster has this kind; it is asked again");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(SERVED_AGAIN);
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
