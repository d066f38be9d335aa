//! What a user writes against what the engine gets.

use tidegate_core::ask::{Affinity, Amount, Ask, ClassWish, Preference, Term};
use tidegate_core::labels::{Requirement, Rule, Selector};
use tidegate_core::mig::Profile;
use tidegate_core::state::{Discipline, Group, Queue, Quota, Resource, SpeedPoint, Spread};

use super::*;
use crate::manifest::{self, Object};

fn parsed(kind: &str, spec: &str) -> Object {
    let text = format!("apiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n");
    manifest::parse(&text, "x.yaml").unwrap_or_else(|problems| panic!("{spec}: {problems}")).remove(0)
}

fn queue_of(spec: &str) -> Queue {
    let Object::Queue(object) = parsed("Queue", spec) else { panic!("{spec}") };
    queue(&object.spec)
}

fn job_of(name: &str, more: &str) -> JobSpec {
    let Object::TrainingJob(object) = parsed("TrainingJob", &format!("{{queue: q, template: {{command: [a]}}, {more}}}")) else {
        panic!("{more}")
    };
    job(name, "team", &object.spec)
}

fn policy_of(spec: &str) -> Policy {
    let Object::Pool(object) = parsed("Pool", spec) else { panic!("{spec}") };
    policy(&object.spec)
}

fn own(nominal: i64) -> Quota {
    Quota { nominal, ..Quota::default() }
}

#[test]
fn the_short_form_is_a_quota_of_devices() {
    assert_eq!(queue_of("{nominal: 4}"), Queue::devices(4, None));
    assert_eq!(queue_of("{nominal: 0, borrowingLimit: 4}"), Queue::devices(0, Some(4)));
    assert_eq!(queue_of("{borrowingLimit: 2}"), Queue::devices(0, Some(2)));
    assert_eq!(queue_of("{}"), Queue::default(), "it owns nothing and borrows what there is");
}

#[test]
fn quotas_are_counted_in_thousandths_of_devices_and_cores_and_in_mib() {
    let queue = queue_of(
        "{parent: org, weight: 3, budgetGpuHours: 2, discipline: StrictFifo, quotas: [{resource: gpu, nominal: 4, borrowingLimit: 2, lendingLimit: 1}, \
         {resource: gpu/H100-80GB, nominal: 2}, {resource: cpu, nominal: 64}, {resource: memory, nominal: 1024}]}",
    );
    let gpu = Quota { nominal: 4_000, borrowing_limit: Some(2_000), lending_limit: Some(1_000) };
    let class = Resource::from("gpu/H100-80GB".to_owned());
    assert_eq!(
        queue.quotas,
        [(Resource::Gpu, gpu), (class, own(2_000)), (Resource::Cpu, own(64_000)), (Resource::Memory, own(1_024))].into()
    );
    assert_eq!(queue.parent, Some(QueueName::from("org")));
    assert_eq!((queue.weight_milli, queue.discipline, queue.budget_ms), (3_000, Discipline::StrictFifo, Some(7_200_000)));
}

#[test]
fn who_owns_devices_of_classes_owns_as_many_of_any_class() {
    let classes = "{resource: gpu/H100-80GB, nominal: 2}, {resource: gpu/L4-24GB, nominal: 3}";
    assert_eq!(queue_of(&format!("{{quotas: [{classes}]}}")).quotas[&Resource::Gpu], own(5_000));
    let said = queue_of(&format!("{{quotas: [{classes}, {{resource: gpu, nominal: 1}}]}}"));
    assert_eq!(said.quotas[&Resource::Gpu], own(1_000), "what is written down goes");
    let short = queue_of(&format!("{{nominal: 6, quotas: [{classes}]}}"));
    assert_eq!(short.quotas[&Resource::Gpu], own(6_000));
    let instances = "{resource: gpu/mig-1g.10gb, nominal: 4}, {resource: gpu/mig-3g.40gb, nominal: 1}";
    let parts = queue_of(&format!("{{quotas: [{instances}]}}"));
    assert_eq!(parts.quotas[&Resource::Gpu], own(1_000), "MIG instances are parts of one");
}

