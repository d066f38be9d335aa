//! What other objects say about pods, and which pods rest on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_api::import::kueue;
use tidegate_api::labels;
use tidegate_core::ask::{Ask, Term};
use tidegate_core::labels::{Requirement, Rule};

use crate::facts::adopted::QueueWish;
use crate::facts::group::GroupFacts;
use crate::facts::node::NAME_LABEL;
use crate::facts::pod::Ours;
use crate::facts::priority::{LocalQueueFacts, PriorityFacts};
use crate::facts::selection::both;
use crate::facts::volume::{Bond, ClaimFacts, ClaimUse, ClassFacts, VolumeFacts};
use crate::facts::{AdoptedFacts, Beside, BesideKind, Needs, PodFacts, PodKey, beside};

/// Pods by the key of what they name.
type Users = BTreeMap<String, BTreeSet<PodKey>>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Around {
    groups: BTreeMap<String, GroupFacts>,
    claims: BTreeMap<String, ClaimFacts>,
    volumes: BTreeMap<String, VolumeFacts>,
    classes: BTreeMap<String, ClassFacts>,
    priorities: BTreeMap<String, PriorityFacts>,
    local_queues: BTreeMap<String, LocalQueueFacts>,
    kueue_priorities: BTreeMap<String, PriorityFacts>,
    of_group: Users,
    of_claim: Users,
    /// Those of a claim's that are bound and have not ended.
    holding: Users,
}

impl Around {
    /// What an object says now; the pods that are to be looked at again.
    pub fn set(&mut self, object: Beside) -> Vec<PodKey> {
        let (kind, key) = match object {
            Beside::Group(group) => (BesideKind::Group, put(&mut self.groups, group.key.clone(), group)),
            Beside::Class(class) => (BesideKind::Class, put(&mut self.classes, class.name.clone(), class)),
            Beside::Volume(volume) => (BesideKind::Volume, put(&mut self.volumes, volume.name.clone(), volume)),
            Beside::Claim(claim) => (BesideKind::Claim, put(&mut self.claims, claim.key.clone(), claim)),
            Beside::Priority(class) => (BesideKind::Priority, put(&mut self.priorities, class.name.clone(), class)),
            Beside::LocalQueue(queue) => (BesideKind::LocalQueue, put(&mut self.local_queues, queue.key.clone(), queue)),
            Beside::KueuePriority(class) => {
                (BesideKind::KueuePriority, put(&mut self.kueue_priorities, class.name.clone(), class))
            }
        };
        self.users(kind, &key)
    }

    /// An object is gone; the pods that are to be looked at again.
    pub fn gone(&mut self, kind: BesideKind, key: &str) -> Vec<PodKey> {
        let users = self.users(kind, key);
        match kind {
            BesideKind::Group => drop(self.groups.remove(key)),
            BesideKind::Class => drop(self.classes.remove(key)),
            BesideKind::Volume => drop(self.volumes.remove(key)),
            BesideKind::Claim => drop(self.claims.remove(key)),
            BesideKind::Priority => drop(self.priorities.remove(key)),
            BesideKind::LocalQueue => drop(self.local_queues.remove(key)),
            BesideKind::KueuePriority => drop(self.kueue_priorities.remove(key)),
        }
        users
    }

    /// Keys of all objects of a kind.
    pub fn keys(&self, kind: BesideKind) -> Vec<String> {
        match kind {
            BesideKind::Group => self.groups.keys().cloned().collect(),
            BesideKind::Class => self.classes.keys().cloned().collect(),
            BesideKind::Volume => self.volumes.keys().cloned().collect(),
            BesideKind::Claim => self.claims.keys().cloned().collect(),
            BesideKind::Priority => self.priorities.keys().cloned().collect(),
            BesideKind::LocalQueue => self.local_queues.keys().cloned().collect(),
            BesideKind::KueuePriority => self.kueue_priorities.keys().cloned().collect(),
        }
    }

    /// Pods that rest on an object. Classes change seldom: all that wait for a volume of theirs are meant.
    fn users(&self, kind: BesideKind, key: &str) -> Vec<PodKey> {
        let of_claim = |claim: &str| users(&self.of_claim, claim);
        match kind {
            BesideKind::Group => users(&self.of_group, key),
            BesideKind::Claim => of_claim(key),
            BesideKind::Volume => self.volumes.get(key).and_then(|volume| volume.claim.as_deref()).map_or(Vec::new(), of_claim),
            BesideKind::Class => {
                let theirs =
                    self.claims.values().filter(|claim| claim.bond == Bond::Unbound && claim.class.as_deref() == Some(key));
                theirs.flat_map(|claim| of_claim(&claim.key)).collect()
            }
            // A pod has its number already.
            BesideKind::Priority | BesideKind::LocalQueue | BesideKind::KueuePriority => Vec::new(),
        }
    }

