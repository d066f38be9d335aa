use serde_json::{Value, json};
use tidegate_core::plan::Action;
use tidegate_core::state::{Queue, Quota};
use tidegate_core::time::At;

use super::*;

mod devices;
mod groups;
mod local;
mod parts;
mod volumes;

/// An engine with its cluster, where writes are carried out at once, or not.
pub(in crate::index) struct Rig {
    pub engine: Engine,
    pub index: Index,
    pub now: At,
    waiting: Vec<Action>,
    versions: u64,
    /// Events on objects: the object's name and the reason.
    pub notes: Vec<(String, &'static str)>,
}

fn owns(nominal: u32) -> Queue {
    Queue { quotas: Queue::devices(nominal, None).quotas, ..Queue::default() }
}

impl Rig {
    pub fn new() -> Self {
        let (engine, index) = (Engine::default(), Index::default());
        let mut rig = Self { engine, index, now: At(1_000), waiting: Vec::new(), versions: 0, notes: Vec::new() };
        rig.index.begin();
        rig
    }

    pub fn with(nodes: &[(&str, u32)], queues: &[(&str, u32)]) -> Self {
        let mut rig = Self::new();
        for (name, gpus) in nodes {
            rig.node(name, *gpus);
        }
        for (name, nominal) in queues {
            rig.tell(vec![Event::QueueSet { name: (*name).into(), queue: owns(*nominal) }]);
        }
        rig
    }

    pub fn tell(&mut self, events: Vec<Event>) {
        for event in events {
            self.engine.apply(self.now, event);
        }
        self.engine.is_consistent().unwrap();
    }

    pub fn node(&mut self, name: &str, gpus: u32) {
        self.node_with(name, &[("nvidia.com/gpu", gpus)]);
    }

    fn node_with(&mut self, name: &str, devices: &[(&str, u32)]) {
        let mut node = json!({
            "metadata": {"name": name, "labels": {"nvidia.com/gpu.memory": "81559"}},
            "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}},
        });
        for (resource, count) in devices {
            node["status"]["allocatable"][resource] = json!(count.to_string());
        }
        let facts = NodeFacts::of(&serde_json::from_value(node).unwrap());
        let events = self.index.node(Change::Is(facts), &self.engine);
        self.tell(events);
    }

    /// An object as the API server has it.
    pub fn see_pod(&mut self, pod: Value) {
        let facts = PodFacts::of(&serde_json::from_value(pod).unwrap());
        let events = self.index.pod(Change::Is(facts));
        self.tell(events);
    }

