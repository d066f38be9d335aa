use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_api::labels;
use tidegate_core::state::Phase;

use super::super::tests::Rig;
use super::super::{Change, Failure, Listed, Write};
use crate::facts::priority::{LocalQueueFacts, PriorityFacts};
use crate::facts::seat::HOSTNAME;
use crate::facts::volume::{ClaimFacts, VolumeFacts};
use crate::facts::{AdoptedFacts, Adoptions, Beside, BesideKind};

mod hands;
mod restart;

const KEY: &str = "Job.batch/team/night";

/// An API server with a Job controller, a scheduler and a kubelet.
struct Cluster {
    rig: Rig,
    all: &'static Adoptions,
    jobs: BTreeMap<String, Value>,
    pods: BTreeMap<String, Value>,
    versions: u64,
    /// Pods that were told to end do so when they are told to.
    lingers: bool,
}

impl Cluster {
    /// Two nodes of two GPUs; two queues of two, and one that only borrows.
    fn new() -> Self {
        let all = Box::leak(Box::new(Adoptions::of(&[], true).unwrap()));
        let (jobs, pods) = (BTreeMap::new(), BTreeMap::new());
        Self { rig: Self::rig(), all, jobs, pods, versions: 0, lingers: false }
    }

    fn rig() -> Rig {
        Rig::with(&[("n1", 2), ("n2", 2)], &[("a", 2), ("b", 2), ("c", 0)])
    }

    fn version(&mut self) -> Value {
        self.versions += 1;
        json!(self.versions.to_string())
    }

