//! The pages of `docs/kinds/` are what the definitions say, and their examples are valid.

use std::path::{Path, PathBuf};

use super::*;
use crate::kinds::GpuNode;
use crate::manifest;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kinds")
}

fn pages() -> Vec<(String, String, String)> {
    let page = |definition: &CustomResourceDefinition| {
        let file = file(definition);
        let text = std::fs::read_to_string(folder().join(&file)).unwrap_or_else(|e| panic!("docs/kinds/{file}: {e}"));
        (definition.spec.names.kind.clone(), file, text)
    };
    definitions().iter().map(page).collect()
}

/// The YAML examples of a page.
fn examples(text: &str) -> Vec<&str> {
    text.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(yaml, _)| yaml)).collect()
}

#[test]
fn each_kind_has_a_page_and_it_is_not_stale() {
    for (kind, file, text) in pages() {
        let made = format!("<!-- begin reference -->\n{}<!-- end reference -->", page(&kind).unwrap());
        assert!(
            text.contains(&made),
            "docs/kinds/{file} is not what `tidegate crd --docs {kind}` prints; run `cargo xtask docs`"
        );
        assert!(text.starts_with(&format!("# {kind}\n")), "docs/kinds/{file}");
    }
    let mut files: Vec<String> = definitions().iter().map(file).collect();
    let mut there: Vec<String> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    there.sort();
    assert_eq!(there, files);
}

#[test]
fn each_page_has_an_example_that_is_accepted() {
    for (kind, file, text) in pages() {
        let examples = examples(&text);
        assert!(!examples.is_empty(), "docs/kinds/{file}");
        for yaml in examples {
            // Nobody writes a GpuNode by hand; it must be one for all that.
            if kind == "GpuNode" {
                let node: GpuNode = serde_yaml::from_str(yaml).unwrap();
                assert_eq!(node.status.unwrap().gpu_count, 1);
                continue;
            }
            let objects = manifest::parse(yaml, &file).unwrap();
            assert!(objects.iter().any(|object| object.kind() == kind), "docs/kinds/{file}");
        }
    }
}

#[test]
fn every_field_has_a_row_that_says_something() {
    for (kind, ..) in pages() {
        let page = page(&kind).unwrap();
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `s")).collect();
        for row in &rows {
            let cells = row.replace("\\|", "").matches('|').count();
            assert!(cells == 5 || cells == 4, "{kind}: {row}");
        }
        assert!(!page.contains("|  |\n"), "{kind} has a field without a description");
    }
    let queue = page("Queue").unwrap();
    for words in [
        "| `spec.weight` | integer | 1 to 1000; default `1` |",
        "| `spec.quotas` | list of object | at most 64 items |",
        "| `spec.quotas[].resource` | string | required; 3 to 67 characters |",
        "| `spec.discipline` | string | one of `StrictFifo`, `BestEffort`, `Responsive`; default `BestEffort` |",
        "has two quotas of one resource; keep one |",
        "It stands above namespaces.",
    ] {
        assert!(queue.contains(words), "{words} is not in\n{queue}");
    }
    assert!(page("GpuNode").unwrap().contains("| Health | string | `.status.health` |"));
    assert_eq!(page("Tenant"), None);
}

#[test]
fn what_only_kubernetes_needs_is_not_required() {
    for (kind, field) in [("Model", "spec.podSpec"), ("TrainingJob", "spec.template.podSpec")] {
        let page = page(kind).unwrap();
        let row = page.lines().find(|line| line.starts_with(&format!("| `{field}` |"))).unwrap();
        assert!(!row.contains("required"), "{row}");
    }
}
