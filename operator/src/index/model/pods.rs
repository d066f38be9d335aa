//! The pod of a replica.

use k8s_openapi::api::core::v1::{
    Pod, PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use tidegate_api::kinds::{GROUP, VERSION};
use tidegate_api::labels;
use tidegate_core::names::ReplicaId;
use tidegate_core::plan::Placed;
use tidegate_core::time::At;

use super::super::{Maker, Write};
use super::Serving;
use crate::auth::CONTROL_AUDIENCE;
use crate::facts::model::{ADMIN_PORT, PORT, WantedModel};
use crate::facts::{ModelFacts, PodFacts, PodKey};

/// Where a replica finds its token, and the volume that holds it.
const TOKEN_FOLDER: &str = "/var/run/secrets/tidegate.dev";
const TOKEN_FILE: &str = "token";
const TOKEN_VOLUME: &str = "tidegate-control-token";
/// Its kubelet writes another one when four fifths of that are over.
const TOKEN_SECONDS: i64 = 3_600;

/// What the engine ordered.
pub(super) struct Order<'a> {
    pub replica: &'a ReplicaId,
    pub place: &'a Placed,
    pub generation: u64,
    pub made_from: &'a str,
    /// Its node's GPUs are simulated.
    pub paced: bool,
    pub at: At,
}

/// What is to be made, as it will be seen and as requests. Its name holds the moment: the engine counts replicas anew after a restart.
pub(super) fn made(facts: &ModelFacts, wanted: &WantedModel, serving: &Serving, order: &Order<'_>) -> (PodFacts, Vec<Write>) {
    let number = order.replica.0.rsplit('-').next().unwrap_or_default();
    let key = PodKey::new(facts.key.namespace(), &format!("{}-{:x}-{number}", facts.key.name(), order.at.0 / 1000));
    let mut spec = wanted.pod.clone();
    if wanted.claimed.is_none() {
        spec.node_name = Some(order.place.node.to_string());
    }
    if let Some(container) = spec.containers.first_mut() {
        container.image = wanted.image().map(str::to_owned).or_else(|| serving.image.clone());
        container.command = Some(vec!["tidegate".to_owned()]);
        container.args = Some(arguments(facts, wanted, serving, order));
    }
    if serving.control_auth {
        add_token(&mut spec);
    }
    let said = [
        (labels::REPLICA, order.replica.to_string()),
        (labels::GENERATION, order.generation.to_string()),
        (labels::MADE_FROM, order.made_from.to_owned()),
    ];
    let annotations = said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let metadata_of_pod = ObjectMeta { annotations: Some(annotations), ..metadata(facts, key.name()) };
    let pod = Pod { metadata: metadata_of_pod, spec: Some(spec), ..Pod::default() };
    let seen = PodFacts::of(&pod);
    let of = Maker::Model(facts.key.clone());
    let template = wanted.claimed.as_ref().map(|claimed| Write::MakeClaimTemplate {
        template: PodKey::new(facts.key.namespace(), &claimed.template),
        of: of.clone(),
        manifest: Box::new(claimed.manifest(metadata(facts, &claimed.template))),
    });
    let pod = Write::MakePod { pod: key, of, manifest: Box::new(pod) };
    (seen, template.into_iter().chain([pod]).collect())
}

fn arguments(facts: &ModelFacts, wanted: &WantedModel, serving: &Serving, order: &Order<'_>) -> Vec<String> {
    let spec = &wanted.spec;
    let mut words = vec!["replica".to_owned()];
    let mut say = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
    say("--model", facts.key.name().to_owned());
    say("--onnx", spec.source.onnx.clone());
    say("--replica-id", order.replica.to_string());
    say("--control", serving.control_url.clone().unwrap_or_default());
    if serving.control_auth {
        say("--control-token-file", format!("{TOKEN_FOLDER}/{TOKEN_FILE}"));
    }
    say("--listen", format!("0.0.0.0:{PORT}"));
    say("--admin-listen", format!("0.0.0.0:{ADMIN_PORT}"));
    say("--max-batch-rows", spec.batching.max_rows.to_string());
    if let Some(pace) = spec.simulated_pace.as_ref().filter(|_| order.paced) {
        say("--pace-per-batch-us", pace.per_batch_micros.to_string());
        say("--pace-per-row-us", pace.per_row_micros.to_string());
    }
    words
}

/// A token of the pod's service account that is of use at the control port alone.
fn add_token(spec: &mut PodSpec) {
    // Kubernetes wants to know whose it is before it has filled in the usual one.
    spec.service_account_name.get_or_insert_with(|| "default".to_owned());
    let token = ServiceAccountTokenProjection {
        audience: Some(CONTROL_AUDIENCE.to_owned()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: TOKEN_FILE.to_owned(),
        user: None,
    };
    let source = VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() };
    spec.volumes.get_or_insert_default().push(Volume {
        name: TOKEN_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource { sources: Some(vec![source]), ..ProjectedVolumeSource::default() }),
        ..Volume::default()
    });
    if let Some(container) = spec.containers.first_mut() {
        container.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: TOKEN_VOLUME.to_owned(),
            mount_path: TOKEN_FOLDER.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}

fn metadata(facts: &ModelFacts, name: &str) -> ObjectMeta {
    let owner = OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "Model".to_owned(),
        name: facts.key.name().to_owned(),
        uid: facts.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let uid = (labels::MODEL.to_owned(), facts.uid.clone());
    let model = labels::value(facts.key.name()).map(|model| (labels::MODEL_NAME.to_owned(), model));
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(facts.key.namespace().to_owned()),
        labels: Some([uid].into_iter().chain(model).collect()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}
