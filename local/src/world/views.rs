//! The world as others see it.

use std::sync::Arc;

use tidegate_api::eta::Eta;
use tidegate_api::view;
use tidegate_core::Engine;
use tidegate_core::demand::{self, Demand, Promise};
use tidegate_core::explain;
use tidegate_core::holdings::{Claim, Holder, Holdings};
use tidegate_core::names::{JobName, ModelName};
use tidegate_core::state::{End, Health, Job, Model, Phase, ReplicaPhase, Resource, State};
use tidegate_core::time::At;

use super::gpus::Ailment;
use super::timeline::is_pending;
use super::{World, now_ms, replicas};

impl World {
    /// Publishes the state for the page.
    pub(super) fn publish_state(&mut self) {
        drop(self.publisher.state.send_replace(Arc::new(self.state())));
    }

    /// Everything at this moment.
    pub fn state(&self) -> view::State {
        let state = self.engine.state();
        let holdings = Holdings::of(state);
        view::State {
            now_ms: now_ms(),
            started_ms: self.started_ms,
            devices: self.device_views(state, &holdings),
            jobs: state.jobs.iter().map(|(name, job)| self.job_view(name, job)).collect(),
            models: state.models.iter().map(|(name, model)| self.model_view(state, name, model)).collect(),
            queues: queue_views(state, &holdings),
            eviction_cap_reached: state.eviction_cap_reached,
        }
    }

    fn device_views(&self, state: &State, holdings: &Holdings) -> Vec<view::Device> {
        let borrowers = holdings.borrowers(state);
        let device = |device: &tidegate_core::state::Device| {
            let (id, ailment) = (device.id.to_string(), self.ailments.get(device.id.as_str()));
            let health = ailment.map_or(word(device.health), Ailment::word);
            let claims = holdings.claims(&device.id).iter().filter(|claim| !is_pending(&self.waiting, &claim.holder));
            let holder =
                |claim: &Claim| holder_view(state, &claim.holder, claim.releasing.is_some(), borrowers.contains(&claim.queue));
            view::Device {
                class: device.class.to_string(),
                memory_mib: device.memory_mib,
                simulated: self.devices.get(&id).is_some_and(|device| device.simulated),
                health: health.to_owned(),
                why: ailment.map(|ailment| ailment.why.clone()).unwrap_or_default(),
                holders: claims.map(holder).collect(),
                id,
            }
        };
        state.devices().map(device).collect()
    }

    fn job_view(&self, name: &JobName, job: &Job) -> view::Job {
        let (phase, reason) = self.job_phase(name, job);
        let (min, max) = job.spec.size();
        view::Job {
            name: name.to_string(),
            queue: job.spec.queue.to_string(),
            priority: job.spec.priority,
            phase: phase.to_owned(),
            reason,
            workers: job.run().map_or(0, |run| u32::try_from(run.seats.len()).unwrap_or(u32::MAX)),
            min,
            max,
            attempt: job.attempts,
            failures: job.failures,
            step: job.progress.step,
            checkpoint_step: job.progress.checkpoint_step,
            done: job.progress.done_ppm.map(|ppm| f64::from(ppm) / 1e6),
            metrics: self.job_metrics.get(name).cloned().unwrap_or_default(),
            submitted_ms: job.submitted.0,
            finished_ms: match job.phase {
                Phase::Finished(End::Succeeded { at } | End::Failed { at } | End::Cancelled { at }) => Some(at.0),
                Phase::Waiting { .. } | Phase::Running(_) => None,
            },
            eta: self.etas.of(name, job).map(|eta| Eta::of(eta, At(now_ms()))),
        }
    }

    fn job_phase(&self, name: &JobName, job: &Job) -> (&'static str, String) {
        let last = || self.last_reason(&format!("job/{name}"));
        match &job.phase {
            Phase::Waiting { .. } if job.paused => ("paused", explain::waiting(&self.engine, name)),
            Phase::Waiting { .. } => ("waiting", explain::waiting(&self.engine, name)),
            Phase::Running(run) => match &run.stop {
                Some(stop) => ("stopping", stop.reason.to_string()),
                None if run.observed => ("running", last()),
                None => ("starting", last()),
            },
            Phase::Finished(End::Succeeded { .. }) => ("succeeded", "all workers ended with code 0".to_owned()),
            Phase::Finished(End::Failed { .. }) => (
                "failed",
                format!("{} failures in a row, limit {}; see `tidegate logs job/{name}`", job.failures, job.spec.backoff_limit),
            ),
            Phase::Finished(End::Cancelled { .. }) => ("cancelled", "cancelled by a person".to_owned()),
        }
    }

    fn last_reason(&self, subject: &str) -> String {
        let mut latest = self.decisions.iter().rev();
        latest.find(|decision| decision.subject == subject).map(|decision| decision.reason.clone()).unwrap_or_default()
    }

