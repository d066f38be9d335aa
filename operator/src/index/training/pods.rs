//! The objects that an attempt is made of.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, Pod, PodSpec, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use tidegate_api::contract::{self, Attempt};
use tidegate_api::kinds::{GROUP, VERSION};
use tidegate_api::labels;
use tidegate_core::plan::Placed;

use super::super::{Entry, Maker, Write};
use super::{Run, Start, State};
use crate::facts::claimed::{Claimed, short};
use crate::facts::training::Wanted;
use crate::facts::{PodFacts, PodKey, TrainingFacts};

/// Where rank 0 may listen: in a pod of its own nothing else does.
const MASTER_PORT: u16 = 29_500;

/// What is to be made.
pub(super) struct Made {
    pub service: Write,
    /// What claims are made from, each once.
    pub templates: Vec<Write>,
    /// One for each worker, in the order of ranks.
    pub pods: Vec<(Pod, Write)>,
}

/// All of an attempt.
pub(super) fn made(facts: &TrainingFacts, wanted: &Wanted, start: &Start<'_>, progress_url: Option<&str>) -> Made {
    let (namespace, job) = (facts.key.namespace(), facts.key.name());
    let service = format!("tidegate-{}", short(&facts.uid));
    let master = format!("worker-0.{service}.{namespace}.svc");
    let url = progress_url.map(|base| {
        let base = base.trim_end_matches('/');
        format!("{base}/progress/{namespace}/{job}/{}?token={}", start.attempt, facts.uid)
    });
    let attempt = Attempt {
        job,
        number: start.attempt,
        workers: start.workers,
        groups: &wanted.job.groups,
        choice: start.choice,
        master: (&master, MASTER_PORT),
        checkpoints: wanted.spec.checkpoint.directory.as_deref(),
        progress_url: url.as_deref(),
    };
    let pod = |(rank, place): (usize, &Placed)| {
        let key = PodKey::new(namespace, &format!("{job}-{}-{}-{rank}", short(&facts.uid), start.attempt));
        let spec = wanted.pods.get(usize::from(place.group)).cloned().unwrap_or_default();
        let environment = attempt.environment(rank, &wanted.spec.template.env);
        let mut spec = worker(spec, rank, &service, environment);
        if claimed(wanted, place).is_none() {
            spec.node_name = Some(place.node.to_string());
        }
        let pod =
            Pod { metadata: metadata(facts, key.name(), annotations(&attempt, rank, place)), spec: Some(spec), ..Pod::default() };
        let write = Write::MakePod { pod: key, of: Maker::TrainingJob(facts.key.clone()), manifest: Box::new(pod.clone()) };
        (pod, write)
    };
    let all: BTreeMap<&str, &Claimed> = start
        .workers
        .iter()
        .filter_map(|place| claimed(wanted, place))
        .map(|claimed| (claimed.template.as_str(), claimed))
        .collect();
    let template = |claimed: &Claimed| Write::MakeClaimTemplate {
        template: PodKey::new(namespace, &claimed.template),
        of: Maker::TrainingJob(facts.key.clone()),
        manifest: Box::new(claimed.manifest(metadata(facts, &claimed.template, BTreeMap::new()))),
    };
    Made {
        templates: all.into_values().map(template).collect(),
        pods: start.workers.iter().enumerate().map(pod).collect(),
        service: Write::MakeService { service: PodKey::new(namespace, &service), manifest: Box::new(headless(facts, &service)) },
    }
}

/// What a worker there claims by name.
fn claimed<'a>(wanted: &'a Wanted, place: &Placed) -> Option<&'a Claimed> {
    wanted.claimed.get(usize::from(place.group))?.as_ref()
}

fn metadata(facts: &TrainingFacts, name: &str, annotations: BTreeMap<String, String>) -> ObjectMeta {
    let owner = OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "TrainingJob".to_owned(),
        name: facts.key.name().to_owned(),
        uid: facts.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(facts.key.namespace().to_owned()),
        labels: Some(labels_of(facts)),
        annotations: Some(annotations).filter(|all| !all.is_empty()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

fn selector(facts: &TrainingFacts) -> BTreeMap<String, String> {
    BTreeMap::from([(labels::TRAINING_JOB.to_owned(), facts.uid.clone())])
}

/// The selector, and the name by which people look for pods.
fn labels_of(facts: &TrainingFacts) -> BTreeMap<String, String> {
    let name = labels::value(facts.key.name()).map(|name| (labels::TRAINING_JOB_NAME.to_owned(), name));
    selector(facts).into_iter().chain(name).collect()
}

/// What a pod says of itself to the next leader.
fn annotations(attempt: &Attempt<'_>, rank: usize, place: &Placed) -> BTreeMap<String, String> {
    let said = [
        (labels::ATTEMPT, attempt.number.to_string()),
        (labels::RANK, rank.to_string()),
        (labels::GROUP, place.group.to_string()),
        (labels::WORLD_SIZE, attempt.workers.len().to_string()),
    ];
    said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A pod of its own is a machine of its own: its devices are numbered from 0 in each.
fn worker(mut spec: PodSpec, rank: usize, service: &str, environment: BTreeMap<String, String>) -> PodSpec {
    spec.hostname = Some(format!("worker-{rank}"));
    spec.subdomain = Some(service.to_owned());
    if let Some(container) = spec.containers.first_mut() {
        let local = (contract::LOCAL_RANK.to_owned(), "0".to_owned());
        let said: BTreeMap<String, String> = environment.into_iter().chain([local]).collect();
        let mut all: Vec<EnvVar> = container.env.take().unwrap_or_default();
        all.retain(|variable| !said.contains_key(&variable.name));
        all.extend(said.into_iter().map(|(name, value)| EnvVar { name, value: Some(value), value_from: None }));
        container.env = Some(all);
    }
    spec
}

/// Gives workers names by which they find each other before they are ready.
fn headless(facts: &TrainingFacts, name: &str) -> Service {
    Service {
        metadata: metadata(facts, name, BTreeMap::new()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(selector(facts)),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Pods that are to be ended: all that were made and have not ended. One that is being made is ended once it was.
pub(super) fn ends(run: &mut Run, pods: &BTreeMap<PodKey, Entry>) -> Vec<Write> {
    let mut writes = Vec::new();
    for (pod, worker) in &mut run.workers {
        let facts = pods.get(pod).map(|entry| &entry.facts);
        worker.ending |= facts.is_some_and(|facts| facts.ending);
        if matches!(worker.state, State::Made | State::Seen) && !std::mem::replace(&mut worker.ending, true) {
            writes.push(Write::EndPod { pod: pod.clone(), uid: facts.map(|facts| facts.uid.clone()), now: false });
        }
    }
    writes
}

/// Pods of attempts that are over were kept for their logs until now.
pub(super) fn old<'a>(keys: impl Iterator<Item = &'a PodKey>, pods: &BTreeMap<PodKey, Entry>) -> Vec<Write> {
    let over = keys.filter_map(|key| pods.get(key)).map(|entry| &entry.facts).filter(|facts| !facts.ending);
    over.map(end).collect()
}

/// Ends a pod that does nothing at once.
pub(super) fn end(facts: &PodFacts) -> Write {
    Write::EndPod { pod: facts.key.clone(), uid: Some(facts.uid.clone()), now: true }
}
