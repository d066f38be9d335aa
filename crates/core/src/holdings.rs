//! Who holds which device, derived from the state from nothing: what people are shown, and what tests compare the books with.

use std::collections::BTreeMap;

use crate::claims;
use crate::cluster;
use crate::names::{DeviceId, JobName, ModelName, QueueName, ReplicaId};
use crate::plan::ActionId;
use crate::state::State;

/// Who claims.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    Job(JobName),
    Replica(ModelName, ReplicaId),
}

/// One claim on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub holder: Holder,
    pub queue: QueueName,
    pub mib: u64,
    pub milli: u64,
    /// MIG slices, when it is an instance.
    pub slices: u8,
    /// The action that ends it.
    pub releasing: Option<ActionId>,
}

/// All claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    pub devices: BTreeMap<DeviceId, Vec<Claim>>,
}

impl Holdings {
    /// Derives the claims from the state.
    pub fn of(state: &State) -> Self {
        let mut all = Self { devices: state.devices().map(|device| (device.id.clone(), Vec::new())).collect() };
        claims::each(state, |claim| {
            let Some(holder) = holder(state, claim.holder) else { return };
            for device in state.devices_of(claim.seat) {
                let entry = Claim {
                    holder: holder.clone(),
                    queue: claim.queue.clone(),
                    mib: claim.ask.mib_on(device),
                    milli: u64::from(claim.ask.milli_on(device)),
                    slices: claim.seat.slices,
                    releasing: claim.releasing,
                };
                all.devices.entry(device.id.clone()).or_default().push(entry);
            }
        });
        all
    }

    /// The claims on a device.
    pub fn claims(&self, device: &DeviceId) -> &[Claim] {
        self.devices.get(device).map(Vec::as_slice).unwrap_or_default()
    }

    /// Thousandths of devices that a queue holds firmly.
    pub fn queue_milli(&self, queue: &QueueName) -> u64 {
        let claims = self.devices.values().flatten();
        claims.filter(|claim| claim.queue == *queue && claim.releasing.is_none()).map(|claim| claim.milli).sum()
    }

    /// Queues that use more than their own while others use less: what they hold above is lent.
    pub fn borrowers(&self, state: &State) -> Vec<QueueName> {
        if self.lent_milli(state) == 0 {
            return Vec::new();
        }
        let above = |(name, nominal): &(&QueueName, u64)| self.queue_milli(name) > *nominal;
        nominals(state).filter(above).map(|(name, _)| name.clone()).collect()
    }

    /// Thousandths of devices by `job/NAME` and `model/NAME`, releases included: they still hold.
    pub fn by_holder(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for claim in self.devices.values().flatten() {
            let name = match &claim.holder {
                Holder::Job(name) => format!("job/{name}"),
                Holder::Replica(model, _) => format!("model/{model}"),
            };
            *sums.entry(name).or_default() += claim.milli;
        }
        sums
    }

    /// Thousandths of devices that are lent: used above some queues' nominal, while others use less than theirs.
    pub fn lent_milli(&self, state: &State) -> u64 {
        let mut above = 0;
        let mut below = 0;
        for (name, nominal) in nominals(state) {
            let claims = self.devices.values().flatten().filter(|claim| claim.queue == *name);
            let used: u64 = claims.map(|claim| claim.milli).sum();
            above += used.saturating_sub(nominal);
            below += nominal.saturating_sub(used);
        }
        above.min(below)
    }
}

/// Queues and what is their own, in thousandths of devices: nothing of those that are gone.
fn nominals(state: &State) -> impl Iterator<Item = (&QueueName, u64)> {
    let there = state.queues.iter().map(|(name, queue)| (name, queue.nominal_milli()));
    there.chain(state.gone.iter().map(|name| (name, 0)))
}

fn holder(state: &State, holder: cluster::Holder) -> Option<Holder> {
    match holder {
        cluster::Holder::Job(ix) => state.jobs.name(ix).cloned().map(Holder::Job),
        cluster::Holder::Replica(ix) => {
            let model = state.replicas.at(ix)?.model.clone();
            state.replicas.name(ix).cloned().map(|id| Holder::Replica(model, id))
        }
    }
}
