//! The model server: one ONNX model on one device, over the Open Inference Protocol (gRPC).
//!
//! ```text
//!  router --ModelInfer--> service --(bounded queue)--> executor thread --> device (lock, pace) --> tract plan
//!                            ^                             |
//!  world <--ReplicaSession-- session <---- status <--------+  counters
//! ```
//!
//! * [`service`] validates ([`signature`], [`tensor`]); nothing that a client sends can panic or hang a batch.
//! * [`executor`] owns the model ([`load`]): one thread, one run at a time, one plan for all shapes.
//! * [`device`] gives a run the device: several replicas of one device take turns, and a simulated device keeps its pace.
//! * [`session`] tells the world how the replica fares and obeys its wish to drain. The replica serves on without it.
//!
//! Ends: SIGTERM (the shutdown token) and the world's `drain` do the same: nothing new, answer what is in flight, exit 0.

mod args;
mod device;
mod drain;
mod executor;
mod load;
mod metrics;
mod serve;
mod service;
mod session;
mod signature;
mod status;
mod tensor;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use tidegate_runtime::exit::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use args::Args;

/// Serves until `shutdown`, or until the world wishes it to end; with `--inspect` prints the model's tensors.
///
/// # Errors
/// Exit 64 for what a restart cannot mend: arguments, a port in use, a model that tract cannot serve.
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Error> {
    let started = Instant::now();
    if args.inspect {
        return inspect(args.onnx).await;
    }
    let settings = args.validate()?;
    let metrics = metrics::Metrics::new().map_err(|e| Error::failed("register metrics", e))?;
    let status = status::Status::new(metrics);
    let tasks = TaskTracker::new();
    let session_end = CancellationToken::new();
    let drain = shutdown.child_token();
    if let Some(control) = settings.control.clone() {
        let identity = session::Identity {
            replica_id: settings.replica_id.clone(),
            model: settings.model.clone(),
            token: settings.control_token.clone(),
        };
        tasks.spawn(session::run(control, identity, status.clone(), drain.clone(), session_end.clone()));
    }
    let served = serve::serve(&settings, &status, started, drain).await;
    if let Err(error) = &served {
        status.failed(error.to_string());
    }
    session_end.cancel();
    tasks.close();
    tasks.wait().await;
    served
}

/// Prints one JSON object with the model's tensors.
async fn inspect(onnx: PathBuf) -> Result<(), Error> {
    let model = tokio::task::spawn_blocking(move || load::load(&onnx))
        .await
        .map_err(|e| Error::failed("load the model", e))?
        .map_err(|e| Error::Usage(e.to_string()))?;
    let mut line = serde_json::to_vec(&model.signature.info()).map_err(|e| Error::failed("encode the model's tensors", e))?;
    line.push(b'\n');
    std::io::stdout().write_all(&line).map_err(|e| Error::failed("print the model's tensors", e))
}
