//! Replicas as processes: start, readiness, drain, end.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_api::control::{ReplicaPhase, ReplicaReport};
use tidegate_core::names::{ModelName, ReplicaId};
use tidegate_core::plan::Placed;
use tidegate_core::{Event, State};

use super::{World, now_ms};
use crate::devices::{share, visible};
use crate::unit::{Exit, Restart, UnitId, UnitSpec};

/// Most bytes of one replica's output that are kept.
const LOG_BYTES: u64 = 2 << 20;
/// What a draining replica gets for the requests that it has; far above any SLO.
pub(super) const REPLICA_GRACE: Duration = Duration::from_secs(30);
/// How long routers may take to stop sending to a replica that drains. One that still sends gets UNAVAILABLE and
/// sends elsewhere, so nothing depends on it.
const ROUTER_NOTICE_MS: u64 = 400;

/// The process of one replica.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub model: ModelName,
    pub unit: UnitId,
    /// Set once it answers.
    pub address: Option<String>,
    /// When it was told to drain, and the router configuration that says so.
    pub draining: Option<(u64, u64)>,
    pub told_to_end: bool,
    pub busy_us: u64,
    pub rows: u64,
}

impl Server {
    pub fn new(model: ModelName, unit: UnitId) -> Self {
        Self { model, unit, address: None, draining: None, told_to_end: false, busy_us: 0, rows: 0 }
    }
}

/// Name of a replica's unit.
pub(super) fn unit_id(replica: &ReplicaId) -> Result<UnitId, String> {
    UnitId::new(format!("replica.{replica}")).map_err(|e| e.to_string())
}

impl World {
    /// Starts a replica; fine if it runs already.
    pub(super) fn start_server(&mut self, model: &ModelName, replica: &ReplicaId, place: &Placed) -> Result<(), String> {
        let spec = self.server_spec(model, replica, place)?;
        self.units.start(&spec, None).map_err(|e| e.to_string())?;
        self.servers.entry(replica.clone()).or_insert_with(|| Server::new(model.clone(), spec.id));
        Ok(())
    }

    fn server_spec(&self, model: &ModelName, replica: &ReplicaId, place: &Placed) -> Result<UnitSpec, String> {
        let (spec, _) = self.objects.model(&model.0).ok_or("its object is gone")?;
        let devices = self.devices_at(place)?;
        let simulated = devices.iter().find(|device| device.simulated);
        let locks = self.places.data.join("devices");
        std::fs::create_dir_all(&locks).map_err(|e| format!("make {}: {e}", locks.display()))?;
        let mut command: Vec<String> = vec![self.places.exe.display().to_string(), "replica".to_owned()];
        let mut arg = |name: &str, value: String| command.extend([name.to_owned(), value]);
        arg("--model", model.to_string());
        arg("--onnx", spec.source.onnx.clone());
        arg("--replica-id", replica.to_string());
        arg("--control", self.places.url.clone());
        arg("--max-batch-rows", spec.batching.max_rows.to_string());
        if let Some(pace) = spec.simulated_pace.as_ref().filter(|_| simulated.is_some()) {
            arg("--pace-per-batch-us", pace.per_batch_micros.to_string());
            arg("--pace-per-row-us", pace.per_row_micros.to_string());
        }
        let share = self.engine.state().replicas.get(replica).and_then(|replica| share(&replica.ask, &devices));
        if let Some(milli) = share {
            arg("--device-milli", milli.to_string());
        }
        // Replicas that share a device take turns on it, as the engine counts.
        if let Some(device) = devices.first().filter(|device| device.simulated || share.is_some()) {
            arg("--device-lock", locks.join(format!("{}.lock", device.id)).display().to_string());
        }
        let labels = [("model", model.to_string()), ("replica", replica.to_string())];
        let env = BTreeMap::from([(tidegate_api::contract::CUDA_VISIBLE_DEVICES.to_owned(), visible(&devices))]);
        Ok(UnitSpec {
            id: unit_id(replica)?,
            command,
            env,
            working_dir: self.places.data.clone(),
            log_max_bytes: LOG_BYTES,
            restart: Restart::Never,
            listen_fd: false,
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        })
    }

