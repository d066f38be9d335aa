//! Claims of devices, allocated by us before their pods are bound and taken back when these are over.
//!
//! * A start whose pods claim devices is held: each claim is allocated and reserved for its pod, then all pods are bound, or none.
//! * An allocated claim holds its devices, whoever wrote that. Where it is that of a pod which runs or is being started by us, its unit
//!   has them; else a job of the engine that is never stopped (`claim/NAMESPACE/NAME#N`): what kube-scheduler has allocated, and what is
//!   being given back.
//! * What we have given (an annotation says so) we take back when none of the pods for which it is reserved runs or is being started:
//!   they are over, gone, or wait (a leader was gone between an allocation and a binding, or a start was given up). That is what
//!   kube-controller-manager does too; whoever comes second finds nothing to do.

use std::collections::BTreeMap;

use tidegate_core::ask::{Amount, Ask, ClassWish, Term};
use tidegate_core::event::{Observed, ObservedRun};
use tidegate_core::labels::{Requirement, Rule};
use tidegate_core::names::{DeviceId, JobName, Namespace, NodeName};
use tidegate_core::plan::Placed;
use tidegate_core::state::{Group, JobSpec};
use tidegate_core::{Event, JobExit};

use super::devices::{Changed, Given, Step};
use super::unit::{self, UnitId};
use super::{Failure, Index, Write};
use crate::facts::device_claim::DeviceClaimFacts;
use crate::facts::selection::both;
use crate::facts::{PodFacts, PodKey};

/// Claims that are jobs of the engine.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimJobs {
    told: BTreeMap<String, ClaimJob>,
    /// How many there ever were: what has ended in the engine is never told to go on.
    ever: u64,
    /// Claims that are being freed, in the version that was seen.
    freeing: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ClaimJob {
    name: JobName,
    node: String,
    devices: Vec<DeviceId>,
}

impl ClaimJobs {
    /// Whether a job of the engine is a claim.
    pub fn has(&self, job: &JobName) -> bool {
        self.told.values().any(|told| told.name == *job)
    }
}

impl Index {
    /// Adds to what a pod says what its claims ask for.
    pub(super) fn complete_devices(&mut self, pod: &mut PodFacts) -> Vec<Event> {
        let PodFacts { key, uid, node, phase, requests, needs, ours, .. } = pod;
        let used = needs.as_ref().map_or(&[][..], |needs| &needs.devices);
        let Some(ours) = ours.as_mut().filter(|_| !used.is_empty() && !phase.is_over()) else {
            return self.leave_devices(key);
        };
        let mut ask = Ask::clone(&ours.ask);
        ask.named = true;
        let mut problems: Vec<String> = ours.problem.take().into_iter().collect();
        let marks = if node.is_some() {
            let held = self.devices.count_of(used);
            ask.amount = if held == 0 { Amount::None } else { Amount::Whole(held) };
            self.devices.leave(key)
        } else {
            let (wanted, marks) = self.devices.wanted(key, uid, used);
            match wanted {
                Ok(wanted) => {
                    ask.amount = Amount::Whole(wanted.count);
                    let wished: Vec<_> = std::mem::take(&mut ask.classes);
                    let all =
                        wanted.classes.into_iter().map(ClassWish::from).filter(|wish| wished.is_empty() || wished.contains(wish));
                    ask.classes = all.collect();
                    let mark = Term(vec![Requirement { key: wanted.mark, rule: Rule::Exists }]);
                    ask.affinity.required = both(&ask.affinity.required, &[mark]);
                    problems.extend(
                        ask.classes.is_empty().then(|| "asks for GPU classes of which none suits its ResourceClaim".to_owned()),
                    );
                }
                Err(why) => problems.push(why),
            }
            problems.extend(self.devices.hindrance(uid, used));
            let twice = "asks for nvidia.com/gpu beside a ResourceClaim: GPUs are given in one way, so take one of both out";
            problems.extend((requests.gpus > 0).then(|| twice.to_owned()));
            marks
        };
        ours.ask = ask.into();
        ours.problem = (!problems.is_empty()).then(|| problems.join("; "));
        self.mark(marks)
    }

    /// A pod claims nothing, or no more.
    pub(super) fn leave_devices(&mut self, pod: &PodKey) -> Vec<Event> {
        let marks = self.devices.leave(pod);
        self.mark(marks)
    }

    fn mark(&mut self, marks: Vec<(String, String, bool)>) -> Vec<Event> {
        marks.into_iter().flat_map(|(node, mark, on)| self.nodes.mark(&node, mark, on)).collect()
    }

    /// A node is there, or gone, and the class that its label names.
    pub(super) fn node_of_devices(&mut self, name: &str, known: bool, label: Option<String>) -> Vec<Event> {
        let changed = self.devices.node(name, known, label);
        self.devices_changed(changed)
    }

