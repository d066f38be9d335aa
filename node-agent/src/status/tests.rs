use std::collections::HashMap;
use std::convert::Infallible;

use http::{Method, Request, Response};
use kube::CustomResourceExt;
use kube::client::Body;
use nvml_fake::{Script, install};
use serde_json::Value;
use tidegate_nvml::Inventory;

use super::*;
use crate::node::Times;

/// An API server that has no such `GpuNode` until it was made; the requests that it got.
fn server() -> (Api<GpuNode>, Arc<parking_lot::Mutex<Vec<String>>>) {
    let seen: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
    let requests = seen.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (method, path) = (request.method().clone(), request.uri().to_string());
        let mut requests = requests.lock();
        let made = requests.iter().any(|request| !request.contains("/status"));
        requests.push(format!("{method} {path}"));
        let known = method == Method::PATCH && (made || !path.contains("/status"));
        let missing = r#"{"kind":"Status","status":"Failure","message":"not found","reason":"NotFound","code":404}"#;
        let object = r#"{"apiVersion":"tidegate.dev/v1alpha1","kind":"GpuNode","metadata":{"name":"node-1"},"spec":{}}"#;
        let (code, body) = if known { (200, object) } else { (404, missing) };
        async move { Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(body.as_bytes().to_vec())).unwrap()) }
    });
    (Api::all(kube::Client::new(service, "default")), seen)
}

fn node() -> Node {
    let (dir, mut script) = (tempfile::tempdir().unwrap(), Script::of(2, "NVIDIA H100 80GB HBM3", 81_559));
    script.gpus[1].remap_pending = true;
    let (library, _) = install(dir.path(), &script).unwrap();
    let inventory = Inventory::open(Some(&library)).unwrap();
    let mut node = Node::new(Times { interval: Duration::from_secs(1), call_timeout: Duration::from_secs(5) }, 0.0);
    node.opened(inventory.driver(), inventory.topology().unwrap(), 2);
    for index in 0..2 {
        let mut gpu = inventory.gpu(index).unwrap();
        node.introduce(gpu.identity());
        let reading = gpu.read().map(|reading| (reading, HashMap::new()));
        node.observe(&gpu.identity().uuid.clone(), reading, Duration::ZERO, Duration::from_secs(10));
    }
    node
}

#[test]
fn the_status_says_what_is_wrong_and_since_when() {
    let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
    let status = status(&node(), now, Duration::from_secs(70));
    assert_eq!((status.gpu_count, status.health), (2, GpuHealth::Degraded));
    assert_eq!(status.observed_at, "2026-11-24T12:00:00Z");
    let gpu = &status.gpus[1];
    assert_eq!((gpu.class.as_deref(), gpu.memory_mib), (Some("H100-80GB"), Some(81_559)));
    assert_eq!((gpu.findings[0].cause.as_str(), gpu.findings[0].since.as_str()), ("remap_pending", "2026-11-24T11:59:00Z"));
    assert!(status.gpus[0].findings.is_empty());
}

#[test]
fn a_change_of_health_is_due_at_once_and_flapping_is_not() {
    let shared = Shared::new(node(), Duration::ZERO, None, "/proc".into());
    let wanted = Status { node: "n".into(), every: Duration::from_mins(1) };
    let version = shared.node.lock().health_version;
    assert!(due(&shared, &wanted, None).0, "the first");
    assert!(!due(&shared, &wanted, Some((version, shared.at()))).0);
    assert!(!due(&shared, &wanted, Some((version + 1, shared.at()))).0, "not within the pause");
}

#[test]
fn the_longest_texts_fit_the_schema() {
    let mut node = node();
    node.closed("driver", &"x".repeat(5000), Duration::from_secs(80));
    let status = status(&node, Timestamp::UNIX_EPOCH, Duration::from_secs(90));
    assert_eq!(status.closed.unwrap().len(), LONGEST_WHY);
    assert!(status.gpus.iter().all(|gpu| gpu.findings.iter().all(|finding| finding.evidence.len() <= LONGEST_EVIDENCE)));
    assert_eq!(status.driver, None);
}

