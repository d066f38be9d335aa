//! A pod: whose it is, where it is, what it asks for.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStateWaiting, Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use tidegate_api::kinds::{GROUP, cut};
use tidegate_api::labels;
use tidegate_core::ask::{Amount, Ask, ClassWish, Term};
use tidegate_core::labels::{Requirement, Rule};
use tidegate_core::names::Class;
use tidegate_core::state::Spread;
use tidegate_core::time::At;

use super::annotation::{classes, seconds, spread, switch, unknown};
use super::requests;
pub use super::requests::Requests;
use super::seat::SeatOf;
use super::{Gang, HostPort, Needs, node, selection};

/// Why a kubelet does not start a container, where waiting alone does not help: what the pod names is not there, or no name.
const STUCK: [&str; 6] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
];
/// Bytes that are kept of what it says.
const MAX_STUCK: usize = 256;
/// Grace of a pod that names none.
const GRACE_SECONDS: u32 = 30;

/// `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey(pub Arc<str>);

impl PodKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(Arc::from(format!("{namespace}/{name}")))
    }

    /// The key of an object.
    pub fn of(pod: &Pod) -> Self {
        Self::new(&pod.namespace().unwrap_or_default(), &pod.name_any())
    }

    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl PodPhase {
    /// It holds nothing any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states")]
pub struct PodFacts {
    pub key: PodKey,
    pub uid: String,
    pub resource_version: String,
    /// Where it is bound.
    pub node: Option<String>,
    /// Where another scheduler is making room for it.
    pub nominated: Option<String>,
    pub phase: PodPhase,
    /// It was told to end.
    pub ending: bool,
    /// Its end was somebody's doing and no failure of its own: an eviction, a node that was drained or lost, or `refused`.
    pub disrupted: bool,
    /// Its kubelet would not have it: what it needs had gone to others when it came.
    pub refused: bool,
    /// An object made it, which makes another one when it is gone.
    pub is_made: bool,
    pub created: At,
    /// When it was bound.
    pub bound: Option<At>,
    pub requests: Requests,
    pub needs: Option<Box<Needs>>,
    /// What it says to us; absent: it is another scheduler's.
    pub ours: Option<Arc<Ours>>,
    /// Which worker it is, of a training job of ours.
    pub worker: Option<Box<WorkerOf>>,
    /// Which replica it is, of a model of ours.
    pub replica: Option<Box<ReplicaOf>>,
    /// Whose seat it takes, of an object that was suspended and was started.
    pub seat: Option<Box<SeatOf>>,
}

/// Which replica of a `Model` a pod is, and whether it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaOf {
    pub model: PodKey,
    /// The model's uid.
    pub uid: String,
    /// The engine's name of the replica.
    pub id: String,
    pub generation: u64,
    /// See [`super::model::WantedModel::made_from`].
    pub made_from: String,
    /// Its pod's address.
    pub address: Option<String>,
    /// Since when it answers.
    pub ready: Option<At>,
    /// See [`WorkerOf::stuck`].
    pub stuck: Option<Box<str>>,
}

/// Which worker of a `TrainingJob` a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerOf {
    pub job: PodKey,
    /// The job's uid.
    pub uid: String,
    pub attempt: u32,
    pub group: u16,
    /// Workers of the attempt.
    pub size: u32,
    /// Why its kubelet cannot start it: a secret that is missing, an image that is not there.
    pub stuck: Option<Box<str>>,
}

/// What a pod says that is ours to place; that of pods of one template is equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ours {
    pub queue: String,
    pub priority: i32,
    /// Somebody wants it not to be placed yet.
    pub gated: bool,
    pub gang: Option<Gang>,
    pub ask: Arc<Ask>,
    /// Who made it and what kind of run it is: how long such runs took before tells how long this one may take.
    pub owner: String,
    pub recipe: String,
    pub preemptible: bool,
    pub expected_ms: Option<u64>,
    pub spread: Option<Spread>,
    pub grace_seconds: u32,
    /// Why it cannot be placed as it is written.
    pub problem: Option<String>,
}

