//! Tables: what Kueue has, what becomes of it, what is told. Everything that is written is read back by our own validation.

mod refused;
mod told;
mod written;

use tidegate_core::names::QueueName;
use tidegate_core::quota::{QueueQuota, Tree};

use super::*;
use crate::convert;
use crate::kinds::Queue;
use crate::manifest::{self, Object};

/// Objects in short: `ClusterQueue NAME SPEC`, a line each, with the spec in YAML's flow style.
fn yaml(objects: &str) -> String {
    let document = |line: &str| {
        let mut words = line.trim().splitn(3, ' ');
        let (kind, name, spec) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or("{}"));
        let (namespace, name) =
            name.split_once('/').map_or((String::new(), name), |(n, name)| (format!(", namespace: {n}"), name));
        let body = if kind == "WorkloadPriorityClass" {
            spec.trim_matches(['{', '}']).replace(", ", "\n")
        } else {
            format!("spec: {spec}")
        };
        format!("apiVersion: kueue.x-k8s.io/v1beta2\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\n{body}\n")
    };
    objects.lines().filter(|line| !line.trim().is_empty()).map(document).collect::<Vec<_>>().join("---\n")
}

fn import_text(text: &str) -> Result<Imported, Problems> {
    import(&[File { name: "k.yaml".to_owned(), text: text.to_owned() }])
}

/// Imports and proves what is promised of every output: our validation takes it, it is a tree, remarks are in it.
fn good(text: &str) -> (Vec<Queue>, Vec<String>) {
    let Imported { yaml, told } = import_text(text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let objects = manifest::parse(&yaml, "out.yaml").unwrap_or_else(|problems| panic!("{problems}\n{yaml}"));
    let queues: Vec<Queue> = objects
        .into_iter()
        .map(|object| match object {
            Object::Queue(queue) => queue,
            other => panic!("{}", other.kind()),
        })
        .collect();
    assert!(queues.is_empty() || told.iter().all(|line| yaml.contains(&format!("# {line}\n"))), "{told:?}\n{yaml}");
    let tree = queues.iter().map(|queue| {
        let parent = queue.spec.parent.as_deref().map(QueueName::from);
        let engine = convert::queue(&queue.spec);
        let name = QueueName::from(queue.metadata.name.clone().unwrap());
        QueueQuota { name, parent, weight_milli: engine.weight_milli, quotas: Vec::new() }
    });
    Tree::build(0, tree.collect()).unwrap();
    (queues, told)
}

/// Of a queue what a table shows: `name<parent quotas more`.
fn short(queue: &Queue) -> String {
    let limit = |sign: &str, limit: Option<u64>| limit.map(|limit| format!("{sign}{limit}")).unwrap_or_default();
    let spec = &queue.spec;
    let quota = |q: &crate::kinds::ResourceQuota| {
        format!(" {}={}{}{}", q.resource, q.nominal, limit("+", q.borrowing_limit), limit("-", q.lending_limit))
    };
    let parent = spec.parent.as_ref().map(|parent| format!("<{parent}")).unwrap_or_default();
    let mut text = format!("{}{parent}", queue.metadata.name.clone().unwrap());
    text.extend(spec.quotas.iter().map(quota));
    if (spec.weight, spec.priority) != (1, 0) {
        text.extend([format!(" w{}p{}", spec.weight, spec.priority)]);
    }
    if spec.discipline != crate::kinds::Discipline::BestEffort {
        text.extend([format!(" {:?}", spec.discipline)]);
    }
    text
}
