//! Starts that wait for volumes, and for devices that are claimed by name ([`super::claims`]). A claim whose class waits for its first user is told on which node that will be; somebody else
//! makes the volume there, and only then are the pods bound: all of a gang, or none.

use std::collections::BTreeMap;

use tidegate_core::Event;
use tidegate_core::plan::Placed;
use tidegate_core::time::At;

use super::devices::Given;
use super::unit::{self, UnitId};
use super::{Failure, Index, Write};
use crate::facts::volume::{Bond, ClaimFacts};
use crate::facts::{PodFacts, PodKey};

/// How long volumes may take: what kube-scheduler gives them unless it is told otherwise.
const WITHIN_MS: u64 = 600_000;

/// What a start waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    since: At,
    /// Claims, the nodes that were chosen for them, and whether that was seen there.
    claims: BTreeMap<String, (String, bool)>,
    /// Claims of devices, which are given when the volumes are there.
    pub devices: BTreeMap<String, Given>,
}

impl Index {
    /// Claims of these pods that have no volume yet, and for which node each is to have one; or why the pods cannot start.
    pub(super) fn volumes_to_make(
        &self,
        of: &UnitId,
        chosen: &[(&PodFacts, Placed)],
    ) -> Result<BTreeMap<String, String>, String> {
        let mut nodes = BTreeMap::new();
        let mut alone = BTreeMap::new();
        for (pod, worker) in chosen {
            for claim in pod.needs.iter().flat_map(|needs| &needs.claims) {
                let Some(found) = self.around.claim(&claim.key) else { continue };
                let other = alone.insert(&claim.key, &pod.key).filter(|other| *other != &pod.key);
                let other = other.or_else(|| self.around.users_of(&claim.key).find(|other| self.is_started(other, of)));
                if let Some(other) = other.filter(|_| found.alone) {
                    return Err(format!("claim {} is ReadWriteOncePod, and pods {other} and {} want it", claim.key, pod.key));
                }
                if matches!(found.bond, Bond::Bound(_)) {
                    continue;
                }
                let node = worker.node.to_string();
                let before = nodes.insert(claim.key.clone(), node.clone()).or_else(|| self.chosen_for(&claim.key));
                if let Some(before) = before.filter(|before| *before != node) {
                    return Err(format!("claim {} has no volume yet, and is wanted on {before} and {node} at once", claim.key));
                }
            }
        }
        Ok(nodes)
    }

    /// The node that a start which waits for the claim's volume has chosen.
    fn chosen_for(&self, claim: &str) -> Option<String> {
        let chosen = |id: &UnitId| Some(self.units.get(id)?.run()?.held.as_ref()?.claims.get(claim)?.0.clone());
        self.held.iter().find_map(chosen)
    }

    /// Whether a pod of another unit runs, or is being started.
    pub(super) fn is_started(&self, pod: &PodKey, than: &UnitId) -> bool {
        let unit = self.pods.get(pod).and_then(|entry| entry.unit.as_ref()).filter(|unit| *unit != than);
        let run = unit.and_then(|unit| self.units.get(unit)?.run());
        run.is_some_and(|run| run.placed.contains_key(pod))
    }

    /// Has the volumes of a start made first.
    pub(super) fn hold(&mut self, id: &UnitId, claims: BTreeMap<String, String>, devices: BTreeMap<String, Given>, since: At) {
        let Some(run) = self.units.get_mut(id).and_then(unit::Unit::run_mut) else { return };
        for (key, node) in &claims {
            let user = self.around.users_of(key).find(|user| run.placed.contains_key(*user));
            let claim = self.around.claim(key).filter(|claim| claim.selected.as_ref() != Some(node));
            self.writes.extend(user.zip(claim).map(|(pod, claim)| select(pod, claim, node)));
        }
        let claims = claims.into_iter().map(|(key, node)| (key, (node, false))).collect();
        run.held = Some(Held { since, claims, devices });
        self.held.insert(id.clone());
    }

    /// Looks at what waits for volumes: some may have waited for too long, or must end. Forgets adopted objects that are gone.
    pub fn look(&mut self, now: At) -> Vec<Event> {
        self.forget_adopted();
        let mut events = Vec::new();
        for id in self.held.clone() {
            let Some(run) = self.units.get_mut(&id).and_then(unit::Unit::run_mut).filter(|run| run.held.is_some()) else {
                self.held.remove(&id);
                continue;
            };
            let late = run.held.as_ref().filter(|held| now.since(held.since) > WITHIN_MS);
            let all = |keys: Vec<&String>| keys.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let why = late.map(|held| match (all(held.claims.keys().collect()), all(held.devices.keys().collect())) {
                (claims, devices) if claims.is_empty() => {
                    format!("the devices for ResourceClaim {devices} were not free in {} s", WITHIN_MS / 1000)
                }
                (claims, _) => format!("no volume in {} s for claim {claims}: see its events", WITHIN_MS / 1000),
            });
            let why = why.or_else(|| run.stopping.then(|| "it was stopped before its volumes and devices were there".to_owned()));
            events.extend(why.map(|why| self.give_up(&id, why)).unwrap_or_default());
        }
        events.extend(self.look_at_claims());
        events
    }