impl PodFacts {
    /// What the object says.
    pub fn of(pod: &Pod) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let status = pod.status.as_ref();
        let (requests, needs) = (requests::of(spec), Needs::of(pod, spec));
        let ports = needs.as_ref().map_or(&[] as &[HostPort], |needs| &needs.ports);
        let created = pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond());
        Self {
            key: PodKey::of(pod),
            uid: pod.uid().unwrap_or_default(),
            resource_version: pod.resource_version().unwrap_or_default(),
            node: spec.node_name.clone().filter(|node| !node.is_empty()),
            nominated: status.and_then(|status| status.nominated_node_name.clone()).filter(|node| !node.is_empty()),
            phase: phase(status.and_then(|status| status.phase.as_deref())),
            ending: pod.metadata.deletion_timestamp.is_some(),
            disrupted: status.is_some_and(|status| is_refused(status) || status.conditions.iter().flatten().any(is_disruption)),
            refused: status.is_some_and(is_refused),
            is_made: pod.metadata.owner_references.iter().flatten().any(|owner| owner.controller == Some(true)),
            created: At(u64::try_from(created).unwrap_or(0)),
            bound: status.and_then(bound),
            ours: (spec.scheduler_name.as_deref() == Some(labels::SCHEDULER))
                .then(|| Ours::of(pod, spec, &requests, ports).into()),
            worker: WorkerOf::of(pod).map(Box::new),
            replica: ReplicaOf::of(pod).map(Box::new),
            seat: SeatOf::of(pod, spec),
            requests,
            needs,
        }
    }

    /// What it uses is counted with the training job or the object that it is of.
    pub fn is_of_another(&self) -> bool {
        self.worker.is_some() || self.replica.is_some() || self.seat.is_some()
    }

    /// It is bound and has not ended.
    pub fn holds(&self) -> bool {
        self.node.is_some() && !self.phase.is_over()
    }
}

fn bound(status: &PodStatus) -> Option<At> {
    since(status, "PodScheduled")
}

/// Since when a condition holds.
fn since(status: &PodStatus, kind: &str) -> Option<At> {
    let mut conditions = status.conditions.iter().flatten();
    let holds = conditions.find(|condition| condition.type_ == kind && condition.status == "True")?;
    Some(At(u64::try_from(holds.last_transition_time.as_ref()?.0.as_millisecond()).ok()?))
}

/// See [`PodFacts::refused`].
fn is_refused(status: &PodStatus) -> bool {
    let reason = status.reason.as_deref().unwrap_or_default();
    reason.starts_with("OutOf") || matches!(reason, "UnexpectedAdmissionError" | "NodeAffinity" | "NodeShutdown")
}

fn is_disruption(condition: &PodCondition) -> bool {
    condition.type_ == "DisruptionTarget" && condition.status == "True"
}

impl WorkerOf {
    /// What its owner and annotations say; without sense in them it is a pod like any other.
    fn of(pod: &Pod) -> Option<Self> {
        let owner = owner(pod, "TrainingJob")?;
        let said = |name: &str| said(pod, name);
        Some(Self {
            job: PodKey::new(&pod.namespace().unwrap_or_default(), &owner.name),
            uid: owner.uid.clone(),
            attempt: said(labels::ATTEMPT)?.parse().ok()?,
            group: said(labels::GROUP)?.parse().ok()?,
            size: said(labels::WORLD_SIZE)?.parse().ok()?,
            stuck: stuck(pod),
        })
    }
}

impl ReplicaOf {
    /// What its owner and annotations say; without sense in them it is a pod like any other.
    fn of(pod: &Pod) -> Option<Self> {
        let owner = owner(pod, "Model")?;
        let status = pod.status.as_ref();
        Some(Self {
            model: PodKey::new(&pod.namespace().unwrap_or_default(), &owner.name),
            uid: owner.uid.clone(),
            id: said(pod, labels::REPLICA)?.to_owned(),
            generation: said(pod, labels::GENERATION)?.parse().ok()?,
            made_from: said(pod, labels::MADE_FROM)?.to_owned(),
            address: status.and_then(|status| status.pod_ip.clone()).filter(|address| !address.is_empty()),
            ready: status.and_then(|status| since(status, "Ready")),
            stuck: stuck(pod),
        })
    }
}

/// What a kubelet says of a container that it cannot start.
fn stuck(pod: &Pod) -> Option<Box<str>> {
    let status = pod.status.as_ref()?;
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let mut waiting = all.filter_map(|one| one.state.as_ref()?.waiting.as_ref());
    let is_stuck = |waiting: &&ContainerStateWaiting| waiting.reason.as_deref().is_some_and(|reason| STUCK.contains(&reason));
    let ContainerStateWaiting { reason, message } = waiting.find(is_stuck)?;
    let (reason, message) = (reason.as_deref().unwrap_or_default(), message.as_deref().unwrap_or_default());
    Some(format!("{reason}: {}", cut(message, MAX_STUCK)).into())
}

/// The object of ours that made a pod, if it is of that kind.
fn owner<'a>(pod: &'a Pod, kind: &str) -> Option<&'a OwnerReference> {
    let mut owners = pod.metadata.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true));
    owners.find(|owner| owner.kind == kind && owner.api_version.starts_with(GROUP))
}

fn said<'a>(pod: &'a Pod, annotation: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(annotation).map(String::as_str)
}

fn phase(word: Option<&str>) -> PodPhase {
    match word {
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        _ => PodPhase::Pending,
    }
}

