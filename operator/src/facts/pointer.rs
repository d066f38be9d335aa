//! JSON pointers with at most one `*`, which stands for each element of a list or a map.

use std::fmt;

use serde_json::{Map, Value};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// Up to the list or map, or all of it.
    before: String,
    /// What follows an element.
    after: Option<String>,
}

impl Pointer {
    /// As it is written.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') || text.contains("//") || text.ends_with('/') {
            return Err(format!("`{text}` is no pointer: let it begin with `/` and leave no part empty, as /spec/template"));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let mut sides = parts.split(|part| *part == "*").map(|side| side.join("/"));
        let (before, after) = (sides.next().unwrap_or_default(), sides.next());
        if sides.next().is_some() {
            return Err(format!("`{text}` goes through more than one list: give at most one `*`"));
        }
        let after = after.map(|after| if after.is_empty() { after } else { format!("/{after}") });
        Ok(Self { before, after })
    }

    pub fn is_many(&self) -> bool {
        self.after.is_some()
    }

    /// Both go through the same list.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.is_many() && other.is_many() && self.before == other.before
    }

    /// Elements of its list or map, as parts of a pointer; one without a name if there is no `*`.
    pub fn elements(&self, object: &Value) -> Vec<String> {
        if self.after.is_none() {
            return vec![String::new()];
        }
        match object.pointer(&self.before) {
            Some(Value::Array(all)) => (0..all.len()).map(|index| index.to_string()).collect(),
            Some(Value::Object(all)) => all.keys().map(|key| key.replace('~', "~0").replace('/', "~1")).collect(),
            _ => Vec::new(),
        }
    }

    /// The plain pointer into an element.
    pub fn of(&self, element: &str) -> String {
        match &self.after {
            Some(after) => format!("{}/{element}{after}", self.before),
            None => self.before.clone(),
        }
    }

    /// Whether it points to `true`.
    pub fn is_true(&self, object: &Value) -> bool {
        object.pointer(&self.before).and_then(Value::as_bool) == Some(true)
    }

    /// Sets what it points to, with what is missing on the way. One with a `*` sets nothing.
    pub fn set(&self, object: &mut Value, value: Value) {
        let Some((parent, last)) = self.before.rsplit_once('/').filter(|_| self.after.is_none()) else { return };
        let mut parts = parent.split('/').skip(1);
        if let Some(all) = parts.try_fold(object, child).and_then(map) {
            all.insert(last.to_owned(), value);
        }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.after {
            Some(after) => write!(f, "{}/*{after}", self.before),
            None => f.write_str(&self.before),
        }
    }
}

/// A field of an object, made if it is missing.
pub fn child<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    Some(map(object)?.entry(key).or_insert(Value::Null))
}

/// The object that a value is; one that is none becomes an empty one.
pub fn map(value: &mut Value) -> Option<&mut Map<String, Value>> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_star_stands_for_each_element_of_a_list_or_a_map() {
        let pointer = Pointer::parse("/spec/all/*/pod").unwrap();
        let of = |object: Value| pointer.elements(&object).iter().map(|element| pointer.of(element)).collect::<Vec<_>>();
        assert_eq!(of(json!({"spec": {"all": [1, 2]}})), ["/spec/all/0/pod", "/spec/all/1/pod"]);
        assert_eq!(of(json!({"spec": {"all": {"a~b": 1}}})), ["/spec/all/a~0b/pod"]);
        assert!(of(json!({"spec": {"all": 3}})).is_empty() && of(json!({})).is_empty());
        assert_eq!(pointer.to_string(), "/spec/all/*/pod");
        let plain = Pointer::parse("/spec/pod").unwrap();
        assert_eq!(plain.elements(&json!({})).iter().map(|element| plain.of(element)).collect::<Vec<_>>(), ["/spec/pod"]);
    }

    #[test]
    fn a_field_is_set_with_all_that_leads_to_it() {
        let mut object = json!({"spec": {"policy": null, "kept": 1}});
        Pointer::parse("/spec/policy/suspend").unwrap().set(&mut object, json!(true));
        assert_eq!(object, json!({"spec": {"policy": {"suspend": true}, "kept": 1}}));
    }
}