    /// A suspended Job of so many pods of one GPU.
    fn submit(&mut self, name: &str, pods: u32, change: impl FnOnce(&mut Value)) {
        let uid = format!("uid-{name}-{}", self.versions);
        let mut job = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "namespace": "team", "name": name, "uid": uid, "resourceVersion": self.version(),
                "creationTimestamp": "2026-11-29T00:00:00Z", "labels": {"tidegate.dev/queue": "a"},
            },
            "spec": {
                "suspend": true, "parallelism": pods, "completions": pods,
                "template": {"spec": {
                    "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}}],
                }},
            },
            "status": {},
        });
        change(&mut job);
        self.jobs.insert(name.to_owned(), job);
        self.see(name);
    }

    fn see(&mut self, name: &str) {
        let facts = AdoptedFacts::of(&serde_json::from_value(self.jobs[name].clone()).unwrap(), &self.all.kinds[0], self.all);
        let events = self.rig.index.adopted(Change::Is(facts));
        self.rig.tell(events);
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        let version = self.version();
        let job = self.jobs.get_mut(name).unwrap();
        change(job);
        job["metadata"]["resourceVersion"] = version;
        self.see(name);
    }

    fn delete(&mut self, name: &str) {
        self.jobs.remove(name);
        let events = self.rig.index.adopted(Change::Gone(format!("Job.batch/team/{name}").into()));
        self.rig.tell(events);
    }

    fn see_pod(&mut self, name: &str) {
        let version = self.version();
        let pod = self.pods.get_mut(name).unwrap();
        pod["metadata"]["resourceVersion"] = version;
        let pod = pod.clone();
        self.rig.see_pod(pod);
    }

    fn change_pod(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        change(self.pods.get_mut(name).unwrap());
        self.see_pod(name);
    }

    fn end_pod(&mut self, name: &str) {
        self.versions += 1;
        self.pods.remove(name);
        self.rig.gone(name);
    }

    /// A pod of ours that no Job has made.
    fn plain(&mut self, name: &str, queue: &str) {
        let pod = json!({
            "metadata": {"namespace": "team", "name": name, "uid": name, "creationTimestamp": "2026-11-29T00:00:00Z", "labels": {"tidegate.dev/queue": queue}},
            "spec": {"schedulerName": "tidegate", "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
            "status": {"phase": "Pending"},
        });
        self.pods.insert(name.to_owned(), pod);
        self.see_pod(name);
    }

    fn live_of(&self, job: &str) -> Vec<String> {
        let of = |pod: &Value| pod["metadata"]["ownerReferences"][0]["name"] == job;
        let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        self.pods.iter().filter(|(_, pod)| of(pod) && !over(pod)).map(|(name, _)| name.clone()).collect()
    }

    /// What the Job controller does.
    fn controller(&mut self) {
        for (name, job) in self.jobs.clone() {
            let (spec, status) = (&job["spec"], &job["status"]);
            let left = spec["completions"].as_u64().unwrap() - status["succeeded"].as_u64().unwrap_or(0);
            let is_over = status["conditions"].is_array();
            let wanted = if spec["suspend"] == true || is_over { 0 } else { left.min(spec["parallelism"].as_u64().unwrap()) };
            let live = self.live_of(&name);
            for pod in live.iter().skip(usize::try_from(wanted).unwrap()) {
                let ends = !self.lingers;
                if ends {
                    self.end_pod(pod);
                } else {
                    self.change_pod(pod, |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-11-29T01:00:00Z"));
                }
            }
            for _ in live.len()..usize::try_from(wanted).unwrap() {
                self.make(&name, &job);
            }
        }
    }

    fn make(&mut self, name: &str, job: &Value) {
        let pod = format!("{name}-{}", self.versions);
        let mut made = job["spec"]["template"].clone();
        made["metadata"]["namespace"] = json!("team");
        made["metadata"]["name"] = json!(pod);
        made["metadata"]["uid"] = json!(pod);
        made["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": true}]);
        made["status"] = json!({"phase": "Pending"});
        self.pods.insert(pod.clone(), made);
        self.see_pod(&pod);
    }

    /// What kube-scheduler and the kubelets do.
    fn run_pods(&mut self) {
        for (name, pod) in self.pods.clone() {
            let spec = &pod["spec"];
            let free = spec["schedulingGates"].as_array().is_none_or(Vec::is_empty) && spec["schedulerName"].is_null();
            if spec["nodeName"].is_null() && free {
                let node = spec["nodeSelector"][HOSTNAME].clone();
                assert!(node.is_string(), "nobody told it where to go: {pod}");
                self.change_pod(&name, |pod| pod["spec"]["nodeName"] = node);
            }
            if !self.pods[&name]["spec"]["nodeName"].is_null() && pod["status"]["phase"] == "Pending" {
                self.change_pod(&name, |pod| pod["status"]["phase"] = json!("Running"));
            }
        }
    }

    fn carry_out(&mut self, write: &Write) {
        match write {
            Write::Adopt { object, adoption, uid, resource_version, change } => {
                let name = object.name().to_owned();
                let mut job = self.jobs[&name].clone();
                let seen = (job["metadata"]["uid"].as_str(), job["metadata"]["resourceVersion"].as_str());
                if seen != (Some(uid), Some(resource_version)) {
                    return self.rig.done(write, Err(Failure::Conflict));
                }
                change.carry_out(adoption, &mut job).unwrap();
                self.rig.done(write, Ok(()));
                self.change(&name, |known| *known = job);
            }
            Write::Place { pod, resource_version, hostname, .. } => {
                let name = pod.name().to_owned();
                assert_eq!(self.pods[&name]["metadata"]["resourceVersion"], json!(resource_version));
                self.rig.done(write, Ok(()));
                self.change_pod(&name, |pod| {
                    pod["spec"]["nodeSelector"] = json!({HOSTNAME: hostname});
                    pod["spec"]["schedulingGates"] = json!([]);
                });
            }
            Write::Bind { pod, node, .. } => {
                let name = pod.name().to_owned();
                self.rig.done(write, Ok(()));
                self.change_pod(&name, |pod| pod["spec"]["nodeName"] = json!(node));
            }
            Write::Evict { pod, .. } => {
                let name = pod.name().to_owned();
                self.rig.done(write, Ok(()));
                self.end_pod(&name);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Everybody does what there is to do, until nothing is left; what was written.
    fn settle(&mut self) -> Vec<&'static str> {
        let mut words = Vec::new();
        for _ in 0..20 {
            let writes = self.rig.turn();
            let before = self.versions;
            for write in &writes {
                words.push(write.word());
                self.carry_out(write);
            }
            self.controller();
            self.run_pods();
            if writes.is_empty() && self.versions == before {
                break;
            }
        }
        self.check();
        words
    }

    /// No node gives away more than it has, and what is believed is what is there.
    fn check(&self) {
        for node in ["n1", "n2"] {
            let on = self.pods.values().filter(|pod| pod["spec"]["nodeName"] == node);
            let held = on.filter(|pod| matches!(pod["status"]["phase"].as_str(), Some("Pending" | "Running"))).count();
            assert!(held <= 2, "{node} gives {held} GPUs");
        }
        let listed: Vec<Listed> = self.rig.index.pods.values().map(|entry| Listed::from(&entry.facts)).collect();
        let drift = self.rig.index.drift(&self.rig.engine, &listed);
        assert!(drift.is_empty(), "{drift:?}");
    }

    fn places(&self, job: &str) -> Vec<String> {
        let node = |pod: String| self.pods[&pod]["spec"]["nodeName"].as_str().unwrap_or("nowhere").to_owned();
        let mut all: Vec<String> = self.live_of(job).into_iter().map(node).collect();
        all.sort();
        all
    }

    fn is_suspended(&self, job: &str) -> bool {
        self.jobs[job]["spec"]["suspend"] == true
    }

    fn is_marked(&self, job: &str) -> bool {
        self.jobs[job].to_string().contains("tidegate.dev/seat")
    }

    /// Seats that the engine holds for a job, by its name there.
    fn held(&self, job: &str) -> usize {
        let job = self.rig.engine.state().jobs.get(&job.into());
        job.and_then(|job| job.run()).map_or(0, |run| run.seats.len())
    }

    fn reasons(&self) -> Vec<&'static str> {
        self.rig.notes.iter().map(|(_, reason)| *reason).collect()
    }

    /// What waiting objects are told.
    fn told(&mut self) -> Vec<String> {
        self.rig.index.ask_again();
        let told = self.rig.index.tell_waiting(&self.rig.engine);
        told.into_iter().filter_map(|write| if let Write::Note { note, .. } = write { Some(note.text) } else { None }).collect()
    }

    fn beside(&mut self, object: Beside) {
        let events = self.rig.index.beside(object);
        self.rig.tell(events);
    }
}

