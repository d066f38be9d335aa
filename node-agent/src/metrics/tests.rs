use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use nvml_fake::{Code, Era, Link, Script, install};
use prometheus::TextEncoder;
use serde_json::json;
use tidegate_nvml::{Event, EventKind, Inventory};

use super::table::Kind;
use super::*;
use crate::node::{Node, Times};
use crate::pods::{Container, Grant, Place};

/// Everything that a machine can have: two eras of GPUs, MIG, links, processes, events, pods.
fn script() -> Script {
    let mut script = Script::of(3, "NVIDIA H100 80GB HBM3", 81_559);
    script.gpus[0].links = vec![Link { peer: None, up: false, errors: 1 }];
    script.gpus[0].processes = vec![serde_json::from_value(json!({"pid": 11, "memory_mib": 10, "sm_percent": 30})).unwrap()];
    script.gpus[0].errors.insert("nvmlDeviceGetPersistenceMode".into(), Code::NoPermission);
    script.gpus[1].mig_enabled = true;
    let instance = json!({"uuid": "MIG-1", "gpu_instance": 1, "profile": "1g.10gb", "memory_total_mib": 9_728});
    script.gpus[1].instances = vec![serde_json::from_value(instance).unwrap()];
    (script.gpus[2].era, script.gpus[2].power_watts) = (Era::Maxwell, 100.0);
    script
}

/// The machine after two readings and one event of each kind.
fn node() -> Node {
    let (dir, mut script) = (tempfile::tempdir().unwrap(), script());
    script.clock_ms = Some(0);
    let (library, path) = install(dir.path(), &script).unwrap();
    let inventory = Inventory::open(Some(&library)).unwrap();
    let mut node = Node::new(Times { interval: Duration::from_secs(1), call_timeout: Duration::from_secs(5) }, 0.0);
    node.opened(inventory.driver(), inventory.topology().unwrap(), 3);
    let to = Container { namespace: "team".into(), pod: "trainer".into(), container: "main".into() };
    node.owners.containers.insert("c".into(), to.clone());
    node.owners.grants.insert(script.gpus[0].uuid.clone(), vec![Grant { to, claim: None }]);
    node.owners.allocatable = Some(BTreeSet::from([script.gpus[0].uuid.clone()]));
    node.own.kubelet_answered = Some(Duration::ZERO);
    let mut gpus: Vec<_> = (0..3).map(|index| inventory.gpu(index).unwrap()).collect();
    for second in 0..2 {
        script.clock_ms = Some(second * 1000);
        script.write(&path).unwrap();
        for gpu in &mut gpus {
            node.introduce(gpu.identity());
            let uuid = gpu.identity().uuid.clone();
            let place = Place::Pod { uid: "u".into(), container: Some("c".into()) };
            let reading = gpu.read().map(|reading| (reading, HashMap::from([(11, place)])));
            node.observe(&uuid, reading, Duration::from_millis(1), Duration::from_secs(second));
        }
    }
    let gpu = gpus[0].identity().uuid.clone();
    for (kind, data) in [(EventKind::Xid, 31), (EventKind::MigChanged, 0)] {
        let event = Event { gpu: Some(gpu.clone()), kind, data, gpu_instance: None, compute_instance: None };
        node.event(&event, Duration::from_secs(1));
    }
    node.observe(&gpus[2].identity().uuid.clone(), Err(tidegate_nvml::Fault::Lost), Duration::ZERO, Duration::from_secs(1));
    node
}

fn scrape(node: Node, dcgm_names: bool) -> String {
    let shared = Arc::new(Shared::new(node, Duration::ZERO, None, "/proc".into()));
    let registry = registry(shared, dcgm_names, "host".into()).unwrap();
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

fn series(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

/// The metric's name, and its labels' names.
fn parse(series: &str) -> (&str, Vec<&str>) {
    let Some((name, rest)) = series.split_once('{') else { return (series.split_once(' ').unwrap().0, Vec::new()) };
    let labels = rest.rsplit_once("} ").unwrap().0;
    (name, labels.split("\",").map(|label| label.split_once("=\"").unwrap().0).collect())
}

#[test]
fn every_metric_of_the_table_appears_once_with_its_type_and_no_other() {
    let text = scrape(node(), true);
    let told: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let table: BTreeSet<String> =
        table::OWN.iter().chain(table::DCGM).map(|def| format!("{} {}", def.name, def.kind.word())).collect();
    assert_eq!(told.len(), table.len());
    assert_eq!(told.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), table);
}

#[test]
fn every_series_has_the_labels_of_its_line_and_a_name_with_its_unit() {
    let text = scrape(node(), true);
    for series in series(&text) {
        let (name, labels) = parse(series);
        let def = table::OWN.iter().chain(table::DCGM).find(|def| def.name == name).unwrap();
        assert_eq!(labels, def.labels, "{series}");
    }
    for def in table::OWN {
        assert_eq!(def.name.ends_with("_total"), def.kind == Kind::Counter, "{}", def.name);
        assert!(def.help.ends_with('.') && !def.help.contains('|'), "{}", def.name);
    }
}

#[test]
fn a_family_is_in_one_piece() {
    let text = scrape(node(), true);
    let mut names: Vec<&str> = series(&text).map(|series| parse(series).0).collect();
    names.dedup();
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
}

#[test]
fn a_gpu_has_a_bounded_number_of_series() {
    let text = scrape(node(), false);
    let uuid = &script().gpus[0].uuid;
    let count = series(&text).filter(|series| series.contains(&format!("gpu=\"{uuid}\""))).count();
    assert!((50..=95).contains(&count), "{count}");
}

#[test]
fn what_cannot_be_read_has_no_series() {
    let text = scrape(node(), false);
    let lost = &script().gpus[2].uuid;
    assert!(text.contains(&format!("tidegate_node_agent_gpu_health{{gpu=\"{lost}\",state=\"lost\"}} 1\n")));
    assert!(!text.contains(&format!("tidegate_node_agent_gpu_power_watts{{gpu=\"{lost}\"")), "its last value is no fact");
    let closed = &script().gpus[0].uuid;
    assert!(!text.contains(&format!("tidegate_node_agent_gpu_persistence_mode{{gpu=\"{closed}\"")));
    assert!(text.contains(&format!("tidegate_node_agent_gpu_failed_facts{{gpu=\"{closed}\",fault=\"no_permission\"}} 1\n")));
}

#[test]
fn the_documentation_is_the_table() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    assert!(
        page.contains(&table::markdown()),
        "docs/metrics.md is not what `tidegate node-agent --table metrics` prints; run `cargo xtask docs`"
    );
}
