//! Objects beside pods that say something about these.

use super::PodKey;
use super::group::GroupFacts;
use super::volume::{ClaimFacts, ClassFacts, VolumeFacts};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    Group(GroupFacts),
    Class(ClassFacts),
    Volume(VolumeFacts),
    Claim(ClaimFacts),
}

/// Their kinds, in the order in which the first lists are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BesideKind {
    Group,
    Class,
    Volume,
    Claim,
}

impl BesideKind {
    /// Bounded word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Group => "pod_group",
            Self::Class => "storage_class",
            Self::Volume => "volume",
            Self::Claim => "claim",
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
        }
    }
}

/// What an object of a namespace is known by, as a pod is.
pub fn key(namespace: &str, name: &str) -> String {
    PodKey::new(namespace, name).to_string()
}
