//! Claims of devices, allocated by us before their pods are bound and taken back when these are over.
//!
//! * A start whose pods claim devices is held: each claim is allocated and reserved for its pod, then all pods are bound, or none.
//! * An allocated claim holds its devices, whoever wrote that. Where it is that of a pod which runs or is being started by us, its unit
//!   has them; else a job of the engine that is never stopped (`claim/NAMESPACE/NAME#N`): what kube-scheduler has allocated, and what is
//!   being given back.
//! * What we have given (an annotation says so) we take back when none of the pods for which it is reserved runs or is being started:
//!   they are over, gone, or wait (a leader was gone between an allocation and a binding, or a start was given up). That is what
//!   kube-controller-manager does too; whoever comes second finds nothing to do.

mod held;
mod made;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_core::Event;
use tidegate_core::ask::{Amount, Ask, ClassWish, Term};
use tidegate_core::labels::{Requirement, Rule};
use tidegate_core::names::DeviceId;
use tidegate_core::plan::Placed;

use super::devices::{Asker, Changed, Given, Step, Wanted};
use super::nodes::Refusal;
use super::unit::{self, UnitId};
use super::{Failure, Index, Write};
use crate::facts::selection::both;
use crate::facts::{PodFacts, PodKey};
pub(super) use held::ClaimJobs;
pub(super) use made::Making;

const TWO_WAYS: &str =
    "asks for nvidia.com/gpu, or MIG instances, beside a ResourceClaim: GPUs are given in one way, so take one of both out";

/// Adds what claims ask for to what a pod asks for.
fn want(ask: &mut Ask, Wanted { amount, classes, mark }: Wanted) -> Result<(), String> {
    ask.amount = amount;
    let wished = std::mem::take(&mut ask.classes);
    let all = classes.into_iter().map(ClassWish::from);
    ask.classes = all.filter(|wish| wished.is_empty() || wished.contains(wish)).collect();
    let marked = Term(vec![Requirement { key: mark, rule: Rule::Exists }]);
    ask.affinity.required = both(&ask.affinity.required, &[marked]);
    let none = "asks for GPU classes of which none suits its ResourceClaim: name one that does, or none";
    if ask.classes.is_empty() { Err(none.to_owned()) } else { Ok(()) }
}

impl Index {
    /// Adds to what a pod says what its claims ask for.
    pub(super) fn complete_devices(&mut self, pod: &mut PodFacts) -> Vec<Event> {
        let PodFacts { key, uid, node, phase, requests, needs, ours, .. } = pod;
        let used = needs.as_ref().map_or(&[][..], |needs| &needs.devices);
        let Some(ours) = ours.as_mut().filter(|_| !used.is_empty() && !phase.is_over()) else {
            return self.leave_devices(key);
        };
        let ours = Arc::make_mut(ours);
        let mut ask = Ask { named: true, ..Ask::clone(&ours.ask) };
        let mut problems: Vec<String> = ours.problem.take().into_iter().collect();
        let marks = if node.is_some() {
            ask.amount = self.devices.amount_of(used).unwrap_or(Amount::None);
            self.devices.leave(&Asker::Pod(key.clone()))
        } else {
            let (wanted, marks) = self.devices.wanted(key, uid, used);
            problems.extend(wanted.and_then(|wanted| want(&mut ask, wanted)).err());
            problems.extend(self.devices.hindrance(uid, used));
            problems.extend((requests.devices().0 > 0).then(|| TWO_WAYS.to_owned()));
            marks
        };
        ours.ask = ask.into();
        ours.problem = (!problems.is_empty()).then(|| problems.join("; "));
        let mut events = self.mark(marks);
        events.extend(self.look_due());
        events
    }

    /// Partitions that others ask for now are told to the engine, and those whose counters are taken are taken from it.
    fn look_due(&mut self) -> Vec<Event> {
        let due = self.devices.look_due();
        self.told_of(due)
    }

    /// The same when a start is promised devices.
    pub(super) fn promise(&mut self, pod: &PodKey, devices: Vec<DeviceId>) -> Vec<Event> {
        let changed = self.devices.promise(pod, devices);
        self.told_of(changed)
    }

    /// What the engine hears; which devices there are for whom does not change by what is held.
    fn told_of(&mut self, changed: Changed) -> Vec<Event> {
        let mut events = changed.events;
        events.extend(self.mark(changed.marks));
        events
    }

