//! Workloads that ask a tree of quotas for admission, in virtual time, under Kueue's own rule or under another.
//!
//! ```text
//!   generate, production, scale    settings -> Setup { Scene (all may see it), Workload (only the world) }
//!   world                          a heap of future events; charges every decision the same latency; keeps the books
//!   rule                           Kueue's rule: heads, nomination, order, admission, preemption, topology
//!   greedy                         the simplest other rule: a yardstick and an example
//! ```
//!
//! **Promises.** A scheduler sees what Kueue's would: the shape of a workload when it is created, never how long it runs.
//! The world checks every admission against quota and nodes by its own books; what over-commits ends the run with an
//! error. Both rules pay the same for each cycle, admission and eviction.
//!
//! **Assumes** one resource flavor per resource, and that a workload's pods are alike.

pub mod engine;
pub mod figures;
pub mod generate;
pub mod greedy;
pub mod nodes;
pub mod production;
pub mod rule;
pub mod scale;
pub mod settings;
pub mod world;

use tidegate_core::quota::{NodeIx, QueueQuota, ResourceIx};

/// Virtual time in milliseconds since the start.
pub type Ms = u64;

/// Index of a workload in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadIx(pub u32);

/// What a class of workloads wants of the topology. Levels count from the widest: 0 is the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// All pods in one domain of the level.
    Required { level: u8 },
    /// In one domain of the level; if none fits, of a wider one; if none fits, anywhere.
    Preferred { level: u8 },
    /// Any `size` pods in rank order in one domain of the level; the slices where there is room.
    Slices { level: u8, size: u32 },
}

/// Workloads of one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// For instance `large-required-rack`.
    pub name: String,
    /// Pods; all run or none.
    pub pods: u32,
    /// Of each pod, in the resource's unit (thousandths of a CPU, of a GPU).
    pub per_pod: Vec<(ResourceIx, i64)>,
    pub priority: i32,
    /// Absent: anywhere.
    pub wish: Option<Wish>,
}

impl Class {
    /// The name up to the first dash: figures are told by it.
    pub fn group(&self) -> &str {
        self.name.split('-').next().unwrap_or(&self.name)
    }

    /// Of all pods.
    pub fn total(&self) -> Vec<(ResourceIx, i64)> {
        self.per_pod.iter().map(|(resource, amount)| (*resource, amount * i64::from(self.pods))).collect()
    }
}

/// Alike nodes in a tree of alike domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// From the widest: name and how many are in each domain of the level before. The last is the node.
    pub levels: Vec<(String, u32)>,
    /// Of each node.
    pub node: Vec<(ResourceIx, i64)>,
    /// Pods that a node takes.
    pub pods_per_node: u32,
}

impl Layout {
    /// All nodes; node `n` of domain `d` of a level with `w` nodes each: `n / w == d`.
    pub fn nodes(&self) -> u32 {
        self.levels.iter().map(|(_, count)| count).product()
    }

    /// Nodes in each domain of a level.
    pub fn width(&self, level: u8) -> u32 {
        self.levels.iter().skip(usize::from(level) + 1).map(|(_, count)| count).product()
    }
}

/// What a scheduler may see before anything happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    pub name: String,
    /// Names of the resources, by index.
    pub resources: Vec<String>,
    /// The quota tree: workloads are submitted to its leaves.
    pub queues: Vec<QueueQuota>,
    pub classes: Vec<Class>,
    /// Absent: quota only.
    pub layout: Option<Layout>,
}

/// One workload as the world knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Position in [`Scene::queues`].
    pub queue: NodeIx,
    /// Position in [`Scene::classes`].
    pub class: u16,
    pub created_ms: Ms,
    /// From its admission; an evicted workload starts anew.
    pub runtime_ms: Ms,
}

/// One experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    pub scene: Scene,
    /// In order of creation.
    pub workloads: Vec<Workload>,
}

/// A workload may run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    pub workload: WorkloadIx,
    /// Pods on each node, nodes ascending; empty without a layout.
    pub nodes: Vec<(u32, u32)>,
}

/// What one cycle orders; carried out one after another, evictions first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    pub evict: Vec<WorkloadIx>,
    pub admit: Vec<Admission>,
}

/// A rule under test.
///
/// The world tells what happened, then asks for a cycle; never in between. An admission holds its quota from the moment it
/// was ordered; an eviction frees nothing before [`QuotaScheduler::evicted`].
pub trait QuotaScheduler {
    /// A workload was created.
    fn submit(&mut self, now: Ms, workload: WorkloadIx, queue: NodeIx, class: u16);
    /// A workload ended by itself; what it held is free. If it was to be evicted, that is void.
    fn finish(&mut self, now: Ms, workload: WorkloadIx);
    /// An ordered eviction is done: what it held is free, and it waits again.
    fn evicted(&mut self, now: Ms, workload: WorkloadIx);
    /// Orders for this moment; the answer is when to ask again if nothing happens (`now` or earlier: as soon as the
    /// world can; absent: not before something happens).
    fn cycle(&mut self, now: Ms, orders: &mut Orders) -> Option<Ms>;
    /// Drops every verdict that would make the next cycle cheaper than a first one. Called before each cycle of a study
    /// that measures cycles.
    fn forget_verdicts(&mut self) {}
}

/// Makes a scheduler for a scene.
pub type Factory<'a> = dyn FnMut(&Scene) -> Box<dyn QuotaScheduler> + 'a;

/// Tells the CPU or wall time in nanoseconds; studies pass a real clock, tests a constant.
pub type Clock<'a> = dyn Fn() -> u64 + 'a;
