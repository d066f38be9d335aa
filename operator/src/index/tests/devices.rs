//! Devices that are claimed by name: what is given to whom, once, and taken back.

use super::*;
use crate::facts::device::SliceFacts;
use crate::facts::device_claim::{DeviceClaimFacts, DeviceClassFacts};

mod made;
mod partitions;
mod shares;

const DRIVER: &str = "gpu.nvidia.com";

/// The one slice of a node's pool, with so many H100.
fn slice(node: &str, gpus: usize, change: impl FnOnce(&mut Value)) -> DeviceObject {
    let device = |number: usize| {
        json!({
            "name": format!("gpu-{number}"),
            "attributes": {
                "type": {"string": "gpu"}, "productName": {"string": "NVIDIA H100"},
                "uuid": {"string": format!("GPU-{node}-{number}")}, "index": {"int": number},
            },
            "capacity": {"memory": {"value": "80Gi"}},
        })
    };
    let mut slice = json!({
        "metadata": {"name": format!("slice-{node}")},
        "spec": {
            "driver": DRIVER, "nodeName": node, "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": (0..gpus).map(device).collect::<Vec<_>>(),
        },
    });
    change(&mut slice);
    DeviceObject::Slice(SliceFacts::of(&serde_json::from_value(slice).unwrap()))
}

fn class(expression: &str) -> DeviceObject {
    let class = json!({
        "metadata": {"name": "gpu"},
        "spec": {
            "selectors": [{"cel": {"expression": expression}}],
            "config": [{"opaque": {"driver": DRIVER, "parameters": {"of": "class"}}}],
        },
    });
    DeviceObject::Class(DeviceClassFacts::of(&serde_json::from_value(class).unwrap()))
}

fn claim_as(name: &str, version: u64, change: impl FnOnce(&mut Value)) -> DeviceObject {
    let mut claim = json!({
        "metadata": {"namespace": "team", "name": name, "uid": format!("uid-{name}"), "resourceVersion": version.to_string()},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu", "count": 1}}]}},
    });
    change(&mut claim);
    DeviceObject::Claim(Box::new(DeviceClaimFacts::of(&serde_json::from_value(claim).unwrap())))
}

fn uses(claim: &'static str) -> impl Fn(&mut Value) {
    move |pod| {
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
        pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": claim}]);
    }
}

/// How a claim looks that was allocated and reserved.
fn given(device: &str, node: &str, pod: &str, ours: bool) -> impl Fn(&mut Value) {
    let (device, node, pod) = (device.to_owned(), node.to_owned(), pod.to_owned());
    move |claim| {
        if ours {
            claim["metadata"]["annotations"] = json!({"tidegate.dev/allocated": "true"});
            claim["metadata"]["finalizers"] = json!(["resource.kubernetes.io/delete-protection"]);
        }
        claim["status"] = json!({
            "allocation": {
                "devices": {"results": [{"request": "gpu", "driver": DRIVER, "pool": node, "device": device}]},
                "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]},
            },
            "reservedFor": [{"resource": "pods", "name": pod, "uid": format!("uid-{pod}")}],
        });
    }
}

/// Nodes with so many GPUs that are claimed by name, and a queue that owns eight.
fn rig(nodes: &[(&str, usize)]) -> Rig {
    let plain: Vec<(&str, u32)> = nodes.iter().map(|(name, _)| (*name, 0)).collect();
    let mut rig = Rig::with(&plain, &[("a", 8)]);
    rig.device(class("device.driver == 'gpu.nvidia.com'"));
    for (name, gpus) in nodes {
        rig.device(slice(name, *gpus, |_| {}));
    }
    rig
}

/// What a write gives: the claim, the pod and the devices, as `POOL/DEVICE`.
fn allocation(write: &Write) -> (String, String, Vec<String>) {
    let Write::Allocate { pod, claim, allocation, .. } = write else { panic!("{write:?}") };
    let results = allocation["devices"]["results"].as_array().unwrap().iter();
    let devices = results.map(|result| format!("{}/{}", result["pool"].as_str().unwrap(), result["device"].as_str().unwrap()));
    (claim.name().to_owned(), pod.name().to_owned(), devices.collect())
}

impl Rig {
    fn claim(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        self.versions += 1;
        self.device(claim_as(name, self.versions, change));
    }

