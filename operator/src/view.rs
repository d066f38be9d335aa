//! What the page shows of the cluster, in the words of `up`'s page ([`tidegate_api::view`]). Pure: a scene in, values out.
//!
//! **Promise.** An answer is bounded, however large the cluster: what is left out is told with its number.

mod spans;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tidegate_api::eta::Etas;
use tidegate_api::view;
use tidegate_core::State;
use tidegate_core::books::GPU;
use tidegate_core::holdings::{Claim, Holder, Holdings};
use tidegate_core::names::{JobName, QueueName, ReplicaId};
use tidegate_core::node::Node;
use tidegate_core::plan::ActionKind;
use tidegate_core::state::{Health, ReplicaPhase, Resource};

use crate::world::{Planned, Scene};
pub use spans::timeline;

/// GPUs that are shown: more lanes nobody reads.
const MOST_DEVICES: usize = 512;
/// Nodes of a decision that are named.
const MOST_NODES: usize = 8;

/// Everything at one moment.
#[derive(Serialize, Clone, Debug)]
pub struct Page {
    #[serde(flatten)]
    pub state: view::State,
    pub left_out: LeftOut,
    /// Who holds the shown GPUs, since when.
    #[serde(skip)]
    spans: Vec<view::Span>,
}

/// How many are not shown.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub devices: usize,
    pub jobs: usize,
}

impl Page {
    /// `etas` may be some seconds old.
    pub fn of(scene: &Scene, etas: &Etas) -> Self {
        let state = scene.engine.state();
        let devices = Devices::of(state);
        let (shown, more_devices) = devices.all();
        let (jobs, more_jobs) = work::jobs(scene, etas);
        let spans = spans::open(&devices, &shown);
        let state = view::State {
            now_ms: scene.at.0,
            started_ms: scene.since.0,
            devices: shown,
            jobs,
            models: work::models(scene),
            queues: queues(scene, &devices.borrowers),
            eviction_cap_reached: state.eviction_cap_reached,
        };
        Self { state, left_out: LeftOut { devices: more_devices, jobs: more_jobs }, spans }
    }
}

/// The last decisions, oldest first.
pub fn decisions(scene: &Scene) -> Vec<view::Decision> {
    scene.shown.iter().map(|planned| decision(planned)).collect()
}

fn decision(planned: &Planned) -> view::Decision {
    let Planned { at_ms, action, subject, nodes, reason, category } = planned;
    let detail = match nodes.len() {
        0 => String::new(),
        1..=MOST_NODES => format!("at {}", nodes.join(", ")),
        count => format!("at {count} places"),
    };
    let (action, category) = ((*action).to_owned(), (*category).to_owned());
    view::Decision { at_ms: *at_ms, action, subject: subject.clone(), detail, reason: reason.clone(), category }
}

/// GPUs and who holds them.
struct Devices<'a> {
    state: &'a State,
    holdings: Holdings,
    borrowers: BTreeSet<QueueName>,
    /// Whose start waits until others have left.
    jobs_to_come: BTreeSet<&'a JobName>,
    replicas_to_come: BTreeSet<&'a ReplicaId>,
}

impl<'a> Devices<'a> {
    fn of(state: &'a State) -> Self {
        let holdings = Holdings::of(state);
        let borrowers = holdings.borrowers(state).into_iter().collect();
        let waits = || state.actions.values().filter(|action| action.after.iter().any(|id| state.actions.contains_key(id)));
        let job = |kind: &'a ActionKind| if let ActionKind::StartJob { job, .. } = kind { Some(job) } else { None };
        let replica =
            |kind: &'a ActionKind| if let ActionKind::StartReplica { replica, .. } = kind { Some(replica) } else { None };
        let jobs_to_come = waits().filter_map(|action| job(&action.kind)).collect();
        let replicas_to_come = waits().filter_map(|action| replica(&action.kind)).collect();
        Self { state, holdings, borrowers, jobs_to_come, replicas_to_come }
    }

