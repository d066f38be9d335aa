//! A `Model`: what it asks of the engine, and what its replicas' pods are made of.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerPort, HTTPGetAction, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::DynamicObject;
use sha2::{Digest, Sha256};
use tidegate_api::convert;
use tidegate_api::kinds::{ModelSpec, ModelStatus};
use tidegate_core::ask::Ask;
use tidegate_core::time::At;

use super::claimed::Claimed;
use super::pod::PodKey;
use super::template;

/// Where a user writes what else a replica's pod needs.
const FIELD: &str = "podSpec";
/// Longer names leave no room in the names of pods.
const MAX_NAME: usize = 200;
/// Where a replica answers, and where it says whether it is ready: in a pod of its own nothing else does.
pub const PORT: i32 = 9_000;
pub const ADMIN_PORT: i32 = 9_001;
/// What a replica gets for the requests that it has, and a moment to end.
const GRACE_SECONDS: i64 = 35;
/// Hexadecimal characters that tell what a replica was made from: 64 bits of a hash.
const MADE_FROM_CHARS: usize = 16;

/// A model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    pub key: PodKey,
    pub uid: String,
    pub generation: u64,
    pub created: At,
    /// It was deleted, and something keeps it.
    pub ending: bool,
    /// What it asks for, or why it cannot be served here as it is written.
    pub wanted: Result<Arc<WantedModel>, String>,
    /// What was last written of it.
    pub status: ModelStatus,
}

/// What a model asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedModel {
    pub spec: ModelSpec,
    pub ask: Ask,
    /// A replica's pod, but for its name, place and arguments; without an image if the user names none.
    pub pod: PodSpec,
    /// The device that a replica claims by name, if that is how it has it.
    pub claimed: Option<Claimed>,
    /// Keys of the claims of volumes that its pods use.
    pub claims: Vec<String>,
}

impl ModelFacts {
    /// What the object says.
    pub fn of(object: &DynamicObject) -> Self {
        let key = PodKey::new(&object.namespace().unwrap_or_default(), &object.name_any());
        let created = object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond());
        let spec = object.data.get("spec").cloned().unwrap_or_default();
        let wanted = serde_json::from_value(spec).map_err(|e| format!("spec: {e}"));
        let status = object.data.get("status").cloned().unwrap_or_default();
        let uid = object.uid().unwrap_or_default();
        Self {
            generation: object.metadata.generation.and_then(|number| u64::try_from(number).ok()).unwrap_or_default(),
            created: At(u64::try_from(created).unwrap_or(0)),
            ending: object.metadata.deletion_timestamp.is_some(),
            wanted: wanted.and_then(|spec| WantedModel::of(&key, &uid, spec)).map(Arc::new),
            status: serde_json::from_value(status).unwrap_or_default(),
            key,
            uid,
        }
    }
}

impl WantedModel {
    fn of(key: &PodKey, uid: &str, spec: ModelSpec) -> Result<Self, String> {
        if key.name().len() > MAX_NAME {
            return Err(format!("metadata.name: its replicas' pods are named after it; use at most {MAX_NAME} characters"));
        }
        if !spec.source.onnx.starts_with('/') {
            return Err("source.onnx: on Kubernetes give the absolute path in the replica's container".to_owned());
        }
        let base = base(&spec)?;
        let asked = convert::ask(&spec.gpu, spec.node_affinity.as_ref());
        let claimed = template::claimed(uid, spec.gpu.device_class_name.as_deref(), &asked);
        let pod = template::with_requests(&base, &asked, claimed.as_ref(), "replicas")?;
        let ask = template::ask(FIELD, &asked, claimed.as_ref(), &pod)?;
        let claims = template::claims(FIELD, key, &pod)?;
        Ok(Self { spec, ask, pod, claimed, claims })
    }

    /// What replicas are made from, in short: those that were made from something else are to be replaced.
    pub fn made_from(&self, image: Option<&str>, has_token: bool) -> String {
        let Self { spec, pod, .. } = self;
        let parts = (&spec.source, &spec.simulated_pace, spec.batching.max_rows, pod, image.filter(|_| self.image().is_none()));
        let mut text = serde_json::to_vec(&parts).unwrap_or_default();
        text.extend_from_slice(if has_token { b"token" } else { b"" });
        format!("{:x}", Sha256::digest(text)).chars().take(MADE_FROM_CHARS).collect()
    }

    /// The image that the user names.
    pub fn image(&self) -> Option<&str> {
        self.pod.containers.first()?.image.as_deref().filter(|image| !image.is_empty())
    }
}

