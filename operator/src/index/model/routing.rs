//! What routers are told: models and where their replicas answer; and which replicas may end because routers know it.

use std::collections::BTreeSet;

use tidegate_api::control::{Endpoint, ModelConfig, ReplicaReport};
use tidegate_api::convert;
use tidegate_core::Event;
use tidegate_core::names::{ModelName, ReplicaId};
use tidegate_core::time::At;

use super::super::{Index, Write};
use super::{Model, name};
use crate::facts::PodKey;
use crate::facts::model::PORT;

/// How long routers may take to stop sending to a replica that drains. One that still sends gets UNAVAILABLE and sends elsewhere, so
/// nothing depends on it.
const NOTICE_MS: u64 = 2_000;

impl Index {
    /// Models and their endpoints, if they may have changed since this was asked.
    pub fn take_routes(&mut self) -> Option<Vec<ModelConfig>> {
        let due = std::mem::take(&mut self.routes_due);
        due.then(|| self.models.iter().filter_map(|(key, model)| self.config(key, model)).collect())
    }

    fn config(&self, key: &PodKey, model: &Model) -> Option<ModelConfig> {
        let wanted = model.accepted.as_ref().filter(|_| model.facts.is_some() && model.told.is_some())?;
        let (tensors, _) = model.tensors.as_ref()?;
        let mut config = convert::model_config(key.name(), &wanted.spec, tensors);
        let endpoint = |(id, replica): (&ReplicaId, &super::Replica)| {
            let (_, of) = self.replica_facts(&replica.pod)?;
            let address = of.address.as_ref().filter(|_| of.ready.is_some() || replica.draining.is_some())?;
            let draining = replica.draining.is_some() || replica.ending;
            Some(Endpoint { replica_id: id.to_string(), address: host_and_port(address), draining })
        };
        config.endpoints = model.replicas.iter().filter_map(endpoint).collect();
        Some(config)
    }

    /// Routers are told by this version what [`Index::take_routes`] gave.
    pub fn routes_published(&mut self, version: u64) {
        for replica in self.models.values_mut().flat_map(|model| model.replicas.values_mut()) {
            if let Some(draining) = &mut replica.draining {
                draining.version.get_or_insert(version);
            }
        }
    }

    /// Replicas that routers send nothing to any more are told to end. `noticed`: whether every router has that version.
    pub fn end_drained(&mut self, now: At, noticed: impl Fn(u64) -> bool) {
        let mut writes = Vec::new();
        for replica in self.models.values_mut().flat_map(|model| model.replicas.values_mut()) {
            let due = replica
                .draining
                .is_some_and(|draining| draining.version.is_some_and(&noticed) || now.since(draining.since) >= NOTICE_MS);
            // One that is being made is told once it was.
            if due && replica.state != super::State::Making && !std::mem::replace(&mut replica.ending, true) {
                let uid = self.pods.get(&replica.pod).map(|entry| entry.facts.uid.clone());
                writes.push(Write::EndPod { pod: replica.pod.clone(), uid, now: false });
            }
        }
        self.writes.extend(writes);
    }

    /// Replicas that are to end.
    pub fn draining(&self) -> BTreeSet<String> {
        let all = self.models.values().flat_map(|model| &model.replicas);
        all.filter(|(_, replica)| replica.draining.is_some() && replica.ending).map(|(id, _)| id.to_string()).collect()
    }

    /// What a replica says of its model. Whether it answers its pod says.
    pub fn replica_report(&mut self, report: &ReplicaReport) -> Vec<Event> {
        let Some(key) = self.model_called(&ModelName::from(report.model.as_str())) else { return Vec::new() };
        let Some(model) = self.models.get_mut(&key) else { return Vec::new() };
        let Some(replica) = model.replicas.get(&ReplicaId::from(report.replica_id.as_str())) else { return Vec::new() };
        let Some(tensors) = report.tensors.as_ref().map(convert::model_info) else { return Vec::new() };
        let news =
            model.tensors.as_ref().is_none_or(|(known, generation)| replica.generation >= *generation && *known != tensors);
        if !news {
            return Vec::new();
        }
        tracing::info!(model = %name(&key), inputs = tensors.inputs.len(), outputs = tensors.outputs.len(), "a replica told its model's tensors");
        model.tensors = Some((tensors, replica.generation));
        self.look_at_model(&key)
    }
}

fn host_and_port(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:{PORT}") } else { format!("{address}:{PORT}") }
}
