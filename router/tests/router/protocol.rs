//! The Open Inference Protocol as clients speak it.

use serde_json::{Value, json};

use super::support::{Front, Replica, World, double, floats, row, tensor};

async fn front() -> (Front, World, Replica) {
    let replica = Replica::open("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    (Front::start(&world, &[]).await, world, replica)
}

#[tokio::test]
async fn server_and_model_describe_themselves() {
    let (front, _world, _replica) = front().await;
    assert_eq!(front.get("/v2/health/live").await, (200, json!({ "live": true })));
    assert_eq!(front.get("/v2/health/ready").await, (200, json!({ "ready": true })));
    let (_, server) = front.get("/v2").await;
    assert_eq!(server["name"], "tidegate");
    let metadata = json!({
        "name": "double", "versions": ["1"], "platform": "onnx",
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [-1, 4] }],
        "outputs": [{ "name": "y", "datatype": "FP32", "shape": [-1, 4] }],
    });
    for path in ["/v2/models/double", "/v2/models/double/versions/1"] {
        assert_eq!(front.get(path).await, (200, metadata.clone()));
    }
    assert_eq!(front.get("/v2/models/double/ready").await, (200, json!({ "name": "double", "ready": true })));
    assert_eq!(front.get("/v2/models/nope/ready").await.0, 404);
    let (_, models) = front.get("/v1/models").await;
    assert_eq!(models["data"][0]["id"], "double");
    for path in ["/router/healthz", "/router/readyz", "/router/metrics", "/metrics"] {
        assert_eq!(front.get(path).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn json_in_json_out_with_id_and_chosen_outputs() {
    let (front, _world, _replica) = front().await;
    let mut request = row(1.5);
    request["id"] = json!("a \"quoted\" id");
    request["outputs"] = json!([{ "name": "y" }]);
    request["inputs"][0]["data"] = json!([[1.5, 2], [3, -4.25], [0, 0], [0, 1e-3]]);
    request["inputs"][0]["shape"] = json!([2, 4]);
    let answer = front.post("/v2/models/double/versions/1/infer", request.to_string().into()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let wanted = json!({
        "id": "a \"quoted\" id", "model_name": "double", "model_version": "1",
        "outputs": [{ "name": "y", "datatype": "FP32", "shape": [2, 4], "data": [3.0, 4.0, 6.0, -8.5, 0.0, 0.0, 0.0, 0.002] }],
    });
    assert_eq!(answer.body, wanted);
}

/// A body as tritonclient sends it: JSON, then the tensors' bytes.
fn binary(header: &Value, data: &[u8]) -> (usize, Vec<u8>) {
    let mut body = header.to_string().into_bytes();
    let length = body.len();
    body.extend(data);
    (length, body)
}

#[tokio::test]
async fn binary_tensors_both_ways() {
    let (front, _world, _replica) = front().await;
    let data: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": { "binary_data_size": 16 } });
    for wish in [
        json!({ "inputs": [input], "outputs": [{ "name": "y", "parameters": { "binary_data": true } }] }),
        json!({ "inputs": [input], "parameters": { "binary_data_output": true } }),
    ] {
        let (length, body) = binary(&wish, &data);
        let request = front.client.post(front.url("/v2/models/double/infer")).header("Inference-Header-Content-Length", length);
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let json_length: usize = response.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
        let body = response.bytes().await.unwrap();
        let head: Value = serde_json::from_slice(&body[..json_length]).unwrap();
        assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], 16);
        assert_eq!(floats(&body[json_length..]), [2.0, 4.0, 6.0, 8.0]);
    }
}

#[tokio::test]
async fn a_raw_body_is_one_row_of_the_only_input() {
    let (front, _world, _replica) = front().await;
    let data: Vec<u8> = [1.0f32; 4].iter().flat_map(|v| v.to_le_bytes()).collect();
    let request = front.client.post(front.url("/v2/models/double/infer")).header("Inference-Header-Content-Length", 0);
    let response = request.body(data).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let json_length: usize = response.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(floats(&response.bytes().await.unwrap()[json_length..]), [2.0; 4]);
}

#[tokio::test]
async fn binary_mistakes_are_told() {
    let (front, _world, _replica) = front().await;
    let input = |size: usize| json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": { "binary_data_size": size } }] });
    let cases = [
        (input(16), 12, None, "expecting 4 additional bytes"),
        (input(12), 12, None, "Expected 16, got 12"),
        (input(16), 20, None, "unexpected additional input data"),
        (input(16), 16, Some("10000"), "the body has"),
        (input(16), 16, Some("-1"), "must be a number"),
    ];
    for (header, bytes, claim, wanted) in cases {
        let (length, body) = binary(&header, &vec![0; bytes]);
        let claim = claim.map_or(length.to_string(), str::to_owned);
        let request = front.client.post(front.url("/v2/models/double/infer")).header("Inference-Header-Content-Length", claim);
        let answer = super::support::Answer::of(request.body(body).send().await.unwrap()).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.error().contains(wanted), "{answer:?} does not tell {wanted}");
    }
}

#[tokio::test]
async fn requests_of_different_free_shapes_do_not_share_a_batch() {
    let replica = Replica::gated("r1");
    let mut config = double(vec![replica.endpoint()]);
    config.inputs = vec![tensor("x", "FP32", &[-1, -1])];
    config.outputs = vec![tensor("y", "FP32", &[-1, -1])];
    let world = World::start(vec![config]);
    let front = Front::start(&world, &[]).await;
    let request = |width: usize| {
        let body = json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, width], "data": vec![1.0; width] }] });
        front.post("/v2/models/double/infer", body.to_string().into())
    };
    let mut asked = tokio::task::JoinSet::new();
    asked.spawn(request(1));
    replica.saw(1).await;
    for width in [2, 3, 2, 3, 2] {
        asked.spawn(request(width));
    }
    world.demand("double", |d| d.queued == 5).await;
    replica.permits.add_permits(3);
    assert!(asked.join_all().await.iter().all(|answer| answer.status == 200));
    let mut shapes = replica.shapes.lock().clone();
    shapes.sort();
    assert_eq!(shapes, [[1, 1], [2, 3], [3, 2]]);
}
