use serde_json::{Value, json};
use tidegate_api::contract::parse_progress;
use tidegate_api::kinds::{TrainingJobStatus, TrainingPhase};
use tidegate_core::state::Phase;

use super::super::tests::Rig;
use super::super::{Change, Failure, Refused, Report, Write};
use crate::facts::volume::{ClaimFacts, VolumeFacts};
use crate::facts::{Beside, PodKey, TrainingFacts};

/// An API server with a kubelet, for one training job.
struct Cluster {
    rig: Rig,
    job: Value,
    pods: Vec<Value>,
}

impl Cluster {
    /// Two nodes of two GPUs; a job of one to three workers of one GPU.
    fn new() -> Self {
        let job = json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"namespace": "team", "name": "night", "uid": "11112222-3333", "generation": 1, "creationTimestamp": "2026-11-29T00:00:00Z"},
            "spec": {
                "queue": "a", "workers": {"min": 2, "max": 3}, "gpu": {"count": 1}, "backoffLimit": 1,
                "template": {"command": ["train"], "image": "train:1", "env": [{"name": "MINE", "value": "1"}]},
                "checkpoint": {"directory": "/kept"},
            },
        });
        Self { rig: Self::rig(), job, pods: Vec::new() }
    }

    fn rig() -> Rig {
        let mut rig = Rig::with(&[("n1", 2), ("n2", 2)], &[("a", 4)]);
        rig.index.begun = false;
        rig.index.progress_url = Some("http://operator:8080/".to_owned());
        rig
    }

    fn facts(&self) -> TrainingFacts {
        TrainingFacts::of(&serde_json::from_value(self.job.clone()).unwrap())
    }

    fn submit(&mut self) {
        let events = self.rig.index.training(Change::Is(self.facts()));
        self.rig.tell(events);
    }

    fn delete(&mut self) {
        let events = self.rig.index.training(Change::Gone(PodKey::new("team", "night")));
        self.rig.tell(events);
    }

    fn begin(&mut self) {
        let events = self.rig.index.begin();
        self.rig.tell(events);
    }

    /// A leader that knows nothing but the objects.
    fn restart(&mut self) {
        self.rig = Self::rig();
        self.submit();
        for pod in self.pods.clone() {
            self.rig.see_pod(pod);
        }
        self.begin();
    }

    /// Decides and carries out until nothing is left to write; what was written.
    fn settle(&mut self) -> Vec<&'static str> {
        let mut words = Vec::new();
        for _ in 0..20 {
            let mut writes = self.rig.turn();
            let statuses = self.rig.index.statuses(&self.rig.engine, "2026-11-29T00:00:01Z");
            writes.extend(self.rig.note(statuses));
            if writes.is_empty() {
                break;
            }
            for write in writes {
                words.push(write.word());
                self.carry_out(&write);
            }
        }
        words
    }

    fn carry_out(&mut self, write: &Write) {
        match write {
            Write::MakePod { manifest, .. } => {
                let mut pod = serde_json::to_value(manifest).unwrap();
                pod["metadata"]["uid"] = json!(format!("uid-{}", pod["metadata"]["name"].as_str().unwrap()));
                pod["status"] = json!({"phase": "Pending"});
                self.rig.done(write, Ok(()));
                self.rig.see_pod(pod.clone());
                self.pods.push(pod);
            }
            Write::EndPod { pod, .. } => {
                let there = self.pods.iter().position(|known| known["metadata"]["name"] == pod.name());
                self.rig.done(write, there.map(drop).ok_or(Failure::Gone));
                if let Some(at) = there {
                    self.pods.remove(at);
                    self.rig.gone(pod.name());
                }
            }
            Write::Status { status, .. } => {
                self.job["status"] = Value::clone(status);
                self.rig.done(write, Ok(()));
                let events = self.rig.index.training(Change::Is(self.facts()));
                self.rig.tell(events);
            }
            Write::MakeService { .. } => self.rig.done(write, Ok(())),
            other => panic!("{other:?}"),
        }
    }

    /// What a kubelet says of all pods, or of one.
    fn say(&mut self, rank: Option<usize>, phase: &str) {
        for at in 0..self.pods.len() {
            let is = self.pods[at]["metadata"]["annotations"]["tidegate.dev/rank"].as_str().and_then(|rank| rank.parse().ok());
            if rank.is_none() || rank == is {
                self.pods[at]["status"]["phase"] = json!(phase);
                self.rig.see_pod(self.pods[at].clone());
            }
        }
    }

    fn status(&self) -> TrainingJobStatus {
        serde_json::from_value(self.job["status"].clone()).unwrap()
    }

    fn phase(&self) -> TrainingPhase {
        self.status().phase
    }

    fn started(mut self) -> Self {
        self.submit();
        self.begin();
        self.settle();
        self.say(None, "Running");
        self.settle();
        self
    }

    fn env(&self, at: usize) -> std::collections::BTreeMap<String, String> {
        let all = self.pods[at]["spec"]["containers"][0]["env"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.iter().map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
    }
}

