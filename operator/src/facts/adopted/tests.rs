use serde_json::{Value, json};
use tidegate_api::labels;
use tidegate_core::ask::Amount;
use tidegate_core::plan::Placed;

use super::*;

fn adoptions(kueue: bool) -> &'static Adoptions {
    Box::leak(Box::new(Adoptions::of(&[], kueue).unwrap()))
}

/// A suspended Job of three pods with two GPUs each.
fn job() -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "namespace": "team", "name": "night-7", "uid": "u", "resourceVersion": "5", "creationTimestamp": "2026-11-29T00:00:01Z",
            "labels": {"tidegate.dev/queue": "a"},
        },
        "spec": {
            "suspend": true, "parallelism": 3,
            "template": {"spec": {
                "restartPolicy": "Never", "priorityClassName": "high",
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": "2"}}}],
            }},
        },
    })
}

fn read(object: &Value, kueue: bool) -> AdoptedFacts {
    let all = adoptions(kueue);
    let kind = object["kind"].as_str().unwrap();
    let adoption = all.kinds.iter().find(|adoption| adoption.resource.kind == kind).unwrap();
    AdoptedFacts::of(&serde_json::from_value(object.clone()).unwrap(), adoption, all)
}

fn facts(change: impl FnOnce(&mut Value)) -> AdoptedFacts {
    let mut object = job();
    change(&mut object);
    read(&object, false)
}

fn problem(change: impl FnOnce(&mut Value)) -> String {
    facts(change).groups.unwrap_err()
}

#[test]
fn a_suspended_job_says_what_its_pods_will_ask_for() {
    let found = facts(|_| {});
    assert_eq!(
        (&*found.name, found.suspended, found.end, found.created.0 % 10_000),
        ("Job.batch/team/night-7", true, None, 1_000)
    );
    assert_eq!(found.queue, Some(QueueWish::Queue("a".to_owned())));
    let groups = found.groups.unwrap();
    let [group] = groups.as_slice() else { panic!("{groups:?}") };
    assert_eq!((group.count, group.by_us, group.priority_class.as_deref()), (3, false, Some("high")));
    assert_eq!((group.ask().amount, group.ask().cpu_milli), (Amount::Whole(2), 1_000));
    let ours = group.pod.ours.as_ref().unwrap();
    assert_eq!((ours.owner.as_str(), ours.recipe.as_str(), &ours.problem), ("team", "night", &None));
    let count = |change: fn(&mut Value)| facts(change).groups.unwrap()[0].count;
    assert_eq!(count(|job| job["spec"]["completions"] = json!(2)), 2);
    let done = |job: &mut Value| {
        job["spec"]["completions"] = json!(4);
        job["status"]["succeeded"] = json!(3);
    };
    assert_eq!(count(done), 1, "only one is left to do");
}

#[test]
fn kueues_words_count_if_they_are_asked_for() {
    let mut object = job();
    object["metadata"]["labels"] = json!({"kueue.x-k8s.io/queue-name": "main", "kueue.x-k8s.io/priority-class": "batch"});
    let rack = "kueue.x-k8s.io/podset-required-topology";
    object["spec"]["template"]["metadata"]["annotations"] = json!({rack: "kubernetes.io/hostname"});
    let without = read(&object, false);
    assert!(without.queue.is_none() && !without.concerns_us());
    let with = read(&object, true);
    assert_eq!((with.queue, with.priority_class.as_deref()), (Some(QueueWish::Local("main".to_owned())), Some("batch")));
    let groups = with.groups.unwrap();
    let spread = groups[0].pod.ours.as_ref().unwrap().spread.clone().unwrap();
    assert_eq!((spread.level.as_str(), spread.required), ("node", true));
}

#[test]
fn annotations_of_the_object_count_for_its_pods() {
    let found = facts(|job| {
        job["metadata"]["annotations"] = json!({"tidegate.dev/preemptible": "false", "tidegate.dev/expected-seconds": "60"});
        job["spec"]["template"]["metadata"]["annotations"] =
            json!({"tidegate.dev/expected-seconds": "5", "tidegate.dev/gang-size": "9"});
    });
    let groups = found.groups.unwrap();
    let ours = groups[0].pod.ours.as_ref().unwrap();
    assert_eq!((ours.preemptible, ours.expected_ms, &ours.gang), (false, Some(5_000), &None));
}

