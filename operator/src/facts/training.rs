//! A `TrainingJob`: what it asks of the engine, and what its workers' pods are made of.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PodSpec;
use kube::ResourceExt;
use kube::api::DynamicObject;
use tidegate_api::convert;
use tidegate_api::kinds::{TrainingJobSpec, TrainingJobStatus};
use tidegate_core::state::JobSpec;
use tidegate_core::time::At;

use super::claimed::Claimed;
use super::pod::PodKey;
use super::template;

/// Where a user writes what else a worker's pod needs.
const FIELD: &str = "template.podSpec";
/// Longer names leave no room in the names of pods.
const MAX_NAME: usize = 63;

/// A training job.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingFacts {
    pub key: PodKey,
    pub uid: String,
    pub generation: i64,
    pub created: At,
    /// It was deleted, and something keeps it.
    pub ending: bool,
    /// What it asks for, or why it cannot run here as it is written.
    pub wanted: Result<Arc<Wanted>, String>,
    /// What was last written of it.
    pub status: TrainingJobStatus,
}

/// What a training job asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub spec: TrainingJobSpec,
    pub job: JobSpec,
    /// By group: the pod of a worker, but for its name, place and environment.
    pub pods: Vec<PodSpec>,
    /// By group: the devices that a worker claims by name, if that is how it has them.
    pub claimed: Vec<Option<Claimed>>,
    /// Keys of the claims of volumes that its pods use.
    pub claims: Vec<String>,
}

impl TrainingFacts {
    /// What the object says.
    pub fn of(object: &DynamicObject) -> Self {
        let key = PodKey::new(&object.namespace().unwrap_or_default(), &object.name_any());
        let created = object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond());
        let spec = object.data.get("spec").cloned().unwrap_or_default();
        let wanted = serde_json::from_value(spec).map_err(|e| format!("spec: {e}"));
        let status = object.data.get("status").cloned().unwrap_or_default();
        let uid = object.uid().unwrap_or_default();
        Self {
            generation: object.metadata.generation.unwrap_or_default(),
            created: At(u64::try_from(created).unwrap_or(0)),
            ending: object.metadata.deletion_timestamp.is_some(),
            wanted: wanted.and_then(|spec| Wanted::of(&key, &uid, spec)).map(Arc::new),
            status: serde_json::from_value(status).unwrap_or_default(),
            key,
            uid,
        }
    }
}

impl Wanted {
    fn of(key: &PodKey, uid: &str, spec: TrainingJobSpec) -> Result<Self, String> {
        let name = key.name();
        if name.len() > MAX_NAME || name.contains('.') {
            return Err(format!(
                "metadata.name: its workers' hosts are named after it; use at most {MAX_NAME} characters and no dot"
            ));
        }
        let base = base(&spec)?;
        let mut job = convert::job(name, key.namespace(), &spec);
        if job.owner.is_empty() {
            key.namespace().clone_into(&mut job.owner);
        }
        let (mut pods, mut all_claimed) = (Vec::new(), Vec::new());
        for (group, device_class) in job.groups.iter_mut().zip(convert::device_classes(&spec)) {
            let claimed = template::claimed(uid, device_class, &group.ask);
            let pod = template::with_requests(&base, &group.ask, claimed.as_ref(), "workers")?;
            group.ask = template::ask(FIELD, &group.ask, claimed.as_ref(), &pod)?;
            pods.push(pod);
            all_claimed.push(claimed);
        }
        let claims = template::claims(FIELD, key, &base)?;
        Ok(Self { spec, job, pods, claimed: all_claimed, claims })
    }
}

