//! The connection to one replica: Open Inference Protocol over gRPC.

use std::time::Duration;

use tidegate_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use tidegate_api::inference::{ModelInferRequest, ModelInferResponse};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// A replica on the same box answers a connect within a millisecond, one in the cluster within some;
/// after so long it is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A replica whose machine vanished without a word is noticed after this and once more this.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Largest answer: a batch of 32 rows of 8 MiB.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Flow control windows: a batch of images goes without waiting for window updates.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// A replica's client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Upstream {
    address: String,
    client: GrpcInferenceServiceClient<Channel>,
}

/// Whether another replica may do better.
#[derive(Debug)]
pub enum CallError {
    /// The replica is away or overloaded: the request itself is not to blame. `sent` unless no
    /// connection came about.
    Lost { status: Status, sent: bool },
    /// The replica looked at the batch and refused it, or failed on it.
    Refused(Status),
}

impl Upstream {
    /// Connects lazily to host:port. Fails if that is not an address.
    pub fn new(address: &str) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect_lazy();
        let client = GrpcInferenceServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { address: address.to_owned(), client })
    }

    /// host:port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a batch and waits for its answer.
    pub async fn infer(&mut self, request: ModelInferRequest, timeout: Duration) -> Result<ModelInferResponse, CallError> {
        match tokio::time::timeout(timeout, self.client.model_infer(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(classify(status)),
            Err(_) => {
                Err(CallError::Lost { status: Status::deadline_exceeded("the replica did not answer in time"), sent: true })
            }
        }
    }
}

/// A status with a local cause never came from the model.
fn classify(status: Status) -> CallError {
    let away = matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted
    );
    let local = std::error::Error::source(&status).is_some();
    if away || local {
        let sent = !(local && status.code() == Code::Unavailable);
        CallError::Lost { status, sent }
    } else {
        CallError::Refused(status)
    }
}
