//! Workers and replicas that claim their devices by name: made without a node, and bound once they have what was chosen for them.

use super::*;
use crate::facts::{ModelFacts, TrainingFacts};

/// An API server with kube-controller-manager and a kubelet, for what Tidegate makes.
struct Cluster {
    rig: Rig,
    spec: Value,
    /// As the API server has them.
    pods: BTreeMap<String, Value>,
    claims: BTreeMap<String, Value>,
}

impl Cluster {
    /// Two nodes of two devices; a job of two workers that have one each.
    fn new() -> Self {
        let spec = json!({
            "queue": "a", "workers": {"min": 2, "max": 2}, "gpu": {"count": 1, "deviceClassName": "gpu"},
            "template": {"command": ["train"], "image": "train:1"},
        });
        Self { rig: rig(&[("n1", 2), ("n2", 2)]), spec, pods: BTreeMap::new(), claims: BTreeMap::new() }
    }

    fn submit(&mut self) {
        let job = json!({
            "metadata": {"namespace": "team", "name": "night", "uid": "11112222-3333", "generation": 1, "creationTimestamp": "2026-11-29T00:00:00Z"},
            "spec": self.spec,
        });
        let facts = TrainingFacts::of(&serde_json::from_value(job).unwrap());
        let events = self.rig.index.training(Change::Is(facts));
        self.rig.tell(events);
    }

    /// What was made is there.
    fn make(&mut self, writes: &[Write]) {
        for write in writes {
            let Write::MakePod { manifest, .. } = write else { continue };
            let mut pod = serde_json::to_value(manifest).unwrap();
            let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            pod["metadata"]["uid"] = json!(format!("uid-{name}"));
            pod["status"] = json!({"phase": "Pending"});
            self.rig.done(write, Ok(()));
            self.change(&name, |known| *known = pod);
        }
    }

    /// kube-controller-manager makes the claim of a pod and says so.
    fn claim_of(&mut self, pod: &str) {
        let claim = format!("{pod}-gpus");
        let spec = json!({"devices": {"requests": [{"name": "gpus", "exactly": {"deviceClassName": "gpu", "count": 1}}]}});
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": format!("uid-{pod}"), "controller": true});
        self.change_claim(&claim, |known| {
            *known = json!({
                "metadata": {"namespace": "team", "name": claim, "uid": format!("uid-{claim}"), "ownerReferences": [owner]}, "spec": spec,
            });
        });
        self.change(pod, |pod| pod["status"]["resourceClaimStatuses"] = json!([{"name": "gpus", "resourceClaimName": claim}]));
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        self.rig.versions += 1;
        let pod = self.pods.entry(name.to_owned()).or_default();
        change(pod);
        pod["metadata"]["resourceVersion"] = json!(self.rig.versions.to_string());
        self.rig.see_pod(pod.clone());
    }

    fn change_claim(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        self.rig.versions += 1;
        let claim = self.claims.entry(name.to_owned()).or_default();
        change(claim);
        claim["metadata"]["resourceVersion"] = json!(self.rig.versions.to_string());
        let facts = DeviceClaimFacts::of(&serde_json::from_value(claim.clone()).unwrap());
        self.rig.device(DeviceObject::Claim(Box::new(facts)));
    }

    /// The API server does what a write says; which device that gives, or where it binds.
    fn carry_out(&mut self, write: &Write) -> String {
        match write {
            Write::Allocate { .. } => {
                let (claim, pod, devices) = allocation(write);
                let (node, device) = devices[0].split_once('/').unwrap();
                self.change_claim(&claim, given(device, node, &pod, true));
                self.rig.done(write, Ok(()));
                devices[0].clone()
            }
            Write::Bind { pod, node, .. } => {
                self.rig.done(write, Ok(()));
                let to = node.clone();
                self.change(pod.name(), |pod| {
                    pod["spec"]["nodeName"] = json!(to);
                    pod["status"]["phase"] = json!("Running");
                });
                node.clone()
            }
            Write::EndPod { pod, .. } => {
                self.pods.remove(pod.name());
                self.rig.done(write, Ok(()));
                self.rig.gone(pod.name());
                String::new()
            }
            Write::Free { claim, .. } => {
                self.rig.done(write, Ok(()));
                self.claims.remove(claim.name());
                let events = self.rig.index.device_gone(DeviceKind::Claim, &claim.0);
                self.rig.tell(events);
                String::new()
            }
            other => panic!("{other:?}"),
        }
    }

    fn carry_out_all(&mut self, writes: &[Write]) {
        for write in writes {
            self.carry_out(write);
        }
    }

