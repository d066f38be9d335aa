//! What others do to adopted objects.

use super::*;

#[test]
fn a_job_that_is_suspended_by_hand_waits_for_its_turn_again() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 4, |_| {});
    cluster.settle();
    for name in ["p", "q"] {
        cluster.plain(name, "b");
    }
    cluster.change("night", |job| job["spec"]["suspend"] = json!(true));
    cluster.settle();
    assert!(cluster.is_suspended("night") && cluster.live_of("night").is_empty() && !cluster.is_marked("night"));
    assert_eq!(cluster.rig.engine.state().jobs.values().filter(|job| job.run().is_some()).count(), 2);
}

#[test]
fn a_waiting_job_that_is_resumed_by_hand_runs_as_others_run() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 9, |_| {});
    assert!(cluster.settle().is_empty());
    cluster.change("night", |job| job["spec"]["suspend"] = json!(false));
    assert!(cluster.rig.turn().is_empty() && cluster.rig.engine.state().jobs.is_empty());
}

#[test]
fn one_that_is_resumed_by_hand_with_our_marks_is_suspended_again() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 9, |job| {
        job["spec"]["suspend"] = json!(false);
        job["spec"]["template"]["metadata"]["annotations"] =
            json!({labels::SEAT_OF: "Job.batch/night/another", labels::GROUP: "0"});
        job["spec"]["template"]["spec"]["schedulingGates"] = json!([{"name": labels::SEAT_GATE}]);
    });
    let words = cluster.settle();
    assert_eq!(words, ["suspend", "restore"]);
    assert!(!cluster.is_marked("night") && cluster.reasons().contains(&"NotItsTurn"));
}

#[test]
fn a_start_that_somebody_else_gets_ahead_of_is_none() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 1, |_| {});
    let write = cluster.rig.turn().remove(0);
    cluster.change("night", |job| job["spec"]["suspend"] = json!(false));
    cluster.carry_out(&write);
    assert!(cluster.rig.turn().is_empty());
    assert!(cluster.rig.engine.state().jobs.is_empty() && cluster.rig.engine.state().actions.is_empty());
    assert!(cluster.rig.index.nodes.awaited().next().is_none());
}

#[test]
fn a_job_that_was_made_smaller_meanwhile_starts_as_it_is_now() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 4, |_| {});
    let write = cluster.rig.turn().remove(0);
    cluster.change("night", |job| job["spec"]["parallelism"] = json!(2));
    cluster.carry_out(&write);
    cluster.settle();
    assert_eq!((cluster.places("night").len(), cluster.held(&format!("adopted/{KEY}"))), (2, 2));
}

#[test]
fn pods_without_a_seat_wait_and_take_the_next_that_is_free() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 2, |job| job["spec"]["completions"] = json!(9));
    cluster.settle();
    cluster.change("night", |job| job["spec"]["parallelism"] = json!(3));
    cluster.settle();
    assert_eq!(cluster.places("night").iter().filter(|place| *place == "nowhere").count(), 1);
    let first = cluster.live_of("night").into_iter().find(|pod| cluster.pods[pod]["spec"]["nodeName"].is_string()).unwrap();
    cluster.change_pod(&first, |pod| pod["status"]["phase"] = json!("Succeeded"));
    cluster.settle();
    assert_eq!(cluster.places("night").iter().filter(|place| *place != "nowhere").count(), 2);
}

#[test]
fn a_job_that_is_deleted_is_gone_when_its_pods_are() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 2, |_| {});
    cluster.settle();
    let pods = cluster.live_of("night");
    cluster.delete("night");
    assert!(cluster.rig.turn().is_empty());
    assert_eq!(cluster.held(&format!("adopted/{KEY}")), 2);
    // Another one of its name waits for the end of these.
    cluster.submit("night", 4, |_| {});
    assert!(cluster.rig.turn().is_empty());
    for pod in &pods {
        cluster.end_pod(pod);
    }
    cluster.settle();
    assert_eq!(cluster.places("night").len(), 4);
    assert_eq!(cluster.held(&format!("adopted/{KEY}#1")), 4, "another job");
    cluster.delete("night");
    for pod in cluster.live_of("night") {
        cluster.end_pod(&pod);
    }
    cluster.settle();
    let events = cluster.rig.index.look(cluster.rig.now);
    cluster.rig.tell(events);
    assert!(cluster.rig.index.adopted.is_empty() && cluster.rig.engine.state().jobs.is_empty());
}

#[test]
fn a_label_that_is_taken_off_changes_nothing_of_what_runs() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 2, |_| {});
    cluster.settle();
    cluster.change("night", |job| job["metadata"]["labels"] = json!({}));
    assert!(cluster.settle().is_empty());
    assert_eq!(cluster.held(&format!("adopted/{KEY}")), 2);
    cluster.change("night", |job| job["spec"]["suspend"] = json!(true));
    assert_eq!(cluster.settle(), ["restore"]);
    assert!(cluster.rig.engine.state().jobs.is_empty() && !cluster.is_marked("night"));
}

#[test]
fn a_pod_that_is_bound_elsewhere_takes_its_seat_with_it() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 1, |_| {});
    for _ in 0..2 {
        for write in cluster.rig.turn() {
            cluster.carry_out(&write);
        }
        cluster.controller();
    }
    let pod = cluster.live_of("night").remove(0);
    let seats = cluster.jobs["night"]["metadata"]["annotations"][labels::SEATS].as_str().unwrap();
    let other = if seats.contains("n1") { "n2" } else { "n1" };
    cluster.change_pod(&pod, |pod| pod["spec"]["nodeName"] = json!(other));
    cluster.settle();
    assert_eq!((cluster.places("night"), cluster.held(&format!("adopted/{KEY}"))), (vec![other.to_owned()], 1));
}

#[test]
fn a_start_that_hangs_is_given_up() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 2, |_| {});
    for write in cluster.rig.turn() {
        cluster.carry_out(&write);
    }
    cluster.rig.now = cluster.rig.now.plus(601_000);
    let words: Vec<&str> = cluster.rig.turn().iter().map(Write::word).collect();
    assert_eq!(words, ["suspend"], "nobody has made its pods");
}
