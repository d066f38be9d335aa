//! Who holds what: the claims on each device and the use of each queue, derived from the state.
//!
//! A claim is *firm* or *releasing* (its holder was told to end by the named action). New work may be
//! placed on what is not firmly held; it then comes after the releases. `Holdings` is also the
//! transaction of a decision: claims are tried on a copy, and kept or dropped whole.

use std::collections::BTreeMap;

use crate::names::{DeviceId, JobName, ModelName, QueueName, ReplicaId};
use crate::plan::ActionId;
use crate::state::{Amount, Ask, Health, Phase, State};

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
        let mut all = Self { devices: state.devices.keys().map(|id| (id.clone(), Vec::new())).collect() };
        for (name, job) in &state.jobs {
            let holder = Holder::Job(name.clone());
            match &job.phase {
                Phase::Waiting { keep, .. } => {
                    for device in keep {
                        all.claim(state, device, &holder, &job.spec.queue, &job.spec.ask, None);
                    }
                }
                Phase::Running(run) => {
                    let mut kept = run.kept().to_vec();
                    for device in &run.devices {
                        let position = kept.iter().position(|id| id == device);
                        let releasing = match position {
                            Some(at) => {
                                kept.swap_remove(at);
                                None
                            }
                            None => run.stop.as_ref().map(|stop| stop.action),
                        };
                        all.claim(state, device, &holder, &job.spec.queue, &job.spec.ask, releasing);
                    }
                    for device in &kept {
                        all.claim(state, device, &holder, &job.spec.queue, &job.spec.ask, None);
                    }
                }
                Phase::Finished(_) => {}
            }
        }
        for (id, replica) in &state.replicas {
            let Some(model) = state.models.get(&replica.model) else { continue };
            let holder = Holder::Replica(replica.model.clone(), id.clone());
            let releasing = replica.stop.as_ref().map(|stop| stop.action);
            all.claim(state, &replica.device, &holder, &model.spec.queue, &model.spec.ask, releasing);
        }
        all
    }

    /// Adds a claim.
    pub fn claim(
        &mut self,
        state: &State,
        device: &DeviceId,
        holder: &Holder,
        queue: &QueueName,
        ask: &Ask,
        releasing: Option<ActionId>,
    ) {
        let Some(facts) = state.devices.get(device) else { return };
        let claim =
            Claim { holder: holder.clone(), queue: queue.clone(), mib: ask.mib_on(facts), milli: ask.milli_on(facts), releasing };
        self.devices.entry(device.clone()).or_default().push(claim);
    }

    /// Turns one firm claim of `holder` on `device` into one that `action` releases.
    pub fn release(&mut self, device: &DeviceId, holder: &Holder, action: ActionId) {
        let claims = self.devices.get_mut(device).map(Vec::as_mut_slice).unwrap_or_default();
        if let Some(claim) = claims.iter_mut().find(|claim| claim.holder == *holder && claim.releasing.is_none()) {
            claim.releasing = Some(action);
        }
    }

    /// The device that `ask` fits on, best first: free now before free soon, then the tightest, then by id.
    pub fn find(&self, state: &State, ask: &Ask, free_now: bool) -> Option<DeviceId> {
        let fits = self.devices.keys().filter(|id| self.has_room(state, id, ask) && (!free_now || self.is_settled(id)));
        fits.min_by_key(|id| (!self.is_settled(id), self.room_mib(state, id), (*id).clone())).cloned()
    }

    /// Whether `ask` fits beside the firm claims.
    pub fn has_room(&self, state: &State, device: &DeviceId, ask: &Ask) -> bool {
        let Some(facts) = state.devices.get(device) else { return false };
        let usable = facts.health == Health::Ok && ask.suits(facts);
        let room = self.room_mib(state, device);
        usable && if ask.amount == Amount::Whole { room == facts.memory_mib } else { room >= ask.mib_on(facts) }
    }

    /// Memory that is not firmly claimed.
    fn room_mib(&self, state: &State, device: &DeviceId) -> u64 {
        let total = state.devices.get(device).map_or(0, |facts| facts.memory_mib);
        let firm: u64 = self.claims(device).iter().filter(|claim| claim.releasing.is_none()).map(|claim| claim.mib).sum();
        total.saturating_sub(firm)
    }

    /// The claims on a device.
    pub fn claims(&self, device: &DeviceId) -> &[Claim] {
        self.devices.get(device).map(Vec::as_slice).unwrap_or_default()
    }

    /// Nothing on the device is about to end.
    pub fn is_settled(&self, device: &DeviceId) -> bool {
        self.claims(device).iter().all(|claim| claim.releasing.is_none())
    }

    /// The releases that work placed on the device must wait for.
    pub fn after(&self, device: &DeviceId) -> Vec<ActionId> {
        let mut ids: Vec<ActionId> = self.claims(device).iter().filter_map(|claim| claim.releasing).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Thousandths of devices that a queue holds firmly.
    pub fn queue_milli(&self, queue: &QueueName) -> u64 {
        let claims = self.devices.values().flatten();
        claims.filter(|claim| claim.queue == *queue && claim.releasing.is_none()).map(|claim| claim.milli).sum()
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
        for (name, queue) in &state.queues {
            let claims = self.devices.values().flatten().filter(|claim| claim.queue == *name);
            let used: u64 = claims.map(|claim| claim.milli).sum();
            let nominal = u64::from(queue.nominal) * 1000;
            above += used.saturating_sub(nominal);
            below += nominal.saturating_sub(used);
        }
        above.min(below)
    }
}
