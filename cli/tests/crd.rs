//! `tidegate crd` against what an API server demands of definitions before it takes them.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

fn printed() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("crd").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn definitions() -> Vec<Value> {
    serde_yaml::Deserializer::from_str(&printed()).map(|document| Value::deserialize(document).unwrap()).collect()
}

fn schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Calls `check` with the path and content of every schema of a definition.
fn walk(path: &str, schema: &Value, check: &mut impl FnMut(&str, &Value)) {
    check(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, check);
    }
    for (word, place) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[word].is_object() {
            walk(&format!("{path}{place}"), &schema[word], check);
        }
    }
}

fn rules(definition: &Value) -> Vec<String> {
    let mut rules = Vec::new();
    walk("", schema(definition), &mut |path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            assert!(rule["message"].is_string(), "{path}: a rule without a message says nothing to its user");
            rules.push(format!("{path}: {}", rule["rule"].as_str().unwrap()));
        }
    });
    rules
}

#[test]
fn the_chart_has_the_definitions_that_are_printed() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/tidegate/crds/tidegate.dev.yaml");
    assert!(
        std::fs::read_to_string(file).unwrap() == printed(),
        "{file} is not what `tidegate crd` prints: run `cargo xtask docs`"
    );
}

#[test]
fn each_kind_is_one_document_with_its_group_and_version() {
    let definitions = definitions();
    let kinds: Vec<_> = definitions.iter().map(|d| d["spec"]["names"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Pool", "Queue", "TrainingJob", "Model", "GpuNode"]);
    for definition in &definitions {
        assert_eq!(definition["apiVersion"], "apiextensions.k8s.io/v1");
        assert_eq!(definition["kind"], "CustomResourceDefinition");
        let plural = definition["spec"]["names"]["plural"].as_str().unwrap();
        assert_eq!(definition["metadata"]["name"], format!("{plural}.tidegate.dev"));
        assert_eq!(definition["spec"]["group"], "tidegate.dev");
        let version = &definition["spec"]["versions"][0];
        assert_eq!(version["name"], "v1alpha1");
        assert_eq!((&version["served"], &version["storage"]), (&Value::Bool(true), &Value::Bool(true)));
    }
}

#[test]
fn cluster_kinds_and_namespaced_kinds_are_told_apart() {
    let scopes: Vec<_> = definitions().iter().map(|d| d["spec"]["scope"].as_str().unwrap().to_owned()).collect();
    assert_eq!(scopes, ["Cluster", "Cluster", "Namespaced", "Namespaced", "Cluster"]);
}

#[test]
fn the_schemas_are_structural() {
    for definition in definitions() {
        walk("", schema(&definition), &mut |path, schema| {
            let kind = definition["metadata"]["name"].as_str().unwrap();
            assert!(schema["type"].is_string(), "{kind}{path}: every schema has one type");
            assert_ne!(schema["additionalProperties"], Value::Bool(false), "{kind}{path}");
            assert_ne!(schema["uniqueItems"], Value::Bool(true), "{kind}{path}");
            assert!(schema["$ref"].is_null(), "{kind}{path}: an API server follows no references");
            let both = schema["properties"].is_object() && schema["additionalProperties"].is_object();
            assert!(!both, "{kind}{path}: properties exclude additionalProperties");
        });
    }
}

#[test]
fn what_a_single_field_cannot_say_is_a_rule() {
    let definitions = definitions();
    let [queue, job, model] = [1, 2, 3].map(|kind| rules(&definitions[kind]));
    for (rules, rule) in [
        (
            &queue,
            ".spec.namespaceSelector.matchExpressions[]: !(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)",
        ),
        (&model, ".spec: !has(self.memory) || self.maxSharers > 1"),
        (&job, ".spec.workers: self.min <= self.max"),
        (&job, ".spec.groups[]: self.min <= self.max"),
        (&job, ".spec.queue: self != ''"),
        (&model, ".spec.replicas: self.min <= self.max"),
        (&model, ".spec.source.onnx: self != ''"),
    ] {
        assert!(rules.iter().any(|r| r == rule), "{rule} is not in {rules:#?}");
    }
}

#[test]
fn every_number_has_bounds() {
    for definition in definitions() {
        walk("", schema(&definition), &mut |path, schema| {
            let number = schema["type"] == "integer" || schema["type"] == "number";
            let bounded = schema["minimum"].is_number() && schema["maximum"].is_number();
            assert!(!number || bounded, "{}{path}", definition["metadata"]["name"]);
        });
    }
}

#[test]
fn every_text_list_and_map_has_bounds() {
    for definition in definitions() {
        walk("", schema(&definition), &mut |path, schema| {
            let name = &definition["metadata"]["name"];
            let bounded = |word: &str| schema[word].is_number();
            assert!(schema["type"] != "string" || schema["enum"].is_array() || bounded("maxLength"), "{name}{path}");
            assert!(schema["type"] != "array" || bounded("maxItems"), "{name}{path}");
            assert!(!schema["additionalProperties"].is_object() || bounded("maxProperties"), "{name}{path}");
        });
    }
}

#[test]
fn every_field_is_described() {
    for definition in definitions() {
        walk("", &schema(&definition)["properties"]["spec"], &mut |path, schema| {
            let leaf = path.ends_with("[]") || path.ends_with("{}");
            assert!(leaf || schema["description"].is_string(), "{}{path}", definition["metadata"]["name"]);
        });
    }
}

#[test]
fn the_page_of_a_kind_can_be_printed_and_of_no_other() {
    let run = |kind: &str| Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["crd", "--docs", kind]).output().unwrap();
    let page = run("Queue");
    assert!(page.status.success() && String::from_utf8(page.stdout).unwrap().contains("| `spec.weight` |"));
    assert_eq!(run("Tenant").status.code(), Some(64));
}