    /// What follows from news of devices, for pods that wait for them and for claims that hold them.
    pub(super) fn devices_changed(&mut self, changed: Changed) -> Vec<Event> {
        let mut events = self.follow(changed);
        events.extend(self.look_at_claims());
        for id in self.held.clone() {
            events.extend(self.look_at_held(&id));
        }
        events
    }

    fn follow(&mut self, changed: Changed) -> Vec<Event> {
        let mut events = changed.events;
        events.extend(self.mark(changed.marks));
        events.extend(self.look_again(changed.pods.into_iter().collect()));
        events
    }

    /// What the claims of these pods are to be given; or why they cannot start.
    pub(super) fn devices_to_give(&self, of: &UnitId, chosen: &[(&PodFacts, Placed)]) -> Result<BTreeMap<String, Given>, String> {
        let mut all = BTreeMap::<String, Given>::new();
        for (pod, worker) in chosen {
            for (claim, given) in self.devices.given(pod, worker)? {
                let other = self.devices.users_of(&claim).find(|other| self.is_started(other, of));
                if let Some(other) = other.or(all.get(&claim).map(|given| &given.pod)) {
                    return Err(format!(
                        "ResourceClaim {claim} is wanted by pods {other} and {}: a claim serves one pod at a time here; use a \
                         ResourceClaimTemplate for a claim of each",
                        pod.key
                    ));
                }
                all.insert(claim, given);
            }
        }
        Ok(all)
    }

    /// Has the claims of a start allocated; its pods are bound when all are.
    pub(super) fn give(&mut self, id: &UnitId) -> Vec<Event> {
        let Some(held) = self.units.get_mut(id).and_then(unit::Unit::run_mut).and_then(|run| run.held.as_mut()) else {
            return Vec::new();
        };
        let mut gone = None;
        for (key, given) in held.devices.iter_mut().filter(|(_, given)| given.step == Step::Waits) {
            let (Some(claim), Some(pod)) = (self.devices.claim(key), self.pods.get(&given.pod)) else {
                gone = Some(format!("ResourceClaim {key} is gone"));
                break;
            };
            // Who has had them before gives them back first.
            if given.devices.iter().any(|(_, device)| self.devices.is_held_beside(device, key)) {
                continue;
            }
            given.step = Step::Asked;
            self.writes.push(Write::Allocate {
                pod: given.pod.clone(),
                pod_uid: pod.facts.uid.clone(),
                claim: PodKey(key.as_str().into()),
                uid: claim.uid.clone(),
                resource_version: claim.resource_version.clone(),
                allocation: Box::new(self.devices.allocation(claim, given)),
            });
        }
        if held.devices.values().all(|given| given.step == Step::Done) {
            self.bind_held(id);
        }
        gone.map(|why| self.give_up(id, why)).unwrap_or_default()
    }

    /// A claim was allocated, or could not be.
    pub(super) fn allocated(&mut self, pod: &PodKey, claim: &PodKey, result: Result<(), Failure>) -> Vec<Event> {
        let Some(id) = self.pods.get(pod).and_then(|entry| entry.unit.clone()) else { return Vec::new() };
        let held = self.units.get_mut(&id).and_then(unit::Unit::run_mut).and_then(|run| run.held.as_mut());
        let given = held.and_then(|held| held.devices.get_mut(&*claim.0)).filter(|given| given.step == Step::Asked);
        let Some(given) = given else { return Vec::new() };
        match result {
            Ok(()) => {
                given.step = Step::Done;
                self.look_at_held(&id)
            }
            Err(Failure::Gone) => self.give_up(&id, format!("ResourceClaim {claim} is gone")),
            Err(Failure::Conflict) => {
                self.give_up(&id, format!("ResourceClaim {claim} was given devices by somebody else, or is being deleted"))
            }
            Err(Failure::Refused(why)) => self.give_up(&id, format!("ResourceClaim {claim}: {why}")),
        }
    }

    /// Looks at claims of which it is not sure who holds them.
    pub(super) fn look_at_claims(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.begun {
            return events;
        }
        while let Some(pod) = self.devices.next_touched() {
            if !self.is_placed(&pod) {
                let changed = self.devices.release(&pod);
                events.extend(self.follow(changed));
            }
        }
        while let Some(key) = self.devices.next_unsure() {
            let claim = self.devices.claim(&key).cloned();
            let holds = claim.as_ref().and_then(|claim| self.devices.holds(claim));
            let holder = claim.as_ref().and_then(|claim| self.holder(claim));
            match (claim.as_ref().zip(holds), holder) {
                (Some(_), Some((unit, pod))) => {
                    events.extend(self.end_claim_job(&key));
                    events.extend(self.name_devices(&unit, &pod));
                }
                (Some((claim, (node, devices))), None) => events.extend(self.tell_claim_job(claim, node, devices)),
                (None, _) => events.extend(self.end_claim_job(&key)),
            }
            match claim {
                Some(claim) => self.free(&claim),
                None => drop(self.claim_jobs.freeing.remove(&key)),
            }
        }
        events
    }