    /// A pod as its maker wrote it.
    pub fn see(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        self.versions += 1;
        let mut pod = json!({
            "metadata": {
                "namespace": "team", "name": name, "uid": format!("uid-{name}"), "resourceVersion": self.versions.to_string(),
                "creationTimestamp": "2026-11-29T00:00:00Z", "labels": {"tidegate.dev/queue": "a"}, "annotations": {},
            },
            "spec": {
                "schedulerName": "tidegate",
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}}],
            },
            "status": {"phase": "Pending"},
        });
        change(&mut pod);
        self.see_pod(pod);
    }

    fn beside(&mut self, object: Beside) {
        let events = self.index.beside(object);
        self.tell(events);
    }

    fn device(&mut self, object: DeviceObject) {
        let events = self.index.device(object);
        self.tell(events);
    }

    /// What is told to those that wait, whatever they know.
    fn told(&mut self) -> Vec<String> {
        self.index.ask_again();
        let told = self.index.tell_waiting(&self.engine).into_iter();
        told.filter_map(|write| if let Write::Refuse { message, .. } = write { Some(message) } else { None }).collect()
    }

    pub fn gone(&mut self, name: &str) {
        let events = self.index.pod(Change::Gone(PodKey::new("team", name)));
        self.tell(events);
    }

    /// Decides and begins to carry out; what is to be written.
    pub fn turn(&mut self) -> Vec<Write> {
        self.lose_free_devices();
        self.now = self.now.plus(1_000);
        for _ in 0..8 {
            let plan = self.engine.decide(self.now);
            let any = !plan.actions.is_empty();
            self.waiting.extend(plan.actions);
            while let Some(at) =
                self.waiting.iter().position(|action| action.after.iter().all(|id| !self.engine.state().actions.contains_key(id)))
            {
                let action = self.waiting.remove(at);
                let events = self.index.perform(&action, self.now);
                self.tell(events);
            }
            if !any {
                break;
            }
            self.lose_free_devices();
        }
        self.take_writes()
    }

    fn lose_free_devices(&mut self) {
        let lost = self.index.lose_free_devices(&self.engine);
        self.tell(lost);
    }

    fn take_writes(&mut self) -> Vec<Write> {
        let writes = self.index.take_writes();
        self.note(writes)
    }

    /// Takes the events out of what is to be written.
    pub fn note(&mut self, writes: Vec<Write>) -> Vec<Write> {
        let (notes, rest): (Vec<_>, Vec<_>) = writes.into_iter().partition(|write| matches!(write, Write::Note { .. }));
        for write in notes {
            if let Write::Note { object, note } = write {
                self.notes.push((object.name().to_owned(), note.reason));
            }
        }
        rest
    }

    fn tell_waiting(&mut self) -> Vec<Write> {
        let writes = self.index.tell_waiting(&self.engine);
        self.note(writes)
    }

    pub fn done(&mut self, write: &Write, result: Result<(), Failure>) {
        let events = self.index.written(write, result);
        self.tell(events);
    }

    /// Carries out every binding; which pods are where now.
    pub fn bind_all(&mut self, change: impl Fn(&mut Value)) -> Vec<(String, String)> {
        let mut bound = Vec::new();
        for write in self.turn() {
            let Write::Bind { pod, node, .. } = &write else { panic!("{write:?}") };
            let (name, node) = (pod.name().to_owned(), node.clone());
            self.done(&write, Ok(()));
            self.see(&name, |pod| {
                change(pod);
                pod["spec"]["nodeName"] = json!(node);
                pod["status"]["phase"] = json!("Running");
            });
            bound.push((name, node));
        }
        bound.sort();
        bound
    }

    fn running(&self) -> usize {
        self.engine.state().jobs.values().filter(|job| job.run().is_some()).count()
    }
}

fn queue(name: &'static str) -> impl Fn(&mut Value) {
    move |pod| pod["metadata"]["labels"]["tidegate.dev/queue"] = json!(name)
}

pub(in crate::index) fn gang(size: u32) -> impl Fn(&mut Value) {
    move |pod| {
        pod["metadata"]["labels"]["tidegate.dev/gang"] = json!("g");
        pod["metadata"]["annotations"]["tidegate.dev/gang-size"] = json!(size.to_string());
    }
}

fn of_job(size: u32) -> impl Fn(&mut Value) {
    move |pod| {
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "night", "uid": "u", "controller": true}]);
        pod["metadata"]["annotations"]["tidegate.dev/gang-size"] = json!(size.to_string());
    }
}

pub(in crate::index) fn foreign(pod: &mut Value) {
    pod["spec"]["schedulerName"] = json!("default-scheduler");
}

#[test]
fn a_pod_is_bound_once_to_a_node_that_has_its_gpu() {
    let mut rig = Rig::with(&[("empty", 0), ("n1", 1)], &[("a", 2)]);
    rig.see("p", |_| {});
    rig.see("q", |_| {});
    assert_eq!(rig.bind_all(|_| {}), [("p".to_owned(), "n1".to_owned())]);
    assert!(rig.turn().is_empty(), "q waits, p is bound already");
    rig.gone("p");
    assert_eq!(rig.bind_all(|_| {}), [("q".to_owned(), "n1".to_owned())]);
}

#[test]
fn a_gang_starts_whole_and_only_when_all_of_it_is_there() {
    let mut rig = Rig::with(&[("n1", 2), ("n2", 2)], &[("a", 4)]);
    for name in ["w-0", "w-1"] {
        rig.see(name, gang(3));
    }
    assert!(rig.turn().is_empty(), "two of three");
    rig.see("w-2", gang(3));
    assert_eq!(rig.bind_all(gang(3)).len(), 3);
    assert_eq!(rig.running(), 1);
    assert!(rig.engine.state().jobs.values().all(|job| job.run().is_some_and(|run| run.observed)), "all were seen running");
}

