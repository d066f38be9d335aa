//! `what-if` in words: changes as a person writes them on a command line, and the request that carries them.
//!
//! | word | change |
//! |---|---|
//! | `queue/NAME:RESOURCE=+N`, `=-N`, `=N` | nominal quota of `gpu`, `gpu/CLASS` or `cpu` by or to N devices or cores, of `memory` in MiB |
//! | `node/NAME=+N` | N more nodes like it, healthy and empty |
//! | `node/NAME=drained`, `node/NAME=removed` | it takes no work any more, or is gone |
//! | `nodes=+NxGPUSxCLASS` | N nodes of GPUS devices of a class that ends with its memory: `nodes=+2x8xH100-80GB` |
//! | `job/NAME:priority=N`, `job/NAME=removed` | another priority, or the job is gone |
//! | `policy:FIELD=VALUE` | a field of the engine's policy by its name |
//!
//! What a word names is looked up by the engine, which knows what there is; here it must only be a word of the table.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidegate_core::names::{Class, JobName, NodeName, QueueName};
use tidegate_core::state::Resource;
use tidegate_core::what_if::{Amount, Change};

use crate::convert;
use crate::manifest::{Object, Problems};

/// The longest horizon, in hours: beyond two weeks estimates say nothing.
pub const MAX_HOURS: u64 = 14 * 24;
/// Changes of one request, at most: each is told to a copy of the engine.
pub const MAX_CHANGES: usize = 1_000;
/// Gibibytes of a device, at most, as for simulated ones.
const MAX_MEMORY_GB: u64 = 4_096;

/// What `POST /api/v1/what-if` takes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub changes: Vec<Change>,
    /// How far to look, up to [`MAX_HOURS`].
    pub horizon_ms: u64,
}

impl Request {
    /// What the engine does not check, since only a request can get it wrong.
    pub fn check(&self) -> Result<(), String> {
        let (count, most_ms) = (self.changes.len(), MAX_HOURS * 3_600_000);
        if count > MAX_CHANGES {
            return Err(format!("`changes` holds {count}; ask for at most {MAX_CHANGES} at once"));
        }
        if self.horizon_ms > most_ms {
            return Err(format!("`horizon_ms` is {}; look at most {most_ms} ({MAX_HOURS} hours) ahead", self.horizon_ms));
        }
        Ok(())
    }
}

/// A word that is no change.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error(
        "{0:?} is not a change; write queue/NAME:RESOURCE=+N, node/NAME=+N, node/NAME=drained, node/NAME=removed, \
         nodes=+NxGPUSxCLASS, job/NAME:priority=N, job/NAME=removed or policy:FIELD=VALUE"
    )]
    Form(String),
    #[error("{word:?}: {resource:?} is not a resource; write gpu, gpu/CLASS, cpu or memory")]
    Resource { word: String, resource: String },
    #[error("{word:?}: {found:?} is not {what}")]
    Value { word: String, found: String, what: &'static str },
    #[error(
        "{file}: {kind}/{name} cannot be asked about; -f takes TrainingJobs, and queues are changed by queue/NAME:RESOURCE=N"
    )]
    Kind { file: String, kind: &'static str, name: String },
    #[error("{0} holds no TrainingJob; name a file with one")]
    Empty(String),
    #[error(transparent)]
    Manifest(#[from] Problems),
}

/// The change that a word of the table means.
pub fn parse(word: &str) -> Result<Change, Error> {
    let form = || Error::Form(word.to_owned());
    let (what, value) = word.split_once('=').ok_or_else(form)?;
    let (subject, field) = what.split_once(':').map_or((what, None), |(subject, field)| (subject, Some(field)));
    let (kind, name) = subject.split_once('/').unwrap_or((subject, ""));
    let wrong = |what| Error::Value { word: word.to_owned(), found: value.to_owned(), what };
    match (kind, name, field) {
        ("queue", name, Some(resource)) if !name.is_empty() => quota(word, name, resource, value),
        ("node", name, None) if !name.is_empty() => node(name, value).ok_or_else(|| wrong("+N, drained or removed")),
        ("nodes", "", None) => nodes(value).ok_or_else(|| wrong("+NxGPUSxCLASS with the memory in the class, as +2x8xH100-80GB")),
        ("job", name, Some("priority")) if !name.is_empty() => {
            let priority = value.parse().map_err(|_| wrong("a whole number"))?;
            Ok(Change::Priority { job: JobName::from(name), priority })
        }
        ("job", name, None) if !name.is_empty() => match value {
            "removed" => Ok(Change::RemoveJob { name: JobName::from(name) }),
            _ => Err(wrong("removed; a priority is changed by job/NAME:priority=N")),
        },
        ("policy", "", Some(field)) => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| serde_json::Value::String(value.to_owned()));
            Ok(Change::Policy { field: field.to_owned(), value })
        }
        _ => Err(form()),
    }
}

