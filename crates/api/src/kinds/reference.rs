//! A page for each kind, made of its definition: what `docs/kinds/` shows between its marks.
//!
//! The definition is what an API server enforces, so that the page cannot promise anything else. `tidegate crd --docs KIND`
//! prints it, `cargo xtask docs` writes it into the page.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::definitions;

/// The made part of the page of a kind in Markdown; none if there is no such kind.
pub fn page(kind: &str) -> Option<String> {
    let definition = definitions().into_iter().find(|definition| definition.spec.names.kind == kind)?;
    let definition = serde_json::to_value(&definition).ok()?;
    let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema")?;
    let parts = [introduction(&definition, schema), fields(schema), rules(schema), columns(&definition)];
    Some(parts.into_iter().collect::<Vec<_>>().join("\n"))
}

/// The file of a kind below `docs/kinds/`: its name in small letters, words apart.
pub fn file(definition: &CustomResourceDefinition) -> String {
    let mut name = String::new();
    for c in definition.spec.names.kind.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
    }
    name + ".md"
}

fn introduction(definition: &Value, schema: &Value) -> String {
    let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let description = schema.pointer("/properties/spec/description").and_then(Value::as_str).unwrap_or_default();
    let scope = if text("/spec/scope") == "Cluster" { "stands above namespaces" } else { "is in a namespace" };
    format!(
        "{description}\n\n`apiVersion: {}/{}`, `kind: {}`. It {scope}. `kubectl get {}` lists them.\n",
        text("/spec/group"),
        text("/spec/versions/0/name"),
        text("/spec/names/kind"),
        text("/spec/names/plural"),
    )
}

/// A table for what its user writes, and one for what is written for him.
fn fields(schema: &Value) -> String {
    let tables = ["spec", "status"].map(|part| {
        let mut rows = String::new();
        if let Some(part_schema) = schema.pointer(&format!("/properties/{part}")) {
            walk(part, part_schema, false, &mut |path, schema, required| {
                if path != part && !path.ends_with("[]") && !path.ends_with("{}") {
                    rows.push_str(&row(path, schema, required));
                }
            });
        }
        if rows.is_empty() { String::new() } else { format!("## Fields of `{part}`\n\n{HEAD}{rows}\n") }
    });
    let tables = tables.concat();
    tables.trim_end_matches('\n').to_owned() + "\n"
}

const HEAD: &str = "| field | type | may be | says |\n|---|---|---|---|\n";

fn row(path: &str, schema: &Value, required: bool) -> String {
    let says = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    format!("| `{path}` | {} | {} | {} |\n", kind_of(schema), bounds(schema, required), cell(says))
}

/// Visits every schema below one with its path and whether it must be there.
fn walk(path: &str, schema: &Value, required: bool, visit: &mut impl FnMut(&str, &Value, bool)) {
    visit(path, schema, required);
    let must = schema.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let required = must.iter().any(|field| field.as_str() == Some(name));
        walk(&format!("{path}.{name}"), property, required, visit);
    }
    for (word, place) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(word).filter(|inner| inner.is_object()) {
            walk(&format!("{path}{place}"), inner, false, visit);
        }
    }
}

fn kind_of(schema: &Value) -> String {
    let of = |word: &str| schema.get(word).filter(|inner| inner.is_object()).map(kind_of);
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => format!("list of {}", of("items").unwrap_or_default()),
        Some("object") => of("additionalProperties").map_or_else(|| "object".to_owned(), |values| format!("map to {values}")),
        other => other.unwrap_or("any").to_owned(),
    }
}

/// Everything that an API server checks of one value, then what it is when it is left out.
fn bounds(schema: &Value, required: bool) -> String {
    let mut all = Vec::new();
    if required {
        all.push("required".to_owned());
    }
    let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter(|value| !value.is_null());
    let values: Vec<String> = values.map(code).collect();
    if !values.is_empty() {
        all.push(format!("one of {}", values.join(", ")));
    }
    let ranges = [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " entries"),
    ];
    all.extend(ranges.iter().filter_map(|(least, most, unit)| range(schema.get(*least), schema.get(*most), unit)));
    if let Some(pattern) = schema.get("pattern") {
        all.push(format!("matches {}", code(pattern)));
    }
    for (word, each) in [("items", "each"), ("additionalProperties", "each value")] {
        let inner = schema.get(word).filter(|inner| inner.is_object()).map(|inner| bounds(inner, false)).unwrap_or_default();
        if !inner.is_empty() {
            all.push(format!("{each}: {inner}"));
        }
    }
    if let Some(default) = schema.get("default") {
        all.push(format!("default {}", code(default)));
    }
    all.join("; ")
}

fn range(least: Option<&Value>, most: Option<&Value>, unit: &str) -> Option<String> {
    let number =
        |value: &Value| value.as_f64().filter(|number| number.fract() == 0.0).map_or(value.to_string(), |n| format!("{n}"));
    match (least.map(number), most.map(number)) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (Some(least), None) => Some(format!("at least {least}{unit}")),
        (None, Some(most)) => Some(format!("at most {most}{unit}")),
        (None, None) => None,
    }
}

/// What must hold beside the table, each with what is said when it does not.
fn rules(schema: &Value) -> String {
    let mut rows = Vec::new();
    walk("", schema, false, &mut |path, schema, _| {
        for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
            let text = |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or_default();
            let path = match path.trim_start_matches('.') {
                "" => "the object".to_owned(),
                path => format!("`{path}`"),
            };
            rows.push(format!("| {path} | `{}` | {} |\n", cell(text("rule")), cell(text("message"))));
        }
    });
    if rows.is_empty() {
        return "## Rules\n\nNone beside the table.\n".to_owned();
    }
    let rows = rows.concat();
    format!(
        "## Rules\n\nWho breaks one is refused, by an API server and by `tidegate up` alike, with the message; what may not change \
         (`oldSelf`) only an API server looks at.\n\n\
         | field | holds (CEL; `self` is the field, `oldSelf` what it was) | message |\n|---|---|---|\n{rows}"
    )
}

fn columns(definition: &Value) -> String {
    let columns = definition.pointer("/spec/versions/0/additionalPrinterColumns").and_then(Value::as_array);
    let columns: &[Value] = columns.map(Vec::as_slice).unwrap_or_default();
    if columns.is_empty() {
        return "## Columns of `kubectl get`\n\nName and age.\n".to_owned();
    }
    let text = |column: &Value, field: &str| column.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let rows = columns
        .iter()
        .map(|column| format!("| {} | {} | `{}` |\n", text(column, "name"), text(column, "type"), text(column, "jsonPath")));
    format!("## Columns of `kubectl get`\n\n| column | type | shows |\n|---|---|---|\n{}", rows.collect::<Vec<_>>().concat())
}

/// A value as JSON in a table.
fn code(value: &Value) -> String {
    format!("`{}`", cell(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
}

/// Text in one cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
