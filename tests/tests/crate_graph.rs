//! The crate graph is the layering (design section 2): `core` decides and knows nobody; parts do not know each other.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each package may depend on directly. A new package fails the test until it has its line here.
const MAY_KNOW: [(&str, &[&str]); 11] = [
    ("tidegate-core", &[]),
    ("tidegate-api", &["tidegate-core"]),
    ("tidegate-nvml", &["tidegate-core", "tidegate-api"]),
    ("tidegate-runtime", &["tidegate-core", "tidegate-api"]),
    ("tidegate-load", &["tidegate-core", "tidegate-api"]),
    ("tidegate-local", PART),
    ("tidegate-router", PART),
    ("tidegate-replica", PART),
    (
        "tidegate",
        &[
            "tidegate-core",
            "tidegate-api",
            "tidegate-nvml",
            "tidegate-runtime",
            "tidegate-load",
            "tidegate-local",
            "tidegate-router",
            "tidegate-replica",
        ],
    ),
    ("tidegate-fake-nvml", &[]),
    ("xtask", &[]),
];
const PART: &[&str] = &["tidegate-core", "tidegate-api", "tidegate-nvml", "tidegate-runtime", "tidegate-load"];

/// What pure decisions must not be able to reach: runtimes, networks, clusters, clocks, randomness.
const NOT_IN_CORE: [&str; 10] = ["tokio", "kube", "k8s-openapi", "tonic", "axum", "hyper", "reqwest", "sqlx", "rand", "jiff"];

struct Graph {
    names: BTreeMap<String, String>,
    /// Normal dependencies by package id; development and build dependencies are left out.
    edges: BTreeMap<String, Vec<String>>,
    members: BTreeSet<String>,
}

fn graph() -> Graph {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline"])
        .current_dir(tidegate_tests::harness::workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let normal = |dep: &Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
    let edges = list(&metadata["resolve"]["nodes"]).iter().map(|node| {
        let to = list(&node["deps"]).iter().filter(|dep| normal(dep)).map(|dep| text(&dep["pkg"])).collect();
        (text(&node["id"]), to)
    });
    Graph {
        names: list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect(),
        edges: edges.collect(),
        members: list(&metadata["workspace_members"]).iter().map(text).collect(),
    }
}

impl Graph {
    fn reachable(&self, from: &str) -> BTreeSet<&str> {
        let mut todo = vec![self.names.iter().find(|(_, name)| *name == from).unwrap().0];
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if seen.insert(self.names[id].as_str()) {
                todo.extend(&self.edges[id]);
            }
        }
        seen
    }

    fn direct(&self, id: &str) -> BTreeSet<&str> {
        self.edges[id].iter().filter(|to| self.members.contains(*to)).map(|to| self.names[to].as_str()).collect()
    }
}

#[test]
fn the_core_reaches_no_runtime_network_cluster_clock_or_randomness() {
    let graph = graph();
    let core = graph.reachable("tidegate-core");
    let found: Vec<&str> = NOT_IN_CORE.into_iter().filter(|name| core.contains(name)).collect();
    assert!(found.is_empty(), "tidegate-core depends on {found:?}");
    assert!(graph.reachable("tidegate-router").contains("tokio"), "the walk finds what is there");
}

#[test]
fn every_package_knows_only_those_below_it_and_no_part_knows_a_sibling() {
    let graph = graph();
    for id in &graph.members {
        let name = graph.names[id].as_str();
        if name == "tidegate-tests" {
            continue;
        }
        let (_, allowed) =
            MAY_KNOW.iter().find(|(package, _)| *package == name).unwrap_or_else(|| panic!("{name} is not in MAY_KNOW"));
        let wrong: Vec<&str> = graph.direct(id).into_iter().filter(|known| !allowed.contains(known)).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}
