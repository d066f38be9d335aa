//! What people are told, as short stories on small clusters.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

#[path = "explain/story.rs"]
mod story;

use story::{HOUR, Story, workers};
use tidegate_core::explain::{self, Explanation};
use tidegate_core::names::{Class, JobName, Namespace, QueueName};
use tidegate_core::policy::Policy;
use tidegate_core::quota::Quota;
use tidegate_core::state::{Ask, ClassWish, Discipline, Group, JobSpec, ModelSpec, Queue, Resource, Spread};
use tidegate_core::{Event, JobExit};

fn ask(story: &Story, name: &str) -> Explanation {
    let before = story.engine.clone();
    let answer = explain::job(&story.engine, &JobName::from(name), story.now).unwrap();
    let once = explain::waiting(&story.engine, &JobName::from(name));
    assert!(
        once.is_empty() || answer.because[0] == once || answer.because[0].contains("its turn has come"),
        "{once}: {answer:?}"
    );
    assert!(story.engine == before, "explaining changes nothing");
    assert_eq!(story.engine.is_consistent(), Ok(()));
    answer
}

fn end(story: &mut Story, name: &str) {
    let attempt = story.engine.state().jobs[&JobName::from(name)].attempts;
    story.tell(Event::JobExited { name: JobName::from(name), attempt, exit: JobExit::Succeeded });
}

fn of_class(class: &str, gpus: u32) -> Ask {
    Ask { classes: vec![ClassWish::from(Class::from(class))], ..Ask::whole(gpus) }
}

#[track_caller]
fn tells(told: &[String], wanted: &str) {
    assert!(told.iter().any(|sentence| sentence == wanted), "{wanted:?} is not among {told:#?}");
}

#[track_caller]
fn mentions(told: &[String], wanted: &str) {
    assert!(told.iter().any(|sentence| sentence.contains(wanted)), "{wanted:?} is in none of {told:#?}");
}

#[test]
fn a_gang_is_told_the_best_node_and_how_many_of_its_workers_would_fit() {
    let mut story = Story::new();
    story.queue("q", Queue::devices(16, None)).node("n1", "H100", 4).node("n2", "H100", 4);
    story.job("a", workers("q", 1, 2)).job("b", workers("q", 1, 3)).settle().job("gang", workers("q", 2, 4)).settle();
    let answer = ask(&story, "gang");
    assert_eq!(answer.because[0], "needs 8 device(s) (2 workers of 4), 3 of 8 are free; job/a, job/b hold the rest");
    tells(&answer.because, "there is room for 0 of 2 workers");
    tells(&answer.because, "a worker needs 4 device(s) of one node; the best node n1 has 2 of 4 free");
    tells(&answer.because, "job/b holds 3 device(s) and keeps them: its priority is the same");
    tells(&answer.would_change, "would start now with 2 more node(s) like n1 (4 H100)");
}

#[test]
fn a_rack_that_is_too_small_is_named() {
    let mut story = Story::new();
    story.tell(Event::PolicySet(Policy { levels: vec!["rack".to_owned()], ..Policy::default() }));
    story.queue("q", Queue::devices(64, None));
    for (node, rack) in [("n1", "r1"), ("n2", "r1"), ("n3", "r2"), ("n4", "r2"), ("n5", "r2")] {
        story.node_in(node, "H100", 2, &[("rack", rack)]);
    }
    let spread = Some(Spread { level: "rack".to_owned(), required: true });
    let mut spec = workers("q", 8, 1);
    spec.groups[0].spread = spread;
    story.job("gang", spec).settle();
    let answer = ask(&story, "gang");
    let never = "no rack would hold its 8 workers, even empty: require a wider level, or fewer workers";
    assert_eq!(answer.because[0], never);
    tells(&answer.because, "rack r2 fits 6 of 8 workers, no other fits more");
    tells(&answer.would_change, "would start now with 1 more node(s) like n3 (2 H100)");
}