    /// Goes on with a start whose volumes are there; gives it up if one will not be.
    pub(super) fn look_at_held(&mut self, id: &UnitId) -> Vec<Event> {
        let Some(run) = self.units.get_mut(id).and_then(unit::Unit::run_mut) else { return Vec::new() };
        let Some(held) = &mut run.held else { return Vec::new() };
        let mut missing = 0;
        let mut wrong = None;
        for (key, (node, seen)) in &mut held.claims {
            let Some(claim) = self.around.claim(key) else {
                wrong = Some(format!("claim {key} is gone"));
                break;
            };
            let volume = if let Bond::Bound(volume) = &claim.bond { Some(self.around.volume(volume)) } else { None };
            match volume {
                Some(Some(volume)) if self.nodes.has_one_of(node, &volume.terms) => {}
                Some(Some(volume)) => wrong = Some(format!("volume {} of claim {key} cannot be used on {node}", volume.name)),
                None if *seen && claim.selected.as_ref() != Some(&*node) => {
                    wrong = Some(format!("no volume can be made for claim {key} on {node}: see its events"));
                }
                Some(None) | None => {
                    *seen |= claim.selected.as_ref() == Some(&*node);
                    missing += 1;
                }
            }
        }
        if let Some(why) = wrong {
            return self.give_up(id, why);
        }
        if missing == 0 { self.give(id) } else { Vec::new() }
    }

    /// All that a start waited for is there.
    pub(super) fn bind_held(&mut self, id: &UnitId) {
        let Some(run) = self.units.get_mut(id).and_then(unit::Unit::run_mut) else { return };
        run.held = None;
        let pods = run.open.iter().filter_map(|key| Some((&self.pods.get(key)?.facts, run.placed.get(key)?)));
        self.writes.extend(pods.map(|(pod, worker)| Write::bind(pod, &worker.node.0)));
        self.held.remove(id);
    }

    /// Nothing of it was bound yet, and nothing will be.
    pub(super) fn give_up(&mut self, id: &UnitId, why: String) -> Vec<Event> {
        let Some(run) = self.units.get_mut(id).and_then(unit::Unit::run_mut) else { return Vec::new() };
        run.held = None;
        run.failed.push(why);
        run.open.clear();
        let placed = std::mem::take(&mut run.placed);
        self.held.remove(id);
        placed.keys().filter_map(|pod| self.pods.get(pod)).for_each(|entry| self.devices.touch(&entry.facts));
        let mut events: Vec<Event> = placed.keys().flat_map(|pod| self.nodes.came(pod)).collect();
        events.extend(self.concluded(id));
        events
    }

    /// A claim was told its node, or could not be.
    pub(super) fn selected(&mut self, pod: &PodKey, claim: &str, node: &str, result: Result<(), Failure>) -> Vec<Event> {
        let Err(failure) = result else { return Vec::new() };
        let Some(id) = self.pods.get(pod).and_then(|entry| entry.unit.clone()) else { return Vec::new() };
        let waits = |run: &unit::Run| run.held.as_ref().is_some_and(|held| held.claims.contains_key(claim));
        if !self.units.get(&id).and_then(unit::Unit::run).is_some_and(waits) {
            return Vec::new();
        }
        match failure {
            // Somebody else has changed it; whether it still has no node is known by what is seen.
            Failure::Conflict => {
                let open = self.around.claim(claim).filter(|claim| claim.bond == Bond::Unbound && claim.selected.is_none());
                self.writes.extend(open.map(|claim| select(pod, claim, node)));
                Vec::new()
            }
            Failure::Gone => self.give_up(&id, format!("claim {claim} is gone")),
            Failure::Refused(why) => self.give_up(&id, format!("claim {claim}: {why}")),
        }
    }
}

fn select(pod: &PodKey, claim: &ClaimFacts, node: &str) -> Write {
    Write::SelectNode {
        pod: pod.clone(),
        claim: claim.key.clone(),
        uid: claim.uid.clone(),
        resource_version: claim.resource_version.clone(),
        node: node.to_owned(),
    }
}