#[test]
fn a_gang_that_does_not_fit_waits_as_a_whole_and_is_told_why() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 4)]);
    for name in ["w-0", "w-1", "w-2"] {
        rig.see(name, gang(3));
    }
    assert!(rig.turn().is_empty());
    let told = rig.tell_waiting();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|write| matches!(write, Write::Refuse { message, .. } if !message.is_empty())), "{told:?}");
    rig.index.ask_again();
    assert!(rig.tell_waiting().is_empty(), "they know");
}

#[test]
fn a_pod_that_comes_late_to_its_gang_is_placed_alone() {
    let mut rig = Rig::with(&[("n1", 4)], &[("a", 4)]);
    for name in ["w-0", "w-1"] {
        rig.see(name, gang(2));
    }
    assert_eq!(rig.bind_all(gang(2)).len(), 2);
    rig.see("w-2", gang(2));
    assert_eq!(rig.bind_all(gang(2)), [("w-2".to_owned(), "n1".to_owned())]);
    assert_eq!(rig.running(), 2);
}

#[test]
fn pods_of_one_job_are_a_gang_if_they_say_its_size() {
    let mut rig = Rig::with(&[("n1", 4)], &[("a", 4)]);
    for name in ["night-a", "night-b"] {
        rig.see(name, of_job(3));
    }
    assert!(rig.turn().is_empty(), "two of three");
    rig.see("night-c", of_job(3));
    assert_eq!(rig.bind_all(of_job(3)).len(), 3);
    let known = rig.index.known_as(&PodKey::new("team", "night-b"));
    assert_eq!(known, Some(Known::Job("gang/team/Job/night".into())), "by its own name");
    assert!(rig.engine.state().jobs.contains_key(&JobName::from("gang/team/Job/night")));
}

#[test]
fn who_takes_the_place_of_one_of_a_gang_does_not_wait_for_its_end() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 2)]);
    for name in ["night-a", "night-b"] {
        rig.see(name, of_job(2));
    }
    rig.bind_all(of_job(2));
    rig.see("night-a", |pod| {
        of_job(2)(pod);
        pod["spec"]["nodeName"] = json!("n1");
        pod["status"]["phase"] = json!("Failed");
    });
    rig.see("night-c", of_job(2));
    assert_eq!(rig.bind_all(of_job(2)), [("night-c".to_owned(), "n1".to_owned())]);
}

#[test]
fn a_gang_that_is_made_anew_waits_until_the_old_one_has_ended() {
    let mut rig = Rig::with(&[("n1", 4)], &[("a", 4)]);
    for name in ["old-a", "old-b"] {
        rig.see(name, of_job(2));
    }
    rig.bind_all(of_job(2));
    for name in ["old-a", "old-b"] {
        rig.see(name, |pod| {
            of_job(2)(pod);
            pod["spec"]["nodeName"] = json!("n1");
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-29T00:10:00Z");
        });
    }
    rig.see("new-a", of_job(2));
    rig.gone("old-a");
    assert!(rig.turn().is_empty(), "alone it would hold a GPU while it waits for the other");
    rig.gone("old-b");
    assert!(rig.turn().is_empty(), "one of two");
    rig.see("new-b", of_job(2));
    assert_eq!(rig.bind_all(of_job(2)).len(), 2);
}

#[test]
fn after_a_restart_what_runs_is_known_and_nothing_is_bound_twice() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 2)]);
    let runs = |pod: &mut Value| {
        pod["spec"]["nodeName"] = json!("n1");
        pod["status"]["phase"] = json!("Running");
    };
    for name in ["w-0", "w-1"] {
        rig.see(name, |pod| {
            gang(2)(pod);
            runs(pod);
        });
    }
    rig.see("p", |_| {});
    assert!(rig.turn().is_empty(), "both GPUs are taken");
    rig.see("w-0", |pod| {
        gang(2)(pod);
        runs(pod);
        pod["status"]["phase"] = json!("Succeeded");
    });
    assert_eq!(rig.bind_all(|_| {}), [("p".to_owned(), "n1".to_owned())], "one of the gang was done: its GPU is free");
}