fn borrows(job: &mut Value) {
    job["metadata"]["labels"]["tidegate.dev/queue"] = json!("c");
}

fn by_us(job: &mut Value) {
    job["spec"]["template"]["spec"]["schedulerName"] = json!("tidegate");
}

#[test]
fn a_suspended_job_is_resumed_and_its_pods_go_where_the_engine_says() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 3, |_| {});
    let words = cluster.settle();
    assert_eq!(words, ["resume", "place", "place", "place"]);
    assert!(!cluster.is_suspended("night"));
    assert_eq!(cluster.places("night").len(), 3);
    let run = cluster.rig.engine.state().jobs.get(&format!("adopted/{KEY}").as_str().into()).unwrap().run().cloned().unwrap();
    assert!(run.observed && run.seats.len() == 3, "all were seen running");
    assert_eq!(cluster.reasons(), ["Started"]);
    let seats: Value =
        serde_json::from_str(cluster.jobs["night"]["metadata"]["annotations"][labels::SEATS].as_str().unwrap()).unwrap();
    let written: u64 = seats["nodes"].as_object().unwrap().values().map(|counts| counts[0].as_u64().unwrap()).sum();
    assert_eq!(written, 3);
    assert!(cluster.settle().is_empty() && cluster.rig.index.nodes.awaited().next().is_none());
}