    /// The API server does what allocations say, and then binds; which device each pod has.
    fn give_all(&mut self, writes: Vec<Write>) -> Vec<(String, String)> {
        let mut given_to = Vec::new();
        for write in writes {
            let (claim, pod, devices) = allocation(&write);
            let (node, device) = devices[0].split_once('/').unwrap();
            self.claim(&claim, given(device, node, &pod, true));
            self.done(&write, Ok(()));
            given_to.push((pod, devices[0].clone()));
        }
        given_to.sort();
        given_to
    }

    fn run(&mut self, writes: Vec<Write>, claim: &'static str) {
        for write in writes {
            let Write::Bind { pod, node, .. } = &write else { panic!("{write:?}") };
            self.done(&write, Ok(()));
            let (name, node) = (pod.name().to_owned(), node.clone());
            self.see(&name, |pod| {
                uses(claim)(pod);
                pod["spec"]["nodeName"] = json!(node);
                pod["status"]["phase"] = json!("Running");
            });
        }
    }

    /// A pod that runs with the claim of its name.
    fn running_pod(&mut self, name: &'static str) -> String {
        self.claim(name, |_| {});
        self.see(name, uses(name));
        let writes = self.turn();
        let devices = self.give_all(writes);
        let writes = self.take_writes();
        self.run(writes, name);
        devices[0].1.clone()
    }

    fn over(&mut self, name: &'static str, node: &'static str) {
        self.see(name, |pod| {
            uses(name)(pod);
            pod["spec"]["nodeName"] = json!(node);
            pod["status"]["phase"] = json!("Succeeded");
        });
    }
}

