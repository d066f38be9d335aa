//! What became of a day's requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The figures of a day. `requests_sent` = `answered` + `refused` + `failed` + `lost` + `unfinished`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub models: BTreeMap<String, ModelReport>,
    pub totals: Totals,
    /// Models of the script that the server does not have, or that were left out on request.
    pub skipped: Vec<String>,
    /// From the start to now, or to the last answer.
    pub elapsed_ms: u64,
    /// The longest that a request was sent after its time because this client was busy.
    pub max_send_lag_ms: u64,
    /// The start, in milliseconds since the Unix epoch: `sent_ms` counts from it.
    pub started_unix_ms: u64,
}

/// Counts of requests.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub requests_sent: u64,
    /// Status 200 with the right body, in time or late.
    pub answered: u64,
    /// 429 or 503 with `Retry-After` and an error body.
    pub refused: u64,
    /// Any other answer.
    pub failed: u64,
    /// No answer: connection reset, refused for 10 s, or nothing for 60 s.
    pub lost: u64,
    /// Answered after the SLO; woken ones after the larger of SLO and cold start budget.
    pub late: u64,
    /// Answered, and held while the model had no ready replica.
    pub woken: u64,
    /// Not sent, because this client had too many in flight.
    pub client_saturated: u64,
    /// Refused connections that were tried again; nothing had been sent.
    pub connect_retries: u64,
    /// Sent, and not ended when the report was made.
    pub unfinished: u64,
}

/// The figures of one model. Latency counts from the time at which a request was due.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ModelReport {
    #[serde(flatten)]
    pub totals: Totals,
    /// Of answered requests that were not woken.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Likewise by phase of the day, if it was asked for: of requests that were due in it; 0 of none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phase_p99_ms: Vec<f64>,
    /// Of woken requests.
    pub woken_max_ms: f64,
    pub slo_ms: u64,
    pub cold_start_budget_ms: u64,
    /// Rows of a batch on average over batches; 0 when the server does not say.
    pub mean_batch: f64,
    /// The highest rate over any of the 5 s windows from the start.
    pub peak_rps: f64,
    /// When and why, for the first thousand.
    pub lost_requests: Vec<LostRequest>,
    /// Likewise of requests that got another answer.
    pub failed_requests: Vec<LostRequest>,
}

/// A request without a right answer, with its window, so that a crash can be found inside it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct LostRequest {
    /// Milliseconds after the start of the day.
    pub sent_ms: u64,
    pub ended_ms: u64,
    pub error: String,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { requests_sent, answered, refused, failed, lost, late, woken, client_saturated, connect_retries, unfinished } =
            other;
        self.requests_sent += requests_sent;
        self.answered += answered;
        self.refused += refused;
        self.failed += failed;
        self.lost += lost;
        self.late += late;
        self.woken += woken;
        self.client_saturated += client_saturated;
        self.connect_retries += connect_retries;
        self.unfinished += unfinished;
    }
}

impl std::fmt::Display for Report {
    /// A table for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:<20} {:>8} {:>8} {:>7} {:>6} {:>5} {:>5} {:>6} {:>8} {:>8} {:>7} {:>6} {:>6}",
            "model",
            "sent",
            "answered",
            "refused",
            "failed",
            "lost",
            "late",
            "woken",
            "p50 ms",
            "p99 ms",
            "SLO ms",
            "batch",
            "peak/s"
        )?;
        for (name, model) in &self.models {
            let Totals { requests_sent, answered, refused, failed, lost, late, woken, .. } = &model.totals;
            writeln!(
                f,
                "{name:<20} {requests_sent:>8} {answered:>8} {refused:>7} {failed:>6} {lost:>5} {late:>5} {woken:>6} {:>8.1} {:>8.1} {:>7} {:>6.1} {:>6.1}",
                model.p50_ms, model.p99_ms, model.slo_ms, model.mean_batch, model.peak_rps
            )?;
        }
        for name in &self.skipped {
            writeln!(f, "{name:<20} skipped: the server does not have it, or it was left out")?;
        }
        Ok(())
    }
}
