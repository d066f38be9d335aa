//! Who holds what claims were allocated: see [`super`].

use std::collections::BTreeMap;

use tidegate_core::ask::{Amount, Ask};
use tidegate_core::event::{Observed, ObservedRun};
use tidegate_core::names::{JobName, Namespace, NodeName};
use tidegate_core::plan::Placed;
use tidegate_core::state::{Group, JobSpec};
use tidegate_core::{Event, JobExit};

use super::super::devices::Held;
use super::super::unit::{self, UnitId};
use super::super::{Failure, Index, Write};
use crate::facts::device_claim::DeviceClaimFacts;
use crate::facts::{PodFacts, PodKey};

/// Claims that are jobs of the engine.
#[derive(Clone, Debug, Default)]
pub(in crate::index) struct ClaimJobs {
    told: BTreeMap<String, ClaimJob>,
    /// How many there ever were: what has ended in the engine is never told to go on.
    ever: u64,
    /// Claims that are being freed, in the version that was seen.
    freeing: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ClaimJob {
    name: JobName,
    held: Held,
}

impl ClaimJobs {
    /// Whether a job of the engine is a claim.
    pub fn has(&self, job: &JobName) -> bool {
        self.told.values().any(|told| told.name == *job)
    }
}

impl Index {
    /// Looks at claims of which it is not sure who holds them.
    pub(in crate::index) fn look_at_claims(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.begun {
            return events;
        }
        events.extend(self.look_at_made());
        while let Some(pod) = self.devices.next_touched() {
            if !self.is_placed(&pod) {
                let changed = self.devices.release(&pod);
                events.extend(self.follow(changed));
            }
        }
        while let Some(key) = self.devices.next_unsure() {
            events.extend(self.look_at_claim(&key));
        }
        events
    }

    fn look_at_claim(&mut self, key: &str) -> Vec<Event> {
        let Some(claim) = self.devices.claim(key).cloned() else {
            self.claim_jobs.freeing.remove(key);
            return self.end_claim_job(key);
        };
        let holder = self.holder(&claim).filter(|(_, pod)| self.is_of_one_kind(pod));
        let events = match (self.devices.holds(&claim), holder) {
            (Some(_), Some((unit, pod))) => {
                let mut events = self.end_claim_job(key);
                events.extend(unit.and_then(|unit| self.name_devices(&unit, &pod)));
                events
            }
            (Some(held), None) => self.tell_claim_job(&claim, held),
            (None, _) => self.end_claim_job(key),
        };
        self.free(&claim);
        events
    }

    /// Whether the engine can know what a pod's claims hold as the pod's.
    fn is_of_one_kind(&self, pod: &PodKey) -> bool {
        let needs = self.pods.get(pod).and_then(|entry| entry.facts.needs.as_ref());
        needs.is_none_or(|needs| self.devices.amount_of(&needs.devices).is_some())
    }

    /// Whether a pod runs, or is being started by us.
    fn is_placed(&self, pod: &PodKey) -> bool {
        self.run_of(pod).is_some() || self.is_made_here(pod)
    }

    /// The unit whose run a pod is of.
    fn run_of(&self, pod: &PodKey) -> Option<&UnitId> {
        let entry = self.pods.get(pod).filter(|entry| entry.facts.ours.is_some())?;
        let unit = entry.unit.as_ref()?;
        self.units.get(unit)?.run()?.placed.contains_key(pod).then_some(unit)
    }

    /// The pod of ours that has a claim, and its unit, if it is of one.
    fn holder(&self, claim: &DeviceClaimFacts) -> Option<(Option<UnitId>, PodKey)> {
        let is = |(pod, uid): &&(PodKey, String)| self.pods.get(pod).is_some_and(|entry| entry.facts.uid == *uid);
        let placed = claim.reserved.iter().filter(is).map(|(pod, _)| pod).find(|pod| self.is_placed(pod))?;
        Some((self.run_of(placed).cloned(), placed.clone()))
    }

    /// Tells the engine which devices a pod of a unit has, if it was told of others.
    fn name_devices(&mut self, id: &UnitId, pod: &PodKey) -> Option<Event> {
        let mut devices = self.devices.all_of(&self.pods.get(pod)?.facts)?;
        devices.sort();
        let placed = self.units.get_mut(id)?.run_mut()?.placed.get_mut(pod)?;
        placed.devices.sort();
        if placed.devices == devices {
            return None;
        }
        placed.devices = devices;
        self.observed(id)
    }

    fn tell_claim_job(&mut self, claim: &DeviceClaimFacts, held: Held) -> Vec<Event> {
        if self.claim_jobs.told.get(&claim.key).is_some_and(|told| told.held == held) {
            return Vec::new();
        }
        let mut events = self.end_claim_job(&claim.key);
        self.claim_jobs.ever += 1;
        let name = JobName::from(format!("claim/{}#{}", claim.key, self.claim_jobs.ever));
        let (groups, workers) = as_workers(&held);
        let run = ObservedRun { since: claim.created, workers, started: true };
        let observed = Observed { submitted: claim.created, attempts: 1, failures: 0, run: Some(run) };
        events.push(Event::JobSet { name: name.clone(), spec: spec(&claim.key, groups).into() });
        events.push(Event::JobObserved { name: name.clone(), observed });
        self.claim_jobs.told.insert(claim.key.clone(), ClaimJob { name, held });
        events
    }