#[test]
fn a_claim_is_allocated_and_reserved_before_its_pod_is_bound() {
    let mut rig = rig(&[("n1", 1)]);
    rig.claim("c", |claim| {
        claim["spec"]["devices"]["config"] =
            json!([{"requests": ["gpu"], "opaque": {"driver": DRIVER, "parameters": {"of": "claim"}}}]);
        claim["spec"]["devices"]["requests"][0]["exactly"]["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
    });
    rig.see("p", uses("c"));
    let writes = rig.turn();
    let [Write::Allocate { pod_uid, uid, allocation: said, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!((pod_uid.as_str(), uid.as_str()), ("uid-p", "uid-c"));
    assert_eq!(allocation(&writes[0]), ("c".to_owned(), "p".to_owned(), vec!["n1/gpu-0".to_owned()]));
    assert_eq!(said["devices"]["results"][0]["tolerations"][0]["key"], "k");
    let sources: Vec<_> = said["devices"]["config"].as_array().unwrap().iter().map(|config| config["source"].clone()).collect();
    assert_eq!(sources, ["FromClass", "FromClaim"]);
    let values = &said["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"];
    assert_eq!(values, &json!(["n1"]));
    rig.give_all(writes);
    let writes = rig.take_writes();
    assert!(matches!(writes.as_slice(), [Write::Bind { node, .. }] if node == "n1"), "{writes:?}");
    rig.run(writes, "c");
    assert!(rig.engine.state().actions.is_empty() && rig.running() == 1);
    let listed: Vec<Listed> = rig.index.pods.values().map(|entry| Listed::from(&entry.facts)).collect();
    assert_eq!(rig.index.drift(&rig.engine, &listed), Vec::<String>::new());
}

#[test]
fn who_comes_second_waits_until_the_first_ones_device_is_taken_back() {
    let mut rig = rig(&[("n1", 1)]);
    assert_eq!(rig.running_pod("p"), "n1/gpu-0");
    rig.claim("q", |_| {});
    rig.see("q", uses("q"));
    assert!(rig.turn().is_empty());
    let told = rig.told();
    assert!(told[0].contains("0 of 1 are free"), "{told:?}");
    rig.over("p", "n1");
    let writes = rig.turn();
    let [free @ Write::Free { claim, allocated: true, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(claim.name(), "p");
    assert!(rig.turn().is_empty(), "the claim still has the device, and is freed once");
    rig.done(free, Ok(()));
    rig.claim("p", |_| {});
    let writes = rig.turn();
    assert_eq!(allocation(&writes[0]).2, ["n1/gpu-0"]);
}

#[test]
fn a_pod_that_is_deleted_gives_its_device_back_too() {
    let mut rig = rig(&[("n1", 1)]);
    rig.running_pod("p");
    rig.gone("p");
    assert!(matches!(rig.turn().as_slice(), [Write::Free { .. }]));
    let going = |claim: &mut Value| {
        claim["metadata"]["deletionTimestamp"] = json!("2026-11-29T00:00:00Z");
        claim["metadata"]["annotations"] = json!({"tidegate.dev/allocated": "true"});
        claim["metadata"]["finalizers"] = json!(["resource.kubernetes.io/delete-protection"]);
    };
    rig.claim("p", going);
    assert!(matches!(rig.turn().as_slice(), [Write::Free { allocated: false, .. }]), "a leader was gone in between");
}

#[test]
fn who_is_owed_a_device_gets_it_when_its_claim_is_free() {
    let mut rig = rig(&[("n1", 1)]);
    rig.tell(vec![Event::QueueSet { name: "b".into(), queue: owns(1) }, Event::QueueSet { name: "a".into(), queue: owns(0) }]);
    rig.running_pod("p");
    rig.claim("q", |_| {});
    rig.see("q", |pod| {
        uses("q")(pod);
        queue("b")(pod);
    });
    let writes = rig.turn();
    assert!(matches!(writes.as_slice(), [Write::Evict { pod, .. }] if pod.name() == "p"), "{writes:?}");
    rig.gone("p");
    let writes = rig.turn();
    let [free @ Write::Free { .. }] = writes.as_slice() else { panic!("{writes:?}") };
    rig.done(free, Ok(()));
    rig.claim("p", |_| {});
    let writes = rig.turn();
    assert_eq!(allocation(&writes[0]), ("q".to_owned(), "q".to_owned(), vec!["n1/gpu-0".to_owned()]));
}

#[test]
fn after_a_restart_what_runs_has_its_devices_and_what_was_not_bound_gives_them_back() {
    let mut rig = rig(&[("n1", 3)]);
    rig.index = Index::default();
    rig.engine = Engine::default();
    rig.node("n1", 0);
    rig.tell(vec![Event::QueueSet { name: "a".into(), queue: owns(8) }]);
    rig.device(class("true"));
    rig.device(slice("n1", 3, |_| {}));
    rig.claim("p", given("gpu-2", "n1", "p", true));
    rig.claim("q", given("gpu-0", "n1", "q", true));
    rig.claim("r", |_| {});
    for name in ["q", "r"] {
        rig.see(name, uses(if name == "q" { "q" } else { "r" }));
    }
    rig.see("p", |pod| {
        uses("p")(pod);
        pod["spec"]["nodeName"] = json!("n1");
    });
    let events = rig.index.begin();
    rig.tell(events);
    let writes = rig.turn();
    let [Write::Free { claim, .. }, give] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!((claim.name(), allocation(give).2), ("q", vec!["n1/gpu-1".to_owned()]), "what q had is not free yet");
    let told = rig.told();
    assert!(told.iter().any(|told| told.contains("the devices of ResourceClaim team/q are being taken back first")), "{told:?}");
    rig.give_all(writes[1..].to_vec());
    rig.claim("q", |_| {});
    rig.now = rig.now.plus(1_000);
    let writes = rig.turn();
    let given_now = writes.iter().find(|write| matches!(write, Write::Allocate { .. })).map(allocation);
    assert_eq!(given_now.map(|(claim, _, devices)| (claim, devices)), Some(("q".to_owned(), vec!["n1/gpu-0".to_owned()])));
}

#[test]
fn what_another_scheduler_has_allocated_is_held() {
    let mut rig = rig(&[("n1", 2)]);
    rig.claim("theirs", given("gpu-0", "n1", "other", false));
    rig.claim("c", |_| {});
    rig.claim("d", |_| {});
    rig.see("p", uses("c"));
    rig.see("q", uses("d"));
    let writes = rig.turn();
    assert_eq!(rig.give_all(writes), [("p".to_owned(), "n1/gpu-1".to_owned())]);
    let told = rig.told();
    assert!(told.iter().any(|told| told.contains("claim/team/theirs")), "{told:?}");
    assert!(rig.take_writes().iter().all(|write| !matches!(write, Write::Free { .. })), "it is not ours to take back");
    rig.claim("theirs", |_| {});
    let writes = rig.turn();
    assert_eq!(rig.give_all(writes), [("q".to_owned(), "n1/gpu-0".to_owned())]);
}

#[test]
fn a_claim_that_somebody_else_allocates_meanwhile_gives_the_start_up() {
    let mut rig = rig(&[("n1", 1), ("n2", 1)]);
    rig.claim("c", |_| {});
    rig.see("p", uses("c"));
    let writes = rig.turn();
    rig.done(&writes[0], Err(Failure::Conflict));
    assert_eq!(rig.running(), 0);
    assert!(rig.told()[0].contains("ResourceClaim team/c was given devices by somebody else"));
    rig.claim("c", given("gpu-0", "n1", "other", false));
    assert!(rig.told()[0].contains("has its devices on node n1 for pod team/other"));
    rig.now = rig.now.plus(120_000);
    assert!(rig.turn().is_empty());
    rig.claim("c", |_| {});
    assert_eq!(rig.turn().len(), 1, "it is tried again");
}

#[test]
fn of_a_gang_nobody_is_bound_before_all_claims_are_allocated_and_a_refusal_takes_all_back() {
    let mut rig = rig(&[("n1", 2)]);
    for name in ["w-0", "w-1"] {
        rig.claim(name, |_| {});
        rig.see(name, |pod| {
            gang(2)(pod);
            uses(if name == "w-0" { "w-0" } else { "w-1" })(pod);
        });
    }
    let writes = rig.turn();
    assert_eq!(writes.len(), 2);
    let (claim, pod, _) = allocation(&writes[0]);
    rig.claim(&claim, given("gpu-0", "n1", &pod, true));
    rig.done(&writes[0], Ok(()));
    assert!(rig.take_writes().is_empty());
    rig.done(&writes[1], Err(Failure::Refused("a webhook says no".into())));
    let writes = rig.take_writes();
    assert!(matches!(writes.as_slice(), [Write::Free { claim: freed, .. }] if freed.name() == claim), "{writes:?}");
    assert_eq!(rig.running(), 1, "the claim itself, until it is free");
    rig.claim(&claim, |_| {});
    assert_eq!(rig.running(), 0);
    assert!(rig.told()[0].contains("a webhook says no"));
}

#[test]
fn a_free_that_is_in_conflict_is_tried_again_with_what_is_seen() {
    let mut rig = rig(&[("n1", 1)]);
    rig.running_pod("p");
    rig.over("p", "n1");
    let first = rig.take_writes().remove(0);
    rig.done(&first, Err(Failure::Conflict));
    assert!(rig.take_writes().is_empty(), "it is not seen yet what it is");
    rig.claim("p", given("gpu-0", "n1", "p", true));
    assert!(matches!(rig.take_writes().as_slice(), [Write::Free { .. }]));
}

#[test]
fn selectors_choose_devices_and_those_that_cannot_be_evaluated_stop_only_their_pod() {
    let mut rig = rig(&[("n1", 1)]);
    let other = |slice: &mut Value| slice["spec"]["devices"][0]["attributes"]["productName"]["string"] = json!("NVIDIA L4");
    rig.node("n2", 0);
    rig.device(slice("n2", 1, other));
    let by = |expression: &'static str| {
        move |claim: &mut Value| {
            claim["spec"]["devices"]["requests"][0]["exactly"]["selectors"] = json!([{"cel": {"expression": expression}}]);
        }
    };
    rig.claim("bad", by("device.attributes['gpu.nvidia.com'].colour == 'red'"));
    rig.claim("c", by("device.attributes['gpu.nvidia.com'].productName.contains('L4')"));
    rig.claim("none", by("device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('100Gi')) >= 0"));
    rig.claim("one", by("device.attributes['gpu.nvidia.com'].uuid == 'GPU-n1-0'"));
    for name in ["bad", "none"] {
        rig.see(name, uses(if name == "bad" { "bad" } else { "none" }));
    }
    rig.see("p", uses("c"));
    let writes = rig.turn();
    assert_eq!(rig.give_all(writes), [("p".to_owned(), "n2/gpu-0".to_owned())]);
    let told = rig.told();
    assert!(told.iter().any(|told| told.contains("cannot be evaluated") && told.contains("colour")), "{told:?}");
    assert!(told.iter().any(|told| told.contains("none of the 2 GPUs that drivers publish suits")), "{told:?}");
    rig.see("q", uses("one"));
    let writes: Vec<_> = rig.turn().into_iter().filter(|write| matches!(write, Write::Allocate { .. })).collect();
    assert_eq!(allocation(&writes[0]).2, ["n1/gpu-0"], "it is the only one of its class on its node");
}

#[test]
fn a_selector_that_tells_alike_devices_apart_is_refused() {
    let mut rig = rig(&[("n1", 2)]);
    rig.claim("c", |claim| {
        claim["spec"]["devices"]["requests"][0]["exactly"]["selectors"] =
            json!([{"cel": {"expression": "device.attributes['gpu.nvidia.com'].index == 1"}}]);
    });
    rig.see("p", uses("c"));
    assert!(rig.turn().is_empty());
    let told = rig.told();
    assert!(told[0].contains("of 2 H100 on node n1 1 suit"), "{told:?}");
}

#[test]
fn who_waits_for_a_claim_is_told_what_is_missing() {
    let mut rig = Rig::with(&[("n1", 0)], &[("a", 8)]);
    rig.device(slice("n1", 1, |_| {}));
    rig.see("p", |pod| {
        uses("c")(pod);
        pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]);
    });
    let says = |rig: &mut Rig, part: &str| {
        assert!(rig.turn().is_empty());
        let told = rig.told();
        assert!(told.last().is_some_and(|told| told.contains(part)), "{part}: {told:?}");
    };
    says(&mut rig, "waits for its ResourceClaim `gpu`, which is not made from its template yet");
    rig.see("p", uses("c"));
    says(&mut rig, "uses the ResourceClaim team/c, which does not exist: create it");
    rig.claim("c", |claim| claim["spec"]["devices"]["requests"][0]["exactly"]["allocationMode"] = json!("All"));
    says(&mut rig, "requests[gpu].exactly.allocationMode");
    rig.claim("c", |_| {});
    says(&mut rig, "names the DeviceClass gpu, which does not exist: create it");
    rig.device(class("true"));
    rig.see("p", |pod| {
        uses("c")(pod);
        pod["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": "1"}});
    });
    says(&mut rig, "GPUs are given in one way");
    rig.see("p", uses("c"));
    assert_eq!(rig.turn().len(), 1);
}