impl Ours {
    fn of(pod: &Pod, spec: &PodSpec, requests: &Requests, ports: &[HostPort]) -> Self {
        let annotation = |name: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
        let label = |name: &str| pod.metadata.labels.as_ref().and_then(|all| all.get(name)).cloned();
        let controller = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let maker = controller.map_or_else(|| pod.name_any(), |owner| owner.name.clone());
        let queue = label(labels::QUEUE).unwrap_or_default();
        let mut problems = Vec::new();
        if queue.is_empty() {
            problems.push(format!("names no queue: add the label {}", labels::QUEUE));
        }
        problems.extend(unsupported(spec));
        problems.extend(unknown(pod.metadata.annotations.iter().flatten().map(|(name, _)| name)));
        problems.extend(requests.problem());
        if annotation(labels::GPU_CLASSES).is_some() && !requests.parts.is_empty() {
            problems.push(format!(
                "has the annotation {} beside MIG instances: choose their nodes by a node selector",
                labels::GPU_CLASSES
            ));
        }
        let gang = Gang::of(pod, spec);
        problems.extend(gang.as_ref().err().cloned());
        let preemptible = switch(labels::PREEMPTIBLE, annotation(labels::PREEMPTIBLE));
        let expected = seconds(labels::EXPECTED_SECONDS, annotation(labels::EXPECTED_SECONDS));
        problems.extend(preemptible.as_ref().err().cloned());
        problems.extend(expected.as_ref().err().cloned());
        let classes = classes(annotation(labels::GPU_CLASSES));
        let spread = spread(annotation(labels::REQUIRED_TOPOLOGY), annotation(labels::PREFERRED_TOPOLOGY));
        problems.extend(classes.as_ref().err().cloned());
        problems.extend(spread.as_ref().err().cloned());
        Self {
            queue,
            priority: spec.priority.unwrap_or(0),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            gang: gang.unwrap_or(None),
            ask: Arc::new(ask(spec, requests, ports, classes.unwrap_or_default())),
            owner: pod.namespace().unwrap_or_default(),
            recipe: kind_of(&maker).to_owned(),
            preemptible: preemptible.unwrap_or(true),
            expected_ms: expected.unwrap_or(None),
            spread: spread.unwrap_or(None),
            grace_seconds: spec
                .termination_grace_period_seconds
                .and_then(|seconds| u32::try_from(seconds).ok())
                .unwrap_or(GRACE_SECONDS),
            problem: (!problems.is_empty()).then(|| problems.join("; ")),
        }
    }
}

fn ask(spec: &PodSpec, requests: &Requests, ports: &[HostPort], classes: Vec<ClassWish>) -> Ask {
    let mut affinity = selection::affinity(spec);
    for term in HostPort::term(ports).into_iter().chain(storage(requests)) {
        affinity.required = selection::both(&affinity.required, &[term]);
    }
    let (devices, part) = requests.devices();
    Ask {
        amount: if devices == 0 { Amount::None } else { Amount::Whole(devices) },
        classes: part.map_or(classes, |class| vec![ClassWish::from(Class::from(class))]),
        cpu_milli: requests.cpu_milli,
        memory_mib: requests.memory_mib,
        selector: selection::selector(spec),
        tolerations: selection::tolerations(spec),
        affinity,
        named: false,
    }
}

/// Nodes with so much of their disk free.
fn storage(requests: &Requests) -> Option<Term> {
    let below = i64::try_from(requests.storage_mib.checked_sub(1)?).unwrap_or(i64::MAX);
    Some(Term(vec![Requirement { key: node::FREE_STORAGE_LABEL.to_owned(), rule: Rule::Gt(below) }]))
}

/// What kind of run a maker's pods are: its name without a number at its end.
fn kind_of(maker: &str) -> &str {
    let kind = maker.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
    if kind.is_empty() { maker } else { kind }
}