#[test]
fn what_cannot_be_started_is_told_with_field_and_remedy() {
    let told = [
        (problem(|job| job["spec"]["template"] = Value::Null), "no pod template"),
        (problem(|job| job["spec"]["template"]["spec"]["containers"] = json!("many")), "/spec/template: "),
        (problem(|job| job["spec"]["template"]["spec"]["nodeName"] = json!("n1")), "spec.nodeName"),
        (problem(|job| job["spec"]["template"]["spec"]["schedulingGroup"] = json!({"podGroupName": "g"})), "schedulingGroup"),
        (problem(|job| job["spec"]["template"]["spec"]["resourceClaims"] = json!([{"name": "gpu"}])), "ResourceClaim"),
        (problem(|job| job["spec"]["parallelism"] = json!(4_000_000)), "give it fewer"),
        (problem(|job| job["metadata"]["annotations"] = json!({"tidegate.dev/preemptible": "maybe"})), "true or false"),
        (
            problem(|job| {
                job["spec"]["template"]["spec"]["schedulerName"] = json!("tidegate");
                job["spec"]["template"]["spec"]["volumes"] =
                    json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
            }),
            "name a claim",
        ),
    ];
    for (told, part) in told {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn what_is_over_says_so_in_one_of_several_ways() {
    let condition =
        |kind: &str| json!({"conditions": [{"type": "Suspended", "status": "True"}, {"type": kind, "status": "True"}]});
    let of = |status: Value| facts(|job| job["status"] = status).end;
    assert_eq!((of(condition("Complete")), of(condition("SuccessCriteriaMet"))), (Some(true), Some(true)));
    assert_eq!(
        (of(condition("Failed")), of(condition("FailureTarget")), of(condition("Active"))),
        (Some(false), Some(false), None)
    );
    assert_eq!(of(json!({"conditions": [{"type": "Complete", "status": "False"}]})), None);
    assert_eq!(of(json!({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})), Some(true));
    assert_eq!(of(json!({"jobDeploymentStatus": "Running"})), None);
    assert_eq!(of(json!("?")), None);
}

#[test]
fn what_an_adopted_object_makes_is_not_adopted_itself() {
    let owned = |kind: &str, group: &str| {
        facts(|job| {
            job["metadata"]["ownerReferences"] =
                json!([{"apiVersion": format!("{group}/v1"), "kind": kind, "name": "o", "uid": "o", "controller": true}]);
        })
        .queue
    };
    assert_eq!(owned("JobSet", "jobset.x-k8s.io"), None);
    let marked = facts(|job| {
        job["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": "o", "uid": "o", "controller": true}]);
        job["spec"]["template"]["metadata"]["annotations"] = json!({labels::SEAT_OF: "JobSet.jobset.x-k8s.io/o/o"});
    });
    assert!(!marked.concerns_us(), "the marks are its owner's");
    assert!(owned("CronJob", "batch").is_some() && owned("JobSet", "example.com").is_some());
}

fn seats() -> Seats {
    let worker = Placed { group: 0, node: "n1".into(), devices: Vec::new(), slices: 0 };
    Seats::of(1, At(5), [worker].iter())
}

#[test]
fn a_start_marks_the_templates_and_a_wait_takes_the_marks_off() {
    let (job, all) = (job(), adoptions(false));
    let adoption = &all.kinds[0];
    let mut object = job.clone();
    Change::Resume(seats()).carry_out(adoption, &mut object).unwrap();
    let template = &object["spec"]["template"];
    assert_eq!(template["metadata"]["annotations"], json!({labels::SEAT_OF: "Job.batch/night-7/u", labels::GROUP: "0"}));
    assert_eq!(template["spec"]["schedulingGates"], json!([{"name": labels::SEAT_GATE}]));
    let found = read(&object, false);
    assert!(found.stamped && !found.suspended && found.concerns_us());
    assert_eq!(found.seats, Some(seats()));
    let once = object.clone();
    Change::Resume(seats()).carry_out(adoption, &mut object).unwrap();
    assert_eq!(object, once, "a start that is sent twice is one");
    Change::Suspend.carry_out(adoption, &mut object).unwrap();
    let found = read(&object, false);
    assert!(found.stamped && found.suspended && found.seats.is_none());
    Change::Restore.carry_out(adoption, &mut object).unwrap();
    // An empty map of metadata says what none says.
    object["spec"]["template"].as_object_mut().unwrap().remove("metadata");
    assert_eq!(object, job);
}

#[test]
fn what_the_maker_wrote_stays() {
    let all = adoptions(false);
    let mut object = job();
    object["spec"]["template"]["metadata"] = json!({"annotations": {"mine": "1"}});
    object["spec"]["template"]["spec"]["schedulingGates"] = json!([{"name": "example.com/mine"}]);
    let before = object.clone();
    Change::Resume(seats()).carry_out(&all.kinds[0], &mut object).unwrap();
    assert_eq!(object["spec"]["template"]["spec"]["schedulingGates"].as_array().unwrap().len(), 2);
    object["spec"]["suspend"] = json!(true);
    Change::Restore.carry_out(&all.kinds[0], &mut object).unwrap();
    assert_eq!(object, before);
}

#[test]
fn pods_that_we_bind_need_no_gate() {
    let all = adoptions(false);
    let mut object = job();
    object["spec"]["template"]["spec"]["schedulerName"] = json!("tidegate");
    Change::Resume(seats()).carry_out(&all.kinds[0], &mut object).unwrap();
    assert!(object["spec"]["template"]["spec"]["schedulingGates"].is_null());
    assert!(read(&object, false).groups.unwrap()[0].by_us);
}

#[test]
fn a_copy_bears_the_marks_of_another_and_has_no_seats() {
    let all = adoptions(false);
    let mut object = job();
    Change::Resume(seats()).carry_out(&all.kinds[0], &mut object).unwrap();
    object["metadata"]["uid"] = json!("other");
    let found = read(&object, false);
    assert!(found.stamped && found.seats.is_none());
}

#[test]
fn each_template_of_a_set_is_a_group_by_its_number() {
    let all = adoptions(false);
    let inner = |replicas: u32, gpus: &str| {
        let pod = json!({"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": gpus}}}]});
        json!({"replicas": replicas, "template": {"spec": {"template": {"spec": pod}}}})
    };
    let mut set = job();
    set["kind"] = json!("JobSet");
    set["spec"] = json!({"suspend": true, "replicatedJobs": [inner(1, "0"), inner(4, "8")]});
    let found = read(&set, false);
    let groups = found.groups.unwrap();
    assert_eq!(groups.iter().map(|group| group.count).collect::<Vec<_>>(), [1, 4]);
    let adoption = all.kinds.iter().find(|kind| kind.resource.kind == "JobSet").unwrap();
    Change::Resume(seats()).carry_out(adoption, &mut set).unwrap();
    let second = &set["spec"]["replicatedJobs"][1]["template"]["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(second, &json!({labels::SEAT_OF: "JobSet.jobset.x-k8s.io/night-7/u", labels::GROUP: "1"}));
}