/// The submissions that a manifest describes.
pub fn jobs(objects: &[Object], file: &str) -> Result<Vec<Change>, Error> {
    let submit = |object: &Object| match object {
        Object::TrainingJob(job) => {
            let spec = Box::new(convert::job(object.name(), object.namespace(), &job.spec));
            Ok(Change::SubmitJob { name: JobName::from(object.name()), spec })
        }
        Object::Pool(_) | Object::Queue(_) | Object::Model(_) => {
            Err(Error::Kind { file: file.to_owned(), kind: object.kind(), name: object.name().to_owned() })
        }
    };
    let changes: Vec<Change> = objects.iter().map(submit).collect::<Result<_, _>>()?;
    if changes.is_empty() { Err(Error::Empty(file.to_owned())) } else { Ok(changes) }
}

fn quota(word: &str, queue: &str, resource: &str, value: &str) -> Result<Change, Error> {
    if !["gpu", "cpu", "memory"].contains(&resource) && resource.strip_prefix("gpu/").is_none_or(str::is_empty) {
        return Err(Error::Resource { word: word.to_owned(), resource: resource.to_owned() });
    }
    let resource = Resource::from(resource.to_owned());
    let nominal = amount(value, if resource == Resource::Memory { 1 } else { 1000 });
    let what = "+N, -N or N, in devices, cores or MiB";
    let nominal = nominal.ok_or_else(|| Error::Value { word: word.to_owned(), found: value.to_owned(), what })?;
    Ok(Change::Quota { queue: QueueName::from(queue), resource, nominal })
}

/// `+N` and `-N` are by so much, `N` is to.
fn amount(value: &str, per_unit: i64) -> Option<Amount> {
    let number: i64 = value.parse().ok()?;
    let scaled = number.checked_mul(per_unit)?;
    Some(if value.starts_with(['+', '-']) { Amount::By(scaled) } else { Amount::To(scaled) })
}

fn node(name: &str, value: &str) -> Option<Change> {
    let node = NodeName::from(name);
    match value {
        "drained" => Some(Change::DrainNode { node }),
        "removed" => Some(Change::RemoveNode { node }),
        more => Some(Change::AddNodes { like: node, count: more.strip_prefix('+')?.parse().ok()? }),
    }
}

