//! Devices that several claims may have at once.

use super::*;

/// Two devices of a node that are given in shares.
fn rig(devices: usize) -> Rig {
    let mut rig = super::rig(&[("n1", 0)]);
    rig.device(slice("n1", devices, |slice| {
        for device in slice["spec"]["devices"].as_array_mut().unwrap() {
            device["allowMultipleAllocations"] = json!(true);
            device["capacity"]["memory"]["requestPolicy"] =
                json!({"default": "10Gi", "validRange": {"min": "10Gi", "max": "80Gi", "step": "10Gi"}});
        }
    }));
    rig
}

fn wants(memory: &'static str) -> impl Fn(&mut Value) {
    move |claim| {
        claim["spec"]["devices"]["requests"][0]["exactly"]["capacity"] = json!({"requests": {"memory": memory}});
    }
}

/// How a claim looks that has a share.
fn has(memory: &'static str, device: &str, pod: &str, ours: bool) -> impl Fn(&mut Value) {
    let given = given(device, "n1", pod, ours);
    move |claim| {
        wants(memory)(claim);
        given(claim);
        let share = json!(format!("share of {}", claim["metadata"]["name"]));
        let result = &mut claim["status"]["allocation"]["devices"]["results"][0];
        result["shareID"] = share;
        result["consumedCapacity"] = json!({"memory": memory});
    }
}

impl Rig {
    /// The API server does what allocations say, and pods run.
    fn give_shares(&mut self, writes: &[Write], memory: &'static str) -> Vec<(String, String)> {
        let mut shares = Vec::new();
        for write in writes {
            let (claim, pod, devices) = allocation(write);
            let (_, device) = devices[0].split_once('/').unwrap();
            self.claim(&claim, has(memory, device, &pod, true));
            self.done(write, Ok(()));
            shares.push((claim, device.to_owned()));
        }
        for write in self.take_writes() {
            let Write::Bind { pod, node, .. } = &write else { panic!("{write:?}") };
            let (name, node) = (pod.name().to_owned(), node.clone());
            self.done(&write, Ok(()));
            let claim: &'static str = name.clone().leak();
            self.see(&name, |pod| {
                uses(claim)(pod);
                pod["spec"]["nodeName"] = json!(node);
                pod["status"]["phase"] = json!("Running");
            });
        }
        shares.sort();
        shares
    }

    fn no_drift(&self) {
        let listed: Vec<Listed> = self.index.pods.values().map(|entry| Listed::from(&entry.facts)).collect();
        assert_eq!(self.index.drift(&self.engine, &listed), Vec::<String>::new());
        self.engine.is_consistent().unwrap();
    }
}

#[test]
fn shares_of_one_device_are_given_until_it_is_full_and_count_as_what_they_take() {
    let mut rig = rig(1);
    for name in ["p", "q", "r"] {
        rig.claim(name, wants("31Gi"));
        rig.see(name, uses(name));
    }
    let writes = rig.turn();
    let [Write::Allocate { allocation: said, uid, .. }, _] = writes.as_slice() else { panic!("{writes:?}") };
    let result = &said["devices"]["results"][0];
    assert_eq!(result["consumedCapacity"], json!({"memory": (40_u64 << 30).to_string()}), "rounded up to a step");
    assert_eq!(result["shareID"], json!(uid));
    let shares = rig.give_shares(&writes, "40Gi");
    assert_eq!(shares.iter().map(|(_, device)| device.as_str()).collect::<Vec<_>>(), ["gpu-0"; 2]);
    assert_eq!((rig.used("a"), rig.running()), (1_000, 2));
    assert!(rig.turn().is_empty(), "nothing is left of it");
    rig.no_drift();
    let waits = ["p", "q", "r"].into_iter().find(|name| shares.iter().all(|(claim, _)| claim != name)).unwrap();
    let over: &'static str = shares[0].0.clone().leak();
    rig.over(over, "n1");
    let writes = rig.turn();
    let [free @ Write::Free { claim, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(claim.name(), over);
    rig.done(free, Ok(()));
    rig.claim(over, wants("31Gi"));
    let writes = rig.turn();
    assert_eq!(allocation(&writes[0]).0, waits);
}

#[test]
fn what_others_have_allocated_of_a_device_is_left_to_them() {
    let mut rig = rig(1);
    rig.claim("theirs", has("50Gi", "gpu-0", "other", false));
    rig.claim("p", wants("40Gi"));
    rig.see("p", uses("p"));
    assert!(rig.turn().is_empty(), "30 GiB are left");
    rig.claim("q", wants("30Gi"));
    rig.see("q", uses("q"));
    let writes = rig.turn();
    assert_eq!(rig.give_shares(&writes, "30Gi"), [("q".to_owned(), "gpu-0".to_owned())]);
    rig.no_drift();
}

#[test]
fn after_a_restart_shares_are_held_as_they_were() {
    let mut rig = rig(2);
    rig.claim("p", wants("50Gi"));
    rig.see("p", uses("p"));
    let writes = rig.turn();
    let shares = rig.give_shares(&writes, "50Gi");
    let (device, running) = (shares[0].1.clone(), rig.used("a"));
    let mut again = super::rig(&[("n1", 0)]);
    again.index = Index::default();
    again.engine = Engine::default();
    again.node("n1", 0);
    again.tell(vec![Event::QueueSet { name: "a".into(), queue: owns(8) }]);
    again.device(class("true"));
    again.device(slice("n1", 2, |slice| {
        for device in slice["spec"]["devices"].as_array_mut().unwrap() {
            device["allowMultipleAllocations"] = json!(true);
        }
    }));
    again.claim("p", has("50Gi", &device, "p", true));
    again.see("p", |pod| {
        uses("p")(pod);
        pod["spec"]["nodeName"] = json!("n1");
        pod["status"]["phase"] = json!("Running");
    });
    let events = again.index.begin();
    again.tell(events);
    assert!(again.turn().is_empty());
    assert_eq!((again.used("a"), again.running()), (running, 1));
    again.no_drift();
}

#[test]
fn whole_devices_and_shares_are_asked_for_in_different_ways_and_the_other_is_told() {
    let mut rig = rig(1);
    rig.claim("whole", |_| {});
    rig.see("whole", uses("whole"));
    rig.claim("large", wants("90Gi"));
    rig.see("large", uses("large"));
    rig.claim("several", |claim| {
        wants("10Gi")(claim);
        claim["spec"]["devices"]["requests"][0]["exactly"]["count"] = json!(2);
    });
    rig.see("several", uses("several"));
    assert!(rig.turn().is_empty());
    let told = rig.told().join("; ");
    for what in ["are given in shares alone", "give no such share", "a pod is given one"] {
        assert!(told.contains(what), "{told}");
    }
}