    /// The job's pods are there with their claims; what is allocated then.
    fn made(&mut self) -> (Vec<String>, Vec<Write>) {
        self.submit();
        let writes = self.rig.turn();
        self.make(&writes);
        let pods: Vec<String> = self.pods.keys().cloned().collect();
        for pod in &pods {
            self.claim_of(pod);
        }
        (pods, self.rig.take_writes())
    }

    /// Runs the job; which device is whose.
    fn running(&mut self) -> Vec<String> {
        let (_, writes) = self.made();
        let devices = writes.iter().map(|write| self.carry_out(write)).collect();
        for bind in self.rig.take_writes() {
            self.carry_out(&bind);
        }
        devices
    }

    /// A leader that knows nothing but the objects.
    fn restart(&mut self) {
        self.restart_where(true);
    }

    /// The same where the driver publishes its devices, or not.
    fn restart_where(&mut self, published: bool) {
        self.rig = Rig { index: Index::default(), ..rig(&[]) };
        for name in ["n1", "n2"] {
            self.rig.node(name, 0);
            if published {
                self.rig.device(slice(name, 2, |_| {}));
            }
        }
        self.rig.device(class("true"));
        self.submit();
        for pod in self.pods.values() {
            self.rig.see_pod(pod.clone());
        }
        for claim in self.claims.values() {
            let facts = DeviceClaimFacts::of(&serde_json::from_value(claim.clone()).unwrap());
            let events = self.rig.index.device(DeviceObject::Claim(Box::new(facts)));
            self.rig.tell(events);
        }
        let events = self.rig.index.begin();
        self.rig.tell(events);
    }

    fn drift(&self) -> Vec<String> {
        let listed: Vec<Listed> = self.rig.index.pods.values().map(|entry| Listed::from(&entry.facts)).collect();
        self.rig.index.drift(&self.rig.engine, &listed)
    }

    /// What the engine says that the job has, as `POOL/DEVICE`.
    fn held(&self) -> Vec<String> {
        let state = self.rig.engine.state();
        let run = state.jobs[&"training/team/night".into()].run().unwrap();
        let mut all: Vec<String> = run
            .seats
            .iter()
            .flat_map(|seat| state.devices_of(seat))
            .map(|device| device.id.as_str().trim_start_matches(DRIVER).trim_start_matches('/').to_owned())
            .collect();
        all.sort();
        all
    }
}

fn words(writes: &[Write]) -> Vec<&'static str> {
    writes.iter().map(Write::word).collect()
}

#[test]
fn workers_are_bound_together_once_each_has_the_device_that_was_chosen_for_it() {
    let mut cluster = Cluster::new();
    cluster.submit();
    let writes = cluster.rig.turn();
    assert_eq!(words(&writes), ["make_service", "make_claim_template", "make_pod", "make_pod"]);
    let Write::MakeClaimTemplate { manifest, template, .. } = &writes[1] else { panic!() };
    let request = &manifest.spec.as_ref().unwrap().spec.as_ref().unwrap().devices.as_ref().unwrap().requests.as_ref().unwrap()[0];
    assert_eq!(request.exactly.as_ref().unwrap().device_class_name, "gpu");
    for write in &writes[2..] {
        let Write::MakePod { manifest, .. } = write else { panic!() };
        let spec = manifest.spec.as_ref().unwrap();
        assert_eq!(spec.node_name, None, "it is bound when it has its device");
        assert_eq!(spec.resource_claims.as_ref().unwrap()[0].resource_claim_template_name.as_deref(), Some(template.name()));
    }
    cluster.make(&writes);
    let pods: Vec<String> = cluster.pods.keys().cloned().collect();
    assert_eq!(cluster.rig.turn(), [], "there are no claims yet");
    assert!(cluster.rig.index.made_wait(&PodKey::new("team", "night")).unwrap().contains("not made from its template yet"));
    cluster.claim_of(&pods[0]);
    let first = cluster.rig.turn();
    assert_eq!(words(&first), ["allocate"]);
    cluster.claim_of(&pods[1]);
    let second = cluster.rig.turn();
    let mut devices = vec![cluster.carry_out(&first[0])];
    assert_eq!(cluster.rig.turn(), [], "all or none are bound");
    devices.push(cluster.carry_out(&second[0]));
    let binds = cluster.rig.turn();
    assert_eq!(words(&binds), ["bind", "bind"]);
    assert!(!cluster.rig.engine.state().actions.is_empty(), "the start is not done");
    for bind in &binds {
        cluster.carry_out(bind);
    }
    devices.sort();
    assert_eq!((cluster.held(), cluster.drift()), (devices, Vec::new()));
    assert!(cluster.rig.engine.state().actions.is_empty() && cluster.rig.running() == 1);
    assert_eq!(cluster.rig.turn(), []);
    let known = cluster.rig.index.known_as(&PodKey::new("team", &pods[0]));
    assert_eq!(known, Some(Known::Job("training/team/night".into())));
}

