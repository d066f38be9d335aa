use axum::body::to_bytes;
use axum::http::header;
use tidegate_core::ask::Ask as Wish;
use tidegate_core::state::{Device, JobSpec, Queue};
use tidegate_core::time::At;
use tidegate_core::{Engine, Event};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::*;
use crate::index::Known;
use crate::ledger::Shelf;
use crate::world::Scene;

/// A world that answers with a scene: one GPU, which `first` holds and for which `second` waits.
fn world(tasks: &TaskTracker) -> Asker {
    let mut engine = Engine::default();
    let spec = || JobSpec { expected_ms: Some(60_000), ..JobSpec::workers("q", 1, 1, Wish::whole(1)) };
    engine.apply(At(0), Event::DeviceSeen(Device::new("n1/0", "n1", "H100-80GB", 81_920)));
    engine.apply(At(0), Event::QueueSet { name: "q".into(), queue: Queue::devices(1, None) });
    engine.apply(At(0), Event::JobSet { name: "first".into(), spec: spec().into() });
    engine.decide(At(0));
    engine.apply(At(0), Event::JobStarted { name: "first".into(), attempt: 1 });
    engine.apply(At(0), Event::JobSet { name: "second".into(), spec: spec().into() });
    engine.decide(At(0));
    let (to, mut asks) = mpsc::channel(4);
    tasks.spawn(async move {
        while let Some(ask) = asks.recv().await {
            let (shown, ended) = (Vec::new(), Vec::new());
            match ask {
                Ask::Scene(to) => {
                    to.send(Box::new(Scene { at: At(0), since: At(0), engine: engine.clone(), shown, ended })).unwrap();
                }
                Ask::Known(pod, to) => {
                    let known = match pod.name() {
                        "of-second" => Some(Known::Job("second".into())),
                        "of-model" => Some(Known::Model("none".into())),
                        _ => None,
                    };
                    to.send(known).unwrap();
                }
                Ask::Plans(_) | Ask::Progress(..) => {}
            }
        }
    });
    Asker::new(to, None, Metrics::new().unwrap())
}

async fn read(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn query<T: serde::de::DeserializeOwned>(text: &str) -> Query<T> {
    Query::try_from_uri(&format!("http://operator/?{text}").parse().unwrap()).unwrap()
}

#[tokio::test]
async fn why_when_and_what_if_are_answered_of_a_copy() {
    let tasks = TaskTracker::new();
    let asker = State(world(&tasks));
    let (status, text) = read(questions::explain(asker.clone(), query("job=second")).await).await;
    assert!(status == 200 && text.contains("job/second waits"), "{status} {text}");
    let (status, text) = read(questions::explain(asker.clone(), query("job=pod/team/of-second")).await).await;
    assert!(status == 200 && text.contains("job/second waits"), "{status} {text}");
    let (status, text) = read(questions::explain(asker.clone(), query("job=pod/team/of-model")).await).await;
    assert!(status == 404 && text.contains("there is no model none"), "{status} {text}");
    let (status, text) = read(questions::eta(asker.clone(), query("job=pod/team/of-second")).await).await;
    assert!(status == 200 && text.contains("60000"), "{status} {text}");
    let (status, text) = read(questions::explain(asker.clone(), query("job=pod/team/other")).await).await;
    assert!(status == 404 && text.contains("there is no job pod/team/other"), "{status} {text}");
    let (status, text) = read(questions::explain(asker.clone(), query("job=none")).await).await;
    assert!(status == 404 && text.contains("there is no job none"), "{status} {text}");
    let (status, text) = read(questions::explain(asker.clone(), query("model=model/none")).await).await;
    assert!(status == 404 && text.contains("there is no model none"), "{status} {text}");
    for neither in ["", "job=second&model=none"] {
        assert_eq!(read(questions::explain(asker.clone(), query(neither)).await).await.0, 400);
    }
    let (status, text) = read(questions::eta(asker.clone(), query("")).await).await;
    assert!(status == 200 && text.contains("\"second\"") && text.contains("60000"), "{status} {text}");
    let (status, text) = read(questions::eta(asker.clone(), query("job=first")).await).await;
    assert!(status == 409 && text.contains("does not wait"), "{status} {text}");
    let body = r#"{"changes": [{"add_nodes": {"like": "n1", "count": 1}}], "horizon_ms": 3600000}"#;
    let (status, text) = read(questions::what_if(asker.clone(), body.to_owned()).await).await;
    assert!(status == 200 && text.contains("second"), "{status} {text}");
    let (status, text) = read(questions::what_if(asker.clone(), r#"{"changes": [], "horizon_ms": 0}"#.to_owned()).await).await;
    assert_eq!(status, 422, "{text}");
    let (status, text) = read(questions::what_if(asker.clone(), "{}".to_owned()).await).await;
    assert!(status == 400 && text.contains("changes"), "{status} {text}");
    let (status, text) = read(questions::state(asker.clone()).await).await;
    assert!(status == 200 && text.contains("\"left_out\"") && text.contains("(in 60 s)"), "{status} {text}");
    let (status, text) = read(history::history(asker, query("")).await).await;
    assert!(status == 404 && text.contains("--ledger"), "{status} {text}");
}

#[tokio::test]
async fn more_questions_than_are_answered_at_once_are_told_to_come_again() {
    let tasks = TaskTracker::new();
    let asker = world(&tasks);
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (began, mut begins) = mpsc::unbounded_channel();
    let gate = Arc::new(parking_lot::Mutex::new(gate));
    let slow = |asker: Asker| {
        let (gate, began) = (gate.clone(), began.clone());
        tasks.spawn(async move {
            let wait = move |_: &Scene| {
                began.send(()).unwrap();
                gate.lock().recv().unwrap();
                StatusCode::OK.into_response()
            };
            asker.copy("explain", wait).await.status()
        })
    };
    let first = [slow(asker.clone()), slow(asker.clone())];
    for _ in &first {
        begins.recv().await.unwrap();
    }
    let busy = asker.copy("eta", |_| StatusCode::OK.into_response()).await;
    assert_eq!((busy.status(), &busy.headers()[header::RETRY_AFTER]), (StatusCode::TOO_MANY_REQUESTS, &"5".parse().unwrap()));
    // Both at once: whichever began to wait first takes the first.
    for _ in &first {
        open.send(()).unwrap();
    }
    for task in first {
        assert_eq!(task.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(asker.copy("eta", |_| StatusCode::OK.into_response()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn one_that_stands_by_says_so() {
    let (to, asks) = mpsc::channel(1);
    drop(asks);
    let asker = State(Asker::new(to, Some(Shelf::default()), Metrics::new().unwrap()));
    assert_eq!(read(questions::eta(asker.clone(), query("")).await).await.0, 503);
    let answer = questions::state(asker.clone()).await;
    assert_eq!(answer.headers()["connection"], "close", "who asks again through a service may reach another one");
    assert_eq!(read(answer).await.0, 503);
    assert_eq!(read(history::history(asker, query("")).await).await.0, 503);
}
