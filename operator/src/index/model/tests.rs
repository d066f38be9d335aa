use serde_json::{Value, json};
use tidegate_api::control::{ModelConfig, ModelTensors, ReplicaReport, TensorSpec};
use tidegate_api::kinds::ModelStatus;
use tidegate_core::Event;
use tidegate_core::demand::{Demand, ServiceTime};
use tidegate_core::state::ReplicaPhase;

use super::super::tests::Rig;
use super::super::{Change, Failure, Listed, Write};
use super::Serving;
use crate::facts::{ModelFacts, PodFacts, PodKey};

/// An API server with a kubelet, for models.
struct Cluster {
    rig: Rig,
    models: Vec<Value>,
    pods: Vec<Value>,
    routes: Vec<ModelConfig>,
}

impl Cluster {
    /// Two nodes of two GPUs; a model of at most two replicas that may sleep.
    fn new() -> Self {
        let model = json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "Model",
            "metadata": {"namespace": "team", "name": "digits", "uid": "1111", "generation": 1, "creationTimestamp": "2026-11-29T00:00:00Z"},
            "spec": {
                "queue": "a", "source": {"onnx": "/models/digits.onnx"}, "sloMilliseconds": 100, "replicas": {"min": 0, "max": 2},
                "scaleToZeroAfterSeconds": 10,
            },
        });
        Self { rig: Self::rig(), models: vec![model], pods: Vec::new(), routes: Vec::new() }
    }

    fn rig() -> Rig {
        let mut rig = Rig::with(&[("n1", 2), ("n2", 2)], &[("a", 4)]);
        rig.index.begun = false;
        rig.index.serving = Serving {
            image: Some("tidegate:1".to_owned()),
            control_url: Some("http://operator:8090".to_owned()),
            control_auth: false,
        };
        rig
    }

    fn submit(&mut self) {
        for model in self.models.clone() {
            let facts = ModelFacts::of(&serde_json::from_value(model).unwrap());
            let events = self.rig.index.model(Change::Is(facts));
            self.rig.tell(events);
        }
    }

    fn begin(&mut self) {
        let events = self.rig.index.begin();
        self.rig.tell(events);
    }

    fn begun(mut self) -> Self {
        self.submit();
        self.begin();
        self.settle();
        self
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
            if let Some(routes) = self.rig.index.take_routes() {
                self.routes = routes;
                self.rig.index.routes_published(1);
            }
            self.rig.index.end_drained(self.rig.now, |_| true);
            let ends = self.rig.index.take_writes();
            writes.extend(self.rig.note(ends));
            let statuses = self.rig.index.model_statuses(&self.rig.engine, self.rig.now, "2026-11-29T00:00:01Z");
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
                pod["metadata"]["creationTimestamp"] = json!("2026-11-29T00:00:00Z");
                pod["status"] = json!({"phase": "Pending"});
                self.pods.push(pod.clone());
                self.rig.done(write, Ok(()));
                self.rig.see_pod(pod);
            }
            Write::EndPod { pod, .. } => {
                self.pods.retain(|known| known["metadata"]["name"] != pod.name());
                self.rig.done(write, Ok(()));
                self.rig.gone(pod.name());
            }
            Write::Status { object, status, .. } => {
                let model = self.models.iter_mut().find(|model| model["metadata"]["name"] == object.name()).unwrap();
                model["status"] = Value::clone(status);
                self.rig.done(write, Ok(()));
                self.submit();
            }
            other => panic!("{other:?}"),
        }
    }

    /// A kubelet says something of every pod.
    fn say(&mut self, change: impl Fn(&mut Value)) {
        for pod in &mut self.pods {
            change(pod);
        }
        for pod in self.pods.clone() {
            self.rig.see_pod(pod);
        }
    }

    fn answer(&mut self) {
        self.say(|pod| {
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-29T00:00:03Z"});
            pod["status"] = json!({"phase": "Running", "podIP": "10.0.0.7", "conditions": [ready]});
        });
    }

    /// Each replica tells its model's tensors.
    fn report(&mut self) {
        let tensor = TensorSpec { name: "x".to_owned(), datatype: "FP32".to_owned(), shape: vec![-1, 4], batched: true };
        let tensors = ModelTensors { platform: "onnx".to_owned(), inputs: vec![tensor.clone()], outputs: vec![tensor] };
        let ids: Vec<String> = self.rig.engine.state().replicas.iter().map(|(id, _)| id.to_string()).collect();
        for replica_id in ids {
            let report = ReplicaReport {
                replica_id,
                model: "digits".to_owned(),
                tensors: Some(tensors.clone()),
                ..ReplicaReport::default()
            };
            let events = self.rig.index.replica_report(&report);
            self.rig.tell(events);
        }
    }

    /// Its tensors are known, and it has slept since.
    fn asleep(self) -> Self {
        let mut cluster = self.begun();
        cluster.answer();
        cluster.report();
        cluster.settle();
        cluster.sleep();
        cluster
    }

    /// Nobody asks for it, for long.
    fn sleep(&mut self) {
        self.demand(0);
        self.rig.now = self.rig.now.plus(600_000);
        self.settle();
    }

    fn demand(&mut self, rows_per_s: u64) {
        let service = Some(ServiceTime { base_us: 10_000, per_row_us: 1_000 });
        let demand = Demand { milli_rows_per_s: rows_per_s * 1000, service, ..Demand::default() };
        self.rig.tell(vec![Event::Demand { model: "digits".into(), demand }]);
        self.settle();
    }

    fn status(&self) -> ModelStatus {
        serde_json::from_value(self.models[0]["status"].clone()).unwrap()
    }

    fn endpoints(&self) -> Vec<(String, bool)> {
        let all = self.routes.iter().flat_map(|model| &model.endpoints);
        all.map(|endpoint| (endpoint.address.clone(), endpoint.draining)).collect()
    }

    fn change(&mut self, change: impl Fn(&mut Value)) {
        change(&mut self.models[0]["spec"]);
        let generation = self.models[0]["metadata"]["generation"].as_u64().unwrap() + 1;
        self.models[0]["metadata"]["generation"] = json!(generation);
        self.submit();
        self.settle();
    }
}

