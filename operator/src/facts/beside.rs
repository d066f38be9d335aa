//! Objects beside pods that say something about these.

use super::PodKey;
use super::group::GroupFacts;
use super::priority::{LocalQueueFacts, PriorityFacts};
use super::volume::{ClaimFacts, ClassFacts, VolumeFacts};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    Group(GroupFacts),
    Class(ClassFacts),
    Volume(VolumeFacts),
    Claim(ClaimFacts),
    Priority(PriorityFacts),
    /// Kueue's.
    LocalQueue(LocalQueueFacts),
    /// Kueue's.
    KueuePriority(PriorityFacts),
}

/// Their kinds, in the order in which the first lists are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BesideKind {
    Group,
    Class,
    Volume,
    Claim,
    Priority,
    LocalQueue,
    KueuePriority,
}

impl BesideKind {
    /// Bounded word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Group => "pod_group",
            Self::Class => "storage_class",
            Self::Volume => "volume",
            Self::Claim => "claim",
            Self::Priority => "priority_class",
            Self::LocalQueue => "local_queue",
            Self::KueuePriority => "workload_priority_class",
        }
    }
}

impl Beside {
    pub fn kind(&self) -> BesideKind {
        match self {
            Self::Group(_) => BesideKind::Group,
            Self::Class(_) => BesideKind::Class,
            Self::Volume(_) => BesideKind::Volume,
            Self::Claim(_) => BesideKind::Claim,
            Self::Priority(_) => BesideKind::Priority,
            Self::LocalQueue(_) => BesideKind::LocalQueue,
            Self::KueuePriority(_) => BesideKind::KueuePriority,
        }
    }
}

/// What an object of a namespace is known by, as a pod is.
pub fn key(namespace: &str, name: &str) -> String {
    PodKey::new(namespace, name).to_string()
}
