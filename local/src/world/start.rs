//! Putting a world together: what the ledger remembers, what the box has, what still runs from before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::Duration;

use tidegate_api::model_info::ModelInfo;
use tidegate_core::names::{DeviceId, JobName, ModelName, NodeName, ReplicaId};
use tidegate_core::plan::ActionKind;
use tidegate_core::state::{Health, Phase};
use tidegate_core::time::At;
use tidegate_core::{Engine, Event, JobExit};
use tidegate_runtime::exit::Error;
use tidegate_runtime::ledger::{Commit, Ledger, Loaded};

use super::attempts::{Attempt, Rank};
use super::etas::Etas;
use super::figures::Figures;
use super::gpus;
use super::replicas::Server;
use super::router::UNIT;
use super::timeline::Timeline;
use super::{Places, Publisher, World, now_ms};
use crate::agent::{self, Agent};
use crate::machine::{Machine, NODE};
use crate::manifests::Sourced;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::unit::{Exit, UnitId};
use crate::units::{UnitState, UnitStatus, Units};

/// Everything that a world is made of.
pub struct Setup {
    pub ledger: Ledger,
    pub loaded: Loaded,
    /// As it was left in the ledger.
    pub engine: Engine,
    pub objects: Objects,
    pub machine: Machine,
    pub units: Units,
    pub found: Vec<UnitStatus>,
    pub places: Places,
    pub publisher: Publisher,
    pub metrics: Metrics,
    /// What the models' files hold, those of the ledger and those of `apply`.
    pub infos: BTreeMap<String, ModelInfo>,
    /// Objects to apply at once; they passed admission.
    pub apply: Vec<Sourced>,
    /// Where clients connect; absent when a router from before holds it.
    pub listener: Option<TcpListener>,
    /// On real GPUs.
    pub agent: Option<Agent>,
}

impl World {
    /// Makes the world; what ran before goes on.
    pub fn new(setup: Setup) -> Result<Self, Error> {
        let Setup {
            ledger,
            loaded,
            engine,
            objects,
            machine,
            units,
            found,
            places,
            publisher,
            metrics,
            infos,
            apply,
            listener,
            agent,
        } = setup;
        let decisions = loaded.decisions.iter().rev().take(super::SHOWN_DECISIONS).rev();
        let mut world = Self {
            engine,
            objects,
            infos,
            devices: machine.devices.iter().map(|device| (device.id.clone(), device.clone())).collect(),
            ailments: gpus::loaded(&loaded.values),
            agent: agent.as_ref().map(|agent| agent.address),
            node: machine.spec.clone(),
            units,
            ledger,
            places,
            attempts: BTreeMap::new(),
            job_metrics: BTreeMap::new(),
            servers: BTreeMap::new(),
            traffic: BTreeMap::new(),
            waiting: Vec::new(),
            figures: loaded.values.get("figures").map(|text| Figures::from_json(text)).unwrap_or_default(),
            timeline: Timeline::load(&loaded.spans),
            etas: Etas::default(),
            decisions: decisions.filter_map(|(_, json)| serde_json::from_str(json).ok()).collect(),
            publisher,
            metrics,
            pending: Commit::default(),
            replies: Vec::new(),
            committed_at: At(0),
            started_ms: now_ms(),
        };
        world.observe(&machine);
        world.tell_objects();
        world.apply(&apply, BTreeMap::new()).map_err(|e| Error::failed("apply the manifests", e))?;
        world.adopt(&found);
        world.waiting = world.engine.outstanding().cloned().collect();
        if !found.iter().any(|status| status.spec.id.as_str() == UNIT && matches!(status.state, UnitState::Running(_))) {
            world.start_router(listener.as_ref()).map_err(|reason| Error::failed("start the router", reason))?;
        }
        if let Some(listener) = agent.and_then(|agent| agent.listener) {
            world.start_agent(&listener).map_err(|reason| Error::failed("start the node agent", reason))?;
        }
        Ok(world)
    }

    fn observe(&mut self, machine: &Machine) {
        self.tell(Event::NodeSet { name: NodeName::from(NODE), spec: machine.spec.clone().into() });
        // What ailed before does until the agent says that it does not any more.
        self.ailments.retain(|id, _| self.devices.contains_key(id));
        for device in &machine.devices {
            if !self.ailments.contains_key(&device.id) {
                self.tell(Event::DeviceSeen(device.as_core()));
            }
        }
        let known = self.engine.state().devices();
        let gone: Vec<DeviceId> = known
            .filter(|device| device.health != Health::Lost && !self.devices.contains_key(device.id.as_str()))
            .map(|device| device.id.clone())
            .collect();
        for id in gone {
            tracing::warn!(device = %id, "a device of before is gone");
            self.tell(Event::DeviceLost(id));
        }
    }

    fn tell_objects(&mut self) {
        let all: Vec<_> = self.objects.iter().map(|stored| stored.object.clone()).collect();
        for object in &all {
            self.tell_object(object);
        }
    }