#[test]
fn routers_are_told_that_there_is_no_model() {
    let mut rig = Cluster::rig();
    rig.index.begin();
    assert_eq!(rig.index.take_routes(), Some(Vec::new()), "by that they are ready");
    assert_eq!(rig.index.take_routes(), None);
}

#[test]
fn a_model_of_which_nothing_is_known_gets_one_replica_that_tells_and_then_may_sleep() {
    let mut cluster = Cluster::new().begun();
    assert_eq!(cluster.pods.len(), 1);
    assert!(cluster.routes.is_empty(), "routers are told once it is known what it takes");
    let container = &cluster.pods[0]["spec"]["containers"][0];
    assert_eq!((container["image"].as_str(), container["command"].as_array().unwrap().len()), (Some("tidegate:1"), 1));
    let words = container["args"].to_string();
    assert!(
        words.contains("/models/digits.onnx") && words.contains("http://operator:8090") && words.contains("digits-1"),
        "{words}"
    );
    cluster.answer();
    cluster.report();
    cluster.settle();
    assert_eq!(cluster.pods.len(), 1);
    // It has told what was to be told, and nobody asks for it.
    cluster.sleep();
    assert!(cluster.pods.is_empty());
    assert_eq!((cluster.routes.len(), cluster.routes[0].inputs.len()), (1, 1));
    assert!(cluster.status().tensors.is_some());
    // The next leader knows without asking a replica.
    cluster.restart();
    cluster.settle();
    assert!(cluster.pods.is_empty() && cluster.routes.len() == 1);
}

#[test]
fn replicas_follow_demand_and_are_endpoints_while_they_answer() {
    let mut cluster = Cluster::new().asleep();
    cluster.demand(200);
    assert_eq!(cluster.pods.len(), 1);
    assert_eq!((cluster.status().starting, cluster.status().ready, cluster.endpoints()), (1, 0, Vec::new()));
    cluster.answer();
    cluster.settle();
    assert_eq!(cluster.endpoints(), [("10.0.0.7:9000".to_owned(), false)]);
    assert_eq!((cluster.status().ready, cluster.status().wanted, cluster.status().gpus), (1, 1, 1));
    assert!(cluster.rig.notes.contains(&("digits".to_owned(), "ReplicaStarting")), "{:?}", cluster.rig.notes);
    // A pod that answers no more is no endpoint, and still a replica.
    cluster.say(|pod| pod["status"]["conditions"] = json!([]));
    cluster.settle();
    assert_eq!((cluster.endpoints().len(), cluster.pods.len()), (0, 1));
}

