//! What the kubelet says that it gave away: its `PodResources` API v1 over a unix socket, asked every few seconds.
//!
//! The socket may be missing, slow, or speak something else. Each answer is bounded in time and size; a failure is said
//! once, counted by category, and tried again with back-off, and the last good answer stands for [`STALE`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::{Container, Grant};

#[expect(clippy::pedantic, clippy::allow_attributes, reason = "generated code")]
pub mod wire {
    //! The kubelet's own words.
    tonic::include_proto!("v1");
}

use wire::pod_resources_lister_client::PodResourcesListerClient;

/// A kubelet answers from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Far more than a node's pods; above it the answer is nonsense.
const LARGEST_ANSWER: usize = 16 << 20;
/// The first pause after a failure; it doubles up to the last.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
pub const LAST_PAUSE: Duration = Duration::from_mins(1);
/// Without a good answer for so long, nothing is known of pods.
pub const STALE: Duration = Duration::from_mins(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("connect to {path}: {source}; mount the kubelet's pod-resources folder, or name the socket with --pod-resources")]
    Connect {
        path: PathBuf,
        #[source]
        source: tonic::transport::Error,
    },
    /// Too slow.
    #[error("no answer from {path} within {ANSWER_WITHIN:?}")]
    Slow { path: PathBuf },
    /// It answers, but not so.
    #[error("{path} does not speak PodResources v1: {source}")]
    Answer {
        path: PathBuf,
        #[source]
        source: Box<tonic::Status>,
    },
}

impl Error {
    /// Bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Slow { .. } => "slow",
            Self::Answer { .. } => "answer",
        }
    }
}

/// Every category, so that each is counted from zero.
pub const CATEGORIES: [&str; 3] = ["connect", "slow", "answer"];

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// By device id, without the number of a time slice.
    pub grants: BTreeMap<String, Vec<Grant>>,
    /// Devices that their plugin calls healthy; absent when the kubelet does not say.
    pub allocatable: Option<BTreeSet<String>>,
}

/// Asks once.
pub async fn ask(socket: &Path) -> Result<Answer, Error> {
    let asked = tokio::time::timeout(ANSWER_WITHIN, exchange(socket)).await;
    asked.unwrap_or_else(|_| Err(Error::Slow { path: socket.to_owned() }))
}

async fn exchange(socket: &Path) -> Result<Answer, Error> {
    let channel = connect(socket).await.map_err(|source| Error::Connect { path: socket.to_owned(), source })?;
    let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(LARGEST_ANSWER);
    let list = client.list(wire::ListPodResourcesRequest {}).await;
    let list = list.map_err(|status| Error::Answer { path: socket.to_owned(), source: Box::new(status) })?.into_inner();
    // Older kubelets do not have it, and attribution does not need it.
    let allocatable = client.get_allocatable_resources(wire::AllocatableResourcesRequest {}).await.ok();
    Ok(Answer { grants: grants(list), allocatable: allocatable.map(|answer| devices(answer.into_inner())) })
}

async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = socket.to_owned();
    // The address is not used: the connector below opens the socket.
    let endpoint = Endpoint::from_static("http://kubelet").connect_timeout(ANSWER_WITHIN);
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await
}

/// GPUs by who holds them; other devices (network cards, CPUs) are left out by their names not matching any GPU later.
fn grants(list: wire::ListPodResourcesResponse) -> BTreeMap<String, Vec<Grant>> {
    let mut found: BTreeMap<String, Vec<Grant>> = BTreeMap::new();
    for pod in list.pod_resources {
        for container in pod.containers {
            let to = Container { namespace: pod.namespace.clone(), pod: pod.name.clone(), container: container.name };
            for id in container.devices.into_iter().flat_map(|devices| devices.device_ids) {
                found.entry(whole(&id).to_owned()).or_default().push(Grant { to: to.clone(), claim: None });
            }
            for claim in container.dynamic_resources {
                let name = format!("{}/{}", claim.claim_namespace, claim.claim_name);
                let ids: BTreeSet<String> = claim.claim_resources.into_iter().flat_map(claimed).collect();
                for id in ids {
                    found.entry(id).or_default().push(Grant { to: to.clone(), claim: Some(name.clone()) });
                }
            }
        }
    }
    found
}

fn claimed(resource: wire::ClaimResource) -> Vec<String> {
    let cdi = resource.cdi_devices.into_iter().map(|device| device.name);
    if resource.device_name.is_empty() { cdi.collect() } else { vec![resource.device_name] }
}

fn devices(answer: wire::AllocatableResourcesResponse) -> BTreeSet<String> {
    answer.devices.into_iter().flat_map(|devices| devices.device_ids).map(|id| whole(&id).to_owned()).collect()
}

/// `UUID::3` is the fourth time slice of a device.
fn whole(id: &str) -> &str {
    id.split_once("::").map_or(id, |(whole, _)| whole)
}
