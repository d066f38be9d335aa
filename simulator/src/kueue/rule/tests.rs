use tidegate_core::quota::{QueueQuota, Quota};

use super::super::Wish;
use super::*;

const SETTINGS: RuleSettings =
    RuleSettings { strategy: Strategy::BestEffortFifo, equivalence_hashing: true, requeue_batch_ms: 1000, backoff_max_ms: 100 };

/// A cohort with queues `a` and `b` of 20, and one class per `(cpus, priority)`.
fn rule(classes: &[(i64, i32)], settings: RuleSettings) -> Rule {
    let queue = |name: &str, parent: Option<&str>, quota| QueueQuota {
        name: name.into(),
        parent: parent.map(Into::into),
        weight_milli: 1000,
        quotas: vec![(0, quota)],
    };
    let own = Quota { nominal: 20, borrowing_limit: Some(100), lending_limit: None };
    let queues = vec![queue("cohort", None, Quota::closed(0)), queue("a", Some("cohort"), own), queue("b", Some("cohort"), own)];
    let class = |(at, (cpus, priority)): (usize, &(i64, i32))| Class {
        name: format!("c{at}"),
        pods: 1,
        per_pod: vec![(0, *cpus)],
        priority: *priority,
        wish: None,
    };
    let classes = classes.iter().enumerate().map(class).collect();
    let scene = Scene { name: "t".into(), resources: vec!["cpu".into()], queues, classes, layout: None };
    Rule::new(&scene, settings).unwrap()
}

const A: NodeIx = NodeIx(1);
const B: NodeIx = NodeIx(2);

/// Who was admitted and who is to be evicted.
fn cycle(rule: &mut Rule, now: Ms) -> (Vec<u32>, Vec<u32>) {
    let mut orders = Orders::default();
    rule.cycle(now, &mut orders);
    (
        orders.admit.iter().map(|admission| admission.workload.0).collect(),
        orders.evict.iter().map(|workload| workload.0).collect(),
    )
}

fn submit(rule: &mut Rule, workload: u32, queue: NodeIx, class: u16) {
    rule.submit(u64::from(workload), WorkloadIx(workload), queue, class);
}

#[test]
fn one_head_per_queue_and_cycle_the_highest_priority_first() {
    let mut rule = rule(&[(1, 0), (1, 9)], SETTINGS);
    for (workload, class) in [(0, 0), (1, 1), (2, 0)] {
        submit(&mut rule, workload, A, class);
    }
    submit(&mut rule, 3, B, 0);
    assert_eq!(cycle(&mut rule, 10), (vec![1, 3], vec![]));
    assert_eq!(cycle(&mut rule, 11), (vec![0], vec![]));
    assert_eq!(cycle(&mut rule, 12), (vec![2], vec![]));
}

#[test]
fn who_does_not_borrow_goes_before_who_does() {
    let mut rule = rule(&[(25, 9), (20, 0)], SETTINGS);
    submit(&mut rule, 0, A, 0);
    submit(&mut rule, 1, B, 1);
    assert_eq!(cycle(&mut rule, 10), (vec![1], vec![]), "25 would borrow what b's own 20 need");
}

#[test]
fn a_queue_claims_back_what_others_borrow_even_of_higher_priority() {
    let mut rule = rule(&[(20, 9), (20, 0)], SETTINGS);
    submit(&mut rule, 0, A, 0);
    submit(&mut rule, 1, A, 0);
    assert_eq!((cycle(&mut rule, 10).0, cycle(&mut rule, 11).0), (vec![0], vec![1]));
    submit(&mut rule, 2, B, 1);
    assert_eq!(cycle(&mut rule, 12), (vec![], vec![1]), "the newest goes");
    assert_eq!(cycle(&mut rule, 13), (vec![], vec![]), "it is on its way already");
    rule.evicted(20, WorkloadIx(1));
    assert_eq!(cycle(&mut rule, 21), (vec![2], vec![]));
}

#[test]
fn nobody_is_evicted_from_a_queue_within_its_quota_by_another() {
    let mut rule = rule(&[(20, 0), (21, 9)], SETTINGS);
    submit(&mut rule, 0, A, 0);
    cycle(&mut rule, 1);
    submit(&mut rule, 1, B, 1);
    assert_eq!(cycle(&mut rule, 2), (vec![], vec![]));
}

#[test]
fn lower_priority_of_the_same_queue_makes_room_and_who_is_not_needed_stays() {
    let mut rule = rule(&[(4, 0), (16, 1), (16, 5)], SETTINGS);
    for (workload, class) in [(0, 0), (1, 1)] {
        submit(&mut rule, workload, A, class);
        cycle(&mut rule, u64::from(workload) + 5);
    }
    submit(&mut rule, 2, B, 1);
    submit(&mut rule, 3, B, 0);
    for now in [10, 11] {
        cycle(&mut rule, now);
    }
    submit(&mut rule, 4, A, 2);
    assert_eq!(cycle(&mut rule, 12), (vec![], vec![1]), "the 4 of lowest priority was taken first and given back");
}

#[test]
fn what_does_not_fit_waits_for_its_batch_and_takes_its_likes_along() {
    let mut rule = rule(&[(20, 0), (1, 0)], SETTINGS);
    for (workload, queue) in [(0, A), (1, B), (2, A), (3, A)] {
        submit(&mut rule, workload, queue, 0);
    }
    submit(&mut rule, 4, A, 1);
    assert_eq!(cycle(&mut rule, 10).0, [0, 1]);
    assert_eq!(cycle(&mut rule, 11).0, Vec::<u32>::new());
    assert_eq!(rule.pending[1].as_mut().unwrap().pop().map(|head| head.rank.2.0), Some(4), "3 was set aside with 2");
    rule.finish(100, WorkloadIx(0));
    assert_eq!(cycle(&mut rule, 500).0, Vec::<u32>::new());
    assert_eq!(cycle(&mut rule, 1100).0, [2]);
}

#[test]
fn a_strict_queue_waits_for_its_head() {
    let mut rule = rule(&[(30, 9), (40, 9), (1, 0)], RuleSettings { strategy: Strategy::StrictFifo, ..SETTINGS });
    submit(&mut rule, 0, B, 0);
    cycle(&mut rule, 1);
    submit(&mut rule, 1, A, 1);
    submit(&mut rule, 2, A, 2);
    for now in 2..6 {
        assert_eq!(cycle(&mut rule, now).0, Vec::<u32>::new(), "1 does not fit, and 2 stays behind it");
    }
}

#[test]
fn two_heads_that_were_nominated_on_the_same_nodes_get_different_ones() {
    let mut scene_rule = rule(&[(1, 0)], SETTINGS);
    let layout =
        super::super::Layout { levels: vec![("rack".into(), 2), ("node".into(), 1)], node: vec![(0, 1)], pods_per_node: 9 };
    scene_rule.nodes = Some(Nodes::new(&layout, 1));
    for class in &mut scene_rule.classes {
        class.wish = Some(Wish::Required { level: 0 });
    }
    submit(&mut scene_rule, 0, A, 0);
    submit(&mut scene_rule, 1, B, 0);
    let mut orders = Orders::default();
    scene_rule.cycle(10, &mut orders);
    let nodes: Vec<u32> = orders.admit.iter().flat_map(|admission| admission.nodes.iter().map(|(node, _)| *node)).collect();
    assert_eq!(nodes, [0, 1]);
}