#[test]
fn each_level_of_the_quota_that_refuses_is_told_and_what_would_open_it() {
    let mut story = Story::new();
    let child = |nominal, limit| Queue { parent: Some(QueueName::from("research")), ..Queue::devices(nominal, limit) };
    story.queue("research", Queue::devices(0, Some(1))).queue("vision", child(2, Some(1))).queue("speech", child(2, None));
    story.node("n1", "H100", 8).node("n2", "H100", 8);
    story.job("a", workers("vision", 2, 1)).job("b", workers("speech", 2, 1)).settle();
    story.job("c", workers("vision", 4, 1)).settle();
    let answer = ask(&story, "c");
    let never = "it needs 4 device(s), and queue vision may never use more than 3: ask for less, or raise its quota";
    assert_eq!(answer.because[0], never);
    tells(&answer.because, "queue vision uses 2 of its limit of 3 device(s)");
    tells(&answer.because, "queue research uses 4 of its limit of 5 device(s)");
    tells(&answer.would_change, "would start now if queue vision had 3 more device(s)");
}

#[test]
fn a_queue_that_has_spent_its_budget_goes_last_takes_from_nobody_and_is_told() {
    let mut story = Story::new();
    let vision = Queue { budget_ms: Some(8 * HOUR), ..Queue::devices(8, None) };
    story.queue("vision", vision).queue("speech", Queue::devices(0, None)).node("n1", "H100", 8);
    story.job("a", workers("vision", 8, 1)).settle().later(2 * HOUR);
    end(&mut story, "a");
    story.job("guest", workers("speech", 8, 1)).settle();
    story.job("b", workers("vision", 8, 1)).settle();
    let answer = ask(&story, "b");
    tells(&answer.because, "queue vision has used 16 of its budget of 8 GPU-hour(s): it waits for others and takes from nobody");
    story.job("c", workers("speech", 8, 1)).settle();
    end(&mut story, "guest");
    story.settle();
    assert!(story.engine.state().jobs[&JobName::from("c")].run().is_some(), "c is younger, but of a queue that has its budget");
    story.later(24 * HOUR).settle();
    assert!(story.engine.state().jobs[&JobName::from("b")].run().is_some(), "the past has faded: what is its own is reclaimed");
}

#[test]
fn a_quota_of_a_class_is_asked_for_by_its_name() {
    let mut story = Story::new();
    let quota = |nominal| Quota { nominal, borrowing_limit: Some(0), lending_limit: None };
    let quotas = BTreeMap::from([(Resource::Class(Class::from("H100")), quota(2_000))]);
    story.queue("vision", Queue { quotas, ..Queue::default() }).node("n1", "H100", 8).node("n2", "A100", 8);
    let spec = JobSpec::workers("vision", 1, 1, of_class("H100", 6));
    story.job("a", spec).settle();
    let answer = ask(&story, "a");
    assert_eq!(
        answer.because[0],
        "it needs 6 H100, and queue vision may never use more than 2: ask for less, or raise its quota"
    );
    tells(&answer.because, "queue vision uses 0 of its limit of 2 H100");
    tells(&answer.would_change, "would start now if queue vision had 4 more H100");
}

#[test]
fn what_needs_quota_and_nodes_is_told_both() {
    let mut story = Story::new();
    story.queue("q", Queue::devices(4, Some(0))).node("n1", "H100", 4).node("n2", "H100", 4);
    story.job("a", workers("q", 4, 4)).settle();
    let answer = ask(&story, "a");
    tells(
        &answer.because,
        "it needs 4 workers, and the whole cluster, empty, would hold 2: lower the least number of workers, or add nodes",
    );
    tells(&answer.would_change, "would start now with 2 more node(s) like n1 (4 H100), if queue q had 12 more device(s) too");
}

#[test]
fn a_job_that_is_larger_than_the_cluster_is_told_so() {
    let mut story = Story::new();
    story.queue("q", Queue::devices(64, None)).node("n1", "H100", 4).node("n2", "A100", 8);
    story.job("a", JobSpec::workers("q", 1, 1, of_class("H100", 8))).settle();
    let answer = ask(&story, "a");
    assert_eq!(
        answer.because[0],
        "one worker asks for 8 device(s) of H100, which no node has, even empty: ask for less a worker"
    );
}

