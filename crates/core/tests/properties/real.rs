//! What really runs: the devices, cores and memory of the test world, as they would be on machines. Nothing here asks the engine
//! whether something fits; what does not is a broken promise.

use std::collections::BTreeMap;

use tidegate_core::mig::Profile;
use tidegate_core::names::{DeviceId, JobName, NodeName, ReplicaId};
use tidegate_core::plan::Placed;
use tidegate_core::state::{Amount, Ask, State};

use super::checks::promised;

/// What one worker or replica really takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub node: NodeName,
    pub devices: Vec<DeviceId>,
    pub milli: u64,
    pub mib: u64,
    pub slices: u8,
    pub profile: Option<Profile>,
    pub cpu_milli: u64,
    pub memory_mib: u64,
}

/// An attempt of a job that really runs.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub number: u32,
    pub workers: Vec<Taken>,
}

/// Everything that really runs.
#[derive(Clone, Debug, Default)]
pub struct Real {
    pub jobs: BTreeMap<JobName, Attempt>,
    pub replicas: BTreeMap<ReplicaId, Taken>,
    /// Cores (in thousandths) and memory that a node may be found to give although it has less: it was cut under its use.
    excess: BTreeMap<NodeName, (u64, u64)>,
}

/// What a place of an ask takes.
pub fn taken(state: &State, ask: &Ask, place: &Placed) -> Taken {
    let device = place.devices.first().and_then(|id| state.device(id));
    let wanted = if matches!(ask.amount, Amount::Whole(_)) { ask.devices() as usize } else { place.devices.len() };
    assert_eq!(place.devices.len(), wanted, "as many devices as asked for: {place:?} {ask:?}");
    Taken {
        node: place.node.clone(),
        devices: place.devices.clone(),
        milli: device.map_or(0, |device| u64::from(ask.milli_on(device))),
        mib: device.map_or(0, |device| ask.mib_on(device)),
        slices: place.slices,
        profile: if let Amount::Mig(profile) = ask.amount { Some(profile) } else { None },
        cpu_milli: ask.cpu_milli,
        memory_mib: ask.memory_mib,
    }
}

impl Real {
    /// Everything that something takes.
    pub fn all(&self) -> impl Iterator<Item = &Taken> {
        self.jobs.values().flat_map(|attempt| &attempt.workers).chain(self.replicas.values())
    }

    /// Whether a worker of the attempt is on the node.
    pub fn is_on(attempt: &Attempt, node: &NodeName) -> bool {
        attempt.workers.iter().any(|worker| worker.node == *node)
    }

    /// A node's cores or memory change: what is held or promised there now is forgiven until it falls.
    pub fn forgive(&mut self, node: &NodeName, held: (u64, u64)) {
        let known = self.excess.entry(node.clone()).or_default();
        *known = (known.0.max(held.0), known.1.max(held.1));
    }

    /// No device is over-committed, no node gives more than it has.
    pub fn check(&mut self, state: &State) {
        let taken: Vec<Taken> = self.all().cloned().collect();
        check_devices(state, &taken, "really");
        check_nodes(state, &by_node(&taken), &self.excess, "really");
        fall(&mut self.excess, &by_node(&promised(state, false)));
    }
}

/// Cores and memory by node.
pub fn by_node(taken: &[Taken]) -> BTreeMap<NodeName, (u64, u64)> {
    let mut held: BTreeMap<NodeName, (u64, u64)> = BTreeMap::new();
    for one in taken {
        let sum = held.entry(one.node.clone()).or_default();
        *sum = (sum.0 + one.cpu_milli, sum.1 + one.memory_mib);
    }
    held
}

/// Shares of no device add up to more than it, MIG instances are where they may be, and nothing else is beside them.
pub fn check_devices(state: &State, taken: &[Taken], how: &str) {
    let mut by_device: BTreeMap<&DeviceId, Vec<&Taken>> = BTreeMap::new();
    for one in taken {
        for device in &one.devices {
            by_device.entry(device).or_default().push(one);
        }
    }
    for (id, holders) in by_device {
        let device = state.device(id).unwrap();
        let milli: u64 = holders.iter().map(|one| one.milli).sum();
        let mib: u64 = holders.iter().map(|one| one.mib).sum();
        assert!(milli <= 1_000, "{id} {how} gives {milli} thousandths: {holders:?}");
        assert!(mib <= device.memory_mib, "{id} {how} gives {mib} MiB of {}: {holders:?}", device.memory_mib);
        let divided = holders.iter().any(|one| one.profile.is_some());
        let mut slices = 0_u8;
        for one in holders.iter().filter(|_| divided) {
            let legal = one.profile.is_some_and(|profile| profile.is_legal(one.slices));
            assert!(legal && device.mig, "{id} {how} has no such instance: {one:?} in {holders:?}");
            assert_eq!(slices & one.slices, 0, "{id} {how} gives a slice twice: {holders:?}");
            slices |= one.slices;
        }
    }
}

/// No node gives more cores or memory than it has, but for what is forgiven.
pub fn check_nodes(state: &State, held: &BTreeMap<NodeName, (u64, u64)>, excess: &BTreeMap<NodeName, (u64, u64)>, how: &str) {
    for (name, (cpu, memory)) in held {
        let spec = &state.nodes[name].spec;
        let allowed = excess.get(name).copied().unwrap_or_default();
        let (most_cpu, most_memory) = (spec.cpu_milli.max(allowed.0), spec.memory_mib.max(allowed.1));
        assert!(*cpu <= most_cpu, "{name} {how} gives {cpu} of {most_cpu} thousandths of a core");
        assert!(*memory <= most_memory, "{name} {how} gives {memory} of {most_memory} MiB");
    }
}

/// What is forgiven falls with what is counted on, and does not rise again.
pub fn fall(excess: &mut BTreeMap<NodeName, (u64, u64)>, held: &BTreeMap<NodeName, (u64, u64)>) {
    for (name, allowed) in excess.iter_mut() {
        let (cpu, memory) = held.get(name).copied().unwrap_or_default();
        *allowed = (allowed.0.min(cpu), allowed.1.min(memory));
    }
}