fn nodes(value: &str) -> Option<Change> {
    let (count, kind) = value.strip_prefix('+')?.split_once('x')?;
    let (gpus, class) = kind.split_once('x')?;
    let memory_gb: u64 = class.rsplit_once('-')?.1.strip_suffix("GB")?.parse().ok()?;
    let memory_gb = Some(memory_gb).filter(|gb| (1..=MAX_MEMORY_GB).contains(gb))?;
    Some(Change::NewNodes {
        class: Class::from(class),
        gpus: gpus.parse().ok()?,
        memory_mib: memory_gb * 1024,
        count: count.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    fn refused(word: &str) -> String {
        parse(word).unwrap_err().to_string()
    }

    #[test]
    fn quota_is_changed_by_or_to_an_amount_in_the_units_of_the_kind() {
        let quota = |resource: &str, nominal| Change::Quota {
            queue: QueueName::from("vision"),
            resource: Resource::from(resource.to_owned()),
            nominal,
        };
        assert_eq!(parse("queue/vision:gpu/H100-80GB=+4"), Ok(quota("gpu/H100-80GB", Amount::By(4_000))));
        assert_eq!(parse("queue/vision:gpu=-1"), Ok(quota("gpu", Amount::By(-1_000))));
        assert_eq!(parse("queue/vision:cpu=64"), Ok(quota("cpu", Amount::To(64_000))));
        assert_eq!(parse("queue/vision:memory=1024"), Ok(quota("memory", Amount::To(1_024))));
    }

    #[test]
    fn nodes_come_go_and_are_drained() {
        let node = NodeName::from("box");
        assert_eq!(parse("node/box=+2"), Ok(Change::AddNodes { like: node.clone(), count: 2 }));
        assert_eq!(parse("node/box=drained"), Ok(Change::DrainNode { node: node.clone() }));
        assert_eq!(parse("node/box=removed"), Ok(Change::RemoveNode { node }));
        let new = Change::NewNodes { class: Class::from("H100-80GB"), gpus: 8, memory_mib: 81_920, count: 2 };
        assert_eq!(parse("nodes=+2x8xH100-80GB"), Ok(new));
    }

    #[test]
    fn jobs_and_the_policy_are_changed() {
        assert_eq!(parse("job/night:priority=-3"), Ok(Change::Priority { job: JobName::from("night"), priority: -3 }));
        assert_eq!(parse("job/night=removed"), Ok(Change::RemoveJob { name: JobName::from("night") }));
        let policy = |value| Ok(Change::Policy { field: "headroom_percent".to_owned(), value });
        assert_eq!(parse("policy:headroom_percent=10"), policy(10.into()));
        assert_eq!(parse("policy:headroom_percent=ten"), policy("ten".into()), "the engine tells what it can be");
    }

    #[test]
    fn a_word_that_is_no_change_is_refused_with_what_can_be_written() {
        for word in
            ["", "queue/vision", "queue/vision=+4", "queue/:gpu=1", "vision:gpu=1", "job/=removed", "pod/x=removed", "nodes/a=+1"]
        {
            assert!(refused(word).contains("is not a change; write queue/NAME:RESOURCE=+N"), "{}", refused(word));
        }
        assert_eq!(
            refused("queue/q:H100=1"),
            "\"queue/q:H100=1\": \"H100\" is not a resource; write gpu, gpu/CLASS, cpu or memory"
        );
        assert!(refused("queue/q:gpu=four").contains("\"four\" is not +N, -N or N"));
        assert!(refused("queue/q:gpu=9223372036854775807").contains("is not +N"), "it would not fit");
        assert!(refused("node/box=2").contains("\"2\" is not +N, drained or removed"));
        assert!(refused("nodes=+2x8xH100").contains("+2x8xH100-80GB"));
        assert!(refused("nodes=+2x8xH100-99999999GB").contains("+2x8xH100-80GB"));
        assert!(refused("job/night:priority=high").contains("\"high\" is not a whole number"));
        assert!(refused("job/night=paused").contains("priority=N"));
    }

    #[test]
    fn a_manifest_of_jobs_is_submitted_and_other_kinds_are_refused() {
        let document = |kind: &str, spec: &str| {
            format!("---\napiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n")
        };
        let ask = |text: &str| jobs(&manifest::parse(text, "x.yaml").unwrap(), "x.yaml");
        let submitted = ask(&document("TrainingJob", "{queue: q, template: {command: [a]}}")).unwrap();
        assert!(
            matches!(submitted.as_slice(), [Change::SubmitJob { name, spec }] if name.as_str() == "x" && spec.queue.as_str() == "q")
        );
        let error = ask(&document("Queue", "{nominal: 1}")).unwrap_err().to_string();
        assert!(error.starts_with("x.yaml: Queue/x cannot be asked about"), "{error}");
        assert!(ask("").unwrap_err().to_string().contains("holds no TrainingJob"));
    }

    #[test]
    fn a_request_is_bounded() {
        let request =
            |changes: usize, horizon_ms| Request { changes: vec![parse("job/a=removed").unwrap(); changes], horizon_ms };
        assert_eq!(request(MAX_CHANGES, MAX_HOURS * 3_600_000).check(), Ok(()));
        assert!(request(MAX_CHANGES + 1, 1).check().unwrap_err().starts_with("`changes` holds 1001"));
        assert!(request(1, u64::MAX).check().unwrap_err().starts_with("`horizon_ms` is"));
    }
}
