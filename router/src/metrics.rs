//! The router's own metrics, served at `/router/metrics`.
//!
//! Labels are bounded: `model` is a configured model (or `unknown`), `outcome` is [`Outcome`].

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tidegate_core::serving::Micros;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Inside the SLO.
    Answered,
    /// After the SLO.
    Late,
    /// After it was held for a replica.
    Woken,
    /// Refused: too many wait.
    QueueFull,
    /// Refused: the deadline cannot be met.
    Deadline,
    /// Refused: the model is paused.
    Paused,
    /// Refused: the model was removed while it waited.
    Gone,
    /// The request is malformed.
    Invalid,
    /// The model or every replica failed.
    Failed,
    /// The client went away while it waited.
    Disconnected,
}

impl Outcome {
    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Late => "late",
            Self::Woken => "woken",
            Self::QueueFull => "queue_full",
            Self::Deadline => "deadline",
            Self::Paused => "paused",
            Self::Gone => "gone",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
            Self::Disconnected => "disconnected",
        }
    }
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    retries: IntCounterVec,
    queue_wait: HistogramVec,
    service: HistogramVec,
    batch_rows: HistogramVec,
    queued: IntGaugeVec,
    held: IntGaugeVec,
    in_flight: IntGaugeVec,
    /// Connections of clients.
    pub connections: IntGauge,
    /// 1 while a session with the world stands.
    pub control_connected: IntGauge,
    /// Version of the configuration in use.
    pub config_version: IntGauge,
}

/// From half a millisecond to ten minutes, doubling.
fn seconds() -> Vec<f64> {
    (0..21).map(|n| 0.0005 * f64::powi(2.0, n)).collect()
}

fn powers_of_two() -> Vec<f64> {
    (0..11).map(|n| f64::powi(2.0, n)).collect()
}

impl Metrics {
    /// Registers everything in a registry of its own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        let gauges = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let vec = IntGaugeVec::new(Opts::new(name, help), &["model"])?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let histograms = |name: &str, help: &str, buckets: Vec<f64>| -> Result<HistogramVec, prometheus::Error> {
            let vec = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &["model"])?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        Ok(Self {
            requests: counters("tidegate_router_requests_total", "Requests by how they ended.", &["model", "outcome"])?,
            retries: counters("tidegate_router_retries_total", "Requests sent again after a replica was lost.", &["model"])?,
            queue_wait: histograms("tidegate_router_queue_wait_seconds", "From arrival until the batch left.", seconds())?,
            service: histograms("tidegate_router_service_seconds", "A batch at its replica, transport included.", seconds())?,
            batch_rows: histograms("tidegate_router_batch_rows", "Rows of a batch.", powers_of_two())?,
            queued: gauges("tidegate_router_queued_requests", "Requests waiting.")?,
            held: gauges("tidegate_router_held_requests", "Requests waiting because no replica serves.")?,
            in_flight: gauges("tidegate_router_in_flight_requests", "Requests at a replica.")?,
            connections: gauge("tidegate_router_connections", "Open connections of clients.")?,
            control_connected: gauge("tidegate_router_control_connected", "1 while a session with the world stands.")?,
            config_version: gauge("tidegate_router_config_version", "Version of the configuration in use.")?,
            registry,
        })
    }

    /// For scrapes.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Those of one model, looked up once.
    pub fn model(&self, name: &str) -> ModelMetrics {
        ModelMetrics {
            requests: self.requests.clone(),
            name: name.to_owned(),
            retries: self.retries.with_label_values(&[name]),
            queue_wait: self.queue_wait.with_label_values(&[name]),
            service: self.service.with_label_values(&[name]),
            batch_rows: self.batch_rows.with_label_values(&[name]),
            queued: self.queued.with_label_values(&[name]),
            held: self.held.with_label_values(&[name]),
            in_flight: self.in_flight.with_label_values(&[name]),
        }
    }

    /// A request for a model that is not configured. Names from clients are not bounded, so they share a label.
    pub fn unknown_model(&self) {
        self.requests.with_label_values(&["unknown", Outcome::Invalid.label()]).inc();
    }
}

/// The metrics of one model.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    requests: IntCounterVec,
    name: String,
    retries: IntCounter,
    queue_wait: Histogram,
    service: Histogram,
    batch_rows: Histogram,
    queued: IntGauge,
    held: IntGauge,
    in_flight: IntGauge,
}

impl ModelMetrics {
    /// A request ended.
    pub fn ended(&self, outcome: Outcome) {
        self.requests.with_label_values(&[self.name.as_str(), outcome.label()]).inc();
    }

    /// A request is sent again.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// A request left the queue after so long.
    pub fn queue_wait(&self, waited: Micros) {
        self.queue_wait.observe(in_seconds(waited));
    }

    /// A batch came back.
    pub fn batch(&self, rows: u32, service: Micros) {
        self.batch_rows.observe(f64::from(rows));
        self.service.observe(in_seconds(service));
    }

    /// Current levels.
    pub fn levels(&self, queued: u32, held: u32, in_flight: u32) {
        self.queued.set(i64::from(queued));
        self.held.set(i64::from(held));
        self.in_flight.set(i64::from(in_flight));
    }
}

fn in_seconds(time: Micros) -> f64 {
    std::time::Duration::from_micros(time).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_appears_with_its_labels() {
        let metrics = Metrics::new().unwrap();
        let model = metrics.model("digits");
        model.ended(Outcome::Late);
        model.retried();
        model.queue_wait(1_500);
        model.batch(8, 20_000);
        model.levels(3, 2, 1);
        metrics.connections.set(5);
        metrics.unknown_model();
        let text = prometheus::TextEncoder::new().encode_to_string(&metrics.registry().gather()).unwrap();
        for line in [
            r#"tidegate_router_requests_total{model="digits",outcome="late"} 1"#,
            r#"tidegate_router_requests_total{model="unknown",outcome="invalid"} 1"#,
            r#"tidegate_router_retries_total{model="digits"} 1"#,
            r#"tidegate_router_queue_wait_seconds_sum{model="digits"} 0.0015"#,
            r#"tidegate_router_service_seconds_sum{model="digits"} 0.02"#,
            r#"tidegate_router_batch_rows_bucket{model="digits",le="8"} 1"#,
            r#"tidegate_router_queued_requests{model="digits"} 3"#,
            r#"tidegate_router_held_requests{model="digits"} 2"#,
            r#"tidegate_router_in_flight_requests{model="digits"} 1"#,
            "tidegate_router_connections 5",
            "tidegate_router_control_connected 0",
            "tidegate_router_config_version 0",
        ] {
            assert!(text.contains(line), "{line} is missing from\n{text}");
        }
    }
}
