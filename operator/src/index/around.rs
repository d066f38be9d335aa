//! What other objects say about pods, and which pods rest on them.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::group::GroupFacts;
use crate::facts::pod::Ours;
use crate::facts::{Beside, BesideKind, Needs, PodFacts, PodKey};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Around {
    groups: BTreeMap<String, GroupFacts>,
    /// Pods that name a group.
    of_group: BTreeMap<String, BTreeSet<PodKey>>,
}

impl Around {
    /// What an object says now; the pods that are to be looked at again.
    pub fn set(&mut self, object: Beside) -> Vec<PodKey> {
        match object {
            Beside::Group(group) => {
                let pods = users(&self.of_group, &group.key);
                self.groups.insert(group.key.clone(), group);
                pods
            }
        }
    }

    /// An object is gone; the pods that are to be looked at again.
    pub fn gone(&mut self, kind: BesideKind, key: &str) -> Vec<PodKey> {
        match kind {
            BesideKind::Group => {
                self.groups.remove(key);
                users(&self.of_group, key)
            }
        }
    }

    /// Keys of all objects of a kind.
    pub fn keys(&self, kind: BesideKind) -> Vec<String> {
        match kind {
            BesideKind::Group => self.groups.keys().cloned().collect(),
        }
    }

    /// A pod was that and is this.
    pub fn count(&mut self, was: Option<&PodFacts>, is: Option<&PodFacts>) {
        let needs = |pod: Option<&PodFacts>| pod.and_then(|pod| Some((pod.key.clone(), pod.needs.clone()?)));
        let (was, is) = (needs(was), needs(is));
        if was == is {
            return;
        }
        if let Some((pod, needs)) = was {
            if let Some(key) = &needs.group {
                leave(&mut self.of_group, key, &pod);
            }
        }
        if let Some((pod, needs)) = is {
            if let Some(key) = &needs.group {
                self.of_group.entry(key.clone()).or_default().insert(pod.clone());
            }
        }
    }

    /// Adds to what a pod says what other objects say of it.
    pub fn complete(&self, pod: &mut PodFacts) {
        let (Some(needs), Some(ours)) = (&pod.needs, &mut pod.ours) else { return };
        let mut problems: Vec<String> = ours.problem.take().into_iter().collect();
        problems.extend(self.group(needs, ours).err());
        ours.problem = (!problems.is_empty()).then(|| problems.join("; "));
    }

    fn group(&self, needs: &Needs, ours: &mut Ours) -> Result<(), String> {
        let Some(key) = &needs.group else { return Ok(()) };
        let group = self.groups.get(key).ok_or_else(|| format!("names the PodGroup {key}, which does not exist: create it"))?;
        match (group.size.clone()?, &mut ours.gang) {
            (Some(size), Some(gang)) => gang.size = size,
            (size, gang) => *gang = gang.take().filter(|_| size.is_some()),
        }
        if ours.spread.is_none() {
            ours.spread.clone_from(&group.spread);
        }
        Ok(())
    }
}

fn users(of: &BTreeMap<String, BTreeSet<PodKey>>, key: &str) -> Vec<PodKey> {
    of.get(key).into_iter().flatten().cloned().collect()
}

fn leave(of: &mut BTreeMap<String, BTreeSet<PodKey>>, key: &str, pod: &PodKey) {
    if let Some(pods) = of.get_mut(key) {
        pods.remove(pod);
        if pods.is_empty() {
            of.remove(key);
        }
    }
}
