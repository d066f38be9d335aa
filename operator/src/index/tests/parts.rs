//! Parts of GPUs that nodes give away by count.

use tidegate_core::state::Resource;

use super::*;

const SMALL: &str = "nvidia.com/mig-1g.10gb";
const LARGE: &str = "nvidia.com/mig-3g.40gb";

fn asks(resource: &'static str, count: u32) -> impl Fn(&mut Value) {
    move |pod| pod["spec"]["containers"][0]["resources"] = json!({"limits": {resource: count.to_string()}})
}

fn on(node: &'static str) -> impl Fn(&mut Value) {
    move |pod| {
        pod["spec"]["nodeName"] = json!(node);
        pod["status"]["phase"] = json!("Running");
    }
}

impl Rig {
    /// A queue that owns so many thousandths of GPUs, and borrows none.
    fn closed(&mut self, milli: i64) {
        let quotas = [(Resource::Gpu, Quota::closed(milli))];
        self.tell(vec![Event::QueueSet { name: "a".into(), queue: Queue { quotas: quotas.into(), ..Queue::default() } }]);
    }

    pub(in crate::index) fn used(&self, queue: &str) -> i64 {
        let tree = &self.engine.books().tree;
        tree.usage(tree.node(&queue.into()).unwrap(), 0)
    }

    fn drift(&self) -> Vec<String> {
        let listed: Vec<Listed> = self.index.pods.values().map(|entry| Listed::from(&entry.facts)).collect();
        self.index.drift(&self.engine, &listed)
    }
}

#[test]
fn instances_are_bound_by_profile_and_count_as_their_part_of_a_gpu() {
    let mut rig = Rig::new();
    rig.closed(1_000);
    rig.node_with("n1", &[("nvidia.com/gpu", 1), (SMALL, 2), (LARGE, 1)]);
    rig.see("small", asks(SMALL, 2));
    rig.see("large", asks(LARGE, 1));
    let bound = rig.bind_all(|pod| if pod["metadata"]["name"] == "small" { asks(SMALL, 2)(pod) } else { asks(LARGE, 1)(pod) });
    assert_eq!(bound.len(), 2);
    assert_eq!(rig.used("a"), 2 * 125 + 500);
    assert_eq!(rig.drift(), Vec::<String>::new());
    rig.see("third", asks(SMALL, 1));
    rig.see("whole", |_| {});
    assert!(rig.turn().is_empty(), "no small one is left, and the whole GPU would be more than the queue's one");
    rig.closed(2_000);
    assert_eq!(rig.bind_all(|_| {}), [("whole".to_owned(), "n1".to_owned())], "an instance is not given as a GPU");
}

#[test]
fn a_quota_of_a_profile_is_kept_and_told() {
    let mut rig = Rig::new();
    rig.node_with("n1", &[(SMALL, 7)]);
    let quotas = [(Resource::Class("mig-1g.10gb".into()), Quota::closed(2_000)), (Resource::Gpu, Quota::closed(1_000))];
    rig.tell(vec![Event::QueueSet { name: "a".into(), queue: Queue { quotas: quotas.into(), ..Queue::default() } }]);
    for name in ["p", "q", "r"] {
        rig.see(name, asks(SMALL, 1));
    }
    assert_eq!(rig.bind_all(asks(SMALL, 1)).len(), 2);
    let told = rig.told();
    assert!(told[0].contains("mig-1g.10gb"), "{told:?}");
}

#[test]
fn instances_of_others_pods_count_and_after_a_restart_those_of_ours() {
    let mut rig = Rig::with(&[], &[("a", 4)]);
    rig.node_with("n1", &[("nvidia.com/gpu", 2), (SMALL, 2)]);
    rig.see("theirs", |pod| {
        foreign(pod);
        asks(SMALL, 1)(pod);
        on("n1")(pod);
    });
    rig.see("ours", |pod| {
        asks(SMALL, 1)(pod);
        on("n1")(pod);
    });
    rig.see("p", asks(SMALL, 1));
    assert!(rig.turn().is_empty(), "both are taken");
    assert_eq!((rig.used("a"), rig.drift()), (125, Vec::new()));
    rig.gone("theirs");
    assert_eq!(rig.bind_all(asks(SMALL, 1)), [("p".to_owned(), "n1".to_owned())]);
}

