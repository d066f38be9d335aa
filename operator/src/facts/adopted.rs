//! An object that is suspended until its turn comes (a Job, a `JobSet` ...): what its pods will ask for, and how it stands.

mod group;
mod stamp;

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;
use tidegate_api::labels;
use tidegate_core::time::At;

use super::PodKey;
use super::adoption::{Adoption, Adoptions};
use super::gang::MOST_GANG;
use super::seat::Seats;
pub use group::Group;
pub use stamp::Change;

/// Conditions that say that it is over, and those of them that say that it is well.
const OVER: [&str; 6] = ["Complete", "Completed", "Succeeded", "SuccessCriteriaMet", "Failed", "FailureTarget"];
const WELL: usize = 4;

/// An object of an adopted kind.
#[derive(Clone, Debug)]
pub struct AdoptedFacts {
    pub adoption: &'static Adoption,
    /// `KIND.GROUP/NAMESPACE/NAME`.
    pub name: Arc<str>,
    pub key: PodKey,
    pub uid: String,
    pub resource_version: String,
    pub created: At,
    /// It was deleted, and something keeps it.
    pub ending: bool,
    pub suspended: bool,
    /// It is over; whether it ended well.
    pub end: Option<bool>,
    /// Where it waits. Absent: it is not ours to start.
    pub queue: Option<QueueWish>,
    /// Kueue's class of its priority.
    pub priority_class: Option<String>,
    /// What it asks for, or why it cannot be started as it is written.
    pub groups: Result<Vec<Group>, String>,
    /// A template of it bears marks of ours, be they of an object that it is a copy of.
    pub stamped: bool,
    /// Where its pods may be: while it runs.
    pub seats: Option<Seats>,
}

/// How an object names its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueWish {
    Queue(String),
    /// A `LocalQueue` of Kueue's.
    Local(String),
}

impl AdoptedFacts {
    /// What the object says.
    pub fn of(object: &DynamicObject, adoption: &'static Adoption, all: &Adoptions) -> Self {
        let key = PodKey::new(&object.namespace().unwrap_or_default(), &object.name_any());
        let uid = object.uid().unwrap_or_default();
        let label = |name: &str| object.labels().get(name).filter(|value| !value.is_empty()).cloned();
        let kueue = |name: &str| label(name).filter(|_| all.kueue);
        let queue = label(labels::QUEUE).map(QueueWish::Queue).or_else(|| kueue(labels::KUEUE_QUEUE).map(QueueWish::Local));
        let controlled = is_controlled(object, all);
        let queue = queue.filter(|_| !controlled);
        let templates = adoption.templates(&object.data);
        let mark = stamp::mark(adoption, key.name(), &uid);
        let marks = || templates.iter().map(|(at, _)| stamp::mark_of(object.data.pointer(at)));
        let own = !templates.is_empty() && marks().all(|found| found == Some(&mark));
        let seats = object.annotations().get(labels::SEATS).filter(|_| own);
        let created = object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond());
        Self {
            adoption,
            name: Arc::from(format!("{}/{key}", adoption.name)),
            resource_version: object.resource_version().unwrap_or_default(),
            created: At(u64::try_from(created).unwrap_or(0)),
            ending: object.metadata.deletion_timestamp.is_some(),
            suspended: adoption.suspend.is_true(&object.data),
            end: end(object.data.get("status")),
            priority_class: kueue(labels::KUEUE_PRIORITY),
            // Nobody asks what it asks for if it is not ours.
            groups: if queue.is_some() { groups(object, adoption, &templates, all.kueue) } else { Ok(Vec::new()) },
            // What it makes has its marks too.
            stamped: !controlled && marks().any(|found| found.is_some()),
            seats: seats.and_then(|text| Seats::read(text)),
            queue,
            key,
            uid,
        }
    }

    /// Whether anything is to be done about it.
    pub fn concerns_us(&self) -> bool {
        self.end.is_none() && (self.stamped || (self.queue.is_some() && self.suspended))
    }
}

/// What another object of these kinds makes is started with that.
fn is_controlled(object: &DynamicObject, all: &Adoptions) -> bool {
    let mut owners = object.owner_references().iter().filter(|owner| owner.controller == Some(true));
    owners.any(|owner| all.kinds.iter().any(|kind| kind.is(&owner.api_version, &owner.kind)))
}

fn groups(object: &DynamicObject, adoption: &Adoption, templates: &[(String, u64)], kueue: bool) -> Result<Vec<Group>, String> {
    let left = left(adoption, &object.data);
    let group = |(at, count): &(String, u64)| {
        let template = object.data.pointer(at).filter(|template| template.is_object());
        let template = template.ok_or_else(|| format!("{at}: there is no pod template"))?;
        Group::of(object, template, u32::try_from((*count).min(left)).unwrap_or(u32::MAX), kueue)
            .map_err(|problem| format!("{at}: {problem}"))
    };
    let groups: Vec<Group> = templates.iter().map(group).collect::<Result<_, _>>()?;
    let pods: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
    if groups.is_empty() {
        return Err("it has no pod template: give it one".to_owned());
    }
    if pods > u64::from(MOST_GANG) {
        return Err(format!("it has {pods} pods at once, and {MOST_GANG} can be started together: give it fewer"));
    }
    Ok(groups)
}

/// Pods of a Job that have not succeeded yet: it makes no others.
fn left(adoption: &Adoption, data: &Value) -> u64 {
    let number = |at: &str| data.pointer(at).and_then(Value::as_u64);
    let completions = number("/spec/completions").filter(|_| adoption.is_job());
    completions.map_or(u64::MAX, |all| all.saturating_sub(number("/status/succeeded").unwrap_or(0)))
}

fn end(status: Option<&Value>) -> Option<bool> {
    let status = status?;
    let said = |at: &str| status.get(at).and_then(Value::as_str);
    // Ray's jobs have a word of their own for it.
    if let Some("Complete" | "Failed") = said("jobDeploymentStatus") {
        return Some(said("jobStatus") == Some("SUCCEEDED"));
    }
    let conditions = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
    let holds = conditions.filter(|one| one.get("status").and_then(Value::as_str) == Some("True"));
    let kinds = holds.filter_map(|one| one.get("type").and_then(Value::as_str));
    let over = kinds.filter_map(|kind| OVER.iter().position(|over| *over == kind)).max()?;
    Some(over < WELL)
}

#[cfg(test)]
mod tests;
