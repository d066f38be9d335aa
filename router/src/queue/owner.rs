//! The task that owns a model's queue: it feeds events to the pure decisions and carries them out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::serving::{Endpoints, Entry, Micros, ModelQueue, Next, Offer, Refusal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::call::{Call, Pending, Returned};
use super::upstream::{CallError, Upstream};
use super::{Answer, Failure, Shared, Submission};
use crate::clock::Clock;
use crate::metrics::{ModelMetrics, Outcome};
use crate::model::spec::ModelSpec;
use crate::model::stats::{Ended, ModelStats};
use crate::tensor::Output;

/// Times that a request may be sent again after its replica was lost.
const MAX_RETRIES: u32 = 2;
/// Submissions taken in one go before batches are formed: a burst becomes one batch, not many.
const INTAKE: usize = 256;
/// A replica that is silent for so long, or twice the SLO if longer, has hung: its batch goes elsewhere.
const HUNG_AFTER: Duration = Duration::from_secs(10);

/// All that the owner knows.
pub struct Owner {
    spec: Arc<ModelSpec>,
    specs: watch::Receiver<Arc<ModelSpec>>,
    queue: ModelQueue<Pending>,
    endpoints: Endpoints,
    upstreams: HashMap<String, Upstream>,
    calls: JoinSet<Returned>,
    abandoned: Arc<Notify>,
    stats: Arc<ModelStats>,
    metrics: Arc<ModelMetrics>,
    waking: Arc<Notify>,
    clock: Clock,
}

impl Owner {
    /// An owner that has seen nothing but its configuration.
    pub fn new(
        specs: watch::Receiver<Arc<ModelSpec>>,
        abandoned: Arc<Notify>,
        stats: Arc<ModelStats>,
        metrics: Arc<ModelMetrics>,
        shared: &Shared,
    ) -> Self {
        let spec = specs.borrow().clone();
        let mut owner = Self {
            queue: ModelQueue::new(spec.limits.clone()),
            spec,
            specs,
            endpoints: Endpoints::default(),
            upstreams: HashMap::new(),
            calls: JoinSet::new(),
            abandoned,
            stats,
            metrics,
            waking: shared.waking.clone(),
            clock: shared.clock,
        };
        owner.configure();
        owner
    }

