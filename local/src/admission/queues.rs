//! Queues must be a tree: those that are applied together with those that are there.

use std::collections::BTreeMap;

use tidegate_api::convert;
use tidegate_api::manifest::{Object, Problem};
use tidegate_core::names::QueueName;
use tidegate_core::quota::{QueueQuota, QuotaError, Tree};

use crate::manifests::Sourced;
use crate::objects::Objects;

/// What keeps all queues from being a tree. A parent may come in the same files, before or after.
pub fn check(known: &Objects, new: &[Sourced]) -> Vec<Problem> {
    let mut queues: BTreeMap<QueueName, QueueQuota> = BTreeMap::new();
    let objects = known.iter().map(|stored| &stored.object).chain(new.iter().map(|sourced| &sourced.object));
    for object in objects {
        if let Object::Queue(queue) = object {
            let entry = entry(object.name(), &convert::queue(&queue.spec));
            queues.insert(entry.name.clone(), entry);
        }
    }
    let mut problems = Vec::new();
    while let Err(wrong) = Tree::build(0, queues.values().cloned().collect()) {
        let (culprit, problem) = told(&wrong, &queues, new);
        problems.push(problem);
        // The rest is looked at as if this one were right.
        match queues.get_mut(&culprit) {
            Some(queue) if queue.parent.is_some() => queue.parent = None,
            _ => break,
        }
    }
    problems
}

/// Quotas themselves are bounded by the schema; here it is about who is below whom.
fn entry(name: &str, queue: &tidegate_core::state::Queue) -> QueueQuota {
    let (parent, weight_milli) = (queue.parent.clone(), queue.weight_milli);
    QueueQuota { name: QueueName::from(name), parent, weight_milli, quotas: Vec::new() }
}

/// The queue that is wrong, and the sentence for whoever wrote it.
fn told(wrong: &QuotaError, queues: &BTreeMap<QueueName, QueueQuota>, new: &[Sourced]) -> (QueueName, Problem) {
    let text = wrong.to_string();
    let (queue, what, remedy) = match wrong {
        QuotaError::NoParent { queue, .. } => {
            (queue.clone(), "is not a Queue here".to_owned(), "apply a Queue of this name, or name another")
        }
        QuotaError::Cycle { queue, path } => (
            writer(path, new).unwrap_or_else(|| queue.clone()),
            format!("is below itself ({path})"),
            "give one of these another parent",
        ),
        QuotaError::NoWeight { queue } | QuotaError::Twice { queue } => (queue.clone(), text, "correct it"),
        _ => (QueueName::from(""), text, "correct it"),
    };
    let parent = queues.get(&queue).and_then(|queue| queue.parent.as_ref()).map(ToString::to_string);
    let file = new.iter().rev().find(|sourced| is(sourced, &queue.0)).map_or("ledger", |sourced| &sourced.file);
    let problem = Problem {
        file: file.to_owned(),
        subject: format!("Queue/{queue}"),
        field: "spec.parent".to_owned(),
        value: parent,
        what,
        remedy: remedy.to_owned(),
    };
    (queue, problem)
}

/// The first queue on a cycle that is being applied: its writer can correct it.
fn writer(path: &str, new: &[Sourced]) -> Option<QueueName> {
    path.split(" > ").find(|name| new.iter().any(|sourced| is(sourced, name))).map(QueueName::from)
}

fn is(sourced: &Sourced, queue: &str) -> bool {
    matches!(sourced.object, Object::Queue(_)) && sourced.object.name() == queue
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifests;

    fn queues(list: &[(&str, Option<&str>)], file: &str) -> Vec<Sourced> {
        let document = |(name, parent): &(&str, Option<&str>)| {
            let spec = parent.map_or("{nominal: 1}".to_owned(), |parent| format!("{{parent: {parent}}}"));
            format!("---\napiVersion: tidegate.dev/v1alpha1\nkind: Queue\nmetadata: {{name: {name}}}\nspec: {spec}\n")
        };
        manifests::parse(&list.iter().map(document).collect::<String>(), Path::new(file)).unwrap()
    }

    fn told(known: &[(&str, Option<&str>)], new: &[(&str, Option<&str>)]) -> Vec<String> {
        let mut objects = Objects::default();
        for sourced in queues(known, "/before.yaml") {
            objects.put(&sourced, 0).unwrap();
        }
        check(&objects, &queues(new, "/new.yaml")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_parent_may_be_there_or_come_later_in_the_same_files() {
        assert_eq!(told(&[("org", None)], &[("team", Some("org"))]), [""; 0]);
        assert_eq!(told(&[], &[("team", Some("org")), ("org", None)]), [""; 0]);
    }

    #[test]
    fn every_missing_parent_is_named_with_its_queue_and_the_remedy() {
        assert_eq!(
            told(&[], &[("a", Some("x")), ("b", Some("y")), ("c", None)]),
            [
                "/new.yaml: Queue/a: spec.parent (x) is not a Queue here; apply a Queue of this name, or name another",
                "/new.yaml: Queue/b: spec.parent (y) is not a Queue here; apply a Queue of this name, or name another",
            ]
        );
    }

    #[test]
    fn a_cycle_is_named_at_the_queue_that_is_being_applied() {
        let known = [("a", None), ("b", Some("a")), ("c", Some("b"))];
        let said = told(&known, &[("a", Some("c"))]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("/new.yaml: Queue/a: spec.parent (c) is below itself ("), "{said:?}");
        assert!(said[0].ends_with("; give one of these another parent"), "{said:?}");
        assert_eq!(told(&[], &[("self", Some("self"))]).len(), 1);
    }
}
