use std::collections::BTreeSet;

use super::*;

fn holder(pod: &str, mig: Option<&str>) -> Holder {
    Holder { namespace: "team".into(), pod: pod.into(), container: "main".into(), mig: mig.map(Into::into) }
}

fn grant(pod: &str) -> Grant {
    Grant { to: Container { namespace: "team".into(), pod: pod.into(), container: "main".into() }, claim: None }
}

fn identity() -> Identity {
    serde_json::from_value(serde_json::json!({
        "index": 1, "uuid": "GPU-1", "name": {"known": "NVIDIA L4"}, "serial": "unsupported", "pciBusId": "unsupported",
        "minor": {"known": 1}, "architecture": "unsupported", "memoryTotalBytes": {"known": 1}, "numaNode": "unsupported",
        "maxSmClockMhz": "unsupported", "slowdownCelsius": "unsupported", "shutdownCelsius": "unsupported",
        "maxPcieGeneration": "unsupported", "maxPcieWidth": "unsupported"
    }))
    .unwrap()
}

fn instance() -> MigInstance {
    serde_json::from_value(serde_json::json!({
        "uuid": "MIG-1", "gpuInstance": 3, "computeInstance": 0, "profile": {"known": "1g.10gb"}, "slices": {"known": 1},
        "memoryTotalBytes": "unsupported", "memoryUsedBytes": "unsupported", "activity": null
    }))
    .unwrap()
}

fn process(pid: u32) -> tidegate_nvml::Process {
    serde_json::from_value(serde_json::json!({
        "pid": pid, "kind": "compute", "memoryBytes": {"known": 1}, "sm": {"known": 0.5}, "gpuInstance": null, "computeInstance": null
    }))
    .unwrap()
}

#[test]
fn every_way_of_naming_a_device_is_understood() {
    let means = |id: &str| named(id, &identity(), &[instance()]);
    for id in ["GPU-1", "nvidia1", "gpu-1", "nvidia1/vgpu3", "k8s.gpu.nvidia.com/device=gpu-1"] {
        assert_eq!(means(id), Named::Whole, "{id}");
    }
    for id in ["MIG-1", "nvidia1/gi3", "nvidia1/gi3/vgpu0"] {
        assert_eq!(means(id), Named::Instance("MIG-1".into()), "{id}");
    }
    for id in ["GPU-2", "nvidia11", "gpu-10", "gpu-", "eth0", ""] {
        assert_eq!(means(id), Named::Other, "{id}");
    }
}

#[test]
fn a_process_belongs_to_its_cgroups_pod_and_unseen_ones_to_the_only_holder() {
    let mut owners = Owners::default();
    owners.grants.insert("GPU-1".into(), vec![grant("a")]);
    owners.pods.insert("uid-a".into(), ("team".into(), "a".into()));
    owners.containers.insert("c".into(), grant("b").to);
    let held = owners.holders_of(&identity(), &Fact::Known(vec![]));
    assert_eq!(held, [(holder("a", None), None)]);
    let in_pod = |uid: &str, container: Option<&str>| Place::Pod { uid: uid.into(), container: container.map(Into::into) };
    assert_eq!(owners.holder(&in_pod("uid-a", None), &held), Some(holder("a", None)));
    assert_eq!(owners.holder(&in_pod("uid-b", Some("c")), &held), Some(holder("b", None)));
    assert_eq!(owners.holder(&in_pod("uid-x", None), &held), None);
    assert_eq!(owners.holder(&Place::Unknown, &held), Some(holder("a", None)));
    assert_eq!(owners.holder(&Place::Host, &held), None);
    owners.grants.insert("nvidia1".into(), vec![grant("b")]);
    let held = owners.holders_of(&identity(), &Fact::Known(vec![]));
    assert_eq!(owners.holder(&Place::Unknown, &held), None, "it could be either");
}

#[test]
fn both_ways_of_disagreement_are_found() {
    let running = |place: Place, holder: Option<Holder>| Running { process: process(1), place, holder, active: 0.0 };
    let allocated = [(holder("a", None), None)];
    let pod = Place::Pod { uid: "u".into(), container: None };
    let own = [running(pod.clone(), Some(holder("a", None)))];
    assert_eq!(Mismatch::find(&allocated, &own.iter()), []);
    let other = [running(pod, Some(holder("b", None)))];
    let found: Vec<_> = Mismatch::find(&allocated, &other.iter()).into_iter().map(|m| (m.kind, m.who)).collect();
    let expected = [
        (MismatchKind::UsedNotAllocated, "team/b/main".to_owned()),
        (MismatchKind::AllocatedUsedByOthers, "team/a/main".to_owned()),
    ];
    assert_eq!(found, expected);
    let host = [running(Place::Host, None)];
    assert_eq!(Mismatch::find(&[], &host.iter()), [], "without pods a process of the host is nothing special");
    assert_eq!(Mismatch::find(&allocated, &[].iter()), [], "an idle allocation is no disagreement");
}

#[test]
fn a_device_that_its_plugin_calls_unhealthy_is_not_allocatable() {
    let mut owners = Owners::default();
    assert_eq!(owners.plugin_healthy(&identity(), false), None);
    owners.allocatable = Some(BTreeSet::from(["GPU-2".to_owned()]));
    assert_eq!(owners.plugin_healthy(&identity(), false), Some(false));
    owners.allocatable = Some(BTreeSet::from(["GPU-1".to_owned()]));
    assert_eq!(owners.plugin_healthy(&identity(), false), Some(true));
}
