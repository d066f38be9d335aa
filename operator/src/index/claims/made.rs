//! Pods that Tidegate makes and whose devices are claimed by name: workers of training jobs and replicas of models.
//!
//! ```text
//!   start ──> template, pods without a node ──> kube-controller-manager makes their claims
//!         ──> each claim is allocated and reserved ──> the pods are bound: all of a training job together, a replica alone
//! ```
//!
//! * The engine has chosen node and devices; nobody else is given them from the start on.
//! * What cannot be given to one pod ends the start of all, and whoever asks is told why.
//! * Which devices a pod was to have is in no object before it has them: one that a former leader has left without a node goes, and its
//!   start is ordered anew.

use std::collections::BTreeMap;

use tidegate_core::Event;
use tidegate_core::ask::Ask;
use tidegate_core::names::DeviceId;
use tidegate_core::plan::Placed;

use super::super::devices::{Asker, Given, Lack, Step};
use super::super::nodes::Refusal;
use super::super::{Failure, Index, Maker, Write, training};
use super::want;
use crate::facts::PodKey;
use crate::facts::claimed::Claimed;

/// A pod that was asked for and is not bound yet.
#[derive(Clone, Debug)]
pub(in crate::index) struct Making {
    of: Maker,
    placed: Placed,
    /// What its claims are given; absent: they are not there yet.
    given: Option<BTreeMap<String, Given>>,
    binding: Binding,
    /// What it waits for, in words.
    waits: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Binding {
    Waits,
    Asked,
    /// In this version the pod was not any more what had been seen.
    Stale(String),
}

impl Making {
    fn is_given(&self) -> bool {
        self.given.as_ref().is_some_and(|given| given.values().all(|given| given.step == Step::Done))
    }
}

impl Index {
    /// Says in an ask which devices will do for pods that are made later; or why none will.
    pub(in crate::index) fn want_devices(
        &mut self,
        asker: &Asker,
        claimed: Option<&Claimed>,
        ask: &mut Ask,
    ) -> (Vec<Event>, Result<(), String>) {
        let Some(claimed) = claimed else { return (self.leave_asker(asker), Ok(())) };
        let (wanted, marks) = self.devices.wanted_by(asker, &claimed.request);
        let mut events = self.mark(marks);
        events.extend(self.look_due());
        (events, wanted.map_err(|why| format!("gpu.deviceClassName: {why}")).and_then(|wanted| want(ask, wanted)))
    }

    /// Somebody asks for devices no more.
    pub(in crate::index) fn leave_asker(&mut self, asker: &Asker) -> Vec<Event> {
        let marks = self.devices.leave(asker);
        self.mark(marks)
    }

    /// The same for workers of all groups.
    pub(in crate::index) fn leave_workers(&mut self, job: &PodKey) -> Vec<Event> {
        self.devices.workers_of(job).iter().flat_map(|asker| self.leave_asker(asker)).collect()
    }

    /// Why a start that is given these devices cannot be.
    pub(in crate::index) fn devices_refuse<'a>(&self, devices: impl Iterator<Item = &'a DeviceId>) -> Option<Refusal> {
        match self.devices.lacks_counters(devices)? {
            // The engine was told of that.
            Lack::Taken => Some(Refusal::Late),
            Lack::Excludes(device) => Some(Refusal::Lasting(format!(
                "the devices that were chosen exclude each other: device {device} is made of what others of them have"
            ))),
        }
    }

    /// Pods that claim devices were asked for: these are theirs.
    pub(in crate::index) fn begin_making(&mut self, of: &Maker, pods: Vec<(PodKey, Placed)>) -> Vec<Event> {
        let mut events = Vec::new();
        for (pod, placed) in pods {
            events.extend(self.promise(&pod, placed.devices.clone()));
            self.making.insert(pod, Making { of: of.clone(), placed, given: None, binding: Binding::Waits, waits: None });
        }
        events
    }

    /// A pod will not be bound, or is.
    pub(in crate::index) fn end_making(&mut self, pod: &PodKey) {
        if self.making.remove(pod).is_some() {
            self.devices.touch_pod(pod);
        }
    }

    /// None of a training job's pods will be bound.
    pub(in crate::index) fn end_making_of(&mut self, job: &PodKey) {
        for pod in self.making_of(job).map(|(pod, _)| pod.clone()).collect::<Vec<_>>() {
            self.end_making(&pod);
        }
    }

    /// What pods of a training job wait for before they are bound; `None`: there are no such.
    pub(in crate::index) fn made_wait(&self, job: &PodKey) -> Option<&str> {
        let mut all = self.making_of(job);
        let first = all.next()?;
        let waits = [first].into_iter().chain(all).find_map(|(_, making)| making.waits.as_deref());
        Some(waits.unwrap_or_default())
    }

    fn making_of(&self, job: &PodKey) -> impl Iterator<Item = (&PodKey, &Making)> {
        self.making.iter().filter(move |(_, making)| matches!(&making.of, Maker::TrainingJob(of) if of == job))
    }

    /// Goes on with pods whose claims are there by now, or that are bound.
    pub(in crate::index) fn look_at_made(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for pod in self.making.keys().cloned().collect::<Vec<_>>() {
            events.extend(self.look_at_making(&pod));
        }
        events
    }