    /// Serves until `closed`, and then until every batch came back.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Submission>, closed: CancellationToken) {
        let mut burst = Vec::with_capacity(INTAKE);
        loop {
            let wake = self.decide();
            tokio::select! {
                biased;
                Some(returned) = self.calls.join_next(), if !self.calls.is_empty() => self.returned(returned),
                taken = inbox.recv_many(&mut burst, INTAKE) => {
                    if taken == 0 {
                        break;
                    }
                    burst.drain(..).for_each(|submission| self.submit(submission));
                }
                Ok(()) = self.specs.changed() => self.configure(),
                () = self.abandoned.notified() => self.sweep(),
                () = closed.cancelled() => break,
                () = sleep_until(self.clock, wake) => {}
            }
        }
        inbox.close();
        while let Ok(submission) = inbox.try_recv() {
            drop(submission.reply.send(Err(Failure::Gone)));
        }
        self.refuse_all();
        while let Some(returned) = self.calls.join_next().await {
            self.returned(returned);
            self.refuse_all();
        }
        self.publish();
    }

    fn refuse_all(&mut self) {
        for entry in self.queue.drain() {
            self.end(entry.item.reply, Err(Failure::Gone), Ended::Refused, Outcome::Gone);
        }
    }

    /// Refuses what is too late, sends what is ready, and tells when to look again.
    fn decide(&mut self) -> Option<Micros> {
        let now = self.clock.now();
        let supply = self.endpoints.supply(now);
        self.queue.set_serving(!supply.free_at.is_empty());
        for entry in self.queue.expire(now) {
            let retry_after = self.queue.fit().predict(self.spec.limits.max_rows).unwrap_or(1_000_000);
            let ended = shed(entry.rows, entry.woken);
            self.end(entry.item.reply, Err(Failure::Deadline { retry_after }), ended, Outcome::Deadline);
        }
        let until = loop {
            match self.queue.next(now, self.endpoints.ready(now)) {
                Next::Batch(entries) => self.send(now, entries),
                Next::Wait { until } => break until,
            }
        };
        self.publish();
        let backoff_ends = if self.queue.is_empty() { None } else { self.endpoints.next_change(now) };
        [until, backoff_ends].into_iter().flatten().min()
    }

    fn submit(&mut self, submission: Submission) {
        let now = self.clock.now();
        let Submission { request, arrived, reply } = submission;
        let rows = request.rows;
        self.stats.arrived(now, rows);
        let supply = self.endpoints.supply(now);
        if self.spec.paused {
            return self.end(reply, Err(Failure::Paused), Ended::Refused, Outcome::Paused);
        }
        let offer = Offer {
            rows,
            length: request.length,
            bytes: request.tensors.iter().map(|t| t.data.len() as u64).sum(),
            shape: request.shape.clone(),
            alone: request.alone,
            arrived,
            timeout: request.timeout,
            item: Pending { request, reply },
        };
        match self.queue.push(now, offer, &supply) {
            // The first of those held wakes the model; for the others it is already on its way.
            Ok(_) if self.queue.held() == 1 => self.waking.notify_one(),
            Ok(_) => {}
            Err((refusal, pending)) => {
                let shed = shed(rows, supply.free_at.is_empty());
                let (failure, ended, outcome) = match refusal {
                    Refusal::QueueFull { retry_after } => (Failure::QueueFull { retry_after }, shed, Outcome::QueueFull),
                    Refusal::DeadlineCannotBeMet { needs } => (Failure::Deadline { retry_after: needs }, shed, Outcome::Deadline),
                    Refusal::TooLarge => (Failure::TooLarge, Ended::Refused, Outcome::Invalid),
                };
                self.end(pending.reply, Err(failure), ended, outcome);
            }
        }
    }

    fn send(&mut self, now: Micros, entries: Vec<Entry<Pending>>) {
        let replica = self.endpoints.pick(now).map(str::to_owned);
        let upstream = replica.as_ref().and_then(|id| self.upstreams.get(id));
        let (Some(replica), Some(upstream)) = (replica.clone(), upstream.cloned()) else {
            // An endpoint without a connection cannot be configured; should it be, it is avoided like a dead one.
            if let Some(id) = replica {
                self.endpoints.failed(&id, now);
            }
            return self.put_back(entries);
        };
        let rows: u32 = entries.iter().map(|e| e.rows).sum();
        let expected = self.queue.fit().predict(rows).unwrap_or(0);
        self.endpoints.started(&replica, now, now.saturating_add(expected));
        for entry in &entries {
            self.metrics.queue_wait(now.saturating_sub(entry.arrived));
        }
        let call = Call {
            spec: self.spec.clone(),
            upstream,
            replica: replica.into(),
            entries,
            left: now,
            timeout: HUNG_AFTER.max(Duration::from_micros(self.spec.limits.slo_us.saturating_mul(2))),
        };
        self.calls.spawn(call.run());
    }

    fn put_back(&mut self, entries: Vec<Entry<Pending>>) {
        for entry in entries {
            self.queue.push_back(entry);
        }
    }

    fn returned(&mut self, returned: Result<Returned, tokio::task::JoinError>) {
        let now = self.clock.now();
        let Returned { replica, entries, left, rows, service, result } = match returned {
            Ok(returned) => returned,
            Err(e) => return tracing::error!(model = self.spec.name, "a batch was lost inside the router: {e}"),
        };
        match result {
            Ok(answers) => {
                self.endpoints.finished(&replica);
                self.queue.answered(now, entries.len(), rows, Some(service));
                self.stats.batch(rows, self.queue.fit());
                self.metrics.batch(rows, service);
                for (entry, outputs) in entries.into_iter().zip(answers) {
                    self.answer(now, left, rows, &replica, entry, outputs);
                }
            }
            Err(CallError::Lost { status, sent }) => {
                self.endpoints.failed(&replica, now);
                tracing::warn!(model = self.spec.name, %replica, rows, "a replica was lost with a batch: {status}");
                self.queue.set_serving(!self.endpoints.supply(now).free_at.is_empty());
                for entry in entries {
                    self.again(entry, &status, sent);
                }
                if self.queue.held() > 0 {
                    self.waking.notify_one();
                }
            }
            Err(CallError::Refused(status)) => {
                self.endpoints.finished(&replica);
                self.refused_by_model(now, entries, &status);
            }
        }
    }

    fn answer(&self, now: Micros, left: Micros, rows: u32, replica: &Arc<str>, entry: Entry<Pending>, outputs: Vec<Output>) {
        let latency = now.saturating_sub(entry.arrived);
        let late = latency > self.spec.limits.slo_us;
        let answer = Answer {
            outputs,
            replica: replica.clone(),
            batch_rows: rows,
            queue_us: left.saturating_sub(entry.arrived),
            woken: entry.woken,
        };
        let outcome = if entry.woken {
            Outcome::Woken
        } else if late {
            Outcome::Late
        } else {
            Outcome::Answered
        };
        self.end(entry.item.reply, Ok(answer), Ended::Answered { rows: entry.rows, latency, late, woken: entry.woken }, outcome);
    }

    /// Sends a request once more, unless it was sent too often. One that reached no replica waits for
    /// another as long as its deadline allows.
    fn again(&mut self, mut entry: Entry<Pending>, status: &Status, sent: bool) {
        if !sent || entry.attempts < MAX_RETRIES {
            entry.attempts += u32::from(sent);
            self.metrics.retried();
            self.queue.push_back(entry);
        } else {
            self.queue.forget(1);
            let failure = Failure::Unavailable(status.message().to_owned());
            self.end(entry.item.reply, Err(failure), Ended::Failed, Outcome::Failed);
        }
    }

    /// One bad request fails alone: a batch of several is taken apart and each is sent by itself.
    fn refused_by_model(&mut self, now: Micros, entries: Vec<Entry<Pending>>, status: &Status) {
        if entries.len() > 1 {
            tracing::debug!(model = self.spec.name, requests = entries.len(), "a batch failed, each goes alone: {status}");
            for mut entry in entries {
                entry.alone = true;
                self.queue.push_back(entry);
            }
            return;
        }
        self.queue.answered(now, entries.len(), 0, None);
        for entry in entries {
            let message = status.message().to_owned();
            let failure =
                if status.code() == Code::InvalidArgument { Failure::Rejected(message) } else { Failure::Model(message) };
            self.end(entry.item.reply, Err(failure), Ended::Failed, Outcome::Failed);
        }
    }

    fn end(
        &self,
        reply: tokio::sync::oneshot::Sender<Result<Answer, Failure>>,
        end: Result<Answer, Failure>,
        ended: Ended,
        outcome: Outcome,
    ) {
        self.stats.ended(self.clock.now(), ended);
        self.metrics.ended(outcome);
        // The handler may be gone with its client; then nobody needs the answer.
        drop(reply.send(end));
    }

    fn sweep(&mut self) {
        for entry in self.queue.remove_if(|pending| pending.reply.is_closed()) {
            self.stats.ended(self.clock.now(), Ended::Failed);
            self.metrics.ended(Outcome::Disconnected);
            drop(entry);
        }
    }

    fn configure(&mut self) {
        self.spec = self.specs.borrow_and_update().clone();
        self.queue.set_limits(self.spec.limits.clone());
        for endpoint in &self.spec.endpoints {
            if self.upstreams.get(&endpoint.replica).is_none_or(|u| u.address() != endpoint.address) {
                match Upstream::new(&endpoint.address) {
                    Ok(upstream) => drop(self.upstreams.insert(endpoint.replica.clone(), upstream)),
                    Err(e) => tracing::error!(model = self.spec.name, address = endpoint.address, "not an address: {e}"),
                }
            }
        }
        self.upstreams.retain(|id, _| self.spec.endpoints.iter().any(|e| e.replica == *id));
        let known = self.spec.endpoints.iter().filter(|e| self.upstreams.contains_key(&e.replica));
        self.endpoints.replace(known.map(|e| (e.replica.as_str(), e.draining)));
        if self.spec.paused {
            for entry in self.queue.drain() {
                self.end(entry.item.reply, Err(Failure::Paused), Ended::Refused, Outcome::Paused);
            }
        }
    }

    fn publish(&self) {
        let level = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (queued, held, in_flight) = (level(self.queue.len()), level(self.queue.held()), self.queue.in_flight());
        self.stats.levels(queued, held, in_flight);
        self.metrics.levels(queued, held, in_flight);
    }
}

/// A refusal for lack of time. While nothing serves it is no matter of head-room, as for woken requests.
fn shed(rows: u32, asleep: bool) -> Ended {
    if asleep { Ended::Refused } else { Ended::Shed { rows } }
}

async fn sleep_until(clock: Clock, at: Option<Micros>) {
    match at {
        Some(at) => tokio::time::sleep_until(clock.instant(at)).await,
        None => std::future::pending().await,
    }
}
