//! What waits to be written. Whoever hands something over never waits.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_core::engine::Past;
use tokio::sync::Notify;

use super::Metrics;
use crate::world::Planned;

/// Lines that wait at most, some 20 MiB: a burst of twenty thousand pods is written down whole while the database restarts.
const MOST_LINES: usize = 50_000;
/// Lines of one transaction.
pub(super) const BATCH: usize = 1_000;

/// A handle; clones are of the same journal.
#[derive(Clone, Debug)]
pub struct Journal {
    waiting: Arc<Mutex<Batch>>,
    more: Arc<Notify>,
    metrics: Metrics,
}

/// What is written at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub lines: VecDeque<Arc<Planned>>,
    /// The latest.
    pub past: Option<Box<Past>>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.past.is_none()
    }

    /// Drops the oldest beyond the bound; how many.
    fn bound(&mut self) -> usize {
        let beyond = self.lines.len().saturating_sub(MOST_LINES);
        self.lines.drain(..beyond).count()
    }
}

impl Journal {
    pub fn new(metrics: Metrics) -> Self {
        Self { waiting: Arc::default(), more: Arc::default(), metrics }
    }

    /// Something was decided, or has ended.
    pub fn line(&self, planned: Arc<Planned>) {
        let mut waiting = self.waiting.lock();
        waiting.lines.push_back(planned);
        self.note(&mut waiting);
    }

    /// What the engine has learned by now.
    pub fn past(&self, past: Past) {
        let mut waiting = self.waiting.lock();
        waiting.past = Some(Box::new(past));
        self.note(&mut waiting);
    }

    fn note(&self, waiting: &mut Batch) {
        self.metrics.dropped(waiting.bound());
        self.metrics.waiting(waiting.lines.len());
        self.more.notify_one();
    }

    /// Waits until there is something to write.
    pub(super) async fn wait(&self) {
        while self.waiting.lock().is_empty() {
            self.more.notified().await;
        }
    }

    /// The oldest lines, and the past if it is new.
    pub(super) fn take(&self) -> Batch {
        let mut waiting = self.waiting.lock();
        let count = waiting.lines.len().min(BATCH);
        let batch = Batch { lines: waiting.lines.drain(..count).collect(), past: waiting.past.take() };
        self.metrics.waiting(waiting.lines.len());
        batch
    }

    /// It could not be written. What is newer stays.
    pub(super) fn give_back(&self, batch: Batch) {
        let mut waiting = self.waiting.lock();
        for line in batch.lines.into_iter().rev() {
            waiting.lines.push_front(line);
        }
        if waiting.past.is_none() {
            waiting.past = batch.past;
        }
        self.note(&mut waiting);
    }
}