    fn end_claim_job(&mut self, key: &str) -> Vec<Event> {
        let Some(ClaimJob { name, .. }) = self.claim_jobs.told.remove(key) else { return Vec::new() };
        vec![Event::JobExited { name: name.clone(), attempt: 1, exit: JobExit::Stopped }, Event::JobRemoved(name)]
    }

    /// Before the engine is told that a pod has its devices, its claims have them no more.
    pub(in crate::index) fn end_claim_jobs_of(&mut self, pod: &PodKey, events: &mut Vec<Event>) {
        let used = self.pods.get(pod).and_then(|entry| entry.facts.needs.clone());
        for key in used.iter().flat_map(|needs| &needs.devices).filter_map(|used| used.key.as_ref()) {
            let claim = self.devices.claim(key);
            if claim.is_some_and(|claim| claim.reserved.iter().any(|(reserved, _)| reserved == pod)) {
                events.extend(self.end_claim_job(key));
            }
        }
    }

    /// Takes back what we have given, if nobody has it any more.
    fn free(&mut self, claim: &DeviceClaimFacts) {
        let (key, version) = (&claim.key, &claim.resource_version);
        let allocated = claim.allocation.is_some();
        let is_due = allocated || (claim.ending && claim.protected);
        let is_through = |(pod, uid): &(PodKey, String)| match self.pods.get(pod).map(|entry| &entry.facts) {
            Some(facts) if facts.uid == *uid => facts.phase.is_over() || (facts.node.is_none() && !self.is_placed(pod)),
            Some(_) | None => true,
        };
        let mine = claim.ours && claim.other_consumers == 0;
        if is_due && mine && claim.reserved.iter().all(is_through) && self.claim_jobs.freeing.get(key) != Some(version) {
            self.claim_jobs.freeing.insert(key.clone(), version.clone());
            let (uid, resource_version) = (claim.uid.clone(), version.clone());
            self.writes.push(Write::Free { claim: PodKey(key.as_str().into()), uid, resource_version, allocated });
        }
    }

    /// A claim was freed, or could not be: what is seen of it next says what comes then.
    pub(in crate::index) fn freed(&mut self, claim: &PodKey, version: &str, result: &Result<(), Failure>) -> Vec<Event> {
        let is_newer = self.devices.claim(&claim.0).is_some_and(|claim| claim.resource_version != version);
        if *result == Err(Failure::Conflict) && is_newer {
            self.devices.unsure_of(&claim.0);
        }
        if let Err(Failure::Refused(why)) = result {
            tracing::warn!(%claim, why, "the devices of a claim cannot be taken back");
        }
        Vec::new()
    }

    /// GPUs of nodes that allocated claims hold, and nodes of which it is not known yet which these are.
    pub(in crate::index) fn claimed(&self) -> (BTreeMap<String, u64>, Vec<&str>) {
        let mut held = BTreeMap::<String, u64>::new();
        for of in self.devices.claims().filter_map(|claim| self.devices.holds(claim)) {
            *held.entry(of.node).or_default() += (of.devices.len() + of.shares.len()) as u64;
        }
        let by_name =
            |facts: &&PodFacts| facts.ours.is_some() && facts.needs.as_ref().is_some_and(|needs| !needs.devices.is_empty());
        let holding = self.pods.values().map(|entry| &entry.facts).filter(|facts| facts.holds()).filter(by_name);
        let unsure = holding.filter(|facts| self.devices.all_of(facts).is_none()).filter_map(|facts| facts.node.as_deref());
        (held, unsure.collect())
    }
}

/// Devices as one worker, and each share as one.
fn as_workers(held: &Held) -> (Vec<Group>, Vec<Placed>) {
    let whole = Amount::Whole(u32::try_from(held.devices.len()).unwrap_or(u32::MAX));
    let whole = (!held.devices.is_empty()).then(|| (whole, held.devices.clone()));
    let shares = held.shares.iter().map(|(device, amount)| (*amount, vec![device.clone()]));
    let all = (0_u16..).zip(whole.into_iter().chain(shares));
    let worker = |(group, (amount, devices))| {
        let ask = Ask { named: true, amount, ..Ask::default() };
        let placed = Placed { group, node: NodeName::from(held.node.as_str()), devices, slices: 0 };
        (Group { name: String::new(), min: 1, max: 1, ask, spread: None }, placed)
    };
    all.map(worker).unzip()
}

/// What a claim holds, as a job that nobody's quota pays for.
fn spec(key: &str, groups: Vec<Group>) -> JobSpec {
    JobSpec {
        namespace: Namespace::from(key.split_once('/').map_or("", |(namespace, _)| namespace)),
        priority: i32::MAX,
        groups,
        preemptible: false,
        backoff_limit: u32::MAX,
        ..JobSpec::workers(unit::NOBODYS, 1, 1, Ask::default())
    }
}