#[test]
fn an_ask_says_how_much_in_one_of_five_ways() {
    let amount = |gpu: &str| job_of("x", &format!("gpu: {gpu}")).groups[0].ask.amount;
    assert_eq!(amount("{}"), Amount::Whole(1));
    assert_eq!(amount("{count: 4}"), Amount::Whole(4));
    assert_eq!(amount("{count: 0}"), Amount::None);
    assert_eq!(amount("{memoryMib: 8192}"), Amount::MemoryMib(8192));
    assert_eq!(amount("{milli: 250}"), Amount::Milli(250));
    let profiles = [
        ("1g", Profile::G1),
        ("1gDouble", Profile::G1Plus),
        ("2g", Profile::G2),
        ("3g", Profile::G3),
        ("4g", Profile::G4),
        ("7g", Profile::G7),
    ];
    for (word, profile) in profiles {
        assert_eq!(amount(&format!("{{mig: {word}}}")), Amount::Mig(profile));
    }
}

#[test]
fn classes_have_equal_speeds_unless_these_are_given() {
    let wish = |class: &str, speed_milli| ClassWish { class: class.into(), speed_milli, devices: 0 };
    let ask =
        job_of("x", "gpu: {classes: [A100-40GB], classSpeeds: [{class: H100-80GB, speedMilli: 2500}]}").groups[0].ask.clone();
    assert_eq!(ask.classes, [wish("A100-40GB", 1000), wish("H100-80GB", 2500)]);
}

#[test]
fn a_job_that_says_little_gets_the_defaults() {
    let plain = job_of("night", "priority: 7");
    let expected = JobSpec {
        namespace: Namespace::from("team"),
        priority: 7,
        recipe: "night".to_owned(),
        restart_ms: 5_000,
        groups: vec![Group { name: String::new(), min: 1, max: 1, ask: Ask::whole(1), spread: None }],
        ..JobSpec::workers("q", 1, 1, Ask::whole(1))
    };
    assert_eq!(plain, expected);
}

#[test]
fn a_job_says_what_the_engine_acts_on() {
    let job = job_of(
        "night-12",
        "owner: ann, workers: {min: 2, max: 4}, cpuMilli: 1500, memoryMib: 2048, spread: {level: rack, required: true}, \
         speedup: [{workers: 4, speedMilli: 3000}, {workers: 1, speedMilli: 1000}], preemptible: false, minRuntimeSeconds: 60, \
         maxDisruptionsPerHour: 3, gangTimeoutSeconds: 30, expectedSeconds: 3600, backoffLimit: 1, checkpoint: {restartSeconds: 9}",
    );
    let ask = Ask { cpu_milli: 1500, memory_mib: 2048, ..Ask::whole(1) };
    let spread = Some(Spread { level: "rack".to_owned(), required: true });
    let expected = JobSpec {
        queue: QueueName::from("q"),
        namespace: Namespace::from("team"),
        priority: 0,
        owner: "ann".to_owned(),
        recipe: "night".to_owned(),
        groups: vec![Group { name: String::new(), min: 2, max: 4, ask, spread }],
        spread: None,
        preemptible: false,
        min_runtime_ms: 60_000,
        max_disruptions_per_hour: 3,
        restart_ms: 9_000,
        backoff_limit: 1,
        gang_timeout_ms: 30_000,
        expected_ms: Some(3_600_000),
        speedup: vec![SpeedPoint::new(1, 1000), SpeedPoint::new(4, 3000)],
    };
    assert_eq!(job, expected);
}