    /// Takes over the units of the world before.
    fn adopt(&mut self, found: &[UnitStatus]) {
        let mut attempts: BTreeMap<(JobName, u32), Vec<&UnitStatus>> = BTreeMap::new();
        for status in found {
            let label = |key: &str| status.spec.labels.get(key).cloned();
            if let (Some(job), Some(attempt)) = (label("job"), label("attempt").and_then(|text| text.parse().ok())) {
                attempts.entry((JobName::from(job), attempt)).or_default().push(status);
            } else if let (Some(model), Some(replica)) = (label("model"), label("replica")) {
                self.adopt_replica(ModelName::from(model), ReplicaId::from(replica), status);
            } else if [UNIT, agent::UNIT].contains(&status.spec.id.as_str()) && matches!(status.state, UnitState::Ended(_)) {
                self.forget(&status.spec.id);
            }
        }
        for ((job, number), units) in attempts {
            self.adopt_attempt(&job, number, &units);
        }
        self.settle_missing();
    }

    fn adopt_attempt(&mut self, job: &JobName, number: u32, units: &[&UnitStatus]) {
        let run = self.engine.state().jobs.get(job).and_then(|job| job.run()).filter(|run| run.attempt == number).cloned();
        let Some(run) = run else {
            // Not the attempt that should run: what is left of it ends now.
            for status in units.iter().filter(|status| matches!(status.state, UnitState::Running(_))) {
                tracing::error!(unit = %status.spec.id, "a worker of an attempt that is over still runs; it is ended");
                self.figures.double_run();
                self.end_unit(&status.spec.id, Duration::ZERO);
            }
            return;
        };
        let token = units.first().and_then(|status| status.spec.labels.get("token").cloned()).unwrap_or_default();
        let rank = |status: &&UnitStatus| Rank {
            unit: status.spec.id.clone(),
            started: !matches!(status.state, UnitState::Running(None)),
            exit: None,
        };
        let whole = units.len() == run.seats.len();
        let stop_since_ms = if whole { run.stop.as_ref().map(|stop| stop.since.0) } else { Some(now_ms()) };
        let ranks: Vec<Rank> = units.iter().map(rank).collect();
        let all_started = ranks.iter().all(|rank| rank.started);
        self.attempts.insert(job.clone(), Attempt { number, ranks, token, stop_since_ms, told_started: all_started });
        tracing::info!(job = %job, attempt = number, workers = units.len(), "adopted");
        if all_started && whole {
            self.tell(Event::JobStarted { name: job.clone(), attempt: number });
        }
        let ended: Vec<(UnitId, Exit)> = units
            .iter()
            .filter_map(|status| match &status.state {
                UnitState::Ended(exit) => Some((status.spec.id.clone(), exit.clone())),
                UnitState::Running(_) => None,
            })
            .collect();
        if !whole {
            // Killed in the middle of starting the gang: it is ended, and started whole.
            for status in units {
                self.end_unit(&status.spec.id, Duration::ZERO);
            }
        }
        for (unit, exit) in ended {
            self.worker_exited(job, &unit, exit);
        }
    }

    fn adopt_replica(&mut self, model: ModelName, replica: ReplicaId, status: &UnitStatus) {
        let known = self.engine.state().replicas.contains_key(&replica);
        let id = &status.spec.id;
        match (&status.state, known) {
            (UnitState::Running(_), true) => drop(self.servers.insert(replica, Server::new(model, id.clone()))),
            (UnitState::Running(_), false) => self.end_unit(id, Duration::from_secs(5)),
            (UnitState::Ended(exit), true) => {
                self.servers.insert(replica.clone(), Server::new(model, id.clone()));
                self.server_exited(&replica, exit);
            }
            (UnitState::Ended(_), false) => self.forget(id),
        }
    }

    fn forget(&self, unit: &UnitId) {
        if let Err(e) = self.units.forget(unit) {
            tracing::debug!(%unit, error = %e, "an ended unit stays");
        }
    }

    /// What the engine believes to run and nothing was found of. What it is about to start is not missing.
    fn settle_missing(&mut self) {
        let mut starting = BTreeSet::new();
        for action in self.engine.outstanding() {
            if matches!(action.kind, ActionKind::StartJob { .. } | ActionKind::StartReplica { .. }) {
                starting.insert(start_key(&action.kind));
            }
        }
        let jobs: Vec<(JobName, u32)> = self
            .engine
            .state()
            .jobs
            .iter()
            .filter_map(|(name, job)| match &job.phase {
                Phase::Running(run) => Some((name.clone(), run.attempt)),
                Phase::Waiting { .. } | Phase::Finished(_) => None,
            })
            .filter(|(name, _)| !self.attempts.contains_key(name) && !starting.contains(&format!("job/{name}")))
            .collect();
        for (name, attempt) in jobs {
            tracing::warn!(job = %name, attempt, "nothing is left of an attempt; it starts again from its checkpoint");
            self.tell(Event::JobExited { name, attempt, exit: JobExit::Stopped });
        }
        let replicas = self.engine.state().replicas.keys();
        let missing: Vec<ReplicaId> = replicas
            .filter(|id| !self.servers.contains_key(*id) && !starting.contains(&format!("replica/{id}")))
            .cloned()
            .collect();
        for id in missing {
            self.tell(Event::ReplicaExited { id, failed: false });
        }
    }
}

fn start_key(kind: &ActionKind) -> String {
    match kind {
        ActionKind::StartJob { job, .. } | ActionKind::StopJob { job, .. } => format!("job/{job}"),
        ActionKind::StartReplica { replica, .. } | ActionKind::StopReplica { replica, .. } => format!("replica/{replica}"),
    }
}