#[test]
fn pods_for_us_are_bound_on_their_seats() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 4, by_us);
    let words = cluster.settle();
    assert_eq!(words, ["resume", "bind", "bind", "bind", "bind"]);
    assert_eq!(cluster.places("night"), ["n1", "n1", "n2", "n2"]);
    assert_eq!((cluster.held(&format!("adopted/{KEY}")), cluster.rig.index.counts().units), (4, 0), "they count once");
}

#[test]
fn seats_are_held_while_nobody_sits_on_them() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 3, borrows);
    for write in cluster.rig.turn() {
        cluster.carry_out(&write);
    }
    // Its pods are not made yet.
    for name in ["p", "q"] {
        cluster.plain(name, "b");
    }
    let writes = cluster.rig.turn();
    let bound = writes.iter().filter(|write| matches!(write, Write::Bind { .. })).count();
    let suspended = writes.iter().filter(|write| write.word() == "suspend").count();
    assert_eq!((bound, suspended), (1, 1), "one GPU is free; for the other, b's own, the job is to give way");
    for write in &writes {
        cluster.carry_out(write);
    }
    cluster.settle();
    assert!(cluster.is_suspended("night") && !cluster.is_marked("night"));
}

#[test]
fn a_job_gives_way_waits_and_goes_on() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 3, borrows);
    cluster.settle();
    cluster.lingers = true;
    for name in ["p", "q"] {
        cluster.plain(name, "b");
    }
    cluster.settle();
    assert!(cluster.is_suspended("night") && cluster.is_marked("night"), "its pods are not gone yet");
    assert_eq!(cluster.held(&format!("adopted/{KEY}")), 3);
    assert!(cluster.reasons().contains(&"Preempted"));
    cluster.lingers = false;
    cluster.settle();
    assert!(cluster.live_of("night").is_empty() && !cluster.is_marked("night"), "it is as its maker wrote it");
    let told = cluster.told();
    assert_eq!(told.len(), 1);
    assert!(!told[0].is_empty() && cluster.told().is_empty(), "it knows");
    cluster.end_pod("p");
    cluster.settle();
    assert_eq!(cluster.places("night").len(), 3, "it goes on");
    let seats: Value =
        serde_json::from_str(cluster.jobs["night"]["metadata"]["annotations"][labels::SEATS].as_str().unwrap()).unwrap();
    assert_eq!(seats["attempt"], 2);
}

#[test]
fn a_pod_that_fails_leaves_its_seat_to_the_one_that_is_made_in_its_place() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 2, |_| {});
    cluster.settle();
    let before = cluster.places("night");
    let first = cluster.live_of("night").remove(0);
    cluster.change_pod(&first, |pod| pod["status"]["phase"] = json!("Failed"));
    for name in ["p", "q", "r"] {
        cluster.plain(name, "b");
    }
    cluster.settle();
    assert_eq!((cluster.places("night"), cluster.held(&format!("adopted/{KEY}"))), (before, 2));
    assert_eq!(cluster.rig.engine.state().jobs.values().filter(|job| job.run().is_some()).count(), 3, "two of the others fit");
}

#[test]
fn what_is_done_of_a_job_is_free_and_all_of_it_when_it_is_over() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 3, |_| {});
    cluster.settle();
    let first = cluster.live_of("night").remove(0);
    cluster.change_pod(&first, |pod| pod["status"]["phase"] = json!("Succeeded"));
    assert_eq!(cluster.held(&format!("adopted/{KEY}")), 3, "nobody has said that no other pod comes");
    cluster.change("night", |job| job["status"]["succeeded"] = json!(1));
    assert_eq!(cluster.held(&format!("adopted/{KEY}")), 2);
    cluster.settle();
    for pod in cluster.live_of("night") {
        cluster.change_pod(&pod, |pod| pod["status"]["phase"] = json!("Succeeded"));
    }
    cluster
        .change("night", |job| job["status"] = json!({"succeeded": 3, "conditions": [{"type": "Complete", "status": "True"}]}));
    assert!(cluster.settle().is_empty());
    assert!(cluster.rig.engine.state().jobs.is_empty() && cluster.rig.engine.state().actions.is_empty());
    assert!(cluster.rig.index.nodes.awaited().next().is_none());
}

