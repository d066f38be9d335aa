//! Writes the journal to the ledger while this process leads. A database that is away or slow is tried again; nobody waits for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use tidegate_core::engine::{Past, RestoreError};
use tidegate_core::state;
use tidegate_runtime::ledger::{Commit, DecisionRow, Error, Lead, Ledger};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::journal::Batch;
use super::{Journal, Metrics, Settings, Shelf, subject};
use crate::lease::Fence;

/// A request to the database takes no longer, or has failed.
const WITHIN: Duration = Duration::from_secs(10);
/// Lines of one moment are written together.
const GATHER: Duration = Duration::from_millis(500);
/// Pauses after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// At the end so long at most: the lease waits, and so does the next one.
const LAST_WRITE: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    /// By what name it leads the ledger: as the lease has it.
    holder: String,
    fence: Fence,
    journal: Journal,
    shelf: Shelf,
    metrics: Metrics,
    open: Option<(Ledger, Lead)>,
    /// Where what was learned before goes, once it is read.
    to: Option<oneshot::Sender<Option<Past>>>,
    failing: bool,
}

/// Why something was not done; `None`: there was no answer.
type Failure = Option<Error>;

impl Keeper {
    /// For a process that leads as long as `fence` says. What was learned before comes as soon as it can be read.
    pub fn new(
        settings: &Settings,
        holder: &str,
        fence: Fence,
        shelf: Shelf,
        metrics: Metrics,
    ) -> (Self, oneshot::Receiver<Option<Past>>) {
        let (to, past) = oneshot::channel();
        let (settings, holder, journal) = (settings.clone(), holder.to_owned(), Journal::new(metrics.clone()));
        (Self { settings, holder, fence, journal, shelf, metrics, open: None, to: Some(to), failing: false }, past)
    }

    /// What it writes.
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Writes until `quit`, then what is left, and closes the ledger.
    pub async fn run(mut self, quit: CancellationToken) {
        let writing = async {
            let mut pause = FIRST_PAUSE;
            loop {
                match self.step().await {
                    Ok(()) => {
                        (pause, self.failing) = (FIRST_PAUSE, false);
                        self.journal.wait().await;
                        sleep(GATHER).await;
                    }
                    Err(failure) => {
                        self.told(failure.as_ref());
                        sleep(pause).await;
                        pause = (pause * 2).min(LAST_PAUSE);
                    }
                }
            }
        };
        quit.run_until_cancelled(writing).await;
        drop(timeout(LAST_WRITE, self.finish()).await);
        *self.shelf.write() = None;
        if let Some((ledger, _)) = self.open.take() {
            drop(timeout(LAST_WRITE, ledger.close()).await);
        }
    }

    async fn finish(&mut self) {
        if self.open.is_some()
            && let Err(failure) = self.step().await
        {
            self.told(failure.as_ref());
        }
    }

    fn told(&mut self, failure: Option<&Error>) {
        self.metrics.failed(failure);
        if !std::mem::replace(&mut self.failing, true) {
            let error = failure.map_or_else(|| "no answer".to_owned(), ToString::to_string);
            tracing::warn!(ledger = %self.settings.place, error, "the ledger cannot be used; scheduling goes on, and it is tried again");
        }
    }

    /// Opens the ledger if it is not, and writes all that waits.
    async fn step(&mut self) -> Result<(), Failure> {
        if self.open.is_none() {
            self.begin().await?;
        }
        loop {
            let batch = self.journal.take();
            if batch.is_empty() {
                return Ok(());
            }
            let writing = Writing { journal: &self.journal, batch: Some(batch) };
            let Some((ledger, lead)) = &self.open else { return Ok(()) };
            if let Err(failure) = write(ledger, lead, writing, &self.metrics).await {
                // The next step takes it again, if this process still leads.
                self.open = self.open.take().filter(|_| !matches!(failure, Some(Error::NotLeader { .. })));
                return Err(failure);
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        // One that slept over the end of its lease takes nothing from the next one.
        if self.fence.left().is_zero() {
            return Err(Some(Error::NotLeader { place: self.settings.place.to_string() }));
        }
        let ledger = self.shelf.read().clone();
        let ledger = match ledger {
            Some(ledger) => ledger,
            None => within(Ledger::at(&self.settings.place, "--ledger", self.settings.keep)).await?,
        };
        let lead = within(ledger.take(&self.holder, now_ms())).await?;
        if let Some(to) = self.to.take_if(|to| !to.is_closed()) {
            let found = within(ledger.value(&name())).await;
            match found {
                Ok(text) => drop(to.send(text.and_then(|text| read(&text)))),
                Err(failure) => {
                    self.to = Some(to);
                    return Err(failure);
                }
            }
            self.metrics.read();
        }
        tracing::info!(ledger = %self.settings.place, epoch = lead.epoch, "writes the ledger");
        *self.shelf.write() = Some(ledger.clone());
        self.open = Some((ledger, lead));
        Ok(())
    }
}

/// A batch that goes back to the journal unless it was written, whatever ends the writing. One whose answer was lost is there twice.
struct Writing<'a> {
    journal: &'a Journal,
    batch: Option<Batch>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.journal.give_back(batch);
        }
    }
}

async fn write(ledger: &Ledger, lead: &Lead, mut writing: Writing<'_>, metrics: &Metrics) -> Result<(), Failure> {
    let Some(batch) = &writing.batch else { return Ok(()) };
    let (lines, past) = (batch.lines.len(), batch.past.is_some());
    within(ledger.commit_as(lead, &commit(batch))).await?;
    writing.batch = None;
    metrics.written(lines, past);
    Ok(())
}

fn commit(batch: &Batch) -> Commit {
    let row = |line: &std::sync::Arc<crate::world::Planned>| {
        let decision = serde_json::to_string(line.as_ref()).ok()?;
        Some(DecisionRow { at_ms: line.at_ms, subject: subject(&line.subject).to_owned(), decision })
    };
    let past = batch.past.as_ref().and_then(|past| past.to_json().ok());
    Commit {
        decisions: batch.lines.iter().filter_map(row).collect(),
        values: past.into_iter().map(|past| (name(), past)).collect(),
        ..Commit::default()
    }
}

/// Of the ledger's values, what the engine has learned: each version has its own, so that going back loses nothing.
fn name() -> String {
    format!("past-{}", state::VERSION)
}

fn read(text: &str) -> Option<Past> {
    match Past::from_json(text) {
        Ok(past) => Some(past),
        Err(error @ (RestoreError::Unreadable(_) | RestoreError::Version { .. })) => {
            tracing::warn!(%error, "what the ledger remembers cannot be read; estimates and past use begin anew");
            None
        }
    }
}

/// Boxed: a request of a database is a large future.
fn within<'a, T: 'a>(request: impl Future<Output = Result<T, Error>> + Send + 'a) -> BoxFuture<'a, Result<T, Failure>> {
    Box::pin(async { timeout(WITHIN, request).await.map_err(|_| None)?.map_err(Some) })
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