    pub fn claim(&self, key: &str) -> Option<&ClaimFacts> {
        self.claims.get(key)
    }

    pub fn volume(&self, name: &str) -> Option<&VolumeFacts> {
        self.volumes.get(name)
    }

    /// Pods that name a claim.
    pub fn users_of(&self, claim: &str) -> impl Iterator<Item = &PodKey> {
        self.of_claim.get(claim).into_iter().flatten()
    }

    /// A pod was that and is this; the pods that are to be looked at again, as it uses what only one may, or does no longer.
    pub fn count(&mut self, was: Option<&PodFacts>, is: Option<&PodFacts>) -> Vec<PodKey> {
        let needs = |pod: Option<&PodFacts>| pod.and_then(|pod| Some((pod.key.clone(), pod.holds(), pod.needs.clone()?)));
        let (was, is) = (needs(was), needs(is));
        if was == is {
            return Vec::new();
        }
        let mut changed = BTreeSet::new();
        if let Some((pod, holds, needs)) = &was {
            needs.group.iter().for_each(|key| leave(&mut self.of_group, key, pod));
            for claim in &needs.claims {
                leave(&mut self.of_claim, &claim.key, pod);
                leave(&mut self.holding, &claim.key, pod);
                changed.extend(holds.then(|| claim.key.clone()));
            }
        }
        if let Some((pod, holds, needs)) = &is {
            needs.group.iter().for_each(|key| join(&mut self.of_group, key, pod));
            for claim in &needs.claims {
                join(&mut self.of_claim, &claim.key, pod);
                if *holds {
                    join(&mut self.holding, &claim.key, pod);
                    changed.insert(claim.key.clone());
                }
            }
        }
        let this = was.or(is).map(|(pod, ..)| pod);
        let alone = changed.iter().filter(|key| self.claims.get(*key).is_some_and(|claim| claim.alone));
        alone.flat_map(|key| users(&self.of_claim, key)).filter(|pod| Some(pod) != this.as_ref()).collect()
    }

