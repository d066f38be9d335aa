//! YAML texts as single objects with their places: lists, as `kubectl get -o yaml` prints them, are taken apart.

use serde::Deserialize;
use serde_json::Value;

use super::File;
use crate::manifest::{self, Problem};

/// One object as it was written, without its nulls, which Kubernetes reads as absent fields.
#[derive(Clone, Debug)]
pub struct Document {
    /// File and number, for people.
    pub place: String,
    pub value: Value,
}

impl Document {
    /// A text at the top of the object.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.value.get(field).and_then(Value::as_str)
    }

    /// A text of the object's metadata.
    pub fn meta(&self, field: &str) -> Option<&str> {
        self.value.get("metadata").and_then(|meta| meta.get(field)).and_then(Value::as_str)
    }

    /// `Kind/name`, with the namespace in between if there is one; nothing without a kind.
    pub fn subject(&self) -> String {
        let Some(kind) = self.text("kind") else { return String::new() };
        let namespace = self.meta("namespace").map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{kind}/{namespace}{}", self.meta("name").unwrap_or("?"))
    }

    /// Something wrong with a field of it.
    pub fn problem(&self, field: &str, what: &str, remedy: &str) -> Problem {
        Problem {
            file: self.place.clone(),
            subject: self.subject(),
            field: field.to_owned(),
            value: manifest::at(&self.value, field).filter(|_| !field.is_empty()),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    /// Something that a field of it loses. Only a plain value is repeated.
    pub fn remark(&self, field: &str, what: &str, remedy: &str) -> Problem {
        let problem = self.problem(field, what, remedy);
        let value = problem.value.filter(|value| !value.starts_with(['{', '[']));
        Problem { value, ..problem }
    }
}

/// Every object of every file.
pub fn documents(files: &[File], problems: &mut Vec<Problem>) -> Vec<Document> {
    let mut found = Vec::new();
    for File { name, text } in files {
        for (number, document) in (1..).zip(serde_yaml::Deserializer::from_str(text)) {
            match Value::deserialize(document) {
                Ok(value) => split(format!("{name}, document {number}"), value, &mut found),
                // A broken document ends the stream: what follows cannot be told apart.
                Err(e) => {
                    let file = format!("{name}, document {number}");
                    problems.push(Problem::of_file(&file, &format!("is not YAML: {e}"), "correct the syntax"));
                    break;
                }
            }
        }
    }
    found
}

/// A list's items one by one, each document that is none as it is. An empty document is nothing.
fn split(place: String, mut value: Value, found: &mut Vec<Document>) {
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    if is_list && let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) {
        let items = (1..).zip(items).map(|(number, item)| (format!("{place}, item {number}"), item));
        found.extend(items.map(|(place, value)| Document { place, value: without_nulls(value) }));
    } else if !value.is_null() {
        found.push(Document { place, value: without_nulls(value) });
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, field)| !field.is_null()).map(|(key, field)| (key, without_nulls(field))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