#[test]
fn what_others_place_is_gone_for_us() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 4)]);
    rig.see("theirs", |pod| {
        foreign(pod);
        pod["spec"]["nodeName"] = json!("n1");
    });
    rig.see("nominated", |pod| {
        foreign(pod);
        pod["status"]["nominatedNodeName"] = json!("n1");
    });
    rig.see("p", |_| {});
    assert!(rig.turn().is_empty());
    // Its room was made elsewhere.
    rig.see("nominated", foreign);
    assert_eq!(rig.bind_all(|_| {}).len(), 1);
}

#[test]
fn who_was_nominated_counts_where_it_is_bound_in_the_end() {
    let mut rig = Rig::with(&[("n1", 1), ("n2", 1)], &[("a", 4)]);
    rig.see("theirs", |pod| {
        foreign(pod);
        pod["status"]["nominatedNodeName"] = json!("n1");
    });
    rig.see("theirs", |pod| {
        foreign(pod);
        pod["spec"]["nodeName"] = json!("n2");
    });
    rig.see("p", |_| {});
    assert_eq!(rig.bind_all(|_| {}), [("p".to_owned(), "n1".to_owned())]);
}

#[test]
fn cpu_of_others_counts() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 4)]);
    rig.see("theirs", |pod| {
        foreign(pod);
        pod["spec"]["nodeName"] = json!("n1");
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "15500m"}});
    });
    rig.see("p", |_| {});
    assert!(rig.turn().is_empty(), "half a core is left and it wants one");
    rig.gone("theirs");
    assert_eq!(rig.bind_all(|_| {}).len(), 1);
}

#[test]
fn who_is_owed_a_gpu_gets_it_when_the_borrower_has_ended() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 1), ("b", 1)]);
    rig.see("p-1", |_| {});
    rig.see("p-2", |_| {});
    assert_eq!(rig.bind_all(|_| {}).len(), 2, "a borrows what b does not use");
    rig.see("mine", queue("b"));
    let writes = rig.turn();
    let [Write::Evict { pod, grace_seconds: 30, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    let victim = pod.name().to_owned();
    assert!(rig.turn().is_empty(), "it is asked once, and still there");
    let of = |reason| rig.notes.iter().filter(|(_, known)| *known == reason).map(|(pod, _)| pod.clone()).collect::<Vec<_>>();
    assert_eq!((of("Preempted"), of("Scheduled").len()), (vec![victim.clone()], 2), "events say so");
    rig.gone(&victim);
    let writes = rig.turn();
    let [Write::Bind { pod, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(pod.name(), "mine");
}

#[test]
fn a_binding_in_conflict_is_tried_again_with_what_is_known_by_then() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 1)]);
    rig.see("p", |_| {});
    let first = rig.turn().remove(0);
    rig.done(&first, Err(Failure::Conflict));
    assert!(rig.take_writes().is_empty(), "nothing newer was seen yet");
    rig.see("p", |pod| pod["metadata"]["labels"]["more"] = json!("x"));
    let writes = rig.take_writes();
    let (Write::Bind { resource_version: old, .. }, [Write::Bind { resource_version: new, .. }]) = (&first, writes.as_slice())
    else {
        panic!("{writes:?}")
    };
    assert_ne!(old, new);
    // Seen before the answer came: at once.
    let second = writes[0].clone();
    rig.see("p", |pod| pod["metadata"]["labels"]["more"] = json!("y"));
    rig.done(&second, Err(Failure::Conflict));
    assert!(matches!(rig.take_writes().as_slice(), [Write::Bind { .. }]));
}

