//! A `TrainingJob`: what it asks of the engine, and what its workers' pods are made of.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;
use tidegate_api::convert;
use tidegate_api::kinds::{TrainingJobSpec, TrainingJobStatus};
use tidegate_api::labels;
use tidegate_core::ask::{Affinity, Amount, Ask};
use tidegate_core::state::{Group, JobSpec};
use tidegate_core::time::At;

use super::node::GPU;
use super::pod::{PodKey, unsupported};
use super::volume::ClaimUse;
use super::{requests, selection};

/// What is said of a volume that is made for one pod.
const OWN_VOLUME: &str = "template.podSpec.volumes: an `ephemeral` volume ends with its pod; name a persistentVolumeClaim";
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
        Self {
            uid: object.uid().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            created: At(u64::try_from(created).unwrap_or(0)),
            ending: object.metadata.deletion_timestamp.is_some(),
            wanted: wanted.and_then(|spec| Wanted::of(&key, spec)).map(Arc::new),
            status: serde_json::from_value(status).unwrap_or_default(),
            key,
        }
    }
}

impl Wanted {
    fn of(key: &PodKey, spec: TrainingJobSpec) -> Result<Self, String> {
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
        let mut pods = Vec::new();
        for group in &mut job.groups {
            let pod = worker(&base, group)?;
            group.ask = ask(group, &pod)?;
            pods.push(pod);
        }
        let claims = claims(key, &base)?;
        Ok(Self { spec, job, pods, claims })
    }
}

/// Claims that all workers use.
fn claims(key: &PodKey, pod: &PodSpec) -> Result<Vec<String>, String> {
    let uses = pod.volumes.iter().flatten().filter_map(|volume| ClaimUse::of(key.namespace(), "", volume));
    let shared = |used: ClaimUse| if used.own { Err(OWN_VOLUME.to_owned()) } else { Ok(used.key) };
    uses.map(shared).collect()
}

/// The user's part of a worker's pod.
fn base(spec: &TrainingJobSpec) -> Result<PodSpec, String> {
    let written = spec.template.pod_spec.clone().unwrap_or_default();
    let mut pod: PodSpec = serde_json::from_value(Value::Object(written)).map_err(|e| format!("template.podSpec: {e}"))?;
    for (field, set) in [
        ("nodeName", pod.node_name.is_some()),
        ("schedulerName", pod.scheduler_name.is_some()),
        ("restartPolicy", pod.restart_policy.is_some()),
        ("schedulingGates", pod.scheduling_gates.is_some()),
        ("hostname", pod.hostname.is_some()),
        ("subdomain", pod.subdomain.is_some()),
    ] {
        if set {
            return Err(format!("template.podSpec.{field}: is set by Tidegate; remove it"));
        }
    }
    if let Some(problem) = unsupported(&pod).into_iter().next() {
        return Err(format!("template.podSpec: {problem}"));
    }
    if pod.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Err("template.podSpec.resourceClaims: workers are given no claims yet; say in gpu.count how many GPUs".to_owned());
    }
    if pod.containers.is_empty() {
        pod.containers.push(Container::default());
    }
    let container = &mut pod.containers[0];
    if container.name.is_empty() {
        "worker".clone_into(&mut container.name);
    }
    container.image = spec.template.image.clone().or_else(|| container.image.take());
    if container.image.as_ref().is_none_or(String::is_empty) {
        return Err("template.image: a worker's pod needs an image that holds the command; name one".to_owned());
    }
    container.command = Some(spec.template.command.clone());
    container.args = None;
    container.working_dir = spec.template.working_dir.clone().or_else(|| container.working_dir.take());
    pod.scheduler_name = Some(labels::SCHEDULER.to_owned());
    pod.restart_policy = Some("Never".to_owned());
    pod.termination_grace_period_seconds = Some(i64::from(spec.checkpoint.grace_seconds));
    Ok(pod)
}

/// The pod of a group's worker.
fn worker(base: &PodSpec, group: &Group) -> Result<PodSpec, String> {
    let mut pod = base.clone();
    let resources = pod.containers[0].resources.get_or_insert_with(ResourceRequirements::default);
    let gpus = match group.ask.amount {
        Amount::Whole(gpus) => gpus,
        Amount::None => 0,
        Amount::Milli(_) | Amount::MemoryMib(_) | Amount::Slice { .. } | Amount::Mig(_) => {
            return Err("gpu: on Kubernetes workers have whole GPUs by now; say how many in gpu.count".to_owned());
        }
    };
    let mut say = |resource: &str, amount: u64, unit: &str, most: bool| {
        if amount == 0 {
            return;
        }
        let quantity = Quantity(format!("{amount}{unit}"));
        let list = if most { &mut resources.limits } else { &mut resources.requests };
        list.get_or_insert_default().insert(resource.to_owned(), quantity);
    };
    say(GPU, u64::from(gpus), "", true);
    say(GPU, u64::from(gpus), "", false);
    say("cpu", group.ask.cpu_milli, "m", false);
    say("memory", group.ask.memory_mib, "Mi", false);
    Ok(pod)
}

/// What such a pod asks of its node.
fn ask(group: &Group, pod: &PodSpec) -> Result<Ask, String> {
    let counted = requests::of(pod);
    if counted.gpus != group.ask.devices() {
        return Err(format!("template.podSpec: its containers ask for {} GPUs; say it in gpu.count alone", counted.gpus));
    }
    let affinity = selection::affinity(pod);
    if affinity != Affinity::default() && group.ask.affinity != Affinity::default() {
        return Err("nodeAffinity: is said in the job and in template.podSpec; keep one of the two".to_owned());
    }
    Ok(Ask {
        cpu_milli: counted.cpu_milli,
        memory_mib: counted.memory_mib,
        selector: selection::selector(pod),
        tolerations: selection::tolerations(pod),
        affinity: if affinity == Affinity::default() { group.ask.affinity.clone() } else { affinity },
        ..group.ask.clone()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
    fn what_cannot_run_here_is_told_with_field_and_remedy() {
        let no_image = problem(|job| job["spec"]["template"]["image"] = Value::Null);
        assert!(no_image.contains("template.image"), "{no_image}");
        let share = problem(|job| job["spec"]["gpu"] = json!({"milli": 500}));
        assert!(share.contains("gpu.count"), "{share}");
        let placed = problem(|job| job["spec"]["template"]["podSpec"] = json!({"nodeName": "n1"}));
        assert!(placed.contains("nodeName"), "{placed}");
        let nonsense = problem(|job| job["spec"]["template"]["podSpec"] = json!({"volumes": "many"}));
        assert!(nonsense.starts_with("template.podSpec"), "{nonsense}");
        let claims = problem(|job| job["spec"]["template"]["podSpec"] = json!({"resourceClaims": [{"name": "gpu"}]}));
        assert!(claims.contains("resourceClaims"), "{claims}");
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
