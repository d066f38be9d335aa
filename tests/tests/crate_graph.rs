//! The crate graph is the layering (design section 2): `core` decides and knows nobody; parts do not know each other.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each package may depend on directly. A new package fails the test until it has its line here.
const MAY_KNOW: [(&str, &[&str]); 14] = [
    ("tidegate-core", &[]),
    ("tidegate-api", &["tidegate-core"]),
    ("tidegate-nvml", &["tidegate-core", "tidegate-api"]),
    ("tidegate-runtime", &["tidegate-core", "tidegate-api"]),
    ("tidegate-load", &["tidegate-core", "tidegate-api", "tidegate-runtime"]),
    ("tidegate-simulator", &["tidegate-core"]),
    ("tidegate-local", PART),
    ("tidegate-node-agent", PART),
    ("tidegate-operator", PART),
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
            "tidegate-node-agent",
            "tidegate-operator",
            "tidegate-simulator",
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
    let mut command = Command::new(cargo);
    // For this platform alone: what others would need is not downloaded here.
    command
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host()])
        .current_dir(tidegate_tests::harness::workspace());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = list(&metadata["resolve"]["nodes"]);
    Graph {
        names: list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect(),
        edges: nodes.iter().map(|node| (text(&node["id"]), normal(node))).collect(),
        members: list(&metadata["workspace_members"]).iter().map(text).collect(),
    }
}

/// The triple of this platform, as rustc says it.
fn host() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

fn normal(node: &Value) -> Vec<String> {
    let is_normal = |dep: &&Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
    list(&node["deps"]).iter().filter(is_normal).map(|dep| text(&dep["pkg"])).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
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
