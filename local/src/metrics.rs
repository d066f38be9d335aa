//! What `up` counts of itself. Every name is in `docs/metrics.md`.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tidegate_core::holdings::Holdings;
use tidegate_core::plan::Action;
use tidegate_core::state::{End, Health, Phase, ReplicaPhase};
use tidegate_core::{JobExit, State};

/// The world's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    decisions: IntCounterVec,
    attempts: IntCounterVec,
    replica_failures: IntCounter,
    router_restarts: IntCounter,
    devices: IntGaugeVec,
    jobs: IntGaugeVec,
    replicas: IntGaugeVec,
    queue_used: IntGaugeVec,
    lent_devices: Gauge,
    device_seconds: Gauge,
    lent_seconds: Gauge,
    eviction_cap: IntGauge,
}

impl Metrics {
    /// Registers all of them.
    pub fn new() -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauges = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            registry: Registry::new(),
            decisions: counters(
                "tidegate_world_decisions_total",
                "Actions decided, by action and reason.",
                &["action", "reason"],
            )?,
            attempts: counters(
                "tidegate_world_attempts_ended_total",
                "Attempts of training jobs that ended, by how.",
                &["exit"],
            )?,
            replica_failures: IntCounter::new(
                "tidegate_world_replica_failures_total",
                "Replicas that ended without being told to.",
            )?,
            router_restarts: IntCounter::new("tidegate_world_router_restarts_total", "Times that the router was started again.")?,
            devices: gauges("tidegate_world_devices", "Devices, by health.", &["health"])?,
            jobs: gauges("tidegate_world_jobs", "Training jobs, by phase.", &["phase"])?,
            replicas: gauges("tidegate_world_replicas", "Replicas, by phase.", &["phase"])?,
            queue_used: gauges("tidegate_world_queue_used_millidevices", "Thousandths of devices held, by queue.", &["queue"])?,
            lent_devices: Gauge::new("tidegate_world_lent_devices", "Devices used above their user's own quota.")?,
            device_seconds: Gauge::new("tidegate_world_device_seconds", "Device-time since the data directory was made.")?,
            lent_seconds: Gauge::new(
                "tidegate_world_lent_device_seconds",
                "Lent device-time since the data directory was made.",
            )?,
            eviction_cap: IntGauge::new("tidegate_world_eviction_cap_reached", "1 while work waits for the cap on evictions.")?,
        };
        let registry = &metrics.registry;
        registry.register(Box::new(metrics.decisions.clone()))?;
        registry.register(Box::new(metrics.attempts.clone()))?;
        registry.register(Box::new(metrics.replica_failures.clone()))?;
        registry.register(Box::new(metrics.router_restarts.clone()))?;
        registry.register(Box::new(metrics.devices.clone()))?;
        registry.register(Box::new(metrics.jobs.clone()))?;
        registry.register(Box::new(metrics.replicas.clone()))?;
        registry.register(Box::new(metrics.queue_used.clone()))?;
        registry.register(Box::new(metrics.lent_devices.clone()))?;
        registry.register(Box::new(metrics.device_seconds.clone()))?;
        registry.register(Box::new(metrics.lent_seconds.clone()))?;
        registry.register(Box::new(metrics.eviction_cap.clone()))?;
        Ok(metrics)
    }

    /// Where they are gathered.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// An action was decided.
    pub fn decided(&self, action: &Action) {
        self.decisions.with_label_values(&[action.kind.word(), action.reason.category()]).inc();
    }

    /// An attempt ended.
    pub fn attempt_ended(&self, exit: JobExit) {
        let word = match exit {
            JobExit::Succeeded => "succeeded",
            JobExit::Stopped => "stopped",
            JobExit::Failed => "failed",
            JobExit::Refused => "refused",
        };
        self.attempts.with_label_values(&[word]).inc();
    }

    /// A replica ended without being told to.
    pub fn replica_failed(&self) {
        self.replica_failures.inc();
    }

    /// The router was started again.
    pub fn router_restarted(&self) {
        self.router_restarts.inc();
    }

    /// Sets the gauges. Labels are few: phases are enums, and queues that are gone are dropped.
    pub fn observe(&self, state: &State) {
        let count = |gauge: &IntGaugeVec, label: &str, n: usize| {
            gauge.with_label_values(&[label]).set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        for (label, health) in [("ok", Health::Ok), ("draining", Health::Draining), ("lost", Health::Lost)] {
            count(&self.devices, label, state.devices().filter(|device| device.health == health).count());
        }
        let jobs = |of: fn(&Phase) -> bool| state.jobs.values().filter(|job| of(&job.phase)).count();
        count(&self.jobs, "waiting", jobs(|phase| matches!(phase, Phase::Waiting { .. })));
        count(&self.jobs, "running", jobs(|phase| matches!(phase, Phase::Running(_))));
        count(&self.jobs, "succeeded", jobs(|phase| matches!(phase, Phase::Finished(End::Succeeded { .. }))));
        count(&self.jobs, "failed", jobs(|phase| matches!(phase, Phase::Finished(End::Failed { .. }))));
        count(&self.jobs, "cancelled", jobs(|phase| matches!(phase, Phase::Finished(End::Cancelled { .. }))));
        let replicas = |ready: bool, draining: bool| {
            let of = |replica: &&tidegate_core::state::Replica| {
                (replica.phase == ReplicaPhase::Ready) == ready && replica.stop.is_some() == draining
            };
            state.replicas.values().filter(of).count()
        };
        count(&self.replicas, "ready", replicas(true, false));
        count(&self.replicas, "starting", replicas(false, false));
        count(&self.replicas, "draining", replicas(true, true) + replicas(false, true));
        let holdings = Holdings::of(state);
        self.queue_used.reset();
        for name in state.queues.keys() {
            let milli = usize::try_from(holdings.queue_milli(name)).unwrap_or(usize::MAX);
            count(&self.queue_used, &name.0, milli);
        }
        self.lent_devices.set(holdings.lent_milli(state) as f64 / 1000.0);
        self.device_seconds.set(state.usage.device_ms as f64 / 1000.0);
        self.lent_seconds.set(state.usage.lent_ms as f64 / 1000.0);
        self.eviction_cap.set(i64::from(state.eviction_cap_reached));
    }
}