#[test]
fn a_device_with_a_taint_is_given_to_those_that_put_up_with_it_and_what_is_no_gpu_to_nobody() {
    let mut rig = rig(&[("n1", 2)]);
    rig.device(slice("n1", 2, |slice| {
        slice["spec"]["devices"][0]["taints"] = json!([{"key": "sick", "effect": "NoSchedule"}]);
        slice["spec"]["devices"][1]["attributes"]["type"]["string"] = json!("vfio");
    }));
    rig.claim("c", |_| {});
    rig.see("p", uses("c"));
    assert!(rig.turn().is_empty());
    let told = rig.told();
    assert!(told[0].contains("1 would, but those that have a taint that the request does not tolerate are left out"), "{told:?}");
    assert!(told[0].contains("1 would, but those that are no whole GPU"), "{told:?}");
    rig.claim("d", |claim| {
        claim["spec"]["devices"]["requests"][0]["exactly"]["tolerations"] = json!([{"key": "sick", "operator": "Exists"}]);
    });
    rig.see("q", uses("d"));
    assert_eq!(allocation(&rig.turn()[0]).2, ["n1/gpu-0"]);
}

#[test]
fn only_the_newest_generation_of_a_pool_counts_and_only_when_it_is_whole() {
    let mut rig = rig(&[("n1", 2)]);
    let generation = |name: &'static str, of: i64| {
        move |slice: &mut Value| {
            slice["metadata"]["name"] = json!(name);
            slice["spec"]["pool"] = json!({"name": "n1", "generation": 2, "resourceSliceCount": of});
        }
    };
    rig.claim("c", |claim| claim["spec"]["devices"]["requests"][0]["exactly"]["count"] = json!(2));
    rig.device(slice("n1", 1, generation("newer", 2)));
    rig.see("p", uses("c"));
    assert!(rig.turn().is_empty(), "the newer one has two slices, and one is there");
    rig.device(slice("n1", 0, generation("newest", 2)));
    assert!(rig.turn().is_empty(), "it has one device, and the claim wants two");
    let told = rig.told();
    assert!(told[0].contains("2 device(s)"), "{told:?}");
    let events = rig.index.device_gone(DeviceKind::Slice, "newest");
    rig.tell(events);
    let events = rig.index.device_gone(DeviceKind::Slice, "newer");
    rig.tell(events);
    rig.now = rig.now.plus(120_000);
    let writes = rig.turn();
    assert_eq!(allocation(&writes[0]).2, ["n1/gpu-0", "n1/gpu-1"], "the older one is the newest there is");
}