#[test]
fn a_driver_that_cannot_be_used_is_no_healthy_node_and_a_node_without_one_is() {
    let health = |category: &'static str| {
        let mut node = node();
        node.gpus.clear();
        node.closed(category, "why", Duration::from_secs(80));
        status(&node, Timestamp::UNIX_EPOCH, Duration::from_secs(90)).health
    };
    assert_eq!(["driver", "version_mismatch", "driver_not_loaded"].map(health), [GpuHealth::Sick; 3]);
    assert_eq!(["starting", "no_library", "no_devices"].map(health), [GpuHealth::Healthy; 3]);
}

/// What of `value` the schema does not allow: unknown and missing fields, other words, texts and lists beyond their bounds.
fn broken(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let most = |key: &str, count: usize| schema[key].as_u64().is_some_and(|most| count as u64 > most);
    let mut all = Vec::new();
    match value {
        Value::Object(fields) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            all.extend(required.filter(|field| !fields.contains_key(*field)).map(|field| format!("{path}.{field} is missing")));
            for (field, value) in fields {
                match schema["properties"].get(field) {
                    Some(inner) => all.extend(broken(inner, value, &format!("{path}.{field}"))),
                    None => all.push(format!("{path}.{field} is unknown")),
                }
            }
        }
        Value::Array(items) if most("maxItems", items.len()) => all.push(format!("{path} is too long")),
        Value::Array(items) => all.extend(items.iter().flat_map(|item| broken(&schema["items"], item, &format!("{path}[]")))),
        Value::String(text) if most("maxLength", text.chars().count()) => all.push(format!("{path} is too long")),
        Value::String(_) => {
            let words = schema["enum"].as_array();
            all.extend(words.filter(|words| !words.contains(value)).map(|_| format!("{path} is {value}")));
        }
        _ => {}
    }
    all
}

#[test]
fn what_is_written_is_of_the_kind_and_within_its_schema() {
    let mut node = node();
    let lost = node.gpus.keys().next().unwrap().clone();
    node.observe(&lost, Err(tidegate_nvml::Fault::Lost), Duration::ZERO, Duration::from_secs(11));
    node.closed("driver", &"x".repeat(5000), Duration::from_secs(80));
    let written = serde_json::to_value(object("node-1", status(&node, Timestamp::UNIX_EPOCH, Duration::from_secs(90)))).unwrap();
    let crd = serde_json::to_value(GpuNode::crd()).unwrap();
    let properties = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    assert_eq!(broken(&properties["status"], &written["status"], "status"), [""; 0]);
    let kind = format!("{}/{} {}", crd["spec"]["group"], crd["spec"]["versions"][0]["name"], crd["spec"]["names"]["kind"]);
    assert_eq!(kind.replace('"', ""), format!("{} {}", written["apiVersion"], written["kind"]).replace('"', ""));
    let read: GpuNode = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), written, "nothing is lost on the way");
    let mut wrong = written["status"].clone();
    (wrong["health"], wrong["colour"]) = ("Fine".into(), "red".into());
    assert_eq!(broken(&properties["status"], &wrong, "status"), ["status.colour is unknown", "status.health is \"Fine\""]);
}

#[tokio::test]
async fn a_gpunode_that_is_not_there_is_made_and_then_only_its_status_is_written() {
    let (api, seen) = server();
    let status = status(&node(), Timestamp::UNIX_EPOCH, Duration::from_secs(70));
    apply(&api, "node-1", status.clone()).await.unwrap();
    apply(&api, "node-1", status).await.unwrap();
    let (object, status) =
        ("PATCH /apis/tidegate.dev/v1alpha1/gpunodes/node-1?", "PATCH /apis/tidegate.dev/v1alpha1/gpunodes/node-1/status?");
    let seen = seen.lock();
    let expected = [status, object, status, status];
    assert!(seen.len() == 4 && seen.iter().zip(expected).all(|(told, expected)| told.starts_with(expected)), "{seen:?}");
    assert!(seen.iter().all(|request| request.contains("fieldManager=tidegate-node-agent") && request.contains("force=true")));
}