#[test]
fn a_job_runs_as_pods_that_know_each_other() {
    let mut cluster = Cluster::new();
    cluster.submit();
    assert!(cluster.rig.turn().is_empty(), "nothing before everything was listed");
    cluster.begin();
    let words = cluster.settle();
    assert_eq!(words.iter().filter(|word| **word == "make_pod").count(), 3, "{words:?}");
    assert_eq!(cluster.phase(), TrainingPhase::Starting);
    cluster.say(None, "Running");
    cluster.settle();
    let status = cluster.status();
    assert_eq!((status.phase, status.workers, status.gpus, status.attempts), (TrainingPhase::Running, 3, 3, 1));
    assert!(status.conditions.iter().any(|condition| condition.kind == "Accepted" && condition.status == "True"));
    let env = cluster.env(1);
    let of = |name: &str| env[name].as_str();
    assert_eq!((of("RANK"), of("WORLD_SIZE"), of("LOCAL_RANK"), of("MINE")), ("1", "3", "0", "1"));
    assert_eq!((of("MASTER_ADDR"), of("TIDEGATE_CHECKPOINT_DIR")), ("worker-0.tidegate-11112222.team.svc", "/kept"));
    assert_eq!(of("TIDEGATE_PROGRESS_URL"), "http://operator:8080/progress/team/night/1?token=11112222-3333");
    let spec = &cluster.pods[1]["spec"];
    assert_eq!((spec["hostname"].as_str(), spec["restartPolicy"].as_str()), (Some("worker-1"), Some("Never")));
    assert!(spec["nodeName"].as_str().unwrap().starts_with('n'));
    let reasons: Vec<&str> = cluster.rig.notes.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons, ["Starting", "Running"]);
    // All end well.
    cluster.say(None, "Succeeded");
    cluster.settle();
    assert_eq!((cluster.phase(), cluster.pods.len()), (TrainingPhase::Succeeded, 3), "its pods are kept for their logs");
    cluster.restart();
    assert!(cluster.settle().is_empty(), "what is over stays over");
}

#[test]
fn a_worker_that_fails_ends_the_attempt_and_the_next_one_follows_until_the_limit() {
    let mut cluster = Cluster::new().started();
    cluster.say(Some(1), "Failed");
    cluster.settle();
    let status = cluster.status();
    assert_eq!((status.phase, status.failures, status.attempts), (TrainingPhase::Starting, 1, 2), "after a back-off");
    assert_eq!(cluster.pods.len(), 3, "the one that failed was kept for its log until then");
    assert_eq!(cluster.env(0)["TIDEGATE_ATTEMPT"], "2");
    cluster.say(Some(0), "Failed");
    cluster.settle();
    let status = cluster.status();
    assert_eq!((status.phase, status.failures), (TrainingPhase::Failed, 2));
    assert!(status.message.contains("2 times"), "{}", status.message);
}

