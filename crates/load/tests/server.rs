//! The client against a small real server, over real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use serde_json::{Value, json};
use tidegate_load::{Error, Options, Report, Script, play};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A server with its own runtime: dropping it closes every socket at once, as `kill -9` does.
struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    address: SocketAddr,
    /// Held so that the server is not aborted before its time.
    _serving: JoinSet<()>,
}

impl Server {
    fn start(router: Router) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), router)
    }

    fn start_on(address: SocketAddr, router: Router) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        drop(inside);
        Self { runtime: Some(runtime), address, _serving: serving }
    }

    fn options(&self, seed: u64) -> Options {
        Options::new(format!("http://{}", self.address), seed)
    }

    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn embedding_of(text: &str) -> String {
    let angle = text.bytes().map(f32::from).sum::<f32>();
    let bytes: Vec<u8> = [angle.cos(), angle.sin()].iter().flat_map(|number| number.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn embedded(body: &Value) -> Value {
    json!({"object": "list", "data": [{"index": 0, "embedding": embedding_of(body["input"].as_str().unwrap())}]})
}

/// The model `text` answers with `handler`; `rows` gives class 1 a probability that the row's first value says.
fn router<H, T>(handler: H) -> Router
where
    H: axum::handler::Handler<T, ()>,
    T: 'static,
{
    let infer = |Json(body): Json<Value>| async move {
        let one = body["inputs"][0]["data"][0].as_f64().unwrap();
        let output = json!({"name": "p", "datatype": "FP32", "shape": [1, 2], "data": [1.0 - one, one]});
        ([("x-tidegate-batch-rows", "4"), ("x-tidegate-woken", "1")], Json(json!({"outputs": [output]})))
    };
    Router::new()
        .route("/v2/models/text", get(|| async { "{}" }))
        .route("/v2/models/rows", get(|| async { "{}" }))
        .route("/v2/models/rows/infer", post(infer))
        .route("/v1/embeddings", post(handler))
}

const TEXT: &str = "
  - name: text
    slo_ms: 1000
    cold_start_budget_ms: 5000
    traffic: {protocol: embeddings, dimensions: 2, sentences: 8}
    requests_per_second: [[0, 60], [1, 60]]
";

const ROWS: &str = "
  - name: rows
    slo_ms: 1000
    cold_start_budget_ms: 5000
    traffic: {protocol: oip, input: x, shape: [2], output: p, classes: 2, rows: rows.csv}
    requests_per_second: [[0, 60], [1, 60]]
";

fn script(models: &str) -> Script {
    Script::parse(&format!("models:\n{models}"), Path::new("day.yaml")).unwrap()
}

async fn play_text(server: &Server) -> Report {
    let report = play(&script(TEXT), server.options(7), &CancellationToken::new()).await.unwrap();
    let all = &report.totals;
    assert_eq!(all.requests_sent, all.answered + all.refused + all.failed + all.lost, "{report:?}");
    assert_eq!(all.unfinished, 0);
    report
}

#[tokio::test]
async fn both_protocols_are_answered_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rows.csv"), "1,0.9,0\n0,0.2,0\n").unwrap();
    let server = Server::start(router(|Json(body): Json<Value>| async move { Json(embedded(&body)) }));
    let script = Script::parse(&format!("models:\n{TEXT}{ROWS}"), &folder.path().join("day.yaml")).unwrap();
    let report = play(&script, server.options(7), &CancellationToken::new()).await.unwrap();
    let (text, rows) = (&report.models["text"], &report.models["rows"]);
    assert!(text.totals.requests_sent > 30 && rows.totals.requests_sent > 30, "{report:?}");
    assert_eq!(text.totals.answered, text.totals.requests_sent, "{report:?}");
    assert_eq!(rows.totals.answered, rows.totals.requests_sent, "{report:?}");
    assert_eq!((text.totals.woken, rows.totals.woken), (0, rows.totals.requests_sent));
    assert!((rows.mean_batch - 4.0).abs() < 1e-9);
    assert!(text.p99_ms > 0.0 && text.p99_ms < 1000.0);
    assert_eq!(report.totals.requests_sent, text.totals.requests_sent + rows.totals.requests_sent);
}

#[tokio::test]
async fn the_same_seed_sends_as_much_and_a_model_left_out_changes_nothing() {
    let server = Server::start(router(|Json(body): Json<Value>| async move { Json(embedded(&body)) }));
    let alone = play_text(&server).await.totals.requests_sent;
    let options = Options { only: vec!["text".into()], ..server.options(7) };
    let report = play(&script(&format!("{TEXT}{ROWS}")), options, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.totals.requests_sent, alone);
    assert_eq!(report.skipped, ["rows"]);
}

#[tokio::test]
async fn a_model_that_the_server_lacks_is_skipped_and_named() {
    let server = Server::start(router(|Json(body): Json<Value>| async move { Json(embedded(&body)) }));
    let unknown = TEXT.replace("name: text", "name: nope");
    let report = play(&script(&format!("{TEXT}{unknown}")), server.options(7), &CancellationToken::new()).await.unwrap();
    assert_eq!(report.skipped, ["nope"]);
    assert_eq!(report.models.len(), 1);
}

#[tokio::test]
async fn refusals_and_failures_are_told_apart() {
    let turn = Arc::new(AtomicU64::new(0));
    let server = Server::start(router(move || {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        async move {
            match turn % 3 {
                0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], r#"{"error":"full"}"#).into_response(),
                1 => (StatusCode::INTERNAL_SERVER_ERROR, "broken").into_response(),
                _ => Json(json!({"data": []})).into_response(),
            }
        }
    }));
    let report = play_text(&server).await;
    let sent = report.totals.requests_sent;
    assert_eq!(report.totals.refused, sent.div_ceil(3));
    assert_eq!(report.totals.failed, sent - sent.div_ceil(3));
    let failures = &report.models["text"].failed_requests;
    assert!(failures.iter().any(|failed| failed.error.contains("500") && failed.error.contains("broken")), "{failures:?}");
    assert!(failures.iter().any(|failed| failed.error.contains("wrong answer")), "{failures:?}");
}