    /// A replica says how it is.
    pub(super) fn replica_report(&mut self, report: &ReplicaReport) {
        let id = ReplicaId::from(report.replica_id.as_str());
        let Some(server) = self.servers.get_mut(&id) else { return };
        server.busy_us = report.busy_us;
        server.rows = report.rows;
        match report.phase() {
            ReplicaPhase::Ready if server.address.is_none() && !report.address.is_empty() => {
                server.address = Some(report.address.clone());
                tracing::info!(replica = %id, address = report.address, load_ms = report.load_ms, "replica ready");
                self.tell(Event::ReplicaReady { id, load_ms: report.load_ms });
            }
            ReplicaPhase::Failed => tracing::error!(replica = %id, error = report.error, "replica failed"),
            ReplicaPhase::Ready | ReplicaPhase::Loading | ReplicaPhase::Draining | ReplicaPhase::Unspecified => {}
        }
    }

    /// Takes a replica out of the routers' sight; whether it is there. It is told to end once they have noticed.
    pub(super) fn drain_server(&mut self, replica: &ReplicaId) -> bool {
        let version = self.next_config_version();
        let Some(server) = self.servers.get_mut(replica) else { return false };
        server.draining.get_or_insert((now_ms(), version));
        true
    }

    /// Tells those to end that routers do not send to any more.
    pub(super) fn stop_drained(&mut self) {
        let now = now_ms();
        let seen = self.router_version();
        let noticed = |(since, version): (u64, u64)| seen >= version || now.saturating_sub(since) >= ROUTER_NOTICE_MS;
        let due = self.servers.iter().filter(|(_, server)| !server.told_to_end && server.draining.is_some_and(noticed));
        let due: Vec<(ReplicaId, UnitId)> = due.map(|(id, server)| (id.clone(), server.unit.clone())).collect();
        for (id, unit) in due {
            if let Some(server) = self.servers.get_mut(&id) {
                server.told_to_end = true;
            }
            // Both ways, as in a cluster: the wish by the control session, and the signal that no replica can miss.
            self.publisher.draining.send_if_modified(|draining| draining.insert(id.to_string()));
            self.end_unit(&unit, REPLICA_GRACE);
        }
    }

    /// The replica whose unit this is.
    pub(super) fn replica_of(&self, unit: &UnitId) -> Option<ReplicaId> {
        self.servers.iter().find(|(_, server)| server.unit == *unit).map(|(id, _)| id.clone())
    }

    /// A replica has ended.
    pub(super) fn server_exited(&mut self, replica: &ReplicaId, exit: &Exit) {
        let Some(server) = self.servers.remove(replica) else { return };
        self.publisher.draining.send_if_modified(|draining| draining.remove(replica.as_str()));
        let failed = !server.told_to_end;
        tracing::info!(replica = %replica, code = ?exit.code, signal = ?exit.signal, failed, "replica ended");
        if failed {
            self.metrics.replica_failed();
        }
        self.tell(Event::ReplicaExited { id: replica.clone(), failed });
        // A failed replica's output is kept until the next of its model fails.
        self.forget_servers(&server.model, failed.then_some(&server.unit));
    }

    fn forget_servers(&self, model: &ModelName, keep: Option<&UnitId>) {
        let of_model = |status: &crate::units::UnitStatus| status.spec.labels.get("model").is_some_and(|of| of == model.as_str());
        let ended = |status: &crate::units::UnitStatus| matches!(status.state, crate::units::UnitState::Ended(_));
        for status in self.units.all() {
            let failed_before =
                keep.is_none() && matches!(&status.state, crate::units::UnitState::Ended(exit) if !exit.requested);
            if of_model(&status) && ended(&status) && Some(&status.spec.id) != keep && !failed_before {
                drop(self.units.forget(&status.spec.id));
            }
        }
    }
}

/// Replicas of a model: ready, starting, draining.
pub(super) fn counts(state: &State, model: &ModelName) -> (u32, u32, u32) {
    use tidegate_core::state::ReplicaPhase as Phase;
    let mut counts = (0, 0, 0);
    for replica in state.replicas.values().filter(|replica| replica.model == *model) {
        match (replica.stop.is_some(), replica.phase) {
            (true, _) => counts.2 += 1,
            (false, Phase::Ready) => counts.0 += 1,
            (false, Phase::Starting) => counts.1 += 1,
        }
    }
    counts
}