    /// Whether a pod runs, or is being started by us.
    fn is_placed(&self, pod: &PodKey) -> bool {
        self.run_of(pod).is_some()
    }

    /// The unit whose run a pod is of.
    fn run_of(&self, pod: &PodKey) -> Option<&UnitId> {
        let entry = self.pods.get(pod).filter(|entry| entry.facts.ours.is_some())?;
        let unit = entry.unit.as_ref()?;
        self.units.get(unit)?.run()?.placed.contains_key(pod).then_some(unit)
    }

    /// The pod of ours that has a claim, and its unit.
    fn holder(&self, claim: &DeviceClaimFacts) -> Option<(UnitId, PodKey)> {
        let is = |(pod, uid): &&(PodKey, String)| self.pods.get(pod).is_some_and(|entry| entry.facts.uid == *uid);
        claim.reserved.iter().filter(is).find_map(|(pod, _)| Some((self.run_of(pod)?.clone(), pod.clone())))
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

    fn tell_claim_job(&mut self, claim: &DeviceClaimFacts, node: String, devices: Vec<DeviceId>) -> Vec<Event> {
        let told = self.claim_jobs.told.get(&claim.key);
        if told.is_some_and(|told| (&told.node, &told.devices) == (&node, &devices)) {
            return Vec::new();
        }
        let mut events = self.end_claim_job(&claim.key);
        self.claim_jobs.ever += 1;
        let name = JobName(format!("claim/{}#{}", claim.key, self.claim_jobs.ever));
        let count = u32::try_from(devices.len()).unwrap_or(u32::MAX);
        let placed = Placed { group: 0, node: NodeName::from(node.as_str()), devices: devices.clone(), slices: 0 };
        let run = ObservedRun { since: claim.created, workers: vec![placed], started: true };
        let observed = Observed { submitted: claim.created, attempts: 1, failures: 0, run: Some(run) };
        events.push(Event::JobSet { name: name.clone(), spec: spec(&claim.key, count) });
        events.push(Event::JobObserved { name: name.clone(), observed });
        self.claim_jobs.told.insert(claim.key.clone(), ClaimJob { name, node, devices });
        events
    }

    fn end_claim_job(&mut self, key: &str) -> Vec<Event> {
        let Some(ClaimJob { name, .. }) = self.claim_jobs.told.remove(key) else { return Vec::new() };
        vec![Event::JobExited { name: name.clone(), attempt: 1, exit: JobExit::Stopped }, Event::JobRemoved(name)]
    }

    /// Before the engine is told that a pod has its devices, its claims have them no more.
    pub(super) fn end_claim_jobs_of(&mut self, pod: &PodKey, events: &mut Vec<Event>) {
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
        let mine = claim.ours && !claim.reserved_otherwise;
        if is_due && mine && claim.reserved.iter().all(is_through) && self.claim_jobs.freeing.get(key) != Some(version) {
            self.claim_jobs.freeing.insert(key.clone(), version.clone());
            let (uid, resource_version) = (claim.uid.clone(), version.clone());
            self.writes.push(Write::Free { claim: PodKey(key.as_str().into()), uid, resource_version, allocated });
        }
    }

    /// A claim was freed, or could not be: what is seen of it next says what comes then.
    pub(super) fn freed(&mut self, claim: &PodKey, version: &str, result: &Result<(), Failure>) -> Vec<Event> {
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
    pub(super) fn claimed(&self) -> (BTreeMap<String, u64>, Vec<&str>) {
        let mut held = BTreeMap::<String, u64>::new();
        for (node, devices) in self.devices.claims().filter_map(|claim| self.devices.holds(claim)) {
            *held.entry(node).or_default() += devices.len() as u64;
        }
        let by_name =
            |facts: &&PodFacts| facts.ours.is_some() && facts.needs.as_ref().is_some_and(|needs| !needs.devices.is_empty());
        let holding = self.pods.values().map(|entry| &entry.facts).filter(|facts| facts.holds()).filter(by_name);
        let unsure = holding.filter(|facts| self.devices.all_of(facts).is_none()).filter_map(|facts| facts.node.as_deref());
        (held, unsure.collect())
    }
}

/// What a claim holds, as a job that nobody's quota pays for.
fn spec(key: &str, count: u32) -> JobSpec {
    let ask = Ask { named: true, ..Ask::whole(count) };
    JobSpec {
        namespace: Namespace::from(key.split_once('/').map_or("", |(namespace, _)| namespace)),
        priority: i32::MAX,
        groups: vec![Group { name: String::new(), min: 1, max: 1, ask, spread: None }],
        preemptible: false,
        backoff_limit: u32::MAX,
        ..JobSpec::workers(unit::NOBODYS, 1, 1, Ask::default())
    }
}