    /// Those that are shown, and how many more there are.
    fn all(&self) -> (Vec<view::Device>, usize) {
        let of_node = |node: &'a Node| node.devices.iter().map(move |device| (node, device));
        let is_there = |(node, device): &(&Node, &tidegate_core::node::Device)| {
            !self.holdings.claims(&device.id).is_empty() || (!node.gone && device.health != Health::Lost)
        };
        let mut nodes: Vec<_> = self.state.nodes.iter().map(|(name, node)| (in_order(name.as_str()), node)).collect();
        nodes.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut there = nodes.into_iter().flat_map(|(_, node)| of_node(node)).filter(is_there);
        let shown = there.by_ref().take(MOST_DEVICES).map(|(node, device)| self.device(node, device)).collect();
        (shown, there.count())
    }

    fn device(&self, node: &Node, device: &tidegate_core::node::Device) -> view::Device {
        let health = match device.health {
            Health::Lost => "lost",
            _ if node.gone => "lost",
            Health::Draining => "draining",
            Health::Ok => "ok",
        };
        view::Device {
            id: device.id.to_string(),
            class: device.class.to_string(),
            memory_mib: device.memory_mib,
            simulated: false,
            health: health.to_owned(),
            why: if node.gone { "its node does not answer".to_owned() } else { String::new() },
            holders: self.claims(&device.id).map(|claim| self.holder(claim)).collect(),
        }
    }

    /// Of those that hold it now.
    fn claims(&self, device: &tidegate_core::names::DeviceId) -> impl Iterator<Item = &Claim> {
        let comes = |claim: &&Claim| match &claim.holder {
            Holder::Job(name) => self.jobs_to_come.contains(name),
            Holder::Replica(_, id) => self.replicas_to_come.contains(id),
        };
        self.holdings.claims(device).iter().filter(move |claim| !comes(claim))
    }

    fn holder(&self, claim: &Claim) -> view::Holder {
        let (kind, name, runs) = match &claim.holder {
            Holder::Job(name) => {
                ("job", name.to_string(), self.state.jobs.get(name).and_then(|job| job.run()).is_some_and(|run| run.observed))
            }
            Holder::Replica(model, id) => {
                let ready = self.state.replicas.get(id).is_some_and(|replica| replica.phase == ReplicaPhase::Ready);
                ("model", model.to_string(), ready)
            }
        };
        let phase = match (claim.releasing, runs) {
            (Some(_), _) => "stopping",
            (None, true) => "running",
            (None, false) => "starting",
        };
        view::Holder { kind: kind.to_owned(), name, phase: phase.to_owned(), lent: self.borrowers.contains(&claim.queue) }
    }
}

fn queues(scene: &Scene, borrowers: &BTreeSet<QueueName>) -> Vec<view::Queue> {
    let whole = |milli: i64| u32::try_from(milli / 1000).unwrap_or(0);
    let tree = &scene.engine.books().tree;
    let queue = |(name, queue): (&QueueName, &tidegate_core::state::Queue)| {
        let quota = queue.quotas.get(&Resource::Gpu).copied().unwrap_or_default();
        let used = tree.node(name).map_or(0, |node| whole(tree.usage(node, GPU) + 999));
        let nominal = whole(quota.nominal);
        view::Queue {
            name: name.to_string(),
            parent: queue.parent.as_ref().map(ToString::to_string),
            nominal,
            borrowing_limit: quota.borrowing_limit.map(whole),
            used,
            lent: if borrowers.contains(name) { used.saturating_sub(nominal) } else { 0 },
        }
    };
    scene.engine.state().queues.iter().map(queue).collect()
}

/// A name as people order names: numbers in it count, so `node-2` comes before `node-10`.
fn in_order(mut name: &str) -> Vec<(&str, u64)> {
    let mut parts = Vec::new();
    while !name.is_empty() {
        let (text, rest) = name.split_at(name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len()));
        let (digits, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        parts.push((text, digits.parse().unwrap_or(0)));
        name = rest;
    }
    parts
}

/// The last reason of each that was decided on.
fn reasons(scene: &Scene) -> BTreeMap<&str, &str> {
    scene.shown.iter().map(|planned| (planned.subject.as_str(), planned.reason.as_str())).collect()
}

#[cfg(test)]
mod tests;
