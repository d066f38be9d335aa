//! The node agent as a unit, and what follows from its word: a device that it calls sick or lost takes no work until it is
//! well again. To the engine such a device is lost; why, and whether a person had drained it, is known here.

use std::collections::BTreeMap;
use std::net::TcpListener;

use serde::{Deserialize, Serialize};
use tidegate_api::kinds::{GpuHealth, GpuNodeStatus, GpuStatus};
use tidegate_core::Event;
use tidegate_core::names::DeviceId;
use tidegate_core::state::Health;

use super::World;
use crate::agent;
use crate::unit::{Exit, UnitId};

/// Of the ledger's values, the one that these are.
const VALUE: &str = "ailments";

/// What is wrong with a device.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(super) struct Ailment {
    pub lost: bool,
    /// The agent's evidence.
    pub why: String,
    /// A person has drained it: well again, it still takes no work.
    drained: bool,
}

impl Ailment {
    /// For views.
    pub fn word(&self) -> &'static str {
        if self.lost { "lost" } else { "sick" }
    }
}

/// By device.
pub(super) type Ailments = BTreeMap<String, Ailment>;

/// As the ledger has them.
pub(super) fn loaded(values: &BTreeMap<String, String>) -> Ailments {
    values.get(VALUE).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

impl World {
    /// Starts the agent on `listener`; fine if one runs already.
    pub(super) fn start_agent(&self, listener: &TcpListener) -> Result<(), String> {
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        let spec = agent::spec(&self.places, address).map_err(|e| e.to_string())?;
        self.units.start(&spec, Some(listener)).map_err(|e| e.to_string())
    }

    /// The agent's shim was killed: it is started anew where it was.
    pub(super) fn agent_exited(&self, exit: &Exit) {
        tracing::error!(code = ?exit.code, signal = ?exit.signal, "the node agent's supervisor ended; starting the agent anew");
        let Some(address) = self.agent else { return };
        let restarted = TcpListener::bind(address).map_err(|e| e.to_string()).and_then(|listener| {
            let id = UnitId::new(agent::UNIT).map_err(|e| e.to_string())?;
            self.units.forget(&id).map_err(|e| e.to_string())?;
            self.start_agent(&listener)
        });
        if let Err(reason) = restarted {
            tracing::error!(reason, "the node agent cannot be started; the health of the GPUs stays what it was");
        }
    }

    /// The agent says how the GPUs are.
    pub(super) fn gpus(&mut self, status: &GpuNodeStatus) {
        for gpu in &status.gpus {
            if self.devices.get(&gpu.uuid).is_none_or(|device| device.simulated) {
                continue;
            }
            match gpu.health {
                GpuHealth::Healthy | GpuHealth::Degraded => self.recovered(&gpu.uuid),
                GpuHealth::Sick | GpuHealth::Lost => self.ails(gpu),
            }
        }
    }

    fn ails(&mut self, gpu: &GpuStatus) {
        let id = DeviceId::from(gpu.uuid.as_str());
        let why = gpu.findings.iter().map(|finding| finding.evidence.as_str()).collect::<Vec<_>>().join("; ");
        let known = self.ailments.get(&gpu.uuid);
        let drained = known.map_or_else(
            || self.engine.state().device(&id).is_some_and(|device| device.health == Health::Draining),
            |known| known.drained,
        );
        let ailment = Ailment { lost: gpu.health == GpuHealth::Lost, why, drained };
        if known == Some(&ailment) {
            return;
        }
        tracing::warn!(device = %id, state = ailment.word(), why = ailment.why, "a device takes no work");
        if known.is_none() {
            self.tell(Event::DeviceLost(id));
        }
        self.ailments.insert(gpu.uuid.clone(), ailment);
        self.keep_ailments();
    }

    fn recovered(&mut self, id: &str) {
        let Some(ailment) = self.ailments.remove(id) else { return };
        let Some(device) = self.devices.get(id).map(crate::devices::Device::as_core) else { return };
        tracing::info!(device = id, drained = ailment.drained, "a device is well again");
        self.tell(Event::DeviceSeen(device));
        if ailment.drained {
            self.tell(Event::DeviceDrained { id: DeviceId::from(id), drained: true });
        }
        self.keep_ailments();
    }

    /// A person's wish for a device that ails is kept until it is well; what to answer.
    pub(super) fn drain_ailing(&mut self, device: &str, drained: bool) -> Option<String> {
        let ailment = self.ailments.get_mut(device)?;
        ailment.drained = drained;
        let (word, why) = (ailment.word(), ailment.why.clone());
        self.keep_ailments();
        let then = if drained { "stays drained" } else { "takes work again" };
        Some(format!("device {device} is {word} ({why}) and takes no work; it {then} when it is well"))
    }

    /// Devices that take no work, as a reason for what waits.
    pub(super) fn ailing(&self) -> impl Iterator<Item = String> {
        self.ailments.iter().map(|(id, ailment)| format!("device {id} is {}: {}", ailment.word(), ailment.why))
    }

    fn keep_ailments(&mut self) {
        if let Ok(json) = serde_json::to_string(&self.ailments) {
            self.pending.values.push((VALUE.to_owned(), json));
        }
    }
}