#[test]
fn groups_have_what_they_say_and_else_what_the_job_says() {
    let job = job_of(
        "night",
        "cpuMilli: 1000, memoryMib: 64, gpu: {count: 2}, spread: {level: rack}, groups: [\
         {name: learner, min: 1, max: 2, spread: {level: island, required: true}}, \
         {name: actor, min: 4, max: 8, gpu: {count: 0}, cpuMilli: 500, memoryMib: 0}]",
    );
    let spread = |level: &str, required| Some(Spread { level: level.to_owned(), required });
    let learner = Ask { cpu_milli: 1000, memory_mib: 64, ..Ask::whole(2) };
    let actor = Ask { amount: Amount::None, cpu_milli: 500, ..Ask::default() };
    let expected = [
        Group { name: "learner".to_owned(), min: 1, max: 2, ask: learner, spread: spread("island", true) },
        Group { name: "actor".to_owned(), min: 4, max: 8, ask: actor, spread: None },
    ];
    assert_eq!((job.groups.as_slice(), job.spread), (&expected[..], spread("rack", false)));
}

#[test]
fn the_choices_of_a_curve_reach_the_engine() {
    let job = job_of(
        "night",
        "workers: {min: 1, max: 4}, speedup: [{workers: 4, speedMilli: 3000, choice: 64}, {workers: 1, speedMilli: 1000, choice: 16}, \
         {workers: 4, speedMilli: 2000, choice: 16}]",
    );
    assert_eq!([1, 3, 4].map(|workers| job.choice(workers)), [Some(16), Some(16), Some(64)]);
    assert_eq!(job.speed_milli(4), 3_000);
}

#[test]
fn a_model_says_with_how_many_it_shares() {
    let sharers = |more: &str| {
        let spec = format!("{{queue: q, source: {{onnx: m.onnx}}, sloMilliseconds: 100{more}}}");
        let Object::Model(object) = parsed("Model", &spec) else { panic!("{spec}") };
        model("default", &object.spec, 1).max_sharers
    };
    assert_eq!((sharers(""), sharers(", maxSharers: 3")), (1, 3));
}

#[test]
fn a_model_says_what_memory_its_replicas_take() {
    let spec =
        "{queue: q, source: {onnx: m.onnx}, sloMilliseconds: 100, maxSharers: 2, memory: {weightsMib: 14336, perRowKib: 2048}}";
    let Object::Model(object) = parsed("Model", spec) else { panic!("{spec}") };
    let memory = model("default", &object.spec, 1).memory.unwrap();
    assert_eq!((memory.weights_mib, memory.row_kib, memory.mib(32)), (14_336, 2_048, 14_400));
}

/// `nodeAffinity` with these required terms and these wishes.
fn affinity_of(required: &str, preferred: &str) -> String {
    format!(
        "nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{required}]}}, \
         preferredDuringSchedulingIgnoredDuringExecution: [{preferred}]}}"
    )
}

fn requirement(key: &str, rule: Rule) -> Requirement {
    Requirement { key: key.to_owned(), rule }
}

#[test]
fn every_operator_of_node_affinity_reaches_the_engine() {
    let required = "{matchExpressions: [{key: zone, operator: In, values: [a, b]}, {key: disk, operator: NotIn, values: [hdd]}, \
                    {key: gpu, operator: Exists}, {key: old, operator: DoesNotExist}]}, \
                    {matchExpressions: [{key: gen, operator: Gt, values: ['3']}, {key: load, operator: Lt, values: ['-5']}]}";
    let preferred = "{weight: 75, preference: {matchExpressions: [{key: near, operator: Exists}]}}";
    let ask = job_of("x", &affinity_of(required, preferred)).groups[0].ask.clone();
    let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    let first = Term(vec![
        requirement("zone", Rule::In(values(&["a", "b"]))),
        requirement("disk", Rule::NotIn(values(&["hdd"]))),
        requirement("gpu", Rule::Exists),
        requirement("old", Rule::DoesNotExist),
    ]);
    let second = Term(vec![requirement("gen", Rule::Gt(3)), requirement("load", Rule::Lt(-5))]);
    let wish = Preference { weight: 75, term: Term(vec![requirement("near", Rule::Exists)]) };
    assert_eq!(ask.affinity, Affinity { required: vec![first, second], preferred: vec![wish] });
    assert_eq!(ask.affinity.check(), Ok(()));
}

