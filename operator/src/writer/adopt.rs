//! A change of an object that is not ours: read, changed, and put back, if it is still what was seen. What nobody here knows of it
//! stays as it is.

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::{Value, json};

use crate::facts::PodKey;
use crate::facts::adopted::Change;
use crate::facts::adoption::Adoption;

/// Carries out a change. Of an object that is so already nothing is asked: the answer to a request before was lost.
pub(super) async fn adopt(
    client: &Client,
    object: &PodKey,
    adoption: &Adoption,
    (uid, version): (&str, &str),
    change: &Change,
) -> Result<(), kube::Error> {
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), object.namespace(), &adoption.resource);
    let found = serde_json::to_value(objects.get(object.name()).await?).map_err(kube::Error::SerdeError)?;
    if found.pointer("/metadata/uid").and_then(Value::as_str) != Some(uid) {
        return Err(refusal(404, "another object has that name"));
    }
    let mut wanted = found.clone();
    change.carry_out(adoption, &mut wanted).map_err(|why| refusal(422, &why))?;
    if wanted == found {
        return Ok(());
    }
    if found.pointer("/metadata/resourceVersion").and_then(Value::as_str) != Some(version) {
        return Err(refusal(409, "the object has changed"));
    }
    if adoption.is_job() && change.is_of_templates() && found.pointer("/status/startTime").is_some_and(|time| !time.is_null()) {
        // The API server lets the template of a suspended Job be changed only if it has never started, as Kueue knows too.
        let patch = json!({"metadata": {"uid": uid, "resourceVersion": version}, "status": {"startTime": null}});
        let now = objects.patch_status(object.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(now.metadata.resource_version));
        }
    }
    let wanted: DynamicObject = serde_json::from_value(wanted).map_err(kube::Error::SerdeError)?;
    objects.replace(object.name(), &PostParams::default(), &wanted).await.map(drop)
}

/// As the API server would say it.
fn refusal(code: u16, why: &str) -> kube::Error {
    kube::Error::Api(Status { code, ..Status::failure(why, "") }.boxed())
}