/// A replica's pod without devices.
fn base(spec: &ModelSpec) -> Result<PodSpec, String> {
    let mut pod = template::base(FIELD, spec.pod_spec.as_ref(), "replica")?;
    let container = &mut pod.containers[0];
    if container.command.is_some() || container.args.is_some() {
        return Err(format!("{FIELD}.containers[0]: command and args are set by Tidegate; remove them"));
    }
    let port = |name: &str, port| ContainerPort { name: Some(name.to_owned()), container_port: port, ..ContainerPort::default() };
    container.ports.get_or_insert_default().extend([port("oip-grpc", PORT), port("admin", ADMIN_PORT)]);
    let ready =
        HTTPGetAction { path: Some("/readyz".to_owned()), port: IntOrString::Int(ADMIN_PORT), ..HTTPGetAction::default() };
    container.readiness_probe =
        Some(Probe { http_get: Some(ready), period_seconds: Some(1), timeout_seconds: Some(1), ..Probe::default() });
    pod.termination_grace_period_seconds = Some(GRACE_SECONDS);
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidegate_core::ask::Amount;

    use super::*;

    fn facts(change: impl FnOnce(&mut Value)) -> ModelFacts {
        let mut model = json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "Model",
            "metadata": {"namespace": "team", "name": "digits", "uid": "u", "generation": 3},
            "spec": {"queue": "a", "source": {"onnx": "/models/digits.onnx"}, "sloMilliseconds": 100},
        });
        change(&mut model);
        ModelFacts::of(&serde_json::from_value(model).unwrap())
    }

    fn problem(change: impl FnOnce(&mut Value)) -> String {
        facts(change).wanted.unwrap_err()
    }

    #[test]
    fn a_model_asks_for_what_its_pods_will_ask_for() {
        let wanted = facts(|model| {
            model["spec"]["podSpec"] = json!({
                "nodeSelector": {"zone": "a"},
                "containers": [{"name": "serve", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}],
                "volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "models"}}],
            });
        });
        let wanted = wanted.wanted.unwrap();
        assert_eq!((wanted.ask.amount, wanted.ask.cpu_milli, wanted.ask.memory_mib), (Amount::Whole(1), 2_000, 1_024));
        assert!(wanted.ask.selector.contains_key("zone"));
        assert_eq!(
            (wanted.claims.as_slice(), wanted.pod.containers[0].name.as_str()),
            (&["team/models".to_owned()][..], "serve")
        );
        assert_eq!(wanted.image(), None);
    }

    #[test]
    fn replicas_are_made_anew_for_what_they_serve_and_not_for_what_is_promised() {
        let made = |change: fn(&mut Value)| facts(change).wanted.unwrap().made_from(Some("tidegate:1"), false);
        let was = made(|_| {});
        assert_eq!(was.len(), 16);
        assert_eq!(made(|model| model["spec"]["sloMilliseconds"] = json!(50)), was);
        assert_eq!(made(|model| model["spec"]["replicas"] = json!({"min": 2})), was);
        assert_ne!(made(|model| model["spec"]["source"]["onnx"] = json!("/models/digits-2.onnx")), was);
        assert_ne!(facts(|_| {}).wanted.unwrap().made_from(Some("tidegate:2"), false), was);
        assert_ne!(facts(|_| {}).wanted.unwrap().made_from(Some("tidegate:1"), true), was, "it has no token yet");
        let own = |image| {
            facts(|model| model["spec"]["podSpec"] = json!({"containers": [{"name": "r", "image": "own:1"}]}))
                .wanted
                .unwrap()
                .made_from(Some(image), false)
        };
        assert_eq!(own("tidegate:1"), own("tidegate:2"), "an image of its own is not the operator's");
    }

    #[test]
    fn what_cannot_be_served_here_is_told_with_field_and_remedy() {
        let relative = problem(|model| model["spec"]["source"]["onnx"] = json!("digits.onnx"));
        assert!(relative.contains("absolute path"), "{relative}");
        let share = problem(|model| model["spec"]["gpu"] = json!({"milli": 500}));
        assert!(share.contains("replicas have whole GPUs"), "{share}");
        let command = problem(|model| model["spec"]["podSpec"] = json!({"containers": [{"name": "r", "command": ["x"]}]}));
        assert!(command.contains("command and args"), "{command}");
        let long = problem(|model| model["metadata"]["name"] = json!("x".repeat(201)));
        assert!(long.contains("at most 200"), "{long}");
        let unreadable = problem(|model| model["spec"]["replicas"] = json!(3));
        assert!(unreadable.starts_with("spec:"), "{unreadable}");
    }
}
