//! What only nodes know: host ports and ephemeral storage.

use super::*;

fn port(pod: &mut Value) {
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 8080}]);
}

fn disk(size: &'static str) -> impl Fn(&mut Value) {
    move |pod| pod["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] = json!(size)
}

impl Rig {
    fn node_with_disk(&mut self, name: &str, gpus: u32, disk: &str) {
        let node = json!({
            "metadata": {"name": name},
            "status": {"allocatable": {
                "cpu": "16", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": gpus.to_string(), "ephemeral-storage": disk,
            }},
        });
        let events = self.index.node(Change::Is(NodeFacts::of(&serde_json::from_value(node).unwrap())), &self.engine);
        self.tell(events);
    }
}

#[test]
fn two_pods_with_the_same_host_port_are_not_on_one_node() {
    let mut rig = Rig::with(&[("n1", 4), ("n2", 4)], &[("a", 8)]);
    rig.see("p", port);
    rig.see("q", port);
    rig.see("r", port);
    let bound = rig.bind_all(port);
    assert_eq!(bound.len(), 2, "{bound:?}");
    assert_ne!(bound[0].1, bound[1].1);
    let told = rig.told();
    assert!(told[0].contains("host port 8080/TCP is taken on 2 of 2 nodes"), "{told:?}");
    let node = bound[0].1.clone();
    rig.gone(&bound[0].0);
    let bound = rig.bind_all(port);
    assert!(bound.len() == 1 && bound[0].1 == node, "{bound:?}");
}

#[test]
fn many_pods_with_one_port_are_spread_without_a_pause() {
    let nodes: Vec<String> = (0..6).map(|number| format!("n{number}")).collect();
    let nodes: Vec<(&str, u32)> = nodes.iter().map(|name| (name.as_str(), 8)).collect();
    let mut rig = Rig::with(&nodes, &[("a", 48)]);
    for number in 0..6 {
        rig.see(&format!("p-{number}"), port);
    }
    let mut on: Vec<String> = rig.bind_all(port).into_iter().map(|(_, node)| node).collect();
    on.sort();
    on.dedup();
    assert_eq!(on.len(), 6, "{on:?}");
}

#[test]
fn a_port_is_taken_by_whoever_holds_it_and_of_the_nodes_network_too() {
    let mut rig = Rig::with(&[("n1", 4)], &[("a", 4)]);
    rig.see("theirs", |pod| {
        foreign(pod);
        pod["spec"]["nodeName"] = json!("n1");
        pod["spec"]["hostNetwork"] = json!(true);
        pod["spec"]["containers"][0]["resources"] = json!({});
        pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080}]);
    });
    rig.see("p", port);
    rig.see("q", |_| {});
    assert_eq!(rig.bind_all(|_| {}), [("q".to_owned(), "n1".to_owned())], "without a port nothing is in the way");
    rig.gone("theirs");
    assert_eq!(rig.bind_all(port).len(), 1);
}

#[test]
fn after_a_restart_who_holds_a_port_is_not_disturbed() {
    let mut rig = Rig::with(&[("n1", 4)], &[("a", 4)]);
    rig.see("p", |pod| {
        port(pod);
        pod["spec"]["nodeName"] = json!("n1");
        pod["status"]["phase"] = json!("Running");
    });
    rig.see("q", port);
    assert!(rig.turn().is_empty());
    assert_eq!(rig.running(), 1);
}

#[test]
fn a_gang_that_the_engine_puts_on_one_node_with_one_port_is_not_started_and_is_told_why() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 2)]);
    let both = |pod: &mut Value| {
        gang(2)(pod);
        port(pod);
    };
    rig.see("w-0", both);
    rig.see("w-1", both);
    assert!(rig.turn().is_empty());
    let told = rig.told();
    assert!(told[0].contains("host port 8080/TCP of node n1 can be had only once"), "{told:?}");
    assert!(rig.engine.state().actions.is_empty());
    // One of it alone would do.
    rig.gone("w-1");
    rig.see("w-0", port);
    rig.now = rig.now.plus(120_000);
    assert_eq!(rig.bind_all(port).len(), 1);
}

#[test]
fn ephemeral_storage_is_counted_whoever_asks_for_it() {
    let mut rig = Rig::new();
    rig.node_with_disk("n1", 4, "10Gi");
    rig.node_with_disk("n2", 4, "2Gi");
    rig.tell(vec![Event::QueueSet { name: "a".into(), queue: owns(8) }]);
    rig.see("theirs", |pod| {
        foreign(pod);
        pod["spec"]["nodeName"] = json!("n1");
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"ephemeral-storage": "3Gi"}});
    });
    for name in ["p", "q"] {
        rig.see(name, disk("4Gi"));
    }
    rig.see("r", |_| {});
    let bound = rig.bind_all(|pod| {
        if pod["metadata"]["name"] != json!("r") {
            disk("4Gi")(pod);
        }
    });
    let names: Vec<&str> = bound.iter().map(|(pod, _)| pod.as_str()).collect();
    assert_eq!(names.len(), 2, "{bound:?}");
    assert!(names.contains(&"r") && bound.iter().all(|(pod, node)| pod == "r" || node == "n1"), "{bound:?}");
    let told = rig.told();
    assert!(told[0].contains("4096 MiB of ephemeral storage are free on 0 of 2 nodes"), "{told:?}");
}

#[test]
fn a_gang_that_needs_more_storage_than_its_node_has_is_not_started() {
    let mut rig = Rig::new();
    rig.node_with_disk("n1", 2, "6Gi");
    rig.tell(vec![Event::QueueSet { name: "a".into(), queue: owns(2) }]);
    let both = |pod: &mut Value| {
        gang(2)(pod);
        disk("4Gi")(pod);
    };
    rig.see("w-0", both);
    rig.see("w-1", both);
    assert!(rig.turn().is_empty());
    assert!(rig.told()[0].contains("node n1 has no 8192 MiB of ephemeral storage free"));
}
