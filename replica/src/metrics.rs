//! What a replica counts, for Prometheus and for the reports to the world. Counters run from the start.

use prometheus::{IntCounter, IntGauge, Opts, Registry};
use tidegate_runtime::admin::Readiness;

use crate::device::Occupied;

/// Counters; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub registry: Registry,
    pub readiness: Readiness,
    pub batches: IntCounter,
    pub rows: IntCounter,
    pub busy_us: IntCounter,
    pub pace_missed: IntCounter,
    pub refused: IntCounter,
    pub failed: IntCounter,
    /// What busy time is a part of.
    pub device_milli: IntGauge,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(Opts::new(format!("tidegate_replica_{name}"), help))?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let device_milli = IntGauge::new("tidegate_replica_device_milli", "Thousandths of its device that it was given")?;
        registry.register(Box::new(device_milli.clone()))?;
        Ok(Self {
            device_milli,
            batches: counter("batches_total", "Requests executed; a router sends a batch as one request")?,
            rows: counter("rows_total", "Rows executed")?,
            busy_us: counter("device_busy_microseconds_total", "Device time used")?,
            pace_missed: counter(
                "pace_missed_total",
                "Batches whose real computation took longer than the simulated device's pace",
            )?,
            refused: counter(
                "refused_total",
                "Requests that do not fit the model, or found the queue full or the replica draining",
            )?,
            failed: counter("failed_total", "Requests that failed in the model")?,
            readiness: Readiness::default(),
            registry,
        })
    }

    /// Counts one executed batch.
    pub fn executed(&self, rows: u64, occupied: Occupied) {
        self.batches.inc();
        self.rows.inc_by(rows);
        self.busy_us.inc_by(u64::try_from(occupied.busy.as_micros()).unwrap_or(u64::MAX));
        self.pace_missed.inc_by(u64::from(occupied.missed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_executed_batch_counts_its_rows_device_time_and_missed_pace() {
        let metrics = Metrics::new().unwrap();
        metrics.executed(3, Occupied { busy: Duration::from_micros(250), missed: true });
        metrics.executed(1, Occupied { busy: Duration::from_micros(50), missed: false });
        let counted = [&metrics.batches, &metrics.rows, &metrics.busy_us, &metrics.pace_missed].map(IntCounter::get);
        assert_eq!(counted, [2, 4, 300, 1]);
        assert_eq!(metrics.registry.gather().len(), 7);
    }
}
