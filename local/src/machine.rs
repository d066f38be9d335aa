//! The box as the engine sees it: one node with its devices, its cores and its memory.

use std::thread::available_parallelism;

use tidegate_api::kinds::PoolSpec;
use tidegate_core::ask::Ask;
use tidegate_core::cluster::Cluster;
use tidegate_core::labels::Labels;
use tidegate_core::node::{Node, NodeSpec};
use tidegate_core::plan::ActionKind;
use tidegate_core::state::{Group, JobSpec, Queue};
use tidegate_core::{At, Engine, Event};

use crate::devices::Device;

/// The node's name. Not the host's: that may change under a data directory, a container's does at every start.
pub const NODE: &str = "box";

/// What work can be placed on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its devices, in the order in which they are shown.
    pub devices: Vec<Device>,
    /// Its labels, cores and memory. What others use of them is not known, and not left out.
    pub spec: NodeSpec,
}

impl Machine {
    /// This machine with these devices. Cores or memory that cannot be read count as boundless.
    pub fn with(devices: Vec<Device>) -> Self {
        let boundless = NodeSpec::default();
        let cores = available_parallelism().ok().and_then(|cores| u64::try_from(cores.get()).ok());
        let spec = NodeSpec {
            cpu_milli: cores.map_or(boundless.cpu_milli, |cores| cores * 1000),
            memory_mib: std::fs::read_to_string("/proc/meminfo")
                .ok()
                .and_then(|text| memory_mib(&text))
                .unwrap_or(boundless.memory_mib),
            labels: own_labels(),
            ..boundless
        };
        Self { devices, spec }
    }

    /// Devices that suit the ask by class and size.
    pub fn suiting(&self, ask: &Ask) -> usize {
        self.devices.iter().map(Device::as_core).filter(|device| ask.suits(device)).count()
    }

    /// Workers of this ask that the box takes when nothing else runs, by the engine's own count.
    pub fn room(&self, ask: &Ask) -> u32 {
        let node = Node {
            spec: self.spec.clone().into(),
            devices: self.devices.iter().map(Device::as_core).collect(),
            ..Node::default()
        };
        let mut cluster = Cluster::default();
        cluster.set_node(0, &node);
        let ask = cluster.intern(ask);
        cluster.candidates(ask).fit(0)
    }

    /// Whether the empty box takes all these groups at their smallest at once, by the engine's own decision.
    pub fn takes(&self, groups: &[Group]) -> bool {
        let mut engine = Engine::default();
        let groups = groups.iter().map(|group| Group { max: group.min, spread: None, ..group.clone() }).collect();
        let devices = self.devices.iter().map(|device| Event::DeviceSeen(device.as_core()));
        let node = Event::NodeSet { name: NODE.into(), spec: self.spec.clone().into() };
        let queue = Event::QueueSet { name: "all".into(), queue: Queue::default() };
        let job = Event::JobSet {
            name: "new".into(),
            spec: JobSpec { groups, ..JobSpec::workers("all", 1, 1, Ask::default()) }.into(),
        };
        for event in std::iter::once(node).chain(devices).chain([queue, job]) {
            engine.apply(At(0), event);
        }
        engine.decide(At(0)).actions.iter().any(|action| matches!(action.kind, ActionKind::StartJob { .. }))
    }
}

/// The node in this pool: at every level of its topology the box is one place.
pub fn in_pool(node: &NodeSpec, pool: &PoolSpec) -> NodeSpec {
    let levels = pool.topology_levels.iter().map(|level| (level.clone(), NODE.to_owned()));
    NodeSpec { labels: node.labels.clone().into_iter().chain(levels).collect(), ..node.clone() }
}

/// The labels that Kubernetes gives every node.
fn own_labels() -> Labels {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let labels = [("hostname", NODE), ("os", std::env::consts::OS), ("arch", arch)];
    labels.map(|(key, value)| (format!("kubernetes.io/{key}"), value.to_owned())).into()
}

/// `MemTotal` of `/proc/meminfo`, which is in KiB.
fn memory_mib(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib >> 10)
}

#[cfg(test)]
mod tests {
    use tidegate_core::ask::Amount;
    use tidegate_core::mig::Profile;

    use super::*;
    use crate::devices;

    fn machine(devices: &str) -> Machine {
        let spec = NodeSpec { cpu_milli: 8_000, memory_mib: 16_000, ..NodeSpec::default() };
        Machine { devices: devices::find(Some(devices)).unwrap(), spec }
    }

    #[test]
    fn the_memory_is_read_in_mib() {
        assert_eq!(memory_mib("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), Some(16_000));
        assert_eq!(memory_mib("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn room_is_what_fits_on_an_empty_box() {
        let ask = |amount| Ask { amount, ..Ask::default() };
        let four = machine("4xH100-80GB");
        assert_eq!(four.room(&ask(Amount::Whole(1))), 4);
        assert_eq!(four.room(&ask(Amount::Whole(3))), 1);
        assert_eq!(four.room(&ask(Amount::Whole(5))), 0);
        assert_eq!(four.room(&ask(Amount::Milli(400))), 8);
        assert_eq!(four.room(&ask(Amount::MemoryMib(40_960))), 8);
        assert_eq!(four.room(&ask(Amount::Mig(Profile::G3))), 8);
        assert_eq!(four.room(&Ask { cpu_milli: 3_000, ..Ask::whole(1) }), 2);
        assert_eq!(four.room(&Ask { memory_mib: 9_000, ..ask(Amount::None) }), 1);
        let group = |min, ask| Group { name: "g".to_owned(), min, max: min, ask, spread: None };
        let halves = |wholes, shares| four.takes(&[group(wholes, Ask::whole(1)), group(shares, ask(Amount::Milli(500)))]);
        assert_eq!([halves(3, 2), halves(2, 4), halves(3, 3)], [true, true, false], "together they are more");
        assert_eq!(machine("4xL4-24GB").room(&ask(Amount::Mig(Profile::G1))), 0, "an L4 cannot be divided");
    }
}
