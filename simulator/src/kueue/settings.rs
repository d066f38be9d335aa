//! The committed settings of the studies, `simulator/settings/<study>.yaml`: every number that a figure hangs on.

use serde::{Deserialize, Serialize};

use super::Ms;
use super::rule::RuleSettings;
use super::world::Latency;
use crate::Error;

/// `kueue-baseline`, `kueue-large`, `kueue-tas`.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct KueueSettings {
    /// Where the shapes come from.
    pub source: String,
    pub published: Published,
    /// A class is not hurt by up to so much more time to admission.
    pub not_hurt_percent: f64,
    pub latency: Latency,
    pub rule: RuleSettings,
    pub cohorts: Vec<Cohorts>,
    #[serde(default)]
    pub topology: Option<Topology>,
}

/// What was published; printed beside, and bounded by API writes.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Wall clock of the whole run.
    pub makespan_s: f64,
    /// Admitted usage over nominal quota.
    pub usage_percent: f64,
    /// Mean time to admission by group of classes.
    pub admit_s: Vec<(String, f64)>,
}

/// Alike cohorts.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Cohorts {
    pub count: u32,
    pub queues: Vec<Queues>,
}

/// Alike queues of a cohort.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Queues {
    pub count: u32,
    pub nominal_milli: i64,
    pub borrowing_limit_milli: i64,
    pub workloads: Vec<Workloads>,
}

/// Alike workloads of a queue, created one after another.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Workloads {
    pub class: String,
    pub count: u32,
    /// Before each, the first too.
    pub every_ms: Ms,
    pub runtime_ms: Ms,
    pub priority: i32,
    pub pods: u32,
    pub cpu_milli: i64,
    #[serde(default)]
    pub wish: Option<WishSettings>,
}

/// What a class wants of the topology.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct WishSettings {
    pub kind: WishKind,
    /// The name of the level.
    pub level: String,
    /// Pods of a slice; 1 where the kind is another.
    #[serde(default = "one")]
    pub size: u32,
}

/// See [`super::Wish`].
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum WishKind {
    Required,
    Preferred,
    Slices,
}

fn one() -> u32 {
    1
}

/// Levels from the widest; the last is the node.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    pub levels: Vec<(String, u32)>,
    pub node_milli: i64,
    pub pods_per_node: u32,
}

/// `production-1300`.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct ProductionSettings {
    pub source: String,
    pub seed: u64,
    pub latency: Latency,
    pub topology: Topology,
    /// Teams, each with its own share of the nominal quota, by weight.
    pub teams: Vec<Team>,
    /// Part of all GPUs that is nominal quota of the teams, in thousandths.
    pub nominal_milli: u64,
    /// Sizes and how often each, in any unit.
    pub sizes: Vec<Size>,
    /// Part of the GPUs that run something at the start, in thousandths.
    pub busy_milli: u64,
    /// Gangs that wait from the start.
    pub queued: u32,
    /// Gangs that are created later, one after another.
    pub arriving: u32,
    pub every_ms: Ms,
    /// Run times are log-uniform between these.
    pub runtime_ms: (Ms, Ms),
    /// Ends the run.
    pub until_ms: Ms,
}

/// One team's queue.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Team {
    pub name: String,
    pub weight: u32,
    /// The name of the department above; teams of one name are siblings.
    pub parent: String,
    /// Part of the workloads that are its own, in any unit.
    pub demand: u32,
}

/// One size of gangs.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Size {
    pub gpus: u32,
    pub often: u32,
    #[serde(default)]
    pub wish: Option<WishSettings>,
}

/// `scale`.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct ScaleSettings {
    pub source: String,
    pub seed: u64,
    pub latency: Latency,
    /// GPUs of each run.
    pub gpus: Vec<u32>,
    pub gpus_per_node: u32,
    pub nodes_per_rack: u32,
    pub racks_per_block: u32,
    /// Queues: one per so many GPUs, at least `queues_min`, at most `queues_max`.
    pub gpus_per_queue: u32,
    pub queues_min: u32,
    pub queues_max: u32,
    pub sizes: Vec<Size>,
    /// Mean run time; exponential, so that what runs at the start ends like what comes.
    pub mean_runtime_ms: Ms,
    /// Part of the GPUs that are asked for in the mean, in thousandths.
    pub load_milli: u64,
    /// Each so many cycles one is measured with every queue dirty and no verdicts kept.
    pub cold_every: u64,
    /// The first arrives after this.
    pub settle_ms: Ms,
    /// Workloads that arrive in a run beyond what runs at the start.
    pub arrivals: u32,
}

/// Reads committed settings.
///
/// # Errors
/// Names the study, the field and what is wrong with it.
pub fn read<T: serde::de::DeserializeOwned>(study: &str, text: &str) -> Result<T, Error> {
    serde_yaml::from_str(text).map_err(|error| Error::Usage(format!("simulator/settings/{study}.yaml: {error}")))
}