    fn look_at_making(&mut self, pod: &PodKey) -> Vec<Event> {
        let Some((making, facts)) = self.making.get_mut(pod).zip(self.pods.get(pod).map(|entry| &entry.facts)) else {
            return Vec::new();
        };
        if facts.node.is_some() || facts.ending || facts.phase.is_over() {
            let of = making.of.clone();
            self.end_making(pod);
            return self.look_at_maker(&of);
        }
        let mut given = match making.given.take() {
            Some(given) => given,
            None => match self.devices.given(facts, &making.placed) {
                Ok(given) => given.into_iter().collect(),
                Err(why) => {
                    making.waits = Some(format!("pod {}: {why}", pod.name()));
                    return Vec::new();
                }
            },
        };
        making.waits = None;
        let gone = self.allocate(&mut given);
        if let Some(making) = self.making.get_mut(pod) {
            making.given = Some(given);
        }
        if let Some(why) = gone {
            return self.cannot_be_made(pod, why);
        }
        self.bind_made(pod);
        Vec::new()
    }

    /// Binds a pod whose claims are given, with those that start with it.
    fn bind_made(&mut self, pod: &PodKey) {
        let Some(of) = self.making.get(pod).map(|making| making.of.clone()) else { return };
        let together = |(other, making): &(&PodKey, &mut Making)| match of {
            Maker::TrainingJob(_) => making.of == of,
            Maker::Model(_) => *other == pod,
        };
        if !self.making.iter_mut().filter(together).all(|(_, making)| making.is_given()) {
            return;
        }
        for (pod, making) in self.making.iter_mut().filter(together) {
            let Some(facts) = self.pods.get(pod).map(|entry| &entry.facts) else { continue };
            let is_due = match &making.binding {
                Binding::Waits => true,
                Binding::Asked => false,
                Binding::Stale(version) => facts.resource_version != *version,
            };
            if is_due {
                making.binding = Binding::Asked;
                self.writes.push(Write::bind(facts, &making.placed.node.0));
            }
        }
    }

    /// A claim of a pod that was made was allocated, or could not be; `None`: it is no such pod.
    pub(super) fn allocated_made(&mut self, pod: &PodKey, claim: &PodKey, result: &Result<(), Failure>) -> Option<Vec<Event>> {
        let making = self.making.get_mut(pod)?;
        let given = making.given.as_mut().and_then(|given| given.get_mut(&*claim.0)).filter(|given| given.step == Step::Asked);
        let Some(given) = given else { return Some(Vec::new()) };
        let Err(failure) = result else {
            given.step = Step::Done;
            return Some(self.look_at_making(pod));
        };
        Some(self.cannot_be_made(pod, super::not_allocated(claim, failure)))
    }

    /// A pod that was made was bound, or could not be; `None`: it is no such pod.
    pub(in crate::index) fn bound_made(
        &mut self,
        pod: &PodKey,
        version: &str,
        result: &Result<(), Failure>,
    ) -> Option<Vec<Event>> {
        let making = self.making.get_mut(pod)?;
        let Err(failure) = result else { return Some(Vec::new()) };
        Some(match failure {
            Failure::Conflict => {
                making.binding = Binding::Stale(version.to_owned());
                self.look_at_making(pod)
            }
            Failure::Gone => self.cannot_be_made(pod, format!("pod {pod} is gone")),
            Failure::Refused(why) => self.cannot_be_made(pod, format!("pod {pod} cannot be bound: {why}")),
        })
    }

    /// A template cannot be made: nor can the claims.
    pub(in crate::index) fn template_refused(&mut self, of: &Maker, result: Result<(), Failure>) -> Vec<Event> {
        let Err(Failure::Refused(why)) = result else { return Vec::new() };
        let waits = self.making.iter().filter(|(_, making)| making.of == *of && making.given.is_none());
        let pods: Vec<PodKey> = waits.map(|(pod, _)| pod.clone()).collect();
        pods.iter().flat_map(|pod| self.cannot_be_made(pod, format!("its ResourceClaimTemplate cannot be made: {why}"))).collect()
    }

    fn cannot_be_made(&mut self, pod: &PodKey, why: String) -> Vec<Event> {
        let Some(of) = self.making.get(pod).map(|making| making.of.clone()) else { return Vec::new() };
        self.end_making(pod);
        match of {
            Maker::TrainingJob(job) => self.attempt_cannot_be(&job, why),
            Maker::Model(model) => self.replica_cannot_be(pod, &model, why),
        }
    }

    fn look_at_maker(&mut self, of: &Maker) -> Vec<Event> {
        match of {
            Maker::TrainingJob(job) => self.look_at_training(job),
            Maker::Model(model) => self.look_at_model(model),
        }
    }

    /// Whether a pod is one that we made for work which the engine knows, and that has not ended.
    pub(super) fn is_made_here(&self, pod: &PodKey) -> bool {
        if self.making.contains_key(pod) {
            return true;
        }
        let Some(facts) = self.pods.get(pod).map(|entry| &entry.facts).filter(|facts| facts.holds()) else { return false };
        let works =
            || facts.worker.as_ref().is_some_and(|of| self.trainings.get(&of.job).is_some_and(|job| training::has(job, pod)));
        let serves = || facts.replica.as_ref().is_some_and(|of| self.models.get(&of.model).is_some_and(|model| model.has(pod)));
        works() || serves()
    }
}