#[test]
fn what_somebody_else_binds_of_a_gang_counts_beside_what_we_are_binding() {
    let mut rig = Rig::with(&[("n1", 4)], &[("a", 4)]);
    for name in ["w-0", "w-1", "w-2"] {
        rig.see(name, gang(3));
    }
    let writes = rig.turn();
    assert_eq!(writes.len(), 3);
    rig.see("w-1", |pod| {
        gang(3)(pod);
        pod["spec"]["nodeName"] = json!("n1");
    });
    let held = |rig: &Rig| rig.engine.state().jobs.values().filter_map(|job| job.run()).map(|run| run.seats.len()).sum::<usize>();
    assert_eq!(held(&rig), 3);
    rig.see("late", |pod| pod["spec"]["nodeName"] = json!("n1"));
    assert_eq!(held(&rig), 4, "a fourth pod holds the fourth GPU");
}

#[test]
fn a_gang_that_is_bound_in_part_gives_back_what_it_has() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 2)]);
    for name in ["w-0", "w-1"] {
        rig.see(name, gang(2));
    }
    let writes = rig.turn();
    rig.done(&writes[0], Ok(()));
    rig.done(&writes[1], Err(Failure::Refused("a webhook says no".into())));
    let evicted = rig.take_writes();
    assert!(matches!(evicted.as_slice(), [Write::Evict { pod, .. }] if pod == writes[0].subject()), "{evicted:?}");
    rig.gone("w-0");
    assert_eq!(rig.running(), 0);
    rig.turn();
    assert!(rig.engine.state().jobs.is_empty(), "one of two is left: no gang");
}

#[test]
fn a_gang_of_which_a_pod_goes_while_it_is_bound_gives_back_what_it_has() {
    let mut rig = Rig::with(&[("n1", 2)], &[("a", 2)]);
    for name in ["w-0", "w-1"] {
        rig.see(name, gang(2));
    }
    let writes = rig.turn();
    rig.done(&writes[0], Ok(()));
    rig.gone("w-1");
    let evicted = rig.take_writes();
    assert!(matches!(evicted.as_slice(), [Write::Evict { pod, .. }] if pod.name() == "w-0"), "{evicted:?}");
    rig.done(&writes[1], Err(Failure::Gone));
    rig.gone("w-0");
    assert!(rig.engine.state().actions.is_empty());
}

#[test]
fn a_pod_whose_binding_is_refused_waits_and_is_tried_later() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 1)]);
    rig.see("p", |_| {});
    let write = rig.turn().remove(0);
    rig.done(&write, Err(Failure::Refused("a webhook says no".into())));
    rig.now = rig.now.plus(120_000);
    assert_eq!(rig.turn().len(), 1);
}

#[test]
fn a_pod_that_goes_while_it_is_bound_frees_its_place() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 1)]);
    rig.see("p", |_| {});
    let write = rig.turn().remove(0);
    rig.gone("p");
    rig.done(&write, Err(Failure::Gone));
    assert!(rig.engine.state().actions.is_empty(), "its start is no longer under way");
    rig.see("q", |_| {});
    assert_eq!(rig.bind_all(|_| {}).len(), 1);
}

#[test]
fn a_namesake_is_another_pod() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 1)]);
    rig.see("p", |_| {});
    let write = rig.turn().remove(0);
    rig.see("p", |pod| pod["metadata"]["uid"] = json!("another"));
    rig.done(&write, Err(Failure::Conflict));
    let writes = rig.turn();
    assert!(matches!(writes.as_slice(), [Write::Bind { uid, .. }] if uid == "another"), "{writes:?}");
}

#[test]
fn of_gpus_that_go_the_free_ones_go_first() {
    let mut rig = Rig::with(&[("n1", 3)], &[("a", 3)]);
    rig.see("p", |_| {});
    rig.bind_all(|_| {});
    rig.node("n1", 1);
    assert!(rig.turn().is_empty(), "p goes on");
    rig.see("q", |_| {});
    assert!(rig.turn().is_empty(), "there is no other");
    rig.node("n1", 2);
    assert_eq!(rig.bind_all(|_| {}).len(), 1);
}

