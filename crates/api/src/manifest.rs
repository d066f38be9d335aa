//! YAML documents to validated objects. Everything that one document alone can get wrong is found
//! here, all of it at once, each with file, field, value and remedy.

mod bounds;
mod problem;
mod schemas;

pub use problem::{Problem, Problems};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::cel::validate_compiled;
use kube::{CustomResourceExt, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kinds::{GROUP, Model, Pool, Queue, TrainingJob, VERSION};

/// A validated object.
#[derive(Clone, Debug)]
pub enum Object {
    Pool(Pool),
    Queue(Queue),
    TrainingJob(Box<TrainingJob>),
    Model(Box<Model>),
}

/// The kinds, as a user writes them.
pub const KINDS: [&str; 4] = ["Pool", "Queue", "TrainingJob", "Model"];

/// The namespace of what names none.
const DEFAULT_NAMESPACE: &str = "default";

/// A name is part of file names, labels and metrics: a DNS label, as Kubernetes asks.
pub(crate) const MAX_NAME: usize = 63;
/// What to write where a DNS label is asked for.
const LABEL: &str = "use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit";

impl Object {
    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pool(_) => "Pool",
            Self::Queue(_) => "Queue",
            Self::TrainingJob(_) => "TrainingJob",
            Self::Model(_) => "Model",
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    /// Whether it uses devices of a queue; only such objects are in a namespace.
    pub fn is_work(&self) -> bool {
        matches!(self, Self::TrainingJob(_) | Self::Model(_))
    }

    /// Where it was submitted: `default` if it does not say.
    pub fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Pool(object) => object.meta(),
            Self::Queue(object) => object.meta(),
            Self::TrainingJob(object) => object.meta(),
            Self::Model(object) => object.meta(),
        }
    }

    /// As JSON, in the shape in which it was written.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::Pool(object) => serde_json::to_string(object),
            Self::Queue(object) => serde_json::to_string(object),
            Self::TrainingJob(object) => serde_json::to_string(object),
            Self::Model(object) => serde_json::to_string(object),
        }
    }
}

/// Reads every document of `text`; `file` is only named in errors. Either all are valid or the problems of all are told.
pub fn parse(text: &str, file: &str) -> Result<Vec<Object>, Problems> {
    let mut objects = Vec::new();
    let mut problems = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        match Value::deserialize(document) {
            Ok(Value::Null) => {}
            Ok(value) => match object(&value, file) {
                Ok(object) => objects.push(object),
                Err(found) => problems.extend(found),
            },
            // A broken document ends the stream: what follows cannot be told apart.
            Err(e) => {
                problems.push(Problem::of_file(file, &format!("is not YAML: {e}"), "correct the syntax"));
                break;
            }
        }
    }
    if problems.is_empty() { Ok(objects) } else { Err(Problems(problems)) }
}

fn object(value: &Value, file: &str) -> Result<Object, Vec<Problem>> {
    let found = |field: &str| value.get(field).map(ToString::to_string);
    let problem = |field: &str, what: &str, remedy: &str| {
        let subject = value.get("kind").and_then(Value::as_str).unwrap_or("document").to_owned();
        vec![Problem {
            file: file.to_owned(),
            subject,
            field: field.to_owned(),
            value: found(field),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        }]
    };
    let expected = format!("{GROUP}/{VERSION}");
    if value.get("apiVersion").and_then(Value::as_str) != Some(&expected) {
        return Err(problem("apiVersion", "is not one that this version knows", &format!("write `apiVersion: {expected}`")));
    }
    match value.get("kind").and_then(Value::as_str) {
        Some("Pool") => read::<Pool>(value, file).map(Object::Pool),
        Some("Queue") => read::<Queue>(value, file).map(Object::Queue),
        Some("TrainingJob") => read::<TrainingJob>(value, file).map(|job| Object::TrainingJob(Box::new(job))),
        Some("Model") => read::<Model>(value, file).map(|model| Object::Model(Box::new(model))),
        _ => Err(problem("kind", "is not a kind of Tidegate", &format!("write one of {}", KINDS.join(", ")))),
    }
}

