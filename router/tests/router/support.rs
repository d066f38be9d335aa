//! A router with its surroundings.

#![expect(clippy::unwrap_used, reason = "test support")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidegate_api::control::control_server::{Control, ControlServer};
use tidegate_api::control::{
    Embedding, Endpoint, ModelConfig, ModelDemand, ReplicaConfig, ReplicaReport, RouterConfig, RouterReport, TensorSpec,
};
use tidegate_api::inference::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use tidegate_api::inference::model_infer_response::InferOutputTensor;
use tidegate_api::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use tidegate_router::Args;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Longer than anything takes, shorter than a test run's patience.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A replica that doubles FP32 rows, sums the ids of an encoder, rejects rows that start with -1 and
/// fails on rows that start with -2. Each batch needs a permit.
#[derive(Clone)]
pub struct Replica {
    pub id: String,
    pub address: SocketAddr,
    pub permits: Arc<Semaphore>,
    /// Rows of each batch that came, answered or not.
    pub batches: Arc<Mutex<Vec<usize>>>,
    /// Shapes of the first input of each batch.
    pub shapes: Arc<Mutex<Vec<Vec<i64>>>>,
    process: Arc<Process>,
}

/// A runtime of its own: when it ends, its connections break as those of a killed process.
struct Process(Mutex<Option<Runtime>>);

impl Process {
    fn start() -> Arc<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Arc::new(Self(Mutex::new(Some(runtime))))
    }

    fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().as_ref().unwrap().spawn(work);
    }

    fn kill(&self) {
        if let Some(runtime) = self.0.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Connections without Nagle's delay, as the real servers have them.
fn incoming(listener: std::net::TcpListener) -> TcpIncoming {
    listener.set_nonblocking(true).unwrap();
    TcpIncoming::from(TcpListener::from_std(listener).unwrap()).with_nodelay(Some(true))
}

impl Replica {
    /// Answers at once.
    pub fn open(id: &str) -> Self {
        Self::start(id, Semaphore::MAX_PERMITS)
    }

    /// Answers nothing until permits are added.
    pub fn gated(id: &str) -> Self {
        Self::start(id, 0)
    }

    fn start(id: &str, permits: usize) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let replica = Self {
            id: id.to_owned(),
            address: listener.local_addr().unwrap(),
            permits: Arc::new(Semaphore::new(permits)),
            batches: Arc::default(),
            shapes: Arc::default(),
            process: Process::start(),
        };
        let server = tonic::transport::Server::builder().add_service(GrpcInferenceServiceServer::new(replica.clone()));
        replica.process.run(async move {
            server.serve_with_incoming(incoming(listener)).await.unwrap();
        });
        replica
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint { replica_id: self.id.clone(), address: self.address.to_string(), draining: false }
    }

    /// Ends as if killed: connections break.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Waits until so many batches came.
    pub async fn saw(&self, batches: usize) {
        eventually(|| async { self.batches.lock().len() >= batches }).await;
    }

    fn compute(request: &ModelInferRequest) -> Result<ModelInferResponse, Status> {
        let shape = request.inputs[0].shape.clone();
        let rows = usize::try_from(shape[0]).unwrap();
        let (shape, data) = if request.inputs[0].datatype == "INT64" {
            (vec![shape[0], 2], encode(rows, &request.raw_input_contents))
        } else {
            let values: Vec<f32> = floats(&request.raw_input_contents[0]);
            let firsts = || values.chunks(values.len() / rows).map(|row| row[0]);
            if firsts().any(|first| (first + 1.0).abs() < f32::EPSILON) {
                return Err(Status::invalid_argument("a row starts with -1"));
            }
            if firsts().any(|first| (first + 2.0).abs() < f32::EPSILON) {
                return Err(Status::internal("a row starts with -2"));
            }
            (shape, values.iter().flat_map(|v| (v * 2.0).to_le_bytes()).collect())
        };
        let output = InferOutputTensor { name: "y".to_owned(), datatype: "FP32".to_owned(), shape, ..Default::default() };
        let raw_output_contents = vec![Bytes::from(data)];
        Ok(ModelInferResponse { outputs: vec![output], raw_output_contents, ..Default::default() })
    }
}

