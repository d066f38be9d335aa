//! What the agent tells as JSON: `/gpus`, and what `tidegate gpus --json` prints. Facts keep their three answers: a known
//! one is its value, `"unsupported"` and `{"failed": ...}` say why there is none.

pub mod facts;

use std::time::Duration;

use serde::Serialize;
use tidegate_nvml::{Driver, Fault, Identity, MigInstance, Reading};

use crate::gpu::{self, Holder, REASONS};
use crate::health::{Cause, State};
use crate::node::Node;
use crate::pods::{Mismatch, Place};

/// The machine.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Gpus {
    /// Versions; absent while NVML is not open.
    pub driver: Option<Driver>,
    /// Why no GPU can be seen, if so.
    pub closed: Option<Closed>,
    pub gpus: Vec<Gpu>,
    /// GPUs that do not even tell their UUID, by index.
    pub unreadable: Vec<Unreadable>,
}

/// Why there are no facts.
#[derive(Serialize, Debug)]
pub struct Closed {
    pub category: &'static str,
    pub why: String,
}

/// A GPU that cannot be opened.
#[derive(Serialize, Debug)]
pub struct Unreadable {
    pub index: u32,
    pub fault: Fault,
}

/// One GPU.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    pub identity: Identity,
    pub class: Option<String>,
    pub health: Health,
    /// Why the last try gave no reading.
    pub fault: Option<Fault>,
    pub reading_age_seconds: Option<f64>,
    pub reading: Option<Reading>,
    pub totals: Totals,
    pub xids: Vec<Xid>,
    pub instances: Vec<Instance>,
    pub users: Vec<User>,
    pub processes: Vec<Process>,
    pub mismatches: Vec<Mismatch>,
    /// What the device plugin says, if it says anything.
    pub plugin_healthy: Option<bool>,
}

/// What is wrong.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub state: State,
    pub findings: Vec<Finding>,
}

/// One thing.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub cause: Cause,
    pub evidence: String,
    pub since_seconds: f64,
    pub seen_seconds: f64,
}

/// Totals in their units; absent where the GPU does not give them.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    pub activity_source: &'static str,
    pub active_seconds: Option<f64>,
    pub resident_seconds: Option<f64>,
    pub tensor_seconds: Option<f64>,
    pub memory_bandwidth_seconds: Option<f64>,
    pub energy_joules: Option<f64>,
    pub unattributed_seconds: f64,
    pub unobserved_seconds: f64,
    /// By reason; those above zero.
    pub throttled_seconds: Vec<(&'static str, f64)>,
}

/// Of one XID.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Xid {
    pub xid: u64,
    pub name: &'static str,
    pub count: u64,
    pub last_seconds: f64,
}

/// A MIG instance with its totals.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    #[serde(flatten)]
    pub told: MigInstance,
    pub active_seconds: Option<f64>,
}

/// Who holds the device.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct User {
    #[serde(flatten)]
    pub holder: Holder,
    pub allocated: bool,
    pub claim: Option<String>,
    pub memory_bytes: u64,
    pub processes: usize,
    pub active_seconds: f64,
    pub held_seconds: f64,
}

/// A process and whose it is.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    #[serde(flatten)]
    pub process: tidegate_nvml::Process,
    pub place: Place,
    pub holder: Option<Holder>,
    pub active_seconds: f64,
}

impl Gpus {
    /// What is known at `at`.
    pub fn of(node: &Node, at: Duration) -> Self {
        let mut gpus: Vec<Gpu> = node.gpus.values().map(|gpu| Gpu::of(gpu, node, at)).collect();
        gpus.sort_by_key(|gpu| gpu.identity.index);
        Self {
            driver: node.driver.clone().filter(|_| node.closed.is_none()),
            closed: node.closed.clone().map(|(category, why)| Closed { category, why }),
            gpus,
            unreadable: node.unreadable.iter().map(|(index, fault)| Unreadable { index: *index, fault: fault.clone() }).collect(),
        }
    }
}

impl Gpu {
    fn of(gpu: &gpu::Gpu, node: &Node, at: Duration) -> Self {
        let ago = |then: Duration| at.saturating_sub(then).as_secs_f64();
        let findings = gpu.health.findings().map(|(cause, finding)| Finding {
            cause,
            evidence: finding.evidence.clone(),
            since_seconds: ago(finding.since),
            seen_seconds: ago(finding.seen),
        });
        let xids = gpu.xids.iter().map(|(xid, count)| Xid {
            xid: *xid,
            name: crate::health::meaning(*xid).0,
            count: count.count,
            last_seconds: ago(count.last),
        });
        Self {
            identity: gpu.identity.clone(),
            class: gpu.identity.class(),
            health: Health { state: gpu.health.state(), findings: findings.collect() },
            fault: gpu.fault.clone(),
            reading_age_seconds: gpu.reading.as_ref().map(|(_, read)| ago(*read)),
            reading: gpu.reading.as_ref().map(|(reading, _)| without_lists(reading)),
            totals: Totals::of(gpu),
            xids: xids.collect(),
            instances: gpu.instances.values().map(Instance::of).collect(),
            users: gpu.usage.users.iter().map(|(holder, user)| User::of(holder, user)).collect(),
            processes: gpu.usage.running.values().map(Process::of).collect(),
            mismatches: gpu.usage.mismatches.clone(),
            plugin_healthy: node.owners.plugin_healthy(&gpu.identity, !gpu.instances.is_empty()),
        }
    }
}

/// Instances and processes have lists of their own, with more in them.
fn without_lists(reading: &Reading) -> Reading {
    let mut reading = reading.clone();
    if let tidegate_nvml::Fact::Known(processes) = &mut reading.processes {
        processes.list.clear();
    }
    if let tidegate_nvml::Fact::Known(instances) = &mut reading.instances {
        instances.clear();
    }
    reading
}

impl Totals {
    fn of(gpu: &gpu::Gpu) -> Self {
        let totals = &gpu.totals;
        let throttled = REASONS.iter().zip(totals.throttled).filter_map(|(reason, seconds)| Some((reason.word, seconds.get()?)));
        Self {
            activity_source: gpu.activity_source().word(),
            active_seconds: gpu.active_seconds(),
            resident_seconds: totals.resident.get(),
            tensor_seconds: totals.busy.tensor.get(),
            memory_bandwidth_seconds: totals.busy.memory_bandwidth.get(),
            energy_joules: totals.energy.get().map(|millijoules| millijoules as f64 / 1000.0).or(totals.sampled_joules),
            unattributed_seconds: gpu.usage.unattributed,
            unobserved_seconds: totals.pace.unobserved,
            throttled_seconds: throttled.filter(|(_, seconds)| *seconds > 0.0).collect(),
        }
    }
}

impl Instance {
    fn of(instance: &gpu::Instance) -> Self {
        Self { told: instance.told.clone(), active_seconds: instance.busy.sm.get() }
    }
}

impl User {
    fn of(holder: &Holder, user: &gpu::User) -> Self {
        Self {
            holder: holder.clone(),
            allocated: user.allocated,
            claim: user.claim.clone(),
            memory_bytes: user.memory_bytes,
            processes: user.processes,
            active_seconds: user.active,
            held_seconds: user.held,
        }
    }
}

impl Process {
    fn of(running: &gpu::Running) -> Self {
        Self {
            process: running.process.clone(),
            place: running.place.clone(),
            holder: running.holder.clone(),
            active_seconds: running.active,
        }
    }
}