    /// A pod claims nothing, or no more.
    pub(super) fn leave_devices(&mut self, pod: &PodKey) -> Vec<Event> {
        self.leave_asker(&Asker::Pod(pod.clone()))
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
        events.extend(self.look_due());
        events.extend(self.look_at_claims());
        for id in self.held.clone() {
            events.extend(self.look_at_held(&id));
        }
        events
    }

    fn follow(&mut self, changed: Changed) -> Vec<Event> {
        let mut events = changed.events;
        events.extend(self.mark(changed.marks));
        let mut pods = Vec::new();
        for asker in changed.askers {
            match asker {
                Asker::Pod(pod) => pods.push(pod),
                Asker::Workers(job, _) => events.extend(self.look_at_training(&job)),
                Asker::Replicas(model) => events.extend(self.look_at_model(&model)),
            }
        }
        events.extend(self.look_again(pods));
        events
    }

    /// What the claims of these pods are to be given; or why they cannot start.
    pub(super) fn devices_to_give(
        &self,
        of: &UnitId,
        chosen: &[(&PodFacts, Placed)],
    ) -> Result<BTreeMap<String, Given>, Refusal> {
        let named = chosen.iter().filter(|(pod, _)| pod.needs.as_ref().is_some_and(|needs| !needs.devices.is_empty()));
        match self.devices_refuse(named.flat_map(|(_, worker)| &worker.devices)) {
            None => self.claims_to_give(of, chosen).map_err(Refusal::Lasting),
            Some(refusal) => Err(refusal),
        }
    }

    fn claims_to_give(&self, of: &UnitId, chosen: &[(&PodFacts, Placed)]) -> Result<BTreeMap<String, Given>, String> {
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
        let mut given = std::mem::take(&mut held.devices);
        let gone = self.allocate(&mut given);
        let is_done = given.values().all(|given| given.step == Step::Done);
        if let Some(held) = self.units.get_mut(id).and_then(unit::Unit::run_mut).and_then(|run| run.held.as_mut()) {
            held.devices = given;
        }
        if is_done {
            self.bind_held(id);
        }
        gone.map(|why| self.give_up(id, why)).unwrap_or_default()
    }

    /// Has those claims allocated whose devices are free by now; which of them is gone.
    fn allocate(&mut self, all: &mut BTreeMap<String, Given>) -> Option<String> {
        for (key, given) in all.iter_mut().filter(|(_, given)| given.step == Step::Waits) {
            let (Some(claim), Some(pod)) = (self.devices.claim(key), self.pods.get(&given.pod)) else {
                return Some(format!("ResourceClaim {key} is gone"));
            };
            // Who has had them before gives them back first.
            let is_left = |device: &DeviceId| self.devices.is_left_for(key, device, given.share.as_ref());
            if given.devices.iter().any(|(_, device)| !is_left(device)) {
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
        None
    }

    /// A claim was allocated, or could not be.
    pub(super) fn allocated(&mut self, pod: &PodKey, claim: &PodKey, result: &Result<(), Failure>) -> Vec<Event> {
        if let Some(events) = self.allocated_made(pod, claim, result) {
            return events;
        }
        let Some(id) = self.pods.get(pod).and_then(|entry| entry.unit.clone()) else { return Vec::new() };
        let held = self.units.get_mut(&id).and_then(unit::Unit::run_mut).and_then(|run| run.held.as_mut());
        let given = held.and_then(|held| held.devices.get_mut(&*claim.0)).filter(|given| given.step == Step::Asked);
        let Some(given) = given else { return Vec::new() };
        match result {
            Ok(()) => {
                given.step = Step::Done;
                self.look_at_held(&id)
            }
            Err(failure) => self.give_up(&id, not_allocated(claim, failure)),
        }
    }
}

/// Why a claim was not allocated.
fn not_allocated(claim: &PodKey, failure: &Failure) -> String {
    match failure {
        Failure::Gone => format!("ResourceClaim {claim} is gone"),
        Failure::Conflict => format!("ResourceClaim {claim} was given devices by somebody else, or is being deleted"),
        Failure::Refused(why) => format!("ResourceClaim {claim}: {why}"),
    }
}
