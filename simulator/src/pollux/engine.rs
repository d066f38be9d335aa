//! The engine in the authors' world: jobs with measured curves in one responsive queue, put in order every round.
//!
//! It is told per job: its speed by GPUs (packed on whole nodes) and batch in the present epoch, as far as runs have been that
//! large, and that nothing done is lost. Beyond the largest size tried a job is offered at most [`Settings::growth_factor`]
//! times that, and taken to scale perfectly until it is seen, much as the authors' policy does. How long jobs will run the
//! engine learns from those of the same recipe that have ended; no declared end is told unless [`Ends::Declared`].

use std::collections::BTreeMap;

use serde::Deserialize;
use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::names::{JobName, QueueName};
use tidegate_core::node::Device;
use tidegate_core::plan::{Action, ActionKind};
use tidegate_core::policy::Policy;
use tidegate_core::state::{Ask, Discipline, JobSpec, NodeSpec, Queue, SpeedPoint};
use tidegate_core::{At, Engine};

use super::workload::Spec;
use super::world::{Grant, Profile, Rule, Seen, Setting};

const QUEUE: &str = "all";

/// What is told apart.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub batch: Batch,
    /// Batch sizes offered per doubling.
    pub batches_per_doubling: u32,
    /// Largest size offered, in multiples of the largest tried.
    pub growth_factor: u32,
    pub profiles: Profiles,
    pub alike: Alike,
    pub ends: Ends,
}

/// Who chooses the batch.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// The job's user.
    Own,
    /// The engine, among those that the job offers.
    Picked,
}

/// Whose runs tell the speed at a size.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Profiles {
    /// All of the application.
    Application,
    /// The job's own only.
    Job,
}

/// Which jobs have the same recipe.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Alike {
    /// Jobs of the application.
    Application,
    /// Those of them with the same batch of their own.
    ApplicationAndBatch,
}

/// Where a job's end is known from.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// From jobs that have ended.
    History,
    /// From the number of epochs that it declares.
    Declared,
}

/// Speed of an application in an epoch at one size.
#[derive(Clone, Copy, Debug)]
struct Offer {
    gpus: u32,
    batch: u32,
    /// Statistical iterations per second.
    rate: f64,
}

/// The engine and what it is told.
#[derive(Debug)]
pub struct EngineRule {
    settings: Settings,
    engine: Engine,
    /// By application, batch (0 when it is picked) and epoch.
    curves: BTreeMap<(usize, u32, usize), Vec<Offer>>,
    /// Largest number of GPUs tried, by application or by job.
    tried: BTreeMap<usize, u32>,
    /// Ended since the last decision.
    ended: Vec<usize>,
}

fn name(id: usize) -> JobName {
    JobName::from(format!("j{id:05}"))
}

fn moment(now_s: u64) -> At {
    At(now_s * 1000)
}

impl EngineRule {
    /// An engine that knows the nodes and nothing else yet.
    pub fn new(settings: Settings, setting: &Setting) -> Self {
        let mut engine = Engine::default();
        let mut tell = |event| engine.apply(At::default(), event);
        tell(Event::PolicySet(Policy {
            rank_every_ms: u64::from(setting.round_s) * 1000,
            // The world charges every restart, so nothing but their cost holds them back.
            max_evictions_per_minute: u32::MAX,
            ..Policy::default()
        }));
        tell(Event::QueueSet {
            name: QueueName::from(QUEUE),
            queue: Queue { discipline: Discipline::Responsive, ..Queue::default() },
        });
        for node in 0..setting.nodes {
            let on = format!("n{node:03}");
            tell(Event::NodeSet { name: on.as_str().into(), spec: NodeSpec::default().into() });
            for gpu in 0..setting.gpus_per_node {
                tell(Event::DeviceSeen(Device::new(format!("{on}/{gpu}"), on.clone(), "GPU", 16_384)));
            }
        }
        Self { settings, engine, curves: BTreeMap::new(), tried: BTreeMap::new(), ended: Vec::new() }
    }

    fn tell(&mut self, now_s: u64, event: Event) {
        self.engine.apply(moment(now_s), event);
    }

    fn tried_key(&self, job: &Seen<'_>) -> usize {
        match self.settings.profiles {
            Profiles::Application => job.spec.application,
            Profiles::Job => job.id,
        }
    }