/// The user's part of a worker's pod.
fn base(spec: &TrainingJobSpec) -> Result<PodSpec, String> {
    let mut pod = template::base(FIELD, spec.template.pod_spec.as_ref(), "worker")?;
    let container = &mut pod.containers[0];
    container.image = spec.template.image.clone().or_else(|| container.image.take());
    if container.image.as_ref().is_none_or(String::is_empty) {
        return Err("template.image: a worker's pod needs an image that holds the command; name one".to_owned());
    }
    container.command = Some(spec.template.command.clone());
    container.args = None;
    container.working_dir = spec.template.working_dir.clone().or_else(|| container.working_dir.take());
    pod.termination_grace_period_seconds = Some(i64::from(spec.checkpoint.grace_seconds));
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidegate_core::ask::Amount;

    use super::*;
    use crate::facts::requests;

    fn facts(change: impl FnOnce(&mut Value)) -> TrainingFacts {
        let mut job = json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"namespace": "team", "name": "night-1", "uid": "u", "generation": 1},
            "spec": {
                "queue": "a", "workers": {"min": 2, "max": 4}, "gpu": {"count": 2}, "cpuMilli": 1500, "memoryMib": 512,
                "template": {"command": ["python3", "train.py"], "image": "train:1"},
            },
        });
        change(&mut job);
        TrainingFacts::of(&serde_json::from_value(job).unwrap())
    }

    fn problem(change: impl FnOnce(&mut Value)) -> String {
        facts(change).wanted.unwrap_err()
    }

    #[test]
    fn a_job_asks_for_what_its_pods_will_ask_for() {
        let wanted = facts(|job| {
            job["spec"]["template"]["podSpec"] = json!({
                "nodeSelector": {"zone": "a"},
                "containers": [{"name": "main"}, {"name": "logs", "resources": {"requests": {"cpu": "500m"}}}],
            });
        });
        let wanted = wanted.wanted.unwrap();
        let ask = &wanted.job.groups[0].ask;
        assert_eq!((ask.amount, ask.cpu_milli, ask.memory_mib), (Amount::Whole(2), 2_000, 512));
        assert_eq!((wanted.job.owner.as_str(), wanted.job.recipe.as_str()), ("team", "night"));
        assert!(ask.selector.contains_key("zone"));
        let pod = &wanted.pods[0];
        assert_eq!(pod.containers.len(), 2);
        assert_eq!(pod.containers[0].command.as_ref().unwrap(), &["python3", "train.py"]);
        assert_eq!(pod.containers[0].image.as_deref(), Some("train:1"));
        assert_eq!(requests::of(pod).gpus, 2);
    }

    #[test]
    fn devices_of_a_class_are_claimed_and_not_counted() {
        let claims = |gpu: Value| facts(|job| job["spec"]["gpu"] = gpu).wanted.unwrap();
        let wanted = claims(json!({"count": 2, "deviceClassName": "gpu.nvidia.com"}));
        let (ask, pod, claimed) = (&wanted.job.groups[0].ask, &wanted.pods[0], wanted.claimed[0].as_ref().unwrap());
        assert_eq!((ask.amount, ask.named, requests::of(pod).gpus), (Amount::Whole(2), true, 0));
        let used = pod.resource_claims.as_ref().unwrap();
        assert_eq!(used[0].resource_claim_template_name.as_ref(), Some(&claimed.template));
        assert_eq!(pod.containers[0].resources.as_ref().unwrap().claims.as_ref().unwrap()[0].name, used[0].name);
        let other = claims(json!({"count": 1, "deviceClassName": "gpu.nvidia.com"}));
        assert_ne!(other.claimed[0].as_ref().unwrap().template, claimed.template, "a template does not change");
        assert_eq!(claims(json!({"count": 0, "deviceClassName": "gpu.nvidia.com"})).claimed, [None]);
    }

    #[test]
    fn what_cannot_run_here_is_told_with_field_and_remedy() {
        let both = problem(|job| {
            job["spec"]["gpu"] = json!({"count": 2, "deviceClassName": "gpu.nvidia.com"});
            job["spec"]["template"]["podSpec"] =
                json!({"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]});
        });
        assert!(both.contains("take one of both out"), "{both}");
        let no_image = problem(|job| job["spec"]["template"]["image"] = Value::Null);
        assert!(no_image.contains("template.image"), "{no_image}");
        let share = problem(|job| job["spec"]["gpu"] = json!({"milli": 500}));
        assert!(share.contains("gpu.count"), "{share}");
        let placed = problem(|job| job["spec"]["template"]["podSpec"] = json!({"nodeName": "n1"}));
        assert!(placed.contains("nodeName"), "{placed}");
        let nonsense = problem(|job| job["spec"]["template"]["podSpec"] = json!({"volumes": "many"}));
        assert!(nonsense.starts_with("template.podSpec"), "{nonsense}");
        let claims = problem(|job| job["spec"]["template"]["podSpec"] = json!({"resourceClaims": [{"name": "gpu"}]}));
        assert!(claims.contains("resourceClaims") && claims.contains("gpu.deviceClassName"), "{claims}");
        let twice = problem(|job| {
            job["spec"]["template"]["podSpec"] =
                json!({"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]});
        });
        assert!(twice.contains("3 GPUs"), "{twice}");
        let long = problem(|job| job["metadata"]["name"] = json!("x".repeat(64)));
        assert!(long.contains("at most 63"), "{long}");
        let unreadable = problem(|job| job["spec"]["workers"] = json!(3));
        assert!(unreadable.starts_with("spec:"), "{unreadable}");
    }

    #[test]
    fn a_status_that_makes_no_sense_is_none() {
        assert_eq!(facts(|job| job["status"] = json!("?")).status, TrainingJobStatus::default());
    }
}
