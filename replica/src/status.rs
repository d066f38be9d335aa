//! Where the replica is in its life. Changes wake the session, which reports them at once.

use tidegate_api::control::{ModelTensors, ReplicaPhase, ReplicaReport};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::session::Identity;

/// Clones share one state.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    life: watch::Sender<Life>,
    pub metrics: Metrics,
}

#[derive(Clone, Debug)]
pub(crate) struct Life {
    phase: ReplicaPhase,
    address: String,
    load_ms: u64,
    error: String,
    /// Known once the model is loaded.
    tensors: Option<ModelTensors>,
}

impl Status {
    /// Loading.
    pub fn new(metrics: Metrics) -> Self {
        let life = Life { phase: ReplicaPhase::Loading, address: String::new(), load_ms: 0, error: String::new(), tensors: None };
        Self { life: watch::Sender::new(life), metrics }
    }

    /// Serves a model of these tensors at `address`, `load_ms` after its start.
    pub fn ready(&self, address: String, load_ms: u64, tensors: ModelTensors) {
        self.metrics.readiness.set(true);
        let ready = Life { phase: ReplicaPhase::Ready, address, load_ms, error: String::new(), tensors: Some(tensors) };
        self.life.send_modify(|life| *life = ready);
    }

    /// Finishes what it has.
    pub fn draining(&self) {
        self.metrics.readiness.set(false);
        self.life.send_modify(|life| life.phase = ReplicaPhase::Draining);
    }

    /// Will end because of `error`.
    pub fn failed(&self, error: String) {
        self.metrics.readiness.set(false);
        self.life.send_modify(|life| (life.phase, life.error) = (ReplicaPhase::Failed, error));
    }

    /// Wakes at every change from now on.
    pub fn changes(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// Everything, as the world wants it.
    pub fn report(&self, identity: &Identity) -> ReplicaReport {
        let Life { phase, address, load_ms, error, tensors } = self.life.borrow().clone();
        let metrics = &self.metrics;
        ReplicaReport {
            replica_id: identity.replica_id.clone(),
            model: identity.model.clone(),
            phase: phase.into(),
            address,
            load_ms,
            busy_us: metrics.busy_us.get(),
            batches: metrics.batches.get(),
            rows: metrics.rows.get(),
            resident_bytes: resident_bytes(),
            error,
            pace_missed: metrics.pace_missed.get(),
            tensors,
        }
    }
}

/// Memory of this process that is in RAM; 0 where the kernel does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_follows_the_life_and_keeps_the_address_while_draining() {
        let status = Status::new(Metrics::new().unwrap());
        let identity = Identity { replica_id: "r1".to_owned(), model: "digits".to_owned(), token: Token::default() };
        assert_eq!(status.report(&identity).phase(), ReplicaPhase::Loading);
        assert_eq!(status.report(&identity).tensors, None);
        let tensors = ModelTensors { platform: "onnx".to_owned(), ..ModelTensors::default() };
        status.ready("127.0.0.1:7000".to_owned(), 12, tensors.clone());
        assert!(status.metrics.readiness.get());
        status.metrics.rows.inc_by(5);
        status.draining();
        let report = status.report(&identity);
        assert_eq!(
            (report.phase(), report.address.as_str(), report.load_ms, report.rows),
            (ReplicaPhase::Draining, "127.0.0.1:7000", 12, 5)
        );
        assert!(!status.metrics.readiness.get());
        assert_eq!(report.tensors, Some(tensors));
        assert!(report.resident_bytes > 1 << 20);
        status.failed("broken".to_owned());
        assert_eq!(status.report(&identity).error, "broken");
    }
}
