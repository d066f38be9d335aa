//! The schema's bounds (ranges, lengths), which Kubernetes checks at admission, checked on a document.

use serde_json::Value;

/// Every bound of a kind's schema that `value` breaks: field, what, remedy.
pub fn check(schema: &Value, value: &Value) -> Vec<(String, String, String)> {
    let mut broken = Vec::new();
    if let Some(spec) = value.get("spec") {
        walk(schema, spec, "spec", &mut broken);
    }
    broken
}

fn walk(schema: &Value, value: &Value, path: &str, broken: &mut Vec<(String, String, String)>) {
    let mut add = |what: String, remedy: String| broken.push((path.to_owned(), what, remedy));
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    if let Some(number) = value.as_f64() {
        if let Some(minimum) = bound("minimum").filter(|minimum| number < *minimum) {
            add(format!("is below the minimum {minimum}"), format!("write at least {minimum}"));
        }
        if let Some(maximum) = bound("maximum").filter(|maximum| number > *maximum) {
            add(format!("is above the maximum {maximum}"), format!("write at most {maximum}"));
        }
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if let Some(least) = schema.get("minLength").and_then(Value::as_u64).filter(|least| length < *least) {
            add(format!("has {length} characters"), format!("write at least {least}"));
        }
        if let Some(most) = schema.get("maxLength").and_then(Value::as_u64).filter(|most| length > *most) {
            add(format!("has {length} characters"), format!("write at most {most}"));
        }
    }
    if let Some(count) = value.as_object().map(|fields| fields.len() as u64)
        && let Some(most) = schema.get("maxProperties").and_then(Value::as_u64).filter(|most| count > *most)
    {
        add(format!("has {count} entries"), format!("write at most {most}"));
    }
    if let Some(items) = value.as_array() {
        let count = items.len();
        if let Some(least) = schema.get("minItems").and_then(Value::as_u64).filter(|least| (count as u64) < *least) {
            add(format!("has {count} items"), format!("write at least {least}"));
        }
        if let Some(most) = schema.get("maxItems").and_then(Value::as_u64).filter(|most| count as u64 > *most) {
            add(format!("has {count} items"), format!("write at most {most}"));
        }
        for (index, item) in items.iter().enumerate() {
            walk(schema.get("items").unwrap_or(&Value::Null), item, &format!("{path}[{index}]"), broken);
        }
    }
    if let Some(fields) = value.as_object() {
        for (key, item) in fields {
            let known = schema.get("properties").and_then(|properties| properties.get(key));
            let inner = known.or_else(|| schema.get("additionalProperties")).unwrap_or(&Value::Null);
            walk(inner, item, &format!("{path}.{key}"), broken);
        }
    }
}