#[test]
fn what_a_worker_had_is_taken_back_and_given_to_who_waits() {
    let mut cluster = Cluster::new();
    cluster.running();
    let pods: Vec<String> = cluster.pods.keys().cloned().collect();
    for pod in &pods {
        cluster.change(pod, |pod| pod["status"]["phase"] = json!("Succeeded"));
    }
    let writes = cluster.rig.turn();
    assert_eq!(words(&writes), ["free", "free"]);
    cluster.carry_out_all(&writes);
    assert_eq!(cluster.rig.turn(), []);
    for name in ["p", "q", "r", "s"] {
        cluster.rig.running_pod(name);
    }
    assert_eq!(cluster.drift(), Vec::<String>::new());
}

#[test]
fn after_a_restart_workers_have_their_devices_and_nobody_is_disturbed() {
    let mut cluster = Cluster::new();
    let mut devices = cluster.running();
    devices.sort();
    cluster.restart();
    assert_eq!(cluster.rig.turn(), []);
    assert_eq!((cluster.held(), cluster.drift()), (devices, Vec::new()));
    let jobs: Vec<String> = cluster.rig.engine.state().jobs.keys().map(ToString::to_string).collect();
    assert_eq!(jobs, ["training/team/night"], "no claim holds them a second time");
}

#[test]
fn workers_are_known_to_a_new_leader_though_their_driver_publishes_nothing_now() {
    let mut cluster = Cluster::new();
    cluster.running();
    cluster.restart_where(false);
    assert_eq!((cluster.rig.turn(), cluster.drift()), (Vec::new(), Vec::new()));
    let jobs: Vec<String> = cluster.rig.engine.state().jobs.keys().map(ToString::to_string).collect();
    assert_eq!(jobs, ["training/team/night"]);
    for name in ["n1", "n2"] {
        cluster.rig.device(slice(name, 2, |_| {}));
    }
    assert_eq!((cluster.rig.turn(), cluster.drift()), (Vec::new(), Vec::new()));
}

#[test]
fn workers_that_a_leader_has_left_unbound_go_and_their_devices_are_given_anew() {
    let mut cluster = Cluster::new();
    let (pods, writes) = cluster.made();
    cluster.carry_out(&writes[0]);
    cluster.restart();
    let writes = cluster.rig.turn();
    assert_eq!(words(&writes), ["end_pod", "end_pod", "free", "make_service", "make_claim_template", "make_pod", "make_pod"]);
    assert_eq!(writes[2].subject().name(), format!("{}-gpus", pods[0]));
    cluster.carry_out_all(&writes[..3]);
    let second = |write: &Write| write.subject().name().contains("-2-");
    assert!(writes[5..].iter().all(second), "another attempt: {writes:?}");
    assert_eq!(cluster.rig.turn(), []);
}

#[test]
fn workers_of_which_some_were_bound_when_a_leader_went_end_together() {
    let mut cluster = Cluster::new();
    let (_, writes) = cluster.made();
    cluster.carry_out_all(&writes);
    let binds = cluster.rig.take_writes();
    cluster.carry_out(&binds[0]);
    cluster.restart();
    let writes = cluster.rig.turn();
    assert_eq!(words(&writes), ["end_pod", "end_pod", "free"], "one of them holds nothing");
    cluster.carry_out_all(&writes);
    let writes = cluster.rig.turn();
    let mut all = words(&writes);
    all.sort_unstable();
    assert_eq!(all, ["free", "make_claim_template", "make_pod", "make_pod", "make_service"]);
    assert_eq!(cluster.drift(), Vec::<String>::new());
}

#[test]
fn a_claim_that_cannot_be_given_ends_the_start_and_says_why() {
    let mut cluster = Cluster::new();
    let (_, writes) = cluster.made();
    cluster.rig.done(&writes[0], Err(Failure::Refused("no rights".to_owned())));
    let ends = cluster.rig.take_writes();
    assert_eq!(words(&ends), ["end_pod", "end_pod"]);
    cluster.carry_out(&writes[1]);
    cluster.carry_out_all(&ends);
    let state = cluster.rig.engine.state();
    assert!(state.actions.is_empty() && state.jobs[&"training/team/night".into()].run().is_none());
    let freed = cluster.rig.take_writes();
    assert_eq!(words(&freed), ["free"], "what was given is taken back");
}

#[test]
fn a_template_that_cannot_be_made_ends_the_start() {
    let mut cluster = Cluster::new();
    cluster.submit();
    let writes = cluster.rig.turn();
    cluster.make(&writes);
    cluster.rig.done(&writes[1], Err(Failure::Refused("no rights".to_owned())));
    assert_eq!(words(&cluster.rig.take_writes()), ["end_pod", "end_pod"]);
}

