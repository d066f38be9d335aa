//! A leader that knows nothing but the objects.

use super::*;

impl Cluster {
    fn restart(&mut self) {
        self.rig = Self::rig();
        self.rig.index.begun = false;
        for name in self.jobs.keys().cloned().collect::<Vec<_>>() {
            self.see(&name);
        }
        for pod in self.pods.values().cloned().collect::<Vec<_>>() {
            self.rig.see_pod(pod);
        }
        let events = self.rig.index.begin();
        self.rig.tell(events);
    }

    /// Places that running work holds in all.
    fn seats(&self) -> usize {
        let runs = self.rig.engine.state().jobs.values().filter_map(|job| job.run());
        runs.map(|run| run.seats.len()).sum()
    }
}

#[test]
fn a_restart_disturbs_nothing_that_runs() {
    for change in [|_: &mut Value| {}, by_us] {
        let mut cluster = Cluster::new();
        cluster.submit("night", 3, change);
        cluster.settle();
        let places = cluster.places("night");
        cluster.restart();
        assert!(cluster.settle().is_empty());
        assert_eq!((cluster.places("night"), cluster.held(&format!("adopted/{KEY}"))), (places, 3));
        let job = cluster.rig.engine.state().jobs.values().next().unwrap();
        assert!(job.run().is_some_and(|run| run.observed), "all were seen running");
        for pod in cluster.live_of("night") {
            cluster.change_pod(&pod, |pod| pod["status"]["phase"] = json!("Succeeded"));
        }
        cluster.change("night", |job| {
            job["status"] = json!({"succeeded": 3, "conditions": [{"type": "Complete", "status": "True"}]});
        });
        cluster.settle();
        assert!(cluster.rig.engine.state().jobs.is_empty());
        cluster.restart();
        assert!(cluster.settle().is_empty() && cluster.rig.engine.state().jobs.is_empty(), "what is over stays over");
    }
}

#[test]
fn seats_that_were_written_are_held_though_no_pod_is_there() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 3, |_| {});
    for write in cluster.rig.turn() {
        cluster.carry_out(&write);
    }
    let written = cluster.jobs["night"]["metadata"]["annotations"][labels::SEATS].clone();
    cluster.restart();
    assert_eq!(cluster.held(&format!("adopted/{KEY}")), 3);
    cluster.settle();
    assert_eq!(cluster.places("night").len(), 3);
    assert_eq!(cluster.jobs["night"]["metadata"]["annotations"][labels::SEATS], written);
    let on = |node: &str| cluster.places("night").iter().filter(|place| *place == node).count() as u64;
    let seats: Value = serde_json::from_str(written.as_str().unwrap()).unwrap();
    for node in ["n1", "n2"] {
        assert_eq!(on(node), seats["nodes"][node][0].as_u64().unwrap_or(0));
    }
}

#[test]
fn what_ran_for_long_is_not_taken_for_a_start_that_hangs() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 3, |_| {});
    cluster.settle();
    let first = cluster.live_of("night").remove(0);
    cluster.change_pod(&first, |pod| pod["status"]["phase"] = json!("Failed"));
    let now = cluster.rig.now.plus(7_200_000);
    cluster.restart();
    cluster.rig.now = now;
    assert!(cluster.rig.turn().is_empty(), "the pod that failed was not made again yet");
    cluster.settle();
    assert_eq!(cluster.places("night").len(), 3);
}

#[test]
fn pods_that_were_told_where_to_go_keep_their_seats() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 4, |_| {});
    for _ in 0..3 {
        for write in cluster.rig.turn() {
            cluster.carry_out(&write);
        }
        cluster.controller();
        cluster.restart();
    }
    cluster.settle();
    assert_eq!(cluster.places("night"), ["n1", "n1", "n2", "n2"]);
}

#[test]
fn a_stop_is_brought_to_its_end() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 3, borrows);
    cluster.settle();
    cluster.lingers = true;
    for name in ["p", "q"] {
        cluster.plain(name, "b");
    }
    cluster.settle();
    assert!(cluster.is_suspended("night"));
    cluster.restart();
    assert_eq!((cluster.rig.turn(), cluster.held(&format!("adopted/{KEY}"))), (Vec::new(), 3), "what its pods hold is not free");
    cluster.lingers = false;
    cluster.settle();
    assert!(cluster.live_of("night").is_empty() && !cluster.is_marked("night"));
    assert_eq!(cluster.seats(), 2);
}

#[test]
fn pods_whose_object_is_gone_hold_what_they_hold() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 3, |_| {});
    cluster.settle();
    cluster.jobs.remove("night");
    cluster.restart();
    assert_eq!(cluster.seats(), 3);
    cluster.check();
    for pod in cluster.pods.keys().cloned().collect::<Vec<_>>() {
        cluster.end_pod(&pod);
    }
    assert_eq!(cluster.seats(), 0);
}
