//! The thread that owns the model: it loads it, and then runs one request at a time.
//!
//! A thread of its own, because a run blocks for milliseconds to seconds; one, because two runs would only share the
//! device. Requests wait in a bounded queue; one whose client has gone is dropped unrun.

use std::path::PathBuf;
use std::thread;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use tract_onnx::prelude::Tensor;

use crate::device::Device;
use crate::load::{LoadError, Model, RunError, load};
use crate::metrics::Metrics;
use crate::signature::{Batch, Signature};

/// A router sends a batch or two ahead, and each is at most one run; more waiting here means that nobody holds back.
const LONGEST_QUEUE: usize = 64;

/// A running executor. Dropping it ends the thread after the queued runs.
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    queue: mpsc::Sender<Job>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Job {
    batch: Batch,
    answer: oneshot::Sender<Result<Vec<Tensor>, ExecuteError>>,
}

/// Why a queued request has no answer.
#[derive(Debug, Error)]
pub(crate) enum ExecuteError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("the device cannot be locked: {0}")]
    Device(#[from] std::io::Error),
    #[error("the replica's queue is full; send less at once")]
    QueueFull,
    #[error("the replica is ending")]
    Ended,
}

impl From<ExecuteError> for Status {
    fn from(error: ExecuteError) -> Self {
        let text = error.to_string();
        match error {
            ExecuteError::Run(RunError::Refused(_)) => Self::invalid_argument(text),
            ExecuteError::Run(RunError::Panicked(_)) | ExecuteError::Device(_) => Self::internal(text),
            ExecuteError::QueueFull => Self::resource_exhausted(text),
            ExecuteError::Ended => Self::unavailable(text),
        }
    }
}

/// What a started thread hands over.
#[derive(Debug)]
pub(crate) struct Started {
    pub executor: Executor,
    pub signature: Signature,
    /// Resolves when the thread has ended.
    pub ended: oneshot::Receiver<()>,
}

/// Why the thread never came to serve.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("start the executor thread: {0}")]
    Spawn(#[from] std::io::Error),
    #[error("the executor thread ended while loading")]
    Died,
}

/// Loads the model on a new thread, runs it once for warmth, and hands it over. When the caller stops waiting, the thread
/// ends by itself after loading.
pub(crate) async fn start(onnx: PathBuf, device: Device, metrics: Metrics) -> Result<Started, StartError> {
    let (queue, jobs) = mpsc::channel(LONGEST_QUEUE);
    let (loaded, loading) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let counted = metrics.clone();
    thread::Builder::new().name("executor".to_owned()).spawn(move || {
        match load(&onnx) {
            Ok(model) => {
                warm_up(&model, &device);
                if loaded.send(Ok(model.signature.clone())).is_ok() {
                    work(&model, &device, jobs, &counted);
                }
            }
            Err(error) => drop(loaded.send(Err(error))),
        }
        drop(end);
    })?;
    let signature = loading.await.map_err(|_| StartError::Died)??;
    Ok(Started { executor: Executor { queue, metrics }, signature, ended })
}

/// The first run allocates; no client should wait for that. It occupies the device like any other.
fn warm_up(model: &Model, device: &Device) {
    let ran = model.signature.smallest().map_err(|e| e.to_string()).and_then(|inputs| {
        let occupied = device.occupy(0, || model.run(inputs)).map_err(|e| e.to_string())?;
        occupied.0.map_err(|e| e.to_string())
    });
    if let Err(error) = ran {
        tracing::warn!(error, "the model did not run on zeros of the smallest shape");
    }
}

fn work(model: &Model, device: &Device, mut jobs: mpsc::Receiver<Job>, metrics: &Metrics) {
    while let Some(Job { batch, answer }) = jobs.blocking_recv() {
        if answer.is_closed() {
            continue;
        }
        let rows = u64::try_from(batch.rows).unwrap_or(u64::MAX);
        let result = match device.occupy(rows, || model.run(batch.inputs)) {
            Ok((result, occupied)) => {
                metrics.executed(rows, occupied);
                result.map_err(ExecuteError::from)
            }
            Err(error) => Err(ExecuteError::Device(error)),
        };
        // The client may have gone while the model ran.
        drop(answer.send(result));
    }
}

impl Executor {
    /// Waits for its turn and runs; all outputs, in the plan's order.
    pub async fn run(&self, batch: Batch) -> Result<Vec<Tensor>, ExecuteError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Job { batch, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ExecuteError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => ExecuteError::Ended,
        })?;
        let result = answered.await.unwrap_or(Err(ExecuteError::Ended));
        if result.is_err() {
            self.metrics.failed.inc();
        }
        result
    }
}