    /// Adds to what a pod says what other objects say of it.
    pub fn complete(&self, pod: &mut PodFacts) {
        let PodFacts { key, uid, node, needs: Some(needs), ours: Some(ours), .. } = pod else { return };
        let ours = Arc::make_mut(ours);
        let mut problems: Vec<String> = ours.problem.take().into_iter().collect();
        problems.extend(self.group(needs, ours).err());
        for claim in &needs.claims {
            match self.nodes_for(claim, key, uid) {
                Ok(terms) if !terms.is_empty() => {
                    let mut ask = Ask::clone(&ours.ask);
                    ask.affinity.required = both(&ask.affinity.required, &terms);
                    ours.ask = ask.into();
                }
                Ok(_) => {}
                Err(problem) => problems.extend(node.is_none().then_some(problem)),
            }
        }
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

    /// Nodes from which a pod can use a claim: one of these terms; none: from all.
    pub fn nodes_for(&self, claim: &ClaimUse, pod: &PodKey, uid: &str) -> Result<Vec<Term>, String> {
        let key = &claim.key;
        let told = |what: &str| format!("uses the PersistentVolumeClaim {key}, which {what}");
        let found = self.claims.get(key).ok_or_else(|| told("does not exist: create it"))?;
        if claim.own && found.controller.as_deref() != Some(uid) {
            return Err(told("was not made for it though its name is that of a volume of its own: rename or delete the claim"));
        }
        if found.ending {
            return Err(told("is being deleted: wait for that, and create it again"));
        }
        let other = self.holding.get(key).into_iter().flatten().find(|other| *other != pod);
        if let Some(other) = other.filter(|_| found.alone) {
            return Err(told(&format!("is ReadWriteOncePod and in use by pod {other}: it waits for the end of that")));
        }
        match &found.bond {
            Bond::Bound(volume) => {
                let volume = self.volumes.get(volume);
                Ok(volume.ok_or_else(|| told("is bound to a volume that does not exist: create the claim again"))?.terms.clone())
            }
            Bond::Lost => Err(told("has lost its volume: create it again")),
            Bond::Promised => Err(told("is not bound yet to the volume that it names: see its events")),
            Bond::Unbound => self.nodes_of_class(found).map_err(|problem| told(&problem)),
        }
    }

    /// Nodes from which the bound volume of a claim can be used: one of these terms; none: from all.
    pub fn bound(&self, key: &str) -> Result<Vec<Term>, String> {
        let found = self.claims.get(key).ok_or_else(|| format!("PersistentVolumeClaim {key} does not exist: create it"))?;
        let Bond::Bound(volume) = &found.bond else {
            return Err(format!(
                "PersistentVolumeClaim {key} has no volume yet: its class must bind at once, or another pod use it first"
            ));
        };
        let gone = || format!("PersistentVolumeClaim {key} is bound to a volume that does not exist: create the claim again");
        Ok(self.volumes.get(volume).ok_or_else(gone)?.terms.clone())
    }

    /// The queue of an adopted object: what stands behind a name of Kueue's if that is known, else the one of that name.
    pub fn queue_of(&self, facts: &AdoptedFacts) -> Result<String, String> {
        match facts.queue.as_ref().ok_or_else(|| format!("names no queue: add the label {}", labels::QUEUE))? {
            QueueWish::Queue(name) => Ok(name.clone()),
            QueueWish::Local(name) => {
                let known = self.local_queues.get(&beside::key(facts.key.namespace(), name));
                Ok(known.map_or_else(|| name.clone(), |queue| kueue::queue_of(&queue.cluster_queue)))
            }
        }
    }

    /// The priority of an adopted object, and which class that it names does not exist.
    pub fn priority_of(&self, facts: &AdoptedFacts) -> (i32, Option<String>) {
        let value = |class: &PriorityFacts| class.value;
        let missing = |name: &str| Some(format!("its priority class {name} does not exist and does not count: create it"));
        let theirs = facts.priority_class.as_ref();
        let known = theirs.and_then(|name| self.kueue_priorities.get(name).or_else(|| self.priorities.get(name)));
        if let Some(class) = known {
            return (class.value, None);
        }
        let default = || self.priorities.values().filter(|class| class.is_default).map(value).max().unwrap_or(0);
        let groups = facts.groups.iter().flatten();
        let named = groups.map(|group| group.priority_class.as_ref().map(|name| (name, self.priorities.get(name))));
        let named: Vec<_> = named.collect();
        let priority = named.iter().map(|class| class.and_then(|(_, class)| class).map_or_else(default, value)).max();
        let unknown = named.iter().flatten().find(|(_, class)| class.is_none()).map(|(name, _)| *name);
        (priority.unwrap_or(0), theirs.or(unknown).and_then(|name| missing(name)))
    }

    /// Nodes for which the volume of a claim can be made.
    fn nodes_of_class(&self, claim: &ClaimFacts) -> Result<Vec<Term>, String> {
        let name =
            claim.class.as_ref().ok_or("has no volume and names no class: name one in `storageClassName`, or create a volume")?;
        let class = self.classes.get(name);
        let class = class.ok_or_else(|| format!("names the StorageClass {name}, which does not exist: create it"))?;
        if !class.waits {
            return Err(format!("has no volume yet, though the StorageClass {name} binds at once: see the claim's events"));
        }
        if !class.provisions {
            return Err(format!("has no volume, and the StorageClass {name} makes none: name one in the claim's `volumeName`"));
        }
        let chosen = |node: &String| Term(vec![Requirement { key: NAME_LABEL.to_owned(), rule: Rule::In(vec![node.clone()]) }]);
        Ok(both(&class.terms, claim.selected.as_ref().map(chosen).as_slice()))
    }
}

fn put<T>(all: &mut BTreeMap<String, T>, key: String, object: T) -> String {
    all.insert(key.clone(), object);
    key
}

fn users(of: &Users, key: &str) -> Vec<PodKey> {
    of.get(key).into_iter().flatten().cloned().collect()
}

fn join(of: &mut Users, key: &str, pod: &PodKey) {
    of.entry(key.to_owned()).or_default().insert(pod.clone());
}

fn leave(of: &mut Users, key: &str, pod: &PodKey) {
    if let Some(pods) = of.get_mut(key) {
        pods.remove(pod);
        if pods.is_empty() {
            of.remove(key);
        }
    }
}