/// What a pod asks for that is not looked at yet: it waits rather than runs where it must not.
pub(super) fn unsupported(spec: &PodSpec) -> Vec<String> {
    let affinity = spec.affinity.as_ref();
    let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let far = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let near = near.is_some_and(|near| near.required_during_scheduling_ignored_during_execution.is_some());
    let far = far.is_some_and(|far| far.required_during_scheduling_ignored_during_execution.is_some());
    let mut constraints = spec.topology_spread_constraints.iter().flatten();
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let known = |name: &str| matches!(name, "cpu" | "memory" | node::STORAGE | node::GPU) || node::part_class(name).is_some();
    let resources = containers().filter_map(|container| container.resources.as_ref());
    let mut other =
        resources.flat_map(|resources| resources.requests.iter().chain(&resources.limits)).flatten().map(|(name, _)| name);
    let found = [
        (near, "required pod affinity"),
        (far, "required pod anti-affinity"),
        (constraints.any(|constraint| constraint.when_unsatisfiable == "DoNotSchedule"), "a topology spread constraint"),
    ];
    let mut all: Vec<String> = found.into_iter().filter(|(has, _)| *has).map(|(_, what)| what.to_owned()).collect();
    all.extend(other.find(|name| !known(name)).map(|name| format!("the resource {name}")));
    all.into_iter().map(|what| format!("asks for {what}, which Tidegate does not look at yet")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts(change: impl FnOnce(&mut Value)) -> PodFacts {
        let mut pod = json!({
            "metadata": {
                "namespace": "team", "name": "night-7", "uid": "u", "resourceVersion": "5", "creationTimestamp": "2026-11-29T00:00:01Z",
                "labels": {"tidegate.dev/queue": "vision"}, "annotations": {},
            },
            "spec": {
                "schedulerName": "tidegate",
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": "2"}}}],
            },
        });
        change(&mut pod);
        PodFacts::of(&serde_json::from_value(pod).unwrap())
    }

    fn problem(change: impl FnOnce(&mut Value)) -> String {
        facts(change).ours.unwrap().problem.clone().unwrap_or_default()
    }

    #[test]
    fn an_annotation_that_is_written_wrong_is_told() {
        let annotated = |name: &'static str| problem(move |pod| pod["metadata"]["annotations"][name] = json!("2"));
        assert!(annotated("tidegate.dev/gang-sise").contains("tidegate.dev/gang-sise, which is none of Tidegate's"));
        assert!(annotated("tidegate.dev/queue").contains("make it one"));
        assert_eq!(annotated("tidegate.dev.example/gang-sise"), "", "somebody else's");
    }

    #[test]
    fn a_pod_of_ours_says_what_it_needs() {
        let pod = facts(|_| {});
        let ours = pod.ours.unwrap();
        assert_eq!((ours.ask.amount, ours.ask.cpu_milli), (Amount::Whole(2), 1000));
        assert_eq!((ours.queue.as_str(), ours.owner.as_str(), ours.recipe.as_str()), ("vision", "team", "night"));
        assert_eq!((pod.phase, pod.created.0 % 10_000, &ours.problem), (PodPhase::Pending, 1_000, &None));
    }

    #[test]
    fn instances_are_devices_of_their_class_and_a_class_beside_them_is_told() {
        let limits =
            |pod: &mut Value| pod["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/mig-2g.20gb": "2"}});
        let ours = facts(limits).ours.unwrap();
        assert_eq!((ours.ask.amount, ours.problem.clone()), (Amount::Whole(2), None));
        assert_eq!(ours.ask.classes, [ClassWish::from(Class::from("mig-2g.20gb"))]);
        let told = problem(|pod| {
            limits(pod);
            pod["metadata"]["annotations"][labels::GPU_CLASSES] = json!("H100");
        });
        assert!(told.contains("by a node selector"), "{told}");
    }

    #[test]
    fn others_pods_count_but_say_nothing_to_us() {
        let pod = facts(|pod| pod["spec"]["schedulerName"] = json!("default-scheduler"));
        assert!(pod.ours.is_none() && pod.requests.gpus == 2);
    }

    #[test]
    fn bad_annotations_are_named_with_the_remedy() {
        let of = |name: &str, value: &str| problem(|pod| pod["metadata"]["annotations"][name] = json!(value));
        assert!(of(labels::PREEMPTIBLE, "maybe").contains("give true or false"));
        assert!(of(labels::EXPECTED_SECONDS, "0").contains("at least 1"));
        let no_queue = problem(|pod| pod["metadata"]["labels"] = json!({}));
        assert!(no_queue.contains("add the label tidegate.dev/queue"), "{no_queue}");
    }

    #[test]
    fn what_is_not_looked_at_yet_is_said_and_not_ignored() {
        let other = problem(|pod| pod["spec"]["containers"][0]["resources"]["limits"]["rdma/hca"] = json!("1"));
        assert!(other.contains("rdma/hca"), "{other}");
    }

    #[test]
    fn a_pod_that_its_kubelet_would_not_have_has_not_failed_itself() {
        let refused = |reason: &str| facts(|pod| pod["status"] = json!({"phase": "Failed", "reason": reason})).disrupted;
        assert!(refused("OutOfcpu") && refused("OutOfnvidia.com/gpu") && refused("UnexpectedAdmissionError"));
        assert!(!refused("DeadlineExceeded") && !refused(""));
    }

    #[test]
    fn a_pod_that_says_nothing_is_no_trouble() {
        let pod = PodFacts::of(&Pod::default());
        assert!(pod.ours.is_none() && !pod.holds());
    }
}
