//! Wrong requests over HTTP: a 4xx with a text that says what is wrong, nobody else harmed, nothing hung.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::harness::{Options, Up};
use tidegate_tests::manifests;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

async fn start() -> Up {
    let yaml = manifests::queues() + &manifests::digits();
    Up::start(Options::with_manifest(&yaml, 2).unwrap()).await.unwrap()
}

fn input(shape: &Value, datatype: &str, data: &Value) -> Value {
    json!({"inputs": [{"name": "image", "shape": shape, "datatype": datatype, "data": data}]})
}

fn good() -> Value {
    input(&json!([1, 64]), "FP32", &json!(vec![1.0; 64]))
}

async fn post(url: String, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build().unwrap();
    let answer = http.post(url).body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn infer(up: &Up, body: &Value) -> (u16, Value) {
    post(up.url("/v2/models/digits/infer"), body.to_string()).await
}

#[tokio::test]
async fn a_wrong_request_gets_a_4xx_that_says_what_is_wrong_and_the_next_one_is_answered() {
    let up = start().await;
    let digits = "/v2/models/digits/infer";
    let big = input(&json!([1, 64]), "FP32", &json!("x".repeat(17 << 20))).to_string();
    let cases: Vec<(&str, &str, String, u16, &str)> = vec![
        ("unknown model", "/v2/models/nope/infer", good().to_string(), 404, "Request for unknown model: 'nope' is not found"),
        ("broken JSON", digits, "{\"inputs\": [".into(), 400, "parse"),
        ("not JSON", digits, "\u{0}\u{1}\u{2}".into(), 400, "parse"),
        ("empty body", digits, String::new(), 400, "parse"),
        ("no inputs", digits, "{}".into(), 400, "inputs"),
        (
            "wrong shape",
            digits,
            input(&json!([1, 63]), "FP32", &json!(vec![1.0; 63])).to_string(),
            400,
            "unexpected shape for input 'image'",
        ),
        ("wrong rank", digits, input(&json!([64]), "FP32", &json!(vec![1.0; 64])).to_string(), 400, "shape"),
        ("negative shape", digits, input(&json!([-1, 64]), "FP32", &json!(vec![1.0; 64])).to_string(), 400, "digits"),
        ("overflowing shape", digits, input(&json!([i64::MAX, 64]), "FP32", &json!([1.0])).to_string(), 400, "digits"),
        ("wrong datatype", digits, input(&json!([1, 64]), "INT64", &json!(vec![1; 64])).to_string(), 400, "INT64"),
        ("unknown datatype", digits, input(&json!([1, 64]), "FP99", &json!(vec![1.0; 64])).to_string(), 400, "FP99"),
        ("too few values", digits, input(&json!([1, 64]), "FP32", &json!([1.0])).to_string(), 400, "Unable to parse 'data'"),
        ("too many rows", digits, input(&json!([1000, 64]), "FP32", &json!(vec![1.0; 64_000])).to_string(), 400, "batch-size"),
        ("unknown input", digits, good().to_string().replace("image", "picture"), 400, "picture"),
        ("unknown output", digits, json!({"inputs": good()["inputs"], "outputs": [{"name": "nope"}]}).to_string(), 400, "nope"),
        ("oversized body", digits, big, 413, "larger"),
        ("unknown embedding model", "/v1/embeddings", json!({"model": "nope", "input": "x"}).to_string(), 404, "nope"),
        ("embedding without input", "/v1/embeddings", json!({"model": "digits"}).to_string(), 400, "input"),
        ("model that embeds nothing", "/v1/embeddings", json!({"model": "digits", "input": "x"}).to_string(), 400, "digits"),
        ("unknown path", "/v3/models", "{}".into(), 404, "/v3/models"),
    ];
    for (case, path, body, status, words) in cases {
        let (given, text) = post(up.url(path), body).await;
        assert_eq!(given, status, "{case}: {text}");
        assert!(text.to_string().contains(words), "{case}: no {words:?} in {text}");
        assert!(text.get("error").is_some(), "{case}: {text}");
        let (given, text) = infer(&up, &good()).await;
        assert_eq!(given, 200, "after {case}: {text}");
    }
}

#[tokio::test]
async fn one_wrong_request_among_many_fails_alone() {
    let up = start().await;
    let wrong = input(&json!([1, 64]), "FP32", &json!(["a"]));
    let mut calls = JoinSet::new();
    for i in 0..24 {
        let body = if i % 4 == 0 { wrong.to_string() } else { good().to_string() };
        let call = post(up.url("/v2/models/digits/infer"), body);
        calls.spawn(async move { (i, call.await) });
    }
    for (i, (status, text)) in calls.join_all().await {
        assert_eq!(status, if i % 4 == 0 { 400 } else { 200 }, "{i}: {text}");
    }
}

#[tokio::test]
async fn a_client_that_stops_sending_is_dropped_and_others_are_served_meanwhile() {
    let up = start().await;
    let address = up.url("").replace("http://", "");
    let mut slow = Vec::new();
    for head in [
        "POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Le",
        "POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{\"inputs\"",
    ] {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            slow.push(stream);
        }
    }
    assert_eq!(infer(&up, &good()).await.0, 200);
    let mut last = slow.pop().unwrap();
    let mut first = slow.swap_remove(0);
    let both = async {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        // Either may be closed without an answer, which is an error to read.
        drop(tokio::join!(first.read_to_end(&mut a), last.read_to_end(&mut b)));
        String::from_utf8_lossy(&b).into_owned()
    };
    let answer = tokio::time::timeout(Duration::from_secs(45), both).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
}

#[tokio::test]
async fn noise_on_the_port_does_not_disturb() {
    let up = start().await;
    let address = up.url("").replace("http://", "");
    for noise in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        &[0xff; 4096],
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff",
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        drop(stream.write_all(noise).await);
        drop(stream.shutdown().await);
        let mut rest = Vec::new();
        drop(tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut rest)).await.unwrap());
    }
    assert_eq!(infer(&up, &good()).await.0, 200);
}