#[test]
fn who_asks_for_several_kinds_waits_and_is_told_and_holds_nobody_up() {
    let mut rig = Rig::with(&[], &[("a", 4)]);
    rig.node_with("n1", &[("nvidia.com/gpu", 1), (SMALL, 1)]);
    rig.see("both", |pod| {
        let limits = json!({"nvidia.com/gpu": "1", SMALL: "1"});
        pod["spec"]["containers"][0]["resources"] = json!({"limits": limits});
    });
    rig.see("p", asks(SMALL, 1));
    assert_eq!(rig.bind_all(asks(SMALL, 1)).len(), 1);
    let told = rig.told();
    assert!(told[0].contains("asks for nvidia.com/gpu and nvidia.com/mig-1g.10gb: a pod is given GPUs of one kind"), "{told:?}");
}

#[test]
fn a_nodes_layout_may_change_and_what_is_held_goes_when_it_is_free() {
    let mut rig = Rig::with(&[], &[("a", 8)]);
    rig.node_with("n1", &[(SMALL, 56)]);
    rig.see("p", asks(SMALL, 1));
    rig.bind_all(asks(SMALL, 1));
    rig.node_with("n1", &[(SMALL, 7), (LARGE, 14)]);
    assert!(rig.turn().is_empty(), "a free one went");
    rig.see("large", asks(LARGE, 14));
    assert_eq!(rig.bind_all(asks(LARGE, 14)).len(), 1, "slots of small ones are slots of large ones now");
    assert!(rig.engine.state().nodes.values().all(|node| node.devices.len() <= 64));
    rig.node_with("n1", &[(LARGE, 14)]);
    assert!(rig.turn().is_empty(), "who holds one keeps it: nobody knows which is gone");
    rig.see("r", asks(SMALL, 1));
    rig.gone("p");
    assert!(rig.turn().is_empty(), "there is no small one any more");
    rig.gone("r");
    rig.node_with("n1", &[(SMALL, 7), (LARGE, 14)]);
    rig.see("q", asks(SMALL, 7));
    assert_eq!(rig.bind_all(asks(SMALL, 7)).len(), 1);
    assert_eq!(rig.drift(), Vec::<String>::new());
}

#[test]
fn a_device_plug_in_that_is_made_anew_ends_nobody_and_what_breaks_is_given_to_nobody() {
    let mut rig = Rig::with(&[("n1", 4)], &[("a", 8)]);
    for name in ["p", "q", "r", "s"] {
        rig.see(name, |_| {});
    }
    assert_eq!(rig.bind_all(|_| {}).len(), 4);
    rig.node("n1", 0);
    assert!(rig.turn().is_empty(), "nothing is offered for a moment");
    assert_eq!(rig.drift(), Vec::<String>::new());
    rig.node("n1", 3);
    rig.see("next", |_| {});
    rig.see("last", |_| {});
    rig.gone("p");
    assert!(rig.turn().is_empty(), "three are held, and three are offered");
    rig.gone("q");
    assert_eq!(rig.bind_all(|_| {}).len(), 1);
    rig.node("n1", 4);
    assert_eq!(rig.bind_all(|_| {}).len(), 1, "it is offered again");
    assert_eq!(rig.drift(), Vec::<String>::new());
}

#[test]
fn what_runs_where_nothing_is_offered_for_a_moment_counts_once_it_is() {
    let mut rig = Rig::with(&[("n1", 0)], &[("a", 8)]);
    for name in ["p", "q", "r"] {
        rig.see(name, on("n1"));
    }
    rig.node("n1", 4);
    rig.see("next", |_| {});
    rig.see("last", |_| {});
    assert_eq!(rig.bind_all(|_| {}).len(), 1, "one of the four is free");
    assert_eq!(rig.drift(), Vec::<String>::new());
}
