//! What the documentation promises about the code is so.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

/// Quoted texts of a source that begin with `prefix` and are made of name characters.
fn quoted(text: &str, prefix: &str) -> Vec<String> {
    let name = |text: &&str| text.starts_with(prefix) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    text.split('"').filter(name).map(str::to_owned).collect()
}

#[test]
fn every_metric_of_the_code_is_documented_and_no_other() {
    let mut named = BTreeSet::new();
    for (part, prefix) in [
        ("local", "tidegate_world_"),
        ("router", "tidegate_router_"),
        ("operator", "tidegate_operator_"),
        ("node-agent", "tidegate_node_agent_"),
        ("node-agent", "DCGM_FI_"),
    ] {
        let mut files = Vec::new();
        sources(&root().join(part).join("src"), &mut files);
        for file in files {
            let found = quoted(&std::fs::read_to_string(file).unwrap(), prefix);
            // dcgm-exporter gives the driver's version as a label of that name.
            named.extend(found.into_iter().filter(|name| name != prefix && name != "DCGM_FI_DRIVER_VERSION"));
        }
    }
    // The replica adds the prefix where it registers counters.
    let replica = std::fs::read_to_string(root().join("replica/src/metrics.rs")).unwrap();
    let registered = replica.split("counter(").skip(1).filter_map(|call| call.split('"').nth(1));
    named.extend(registered.filter(|name| name.ends_with("_total")).map(|name| format!("tidegate_replica_{name}")));
    named.extend(quoted(&replica, "tidegate_replica_"));
    assert!(named.len() > 20, "the scan finds the metrics: {named:?}");

    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<String> = rows.filter_map(|row| row.split('`').next()).map(str::to_owned).collect();
    assert_eq!(named, documented);
}

#[test]
fn the_readme_names_files_that_exist() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for word in readme.split(['`', '(', ')', ' ', '\n']) {
        let file = word.trim_end_matches(['.', ',', ';', ':']);
        if (file.starts_with("docs/") || file.starts_with("examples/")) && file.contains('.') {
            assert!(root().join(file).exists(), "README.md names {file}");
        }
    }
}
