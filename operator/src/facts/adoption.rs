//! Kinds of which suspended objects are started by the engine: where such an object says that it is suspended, what its pods are
//! like and how many there will be.
//!
//! ```text
//! GROUP/VERSION/KIND[@SUSPEND]=TEMPLATE[,TEMPLATE]..
//!     SUSPEND    a pointer: true while it waits. /spec/suspend if it is not said
//!     TEMPLATE   a pointer to a pod template, then its counts: POINTER[:COUNT]..   the counts are multiplied; none: one pod
//!     COUNT      POINTER[|POINTER]..   the smallest of those that are there; none is: 1
//! ```
//!
//! Pointers are JSON pointers; in one `/*` stands for each element of a list or a map, the same one in a template and its counts.

use kube::api::{ApiResource, GroupVersionKind};
use serde_json::Value;

use super::pointer::Pointer;

/// What is known without a flag.
const BUILT_IN: [&str; 5] = [
    "batch/v1/Job=/spec/template:/spec/parallelism|/spec/completions",
    "jobset.x-k8s.io/v1alpha2/JobSet=/spec/replicatedJobs/*/template/spec/template:/spec/replicatedJobs/*/replicas\
     :/spec/replicatedJobs/*/template/spec/parallelism|/spec/replicatedJobs/*/template/spec/completions",
    "kubeflow.org/v1/PyTorchJob@/spec/runPolicy/suspend=/spec/pytorchReplicaSpecs/*/template\
     :/spec/pytorchReplicaSpecs/*/replicas",
    "ray.io/v1/RayJob=/spec/rayClusterSpec/headGroupSpec/template,/spec/rayClusterSpec/workerGroupSpecs/*/template\
     :/spec/rayClusterSpec/workerGroupSpecs/*/replicas:/spec/rayClusterSpec/workerGroupSpecs/*/numOfHosts",
    "ray.io/v1/RayCluster=/spec/headGroupSpec/template,/spec/workerGroupSpecs/*/template\
     :/spec/workerGroupSpecs/*/replicas:/spec/workerGroupSpecs/*/numOfHosts",
];
/// Where most kinds say that they are suspended.
const SUSPEND: &str = "/spec/suspend";
/// Kinds in all: each is a watch.
const MOST: usize = 32;

/// All of them. They are read once from the flags, and live as long as the process.
#[derive(Debug, Default)]
pub struct Adoptions {
    pub kinds: Vec<Adoption>,
    /// Kueue's labels count beside ours.
    pub kueue: bool,
}

/// One kind.
#[derive(Debug, PartialEq)]
pub struct Adoption {
    /// `GROUP/VERSION/KIND`.
    pub kind: String,
    /// `KIND.GROUP`.
    pub name: String,
    pub resource: ApiResource,
    pub suspend: Pointer,
    templates: Vec<Template>,
}

#[derive(Debug, PartialEq)]
struct Template {
    at: Pointer,
    counts: Vec<Vec<Pointer>>,
}

impl Adoptions {
    /// What is built in, and what flags say; of one kind the flag counts.
    pub fn of(flags: &[String], kueue: bool) -> Result<Self, String> {
        let built_in = BUILT_IN.iter().map(|text| (*text).to_owned());
        let mut kinds: Vec<Adoption> = Vec::new();
        for text in built_in.chain(flags.iter().cloned()) {
            let kind = Adoption::parse(&text).map_err(|problem| format!("{text}: {problem}"))?;
            kinds.retain(|other| other.name != kind.name);
            kinds.push(kind);
        }
        if kinds.len() > MOST {
            return Err(format!(
                "these are {} kinds with those that are built in: name fewer, so that there are {MOST}",
                kinds.len()
            ));
        }
        Ok(Self { kinds, kueue })
    }
}

