//! Native `PodGroup`s.

use super::*;
use crate::facts::group::GroupFacts;

#[expect(clippy::needless_pass_by_value, reason = "tests write JSON in place")]
fn group(policy: Value) -> Beside {
    let group = json!({"metadata": {"namespace": "team", "name": "g"}, "spec": {"schedulingPolicy": policy}});
    Beside::Group(GroupFacts::of(&serde_json::from_value(group).unwrap()))
}

fn gang_of(size: u32) -> Beside {
    group(json!({"gang": {"minCount": size}}))
}

fn grouped(pod: &mut Value) {
    pod["spec"]["schedulingGroup"] = json!({"podGroupName": "g"});
}

impl Rig {
    fn group_gone(&mut self) {
        let events = self.index.beside_gone(BesideKind::Group, "team/g");
        self.tell(events);
    }
}

#[test]
fn pods_of_a_group_that_does_not_exist_wait_and_are_told_so() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 2)]);
    rig.see("w-0", grouped);
    rig.see("w-1", grouped);
    assert!(rig.turn().is_empty());
    let told = rig.told();
    assert!(told.len() == 2 && told.iter().all(|told| told.contains("PodGroup team/g, which does not exist")), "{told:?}");
    rig.beside(gang_of(2));
    assert_eq!(rig.bind_all(grouped).len(), 2, "the group came after its pods");
    assert!(rig.engine.state().jobs.contains_key(&JobName::from("gang/team/PodGroup/g")));
}

#[test]
fn the_least_number_of_a_group_may_change_while_its_pods_wait() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 2)]);
    rig.beside(gang_of(3));
    rig.see("w-0", grouped);
    rig.see("w-1", grouped);
    assert!(rig.turn().is_empty(), "two of three");
    rig.beside(gang_of(2));
    assert_eq!(rig.bind_all(grouped).len(), 2);
}

#[test]
fn a_group_that_is_no_gang_leaves_its_pods_alone() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 2)]);
    rig.see("w-0", grouped);
    rig.see("w-1", grouped);
    rig.beside(group(json!({"basic": {}})));
    assert_eq!(rig.bind_all(grouped).len(), 1, "each is on its own");
    assert_eq!(rig.index.counts().units, 2, "and nothing is left of the gang");
}

#[test]
fn a_group_that_makes_no_sense_is_told_and_mended() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 1)]);
    rig.beside(group(json!({})));
    rig.see("w-0", grouped);
    assert!(rig.turn().is_empty());
    assert!(rig.told()[0].contains("neither basic nor gang"));
    rig.beside(gang_of(1));
    assert_eq!(rig.bind_all(grouped).len(), 1);
}

#[test]
fn without_its_group_what_waits_waits_and_what_runs_runs() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 2)]);
    rig.beside(gang_of(2));
    rig.see("w-0", grouped);
    rig.group_gone();
    rig.see("w-1", grouped);
    assert!(rig.turn().is_empty());
    rig.beside(gang_of(2));
    assert_eq!(rig.bind_all(grouped).len(), 2);
    rig.group_gone();
    assert!(rig.turn().is_empty(), "nobody is told to end");
    assert_eq!(rig.running(), 1);
}

#[test]
fn one_of_a_gang_that_cannot_be_placed_is_named_to_the_others() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 2)]);
    rig.see("w-0", gang(2));
    rig.see("w-1", |pod| {
        gang(2)(pod);
        pod["metadata"]["annotations"]["tidegate.dev/preemptible"] = json!("maybe");
    });
    assert!(rig.turn().is_empty());
    let told = rig.told();
    assert!(told.iter().any(|told| told.starts_with("pod team/w-1 of its gang: annotation")), "{told:?}");
}