#[test]
fn a_job_that_failed_holds_what_its_pods_hold_until_they_are_gone() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 2, |_| {});
    cluster.settle();
    cluster.lingers = true;
    cluster.change("night", |job| job["status"]["conditions"] = json!([{"type": "FailureTarget", "status": "True"}]));
    cluster.settle();
    assert_eq!(cluster.held(&format!("adopted/{KEY}")), 2);
    let first = cluster.live_of("night").remove(0);
    cluster.end_pod(&first);
    assert_eq!(cluster.held(&format!("adopted/{KEY}")), 1);
    cluster.lingers = false;
    cluster.settle();
    assert!(cluster.rig.engine.state().jobs.is_empty());
}

#[test]
fn jobs_start_in_the_order_of_their_priority() {
    let mut cluster = Cluster::new();
    let class = |name: &str, value: i32| json!({"metadata": {"name": name}, "value": value, "globalDefault": name == "usual"});
    for (name, value) in [("high", 10), ("usual", 5)] {
        cluster.beside(Beside::Priority(PriorityFacts::of(&serde_json::from_value(class(name, value)).unwrap())));
    }
    let theirs = PriorityFacts::of_kueue(&serde_json::from_value(class("mine", 20)).unwrap());
    cluster.beside(Beside::KueuePriority(theirs));
    cluster.submit("usual", 4, |_| {});
    cluster.submit("high", 4, |job| job["spec"]["template"]["spec"]["priorityClassName"] = json!("high"));
    cluster.submit("mine", 4, |job| job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] = json!("mine"));
    cluster.submit("lost", 4, |job| job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] = json!("lost"));
    let jobs = &cluster.rig.engine.state().jobs;
    let priority = |name: &str| jobs.get(&format!("adopted/Job.batch/team/{name}").as_str().into()).unwrap().spec.priority;
    assert_eq!(["usual", "high", "mine", "lost"].map(priority), [5, 10, 20, 5]);
    cluster.settle();
    assert!(!cluster.is_suspended("mine") && cluster.is_suspended("high"));
    let told = cluster.told();
    assert!(told.iter().any(|told| told.contains("priority class lost does not exist")), "{told:?}");
}

