use serde_json::{Value, json};

use super::*;
use crate::index::tests::{Rig, foreign, gang};
use crate::index::{Change, PodKey, Write};

/// A node has 16 cores, and as many GPUs as is said.
fn asks(cpu: &'static str, gpus: &'static str) -> impl Fn(&mut Value) {
    move |pod| {
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}, "limits": {"nvidia.com/gpu": gpus}});
    }
}

fn on(node: &'static str) -> impl Fn(&mut Value) {
    move |pod| pod["spec"]["nodeName"] = json!(node)
}

fn made(pod: &mut Value) {
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]);
}

/// Another scheduler has bound a pod.
fn theirs(rig: &mut Rig, name: &str, node: &'static str, cpu: &'static str, gpus: &'static str) {
    rig.see(name, |pod| {
        foreign(pod);
        asks(cpu, gpus)(pod);
        on(node)(pod);
    });
}

/// The world looks twice, a second apart, and tells; whom the engine then has end.
fn repaired(rig: &mut Rig) -> Vec<String> {
    let told = |rig: &mut Rig| {
        let repairs = rig.index.look_at_overcommits(rig.now, &rig.engine);
        rig.tell(repairs.into_iter().filter(|repair| !repair.is_vain()).map(Repair::event).collect());
    };
    told(rig);
    let at_once = evicted(rig);
    assert!(at_once.is_empty(), "a kubelet goes first: {at_once:?}");
    told(rig);
    evicted(rig)
}

fn evicted(rig: &mut Rig) -> Vec<String> {
    let writes = rig.turn();
    let names =
        writes.iter().filter_map(|write| if let Write::Evict { pod, .. } = write { Some(pod.name().to_owned()) } else { None });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn the_loser_of_two_bindings_at_one_moment_goes_and_is_placed_elsewhere() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 4)]);
    rig.see("p", asks("10", "1"));
    rig.bind_all(asks("10", "1"));
    rig.node("n2", 2);
    theirs(&mut rig, "web", "n1", "8", "0");
    assert_eq!(repaired(&mut rig), ["p"]);
    let text = rig.notes.iter().filter(|(pod, reason)| pod == "p" && *reason == "Preempted").count();
    assert_eq!(text, 1, "an event says so");
    assert!(rig.index.look_at_overcommits(rig.now.plus(5_000), &rig.engine).is_empty(), "it is on its way");
    rig.gone("p");
    rig.see("p-2", asks("10", "1"));
    assert_eq!(rig.bind_all(asks("10", "1")), [("p-2".to_owned(), "n2".to_owned())]);
}

#[test]
fn what_a_kubelet_refuses_in_time_is_no_more_of_our_business() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 4)]);
    rig.see("p", asks("10", "1"));
    rig.bind_all(asks("10", "1"));
    theirs(&mut rig, "web", "n1", "8", "0");
    assert!(rig.index.look_at_overcommits(rig.now, &rig.engine).is_empty());
    rig.see("web", |pod| {
        foreign(pod);
        asks("8", "0")(pod);
        on("n1")(pod);
        pod["status"] = json!({"phase": "Failed", "reason": "OutOfcpu"});
    });
    assert!(rig.index.look_at_overcommits(rig.now.plus(2_000), &rig.engine).is_empty());
}

#[test]
fn who_loses_least_goes_and_no_more_than_it_takes() {
    let mut rig = Rig::with(&[("n1", 8)], &[("a", 8)]);
    let with = |priority: i64, cpu: &'static str| {
        move |pod: &mut Value| {
            made(pod);
            asks(cpu, "1")(pod);
            pod["spec"]["priority"] = json!(priority);
        }
    };
    for (name, priority, cpu) in [("high", 5, "4"), ("early", 0, "4"), ("late", 0, "4")] {
        rig.see(name, with(priority, cpu));
        rig.bind_all(with(priority, cpu));
        rig.now = rig.now.plus(60_000);
    }
    theirs(&mut rig, "web", "n1", "6", "0");
    assert_eq!(repaired(&mut rig), ["late"]);
}

#[test]
fn of_equals_one_that_is_made_again_goes_before_one_that_nobody_makes_again() {
    let mut rig = Rig::with(&[("n1", 8)], &[("a", 8)]);
    let made = |pod: &mut Value| {
        made(pod);
        asks("4", "1")(pod);
    };
    rig.see("made", made);
    rig.bind_all(made);
    rig.see("bare", asks("4", "1"));
    rig.bind_all(asks("4", "1"));
    theirs(&mut rig, "web", "n1", "10", "0");
    assert_eq!(repaired(&mut rig), ["made"]);
}

