//! What people ask for: apply, delete, pause, resume, cancel, drain.

use std::collections::BTreeMap;

use tidegate_api::convert;
use tidegate_api::kinds::PoolSpec;
use tidegate_api::manifest::{Object, Problems};
use tidegate_api::model_info::ModelInfo;
use tidegate_api::view::{Applied, Done};
use tidegate_core::Event;
use tidegate_core::names::{DeviceId, JobName, ModelName, NodeName, QueueName};
use tidegate_core::state::Phase;

use super::messages::Wish;
use super::{Refused, World, now_ms};
use crate::admission;
use crate::machine::{NODE, in_pool};
use crate::manifests::Sourced;
use crate::objects::Change;

impl World {
    /// Puts objects that passed admission.
    pub(super) fn apply(&mut self, objects: &[Sourced], infos: BTreeMap<String, ModelInfo>) -> Result<Vec<Applied>, Refused> {
        // Others may have applied since admission.
        let broken = admission::check_names(&self.objects, objects);
        if !broken.is_empty() {
            return Err(Refused::Conflict(Problems(broken).to_string()));
        }
        self.infos.extend(infos);
        let mut applied = Vec::new();
        for sourced in objects {
            let (kind, name) = (sourced.object.kind(), sourced.object.name().to_owned());
            let put = self.objects.put(sourced, now_ms());
            let (change, row) = put.map_err(|e| Refused::Conflict(format!("{kind}/{name}: cannot be kept: {e}")))?;
            self.pending.objects_put.extend(row);
            // A finished job that is applied again unchanged stays finished.
            if change != Change::Unchanged {
                self.tell_object(&sourced.object);
            }
            applied.push(Applied { kind: kind.to_owned(), name, result: change.word().to_owned() });
        }
        Ok(applied)
    }

    /// Tells the engine what an object says.
    pub(super) fn tell_object(&mut self, object: &Object) {
        let (name, namespace) = (object.name(), object.namespace());
        if object.is_work() {
            self.tell_namespace(object);
        }
        match object {
            Object::Pool(pool) => self.tell_pool(&pool.spec),
            Object::Queue(queue) => {
                self.tell(Event::QueueSet { name: QueueName::from(name), queue: convert::queue(&queue.spec) });
            }
            Object::TrainingJob(job) => {
                self.tell(Event::JobSet { name: JobName::from(name), spec: convert::job(name, namespace, &job.spec).into() });
            }
            Object::Model(model) => {
                let generation = self.objects.model(name).map_or(1, |(_, generation)| generation);
                self.tell(Event::ModelSet {
                    name: ModelName::from(name),
                    spec: convert::model(namespace, &model.spec, generation),
                });
            }
        }
    }

    /// Tells the engine the pool's policy, and where the box stands in its topology.
    fn tell_pool(&mut self, pool: &PoolSpec) {
        self.tell(Event::NodeSet { name: NodeName::from(NODE), spec: in_pool(&self.node, pool).into() });
        self.tell(Event::PolicySet(convert::policy(pool)));
    }

    pub(super) fn wish(&mut self, wish: Wish) -> Result<Done, Refused> {
        match wish {
            Wish::Delete { kind, name } => self.delete(kind, &name),
            Wish::PauseJob { name, paused } => {
                self.unfinished(&name)?;
                self.tell(Event::JobPaused { name: JobName::from(name.as_str()), paused });
                let what = if paused { "is paused: it checkpoints and waits" } else { "is resumed: it waits for its turn" };
                Ok(Done { message: format!("job/{name} {what}") })
            }
            Wish::PauseModel { name, paused } => {
                self.objects.model(&name).ok_or_else(|| Refused::NotFound(format!("there is no model/{name}")))?;
                self.tell(Event::ModelPaused { name: ModelName::from(name.as_str()), paused });
                let what = if paused { "is paused: it finishes what it has and refuses more" } else { "is resumed" };
                Ok(Done { message: format!("model/{name} {what}") })
            }
            Wish::CancelJob(name) => {
                self.unfinished(&name)?;
                self.tell(Event::JobCancelled(JobName::from(name.as_str())));
                Ok(Done { message: format!("job/{name} is cancelled; its checkpoints and logs stay until it is deleted") })
            }
            Wish::Drain { device, drained } => self.drain_device(&device, drained),
        }
    }

    /// The job is there and not over.
    fn unfinished(&self, name: &str) -> Result<(), Refused> {
        let job = self.engine.state().jobs.get(&JobName::from(name));
        let job = job.ok_or_else(|| Refused::NotFound(format!("there is no job/{name}")))?;
        match job.phase {
            Phase::Finished(_) => {
                Err(Refused::Conflict(format!("job/{name} is over; delete it and apply it again to run it anew")))
            }
            Phase::Waiting { .. } | Phase::Running(_) => Ok(()),
        }
    }

    fn drain_device(&mut self, device: &str, drained: bool) -> Result<Done, Refused> {
        let id = DeviceId::from(device);
        if self.engine.state().device(&id).is_none() {
            let known: Vec<&str> = self.devices.keys().map(String::as_str).collect();
            return Err(Refused::NotFound(format!("there is no device {device}; there are {}", known.join(", "))));
        }
        if let Some(message) = self.drain_ailing(device, drained) {
            return Ok(Done { message });
        }
        self.tell(Event::DeviceDrained { id, drained });
        let what = if drained { "is drained: what runs there moves or stops" } else { "takes work again" };
        Ok(Done { message: format!("device {device} {what}") })
    }

    fn delete(&mut self, kind: &'static str, name: &str) -> Result<Done, Refused> {
        if !self.objects.contains(kind, name) {
            return Err(Refused::NotFound(format!("there is no {kind}/{name}")));
        }
        if kind == "Queue" {
            self.unused_queue(name)?;
        }
        let removed = self.objects.remove(kind, name);
        self.pending.objects_removed.push((kind.to_owned(), name.to_owned()));
        match kind {
            "TrainingJob" => {
                let job = JobName::from(name);
                self.tell(Event::JobRemoved(job.clone()));
                if !self.attempts.contains_key(&job) {
                    self.retire_job(&job);
                }
            }
            "Model" => self.tell(Event::ModelRemoved(ModelName::from(name))),
            "Queue" => self.tell(Event::QueueRemoved(QueueName::from(name))),
            _ => self.tell_pool(&self.objects.pool()),
        }
        if let Some(removed) = removed.filter(|removed| removed.object.is_work()) {
            self.retire_namespace(removed.object.namespace());
        }
        Ok(Done { message: format!("{kind}/{name} is deleted") })
    }

    fn unused_queue(&self, name: &str) -> Result<(), Refused> {
        let user = self.objects.iter().find(|stored| match &stored.object {
            Object::TrainingJob(job) => job.spec.queue == name,
            Object::Model(model) => model.spec.queue == name,
            Object::Queue(queue) => queue.spec.parent.as_deref() == Some(name),
            Object::Pool(_) => false,
        });
        user.map_or(Ok(()), |user| {
            let (kind, user) = (user.object.kind(), user.object.name());
            Err(Refused::Conflict(format!("Queue/{name} is used by {kind}/{user}; delete that first")))
        })
    }
}
