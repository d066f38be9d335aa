//! Real clients, unmodified: tritonclient, openai, curl.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsStr;
use std::process::Command;

use serde_json::{Value, json};
use tidegate_tests::harness::{Options, Up, workspace};
use tidegate_tests::manifests;
use tidegate_tests::outside::installed;

/// Both models of the example on two devices.
async fn start() -> Up {
    let folder = installed("TIDEGATE_TEST_MINILM").unwrap();
    let onnx = folder.join("minilm.onnx");
    let embedding = format!("  embedding:\n    tokenizer: {}\n    maxTokens: 128\n", folder.join("tokenizer.json").display());
    let minilm = manifests::model("all-minilm-l6-v2", &onnx.to_string_lossy(), &embedding);
    let yaml = manifests::queues() + &manifests::digits() + &minilm;
    Up::start(Options::with_manifest(&yaml, 2).unwrap()).await.unwrap()
}

/// Runs one of `tests/python` to its end, which must be a good one.
fn python(up: &Up, script: &str, arguments: &[&OsStr]) {
    let mut command = Command::new(installed("TIDEGATE_TEST_PYTHON").unwrap());
    command.arg(workspace().join("tests/python").join(script)).args(arguments).env("NO_PROXY", "*");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}\n{}", up.log());
}

#[tokio::test]
async fn tritonclient_reads_metadata_and_gets_right_answers_in_binary_and_json() {
    let up = start().await;
    let rows = workspace().join("examples/tide/load/digits-rows.csv");
    python(&up, "triton_client.py", &[up.url("").replace("http://", "").as_ref(), rows.as_ref()]);
}

#[tokio::test]
async fn openai_gets_embeddings_that_mean_what_the_model_means() {
    let up = start().await;
    python(&up, "openai_client.py", &[up.url("").as_ref()]);
}

/// Status and body of a curl call.
fn curl(up: &Up, path: &str, more: &[&str]) -> (u16, Value) {
    let mut command = Command::new(installed("TIDEGATE_TEST_CURL").unwrap());
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--write-out", "\n%{http_code}"]);
    let output = command.args(more).arg(up.url(path)).output().unwrap();
    assert!(output.status.success(), "curl {path}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
}

#[tokio::test]
async fn curl_gets_health_metadata_answers_metrics_and_the_page() {
    let up = start().await;
    assert_eq!(curl(&up, "/v2/health/live", &[]), (200, json!({"live": true})));
    assert_eq!(curl(&up, "/v2/health/ready", &[]), (200, json!({"ready": true})));
    assert_eq!(curl(&up, "/healthz", &[]).0, 200);
    let (status, metadata) = curl(&up, "/v2/models/digits", &[]);
    assert_eq!((status, &metadata["inputs"][0]["shape"]), (200, &json!([-1, 64])));
    let (status, answer) = curl(&up, "/v2/models/digits/infer", &["--data", &digit()]);
    assert_eq!((status, &answer["outputs"][0]["shape"]), (200, &json!([1, 10])), "{answer}");
    let text = json!({"model": "all-minilm-l6-v2", "input": "The tide turns."}).to_string();
    let (status, answer) = curl(&up, "/v1/embeddings", &["--header", "Content-Type: application/json", "--data", &text]);
    assert_eq!((status, answer["data"][0]["embedding"].as_array().map(Vec::len)), (200, Some(384)), "{answer}");
    let (status, models) = curl(&up, "/v1/models", &[]);
    assert_eq!((status, models["data"].as_array().map(Vec::len)), (200, Some(2)), "{models}");
    let (status, metrics) = curl(&up, "/metrics", &[]);
    assert!(status == 200 && metrics.as_str().unwrap().contains("tidegate_"), "{metrics}");
    let (status, page) = curl(&up, "/", &[]);
    assert!(status == 200 && page.as_str().unwrap().contains("<html"), "{page}");
}

#[tokio::test]
async fn requests_in_flight_at_ctrl_c_are_answered() {
    let yaml = manifests::queues() + &manifests::digits().replace("perBatchMicros: 1000", "perBatchMicros: 1500000");
    let up = Up::start(Options::with_manifest(&yaml, 2).unwrap()).await.unwrap();
    // Wakes the model, so that the next request is in its replica soon.
    assert_eq!(curl(&up, "/v2/models/digits/infer", &["--data", &digit()]).0, 200);
    let mut command = Command::new(installed("TIDEGATE_TEST_CURL").unwrap());
    command.args(["--silent", "--fail", "--noproxy", "*", "--data", &digit()]).arg(up.url("/v2/models/digits/infer"));
    let mut client = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(client.try_wait().unwrap().is_none(), "the request is in flight");
    let drained = up.drain().await.unwrap();
    assert!(client.wait().unwrap().success(), "{}", drained.log);
    assert!(drained.status.success() && drained.left.is_empty(), "{drained:?}");
}

fn digit() -> String {
    json!({"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": vec![1.0; 64]}]}).to_string()
}