#[test]
fn a_strict_queue_names_the_job_that_goes_first_and_why_it_waits() {
    let mut story = Story::new();
    story.queue("q", Queue { discipline: Discipline::StrictFifo, ..Queue::devices(8, Some(0)) });
    story.node("n1", "H100", 4).node("n2", "H100", 4).job("a", workers("q", 3, 2)).settle();
    story.later(1).job("head", workers("q", 2, 2)).later(1).job("small", workers("q", 1, 1)).settle();
    let answer = ask(&story, "small");
    assert_eq!(
        answer.because[0],
        "queue q is strict first in, first out: job/head goes first (queue q uses 6 of its limit of 8 device(s))"
    );
    tells(&answer.because, "1 job(s) wait before it (higher priority, or older)");
}

#[test]
fn protections_are_named_least_run_time_disruptions_and_never() {
    let mut story = Story::new();
    story.queue("owner", Queue::devices(4, None)).queue("guest", Queue::devices(0, None)).node("n1", "H100", 4);
    let young = JobSpec { min_runtime_ms: HOUR, ..workers("guest", 2, 1) };
    let fixed = JobSpec { preemptible: false, priority: 1, ..workers("owner", 2, 1) };
    story.job("young", young).job("fixed", fixed).settle().later(600_000);
    story.job("mine", workers("owner", 2, 1)).settle();
    let answer = ask(&story, "mine");
    tells(
        &answer.because,
        "job/young holds 2 device(s) and keeps them: it may not be stopped before it ran 1 h, until 01:00 UTC (in 50 min)",
    );
    tells(&answer.because, "job/fixed holds 2 device(s) and keeps them: it is not preemptible");
    let young = ask(&story, "young");
    tells(
        &young.because,
        "others may not take its devices now: it may not be stopped before it ran 1 h, until 01:00 UTC (in 50 min)",
    );
    tells(&young.because, "queue guest uses 2 device(s), 2 above its own: these are lent and go back on demand");
}

#[test]
fn the_first_that_lacks_devices_is_told_its_reservation_and_the_next_whose_it_is() {
    let mut story = Story::new();
    story.queue("q", Queue::devices(8, None)).node("n1", "H100", 4).node("n2", "H100", 4);
    story.job("a", workers("q", 1, 3)).settle();
    story.later(1).job("big", workers("q", 2, 4)).settle();
    let long = JobSpec { expected_ms: Some(9 * HOUR), ..workers("q", 1, 4) };
    story.later(1).job("long", long).settle();
    let big = ask(&story, "big");
    mentions(&big.because, "it has a reservation: 8 device(s) on n1, n2 from 02:00 UTC (in 2 h)");
    let long = ask(&story, "long");
    mentions(&long.because, "8 device(s) on n1, n2 are kept for job/big until 02:00 UTC");
    mentions(&long.because, "it is expected to take 9 h");
    assert_eq!(long.because[0], "needs 4 device(s), 0 of 8 are free; job/a, reservations (5 device(s)) hold the rest");
}

#[test]
fn a_job_that_may_not_be_stopped_is_told_that_it_gets_only_its_queues_own() {
    let mut story = Story::new();
    story.queue("q", Queue::devices(2, None)).queue("other", Queue::devices(6, None)).node("n1", "H100", 8);
    story.job("a", JobSpec { preemptible: false, ..workers("q", 3, 1) }).settle();
    let answer = ask(&story, "a");
    let own = "it is not preemptible, so it may use only what is its queue's own: queue q uses 0 of 2 device(s), it needs 3";
    let never = "it needs 3 device(s), and queue q may never use more than 2, which as it is not preemptible must be its own: ask for less, or raise its quota";
    assert_eq!(answer.because[0], never);
    tells(&answer.because, own);
    tells(&answer.would_change, "would start now if queue q had 1 more device(s)");
}

#[test]
fn a_job_that_was_stopped_for_others_says_how_often_and_by_what_rule_they_keep_it() {
    let mut story = Story::new();
    story.queue("owner", Queue::devices(4, None)).queue("guest", Queue::devices(0, None)).node("n1", "H100", 4);
    story.job("guest", workers("guest", 3, 1)).settle().later(60_000).job("owner", workers("owner", 4, 1)).settle();
    let answer = ask(story.later(30_000), "guest");
    assert_eq!(answer.because[0], "needs 3 device(s), 0 of 4 are free; job/owner hold the rest");
    tells(&answer.because, "job/owner holds 4 device(s) and keeps them: queue owner uses no more than its own");
    tells(&answer.because, "it was stopped for others 1 time(s) in the last hour, the last time 30 s ago");
    tells(&answer.would_change, "would start now with 3 more H100");
}