/// Answers only once this many requests wait: a client that waits for answers before it sends more never ends.
const TOGETHER: u64 = 20;

#[tokio::test]
async fn a_slow_server_does_not_slow_the_sending() {
    let gate = Arc::new((Semaphore::new(0), AtomicU64::new(0)));
    let hold = |State(gate): State<Arc<(Semaphore, AtomicU64)>>, Json(body): Json<Value>| async move {
        if gate.1.fetch_add(1, Ordering::Relaxed) + 1 == TOGETHER {
            gate.0.close();
        }
        drop(gate.0.acquire().await);
        Json(embedded(&body))
    };
    let server = Server::start(router(post_with_state(hold, gate)));
    let report = play_text(&server).await;
    assert_eq!(report.totals.answered, report.totals.requests_sent);
    assert!(report.models["text"].max_ms > 100.0, "the first waited for the twentieth: {report:?}");
}

/// Binds a state to a handler, so that it fits [`router`].
fn post_with_state<S, F, Fut, R>(
    handler: F,
    state: S,
) -> impl Fn(Json<Value>) -> std::pin::Pin<Box<dyn Future<Output = Response> + Send>> + Clone
where
    S: Clone + Send + Sync + 'static,
    F: Fn(State<S>, Json<Value>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = R> + Send + 'static,
    R: IntoResponse,
{
    move |body| {
        let answer = handler(State(state.clone()), body);
        Box::pin(async move { answer.await.into_response() })
    }
}

#[tokio::test]
async fn a_front_door_that_restarts_loses_only_what_was_in_flight() {
    let (seen, mut seeing) = watch::channel(0_u64);
    let quick = |Json(body): Json<Value>| async move { Json(embedded(&body)) };
    let stuck = move || {
        seen.send_modify(|count| *count += 1);
        std::future::pending::<Json<Value>>()
    };
    let mut first = Server::start(router(stuck));
    let (address, options) = (first.address, first.options(7));
    let restart = async {
        seeing.wait_for(|count| *count >= 5).await.unwrap();
        first.kill();
        // Long enough that requests fall into the gap.
        tokio::time::sleep(Duration::from_millis(300)).await;
        (*seeing.borrow(), Server::start_on(address, router(quick)))
    };
    let (script, cancel) = (script(TEXT), CancellationToken::new());
    let (report, (in_flight, _second)) = tokio::join!(play(&script, options, &cancel), restart);
    let report = report.unwrap();
    // One more may have been on its way to the handler.
    assert!((in_flight..=in_flight + 1).contains(&report.totals.lost), "{report:?}");
    assert_eq!(report.totals.answered, report.totals.requests_sent - report.totals.lost);
    assert!(report.totals.connect_retries > 0);
    for lost in &report.models["text"].lost_requests {
        assert!(lost.sent_ms <= lost.ended_ms && lost.ended_ms < 1000 && !lost.error.is_empty(), "{lost:?}");
    }
}

#[tokio::test]
async fn a_cancelled_day_sends_nothing_more_and_waits_for_what_is_in_flight() {
    let cancel = CancellationToken::new();
    let fired = cancel.clone();
    let server = Server::start(router(move |Json(body): Json<Value>| {
        fired.cancel();
        async move { Json(embedded(&body)) }
    }));
    let day = TEXT.replace("[[0, 60], [1, 60]]", "[[0, 5], [3600, 5]]");
    let report = play(&script(&day), server.options(7), &cancel).await.unwrap();
    assert!((1..=3).contains(&report.totals.requests_sent), "{report:?}");
    assert_eq!(report.totals.answered, report.totals.requests_sent);
}

#[tokio::test]
async fn live_figures_are_published() {
    let server = Server::start(router(|Json(body): Json<Value>| async move { Json(embedded(&body)) }));
    let (live, mut figures) = watch::channel(Report::default());
    let options = Options { live: Some(live), ..server.options(7) };
    let (day, cancel) = (script(TEXT), CancellationToken::new());
    let (report, seen) = tokio::join!(play(&day, options, &cancel), async {
        figures.changed().await.unwrap();
        figures.borrow_and_update().models.contains_key("text")
    });
    assert!(seen);
    assert!(report.unwrap().totals.answered > 0);
}

#[tokio::test]
async fn wrong_options_are_named() {
    let (day, cancel) = (script(TEXT), CancellationToken::new());
    let scaled = Options { duration_scale: 0.0, ..Options::new("http://127.0.0.1:1", 1) };
    assert!(matches!(play(&day, scaled, &cancel).await, Err(Error::Option(text)) if text.contains("duration scale 0")));
    let only = Options { only: vec!["nope".into()], ..Options::new("http://127.0.0.1:1", 1) };
    assert!(matches!(play(&day, only, &cancel).await, Err(Error::Option(text)) if text.contains("nope")));
    assert!(
        matches!(play(&day, Options::new("ftp://h", 1), &cancel).await, Err(Error::Option(text)) if text.contains("http://"))
    );
}
