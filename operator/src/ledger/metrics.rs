//! What is counted of the ledger.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tidegate_runtime::ledger::Error;

/// The ledger's metrics; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    lines: IntCounterVec,
    failures: IntCounterVec,
    waiting: IntGauge,
    past: IntCounter,
    remembered: IntGauge,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]);
        Ok(Self {
            lines: counters("tidegate_operator_ledger_lines_total", "Decisions and ends for the ledger, by answer.", "answer")?,
            failures: counters("tidegate_operator_ledger_failures_total", "Failures of the ledger, by category.", "category")?,
            waiting: IntGauge::new("tidegate_operator_ledger_waiting_lines", "Lines that wait to be written.")?,
            past: IntCounter::new("tidegate_operator_ledger_pasts_total", "Times that what the engine has learned was written.")?,
            remembered: IntGauge::new(
                "tidegate_operator_ledger_read",
                "1 once what earlier operators have learned was read from the ledger.",
            )?,
        })
    }

    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.lines.clone()))?;
        registry.register(Box::new(self.failures.clone()))?;
        registry.register(Box::new(self.waiting.clone()))?;
        registry.register(Box::new(self.past.clone()))?;
        registry.register(Box::new(self.remembered.clone()))
    }

    pub(super) fn dropped(&self, count: usize) {
        self.lines.with_label_values(&["dropped"]).inc_by(count as u64);
    }

    pub(super) fn waiting(&self, count: usize) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn written(&self, lines: usize, past: bool) {
        self.lines.with_label_values(&["written"]).inc_by(lines as u64);
        self.past.inc_by(u64::from(past));
    }

    pub(super) fn failed(&self, error: Option<&Error>) {
        self.failures.with_label_values(&[error.map_or("slow", Error::category)]).inc();
    }

    pub(super) fn read(&self) {
        self.remembered.set(1);
    }

    #[cfg(test)]
    pub(super) fn figures(&self) -> (u64, u64) {
        let lines = |answer| self.lines.with_label_values(&[answer]).get();
        (lines("written"), lines("dropped"))
    }
}