#[test]
fn a_groups_node_affinity_stands_instead_of_the_jobs() {
    let term = |key: &str| format!("{{matchExpressions: [{{key: {key}, operator: Exists}}]}}");
    let own = affinity_of(&term("own"), "");
    let groups = format!(
        "groups: [{{name: a, min: 1, max: 1}}, {{name: b, min: 1, max: 1, {own}}}, {{name: c, min: 1, max: 1, nodeAffinity: {{}}}}]"
    );
    let job = job_of("x", &format!("{}, {groups}", affinity_of(&term("all"), "")));
    let keys: Vec<Vec<&str>> = job.groups.iter().map(|group| keys_of(&group.ask.affinity)).collect();
    assert_eq!(keys, [vec!["all"], vec!["own"], vec![]]);
    let spec = format!("{{queue: q, source: {{onnx: m.onnx}}, sloMilliseconds: 100, {own}}}");
    let Object::Model(object) = parsed("Model", &spec) else { panic!("{spec}") };
    assert_eq!(keys_of(&model("default", &object.spec, 1).ask.affinity), ["own"]);
}

fn keys_of(affinity: &Affinity) -> Vec<&str> {
    affinity.required.iter().flat_map(|term| &term.0).map(|requirement| requirement.key.as_str()).collect()
}

#[test]
fn a_queue_says_whose_work_it_takes_and_how_high_it_stands() {
    let queue = queue_of(
        "{priority: -3, namespaceSelector: {matchLabels: {team: vision}, matchExpressions: [{key: env, operator: NotIn, values: [test]}]}}",
    );
    let selector = Selector {
        match_labels: [("team".to_owned(), "vision".to_owned())].into(),
        match_expressions: vec![requirement("env", Rule::NotIn(vec!["test".to_owned()]))],
    };
    assert_eq!((queue.priority, queue.namespaces), (-3, Some(selector)));
    assert_eq!(queue_of("{namespaceSelector: {}}").namespaces, Some(Selector::default()), "it selects all that there are");
    assert_eq!(queue_of("{}").namespaces, None, "and absent it does not even look");
}

#[test]
fn the_recipe_is_the_name_without_its_number() {
    let recipe = |name: &str| job_of(name, "priority: 0").recipe;
    assert_eq!(recipe("night-12"), "night");
    assert_eq!(recipe("night12"), "night");
    assert_eq!(recipe("bert-large"), "bert-large");
    assert_eq!(recipe("2024"), "2024");
    assert_eq!(job_of("night-1", "recipe: gpt").recipe, "gpt");
}

#[test]
fn a_pool_is_a_policy() {
    assert_eq!(policy_of("{}"), Policy::default());
    let policy = policy_of(
        "{headroomPercent: 10, burstSigmasPercent: 200, lendAfterSeconds: 1, growAfterSeconds: 2, maxEvictionsPerMinute: 3, topologyLevels: [block, rack], \
         halfLifeSeconds: 60, historyPercent: 50, fairReclaim: true, maxReservations: 0, predictPercent: 90, consolidate: true}",
    );
    let expected = Policy {
        headroom_percent: 10,
        burst_sigmas_percent: 200,
        lend_after_ms: 1_000,
        grow_after_ms: 2_000,
        max_evictions_per_minute: 3,
        levels: vec!["block".to_owned(), "rack".to_owned()],
        half_life_ms: 60_000,
        history_percent: 50,
        fair_reclaim: true,
        max_reservations: 0,
        predict_percent: 90,
        consolidate: true,
        ..Policy::default()
    };
    assert_eq!(policy, expected);
}