#[test]
fn a_gang_goes_whole_if_nothing_cheaper_helps() {
    let mut rig = Rig::with(&[("n1", 1), ("n2", 1)], &[("a", 2)]);
    let of_gang = |pod: &mut Value| {
        gang(2)(pod);
        asks("10", "1")(pod);
    };
    rig.see("w-0", of_gang);
    rig.see("w-1", of_gang);
    rig.bind_all(of_gang);
    theirs(&mut rig, "web", "n1", "8", "0");
    assert_eq!(repaired(&mut rig), ["w-0", "w-1"]);
}

#[test]
fn a_gpu_that_two_have_been_given_stays_with_the_other_and_is_given_to_nobody_else() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 4)]);
    rig.see("p", asks("1", "1"));
    rig.bind_all(asks("1", "1"));
    theirs(&mut rig, "trainer", "n1", "1", "1");
    assert_eq!(repaired(&mut rig), ["p"]);
    rig.gone("p");
    rig.see("p-2", asks("1", "1"));
    assert!(rig.turn().is_empty(), "the GPU is the other scheduler's");
    rig.gone("trainer");
    assert_eq!(rig.bind_all(asks("1", "1")).len(), 1);
}

#[test]
fn what_nothing_of_ours_can_mend_is_left_and_told_once() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 4)]);
    rig.see("p", asks("1", "1"));
    rig.bind_all(asks("1", "1"));
    theirs(&mut rig, "web", "n1", "10", "0");
    theirs(&mut rig, "db", "n1", "10", "0");
    let look = |rig: &mut Rig, after: u64| rig.index.look_at_overcommits(rig.now.plus(after), &rig.engine);
    assert!(look(&mut rig, 0).is_empty());
    let repairs = look(&mut rig, 1_000);
    assert!(matches!(repairs.as_slice(), [repair] if repair.is_vain() && repair.over.scarce == Scarce::Cpu), "{repairs:?}");
    assert!(look(&mut rig, 2_000).is_empty());
    rig.gone("db");
    assert!(look(&mut rig, 3_000).is_empty());
    theirs(&mut rig, "db", "n1", "6", "0");
    look(&mut rig, 4_000);
    assert!(look(&mut rig, 5_000).iter().any(|repair| !repair.is_vain()), "one more time, which can be mended");
}

#[test]
fn a_node_that_is_gone_or_says_nothing_is_not_too_full() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 4)]);
    rig.see("p", asks("1", "1"));
    rig.bind_all(asks("1", "1"));
    rig.node("n1", 0);
    assert_eq!(rig.index.nodes.overcommitted().count(), 0, "its GPUs are not told yet");
    theirs(&mut rig, "web", "n1", "16", "0");
    assert_eq!(rig.index.nodes.overcommitted().count(), 1);
    let events = rig.index.node(Change::Gone("n1".to_owned()), &rig.engine);
    rig.tell(events);
    assert_eq!(rig.index.nodes.overcommitted().count(), 0);
    let key = PodKey::new("team", "web");
    assert!(rig.index.pods.contains_key(&key));
}

/// Amounts that a seed makes: small, and often none.
fn amounts(seed: &mut u64) -> Amounts {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = *seed >> 33;
        if drawn % 5 < 2 { 0 } else { drawn % 20 }
    };
    let gpus = u32::try_from(next()).unwrap();
    let (cpu_milli, memory_mib, storage_mib) = (next(), next(), next());
    Amounts::of_pod(&crate::facts::pod::Requests { gpus, cpu_milli, memory_mib, storage_mib, ..Default::default() })
}

#[test]
fn what_can_be_mended_is_and_nobody_goes_in_vain() {
    for case in 0..2_000_u64 {
        let mut seed = case;
        let over = amounts(&mut seed);
        let all: Vec<Amounts> = (0..case % 12).map(|_| amounts(&mut seed)).collect();
        let mendable = over.covered_by(sum(&all));
        let chosen = cheapest(mendable, &all);
        assert!(mendable.less(sum(chosen.iter().map(|at| &all[*at]))).is_none(), "case {case}");
        for one in &chosen {
            let others = chosen.iter().filter(|other| *other != one).map(|at| &all[*at]);
            assert!(!mendable.less(sum(others)).is_none(), "case {case}: {one} of {chosen:?} goes in vain");
        }
    }
}