#[test]
fn a_device_that_vanishes_while_it_is_held_is_lost_when_it_is_free() {
    let mut rig = rig(&[("n1", 1)]);
    rig.running_pod("p");
    let events = rig.index.device_gone(DeviceKind::Slice, "slice-n1");
    rig.tell(events);
    assert!(rig.turn().is_empty(), "its pod runs on: a driver that is made anew publishes nothing for a while");
    assert_eq!(rig.running(), 1);
    rig.claim("q", |_| {});
    rig.see("q", uses("q"));
    rig.over("p", "n1");
    let writes = rig.turn();
    assert!(matches!(writes.as_slice(), [Write::Free { .. }]), "{writes:?}");
    rig.claim("p", |_| {});
    assert!(rig.turn().is_empty(), "there is no device any more");
    rig.device(slice("n1", 1, |_| {}));
    assert_eq!(rig.turn().len(), 1, "until it is published again");
}

#[test]
fn an_allocation_is_held_before_anybody_publishes_its_device() {
    let mut rig = Rig::with(&[("n1", 0)], &[("a", 8)]);
    rig.device(class("true"));
    rig.claim("theirs", given("gpu-1", "n1", "other", false));
    rig.device(slice("n1", 2, |_| {}));
    rig.claim("c", |_| {});
    rig.claim("d", |_| {});
    rig.see("p", uses("c"));
    rig.see("q", uses("d"));
    let writes = rig.turn();
    assert_eq!(rig.give_all(writes), [("p".to_owned(), "n1/gpu-0".to_owned())]);
}

