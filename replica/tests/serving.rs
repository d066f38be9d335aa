//! A whole replica against a world double: real gRPC on both sides, the committed digits model.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "serving/world.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use tidegate_api::control::ReplicaPhase;
use tidegate_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use tidegate_api::inference::model_infer_request::InferInputTensor;
use tidegate_api::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelReadyRequest, ServerLiveRequest,
    ServerReadyRequest,
};
use tidegate_replica::{Args, run};
use tidegate_runtime::exit::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use world::World;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tide/models/digits.onnx")
}

/// A replica in this process.
struct Replica {
    process: JoinSet<Result<(), Error>>,
    shutdown: CancellationToken,
}

impl Replica {
    fn start(onnx: &Path, flags: &[&str]) -> Self {
        let onnx = onnx.to_str().unwrap();
        let args =
            ["replica", "--model", "digits", "--onnx", onnx, "--replica-id", "r1"].into_iter().chain(flags.iter().copied());
        let args = Cli::try_parse_from(args).unwrap().args;
        let shutdown = CancellationToken::new();
        let mut process = JoinSet::new();
        process.spawn(run(args, shutdown.clone()));
        Self { process, shutdown }
    }

    async fn ended(mut self) -> Result<(), Error> {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.process.join_next()).await;
        ended.expect("the replica did not end").unwrap().unwrap()
    }
}

type Client = GrpcInferenceServiceClient<Channel>;

async fn client(address: &str) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap())
}

