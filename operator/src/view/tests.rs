use serde_json::{Value, json};
use tidegate_api::view::Span;
use tidegate_core::ask::Ask;
use tidegate_core::event::Observed;
use tidegate_core::state::{Device, JobSpec, Queue};
use tidegate_core::time::At;
use tidegate_core::{Engine, Event};

use super::*;

fn device(node: u32, slot: u32) -> Device {
    Device::new(format!("n{node}/{slot}").as_str(), format!("n{node}").as_str(), "H100-80GB", 81_920)
}

/// So many nodes of two GPUs; queue `a` owns one GPU and `b` the others. Jobs `job-N` of a are submitted one after the other.
fn scene(nodes: u32, jobs: u32) -> Scene {
    let mut engine = Engine::default();
    for node in 0..nodes {
        (0..2).for_each(|slot| engine.apply(At(0), Event::DeviceSeen(device(node, slot))));
    }
    engine.apply(At(0), Event::QueueSet { name: "a".into(), queue: Queue::devices(1, None) });
    engine.apply(At(0), Event::QueueSet { name: "b".into(), queue: Queue::devices(2 * nodes - 1, None) });
    for number in 0..jobs {
        let (name, at) = (format!("job-{number:04}"), At(u64::from(number)));
        let spec = JobSpec::workers("a", 1, 1, Ask::whole(1));
        engine.apply(at, Event::JobSet { name: name.as_str().into(), spec: spec.into() });
        engine.apply(
            at,
            Event::JobObserved { name: name.as_str().into(), observed: Observed { submitted: at, ..Observed::default() } },
        );
    }
    let plan = engine.decide(At(10_000));
    let shown = plan.actions.iter().map(|action| Planned::of(action, At(10_000)).into()).collect();
    let past = |device: &str, to_ms: u64| Span {
        device: device.to_owned(),
        kind: "job".to_owned(),
        name: "gone".to_owned(),
        lent: false,
        from_ms: 1_000,
        to_ms: Some(to_ms),
    };
    let ended = vec![past("n0/0", 5_000).into(), past("n0/1", 9_000).into(), past("away/0", 9_000).into()];
    Scene { at: At(20_000), since: At(0), engine, shown, ended }
}

#[test]
fn the_page_shows_who_holds_each_gpu_who_waits_and_why_in_the_words_of_up() {
    let scene = scene(1, 3);
    let page = Page::of(&scene, &Etas::new());
    let json = serde_json::to_value(&page).unwrap();
    // Whatever reads `up`'s state reads this.
    let state: view::State = serde_json::from_value(json.clone()).unwrap();
    assert_eq!((state.now_ms, state.started_ms, json["left_out"].clone()), (20_000, 0, json!({"devices": 0, "jobs": 0})));
    let holders: Vec<&str> = state.devices.iter().map(|device| device.holders[0].name.as_str()).collect();
    assert_eq!(holders.len(), 2);
    assert!(state.devices.iter().all(|device| device.holders[0].phase == "starting" && device.holders[0].lent), "{state:?}");
    let phases: Vec<(&str, &str)> = state.jobs.iter().map(|job| (job.name.as_str(), job.phase.as_str())).collect();
    assert_eq!(phases[0], ("job-0002", "waiting"));
    assert!(phases[1..].iter().all(|(_, phase)| *phase == "starting"), "{phases:?}");
    assert!(state.jobs[0].reason.contains("needs 1"), "{}", state.jobs[0].reason);
    assert!(!state.jobs[1].reason.is_empty());
    let queue = |name: &str| state.queues.iter().find(|queue| queue.name == name).unwrap();
    assert_eq!((queue("a").nominal, queue("a").used, queue("a").lent), (1, 2, 1));
    assert_eq!((queue("b").nominal, queue("b").used, queue("b").lent), (1, 0, 0));
    let decided: Vec<Value> = decisions(&scene).iter().map(|decision| serde_json::to_value(decision).unwrap()).collect();
    assert_eq!(decided.len(), 2);
    assert_eq!((&decided[0]["action"], &decided[0]["detail"]), (&json!("start_job"), &json!("at n0")));
}

#[test]
fn lanes_begin_with_what_ended_and_go_on_with_who_holds() {
    let scene = scene(1, 2);
    let page = Page::of(&scene, &Etas::new());
    let spans = timeline(&scene, &page, 8_000).spans;
    let ended: Vec<&str> = spans.iter().filter(|span| span.to_ms.is_some()).map(|span| span.device.as_str()).collect();
    assert_eq!(ended, ["n0/1"], "not what ended before, nor of GPUs that are not shown");
    let open: Vec<u64> = spans.iter().filter(|span| span.to_ms.is_none()).map(|span| span.from_ms).collect();
    assert_eq!(open, [10_000, 10_000]);
}

#[test]
fn of_a_large_cluster_a_part_is_shown_and_the_rest_is_counted() {
    let scene = scene(300, 900);
    let page = Page::of(&scene, &Etas::new());
    assert_eq!((page.state.devices.len(), page.left_out.devices), (512, 88));
    assert_eq!((page.state.jobs.len(), page.left_out.jobs), (400, 500));
    assert_eq!(page.state.jobs.iter().filter(|job| job.phase == "waiting").count(), 200);
}

#[test]
fn a_gpu_that_is_gone_is_shown_while_somebody_holds_it() {
    let mut scene = scene(2, 1);
    let held = Page::of(&scene, &Etas::new()).state.devices.iter().position(|device| !device.holders.is_empty()).unwrap();
    for node in 0..2 {
        scene.engine.apply(At(20_000), Event::NodeLost(format!("n{node}").as_str().into()));
    }
    let devices = Page::of(&scene, &Etas::new()).state.devices;
    assert_eq!(devices.len(), 1, "{held}");
    assert_eq!((devices[0].health.as_str(), devices[0].why.as_str()), ("lost", "its node does not answer"));
}

#[test]
fn numbers_in_names_count() {
    let mut names = ["node-10", "node-2", "a", "node-2b", "node", "10", "9"];
    names.sort_by(|one, other| in_order(one).cmp(&in_order(other)));
    assert_eq!(names, ["9", "10", "a", "node", "node-2", "node-2b", "node-10"]);
}
