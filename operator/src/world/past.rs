//! What outlives this world: what its engine learns, and what becomes of its work.

use std::time::Duration;

use tidegate_api::view::Span;
use tidegate_core::engine::Past;
use tidegate_core::names::{DeviceId, JobName, ReplicaId};
use tidegate_core::time::At;
use tidegate_core::{Event, JobExit};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Planned, World};
use crate::args::Mode;
use crate::ledger::Journal;

/// Before the first decision the past is waited for so long; then it comes later, or never.
const WAITED_FOR: Duration = Duration::from_secs(3);
/// How often what the engine has learned is written: that much of it a crash loses.
const EVERY_MS: u64 = 30_000;
/// Ended spans that the page shows: it looks back some minutes.
const SPANS: usize = 4_000;
/// Jobs of pods that others have placed: their ends are not ours to tell.
const OTHERS: &str = "foreign/";

/// Where history comes from and goes to.
#[derive(Debug, Default)]
pub(super) struct Memory {
    journal: Option<Journal>,
    coming: Option<oneshot::Receiver<Option<Past>>>,
    written: At,
}

impl Memory {
    /// What was learned before, when it comes; waits for ever if it has come, or never will.
    pub async fn comes(&mut self) -> Option<Past> {
        let Some(coming) = &mut self.coming else { return std::future::pending().await };
        let past = coming.await.ok().flatten();
        self.coming = None;
        past
    }
}

impl World {
    /// Goes on with what was learned before, and writes down what is.
    #[must_use]
    pub fn with_history(mut self, journal: Journal, coming: oneshot::Receiver<Option<Past>>) -> Self {
        self.memory = Memory { journal: Some(journal), coming: Some(coming), written: self.now() };
        self
    }

    /// Waits a moment for what was learned before, so that the first decision knows it.
    pub(super) async fn recall(&mut self, shutdown: &CancellationToken) {
        if self.memory.coming.is_none() {
            return;
        }
        let comes = timeout(WAITED_FOR, self.memory.comes());
        match shutdown.run_until_cancelled(comes).await {
            Some(Ok(past)) => self.remember(past),
            Some(Err(_)) => {
                tracing::warn!("the ledger does not answer: it is decided without what was learned before until it does");
            }
            None => {}
        }
    }

    pub(super) fn remember(&mut self, past: Option<Past>) {
        let Some(past) = past else { return };
        tracing::info!(age_ms = self.now().since(past.at), "goes on with what was learned before");
        self.engine.remember(self.now(), past);
    }

    /// Now and then what the engine has learned goes to the ledger.
    pub(super) fn write_past(&mut self, at: At) {
        if at.since(self.memory.written) >= EVERY_MS {
            self.write_last_past();
        }
    }

    /// The same at once; not before everything was listed: what is not known yet would be forgotten.
    pub(super) fn write_last_past(&mut self) {
        let Some(journal) = self.memory.journal.as_ref().filter(|_| self.missing.is_empty() && self.mode == Mode::Act) else {
            return;
        };
        // One that could not be read yet is not written over.
        if self.memory.coming.is_none() {
            journal.past(self.engine.past());
        }
        self.memory.written = self.now();
    }

    /// A line for the ledger.
    pub(super) fn write_line(&self, planned: &std::sync::Arc<Planned>) {
        if let Some(journal) = &self.memory.journal {
            journal.line(planned.clone());
        }
    }

    /// What ends is history: a line of the ledger, and spans of the page.
    pub(super) fn note_end(&mut self, event: &Event, at: At) {
        match event {
            Event::JobExited { name, attempt, exit } => self.job_ends(name, *attempt, *exit, at),
            Event::ReplicaExited { id, .. } => self.replica_ends(id, at),
            _ => {}
        }
    }

    fn job_ends(&mut self, name: &JobName, attempt: u32, exit: JobExit, at: At) {
        let state = self.engine.state();
        let Some(run) = state.jobs.get(name).and_then(|job| job.run()).filter(|run| run.attempt == attempt) else { return };
        let devices: Vec<DeviceId> =
            run.seats.iter().flat_map(|seat| state.devices_of(seat)).map(|device| device.id.clone()).collect();
        let nodes = run.seats.iter().filter_map(|seat| state.nodes.name(seat.node)).map(ToString::to_string).collect();
        let (since, gpus) = (run.since, devices.len());
        self.ended("job", &name.0, devices, since, at);
        if !name.0.starts_with(OTHERS) {
            let (category, how) = match exit {
                JobExit::Succeeded => ("succeeded", "all of its pods are done"),
                JobExit::Stopped => ("stopped", "it was told to end"),
                JobExit::Failed => ("failed", "a pod of it failed or went away"),
                JobExit::Refused => ("refused", "a kubelet would not have a pod of it, as others had its room"),
            };
            let reason = format!("{how}, after {} s on {gpus} GPUs", at.since(since) / 1_000);
            let subject = format!("job/{name}");
            self.write_line(&Planned { at_ms: at.0, action: "job_ended", subject, nodes, reason, category }.into());
        }
    }

    fn replica_ends(&mut self, id: &ReplicaId, at: At) {
        let state = self.engine.state();
        let Some(replica) = state.replicas.get(id) else { return };
        let devices = state.devices_of(&replica.seat).map(|device| device.id.clone()).collect();
        let (model, since) = (replica.model.to_string(), replica.since);
        self.ended("model", &model, devices, since, at);
    }

    fn ended(&mut self, kind: &str, name: &str, devices: Vec<DeviceId>, since: At, at: At) {
        for device in devices {
            let (device, kind, name) = (device.to_string(), kind.to_owned(), name.to_owned());
            let span = Span { device, kind, name, lent: false, from_ms: since.0, to_ms: Some(at.0) };
            self.spans.push_back(span.into());
            if self.spans.len() > SPANS {
                self.spans.pop_front();
            }
        }
    }
}