#[test]
fn a_pod_that_somebody_else_ends_is_nobodys_failure() {
    let mut cluster = Cluster::new().started();
    let name = cluster.pods.remove(0)["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.rig.gone(&name);
    cluster.settle();
    assert_eq!((cluster.status().failures, cluster.status().attempts), (0, 2));
    assert_eq!((cluster.phase(), cluster.pods.len()), (TrainingPhase::Starting, 3));
}

#[test]
fn a_worker_that_its_kubelet_would_not_have_is_nobodys_failure_and_made_again_later_each_time() {
    let mut cluster = Cluster::new();
    cluster.submit();
    cluster.begin();
    cluster.settle();
    let mut pauses = Vec::new();
    for attempt in 1..=3 {
        cluster.pods[0]["status"] = json!({"phase": "Failed", "reason": "OutOfcpu"});
        cluster.rig.see_pod(cluster.pods[0].clone());
        let refused = cluster.rig.now;
        let mut told = String::new();
        while cluster.status().attempts == attempt {
            cluster.settle();
            told = if cluster.phase() == TrainingPhase::Waiting { cluster.status().message } else { told };
        }
        assert!(told.is_empty() || told.contains("was not taken in by a node"), "{told}");
        pauses.push(cluster.rig.now.since(refused));
    }
    assert!(pauses.is_sorted() && pauses[2] >= 4_000, "{pauses:?}");
    assert_eq!(cluster.status().failures, 0);
}

#[test]
fn a_restart_disturbs_nothing_that_runs() {
    let mut cluster = Cluster::new().started();
    cluster.restart();
    let words = cluster.settle();
    assert!(words.is_empty(), "{words:?}");
    assert_eq!(cluster.rig.engine.state().jobs.values().filter(|job| job.run().is_some_and(|run| run.observed)).count(), 1);
    cluster.say(None, "Succeeded");
    cluster.settle();
    assert_eq!(cluster.phase(), TrainingPhase::Succeeded);
}

#[test]
fn an_end_that_nobody_saw_counts_once() {
    let mut cluster = Cluster::new().started();
    for pod in &mut cluster.pods {
        pod["status"]["phase"] = json!("Failed");
    }
    cluster.restart();
    cluster.settle();
    assert_eq!((cluster.status().failures, cluster.status().attempts), (1, 2));
    cluster.restart();
    cluster.settle();
    assert_eq!((cluster.status().failures, cluster.status().attempts), (1, 2));
}

#[test]
fn a_gang_of_which_not_all_pods_were_made_ends_and_starts_again() {
    let mut cluster = Cluster::new();
    cluster.submit();
    cluster.begin();
    let writes = cluster.rig.turn();
    // The leader dies after the service and one pod.
    for write in writes.iter().take(2) {
        cluster.carry_out(write);
    }
    assert_eq!(cluster.pods.len(), 1);
    cluster.restart();
    cluster.settle();
    assert_eq!((cluster.pods.len(), cluster.status().attempts, cluster.status().failures), (3, 2, 0));
}

#[test]
fn a_pod_that_is_refused_fails_the_start_and_gives_back_what_was_made() {
    let mut cluster = Cluster::new();
    cluster.submit();
    cluster.begin();
    let writes = cluster.rig.turn();
    let (last, first) = writes.split_last().unwrap();
    for write in first {
        cluster.carry_out(write);
    }
    cluster.rig.done(last, Err(Failure::Refused("exceeded quota: pods=2".to_owned())));
    cluster.settle();
    // After a back-off it is made anew, whole.
    assert_eq!((cluster.pods.len(), cluster.status().failures, cluster.status().attempts), (3, 1, 2));
    assert!(cluster.pods.iter().all(|pod| pod["metadata"]["annotations"]["tidegate.dev/attempt"] == "2"));
}

#[test]
fn a_job_that_is_deleted_ends_its_pods() {
    let mut cluster = Cluster::new().started();
    cluster.delete();
    cluster.settle();
    assert!(cluster.pods.is_empty() && cluster.rig.engine.state().jobs.is_empty() && cluster.rig.index.trainings.is_empty());
}

#[test]
fn pods_of_a_job_that_makes_no_sense_any_more_hold_what_they_hold() {
    let mut cluster = Cluster::new().started();
    cluster.job["spec"]["gpu"] = json!({"milli": 500});
    cluster.restart();
    cluster.settle();
    assert_eq!(cluster.phase(), TrainingPhase::Refused);
    assert!(cluster.status().message.contains("gpu.count"), "{}", cluster.status().message);
    let held = |job: &tidegate_core::state::Job| matches!(&job.phase, Phase::Running(run) if run.seats.len() == 1);
    assert_eq!(cluster.rig.engine.state().jobs.values().filter(|job| held(job)).count(), 3, "one for each pod");
}

#[test]
fn reports_are_taken_from_the_attempt_that_runs() {
    let mut cluster = Cluster::new().started();
    let lines = parse_progress("{\"step\": 7, \"checkpoint\": {\"step\": 5}}").unwrap();
    let job = PodKey::new("team", "night");
    let report = |attempt, token: &str| Report { job: job.clone(), attempt, token: token.to_owned(), lines: lines.clone() };
    let index = &mut cluster.rig.index;
    assert_eq!(index.progress(&report(1, "guess"), &cluster.rig.engine).unwrap_err(), Refused::Token);
    assert_eq!(index.progress(&report(2, "11112222-3333"), &cluster.rig.engine).unwrap_err(), Refused::Stale);
    let (events, choice) = index.progress(&report(1, "11112222-3333"), &cluster.rig.engine).unwrap();
    assert_eq!(choice, None);
    cluster.rig.tell(events);
    let known = cluster.rig.engine.state().jobs.values().next().unwrap();
    assert_eq!((known.progress.step, known.progress.checkpoint_step), (7, 5));
    cluster.say(None, "Succeeded");
    cluster.settle();
    assert_eq!((cluster.status().step, cluster.status().checkpoint_step), (Some(7), Some(5)));
}

#[test]
fn workers_are_where_their_volume_is_and_wait_for_it() {
    let mut cluster = Cluster::new();
    let volume = json!({"name": "data", "persistentVolumeClaim": {"claimName": "data"}});
    cluster.job["spec"]["template"]["podSpec"] = json!({"containers": [], "volumes": [volume]});
    cluster.submit();
    cluster.begin();
    cluster.settle();
    assert_eq!(cluster.phase(), TrainingPhase::Refused);
    assert!(cluster.status().message.contains("team/data does not exist"), "{}", cluster.status().message);
    let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]);
    let volume = json!({"metadata": {"name": "v"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}});
    let claim = json!({
        "metadata": {"namespace": "team", "name": "data", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "v"}, "status": {"phase": "Bound"},
    });
    for object in [
        Beside::Volume(VolumeFacts::of(&serde_json::from_value(volume).unwrap())),
        Beside::Claim(ClaimFacts::of(&serde_json::from_value(claim).unwrap())),
    ] {
        let events = cluster.rig.index.beside(object);
        cluster.rig.tell(events);
    }
    cluster.settle();
    assert_eq!(cluster.phase(), TrainingPhase::Starting);
    assert!(cluster.pods.len() == 2 && cluster.pods.iter().all(|pod| pod["spec"]["nodeName"] == "n2"), "{:?}", cluster.pods);

    // The next leader sees no volume: who runs is known all the same, and is not started beside itself.
    cluster.say(None, "Running");
    cluster.settle();
    cluster.restart();
    cluster.settle();
    let jobs: Vec<String> = cluster.rig.engine.state().jobs.keys().map(ToString::to_string).collect();
    assert_eq!((jobs, cluster.pods.len()), (vec!["training/team/night".to_owned()], 2));
}
