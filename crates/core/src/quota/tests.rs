use super::build::QuotaError;
use super::fair::{Claim, Standing, water_fill};
use super::*;

fn quota(nominal: i64, borrowing_limit: Option<i64>, lending_limit: Option<i64>) -> Quota {
    Quota { nominal, borrowing_limit, lending_limit }
}

fn queue(name: &str, parent: Option<&str>, quota: Quota) -> QueueQuota {
    QueueQuota { name: name.into(), parent: parent.map(QueueName::from), weight_milli: 1000, quotas: vec![(0, quota)] }
}

/// `lab` with two queues of 20; `a` borrows 100 at most, `b` lends 5 at most.
fn lab() -> (Tree, NodeIx, NodeIx) {
    let lab = queue("lab", None, quota(0, None, None));
    let a = queue("a", Some("lab"), quota(20, Some(100), None));
    let b = queue("b", Some("lab"), quota(20, Some(0), Some(5)));
    let tree = Tree::build(1, vec![lab, a, b]).unwrap();
    (tree, NodeIx(1), NodeIx(2))
}

#[test]
fn a_lending_limit_keeps_the_rest_for_its_owner() {
    let (mut tree, a, b) = lab();
    assert_eq!((tree.guaranteed(NodeIx(0), 0), tree.available(a, 0), tree.available(b, 0)), (25, 25, 20));
    tree.add_usage(a, 0, 25);
    assert!(tree.borrowing(a, 0) && !tree.borrowing(b, 0));
    assert_eq!((tree.available(a, 0), tree.available(b, 0)), (0, 15), "b keeps 15, its other 5 are lent");
    tree.add_usage(b, 0, 15);
    assert_eq!(tree.usage(NodeIx(0), 0), 25, "what b uses of its own is not seen above");
    tree.remove_usage(a, 0, 25);
    assert_eq!((tree.available(a, 0), tree.available(b, 0)), (25, 5));
}

#[test]
fn what_does_not_fit_names_the_limit_and_its_level() {
    let (mut tree, a, b) = lab();
    let refused = tree.fits(b, &[(0, 21)]).unwrap_err();
    assert_eq!(refused, Binding { node: b, resource: 0, need: 21, available: 20, limit: Limit::Nominal });
    tree.add_usage(a, 0, 10);
    let refused = tree.fits(a, &[(0, 16)]).unwrap_err();
    assert_eq!((refused.node, refused.limit, refused.available), (tree.root(), Limit::Capacity, 15));
    assert!(tree.fits(a, &[(0, 15)]).is_ok());
    assert_eq!(tree.fits_nominal(a, &[(0, 11)]).unwrap_err().available, 10);
    assert!(tree.fits_empty(a, &[(0, 25)]) && !tree.fits_empty(a, &[(0, 26)]));

    let greedy = queue("c", None, quota(10, Some(3), None));
    let tree = Tree::build(1, vec![greedy, queue("d", None, quota(10, None, None))]).unwrap();
    let refused = tree.fits(NodeIx(0), &[(0, 14)]).unwrap_err();
    assert_eq!((refused.node, refused.limit, refused.available), (NodeIx(0), Limit::Borrowing, 13));
    assert!(tree.fits(NodeIx(0), &[(7, 1)]).is_err(), "a resource that the tree does not have has no quota");
}

#[test]
fn a_quota_cut_below_its_usage_leaves_less_than_nothing_and_evicts_nobody() {
    let (mut tree, a, _) = lab();
    tree.add_usage(a, 0, 20);
    let fewer = vec![queue("a", None, quota(8, None, None)), queue("e", None, quota(3, Some(0), Some(0)))];
    let tree = tree.rebuilt(fewer).unwrap();
    assert_eq!((tree.usage(NodeIx(0), 0), tree.available(NodeIx(0), 0)), (20, -12));
    assert_eq!(tree.available(NodeIx(1), 0), 3 - 12, "as in Kueue: the tree is over-admitted");
}

#[test]
fn closed_queues_are_trees_of_their_own() {
    let closed = |name: &str| queue(name, None, Quota::closed(10));
    let mut tree = Tree::build(1, vec![closed("x"), closed("y")]).unwrap();
    tree.add_usage(NodeIx(0), 0, 10);
    assert_eq!((tree.available(NodeIx(0), 0), tree.available(NodeIx(1), 0), tree.usage(tree.root(), 0)), (0, 10, 0));
}

#[test]
fn the_lowest_cover_is_where_borrowing_ends() {
    let team = queue("team", Some("org"), quota(0, None, None));
    let parts = ["p", "q"].map(|name| queue(name, Some("team"), quota(10, None, None)));
    let other = queue("other", Some("org"), quota(50, None, None));
    let tree =
        Tree::build(1, [vec![queue("org", None, quota(0, None, None)), team], parts.to_vec(), vec![other]].concat()).unwrap();
    let names = |amount| {
        let (node, height) = tree.lowest_cover(NodeIx(2), 0, amount);
        (tree.queue(node).unwrap().name.to_string(), height)
    };
    assert_eq!([names(10), names(20), names(21)], [("p".into(), 0), ("team".into(), 1), ("org".into(), 2)]);
    assert_eq!(names(1000), (String::new(), 3));
}

