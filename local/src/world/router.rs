//! The router as a unit, what it reports, and what it is told.

use tidegate_api::control::{Endpoint, ModelConfig, ModelDemand, RouterReport};
use tidegate_api::convert::{self, Judged};
use tidegate_api::manifest::Object;
use tidegate_core::Event;
use tidegate_core::names::ModelName;
use tidegate_core::state::ReplicaPhase;

use super::{World, now_ms};
use crate::unit::{Exit, Restart, UnitId, UnitSpec};

/// Name of the router's unit, and of the router.
pub(super) const UNIT: &str = "router";
/// Most bytes of the router's output that are kept.
const LOG_BYTES: u64 = 8 << 20;

/// Replicas connect again within a second; one that does not is not waited for.
const ADOPTION_MS: u64 = 3_000;

/// A model's traffic: the last report, and counters that go on when the router starts anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    pub last: ModelDemand,
    pub arrived: Counter,
    pub answered: Counter,
    pub refused: Counter,
    pub late: Counter,
    pub woken: Counter,
    pub failed: Counter,
    judged: Judged,
    /// The configuration that the router uses.
    pub config_version: u64,
}

/// A counter over restarts of what it counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counter {
    base: u64,
    last: u64,
}

impl Counter {
    fn see(&mut self, value: u64) {
        if value < self.last {
            self.base += self.last;
        }
        self.last = value;
    }

    pub fn total(self) -> u64 {
        self.base + self.last
    }
}

impl World {
    /// Starts the router on `listener`; fine if one runs already.
    pub(super) fn start_router(&self, listener: Option<&std::net::TcpListener>) -> Result<(), String> {
        let id = UnitId::new(UNIT).map_err(|e| e.to_string())?;
        let exe = self.places.exe.display().to_string();
        let url = self.places.url.clone();
        let command =
            ["router", "--listen", &self.places.listen.to_string(), "--control", &url, "--world", &url, "--router-id", UNIT];
        let spec = UnitSpec {
            id,
            command: std::iter::once(exe).chain(command.into_iter().map(str::to_owned)).collect(),
            env: [("TIDEGATE_LOG".to_owned(), "info".to_owned())].into(),
            working_dir: self.places.data.clone(),
            log_max_bytes: LOG_BYTES,
            restart: Restart::Always,
            listen_fd: true,
            labels: [("listen".to_owned(), self.places.listen.to_string()), ("url".to_owned(), url)].into(),
        };
        self.units.start(&spec, listener).map_err(|e| e.to_string())
    }

    /// The router's shim was killed, so nothing holds its socket: it is started anew on a new one.
    pub(super) fn router_exited(&mut self, exit: &Exit) {
        tracing::error!(code = ?exit.code, signal = ?exit.signal, "the router's supervisor ended; starting the router anew");
        self.metrics.router_restarted();
        let restarted = std::net::TcpListener::bind(self.places.listen).map_err(|e| e.to_string()).and_then(|listener| {
            let id = UnitId::new(UNIT).map_err(|e| e.to_string())?;
            self.units.forget(&id).map_err(|e| e.to_string())?;
            self.start_router(Some(&listener))
        });
        if let Err(reason) = restarted {
            tracing::error!(reason, "the router cannot be started");
        }
    }

    /// A router says what arrives.
    pub(super) fn router_report(&mut self, report: &RouterReport) {
        for demand in &report.models {
            let name = ModelName::from(demand.model.as_str());
            // What was counted before this world began was another one's to report.
            let is_first = !self.traffic.contains_key(&name);
            let traffic = self.traffic.entry(name.clone()).or_default();
            traffic.config_version = report.config_version;
            traffic.arrived.see(demand.arrived_total);
            traffic.answered.see(demand.answered_total);
            traffic.refused.see(demand.refused_total);
            traffic.late.see(demand.late_total);
            traffic.woken.see(demand.woken_total);
            traffic.failed.see(demand.failed_total);
            let late_ppm = traffic.judged.late_ppm(demand).filter(|_| !is_first);
            traffic.last.clone_from(demand);
            let event = Event::Demand { model: name, demand: convert::demand(demand, late_ppm) };
            self.tell(event);
        }
        self.stop_drained();
    }

    /// The configuration that the router is known to use.
    pub(super) fn router_version(&self) -> u64 {
        self.traffic.values().map(|traffic| traffic.config_version).max().unwrap_or(0)
    }

    /// The version that the next configuration has: it rises over restarts of the world, as time does.
    pub(super) fn next_config_version(&self) -> u64 {
        now_ms().max(self.publisher.router.borrow().version + 1)
    }

    /// Publishes models and endpoints, if they changed.
    ///
    /// After a restart it waits until the adopted replicas have said where they are: a configuration without them would
    /// make routers hold requests that they can have answered.
    pub(super) fn publish_router_config(&mut self) {
        if self.awaits_adopted() {
            return;
        }
        let models: Vec<ModelConfig> = self.objects.iter().filter_map(|stored| self.model_config(&stored.object)).collect();
        if self.publisher.router.borrow().models == models && self.publisher.router.borrow().version > 0 {
            return;
        }
        let version = self.next_config_version();
        self.publisher.router.send_modify(|config| {
            config.version = version;
            config.models = models;
        });
    }

    fn awaits_adopted(&self) -> bool {
        let ready = |id| self.engine.state().replicas.get(id).is_some_and(|replica| replica.phase == ReplicaPhase::Ready);
        let unheard = self.servers.iter().any(|(id, server)| server.address.is_none() && ready(id));
        unheard && now_ms() < self.started_ms + ADOPTION_MS
    }

    fn model_config(&self, object: &Object) -> Option<ModelConfig> {
        let Object::Model(model) = object else { return None };
        let name = object.name();
        let mut config = convert::model_config(name, &model.spec, self.infos.get(name)?);
        config.paused = self.engine.state().models.get(&ModelName::from(name)).is_some_and(|model| model.paused);
        config.endpoints = self
            .servers
            .iter()
            .filter(|(_, server)| server.model.as_str() == name)
            .filter_map(|(id, server)| {
                let address = server.address.clone()?;
                Some(Endpoint { replica_id: id.to_string(), address, draining: server.draining.is_some() })
            })
            .collect();
        Some(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_goes_on_over_restarts() {
        let mut counter = Counter::default();
        for value in [5, 8, 2] {
            counter.see(value);
        }
        assert_eq!(counter.total(), 10);
    }
}