impl Adoption {
    fn parse(text: &str) -> Result<Self, String> {
        let (kind, templates) =
            text.split_once('=').ok_or("give GROUP/VERSION/KIND=POINTER, the pointer being that of a pod template")?;
        let (kind, suspend) = kind.split_once('@').unwrap_or((kind, SUSPEND));
        let parts: Vec<&str> = kind.split('/').collect();
        let [group, version, name] = parts.as_slice() else {
            return Err(format!("`{kind}` is no GROUP/VERSION/KIND"));
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!("`{kind}`: group, version and kind must all be there"));
        }
        let suspend = Pointer::parse(suspend)?;
        if suspend.is_many() {
            return Err("an object is suspended as a whole: leave `*` out of the pointer after `@`".to_owned());
        }
        Ok(Self {
            kind: kind.to_owned(),
            name: format!("{name}.{group}"),
            resource: ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, name)),
            suspend,
            templates: templates.split(',').map(Template::parse).collect::<Result<_, _>>()?,
        })
    }

    /// Where the pod templates of an object are, and how many pods there will be of each, always in the same order.
    pub fn templates(&self, object: &Value) -> Vec<(String, u64)> {
        self.templates.iter().flat_map(|template| template.found(object)).collect()
    }

    /// Whether it is Kubernetes' own Job, of which more is known.
    pub fn is_job(&self) -> bool {
        self.name == "Job.batch"
    }

    /// Whether an owner of that API version and kind is of this kind.
    pub fn is(&self, api_version: &str, kind: &str) -> bool {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.resource.kind == kind && self.resource.group == group
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let at = Pointer::parse(parts.next().unwrap_or_default())?;
        let count = |text: &str| text.split('|').map(Pointer::parse).collect::<Result<Vec<_>, _>>();
        let counts = parts.map(count).collect::<Result<Vec<_>, _>>()?;
        if let Some(pointer) = counts.iter().flatten().find(|pointer| pointer.is_many() && !pointer.is_beside(&at)) {
            return Err(format!("the count {pointer} is of another list than the template {at}: give one that begins alike"));
        }
        Ok(Self { at, counts })
    }

    fn found(&self, object: &Value) -> Vec<(String, u64)> {
        let count = |element: &str| {
            let said = |pointer: &Pointer| object.pointer(&pointer.of(element))?.as_u64();
            let factors = self.counts.iter().map(|all| all.iter().filter_map(said).min().unwrap_or(1));
            factors.fold(1_u64, u64::saturating_mul)
        };
        self.at.elements(object).iter().map(|element| (self.at.of(element), count(element))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(name: &str) -> Adoption {
        Adoptions::of(&[], false).unwrap().kinds.into_iter().find(|kind| kind.name == name).unwrap()
    }

    fn found(name: &str, object: &Value) -> Vec<(String, u64)> {
        kind(name).templates(object)
    }

    fn said(text: &str) -> String {
        Adoptions::of(&[text.to_owned()], false).unwrap_err()
    }

    #[test]
    fn of_each_built_in_kind_the_pods_are_known() {
        let job = json!({"spec": {"parallelism": 4, "completions": 3, "template": {}}});
        assert_eq!(found("Job.batch", &job), [("/spec/template".to_owned(), 3)]);
        assert_eq!(found("Job.batch", &json!({"spec": {"template": {}}}))[0].1, 1);
        let inner = |parallelism: u32| json!({"spec": {"parallelism": parallelism, "template": {}}});
        let set = json!({"spec": {"replicatedJobs": [{"replicas": 2, "template": inner(3)}, {"template": inner(1)}]}});
        let at = |index: u32| format!("/spec/replicatedJobs/{index}/template/spec/template");
        assert_eq!(found("JobSet.jobset.x-k8s.io", &set), [(at(0), 6), (at(1), 1)]);
        let torch = json!({"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 7}, "Master": {}}}});
        let at = |role: &str| format!("/spec/pytorchReplicaSpecs/{role}/template");
        assert_eq!(found("PyTorchJob.kubeflow.org", &torch), [(at("Master"), 1), (at("Worker"), 7)]);
        let ray = json!({"spec": {"headGroupSpec": {}, "workerGroupSpecs": [{"replicas": 2, "numOfHosts": 4}]}});
        let counts: Vec<u64> = found("RayCluster.ray.io", &ray).into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 8]);
        assert_eq!(kind("PyTorchJob.kubeflow.org").suspend.to_string(), "/spec/runPolicy/suspend");
        assert_eq!(kind("RayJob.ray.io").resource.plural, "rayjobs");
        assert_eq!(found("JobSet.jobset.x-k8s.io", &json!({"spec": {"replicatedJobs": 3}})), []);
    }

    #[test]
    fn a_flag_adds_a_kind_or_says_it_otherwise() {
        let flag = |text: &str| Adoptions::of(&[text.to_owned()], true).unwrap();
        let more = flag("example.com/v1/Fleet@/spec/halt=/spec/pod,/spec/more/*/pod:/spec/more/*/size:/spec/times");
        let fleet = more.kinds.last().unwrap();
        assert_eq!((more.kinds.len(), fleet.name.as_str(), fleet.resource.plural.as_str()), (6, "Fleet.example.com", "fleets"));
        let object = json!({"spec": {"times": 2, "more": {"a/b": {"size": 3}}}});
        assert_eq!(fleet.templates(&object), [("/spec/pod".to_owned(), 1), ("/spec/more/a~1b/pod".to_owned(), 6)]);
        let other = flag("batch/v1/Job=/spec/other");
        assert_eq!((other.kinds.len(), other.kueue), (5, true));
        assert!(fleet.is("example.com/v2", "Fleet") && !fleet.is("v1", "Fleet"));
    }

    #[test]
    fn a_flag_that_makes_no_sense_is_told_with_the_remedy() {
        let cases = [
            ("batch/v1/Job", "POINTER"),
            ("batch/Job=/spec", "GROUP/VERSION/KIND"),
            ("/v1/Job=/spec", "must all be there"),
            ("batch/v1/Job=spec", "begin with `/`"),
            ("batch/v1/Job=/a/*/b/*", "one `*`"),
            ("batch/v1/Job@/a/*=/b", "leave `*` out"),
            ("batch/v1/Job=/a/*/pod:/b/*/count", "another list"),
            ("batch/v1/Job=/a/pod:/b/*/count", "another list"),
        ];
        for (text, part) in cases {
            let told = said(text);
            assert!(told.starts_with(text) && told.contains(part), "{told}");
        }
    }
}
