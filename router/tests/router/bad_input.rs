//! What clients may get wrong, and that it harms nobody else.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{Answer, Front, PATIENCE, Replica, World, double, row};

async fn front(more: &[&str]) -> (Front, World, Replica) {
    let replica = Replica::open("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    (Front::start(&world, more).await, world, replica)
}

fn with(change: impl Fn(&mut Value)) -> String {
    let mut request = row(1.0);
    change(&mut request);
    request.to_string()
}

#[tokio::test]
async fn each_mistake_is_a_400_that_names_it() {
    let (front, world, replica) = front(&[]).await;
    let cases: Vec<(String, &str)> = vec![
        ("{".to_owned(), "failed to parse the request JSON buffer"),
        (String::new(), "failed to parse the request JSON buffer"),
        ("\u{0}\u{1}".to_owned(), "failed to parse the request JSON buffer"),
        ("{}".to_owned(), "missing field `inputs`"),
        (r#"{"inputs":[]}"#.to_owned(), "missing required input(s) ['x']"),
        (with(|r| r["inputs"][0]["name"] = json!("z")), "unexpected inference input 'z' for model 'double'"),
        (
            with(|r| {
                let input = r["inputs"][0].clone();
                r["inputs"].as_array_mut().unwrap().push(input);
            }),
            "already exists",
        ),
        (with(|r| r["inputs"][0]["datatype"] = json!("INT64")), "data-type is 'INT64', but model 'double' expects 'FP32'"),
        (with(|r| r["inputs"][0]["shape"] = json!([1, 5])), "Expected [-1,4], got [1,5]"),
        (with(|r| r["inputs"][0]["shape"] = json!([4])), "Expected [-1,4], got [4]"),
        (with(|r| r["inputs"][0]["shape"] = json!([0, 4])), "no rows"),
        (with(|r| r["inputs"][0]["shape"] = json!([-1, 4])), "got [-1,4]"),
        (with(|r| r["inputs"][0]["shape"] = json!([9, 4])), "batch-size must be <= 8"),
        (with(|r| r["inputs"][0]["shape"] = json!([{}, 4])), "failed to parse"),
        (with(|r| r["inputs"][0]["shape"] = json!([2, 4])), "4 elements where the shape tells 8"),
        (with(|r| r["inputs"][0]["data"] = json!([1, 2, 3, 4, 5])), "more than the 4 elements"),
        (with(|r| r["inputs"][0]["data"] = json!([1, 2, "a", 4])), "Unable to parse 'data'"),
        (with(|r| r["inputs"][0]["data"] = json!({ "a": 1 })), "Unable to parse 'data'"),
        (with(|r| drop(r["inputs"][0].as_object_mut().unwrap().remove("data"))), "must specify 'data'"),
        (with(|r| r["inputs"][0]["parameters"] = json!({ "binary_data_size": 16 })), "must not specify 'data'"),
        (with(|r| r["parameters"] = json!({ "timeout": "soon" })), "'timeout' must be a number"),
        (with(|r| r["outputs"] = json!([{ "name": "z" }])), "unexpected inference output 'z'"),
    ];
    let count = cases.len();
    for (body, wanted) in cases {
        let answer = front.post("/v2/models/double/infer", body.clone().into()).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.error().contains(wanted), "{body}: {answer:?} does not tell {wanted}");
    }
    assert!(replica.batches.lock().is_empty(), "nothing malformed reaches a replica");
    assert!(front.metrics().await.contains(&format!(r#"outcome="invalid"}} {count}"#)));
    assert_eq!(front.infer(2.0).await.status, 200);
    assert_eq!(world.demand("double", |d| d.answered_total == 1).await.failed_total, 0);
}

#[tokio::test]
async fn unknown_models_paths_and_methods_are_told_apart() {
    let (front, _world, _replica) = front(&[]).await;
    let answer = front.post("/v2/models/nope/infer", "{}".into()).await;
    assert_eq!((answer.status, answer.error()), (404, "Request for unknown model: 'nope' is not found"));
    let (status, body) = front.get("/v2/models/double/versions/7").await;
    assert_eq!((status, body["error"].as_str()), (404, Some("Request for unknown model: 'double' version 7 is not found")));
    assert_eq!(front.get("/v2/models/double/infer").await.0, 405);
    assert_eq!(front.get("/v2/nothing").await.0, 404);
    let (status, body) = front.get("/v1/models/nope").await;
    assert_eq!((status, body["error"]["code"].as_str()), (404, Some("model_not_found")));
    assert_eq!(front.get("/elsewhere").await.0, 404);
}

#[tokio::test]
async fn too_large_and_compressed_bodies_are_refused() {
    let (front, _world, _replica) = front(&["--max-body-bytes", "1000"]).await;
    let answer = front.post("/v2/models/double/infer", vec![b' '; 2000].into()).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    let pieces = futures_util::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100])));
    let answer = front.post("/v2/models/double/infer", reqwest::Body::wrap_stream(pieces)).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    let request = front.client.post(front.url("/v2/models/double/infer")).header("content-encoding", "gzip").body("x");
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert_eq!(answer.status, 415, "{answer:?}");
}

/// Sends `start` of a request, then nothing; gives what came back until the connection was closed.
async fn slow(front: &Front, start: &str) -> String {
    let mut stream = TcpStream::connect(front.address).await.unwrap();
    stream.write_all(start.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let read = stream.read_to_end(&mut heard);
    // A reset is an end as well.
    drop(tokio::time::timeout(PATIENCE, read).await.expect("a slow client is cut off"));
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let (front, _world, _replica) = front(&["--header-timeout-ms", "200", "--body-timeout-ms", "200"]).await;
    for start in ["", "P", "POST /v2/models/double/infer HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let heard = slow(&front, start).await;
        assert!(heard.is_empty() || heard.contains(" 408 "), "{start:?}: {heard}");
    }
    let heard = slow(&front, "POST /v2/models/double/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{").await;
    assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
}

#[tokio::test]
async fn garbage_instead_of_http_harms_nobody() {
    let (front, _world, _replica) = front(&[]).await;
    let heard = slow(&front, "\u{16}\u{3}\u{1} this is no HTTP\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.1 400"), "{heard}");
    assert_eq!(front.infer(1.0).await.status, 200);
}