#[test]
fn a_pod_that_changed_is_bound_as_it_is_now() {
    let mut cluster = Cluster::new();
    let (_, writes) = cluster.made();
    cluster.carry_out_all(&writes);
    let binds = cluster.rig.take_writes();
    cluster.rig.done(&binds[0], Err(Failure::Conflict));
    cluster.carry_out(&binds[1]);
    assert_eq!(cluster.rig.turn(), []);
    cluster.change(binds[0].subject().name(), |pod| pod["metadata"]["labels"]["mine"] = json!("1"));
    let again = cluster.rig.take_writes();
    assert_eq!(words(&again), ["bind"]);
    cluster.carry_out(&again[0]);
    assert!(cluster.rig.engine.state().actions.is_empty() && cluster.rig.running() == 1);
}

#[test]
fn a_start_that_is_stopped_before_it_is_bound_gives_everything_back() {
    let mut cluster = Cluster::new();
    let (pods, writes) = cluster.made();
    cluster.carry_out_all(&writes);
    let binds = cluster.rig.take_writes();
    cluster.rig.tell(vec![Event::JobPaused { name: "training/team/night".into(), paused: true }]);
    let ends = cluster.rig.turn();
    assert_eq!(words(&ends), ["end_pod", "end_pod"]);
    cluster.rig.done(&binds[0], Err(Failure::Gone));
    cluster.carry_out_all(&ends);
    let freed = cluster.rig.turn();
    assert_eq!(words(&freed), ["free", "free"], "of {pods:?}");
    cluster.carry_out_all(&freed);
    assert_eq!((cluster.drift(), cluster.rig.running()), (Vec::new(), 0));
}

#[test]
fn a_job_waits_until_its_class_and_devices_of_it_are_there() {
    let mut cluster = Cluster::new();
    cluster.spec["gpu"]["deviceClassName"] = json!("other");
    cluster.submit();
    assert_eq!(cluster.rig.turn(), []);
    let statuses = |cluster: &mut Cluster| cluster.rig.index.statuses(&cluster.rig.engine, "2026-11-29T00:00:01Z");
    let told = format!("{:?}", statuses(&mut cluster));
    assert!(told.contains("gpu.deviceClassName") && told.contains("DeviceClass other, which does not exist"), "{told}");
    let other = json!({"metadata": {"name": "other"}, "spec": {"selectors": []}});
    cluster.rig.device(DeviceObject::Class(DeviceClassFacts::of(&serde_json::from_value(other).unwrap())));
    assert_eq!(words(&cluster.rig.turn()), ["make_service", "make_claim_template", "make_pod", "make_pod"]);
}

#[test]
fn a_replica_has_a_device_by_name_and_gives_it_back() {
    let mut cluster = Cluster::new();
    cluster.rig.index.serving = Serving {
        image: Some("tidegate:1".to_owned()),
        control_url: Some("http://operator:8090".to_owned()),
        control_auth: false,
    };
    let model = json!({
        "metadata": {"namespace": "team", "name": "digits", "uid": "1111", "generation": 1, "creationTimestamp": "2026-11-29T00:00:00Z"},
        "spec": {
            "queue": "a", "source": {"onnx": "/models/digits.onnx"}, "sloMilliseconds": 100, "replicas": {"min": 1, "max": 1},
            "gpu": {"deviceClassName": "gpu"},
        },
    });
    let facts = ModelFacts::of(&serde_json::from_value(model).unwrap());
    let events = cluster.rig.index.model(Change::Is(facts));
    cluster.rig.tell(events);
    let writes = cluster.rig.turn();
    assert_eq!(words(&writes), ["make_claim_template", "make_pod"]);
    cluster.make(&writes);
    let pod = cluster.pods.keys().next().unwrap().clone();
    cluster.claim_of(&pod);
    let writes = cluster.rig.take_writes();
    let device = cluster.carry_out(&writes[0]);
    let binds = cluster.rig.take_writes();
    assert_eq!((words(&binds), cluster.carry_out(&binds[0])), (vec!["bind"], device[..2].to_owned()));
    assert_eq!((cluster.rig.turn(), cluster.drift()), (Vec::new(), Vec::new()));
    assert_eq!(cluster.rig.index.known_as(&PodKey::new("team", &pod)), Some(Known::Model("digits".into())));

    cluster.pods.remove(&pod);
    cluster.rig.gone(&pod);
    let writes = cluster.rig.turn();
    assert!(words(&writes).contains(&"free"), "{writes:?}");
}