#[test]
fn a_node_that_takes_no_more_pods_gets_none() {
    let mut rig = Rig::new();
    let node = json!({"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "1", "nvidia.com/gpu": "4"}}});
    let events = rig.index.node(Change::Is(NodeFacts::of(&serde_json::from_value(node).unwrap())), &rig.engine);
    rig.tell(events);
    rig.tell(vec![Event::QueueSet { name: "a".into(), queue: owns(4) }]);
    rig.see("p", |_| {});
    rig.see("q", |_| {});
    assert_eq!(rig.bind_all(|_| {}).len(), 1);
    assert!(rig.turn().is_empty());
}

#[test]
fn a_pod_with_a_problem_is_told_and_holds_nobody_up() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 1)]);
    rig.see("p", |pod| pod["metadata"]["labels"] = json!({}));
    rig.see("q", |_| {});
    assert_eq!(rig.bind_all(|_| {}), [("q".to_owned(), "n1".to_owned())]);
    let told = rig.tell_waiting();
    assert!(
        told.iter().any(|write| matches!(write, Write::Refuse { message, .. } if message.contains("names no queue"))),
        "{told:?}"
    );
}

#[test]
fn pods_that_ended_are_forgotten() {
    let mut rig = Rig::with(&[("n1", 1)], &[("a", 1)]);
    for name in ["p", "q", "r"] {
        rig.see(name, |_| {});
        rig.bind_all(|_| {});
        rig.see(name, |pod| {
            pod["spec"]["nodeName"] = json!("n1");
            pod["status"]["phase"] = json!("Succeeded");
        });
        rig.turn();
    }
    assert_eq!((rig.index.counts().units, rig.engine.state().jobs.len()), (0, 0));
}

#[test]
fn quotas_may_be_of_other_things_than_gpus() {
    let mut rig = Rig::with(&[("n1", 8)], &[]);
    let cpu = Quota { nominal: 1_000, borrowing_limit: Some(0), lending_limit: None };
    let quotas = [(tidegate_core::state::Resource::Cpu, cpu)].into();
    rig.tell(vec![Event::QueueSet { name: "a".into(), queue: Queue { quotas, ..Queue::default() } }]);
    rig.see("p", |_| {});
    rig.see("q", |_| {});
    assert_eq!(rig.bind_all(|_| {}).len(), 1, "each wants one core, and one is what the queue may use");
}

#[test]
fn what_is_believed_is_what_a_fresh_list_says_but_for_what_is_on_its_way() {
    let mut rig = Rig::with(&[("n1", 2), ("n2", 2)], &[("a", 4)]);
    rig.see("p", |_| {});
    rig.see("other", |pod| {
        foreign(pod);
        pod["spec"]["nodeName"] = json!("n2");
    });
    let listed = |rig: &Rig| rig.index.pods.values().map(|entry| Listed::from(&entry.facts)).collect::<Vec<_>>();
    assert!(rig.index.drift(&rig.engine, &listed(&rig)).is_empty());
    let writes = rig.turn();
    assert!(rig.index.drift(&rig.engine, &listed(&rig)).is_empty(), "it is being bound");
    rig.done(&writes[0], Ok(()));
    let before = listed(&rig);
    rig.see("p", |pod| {
        pod["spec"]["nodeName"] = json!("n1");
        pod["metadata"]["resourceVersion"] = json!("2");
    });
    assert!(rig.index.drift(&rig.engine, &listed(&rig)).is_empty());
    assert!(rig.index.drift(&rig.engine, &before).is_empty(), "the list was made before it was bound");
    // The engine is told of an end that there was not.
    let job = rig.engine.state().jobs.iter().find(|(name, _)| name.0.starts_with("pod/")).map(|(name, _)| name.clone()).unwrap();
    rig.tell(vec![Event::JobExited { name: job, attempt: 1, exit: tidegate_core::JobExit::Succeeded }]);
    assert_eq!(rig.index.drift(&rig.engine, &listed(&rig)), ["node n1: 1 GPUs are held, and 0 counted"]);
}

/// When the pods of these tests were made.
const MADE: At = At(1_795_910_400_000);

