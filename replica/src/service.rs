//! The Open Inference Protocol, answered.

use tidegate_api::inference::grpc_inference_service_server::GrpcInferenceService;
use tidegate_api::inference::model_infer_response::InferOutputTensor;
use tidegate_api::inference::model_metadata_response::TensorMetadata;
use tidegate_api::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use tonic::{Request, Response, Status};
use tract_onnx::prelude::Tensor;

use crate::drain::Gate;
use crate::executor::{ExecuteError, Executor};
use crate::metrics::Metrics;
use crate::signature::{Signature, TensorSpec};
use crate::tensor::encode;

/// A replica has one version of its model.
const VERSION: &str = "1";

/// One model's server.
#[derive(Debug)]
pub(crate) struct Service {
    pub model: String,
    pub signature: Signature,
    pub max_batch_rows: usize,
    pub executor: Executor,
    pub gate: Gate,
    pub metrics: Metrics,
}

impl Service {
    fn knows(&self, name: &str, version: &str) -> bool {
        name == self.model && (version.is_empty() || version == VERSION)
    }

    fn check_name(&self, name: &str, version: &str) -> Result<(), Status> {
        if self.knows(name, version) {
            return Ok(());
        }
        let version = if version.is_empty() { String::new() } else { format!(" version {version}") };
        Err(Status::not_found(format!("Request for unknown model: '{name}'{version} is not found")))
    }

    fn metadata(specs: &[TensorSpec]) -> Vec<TensorMetadata> {
        let describe = |spec: &TensorSpec| TensorMetadata {
            name: spec.name.clone(),
            datatype: spec.datatype.to_owned(),
            shape: spec.shape(),
        };
        specs.iter().map(describe).collect()
    }

    /// The wanted outputs, in the order that they were asked for.
    fn respond(&self, id: String, wanted: &[usize], outputs: &[Tensor]) -> Result<ModelInferResponse, Status> {
        let mut response =
            ModelInferResponse { model_name: self.model.clone(), model_version: VERSION.to_owned(), id, ..Default::default() };
        for index in wanted {
            let (Some(spec), Some(tensor)) = (self.signature.outputs.get(*index), outputs.get(*index)) else {
                return Err(Status::internal("the model gave fewer outputs than it declares"));
            };
            let raw = encode(tensor).map_err(|e| Status::internal(format!("output '{}' cannot be encoded: {e}", spec.name)))?;
            response.raw_output_contents.push(raw);
            response.outputs.push(InferOutputTensor {
                name: spec.name.clone(),
                datatype: spec.datatype.to_owned(),
                shape: tensor.shape().iter().map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect(),
                ..Default::default()
            });
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.metrics.readiness.get() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = self.knows(&name, &version) && self.metrics.readiness.get();
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: "tidegate-replica".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: Vec::new(),
        }))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        self.check_name(&name, &version)?;
        Ok(Response::new(ModelMetadataResponse {
            name,
            versions: vec![VERSION.to_owned()],
            platform: "onnx".to_owned(),
            inputs: Self::metadata(&self.signature.inputs),
            outputs: Self::metadata(&self.signature.outputs),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let request = request.into_inner();
        let refused = |status: Status| {
            self.metrics.refused.inc();
            status
        };
        let draining = || refused(Status::unavailable("the replica is draining; send the request to another"));
        let _in_flight = self.gate.enter().ok_or_else(draining)?;
        self.check_name(&request.model_name, &request.model_version).map_err(refused)?;
        let mut batch =
            self.signature.read(&request, self.max_batch_rows).map_err(|why| refused(Status::invalid_argument(why)))?;
        let wanted = std::mem::take(&mut batch.outputs);
        let outputs = self.executor.run(batch).await.map_err(|error| match error {
            ExecuteError::QueueFull => refused(error.into()),
            other => other.into(),
        })?;
        self.respond(request.id, &wanted, &outputs).map(Response::new)
    }
}
