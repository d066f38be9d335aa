//! The generator's file. Its fields are those of Kueue's own; an unknown one is refused.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// The file.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Nodes, if placement is part of the test.
    pub topology: Option<Topology>,
    /// Devices on those nodes.
    pub dra: Option<Devices>,
    pub resource_flavor: Option<Flavor>,
    pub cohorts: Vec<Cohorts>,
}

/// Levels from the outermost to the node; the counts multiply.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topology {
    pub name: String,
    pub levels: Vec<Level>,
}

/// One level.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Level {
    pub name: String,
    /// In each of the level above.
    pub count: Count,
    pub node_label: String,
    /// Of the node (the last level): resource -> Kubernetes quantity.
    #[serde(default)]
    pub capacity: BTreeMap<String, String>,
}

/// Devices for dynamic resource allocation.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Devices {
    pub devices_per_node: Count,
}

/// Which nodes the quota is for.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Flavor {
    pub name: String,
    pub node_label: Option<String>,
    pub topology_name: Option<String>,
}

/// `count` cohorts that are alike.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cohorts {
    pub class_name: String,
    pub count: Count,
    pub queues_sets: Vec<Queues>,
}

/// `count` cluster queues that are alike, in each cohort.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queues {
    pub class_name: String,
    pub count: Count,
    pub nominal_quota: Units,
    /// Absent: no limit.
    pub borrowing_limit: Option<Units>,
    #[serde(default)]
    pub reclaim_within_cohort: Preemption,
    #[serde(default)]
    pub within_cluster_queue: Preemption,
    pub device_nominal_quota: Option<Units>,
    pub device_borrowing_limit: Option<Units>,
    pub workloads_sets: Vec<Workloads>,
}

/// Kueue's preemption policies.
#[derive(Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preemption {
    #[default]
    Never,
    Any,
    LowerPriority,
    LowerOrNewerEqualPriority,
}

/// `count` rounds over a list of workloads, one creation after another.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workloads {
    pub count: Count,
    pub creation_interval_ms: Count,
    #[serde(deserialize_with = "sane")]
    pub workloads: Vec<Template>,
}

/// One workload.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    pub class_name: String,
    pub runtime_ms: Count,
    #[serde(default)]
    pub priority: i32,
    /// Of each pod.
    pub request: Units,
    /// 0 counts as 1.
    #[serde(default)]
    pub pod_count: Count,
    pub tas_constraint: Option<TopologyConstraint>,
    /// Node label of the level.
    pub tas_level: Option<String>,
    /// Pods that stay together when balanced.
    #[serde(default)]
    pub slice_size: Count,
    /// Of each pod.
    #[serde(default)]
    pub devices: Count,
}

/// How strictly the pods of a workload stay within one domain of a level.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum TopologyConstraint {
    Required,
    Preferred,
    Balanced,
}

/// A whole number from 0 to 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(pub u32);

/// A Kubernetes quantity of a countable resource, in thousandths: `20`, `"8500"`, `500m`, `1.5`, `2k`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Units(pub u64);

const MOST: u32 = 1_000_000_000;

/// GPUs of one workload; more is a slip.
const MOST_GPUS: u32 = 65_536;

fn sane<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Template>, D::Error> {
    let all = Vec::<Template>::deserialize(deserializer)?;
    match all.iter().find(|template| template.gpus() > MOST_GPUS) {
        Some(template) => {
            let (name, units) = (&template.class_name, template.gpus());
            Err(de::Error::custom(format_args!("{name} asks for {units} units over all its pods, over the limit of {MOST_GPUS}")))
        }
        None => Ok(all),
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number)
    }
}

// A visitor, not a conversion afterwards: what a visitor refuses is told with the value's own line.
struct Number;

impl de::Visitor<'_> for Number {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {MOST}")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Count, E> {
        let number = u32::try_from(value).ok().filter(|number| *number <= MOST).map(Count);
        number.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }
}

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Quantity)
    }
}

struct Quantity;

impl de::Visitor<'_> for Quantity {
    type Value = Units;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a quantity such as 20, 500m or 1.5, at most {MOST}")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Units, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Units, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Units, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Units, E> {
        milli(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

fn milli(text: &str) -> Option<Units> {
    let (number, scale) = match text.strip_suffix('m') {
        Some(number) => (number, 1.0),
        None => match text.strip_suffix('k') {
            Some(number) => (number, 1e6),
            None => (text, 1e3),
        },
    };
    let number = number.parse::<f64>().ok()? * scale;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..=f64::from(MOST) * 1e3).contains(&number).then(|| Units(number.ceil() as u64))
}
