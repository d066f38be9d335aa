//! Documents to Kueue's objects by name. Of each only what it alone can get wrong is looked at.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::File;
use super::documents::{Document, documents};
use super::names::is_object_name;
use super::spec::{ClusterQueue, Cohort, LocalQueue, ResourceFlavor};
use crate::manifest::{self, Problem};

const GROUP: &str = "kueue.x-k8s.io";
const VERSIONS: [&str; 2] = ["v1beta1", "v1beta2"];
const KINDS: [&str; 5] = ["ClusterQueue", "Cohort", "LocalQueue", "ResourceFlavor", "WorkloadPriorityClass"];
/// What to write where a name is asked for.
const NAME: &str = "use 1 to 253 of a-z, 0-9, - and ., each part beginning and ending with a letter or digit";

/// An object with what is to be told of it.
#[derive(Clone, Debug)]
pub struct Found<S> {
    pub document: Document,
    pub spec: S,
    pub told: Vec<Problem>,
}

/// All objects by name.
#[derive(Clone, Debug, Default)]
pub struct Input {
    pub cluster_queues: BTreeMap<String, Found<ClusterQueue>>,
    pub cohorts: BTreeMap<String, Found<Cohort>>,
    pub flavors: BTreeMap<String, Found<ResourceFlavor>>,
    /// By namespace, which may be missing, and name.
    pub local_queues: BTreeMap<(Option<String>, String), Found<LocalQueue>>,
    /// Of what becomes no Queue.
    pub told: Vec<Problem>,
}

/// Reads everything; what is wrong goes to `problems`.
pub fn read(files: &[File], problems: &mut Vec<Problem>) -> Input {
    let mut input = Input::default();
    let mut places = BTreeMap::new();
    for document in documents(files, problems) {
        match kind(&document) {
            Err(problem) => problems.push(*problem),
            Ok(None) => input.told.push(skipped(&document)),
            Ok(Some(kind)) => match identity(&document, kind, &mut places) {
                Err(problem) => problems.push(*problem),
                Ok(name) => input.add(kind, name, document, problems),
            },
        }
    }
    input
}

/// The kind, if it is one that is read.
fn kind(document: &Document) -> Result<Option<&'static str>, Box<Problem>> {
    let missing = |field: &str| Box::new(document.problem(field, "is missing", "give a Kubernetes manifest"));
    let kind = document.text("kind").ok_or_else(|| missing("kind"))?;
    let api = document.text("apiVersion").ok_or_else(|| missing("apiVersion"))?;
    let Some(known) = KINDS.into_iter().find(|known| *known == kind) else { return Ok(None) };
    match api.split_once('/') {
        Some((GROUP, version)) if VERSIONS.contains(&version) => Ok(Some(known)),
        Some((GROUP, _)) => {
            let remedy = format!("give what `kubectl get {}s.v1beta1.{GROUP} -o yaml` prints", kind.to_ascii_lowercase());
            Err(Box::new(document.problem("apiVersion", "is not v1beta1 or v1beta2 of Kueue", &remedy)))
        }
        _ => Ok(None),
    }
}

/// Its name, if it is one and nothing else has it. `places` knows where all others were.
fn identity(document: &Document, kind: &'static str, places: &mut BTreeMap<Identity, String>) -> Result<String, Box<Problem>> {
    let name = document.meta("name").unwrap_or_default().to_owned();
    if !is_object_name(&name) {
        return Err(Box::new(document.problem("metadata.name", "is not a name that Kubernetes takes", NAME)));
    }
    let namespace = document.meta("namespace").filter(|_| kind == "LocalQueue").map(str::to_owned);
    match places.insert((kind, namespace, name.clone()), document.place.clone()) {
        None => Ok(name),
        Some(other) => {
            Err(Box::new(document.problem("metadata.name", &format!("is there twice, also in {other}"), "keep one of the two")))
        }
    }
}

type Identity = (&'static str, Option<String>, String);

impl Input {
    fn add(&mut self, kind: &str, name: String, document: Document, problems: &mut Vec<Problem>) {
        match kind {
            "ClusterQueue" => keep(&mut self.cluster_queues, name, document, problems),
            "Cohort" => keep(&mut self.cohorts, name, document, problems),
            "ResourceFlavor" => keep(&mut self.flavors, name, document, problems),
            "LocalQueue" => {
                let namespace = document.meta("namespace").map(str::to_owned);
                keep(&mut self.local_queues, (namespace, name), document, problems);
            }
            _ => match document.value.get("value").and_then(Value::as_i64) {
                Some(value) => self.told.push(priority_class(&document, &name, value)),
                None => problems.push(document.problem("value", "is not a whole number", "write the priority")),
            },
        }
    }
}

fn keep<K: Ord, S: DeserializeOwned + Default>(
    all: &mut BTreeMap<K, Found<S>>,
    key: K,
    document: Document,
    problems: &mut Vec<Problem>,
) {
    match spec(&document) {
        Ok((spec, told)) => drop(all.insert(key, Found { document, spec, told })),
        Err(problem) => problems.push(*problem),
    }
}

/// The spec, and what is told of fields that nobody knows.
fn spec<S: DeserializeOwned + Default>(document: &Document) -> Result<(S, Vec<Problem>), Box<Problem>> {
    let Some(value) = document.value.get("spec") else { return Ok((S::default(), Vec::new())) };
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let parsed = serde_ignored::deserialize(tracked, |path| unknown.push(manifest::readable(&path.to_string())));
    let path = |field: &str| format!("spec.{}", manifest::readable(field)).trim_end_matches('.').to_owned();
    match parsed {
        Ok(spec) => {
            // What it lists is listed by `flavors` again.
            let unknown = unknown.iter().filter(|field| !field.ends_with(".coveredResources"));
            let told = unknown.map(|field| {
                document.remark(&path(field), "is not known to this command and is left out", "see what it does in Kueue")
            });
            Ok((spec, told.collect()))
        }
        Err(e) => {
            let field = path(&track.path().to_string());
            Err(Box::new(document.problem(&field, &e.to_string(), "see Kueue's reference for what it may be")))
        }
    }
}

fn priority_class(document: &Document, name: &str, value: i64) -> Problem {
    let remedy = format!(
        "`kubectl create priorityclass {name} --value={value}`, and name it in the pods' priorityClassName \
         instead of the label kueue.x-k8s.io/priority-class"
    );
    document.remark("value", "is not carried over: the priority of a pod is Kubernetes' own", &remedy)
}

fn skipped(document: &Document) -> Problem {
    let kind = document.text("kind").unwrap_or_default();
    let remedy = match kind {
        "Topology" => "write its levels in topologyLevels of the Pool",
        "Workload" => "nothing to do: Kueue makes one for each job",
        "AdmissionCheck" | "ProvisioningRequestConfig" => {
            "nothing to do: node autoscalers see waiting pods by their condition PodScheduled"
        }
        "MultiKueueConfig" | "MultiKueueCluster" => "install Tidegate in each cluster; work is not sent between clusters",
        _ => "nothing to do if it holds no quota",
    };
    document.remark("", "is skipped: it becomes no Queue", remedy)
}
