//! The queue of one model: a handle for the protocols, and one owner task that decides.
//!
//! ```text
//!   protocol handler -- Submission --> [mpsc, bounded] --> Owner --> Call (one task a batch) --> replica
//!          ^                                                |  ^                |
//!          +---------------- oneshot: Answer | Failure -----+  +-- Returned ----+
//! ```
//!
//! A handler that goes away (its client disconnected) closes its oneshot; the owner then takes the
//! request out of the queue.

mod assemble;
mod call;
mod owner;
mod upstream;

use std::sync::Arc;

use thiserror::Error;
use tidegate_core::serving::Micros;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::metrics::{Metrics, ModelMetrics};
use crate::model::spec::ModelSpec;
use crate::model::stats::ModelStats;
use crate::tensor::{Output, Tensor};

/// Submissions that may wait for the owner to look at them. It looks within microseconds; a burst
/// beyond this is an overload and is refused.
const MAILBOX: usize = 1024;

/// A checked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In the order of the model's inputs.
    pub tensors: Vec<Tensor>,
    pub rows: u32,
    /// Length of the rows where they may be padded, 1 elsewhere.
    pub length: u32,
    /// Free dimensions that a batch must agree on.
    pub shape: Vec<i64>,
    /// Must not share a batch.
    pub alone: bool,
    /// The client's own deadline from arrival.
    pub timeout: Option<Micros>,
}

/// A request on its way to the owner.
#[derive(Debug)]
struct Submission {
    request: Request,
    arrived: Micros,
    reply: oneshot::Sender<Result<Answer, Failure>>,
}

/// What the model said, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub outputs: Vec<Output>,
    pub replica: Arc<str>,
    /// Rows of the batch that it was part of.
    pub batch_rows: u32,
    /// From arrival until its batch left.
    pub queue_us: Micros,
    /// It was held while the model had no replica.
    pub woken: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    #[error("the queue of the model is full")]
    QueueFull { retry_after: Micros },
    #[error("the request cannot be answered by its deadline")]
    Deadline { retry_after: Micros },
    #[error("the request is larger than a batch of the model may be")]
    TooLarge,
    #[error("the model is paused")]
    Paused,
    #[error("the model is no longer served here")]
    Gone,
    #[error("no replica could answer: {0}")]
    Unavailable(String),
    /// The model refused this request.
    #[error("{0}")]
    Rejected(String),
    /// The model failed on this request.
    #[error("{0}")]
    Model(String),
}

/// What the owners share.
#[derive(Clone, Debug)]
pub struct Shared {
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    /// Told when a request came for a model without replicas: the world should know at once.
    pub waking: Arc<Notify>,
    pub tasks: TaskTracker,
}

/// The way to a model's owner task.
#[derive(Clone, Debug)]
pub struct Handle {
    submissions: mpsc::Sender<Submission>,
    spec: watch::Sender<Arc<ModelSpec>>,
    abandoned: Arc<Notify>,
    closed: CancellationToken,
    pub stats: Arc<ModelStats>,
    pub metrics: Arc<ModelMetrics>,
    clock: Clock,
}

impl Handle {
    /// Starts the owner of a model on the shared task group.
    pub fn start(spec: Arc<ModelSpec>, shared: &Shared) -> Self {
        let (submissions, inbox) = mpsc::channel(MAILBOX);
        let stats = Arc::new(ModelStats::new(&spec.name));
        let metrics = Arc::new(shared.metrics.model(&spec.name));
        let (spec, specs) = watch::channel(spec);
        let abandoned = Arc::new(Notify::new());
        let owner = owner::Owner::new(specs, abandoned.clone(), stats.clone(), metrics.clone(), shared);
        let closed = CancellationToken::new();
        shared.tasks.spawn(owner.run(inbox, closed.clone()));
        Self { submissions, spec, abandoned, closed, stats, metrics, clock: shared.clock }
    }

    /// A new configuration of the same model.
    pub fn configure(&self, spec: Arc<ModelSpec>) {
        self.spec.send_replace(spec);
    }

    /// The model is no longer served: the owner refuses those who wait, lets batches come back, and ends.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Whether both lead to the same owner.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stats, &other.stats)
    }

    /// Queues a request and waits for its end.
    pub async fn infer(&self, request: Request) -> Result<Answer, Failure> {
        let (reply, answer) = oneshot::channel();
        let submission = Submission { request, arrived: self.clock.now(), reply };
        match self.submissions.try_send(submission) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Failure::QueueFull { retry_after: 1_000_000 }),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Failure::Gone),
        }
        let mut waiting = Waiting { abandoned: &self.abandoned, over: false };
        let end = answer.await;
        waiting.over = true;
        end.unwrap_or(Err(Failure::Gone))
    }
}

/// Tells the owner when its handler goes away early.
struct Waiting<'a> {
    abandoned: &'a Notify,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.abandoned.notify_one();
        }
    }
}
