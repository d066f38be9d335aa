//! Objects beside pods that say something about these.

use super::PodKey;
use super::device::SliceFacts;
use super::device_claim::{DeviceClaimFacts, DeviceClassFacts};
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

/// An object that says something of devices which are given away by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceObject {
    Class(DeviceClassFacts),
    Slice(SliceFacts),
    Claim(Box<DeviceClaimFacts>),
}

/// Their kinds, in the order in which the first lists are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    Class,
    Slice,
    Claim,
}

impl DeviceKind {
    /// Bounded word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Class => "device_class",
            Self::Slice => "resource_slice",
            Self::Claim => "resource_claim",
        }
    }
}

impl DeviceObject {
    pub fn kind(&self) -> DeviceKind {
        match self {
            Self::Class(_) => DeviceKind::Class,
            Self::Slice(_) => DeviceKind::Slice,
            Self::Claim(_) => DeviceKind::Claim,
        }
    }
}

/// What an object of a namespace is known by, as a pod is.
pub fn key(namespace: &str, name: &str) -> String {
    PodKey::new(namespace, name).to_string()
}
