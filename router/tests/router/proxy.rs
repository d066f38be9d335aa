//! Paths of the world through the router's door.

#![expect(clippy::unwrap_used, reason = "tests")]

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::support::{Front, Replica, World, double};

/// The world's pages at an address of their own.
async fn pages(routes: Router) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (url, tasks)
}

#[tokio::test]
async fn pages_posts_and_metrics_of_the_world_pass() {
    let routes = Router::new()
        .route("/", get(|| async { "the page" }))
        .route("/metrics", get(|| async { "the_world 1\n" }))
        .route("/api/v1/apply", post(|body: String| async move { format!("applied {body}") }));
    let (url, _tasks) = pages(routes).await;
    let replica = Replica::open("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    let front = Front::start(&world, &["--world", &url]).await;
    let text = |path: &'static str| async { front.client.get(front.url(path)).send().await.unwrap().text().await.unwrap() };
    assert_eq!(text("/").await, "the page");
    assert_eq!(text("/metrics").await, "the_world 1\n");
    assert!(text("/router/metrics").await.contains("tidegate_router_"));
    let applied = front.client.post(front.url("/api/v1/apply?x=1")).body("yaml").send().await.unwrap();
    assert_eq!(applied.text().await.unwrap(), "applied yaml");
    assert_eq!(front.client.get(front.url("/nothing")).send().await.unwrap().status(), 404);
    assert_eq!(front.infer(1.0).await.status, 200);
}

#[tokio::test]
async fn events_stream_through_as_they_come_and_end_with_the_router() {
    let (events, source) = mpsc::channel::<Result<&'static str, std::io::Error>>(1);
    let source = std::sync::Arc::new(parking_lot::Mutex::new(Some(source)));
    let stream = move || {
        let body = Body::from_stream(ReceiverStream::new(source.lock().take().unwrap()));
        async move { ([("content-type", "text/event-stream")], body) }
    };
    let (url, _tasks) = pages(Router::new().route("/api/v1/events", get(stream))).await;
    let world = World::start(vec![double(vec![])]);
    let front = Front::start(&world, &["--world", &url]).await;
    let mut heard = front.client.get(front.url("/api/v1/events")).send().await.unwrap().bytes_stream();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        events.send(Ok(event)).await.unwrap();
        assert_eq!(heard.next().await.unwrap().unwrap(), event);
    }
    front.end();
    assert!(heard.next().await.is_none(), "a drain does not wait for a stream that never ends");
    front.ended().await.unwrap();
}

#[tokio::test]
async fn without_the_world_its_paths_say_so_and_inference_goes_on() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let replica = Replica::open("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    let front = Front::start(&world, &["--world", &format!("http://{nobody}")]).await;
    let (status, body) = front.get("/api/v1/state").await;
    assert_eq!(status, 503);
    assert!(body["error"].as_str().unwrap().contains("inference goes on"), "{body}");
    assert_eq!(front.infer(1.0).await.status, 200);
}