fn image(rows: usize) -> ModelInferRequest {
    let pixels = (0..rows * 64).map(|i| f32::from(u8::try_from(i * 7 % 17).unwrap()));
    ModelInferRequest {
        model_name: "digits".to_owned(),
        id: "q1".to_owned(),
        inputs: vec![InferInputTensor {
            name: "image".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![i64::try_from(rows).unwrap(), 64],
            contents: Some(InferTensorContents { fp32_contents: pixels.collect(), ..Default::default() }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The same request with its elements raw.
fn raw(mut request: ModelInferRequest) -> ModelInferRequest {
    let contents = request.inputs[0].contents.take().unwrap();
    let bytes: Vec<u8> = contents.fp32_contents.iter().flat_map(|value| value.to_le_bytes()).collect();
    request.raw_input_contents.push(bytes.into());
    request
}

fn floats(response: &ModelInferResponse) -> Vec<f32> {
    response.raw_output_contents[0].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[tokio::test]
async fn a_replica_reports_that_it_is_ready_answers_and_ends_when_the_world_wishes() {
    let mut world = World::start().await;
    let replica = Replica::start(&digits(), &["--control", &world.url()]);
    let ready = world.report(ReplicaPhase::Ready).await;
    assert_eq!((ready.replica_id.as_str(), ready.model.as_str()), ("r1", "digits"));
    let mut client = client(&ready.address).await;

    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let asks = |name: &str| ModelReadyRequest { name: name.to_owned(), version: String::new() };
    assert!(client.model_ready(asks("digits")).await.unwrap().into_inner().ready);
    assert!(!client.model_ready(asks("other")).await.unwrap().into_inner().ready);
    let metadata = ModelMetadataRequest { name: "digits".to_owned(), version: String::new() };
    let metadata = client.model_metadata(metadata).await.unwrap().into_inner();
    assert_eq!((metadata.platform.as_str(), metadata.inputs[0].shape.as_slice()), ("onnx", [-1, 64].as_slice()));

    let typed = client.model_infer(image(5)).await.unwrap().into_inner();
    assert_eq!((typed.id.as_str(), typed.outputs[0].shape.as_slice()), ("q1", [5, 10].as_slice()));
    let from_raw = client.model_infer(raw(image(5))).await.unwrap().into_inner();
    assert_eq!(floats(&typed), floats(&from_raw));
    let alone = client.model_infer(image(1)).await.unwrap().into_inner();
    for (batched, alone) in floats(&typed).iter().zip(floats(&alone)) {
        assert!((batched - alone).abs() < 1e-6);
    }
    let counted = world.report_where(|report| report.batches == 3).await;
    assert_eq!(counted.rows, 11);
    assert!(counted.busy_us > 0 && counted.resident_bytes > 0);

    world.drain();
    world.report(ReplicaPhase::Draining).await;
    replica.ended().await.unwrap();
    assert!(client.server_live(ServerLiveRequest {}).await.is_err());
}

#[tokio::test]
async fn wrong_requests_are_refused_in_words_and_the_next_right_one_is_answered() {
    let mut world = World::start().await;
    let replica = Replica::start(&digits(), &["--control", &world.url(), "--max-batch-rows", "4"]);
    let mut client = client(&world.report(ReplicaPhase::Ready).await.address).await;
    let mut unknown = image(1);
    unknown.model_name = "nope".to_owned();
    let mut datatype = image(1);
    datatype.inputs[0].datatype = "INT64".to_owned();
    let mut shape = image(1);
    shape.inputs[0].shape = vec![1, 63];
    let mut negative = image(1);
    negative.inputs[0].shape = vec![-1, 64];
    let mut short = raw(image(1));
    short.raw_input_contents[0] = vec![0; 3].into();
    let mut twice = image(1);
    twice.raw_input_contents = raw(image(1)).raw_input_contents;
    let wrong = [
        (unknown, Code::NotFound, "Request for unknown model: 'nope' is not found"),
        (datatype, Code::InvalidArgument, "expects 'FP32'"),
        (shape, Code::InvalidArgument, "Expected [-1, 64], got [1, 63]"),
        (negative, Code::InvalidArgument, "got [-1, 64]"),
        (short, Code::InvalidArgument, "has 3 bytes, but its shape and datatype need 256"),
        (twice, Code::InvalidArgument, "twice"),
        (image(5), Code::InvalidArgument, "from 1 to 4"),
        (ModelInferRequest { model_name: "digits".to_owned(), ..Default::default() }, Code::InvalidArgument, "expected 1 inputs"),
    ];
    for (request, code, text) in wrong {
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
    client.model_infer(image(4)).await.unwrap();
    replica.shutdown.cancel();
    replica.ended().await.unwrap();
}

#[tokio::test]
async fn draining_answers_what_is_in_flight_and_refuses_what_is_new() {
    let mut world = World::start().await;
    let replica = Replica::start(&digits(), &["--control", &world.url(), "--pace-per-batch-us", "400000"]);
    let mut client = client(&world.report(ReplicaPhase::Ready).await.address).await;
    let mut first = client.clone();
    let began = Instant::now();
    let mut in_flight = JoinSet::new();
    in_flight.spawn(async move { first.model_infer(image(2)).await });
    // The replica must have it before it drains; the pace leaves time for that.
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.drain();
    world.report(ReplicaPhase::Draining).await;
    assert_eq!(client.model_infer(image(1)).await.unwrap_err().code(), Code::Unavailable);
    let answer = in_flight.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(answer.into_inner().outputs[0].shape, [2, 10]);
    assert!(began.elapsed() >= Duration::from_millis(400));
    replica.ended().await.unwrap();
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_reported_as_failed_and_exits_64() {
    let mut world = World::start().await;
    let replica = Replica::start(Path::new("/nowhere/none.onnx"), &["--control", &world.url()]);
    let failed = world.report(ReplicaPhase::Failed).await;
    assert!(failed.error.contains("/nowhere/none.onnx"), "{}", failed.error);
    let error = replica.ended().await.unwrap_err();
    assert_eq!(error.code(), 64);
}

#[tokio::test]
async fn a_replica_serves_on_without_its_world_and_finds_it_again() {
    let mut world = World::start().await;
    let replica = Replica::start(&digits(), &["--control", &world.url()]);
    let ready = world.report(ReplicaPhase::Ready).await;
    let mut client = client(&ready.address).await;
    let port = world.stop().await;
    client.model_infer(image(1)).await.unwrap();
    let mut world = World::start_at(port).await;
    let again = world.report(ReplicaPhase::Ready).await;
    assert_eq!((again.address, again.batches), (ready.address, 1));
    replica.shutdown.cancel();
    world.report(ReplicaPhase::Draining).await;
    replica.ended().await.unwrap();
}

#[tokio::test]
async fn replicas_of_one_simulated_device_share_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("gpu0");
    let mut requests = JoinSet::new();
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let mut world = World::start().await;
        let url = world.url();
        let flags = [
            "--control",
            &url,
            "--pace-per-batch-us",
            "40000",
            "--pace-per-row-us",
            "5000",
            "--device-lock",
            lock.to_str().unwrap(),
        ];
        let replica = Replica::start(&digits(), &flags);
        let client = client(&world.report(ReplicaPhase::Ready).await.address).await;
        replicas.push((world, replica, client));
    }
    let began = Instant::now();
    for (_, _, client) in &replicas {
        for _ in 0..3 {
            let mut client = client.clone();
            requests.spawn(async move { client.model_infer(image(2)).await.unwrap() });
        }
    }
    while let Some(answer) = requests.join_next().await {
        answer.unwrap();
    }
    // Six batches of 40 + 2 x 5 ms, one after the other.
    assert!(began.elapsed() >= Duration::from_millis(300), "took {:?}", began.elapsed());
    for (mut world, replica, _) in replicas {
        let counted = world.report_where(|report| report.batches == 3).await;
        assert!((150_000..300_000).contains(&counted.busy_us), "waiting for the device counts as busy: {counted:?}");
        assert_eq!(counted.pace_missed, 0);
        replica.shutdown.cancel();
        replica.ended().await.unwrap();
    }
}

#[tokio::test]
async fn a_port_in_use_is_a_usage_error_that_names_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Replica::start(&digits(), &["--listen", &address]).ended().await.unwrap_err();
    assert_eq!(error.code(), 64);
    assert!(error.to_string().starts_with(&format!("--listen: cannot listen on `{address}`")), "{error}");
}