    fn spec(&mut self, job: &Seen<'_>, setting: &Setting) -> JobSpec {
        let mut spec = JobSpec::workers(QUEUE, 1, setting.gpus(), Ask::whole(1));
        spec.recipe = match self.settings.alike {
            Alike::Application => job.spec.application.to_string(),
            Alike::ApplicationAndBatch => format!("{}/{}", job.spec.application, job.spec.batch),
        };
        spec.restart_ms = u64::from(setting.restart_s) * 1000;
        let tried = self.tried.get(&self.tried_key(job)).copied().unwrap_or(0);
        let (picked, growth_factor) = (self.settings.batch == Batch::Picked, self.settings.growth_factor);
        let offers = self.offers(job, setting);
        if let Some(first) = offers.first().copied() {
            spec.groups.iter_mut().for_each(|group| group.min = first.gpus);
            spec.speedup = points(offers, tried.max(first.gpus), growth_factor, picked);
        }
        spec
    }

    fn offers(&mut self, job: &Seen<'_>, setting: &Setting) -> &[Offer] {
        let settings = self.settings;
        let picked = settings.batch == Batch::Picked;
        let batch = if picked { 0 } else { job.spec.batch };
        let key = (job.spec.application, batch, job.profile.epoch());
        self.curves.entry(key).or_insert_with(|| {
            let batches = if picked { offered(&job.profile, settings.batches_per_doubling) } else { vec![batch] };
            sizes(setting).filter_map(|gpus| fastest(&job.profile, gpus, &batches, setting.gpus_per_node)).collect()
        })
    }

    /// What has changed since the last round.
    fn observe(&mut self, now_s: u64, jobs: &[Seen<'_>], setting: &Setting) {
        for id in std::mem::take(&mut self.ended) {
            self.exited(now_s, &name(id), JobExit::Succeeded);
            self.tell(now_s, Event::JobRemoved(name(id)));
        }
        for job in jobs {
            let tried = self.tried.entry(self.tried_key(job)).or_default();
            *tried = (*tried).max(job.grant.gpus());
        }
        for job in jobs {
            let (name, spec) = (name(job.id), self.spec(job, setting));
            if self.engine.state().jobs.get(&name).is_none_or(|known| *known.spec != spec) {
                self.tell(now_s, Event::JobSet { name: name.clone(), spec: spec.into() });
            }
            let Some(attempt) = self.attempt(&name) else { continue };
            let step = whole(job.done * 1000.0);
            let declared = self.settings.ends == Ends::Declared;
            let ppm = || u32::try_from(whole(job.done / job.profile.declared_total() * 1e6)).unwrap_or(1_000_000);
            let done_ppm = declared.then(ppm);
            self.tell(now_s, Event::JobProgress { name, attempt, step, checkpoint: Some(step), done_ppm });
        }
    }

    /// The attempt that runs.
    fn attempt(&self, name: &JobName) -> Option<u32> {
        self.engine.state().jobs.get(name)?.run().map(|run| run.attempt)
    }

    fn exited(&mut self, now_s: u64, name: &JobName, exit: JobExit) {
        if let Some(attempt) = self.attempt(name) {
            self.tell(now_s, Event::JobExited { name: name.clone(), attempt, exit });
        }
    }

    /// Everything that is ordered happens at once, stops first: what starts on their devices comes after them.
    fn carry_out(&mut self, now_s: u64, actions: Vec<Action>) {
        for action in &actions {
            if let ActionKind::StopJob { job, .. } = &action.kind {
                self.exited(now_s, job, JobExit::Stopped);
            }
        }
        for action in actions {
            if let ActionKind::StartJob { job, attempt, .. } = action.kind {
                self.tell(now_s, Event::Outcome { id: action.id, outcome: Outcome::Done });
                self.tell(now_s, Event::JobStarted { name: job, attempt });
            }
        }
    }

    /// What the engine has a job run on. Its batch follows its curve from epoch to epoch, as [`JobSpec::choice`] says.
    fn grant(&self, id: usize) -> Grant {
        let Some(job) = self.engine.state().jobs.get(&name(id)) else { return Grant::default() };
        let Some(run) = job.run() else { return Grant::default() };
        let mut nodes: BTreeMap<u32, u32> = BTreeMap::new();
        for seat in &run.seats {
            *nodes.entry(seat.node).or_default() += seat.mask.count_ones();
        }
        let batch = job.spec.choice(u32::try_from(run.seats.len()).unwrap_or(u32::MAX));
        Grant { nodes: nodes.into_iter().collect(), batch }
    }
}

impl Rule for EngineRule {
    fn finished(&mut self, id: usize, _spec: &Spec, _done: f64) {
        self.ended.push(id);
    }