/// For each row the sum of its unmasked ids and the length of its mask.
fn encode(rows: usize, inputs: &[Bytes]) -> Vec<u8> {
    let ints = |data: &Bytes| -> Vec<i64> { data.as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c)).collect() };
    let (ids, mask) = (ints(&inputs[0]), ints(&inputs[1]));
    let width = ids.len() / rows;
    let mut out = Vec::new();
    for row in 0..rows {
        let range = row * width..(row + 1) * width;
        let sum: i64 = ids[range.clone()].iter().zip(&mask[range.clone()]).map(|(id, m)| id * m).sum();
        let length: i64 = mask[range].iter().sum();
        for value in [sum, length] {
            out.extend(f32::from(i16::try_from(value).unwrap()).to_le_bytes());
        }
    }
    out
}

pub fn floats(data: &[u8]) -> Vec<f32> {
    data.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect()
}

#[tonic::async_trait]
impl GrpcInferenceService for Replica {
    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let request = request.into_inner();
        let shape = request.inputs[0].shape.clone();
        self.batches.lock().push(usize::try_from(shape[0]).unwrap());
        self.shapes.lock().push(shape);
        self.permits.acquire().await.unwrap().forget();
        Self::compute(&request).map(Response::new)
    }

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: true }))
    }

    async fn model_ready(&self, _: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        Ok(Response::new(ModelReadyResponse { ready: true }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Result<Response<ServerMetadataResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn model_metadata(&self, _: Request<ModelMetadataRequest>) -> Result<Response<ModelMetadataResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

/// The world's end of the control session.
#[derive(Clone)]
pub struct World {
    pub address: SocketAddr,
    config: watch::Sender<RouterConfig>,
    pub reports: Arc<Mutex<Vec<RouterReport>>>,
    pub sessions: Arc<AtomicUsize>,
    process: Arc<Process>,
}

impl World {
    pub fn start(models: Vec<ModelConfig>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), 1, models)
    }

    pub fn start_at(address: SocketAddr, version: u64, models: Vec<ModelConfig>) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        let world = Self {
            address: listener.local_addr().unwrap(),
            config: watch::Sender::new(RouterConfig { version, models }),
            reports: Arc::default(),
            sessions: Arc::default(),
            process: Process::start(),
        };
        let server = tonic::transport::Server::builder().add_service(ControlServer::new(world.clone()));
        world.process.run(async move {
            server.serve_with_incoming(incoming(listener)).await.unwrap();
        });
        world
    }

    pub fn configure(&self, models: Vec<ModelConfig>) {
        self.config.send_modify(|config| {
            config.version += 1;
            config.models = models;
        });
    }

    pub fn kill(&self) {
        self.process.kill();
    }

    /// Waits for a report in which the model's demand is as wished.
    pub async fn demand(&self, model: &str, wished: impl Fn(&ModelDemand) -> bool) -> ModelDemand {
        let find = || self.reports.lock().iter().rev().flat_map(|r| &r.models).find(|d| d.model == model && wished(d)).cloned();
        eventually(|| async { find().is_some() }).await;
        find().unwrap()
    }
}

#[tonic::async_trait]
impl Control for World {
    type RouterSessionStream = std::pin::Pin<Box<dyn Stream<Item = Result<RouterConfig, Status>> + Send>>;
    type ReplicaSessionStream = std::pin::Pin<Box<dyn Stream<Item = Result<ReplicaConfig, Status>> + Send>>;

    async fn router_session(
        &self,
        request: Request<Streaming<RouterReport>>,
    ) -> Result<Response<Self::RouterSessionStream>, Status> {
        self.sessions.fetch_add(1, Ordering::SeqCst);
        let (mut incoming, reports) = (request.into_inner(), self.reports.clone());
        self.process.run(async move {
            while let Ok(Some(report)) = incoming.message().await {
                reports.lock().push(report);
            }
        });
        Ok(Response::new(Box::pin(WatchStream::new(self.config.subscribe()).map(Ok))))
    }

