//! Allocations of `ResourceClaim`s: what they say of themselves and what they are given are two requests, in the order in which
//! kube-scheduler sends them, so that an allocated claim is never without its finalizer.

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::core::Status;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tidegate_api::labels::ALLOCATED;

use crate::facts::PodKey;
use crate::facts::device_claim::FINALIZER;

/// Looks at a claim that others change meanwhile.
const LOOKS: usize = 3;

/// What a claim is given, and for whom.
pub struct Given<'a> {
    pub pod: &'a PodKey,
    pub pod_uid: &'a str,
    pub allocation: &'a Value,
}

impl Given<'_> {
    /// Whether that was done already: by a request of which the answer was lost.
    fn is_in(&self, claim: &ResourceClaim) -> bool {
        let status = claim.status.as_ref();
        let wanted: Option<AllocationResult> = serde_json::from_value(self.allocation.clone()).ok();
        let devices = |allocation: Option<&AllocationResult>| {
            let mut devices = allocation?.devices.clone()?;
            // The API server writes quantities in another form.
            devices.results.iter_mut().flatten().for_each(|result| result.consumed_capacity = None);
            Some(devices)
        };
        let reserved = status.and_then(|status| status.reserved_for.as_deref()).unwrap_or_default();
        devices(status.and_then(|status| status.allocation.as_ref())).is_some_and(|there| Some(there) == devices(wanted.as_ref()))
            && reserved.iter().any(|consumer| consumer.uid == self.pod_uid)
    }

    fn status(&self) -> Value {
        let mut allocation = self.allocation.clone();
        allocation["allocationTimestamp"] = json!(Timestamp::now().to_string());
        let consumer = json!({"resource": "pods", "name": self.pod.name(), "uid": self.pod_uid});
        json!({"allocation": allocation, "reservedFor": [consumer]})
    }
}

fn api(client: &Client, claim: &PodKey) -> Api<ResourceClaim> {
    Api::namespaced(client.clone(), claim.namespace())
}

/// Gives a claim its devices if it has none, whatever else of it has changed since it was seen.
pub async fn allocate(
    client: &Client,
    claim: &PodKey,
    (uid, version): (&str, &str),
    given: &Given<'_>,
) -> Result<(), kube::Error> {
    let claims = api(client, claim);
    let mut version = version.to_owned();
    for _ in 0..LOOKS {
        match try_to_allocate(&claims, claim.name(), (uid, &version), given).await {
            Err(error) if is_conflict(&error) => {}
            answer => return answer,
        }
        let there = claims.get(claim.name()).await?;
        if given.is_in(&there) {
            return Ok(());
        }
        let has_any = there.status.as_ref().is_some_and(|status| status.allocation.is_some());
        if has_any || there.uid().as_deref() != Some(uid) || there.metadata.deletion_timestamp.is_some() {
            break;
        }
        version = there.resource_version().unwrap_or_default();
    }
    Err(conflict())
}

async fn try_to_allocate(
    claims: &Api<ResourceClaim>,
    name: &str,
    (uid, version): (&str, &str),
    given: &Given<'_>,
) -> Result<(), kube::Error> {
    let ours = json!({"metadata": {
        "uid": uid, "resourceVersion": version, "finalizers": [FINALIZER], "annotations": {ALLOCATED: "true"},
    }});
    let seen = claims.patch(name, &PatchParams::default(), &Patch::Strategic(ours)).await?;
    let status = json!({"metadata": {"uid": uid, "resourceVersion": seen.resource_version()}, "status": given.status()});
    claims.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.map(drop)
}

/// Takes back what a claim has, and what says that it has something.
pub async fn free(client: &Client, claim: &PodKey, (uid, version): (&str, &str), allocated: bool) -> Result<(), kube::Error> {
    let claims = api(client, claim);
    let mut version = Some(version.to_owned());
    if allocated {
        let metadata = json!({"uid": uid, "resourceVersion": version});
        let nothing = json!({"metadata": metadata, "status": {"allocation": null, "reservedFor": null}});
        version = claims.patch_status(claim.name(), &PatchParams::default(), &Patch::Merge(nothing)).await?.resource_version();
    }
    let bare = json!({"metadata": {
        "uid": uid, "resourceVersion": version, "annotations": {ALLOCATED: null},
        "$deleteFromPrimitiveList/finalizers": [FINALIZER],
    }});
    match claims.patch(claim.name(), &PatchParams::default(), &Patch::Strategic(bare)).await {
        // Its devices are free, which was the point: somebody has taken the rest off, or has given it others.
        Err(kube::Error::Api(status)) if allocated && (status.code == 404 || status.code == 409) => Ok(()),
        answer => answer.map(drop),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn conflict() -> kube::Error {
    kube::Error::Api(Status::failure("it has devices already, or changes all the time", "Conflict").with_code(409).boxed())
}