#[test]
fn a_shrunk_job_is_told_what_it_could_use_and_who_holds_it() {
    let mut story = Story::new();
    story.queue("owner", Queue::devices(4, None)).queue("guest", Queue::devices(0, None)).node("n1", "H100", 4);
    let elastic = JobSpec { restart_ms: 5_000, ..JobSpec::workers("guest", 1, 4, Ask::whole(1)) };
    story.job("guest", elastic).settle().later(60_000).job("owner", workers("owner", 2, 1)).settle();
    let answer = ask(&story, "guest");
    assert_eq!(answer.status, "job/guest runs attempt 2 with 2 worker(s) on n1-0, n1-1");
    tells(&answer.because, "it could use 4 workers and has 2; devices are held by: job/owner 2");
    tells(&answer.because, "it was stopped for others 1 time(s) in the last hour, the last time 0 s ago");
    tells(&answer.because, "a restart to grow must pay first: it does not grow for another 15 s");
}

#[test]
fn a_paused_job_an_unknown_queue_and_a_job_that_backs_off_say_so() {
    let mut story = Story::new();
    story.queue("q", Queue::devices(4, None)).node("n1", "H100", 4);
    story.job("paused", workers("q", 1, 1)).tell(Event::JobPaused { name: JobName::from("paused"), paused: true });
    story.job("lost", workers("nowhere", 1, 1)).job("fails", workers("q", 1, 1)).settle();
    story.tell(Event::JobExited { name: JobName::from("fails"), attempt: 1, exit: JobExit::Failed }).settle();
    assert_eq!(ask(&story, "paused").because[0], "paused by a person; `resume` lets it run");
    assert_eq!(ask(&story, "lost").because[0], "queue nowhere does not exist: create it or name another");
    assert_eq!(ask(&story, "fails").because[0], "attempt 1 failed (1 in a row, limit 6); the next starts in 1 s");
}

#[test]
fn a_model_that_its_quota_holds_back_is_told_so_though_devices_are_free() {
    let mut story = Story::new();
    let quota = Quota { nominal: 1_000, borrowing_limit: Some(0), ..Quota::default() };
    story.queue("serving", Queue { quotas: [(Resource::Gpu, quota)].into(), ..Queue::default() }).node("n1", "H100", 4);
    let spec = ModelSpec {
        queue: "serving".into(),
        namespace: Namespace::default(),
        priority: 0,
        ask: Ask::whole(1),
        slo_ms: 250,
        min: 2,
        max: 4,
        zero_after_ms: 10_000,
        max_rows: 16,
        max_sharers: 1,
        memory: None,
        generation: 1,
    };
    story.tell(Event::ModelSet { name: "digits".into(), spec });
    assert_eq!(story.engine.decide(story.now).actions.len(), 1);
    let told = explain::lacking(&story.engine, &"digits".into(), story.now);
    assert_eq!(told, "queue serving uses 1 of its limit of 1 device(s)");
}

#[test]
fn a_share_of_a_device_and_two_groups_are_told_in_their_own_words() {
    let mut story = Story::new();
    story.queue("q", Queue::devices(8, None)).node("n1", "H100", 2).node("n2", "H100", 1);
    story.job("a", JobSpec::workers("q", 3, 3, Ask::memory(60_000))).settle();
    story.job("b", JobSpec::workers("q", 1, 1, Ask::memory(40_960))).settle();
    let answer = ask(&story, "b");
    assert_eq!(answer.because[0], "needs 40 GiB of one device, none of 3 has that free; job/a hold the rest");
    tells(&answer.because, "the emptiest device has 21.4 GiB free");
    let group = |name: &str, min, gpus| Group { name: name.to_owned(), min, max: min, ask: Ask::whole(gpus), spread: None };
    let spec = JobSpec { groups: vec![group("actor", 1, 1), group("learner", 1, 2)], ..workers("q", 1, 1) };
    story.job("c", spec).settle();
    mentions(&ask(&story, "c").because, "hold the rest");
}
