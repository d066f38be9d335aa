//! What would be different, as short stories.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "explain/story.rs"]
mod story;

use story::{HOUR, Story, workers};
use tidegate_core::At;
use tidegate_core::eta::Estimate;
use tidegate_core::labels::{self, Selector};
use tidegate_core::names::{Class, JobName, Namespace, NodeName, QueueName};
use tidegate_core::state::{JobSpec, Queue, Resource};
use tidegate_core::what_if::{self, Amount, Change, Difference, Moment, WhatIfError};

const DAY: u64 = 24 * HOUR;

/// Eight devices, four each of two queues; `own` waits in the first, `guest` holds more than its queue's own.
fn busy() -> Story {
    let mut story = Story::new();
    story.queue("vision", Queue::devices(4, Some(0))).queue("speech", Queue::devices(4, None)).node("n1", "H100", 8);
    story.job("first", workers("vision", 4, 1)).settle().later(HOUR);
    story.job("guest", workers("speech", 4, 1)).settle();
    story.job("own", workers("vision", 2, 1)).settle();
    story
}

fn ask(story: &Story, changes: &[Change]) -> Difference {
    let before = story.engine.clone();
    let difference = what_if::run(&story.engine, changes, story.now, DAY).unwrap();
    assert!(story.engine == before, "asking changes nothing");
    difference
}

fn refused(story: &Story, change: Change) -> WhatIfError {
    what_if::run(&story.engine, &[change], story.now, DAY).unwrap_err()
}

fn starts(at: At) -> Moment {
    Moment::Starts { at, rests_on: Estimate::User }
}

#[test]
fn no_change_makes_no_difference() {
    let difference = ask(&busy(), &[]);
    assert!(difference.is_none());
    assert!(difference.to_string().ends_with("no difference\n"), "{difference}");
}

#[test]
fn more_quota_and_a_node_start_a_waiting_job_now() {
    let story = busy();
    let quota = Change::Quota { queue: QueueName::from("vision"), resource: Resource::Gpu, nominal: Amount::By(2_000) };
    let node = Change::AddNodes { like: NodeName::from("n1"), count: 1 };
    let difference = ask(&story, &[quota, node]);
    let shift = &difference.starts[0];
    assert_eq!((shift.before, shift.is_earlier()), (starts(story.now.plus(HOUR)), true));
    assert_eq!(shift.after, Moment::Starts { at: story.now, rests_on: Estimate::Certain });
    assert_eq!((difference.before.gpus, difference.after.gpus), (8, 16));
    assert_eq!((difference.before.free, difference.after.free), (0, 6));
    assert!(difference.disruptions.is_empty());
    let table = difference.to_string();
    assert_eq!(
        table,
        "what if: quota of vision: +2 device(s); 1 more node(s) like n1; until 01:00 UTC (in 1 d)
devices            before  after
  in use or free   8       16
  free at first    0       6
  free on average  7.333   15.333
  lent at first    0       0
  lent on average  0       0

starts sooner  before              after
  job/own      02:00 UTC (in 1 h)  now    1 h sooner
"
    );
}

#[test]
fn less_of_the_machine_stops_and_delays() {
    let mut story = busy();
    story.node("n2", "H100", 2);
    let difference = ask(&story, &[Change::DrainNode { node: NodeName::from("n1") }]);
    let stopped: Vec<(&str, u32, u32)> =
        difference.disruptions.iter().map(|one| (one.job.as_str(), one.before, one.after)).collect();
    assert_eq!(stopped, [("first", 0, 1), ("guest", 0, 1)]);
    assert!(difference.disruptions[0].first.as_ref().unwrap().reason.contains("drained"));
    assert_eq!((difference.before.gpus, difference.after.gpus), (10, 2));
    let removed = ask(&story, &[Change::RemoveNode { node: NodeName::from("n1") }]);
    assert_eq!(removed.after.gpus, 2);
    assert!(removed.to_string().contains("stopped or smaller"), "{removed}");
}

#[test]
fn a_job_of_a_namespace_that_nobody_has_seen_is_asked_about_as_if_it_were_made() {
    let mut story = Story::new();
    let ours = Selector { match_labels: labels::of_namespace(&Namespace::from("team-a")), match_expressions: Vec::new() };
    let queue = Queue { namespaces: Some(ours), ..Queue::devices(4, None) };
    story.queue("vision", queue).node("n1", "H100", 4).settle();
    let start_of = |namespace: &str| {
        let spec = JobSpec { namespace: Namespace::from(namespace), ..workers("vision", 1, 1) };
        let change = Change::SubmitJob { name: JobName::from("new"), spec: Box::new(spec) };
        ask(&story, &[change]).starts.iter().find_map(|shift| shift.after.at())
    };
    assert!(start_of("team-a").is_some());
    assert_eq!(start_of("team-b"), None, "the queue does not take it");
}