#[test]
fn a_template_without_pods_holds_nobody_up() {
    let mut cluster = Cluster::new();
    let inner = |replicas: u32, gpus: &str| {
        let pod = json!({"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": gpus}}}]});
        json!({"replicas": replicas, "template": {"spec": {"template": {"spec": pod}}}})
    };
    let set = json!({
        "metadata": {"namespace": "team", "name": "set", "uid": "s", "resourceVersion": "1", "labels": {"tidegate.dev/queue": "a"}},
        "spec": {"suspend": true, "replicatedJobs": [inner(0, "8"), inner(2, "1"), inner(1, "0")]},
    });
    let kind = cluster.all.kinds.iter().find(|kind| kind.resource.kind == "JobSet").unwrap();
    let facts = AdoptedFacts::of(&serde_json::from_value(set).unwrap(), kind, cluster.all);
    let events = cluster.rig.index.adopted(Change::Is(facts));
    cluster.rig.tell(events);
    let writes = cluster.rig.turn();
    let [Write::Adopt { change, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    let crate::facts::adopted::Change::Resume(seats) = &**change else { panic!("{change:?}") };
    let mut groups: Vec<u16> = seats.placed().iter().map(|placed| placed.group).collect();
    groups.sort_unstable();
    assert_eq!(groups, [1, 1, 2]);
}

#[test]
fn a_local_queue_stands_for_the_queue_that_its_cluster_queue_became() {
    let mut cluster = Cluster::new();
    let queue = json!({"metadata": {"namespace": "team", "name": "main"}, "spec": {"clusterQueue": "a"}});
    cluster.submit("night", 1, |job| job["metadata"]["labels"] = json!({"kueue.x-k8s.io/queue-name": "main"}));
    assert!(cluster.settle().is_empty(), "there is no queue main");
    cluster.beside(Beside::LocalQueue(LocalQueueFacts::of(&serde_json::from_value(queue).unwrap())));
    cluster.settle();
    assert_eq!(cluster.places("night").len(), 1);
    // Kueue's kinds are gone: what runs goes on, and the name itself counts.
    let events = cluster.rig.index.beside_gone(BesideKind::LocalQueue, "team/main");
    cluster.rig.tell(events);
    cluster.settle();
    cluster.submit("day", 1, |job| job["metadata"]["labels"] = json!({"kueue.x-k8s.io/queue-name": "a"}));
    cluster.settle();
    assert_eq!((cluster.places("night").len(), cluster.places("day").len()), (1, 1));
}

#[test]
fn pods_are_where_their_volume_can_be_used() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 2, |job| {
        job["spec"]["template"]["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    });
    assert!(cluster.settle().is_empty());
    assert!(cluster.told()[0].contains("team/data, which does not exist"));
    let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]);
    let volume = json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"namespace": "team", "name": "data"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}});
    let claim =
        json!({"metadata": {"namespace": "team", "name": "data"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
    cluster.beside(Beside::Claim(ClaimFacts::of(&serde_json::from_value(claim).unwrap())));
    cluster.beside(Beside::Volume(VolumeFacts::of(&serde_json::from_value(volume).unwrap())));
    cluster.settle();
    assert_eq!(cluster.places("night"), ["n2", "n2"]);
}

#[test]
fn what_cannot_be_started_is_told_and_holds_nobody_up() {
    let mut cluster = Cluster::new();
    cluster.submit("silly", 1, |job| job["spec"]["template"]["spec"]["resourceClaims"] = json!([{"name": "gpu"}]));
    cluster.submit("none", 0, |_| {});
    cluster.submit("night", 1, |_| {});
    cluster.settle();
    assert!(cluster.is_suspended("silly") && !cluster.is_suspended("night"));
    let told = cluster.told();
    let says = |part: &str| told.iter().any(|told| told.contains(part));
    assert!(says("/spec/template: its pod asks for a ResourceClaim") && says("counts of pods are 0"), "{told:?}");
    cluster.change("silly", |job| job["spec"]["template"]["spec"]["resourceClaims"] = Value::Null);
    cluster.settle();
    assert!(!cluster.is_suspended("silly"), "it was mended");
}

#[test]
fn a_start_in_conflict_is_tried_again_and_one_that_is_refused_later() {
    let mut cluster = Cluster::new();
    cluster.submit("night", 1, |_| {});
    let first = cluster.rig.turn().remove(0);
    cluster.change("night", |job| job["metadata"]["labels"]["mine"] = json!("1"));
    cluster.carry_out(&first);
    let second = cluster.rig.turn().remove(0);
    assert_eq!(second.word(), "resume", "as it was still what it was");
    cluster.rig.done(&second, Err(Failure::Refused("a webhook says no".to_owned())));
    assert!(cluster.rig.engine.state().jobs.values().all(|job| matches!(job.phase, Phase::Waiting { .. })));
    assert!(cluster.told()[0].contains("a webhook says no") && cluster.rig.index.nodes.awaited().next().is_none());
    cluster.rig.now = cluster.rig.now.plus(120_000);
    cluster.settle();
    assert!(!cluster.is_suspended("night"));
}