fn read<K>(value: &Value, file: &str) -> Result<K, Vec<Problem>>
where
    K: DeserializeOwned + Serialize + CustomResourceExt,
{
    let subject = subject(value);
    let problem = |field: &str, found: Option<String>, what: String, remedy: String| Problem {
        file: file.to_owned(),
        subject: subject.clone(),
        field: field.to_owned(),
        value: found,
        what,
        remedy,
    };
    let mut problems: Vec<Problem> =
        metadata::<K>(value).into_iter().map(|(field, what, remedy)| problem(&field, at(value, &field), what, remedy)).collect();
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let parsed: Result<K, _> = serde_ignored::deserialize(tracked, |path| unknown.push(readable(&path.to_string())));
    // They chose `K`, whose deserialisation does not look at them again.
    unknown.retain(|field| !["apiVersion", "kind"].contains(&field.as_str()));
    for field in unknown {
        let remedy = "remove it, or correct its name (`tidegate crd` prints the fields)".to_owned();
        problems.push(problem(&field, at(value, &field), "is not a field of this kind".to_owned(), remedy));
    }
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(e) => {
            let field = readable(&track.path().to_string());
            let remedy = "see `tidegate crd` for its type".to_owned();
            problems.push(problem(&field, at(value, &field), e.to_string(), remedy));
            return Err(problems);
        }
    };
    // As it will be stored, so that rules see defaults.
    let (Some(schema), Ok(stored)) = (schemas::of::<K>(), serde_json::to_value(&parsed)) else {
        problems.push(problem("", None, "cannot be checked".to_owned(), "report this".to_owned()));
        return Err(problems);
    };
    for (field, what, remedy) in bounds::check(&schema.spec, value) {
        problems.push(problem(&field, at(value, &field), what, remedy));
    }
    if let Err(broken) = validate_compiled(&schema.rules, &stored, None) {
        for rule in broken.as_slice() {
            let (what, remedy) = rule.message.split_once("; ").unwrap_or((&rule.message, "correct it"));
            problems.push(problem(&rule.field_path, at(value, &rule.field_path), what.to_owned(), remedy.to_owned()));
        }
    }
    if problems.is_empty() { Ok(parsed) } else { Err(problems) }
}

/// `Kind/name` as far as the document says.
fn subject(value: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("?").to_owned();
    format!("{}/{}", text(value.get("kind")), text(value.get("metadata").and_then(|meta| meta.get("name"))))
}

/// `k8s-openapi` accepts any metadata: what is not acted on is refused here.
fn metadata<K: CustomResourceExt>(value: &Value) -> Vec<(String, String, String)> {
    let mut problems = Vec::new();
    let mut add = |field: &str, what: &str, remedy: &str| problems.push((field.to_owned(), what.to_owned(), remedy.to_owned()));
    let Some(meta) = value.get("metadata").and_then(Value::as_object) else {
        add("metadata", "is missing", "write `metadata: {name: NAME}`");
        return problems;
    };
    let name = meta.get("name").and_then(Value::as_str).unwrap_or_default();
    if !is_label(name) {
        add("metadata.name", "is not a DNS label", LABEL);
    }
    if let Some(namespace) = meta.get("namespace").map(|namespace| namespace.as_str().unwrap_or_default()) {
        if !is_label(namespace) {
            add("metadata.namespace", "is not a DNS label", LABEL);
        } else if K::crd().spec.scope == "Cluster" && namespace != DEFAULT_NAMESPACE {
            add("metadata.namespace", "is given, but this kind stands above namespaces", "remove it");
        }
    }
    for key in meta.keys().filter(|key| !["name", "namespace", "labels", "annotations"].contains(&key.as_str())) {
        add(&format!("metadata.{key}"), "is not acted on", "remove it");
    }
    problems
}

/// A DNS label.
pub(crate) fn is_label(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(good) && !text.starts_with('-') && !text.ends_with('-')
}

/// serde's `.spec.x` and `?` for optional values, as a user would write the path.
pub(crate) fn readable(path: &str) -> String {
    path.split('.').filter(|part| !part.is_empty() && *part != "?").collect::<Vec<_>>().join(".")
}

/// The value at `a.b[0].c`, as JSON.
pub(crate) fn at(value: &Value, path: &str) -> Option<String> {
    let mut here = value;
    for part in path.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        here = part.parse::<usize>().ok().and_then(|index| here.get(index)).or_else(|| here.get(part))?;
    }
    Some(here.to_string())
}

#[cfg(test)]
mod tests;