#[test]
fn gpus_that_are_counted_and_gpus_that_are_claimed_are_not_mixed() {
    let mut rig = rig(&[("n1", 1)]);
    rig.node("n1", 1);
    rig.see("plain", |_| {});
    rig.see("plain-2", |_| {});
    rig.claim("c", |_| {});
    rig.see("p", uses("c"));
    let writes = rig.turn();
    let binds: Vec<_> = writes.iter().filter(|write| matches!(write, Write::Bind { .. })).collect();
    let gives: Vec<_> = writes.iter().filter(|write| matches!(write, Write::Allocate { .. })).collect();
    assert_eq!((binds.len(), gives.len()), (1, 1), "the node has one of each");
    assert_eq!(allocation(gives[0]).2, ["n1/gpu-0"]);
}

#[test]
fn one_claim_serves_one_pod_at_a_time() {
    let mut rig = rig(&[("n1", 2)]);
    rig.claim("c", |_| {});
    rig.see("p", uses("c"));
    rig.see("q", uses("c"));
    let writes = rig.turn();
    assert_eq!(writes.len(), 1);
    assert!(rig.told().iter().any(|told| told.contains("ResourceClaim team/c is wanted by pods")));
    rig.give_all(writes);
    let told = rig.told();
    assert!(told.iter().any(|told| told.contains("a claim serves one pod at a time here")), "{told:?}");
}

#[test]
fn claims_count_against_the_queue_by_the_class_of_their_devices() {
    let mut rig = rig(&[("n1", 2)]);
    let quotas = [(tidegate_core::state::Resource::Class("H100".into()), Quota::closed(1_000))];
    rig.tell(vec![Event::QueueSet { name: "a".into(), queue: Queue { quotas: quotas.into(), ..Queue::default() } }]);
    for name in ["p", "q"] {
        rig.claim(name, |_| {});
    }
    rig.see("p", uses("p"));
    rig.see("q", uses("q"));
    assert_eq!(rig.turn().len(), 1, "the queue owns one H100");
    assert!(rig.told()[0].contains("H100"));
}

#[test]
fn a_label_of_the_node_names_the_class_of_claimed_devices_too() {
    let mut rig = rig(&[("n1", 1)]);
    let node = json!({
        "metadata": {"name": "n1", "labels": {"tidegate.dev/gpu-class": "big"}},
        "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}},
    });
    let events = rig.index.node(Change::Is(NodeFacts::of(&serde_json::from_value(node).unwrap())), &rig.engine);
    rig.tell(events);
    rig.claim("c", |_| {});
    rig.see("p", |pod| {
        uses("c")(pod);
        pod["metadata"]["annotations"]["tidegate.dev/gpu-classes"] = json!("small");
    });
    assert!(rig.turn().is_empty());
    assert!(rig.told()[0].contains("asks for GPU classes of which none suits"));
    rig.see("p", |pod| {
        uses("c")(pod);
        pod["metadata"]["annotations"]["tidegate.dev/gpu-classes"] = json!("big");
    });
    assert_eq!(rig.turn().len(), 1);
}
