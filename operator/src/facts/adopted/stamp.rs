//! What is written on a suspended object to start it, to stop it and to give it back as it was.
//!
//! **Promise.** Its templates get the same marks at every start, and lose them whenever it waits: marks can be taken off again
//! without knowing what was there before.

use serde_json::{Value, json};
use tidegate_api::labels;

use super::group;
use crate::facts::adoption::Adoption;
use crate::facts::pointer::{child, map};
use crate::facts::seat::Seats;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Its pods come, and take these seats.
    Resume(Seats),
    /// Its pods end.
    Suspend,
    /// It waits, and is as its maker wrote it.
    Restore,
}

/// What pods of an object say of it.
pub(super) fn mark(adoption: &Adoption, name: &str, uid: &str) -> String {
    format!("{}/{name}/{uid}", adoption.name)
}

/// The mark that a template bears.
pub(super) fn mark_of(template: Option<&Value>) -> Option<&str> {
    template?.pointer("/metadata/annotations")?.get(labels::SEAT_OF)?.as_str()
}

impl Change {
    /// Bounded word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Resume(_) => "resume",
            Self::Suspend => "suspend",
            Self::Restore => "restore",
        }
    }

    /// Whether it touches pod templates: these are not to be changed while the object runs.
    pub fn is_of_templates(&self) -> bool {
        !matches!(self, Self::Suspend)
    }

    /// The object as it is to be. Fails if it cannot hold what it is to say.
    pub fn carry_out(&self, adoption: &Adoption, object: &mut Value) -> Result<(), String> {
        let text = |object: &Value, at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mark = mark(adoption, &text(object, "/metadata/name"), &text(object, "/metadata/uid"));
        let places: Vec<String> = adoption.templates(object).into_iter().map(|(at, _)| at).collect();
        let mut templates = |change: &dyn Fn(usize, &mut Value)| {
            for (number, at) in places.iter().enumerate() {
                if let Some(template) = object.pointer_mut(at) {
                    change(number, template);
                }
            }
        };
        match self {
            Self::Resume(seats) => {
                let seats = seats.text()?;
                templates(&|number, template| stamp(template, &mark, number));
                say(object, labels::SEATS, seats);
                adoption.suspend.set(object, json!(false));
            }
            Self::Suspend => {
                unsay(object, labels::SEATS);
                adoption.suspend.set(object, json!(true));
            }
            Self::Restore => {
                templates(&|_, template| unstamp(template));
                unsay(object, labels::SEATS);
            }
        }
        Ok(())
    }
}

fn stamp(template: &mut Value, mark: &str, number: usize) {
    say(template, labels::SEAT_OF, mark.to_owned());
    say(template, labels::GROUP, number.to_string());
    let Some(spec) = child(template, "spec").filter(|spec| !group::is_by_us(Some(spec))) else { return };
    let Some(gates) = child(spec, "schedulingGates") else { return };
    if !gates.is_array() {
        *gates = json!([]);
    }
    let gate = json!({"name": labels::SEAT_GATE});
    if let Some(gates) = gates.as_array_mut().filter(|gates| !gates.contains(&gate)) {
        gates.push(gate);
    }
}

fn unstamp(template: &mut Value) {
    unsay(template, labels::SEAT_OF);
    unsay(template, labels::GROUP);
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let Some(gates) = spec.get_mut("schedulingGates").and_then(Value::as_array_mut) else { return };
    gates.retain(|gate| gate.get("name").and_then(Value::as_str) != Some(labels::SEAT_GATE));
    if gates.is_empty() {
        spec.remove("schedulingGates");
    }
}

fn say(object: &mut Value, annotation: &str, value: String) {
    let annotations = child(object, "metadata").and_then(|metadata| child(metadata, "annotations")).and_then(map);
    if let Some(annotations) = annotations {
        annotations.insert(annotation.to_owned(), Value::String(value));
    }
}

fn unsay(object: &mut Value, annotation: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    annotations.remove(annotation);
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
}