    async fn replica_session(
        &self,
        _: Request<Streaming<ReplicaReport>>,
    ) -> Result<Response<Self::ReplicaSessionStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

pub fn tensor(name: &str, datatype: &str, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec(), batched: true }
}

/// Doubles four floats.
pub fn double(endpoints: Vec<Endpoint>) -> ModelConfig {
    ModelConfig {
        name: "double".to_owned(),
        slo_ms: 5_000,
        cold_start_budget_ms: 8_000,
        max_batch_rows: 8,
        max_queued_requests: 64,
        max_queued_bytes: 1 << 20,
        inputs: vec![tensor("x", "FP32", &[-1, 4])],
        outputs: vec![tensor("y", "FP32", &[-1, 4])],
        endpoints,
        platform: "onnx".to_owned(),
        ..ModelConfig::default()
    }
}

/// Sums token ids.
pub fn encoder(endpoints: Vec<Endpoint>, tokenizer: &std::path::Path) -> ModelConfig {
    ModelConfig {
        name: "encoder".to_owned(),
        max_batch_tokens: 64,
        inputs: vec![tensor("input_ids", "INT64", &[-1, -1]), tensor("attention_mask", "INT64", &[-1, -1])],
        outputs: vec![tensor("y", "FP32", &[-1, 2])],
        embedding: Some(Embedding { tokenizer_path: tokenizer.display().to_string(), max_tokens: 6 }),
        ..double(endpoints)
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// A running router.
pub struct Front {
    pub address: SocketAddr,
    pub client: reqwest::Client,
    shutdown: CancellationToken,
    running: JoinSet<Result<(), tidegate_runtime::exit::Error>>,
}

impl Front {
    /// Starts one that knows `world` and waits for its first configuration.
    pub async fn start(world: &World, more: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = format!("http://{}", world.address);
        let line = ["router", "--control", &control].into_iter().chain(more.iter().copied());
        let args = Line::try_parse_from(line).unwrap().args;
        let shutdown = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(tidegate_router::run_on(listener, args, shutdown.clone()));
        let front = Self { address, client: reqwest::Client::builder().no_proxy().build().unwrap(), shutdown, running };
        eventually(|| async { front.get("/v2/health/ready").await.0 == 200 }).await;
        front
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.client.get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
    }

    pub async fn metrics(&self) -> String {
        self.client.get(self.url("/router/metrics")).send().await.unwrap().text().await.unwrap()
    }

    /// One row of four equal values to `double`.
    pub fn infer(&self, value: f32) -> impl Future<Output = Answer> + Send + 'static {
        self.post("/v2/models/double/infer", row(value).to_string().into())
    }

    pub fn post(&self, path: &str, body: reqwest::Body) -> impl Future<Output = Answer> + Send + 'static {
        let request = self.client.post(self.url(path)).header("content-type", "application/json").body(body);
        async move { Answer::of(request.send().await.unwrap()).await }
    }

    /// As a signal would.
    pub fn end(&self) {
        self.shutdown.cancel();
    }

    /// What `run` returned.
    pub async fn ended(mut self) -> Result<(), tidegate_runtime::exit::Error> {
        tokio::time::timeout(PATIENCE, self.running.join_next()).await.unwrap().unwrap().unwrap()
    }
}

/// A request for `double`.
pub fn row(value: f32) -> Value {
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 4], "data": [value, value, value, value] }] })
}

/// A whole HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.json().await.unwrap_or(Value::Null) }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn error(&self) -> &str {
        self.body["error"].as_str().or_else(|| self.body["error"]["message"].as_str()).unwrap_or_default()
    }
}

/// Waits until `done`; fails the test when it never is.
pub async fn eventually<F: Future<Output = bool>>(done: impl Fn() -> F) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "it never happened");
}
