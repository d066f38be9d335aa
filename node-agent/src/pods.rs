//! Which pod holds which device, from two sides that check each other: what the kubelet says that it gave away
//! ([`kubelet`]), and the cgroups of the processes that run ([`cgroup`], [`names`]). [`Owners`] joins them; pure.

pub mod cgroup;
pub mod kubelet;
pub mod names;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tidegate_nvml::{Fact, Identity, MigInstance};

use crate::gpu::{Holder, Running};

/// Where a process runs.
#[derive(Serialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// In a container of a pod.
    Pod {
        /// UID of the pod.
        uid: String,
        /// Id of the container, when the cgroup names it.
        container: Option<String>,
    },
    /// In no pod.
    Host,
    /// It cannot be seen from here: another PID namespace, or it has ended.
    #[default]
    Unknown,
}

/// A container by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

/// What the kubelet gave to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub to: Container,
    /// By which claim, `namespace/name`.
    pub claim: Option<String>,
}

/// Both sides, as they are known now.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    /// By device id as the kubelet writes it, without the number of a time slice.
    pub grants: BTreeMap<String, Vec<Grant>>,
    /// Devices that their plugin calls healthy; absent until the kubelet has said so.
    pub allocatable: Option<std::collections::BTreeSet<String>>,
    /// By container id.
    pub containers: HashMap<String, Container>,
    /// Namespace and name by pod UID.
    pub pods: HashMap<String, (String, String)>,
}

/// Both sides disagree.
#[derive(Serialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Mismatch {
    pub kind: MismatchKind,
    /// Who: `namespace/pod/container`, `pod UID`, or `host`.
    pub who: String,
}

/// In which way.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum MismatchKind {
    /// Processes of it run on the device; the kubelet did not give it to them.
    UsedNotAllocated,
    /// The kubelet gave it the device; only processes of others run there.
    AllocatedUsedByOthers,
}

impl MismatchKind {
    pub const ALL: [Self; 2] = [Self::UsedNotAllocated, Self::AllocatedUsedByOthers];

    /// For labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::UsedNotAllocated => "used_not_allocated",
            Self::AllocatedUsedByOthers => "allocated_used_by_others",
        }
    }
}

impl Owners {
    /// Who was given this GPU or one of its MIG instances, with the claim.
    pub fn holders_of(&self, identity: &Identity, instances: &Fact<Vec<MigInstance>>) -> Vec<(Holder, Option<String>)> {
        let mut found: Vec<(Holder, Option<String>)> = Vec::new();
        let instances = instances.known().map_or(&[][..], Vec::as_slice);
        for (id, grants) in &self.grants {
            let mig = match named(id, identity, instances) {
                Named::Whole => None,
                Named::Instance(uuid) => Some(uuid),
                Named::Other => continue,
            };
            for grant in grants {
                let Container { namespace, pod, container } = grant.to.clone();
                let holder = Holder { namespace, pod, container, mig: mig.clone() };
                if !found.iter().any(|(known, _)| *known == holder) {
                    found.push((holder, grant.claim.clone()));
                }
            }
        }
        found
    }

    /// Whether the device's plugin calls it healthy; absent when the kubelet knows nothing of it.
    pub fn plugin_healthy(&self, identity: &Identity, mig: bool) -> Option<bool> {
        let all = self.allocatable.as_ref().filter(|all| !all.is_empty() && !mig)?;
        Some(all.iter().any(|id| named(id, identity, &[]) == Named::Whole))
    }