#[test]
fn who_is_to_end_is_told_so_only_when_routers_know() {
    let mut cluster = Cluster::new().asleep();
    cluster.demand(200);
    cluster.answer();
    cluster.settle();
    cluster.demand(0);
    cluster.rig.now = cluster.rig.now.plus(600_000);
    let writes = cluster.rig.turn();
    assert!(writes.is_empty(), "{writes:?}");
    cluster.routes = cluster.rig.index.take_routes().unwrap();
    assert_eq!(cluster.endpoints(), [("10.0.0.7:9000".to_owned(), true)]);
    cluster.rig.index.routes_published(5);
    cluster.rig.index.end_drained(cluster.rig.now, |version| version < 5);
    assert!(cluster.rig.index.take_writes().is_empty(), "some router does not know yet");
    cluster.rig.index.end_drained(cluster.rig.now, |version| version <= 5);
    let writes = cluster.rig.index.take_writes();
    assert!(matches!(writes.as_slice(), [Write::EndPod { now: false, .. }]), "{writes:?}");
    assert_eq!(cluster.rig.index.draining().len(), 1);
    cluster.carry_out(&writes[0]);
    assert!(cluster.rig.engine.state().replicas.is_empty() && cluster.rig.engine.state().actions.is_empty());
}

#[test]
fn a_restart_finds_what_serves_and_starts_nothing() {
    let mut cluster = Cluster::new().asleep();
    cluster.demand(200);
    cluster.answer();
    cluster.settle();
    let before = cluster.pods.clone();
    cluster.restart();
    assert_eq!(cluster.rig.engine.state().replicas.values().filter(|replica| replica.phase == ReplicaPhase::Ready).count(), 1);
    cluster.settle();
    // No router has said yet what arrives: what serves stays.
    assert_eq!(cluster.pods, before);
    assert_eq!(cluster.endpoints(), [("10.0.0.7:9000".to_owned(), false)]);
    let facts = |pod: &Value| PodFacts::of(&serde_json::from_value(pod.clone()).unwrap());
    let listed: Vec<Listed> = cluster.pods.iter().map(|pod| Listed::from(&facts(pod))).collect();
    assert_eq!(cluster.rig.index.drift(&cluster.rig.engine, &listed), Vec::<String>::new());
    cluster.demand(200);
    assert_eq!(cluster.pods, before);
}

#[test]
fn another_file_is_rolled_out_and_another_promise_is_not() {
    let mut cluster = Cluster::new().asleep();
    cluster.demand(200);
    cluster.answer();
    cluster.settle();
    let old = cluster.pods[0]["metadata"]["name"].clone();
    cluster.change(|spec| spec["sloMilliseconds"] = json!(90));
    assert_eq!((cluster.pods.len(), &cluster.pods[0]["metadata"]["name"]), (1, &old));
    cluster.change(|spec| spec["source"]["onnx"] = json!("/models/digits-2.onnx"));
    assert_eq!(cluster.pods.len(), 2, "the new one is there before the old one goes");
    assert_eq!(cluster.endpoints().len(), 1);
    // In the middle of it a new leader goes on where it was.
    cluster.restart();
    cluster.settle();
    assert_eq!(cluster.pods.len(), 2);
    cluster.answer();
    cluster.settle();
    assert_eq!(cluster.pods.len(), 1);
    assert_ne!(&cluster.pods[0]["metadata"]["name"], &old);
    assert!(cluster.pods[0]["spec"]["containers"][0]["args"].to_string().contains("digits-2.onnx"));
}

#[test]
fn a_replica_that_fails_is_replaced_and_its_pod_kept_for_its_log() {
    let mut cluster = Cluster::new().asleep();
    cluster.demand(200);
    cluster.say(|pod| pod["status"] = json!({"phase": "Failed"}));
    cluster.settle();
    assert_eq!(cluster.pods.len(), 2, "the failed one and the next");
    assert!(cluster.rig.notes.contains(&("digits".to_owned(), "ReplicaFailed")));
    let live = cluster.pods.iter().filter(|pod| pod["status"]["phase"] == "Pending").count();
    assert_eq!(live, 1);
}