/// The leader is gone after it has bound `bound` of three: what the next one makes of it.
fn half_bound(bound: usize, change: impl Fn(&mut Value)) -> Rig {
    let mut rig = Rig::with(&[("n1", 3)], &[("a", 3)]);
    (rig.now, rig.index.begun) = (MADE, false);
    for at in 0..3 {
        rig.see(&format!("w-{at}"), |pod| {
            gang(3)(pod);
            change(pod);
            if at < bound {
                pod["spec"]["nodeName"] = json!("n1");
            }
        });
    }
    let events = rig.index.begin();
    rig.tell(events);
    rig
}

#[test]
fn a_gang_that_is_found_half_bound_is_made_whole() {
    for bound in 1..3 {
        let mut rig = half_bound(bound, |_| {});
        assert_eq!(rig.bind_all(gang(3)).len(), 3 - bound);
        for at in 0..3 {
            rig.see(&format!("w-{at}"), |pod| {
                gang(3)(pod);
                pod["spec"]["nodeName"] = json!("n1");
                pod["status"]["phase"] = json!("Running");
            });
        }
        assert!(rig.turn().is_empty());
        let jobs: Vec<_> = rig.engine.state().jobs.iter().filter_map(|(name, job)| Some((name.as_str(), job.run()?))).collect();
        let [(name, run)] = jobs.as_slice() else { panic!("{jobs:?}") };
        assert_eq!((*name, run.seats.len(), run.observed), ("gang/team/g", 3, true), "{bound} were bound");
    }
}

#[test]
fn a_gang_that_is_found_half_bound_and_cannot_be_made_whole_ends_in_time() {
    let mut rig = half_bound(2, |_| {});
    rig.see("other", |pod| {
        foreign(pod);
        pod["spec"]["nodeName"] = json!("n1");
    });
    assert!(rig.turn().is_empty(), "no GPU is left for the third");
    rig.now = rig.now.plus(601_000);
    let writes = rig.turn();
    assert!(writes.len() == 2 && writes.iter().all(|write| matches!(write, Write::Evict { .. })), "{writes:?}");
    for name in ["w-0", "w-1", "other"] {
        rig.gone(name);
    }
    for name in ["w-3", "w-4"] {
        rig.see(name, gang(3));
    }
    assert_eq!(rig.turn().len(), 3, "the one that waited is of the gang again");
}

#[test]
fn a_gang_that_must_be_in_one_place_is_made_anew() {
    let mut rig = half_bound(1, |pod| pod["metadata"]["annotations"]["tidegate.dev/required-topology"] = json!("node"));
    let writes = rig.turn();
    assert!(matches!(writes.as_slice(), [Write::Evict { .. }]), "{writes:?}");
}

#[test]
fn other_numbers_in_a_reason_are_told_seldom_and_other_words_at_once() {
    let told = Told { message: "2 of 4 are free at 14:20".to_owned(), round: 7 };
    assert!(!told.is_news("2 of 4 are free at 14:20", 1_000));
    assert!(!told.is_news("3 of 4 are free at 14:21", 8));
    assert!(told.is_news("3 of 4 are free at 14:21", 7 + NUMBERS_AFTER));
    assert!(told.is_news("its queue has no more", 7));
}

#[test]
fn a_gang_of_which_some_are_done_is_left_alone_after_a_restart() {
    let mut rig = Rig::with(&[("n1", 3)], &[("a", 3)]);
    (rig.now, rig.index.begun) = (MADE.plus(7_200_000), false);
    for (name, phase) in [("w-0", "Succeeded"), ("w-1", "Running"), ("w-2", "Running")] {
        rig.see(name, |pod| {
            gang(3)(pod);
            pod["spec"]["nodeName"] = json!("n1");
            pod["status"]["phase"] = json!(phase);
        });
    }
    let events = rig.index.begin();
    rig.tell(events);
    assert!(rig.turn().is_empty(), "two of three run on, long after the gang's time");
    assert!(rig.engine.state().jobs.values().all(|job| job.run().is_some_and(|run| run.observed)));
}