#[test]
fn a_job_that_is_submitted_or_removed_is_told_with_what_it_does_to_others() {
    let story = busy();
    let urgent = JobSpec { priority: 5, ..workers("vision", 4, 1) };
    let difference = ask(&story, &[Change::SubmitJob { name: JobName::from("urgent"), spec: Box::new(urgent) }]);
    let urgent = difference.starts.iter().find(|shift| shift.job.as_str() == "urgent").unwrap();
    assert_eq!(urgent.before, Moment::Absent);
    assert!(urgent.after.at().unwrap() < story.now.plus(60_000), "it takes from job/first");
    assert_eq!(difference.disruptions[0].job, JobName::from("first"));
    let without = ask(&story, &[Change::RemoveJob { name: JobName::from("first") }]);
    assert!(without.starts[0].after.at().unwrap() < story.now.plus(60_000), "{without}");
}

#[test]
fn a_priority_and_a_field_of_the_policy_can_be_asked_about() {
    let mut story = busy();
    story.later(1).job("late", workers("vision", 4, 1)).settle();
    let change = Change::Priority { job: JobName::from("late"), priority: 1 };
    let difference = ask(&story, &[change]);
    let names: Vec<(&str, bool)> = difference.starts.iter().map(|shift| (shift.job.as_str(), shift.is_earlier())).collect();
    assert_eq!(names, [("late", true), ("own", false)]);
    let policy = |value: &str| Change::Policy {
        field: "max_evictions_per_minute".to_owned(),
        value: serde_json::from_str(value).unwrap(),
    };
    let both = ask(&story, &[Change::Priority { job: JobName::from("late"), priority: 1 }, policy("0")]);
    assert!(both.disruptions.is_empty(), "nothing may be stopped: {both}");
}

#[test]
fn changes_are_read_from_json_and_the_answer_is_written_as_json() {
    let text = r#"[{"quota": {"queue": "vision", "resource": "gpu/H100", "nominal": {"by": 4000}}},
        {"new_nodes": {"class": "B200", "gpus": 8, "memory_mib": 183359, "count": 2}}, {"policy": {"field": "lend_after_ms", "value": 5}}]"#;
    let changes: Vec<Change> = serde_json::from_str(text).unwrap();
    let difference = ask(&busy(), &changes);
    assert_eq!(difference.after.gpus, 24);
    let json = serde_json::to_value(&difference).unwrap();
    assert_eq!(json["changes"][1], "2 more node(s) of 8 B200");
}

#[test]
fn changes_that_make_no_sense_name_the_field_and_the_remedy() {
    let story = busy();
    let quota = |queue: &str, nominal| Change::Quota { queue: QueueName::from(queue), resource: Resource::Gpu, nominal };
    let said = |change: Change| refused(&story, change).to_string();
    assert_eq!(
        said(quota("visoin", Amount::By(1))),
        "change 0: `queue` names queue `visoin`, which does not exist; there are: speech, vision"
    );
    assert!(said(quota("vision", Amount::By(-5_000))).starts_with("change 0: `nominal` is -1000; give a number from 0 to "));
    assert_eq!(
        said(Change::AddNodes { like: NodeName::from("n1"), count: 0 }),
        "change 0: `count` is 0; give a number from 1 to 4096"
    );
    let kind = Change::NewNodes { class: Class::from("H100"), gpus: 65, memory_mib: 1, count: 1 };
    assert_eq!(said(kind), "change 0: `gpus` is 65; give a number from 1 to 64");
    assert!(said(Change::RemoveNode { node: NodeName::from("n9") }).contains("`node` names node `n9`"));
    assert!(said(Change::RemoveJob { name: JobName::from("x") }).ends_with("there are: first, guest, own"));
    let twice = Change::SubmitJob { name: JobName::from("own"), spec: Box::new(workers("vision", 1, 1)) };
    assert!(said(twice).contains("choose another name"));
    let nobody = Change::SubmitJob { name: JobName::from("new"), spec: Box::new(workers("vision", 0, 1)) };
    assert!(said(nobody).starts_with("change 0: `spec.groups.min` is 0; give a number from 1 to"));
    let policy = |field: &str, value: serde_json::Value| said(Change::Policy { field: field.to_owned(), value });
    assert!(
        policy("headrom", 1.into())
            .starts_with("change 0: `field` is `headrom`, which the policy does not have; it has: again_doublings, ")
    );
    assert!(policy("headroom_percent", "much".into()).contains("`value` of `headroom_percent` is \"much\""));
    assert_eq!(what_if::run(&story.engine, &[], story.now, 0).unwrap_err().category(), "no_horizon");
}
