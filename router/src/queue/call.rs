//! One batch on its way: sent, answered, cut into the answers of its requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_core::serving::{Entry, Micros};
use tokio::sync::oneshot;

use super::assemble::{assemble, split};
use super::upstream::{CallError, Upstream};
use super::{Answer, Failure, Request};
use crate::clock::micros;
use crate::model::spec::ModelSpec;
use crate::tensor::Output;

/// A request with the way back to its handler.
#[derive(Debug)]
pub struct Pending {
    pub request: Request,
    pub reply: oneshot::Sender<Result<Answer, Failure>>,
}

/// A batch that is to be sent.
pub struct Call {
    pub spec: Arc<ModelSpec>,
    pub upstream: Upstream,
    pub replica: Arc<str>,
    pub entries: Vec<Entry<Pending>>,
    /// When it left the queue.
    pub left: Micros,
    pub timeout: Duration,
}

/// A batch that came back.
pub struct Returned {
    pub replica: Arc<str>,
    pub entries: Vec<Entry<Pending>>,
    pub left: Micros,
    pub rows: u32,
    pub service: Micros,
    pub result: Result<Vec<Vec<Output>>, CallError>,
}

impl Call {
    /// Sends the batch. Never fails as such: the result tells.
    pub async fn run(self) -> Returned {
        let Self { spec, mut upstream, replica, entries, left, timeout } = self;
        let requests: Vec<&Request> = entries.iter().map(|e| &e.item.request).collect();
        let batch = assemble(&spec, &requests);
        let rows: Vec<u32> = entries.iter().map(|e| e.rows).collect();
        let start = Instant::now();
        let answer = upstream.infer(batch, timeout).await;
        let service = micros(start.elapsed());
        let result = answer.and_then(|response| {
            split(&spec, response, &rows).map_err(|mistake| CallError::Refused(tonic::Status::internal(mistake)))
        });
        Returned { replica, entries, left, rows: rows.iter().sum(), service, result }
    }
}