    /// The holder that a process belongs to: its cgroup decides; where that cannot be seen, the only one that it can be.
    pub fn holder(&self, place: &Place, allocated: &[(Holder, Option<String>)]) -> Option<Holder> {
        let allocated = allocated.iter().map(|(holder, _)| holder);
        let Place::Pod { uid, container } = place else {
            return if *place == Place::Host { None } else { only(allocated) };
        };
        let named = container.as_ref().and_then(|id| self.containers.get(id));
        let (namespace, pod, container) = match named {
            Some(named) => (&named.namespace, &named.pod, named.container.as_str()),
            // Without the container's name: any of the pod's.
            None => self.pods.get(uid).map(|(namespace, pod)| (namespace, pod, ""))?,
        };
        let own = |holder: &&Holder| {
            holder.namespace == *namespace && holder.pod == *pod && (container.is_empty() || holder.container == container)
        };
        let unallocated =
            || Holder { namespace: namespace.clone(), pod: pod.clone(), container: container.to_owned(), mig: None };
        Some(only(allocated.filter(own)).unwrap_or_else(unallocated))
    }
}

/// The one that there is, if there are not more.
fn only<'a>(mut holders: impl Iterator<Item = &'a Holder>) -> Option<Holder> {
    let first = holders.next()?;
    holders.next().is_none().then(|| first.clone())
}

/// What a device id of the kubelet means for one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    /// The whole GPU.
    Whole,
    /// One of its MIG instances, by UUID.
    Instance(String),
    /// Another device.
    Other,
}

/// What an id means for this GPU.
///
/// Ids: a UUID (NVIDIA's device plugin), `nvidiaN` with or without `/giM` and `/vgpuK` (GKE's), `gpu-N` and what follows
/// it (NVIDIA's DRA driver), CDI names that end in one of them.
fn named(id: &str, identity: &Identity, instances: &[MigInstance]) -> Named {
    let id = id.rsplit_once('=').map_or(id, |(_, device)| device);
    if id == identity.uuid.as_str() {
        return Named::Whole;
    }
    if let Some(instance) = instances.iter().find(|instance| instance.uuid.as_str() == id) {
        return Named::Instance(instance.uuid.to_string());
    }
    let Some(rest) = id.strip_prefix("nvidia").or_else(|| id.strip_prefix("gpu-")) else { return Named::Other };
    let (digits, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    if digits.parse::<u32>().ok().as_ref() != identity.minor.known() || digits.is_empty() {
        return Named::Other;
    }
    let number = rest.strip_prefix("/gi").and_then(|gi| gi.split('/').next()?.parse::<u32>().ok());
    let instance = number.and_then(|number| instances.iter().find(|instance| instance.gpu_instance == number));
    instance.map_or(Named::Whole, |instance| Named::Instance(instance.uuid.to_string()))
}

impl Mismatch {
    /// Compares what was given with what runs.
    pub fn find<'a>(allocated: &[(Holder, Option<String>)], running: &(impl Iterator<Item = &'a Running> + Clone)) -> Vec<Self> {
        let given = |holder: &Holder| {
            let same = |(known, _): &(Holder, Option<String>)| {
                known.pod == holder.pod
                    && known.namespace == holder.namespace
                    && (holder.container.is_empty() || known.container == holder.container)
            };
            allocated.iter().any(same)
        };
        let mut found = std::collections::BTreeSet::new();
        for process in running.clone() {
            let who = match (&process.place, &process.holder) {
                (Place::Pod { .. }, Some(holder)) if !given(holder) => {
                    format!("{}/{}/{}", holder.namespace, holder.pod, holder.container)
                }
                (Place::Pod { uid, .. }, None) => format!("pod {uid}"),
                (Place::Host, _) if !allocated.is_empty() => "host".to_owned(),
                _ => continue,
            };
            found.insert(Self { kind: MismatchKind::UsedNotAllocated, who });
        }
        let seen = running.clone().any(|process| process.place != Place::Unknown);
        for (holder, _) in allocated.iter().filter(|_| seen) {
            let its = |process: &Running| {
                let same = |own: &Holder| own.pod == holder.pod && own.namespace == holder.namespace;
                process.holder.as_ref().is_some_and(same) || process.place == Place::Unknown
            };
            if !running.clone().any(its) {
                let who = format!("{}/{}/{}", holder.namespace, holder.pod, holder.container);
                found.insert(Self { kind: MismatchKind::AllocatedUsedByOthers, who });
            }
        }
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
