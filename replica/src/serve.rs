//! From listening to the last answer: bind, load, serve, drain.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidegate_api::convert;
use tidegate_api::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use tidegate_runtime::admin;
use tidegate_runtime::exit::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::args::Settings;
use crate::device::Device;
use crate::drain::Gate;
use crate::executor::{StartError, Started, start};
use crate::service::Service;
use crate::status::Status;

/// Largest request. A router's whole queue is at most 256 MiB by default, so a batch is never larger.
const LARGEST_MESSAGE: usize = 256 << 20;

/// Requests at once on one connection: the executor's queue, and as many again to be refused.
const MAX_STREAMS: u32 = 128;

/// After the last answer: for connections to close and the executor to end. Nothing depends on them any more.
const CLOSING_LIMIT: Duration = Duration::from_secs(1);

/// Serves until `drain`, then answers what is in flight.
pub(crate) async fn serve(settings: &Settings, status: &Status, began: Instant, drain: CancellationToken) -> Result<(), Error> {
    status.metrics.device_milli.set(i64::from(settings.device_milli));
    let listener = bind("--listen", settings.listen).await?;
    let address = listener.local_addr().map_err(|e| Error::failed("read the listening address", e))?;
    let stop = CancellationToken::new();
    let mut servers = JoinSet::new();
    if let Some(admin) = settings.admin_listen {
        serve_admin(&mut servers, bind("--admin-listen", admin).await?, status, stop.clone());
    }
    let Some(Started { executor, signature, mut ended }) = load(settings, status, &drain).await? else {
        return Ok(());
    };
    let gate = Gate::default();
    let tensors = convert::model_tensors(&signature.info());
    let service = Service {
        model: settings.model.clone(),
        signature,
        max_batch_rows: settings.max_batch_rows,
        executor,
        gate: gate.clone(),
        metrics: status.metrics.clone(),
    };
    serve_inference(&mut servers, listener, service, stop.clone());
    let load_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    status.ready(address.to_string(), load_ms, tensors);
    let device_milli = settings.device_milli;
    tracing::info!(model = settings.model, replica = settings.replica_id, %address, load_ms, device_milli, "ready");

    let outcome = tokio::select! {
        () = drain.cancelled() => Ok(()),
        _ = &mut ended => Err(Error::failed("run the model", "the executor thread ended")),
        Some(end) = servers.join_next() => early(end),
    };
    if outcome.is_ok() {
        status.draining();
        tracing::info!("draining");
        if timeout(settings.drain_limit, gate.close()).await.is_err() {
            tracing::warn!(limit_s = settings.drain_limit.as_secs(), "requests in flight took too long; ending without them");
        }
    }
    stop.cancel();
    let closed = timeout(CLOSING_LIMIT, async {
        while servers.join_next().await.is_some() {}
        // An error means that the sender is gone, and so is the thread.
        drop(ended.await);
    });
    drop(closed.await);
    outcome
}

async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener, Error> {
    let busy =
        |e: std::io::Error| Error::Usage(format!("{flag}: cannot listen on `{address}`: {e}; give a free address or port 0"));
    TcpListener::bind(address).await.map_err(busy)
}

/// `None` when the wish to end came first.
async fn load(settings: &Settings, status: &Status, drain: &CancellationToken) -> Result<Option<Started>, Error> {
    let lock = settings.device_lock.as_deref();
    let device = Device::open(lock, settings.pace).map_err(|e| {
        let path = lock.map(|path| path.display().to_string()).unwrap_or_default();
        Error::Usage(format!("--device-lock: cannot open `{path}`: {e}; give a path in a folder that exists and is writable"))
    })?;
    tokio::select! {
        started = start(settings.onnx.clone(), device, status.metrics.clone()) => match started {
            Ok(started) => Ok(Some(started)),
            Err(StartError::Load(error)) => Err(Error::Usage(format!("--onnx: {error}"))),
            Err(error) => Err(Error::failed("load the model", error)),
        },
        () = drain.cancelled() => Ok(None),
    }
}

type Servers = JoinSet<Result<(), Error>>;

fn serve_inference(servers: &mut Servers, listener: TcpListener, service: Service, stop: CancellationToken) {
    let service = GrpcInferenceServiceServer::new(service)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    servers.spawn(async move {
        let server = Server::builder()
            // Larger windows than HTTP/2's 64 KiB, so that a batch does not wait for acknowledgements.
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
        server.await.map_err(|e| Error::failed("serve inference", e))
    });
}

fn serve_admin(servers: &mut Servers, listener: TcpListener, status: &Status, stop: CancellationToken) {
    let routes = admin::routes(status.metrics.registry.clone(), status.metrics.readiness.clone());
    servers.spawn(async move {
        let server = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
        server.await.map_err(|e| Error::failed("serve the admin endpoint", e))
    });
}

/// A server that ends before it is told to has failed, whatever it says.
fn early(end: Result<Result<(), Error>, tokio::task::JoinError>) -> Result<(), Error> {
    match end {
        Ok(Ok(())) => Err(Error::failed("serve", "a server ended by itself")),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(Error::failed("serve", error)),
    }
}