#[test]
fn each_mistake_is_named() {
    let plain = |name: &str, parent: Option<&str>| queue(name, parent, quota(1, None, None));
    let says = |queues: Vec<QueueQuota>| Tree::build(1, queues).unwrap_err().to_string();
    let cycle = says(vec![plain("under", Some("x")), plain("x", Some("y")), plain("y", Some("z")), plain("z", Some("x"))]);
    assert!(cycle.contains("queue `x`") && cycle.contains("x > y > z > x"), "{cycle}");
    assert!(says(vec![plain("self", Some("self"))]).contains("self > self"));
    assert!(says(vec![plain("", None), plain("", None)]).contains("two roots"));
    assert!(says(vec![plain("", Some("x")), plain("x", None)]).contains("`x`"));
    assert!(says(vec![plain("a", None), plain("a", None)]).contains("`a` is there twice"));
    assert!(says(vec![plain("a", Some("gone"))]).contains("`gone`, which does not exist"));
    assert!(says(vec![queue("n", None, quota(-1, None, None))]).contains("queue `n`: nominal quota of resource 0 is -1"));
    assert!(says(vec![queue("n", None, quota(0, Some(-2), None))]).contains("borrowing limit of resource 0 is -2"));
    assert!(says(vec![queue("n", None, quota(0, None, Some(-3)))]).contains("lending limit of resource 0 is -3"));
    let weightless = QueueQuota { weight_milli: 0, ..plain("w", None) };
    assert!(says(vec![weightless]).contains("queue `w`: weight is 0"));
    let twice = QueueQuota { quotas: vec![(0, Quota::closed(1)), (0, Quota::closed(2))], ..plain("t", None) };
    assert_eq!(Tree::build(1, vec![twice]), Err(QuotaError::ResourceTwice { queue: "t".into(), resource: 0 }));
    let unknown = QueueQuota { quotas: vec![(4, Quota::closed(1))], ..plain("u", None) };
    assert_eq!(Tree::build(1, vec![unknown]), Err(QuotaError::NoResource { queue: "u".into(), resource: 4, resources: 1 }));
}

#[test]
fn a_written_down_root_brings_its_own_quota() {
    let tree = Tree::build(1, vec![queue("a", None, quota(1, None, None)), queue("", None, quota(9, None, None))]).unwrap();
    assert_eq!((tree.root(), tree.available(NodeIx(0), 0), tree.len()), (NodeIx(1), 10, 2));
}

#[test]
fn water_first_fills_what_is_deserved_then_goes_by_weight() {
    let claim = |deserved, request, priority, weight| Claim { deserved, request, standing: Standing { priority, weight } };
    let fill = |capacity, claims: &[Claim]| water_fill(capacity, 1, claims);
    assert_eq!(fill(10, &[claim(2, 1, 0, 1), claim(2, 20, 0, 1), claim(2, 20, 0, 1)]), [1, 5, 4]);
    assert_eq!(fill(16, &[claim(0, 20, 0, 3), claim(0, 20, 0, 1)]), [12, 4]);
    assert_eq!(fill(16, &[claim(0, 5, 0, 3), claim(0, 20, 0, 1)]), [5, 11], "what one does not want goes to the other");
    assert_eq!(fill(16, &[claim(4, 20, 0, 1), claim(4, 20, 5, 1)]), [4, 12], "the higher bucket is filled first");
    assert_eq!(fill(9, &[claim(20, 20, 0, 1), claim(10, 20, 5, 1)]), [6, 3], "too little is divided by what is deserved");
    assert_eq!(fill(9, &[claim(0, 4, 0, 0), claim(0, 20, 0, 1)]), [0, 9]);
    assert_eq!(fill(9, &[claim(0, 4, 0, 0), claim(0, 6, 0, 1)]), [3, 6], "weight 0 gets what nobody wants");
    assert_eq!(water_fill(7_500, 1000, &[claim(0, 9_000, 0, 1), claim(0, 9_000, 0, 1)]), [4_000, 3_000], "whole GPUs");
}

#[test]
fn shares_go_down_the_tree_level_by_level() {
    let mut queues = vec![queue("big", None, quota(60, None, None)), queue("small", None, quota(40, None, None))];
    queues.push(queue("x", Some("big"), quota(0, None, None)));
    queues.push(queue("y", Some("big"), quota(0, None, None)));
    let tree = Tree::build(1, queues).unwrap();
    let standing = vec![Standing::default(); tree.len()];
    assert_eq!(tree.fair_shares(0, 100, 1, &[0, 100, 100, 100, 0], &standing), [60, 40, 30, 30, 100]);
    assert_eq!(tree.fair_shares(0, 100, 1, &[0, 10, 100, 20, 0], &standing), [90, 10, 70, 20, 100]);
}