    fn decide(&mut self, now_s: u64, jobs: &[Seen<'_>], setting: &Setting) -> Vec<Grant> {
        self.observe(now_s, jobs, setting);
        loop {
            let plan = self.engine.decide(moment(now_s));
            if plan.actions.is_empty() {
                return jobs.iter().map(|job| self.grant(job.id)).collect();
            }
            self.carry_out(now_s, plan.actions);
        }
    }
}

/// What was tried is known; beyond, up to `growth_factor` times that, a job is taken to scale perfectly until it is seen.
fn points(offers: &[Offer], tried: u32, growth_factor: u32, picked: bool) -> Vec<SpeedPoint> {
    let one = offers.first().map_or(1.0, |first| first.rate / f64::from(first.gpus));
    let most = tried.saturating_mul(growth_factor);
    let known = offers.iter().rev().find(|offer| offer.gpus <= tried).or(offers.first());
    let rate = |offer: &Offer| match known {
        Some(known) if offer.gpus > known.gpus => known.rate * f64::from(offer.gpus) / f64::from(known.gpus),
        _ => offer.rate,
    };
    let point = |offer: &Offer| SpeedPoint {
        workers: offer.gpus,
        speed_milli: u32::try_from(whole(1000.0 * rate(offer) / one)).unwrap_or(u32::MAX),
        choice: picked.then_some(offer.batch),
    };
    offers.iter().filter(|offer| offer.gpus <= most).map(point).collect()
}

/// Sizes that pack without leftovers: doubling up to a node, then whole nodes.
fn sizes(setting: &Setting) -> impl Iterator<Item = u32> + use<> {
    let node = setting.gpus_per_node.max(1);
    let parts = (0..).map(|power| 1 << power).take_while(move |gpus| *gpus < node);
    parts.chain((1..=setting.nodes).map(move |nodes| nodes * node))
}

/// The batches that a job offers, smallest to largest in equal ratios.
fn offered(profile: &Profile<'_>, per_doubling: u32) -> Vec<u32> {
    let (least, most) = profile.batches();
    let doublings = 32;
    let ratio = |step: u32| 2f64.powf(f64::from(step) / f64::from(per_doubling.max(1)));
    let mut batches: Vec<u32> = (0..doublings * per_doubling.max(1))
        .map(|step| u32::try_from(whole(f64::from(least) * ratio(step))).unwrap_or(u32::MAX))
        .take_while(|batch| *batch < most)
        .collect();
    batches.push(most);
    batches
}

fn fastest(profile: &Profile<'_>, gpus: u32, batches: &[u32], gpus_per_node: u32) -> Option<Offer> {
    let rest = gpus % gpus_per_node;
    let whole_nodes = (0..gpus / gpus_per_node).map(|_| gpus_per_node);
    let placement: Vec<u32> = whole_nodes.chain((rest > 0).then_some(rest)).collect();
    let offers = batches.iter().map(|batch| Offer { gpus, batch: *batch, rate: profile.rate(&placement, *batch) });
    offers.filter(|offer| offer.rate > 0.0).max_by(|a, b| a.rate.total_cmp(&b.rate))
}

/// To the nearest whole number; what is below 0 is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, which is what is meant")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pollux::testing::application;
    use crate::pollux::world;

    const SETTING: Setting = Setting { nodes: 2, gpus_per_node: 4, round_s: 60, restart_s: 30 };
    const SETTINGS: Settings = Settings {
        batch: Batch::Own,
        batches_per_doubling: 4,
        growth_factor: 2,
        profiles: Profiles::Application,
        alike: Alike::Application,
        ends: Ends::History,
    };

    fn spec(submitted_s: u64) -> Spec {
        Spec { name: "job".to_owned(), submitted_s, application: 0, gpus: 1, batch: 8 }
    }

    #[test]
    fn jobs_grow_as_far_as_they_were_seen_to_and_none_gets_what_is_not_there() {
        let specs: Vec<Spec> = (0..12).map(|n| spec(n * 300)).collect();
        let mut rule = EngineRule::new(SETTINGS, &SETTING);
        let outcome = world::run(&SETTING, &[application(&[400.0, 4000.0])], &specs, &mut rule);
        assert_eq!(outcome.refused, 0);
        assert!(outcome.resizes > 0);
        assert!(outcome.jct_s.iter().all(|jct_s| *jct_s < 4_000.0), "more than one GPU, and nobody starves: {:?}", outcome.jct_s);
    }

    #[test]
    fn a_size_that_nobody_has_tried_is_offered_up_to_double_and_as_perfect() {
        let offers: Vec<Offer> =
            [(1, 1.0), (2, 1.5), (4, 2.0), (8, 2.2)].map(|(gpus, rate)| Offer { gpus, batch: 8 * gpus, rate }).into();
        let speeds = |tried| -> Vec<(u32, u32)> {
            points(&offers, tried, 2, true).iter().map(|point| (point.workers, point.speed_milli)).collect()
        };
        assert_eq!(speeds(1), [(1, 1000), (2, 2000)]);
        assert_eq!(speeds(4), [(1, 1000), (2, 1500), (4, 2000), (8, 4000)]);
        assert_eq!(points(&offers, 1, 2, true)[1].choice, Some(16));
        assert_eq!(points(&offers, 1, 2, false)[1].choice, None);
    }
}
