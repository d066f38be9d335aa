//! What the operator counts. Every name is in `docs/metrics.md`.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tidegate_core::plan::Action;
use tidegate_core::state::Scarce;

use crate::index::{Counts, Replicas, Write};
use crate::ledger;
use crate::watch::Kind;

/// The operator's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub registry: Registry,
    decisions: IntCounterVec,
    writes: IntCounterVec,
    watch_failures: IntCounterVec,
    pods: IntGaugeVec,
    replicas: IntGaugeVec,
    pub routers: IntGauge,
    open_writes: IntGauge,
    pub leads: IntGauge,
    pub synced: IntGauge,
    pub drift: IntGauge,
    pub checks: IntCounter,
    overcommits: IntCounterVec,
    questions: IntCounterVec,
    control_refusals: IntCounterVec,
    pub ledger: ledger::Metrics,
}

impl Metrics {
    /// Registers all of them.
    pub fn new() -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            registry: Registry::new(),
            decisions: counters(
                "tidegate_operator_decisions_total",
                "Actions decided, by action and reason.",
                &["action", "reason"],
            )?,
            writes: counters(
                "tidegate_operator_writes_total",
                "Requests that change something, by kind and answer; `again`: it is tried again.",
                &["write", "answer"],
            )?,
            watch_failures: counters("tidegate_operator_watch_failures_total", "Watches that broke off, by kind.", &["kind"])?,
            pods: IntGaugeVec::new(
                Opts::new("tidegate_operator_pods", "Pods that are known: all, those that are ours, those of ours that wait."),
                &["which"],
            )?,
            replicas: IntGaugeVec::new(
                Opts::new(
                    "tidegate_operator_replicas",
                    "Replicas of models: those that answer, those that start, those that end.",
                ),
                &["which"],
            )?,
            routers: IntGauge::new("tidegate_operator_routers", "Routers that report.")?,
            open_writes: IntGauge::new("tidegate_operator_open_writes", "Requests that wait or are under way.")?,
            leads: IntGauge::new("tidegate_operator_leads", "1 while this process may act.")?,
            synced: IntGauge::new(
                "tidegate_operator_synced",
                "1 while every kind was listed, and nodes and ResourceSlices again since their watch broke off.",
            )?,
            drift: IntGauge::new(
                "tidegate_operator_drift_nodes",
                "Nodes on which other GPUs were believed to be held than a fresh list says, at the last comparison; must be 0.",
            )?,
            checks: IntCounter::new("tidegate_operator_drift_checks_total", "Comparisons with a fresh list.")?,
            overcommits: counters(
                "tidegate_operator_overcommit_repairs_total",
                "Times that pods of a node asked for more than it has, by what; answered by stopping work of ours, or left.",
                &["resource", "answer"],
            )?,
            questions: counters(
                "tidegate_operator_questions_total",
                "Questions of people that cost a copy.",
                &["question", "answer"],
            )?,
            control_refusals: counters(
                "tidegate_operator_control_refusals_total",
                "Sessions of routers and replicas that were not opened, by why.",
                &["why"],
            )?,
            ledger: ledger::Metrics::new()?,
        };
        metrics.ledger.register(&metrics.registry)?;
        metrics.registry.register(Box::new(metrics.questions.clone()))?;
        metrics.registry.register(Box::new(metrics.control_refusals.clone()))?;
        metrics.registry.register(Box::new(metrics.overcommits.clone()))?;
        let all: [Box<dyn prometheus::core::Collector>; 11] = [
            Box::new(metrics.decisions.clone()),
            Box::new(metrics.writes.clone()),
            Box::new(metrics.watch_failures.clone()),
            Box::new(metrics.pods.clone()),
            Box::new(metrics.replicas.clone()),
            Box::new(metrics.routers.clone()),
            Box::new(metrics.open_writes.clone()),
            Box::new(metrics.leads.clone()),
            Box::new(metrics.synced.clone()),
            Box::new(metrics.drift.clone()),
            Box::new(metrics.checks.clone()),
        ];
        all.into_iter().try_for_each(|collector| metrics.registry.register(collector))?;
        Ok(metrics)
    }

    pub fn decided(&self, action: &Action) {
        self.decisions.with_label_values(&[action.kind.word(), action.reason.category()]).inc();
    }

    pub fn wrote(&self, write: &Write, answer: &str) {
        self.writes.with_label_values(&[write.word(), answer]).inc();
    }

    /// A node was asked for too much; `vain`: nothing of ours can mend it.
    pub fn overcommitted(&self, scarce: Scarce, vain: bool) {
        self.overcommits.with_label_values(&[scarce.word(), if vain { "left" } else { "stopped" }]).inc();
    }

    /// `answer`: `given`, `busy` (too many ask), or `absent` (this process stands by).
    pub fn asked(&self, question: &'static str, answer: &'static str) {
        self.questions.with_label_values(&[question, answer]).inc();
    }

    /// `why`: `unknown` (no token that Kubernetes knows), `forbidden`, or `unavailable` (Kubernetes does not answer).
    pub fn control_refused(&self, why: &'static str) {
        self.control_refusals.with_label_values(&[why]).inc();
    }

    pub fn watch_failed(&self, kind: Kind) {
        self.watch_failures.with_label_values(&[kind.word()]).inc();
    }

    pub fn observe(&self, counts: Counts, open_writes: usize) {
        for (which, count) in [("all", counts.pods), ("ours", counts.ours), ("waiting", counts.waiting)] {
            self.pods.with_label_values(&[which]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let Replicas { ready, starting, ending } = counts.replicas;
        for (which, count) in [("ready", ready), ("starting", starting), ("ending", ending)] {
            self.replicas.with_label_values(&[which]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.open_writes.set(i64::try_from(open_writes).unwrap_or(i64::MAX));
    }
}