    fn model_view(&self, state: &State, name: &ModelName, model: &Model) -> view::Model {
        let (ready, starting, draining) = replicas::counts(state, name);
        let wanted = model.target(At(now_ms()), &state.policy);
        let traffic = self.traffic.get(name).cloned().unwrap_or_default();
        let last = &traffic.last;
        let phase = match (model.paused, ready, starting, wanted) {
            (true, ..) => "paused",
            (_, 1.., ..) => "serving",
            (_, 0, 1.., _) => "waking",
            (_, 0, 0, 0) => "asleep",
            (_, 0, 0, _) => "starved",
        };
        let reason = match phase {
            "paused" => "paused by a person".to_owned(),
            "asleep" => "no request; the next one wakes it".to_owned(),
            _ => self.last_reason(&format!("model/{name}")),
        };
        view::Model {
            name: name.to_string(),
            queue: model.spec.queue.to_string(),
            priority: model.spec.priority,
            phase: phase.to_owned(),
            reason,
            slo_ms: model.spec.slo_ms,
            wanted,
            ready,
            starting,
            draining,
            arrival_per_s: last.arrival_milli_rows_per_s as f64 / 1000.0,
            p50_ms: last.p50_us as f64 / 1000.0,
            p99_ms: last.p99_us as f64 / 1000.0,
            queued: last.queued,
            held: last.held,
            arrived: traffic.arrived.total(),
            answered: traffic.answered.total(),
            refused: traffic.refused.total(),
            late: traffic.late.total(),
            woken: traffic.woken.total(),
            failed: traffic.failed.total(),
            mean_batch: if last.batches_total == 0 { 0.0 } else { last.batch_rows_total as f64 / last.batches_total as f64 },
            fit_base_ms: last.fit_base_us as f64 / 1000.0,
            fit_per_row_ms: last.fit_per_row_us as f64 / 1000.0,
        }
    }

    /// Devices that a model alone would need at a rate, by the engine's own rule and the service time fitted so far.
    pub fn needed_at(&self, model: &str, milli_rows_per_s: u64) -> u32 {
        let state = self.engine.state();
        let Some(model) = state.models.get(&ModelName::from(model)) else { return 0 };
        let demand = Demand { milli_rows_per_s, service: model.demand.service, ..Demand::default() };
        let promise = Promise {
            slo_us: model.spec.slo_ms * 1000,
            max_rows: model.spec.max_rows,
            headroom_percent: state.policy.headroom_percent,
            lead_ms: 0,
        };
        demand::devices(&demand, promise, 0)
    }

    /// Whether the router knows every model: before, it answers that there is none of its name.
    pub fn is_routed(&self) -> bool {
        let known = |name: &ModelName| self.traffic.get(name).is_some_and(|traffic| traffic.config_version > 0);
        self.engine.state().models.keys().all(known)
    }

    /// Spans since a moment.
    pub fn timeline(&self, since_ms: u64) -> view::Timeline {
        self.timeline.since(since_ms, now_ms())
    }

    /// The last decisions, oldest first.
    pub fn decisions(&self) -> Vec<view::Decision> {
        self.decisions.iter().cloned().collect()
    }

    /// Figures since the data directory was made.
    pub fn report(&self) -> view::Report {
        self.figures.report(self.engine.state())
    }

    /// A copy of the engine, to be asked without holding up the world.
    pub fn engine(&self) -> Engine {
        self.engine.clone()
    }

    /// The objects as they were applied.
    pub fn objects(&self) -> crate::objects::Objects {
        self.objects.clone()
    }

    /// Why a job or a model is as it is.
    pub fn explain(&self, kind: &str, name: &str) -> Option<view::Explanation> {
        let now = At(now_ms());
        let found = match kind {
            "job" => explain::job(&self.engine, &JobName::from(name), now),
            _ => explain::model(&self.engine, &ModelName::from(name), now),
        }?;
        let ailing = self.ailing().filter(|_| self.has_less_than_it_wants(kind, name, now));
        let subject = format!("{kind}/{name}");
        let history = self.decisions.iter().filter(|decision| decision.subject == subject).cloned().collect();
        Some(view::Explanation {
            subject,
            status: found.status,
            because: found.because.into_iter().chain(ailing).collect(),
            would_change: found.would_change,
            history,
        })
    }

    /// For such a one a device that takes no work is a reason.
    fn has_less_than_it_wants(&self, kind: &str, name: &str, now: At) -> bool {
        let state = self.engine.state();
        if kind == "job" {
            let job = state.jobs.get(&JobName::from(name));
            return job.is_some_and(|job| matches!(job.phase, Phase::Waiting { .. }));
        }
        let name = ModelName::from(name);
        let (ready, starting, _) = replicas::counts(state, &name);
        state.models.get(&name).is_some_and(|model| model.target(now, &state.policy) > ready + starting)
    }
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Draining => "draining",
        Health::Lost => "lost",
    }
}

fn holder_view(state: &State, holder: &Holder, releasing: bool, lent: bool) -> view::Holder {
    let (kind, name, observed) = match holder {
        Holder::Job(name) => ("job", name.to_string(), state.jobs.get(name).and_then(Job::run).is_some_and(|run| run.observed)),
        Holder::Replica(model, id) => {
            ("model", model.to_string(), state.replicas.get(id).is_some_and(|replica| replica.phase == ReplicaPhase::Ready))
        }
    };
    let phase = match (releasing, observed) {
        (true, _) => "stopping",
        (false, true) => "running",
        (false, false) => "starting",
    };
    view::Holder { kind: kind.to_owned(), name, phase: phase.to_owned(), lent }
}

fn queue_views(state: &State, holdings: &Holdings) -> Vec<view::Queue> {
    let lent = holdings.lent_milli(state) > 0;
    let queue = |(name, queue): (&tidegate_core::names::QueueName, &tidegate_core::state::Queue)| {
        let devices = |milli: i64| u32::try_from(milli / 1000).unwrap_or(u32::MAX);
        let gpu = queue.quotas.get(&Resource::Gpu).copied().unwrap_or_default();
        let (nominal, borrowing_limit) = (devices(gpu.nominal), gpu.borrowing_limit);
        let used = u32::try_from(holdings.queue_milli(name).div_ceil(1000)).unwrap_or(u32::MAX);
        view::Queue {
            name: name.to_string(),
            parent: queue.parent.as_ref().map(ToString::to_string),
            nominal,
            borrowing_limit: borrowing_limit.map(devices),
            used,
            lent: if lent { used.saturating_sub(nominal) } else { 0 },
        }
    };
    state.queues.iter().map(queue).collect()
}