#[test]
fn a_replica_that_its_kubelet_would_not_have_has_not_failed() {
    let mut cluster = Cluster::new().asleep();
    cluster.demand(200);
    cluster.say(|pod| pod["status"] = json!({"phase": "Failed", "reason": "OutOfcpu"}));
    cluster.settle();
    let phases: Vec<&str> = cluster.pods.iter().map(|pod| pod["status"]["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["Pending"], "it has no log to be kept for");
    assert!(!cluster.rig.notes.contains(&("digits".to_owned(), "ReplicaFailed")));
}

#[test]
fn a_pod_that_cannot_be_made_is_told_and_tried_again() {
    let mut cluster = Cluster::new().asleep();
    let service = Some(ServiceTime { base_us: 10_000, per_row_us: 1_000 });
    let demand = Demand { milli_rows_per_s: 200_000, service, ..Demand::default() };
    cluster.rig.tell(vec![Event::Demand { model: "digits".into(), demand }]);
    let writes = cluster.rig.turn();
    let [write] = writes.as_slice() else { panic!("{writes:?}") };
    cluster.rig.done(write, Err(Failure::Refused("exceeded quota: pods=2".to_owned())));
    assert!(cluster.rig.engine.state().actions.is_empty());
    cluster.settle();
    assert_eq!(cluster.pods.len(), 1, "the first failure is tried again at once");
}

#[test]
fn of_two_models_of_one_name_the_older_has_it_until_it_is_gone() {
    let mut cluster = Cluster::new();
    let mut other = cluster.models[0].clone();
    other["metadata"] =
        json!({"namespace": "other", "name": "digits", "uid": "2222", "creationTimestamp": "2026-11-30T00:00:00Z"});
    cluster.submit();
    cluster.begin();
    cluster.settle();
    let facts = ModelFacts::of(&serde_json::from_value(other).unwrap());
    let events = cluster.rig.index.model(Change::Is(facts));
    cluster.rig.tell(events);
    let statuses = cluster.rig.index.model_statuses(&cluster.rig.engine, cluster.rig.now, "2026-11-29T00:00:01Z");
    let told = statuses.iter().find_map(|write| match write {
        Write::Status { object, status, .. } if object.namespace() == "other" => Some(status["message"].to_string()),
        _ => None,
    });
    assert!(told.as_ref().is_some_and(|told| told.contains("team/digits") && told.contains("rename")), "{told:?}");
    let has_it = |cluster: &Cluster, namespace: &str| {
        cluster.rig.engine.state().models.values().any(|model| model.spec.namespace.as_str() == namespace && !model.removed)
    };
    assert!(has_it(&cluster, "team"));
    let events = cluster.rig.index.model(Change::Gone(PodKey::new("team", "digits")));
    cluster.rig.tell(events);
    assert!(has_it(&cluster, "other"));
}

#[test]
fn a_model_that_is_deleted_ends_its_replicas() {
    let mut cluster = Cluster::new().asleep();
    cluster.demand(200);
    cluster.answer();
    cluster.settle();
    let events = cluster.rig.index.model(Change::Gone(PodKey::new("team", "digits")));
    cluster.rig.tell(events);
    cluster.models[0]["metadata"]["name"] = json!("gone");
    cluster.settle();
    assert!(cluster.pods.is_empty() && cluster.rig.engine.state().replicas.is_empty());
    assert!(cluster.rig.index.models.is_empty() && cluster.rig.index.names.is_empty());
}

#[test]
fn what_the_operator_was_not_told_is_said_with_the_remedy() {
    let mut cluster = Cluster::new();
    cluster.rig.index.serving = Serving::default();
    let mut cluster = cluster.begun();
    assert!(cluster.status().message.contains("--replica-image"), "{}", cluster.status().message);
    cluster.rig.index.serving.image = Some("tidegate:1".to_owned());
    cluster.submit();
    cluster.settle();
    assert!(cluster.status().message.contains("--control-url"), "{}", cluster.status().message);
    assert!(cluster.status().conditions.iter().any(|condition| condition.kind == "Accepted" && condition.status == "False"));
}

#[test]
fn a_model_that_is_written_wrong_is_served_on_as_it_was_and_told_so() {
    let mut cluster = Cluster::new().asleep();
    cluster.demand(200);
    cluster.answer();
    cluster.settle();
    cluster.change(|spec| spec["source"]["onnx"] = json!("relative.onnx"));
    assert!(cluster.status().message.contains("absolute path"), "{}", cluster.status().message);
    assert_eq!((cluster.routes.len(), cluster.endpoints().len(), cluster.status().gpus), (1, 1, 1));
    cluster.demand(2_000);
    assert_eq!(cluster.pods.len(), 2, "another replica of what it was");
    assert!(cluster.pods[1]["spec"]["containers"][0]["args"].to_string().contains("/models/digits.onnx"));
}
