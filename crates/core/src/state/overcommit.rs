//! Nodes on which more was placed than they have: two schedulers, each of which saw room, have bound at the same moment.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{JobName, ReplicaId};

/// Who must leave a node, and for lack of what.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Overcommit {
    pub scarce: Scarce,
    pub jobs: Vec<JobName>,
    pub replicas: Vec<ReplicaId>,
}

/// What a node can have too little of.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scarce {
    Gpus,
    Cpu,
    Memory,
    EphemeralStorage,
    /// Places for pods.
    Pods,
}

impl Scarce {
    pub const ALL: [Self; 5] = [Self::Gpus, Self::Cpu, Self::Memory, Self::EphemeralStorage, Self::Pods];

    /// Bounded word for metrics, and for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gpus => "gpus",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
            Self::Pods => "pods",
        }
    }
}

impl fmt::Display for Scarce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpus => "GPUs",
            Self::Pods => "places for pods",
            other => other.word(),
        })
    }
}
