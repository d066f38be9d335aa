//! The elastic rule in the authors' world: from what jobs report to curves and sizes, from shares to nodes.
//!
//! It sees per job: its batch, statistical iterations made, and its speed by GPUs (packed on whole nodes) and batch in the
//! present epoch, as far as runs have been that large. Beyond the largest size tried a job is offered at most
//! [`Settings::growth_factor`] times that, and taken to scale perfectly until it is seen, much as the authors' policy does.
//! The size comes from ended jobs of the same application; no declared end is read unless [`Ends::Declared`].

use std::collections::BTreeMap;

use serde::Deserialize;

use super::elastic::{Job, Point, Rules, Size, share};
use super::history::History;
use super::placing::place;
use super::workload::Spec;
use super::world::{Grant, Profile, Rule, Seen, Setting};

/// Constants, and what is told apart.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub batch: Batch,
    /// Batch sizes offered per doubling.
    pub batches_per_doubling: u32,
    /// See [`Rules`].
    pub stickiness_permille: u64,
    pub horizon_restarts: u64,
    pub unknown_factor: u64,
    pub unknown_s: u64,
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

/// Whose totals tell a job's size.
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

/// What makes runs alike: application, and batch where it is told apart.
type Recipe = (usize, u32);

/// Speed of a recipe in an epoch at one size.
#[derive(Clone, Copy, Debug)]
struct Offer {
    gpus: u32,
    batch: u32,
    /// Statistical iterations per second.
    rate: f64,
}

/// The elastic rule.
#[derive(Debug)]
pub struct Ours {
    settings: Settings,
    history: History<Recipe>,
    /// By application, batch (0 when it is picked) and epoch.
    curves: BTreeMap<(usize, u32, usize), Vec<Offer>>,
    /// Largest number of GPUs tried, by application or by job.
    tried: BTreeMap<usize, u32>,
}

/// A job's curve and sizes, before they are shared out.
struct Ask {
    points: Vec<Point>,
    attained_ms: u64,
    size: Size,
}

impl Ours {
    /// Nothing seen yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, history: History::default(), curves: BTreeMap::new(), tried: BTreeMap::new() }
    }

    fn recipe(&self, spec: &Spec) -> Recipe {
        match self.settings.alike {
            Alike::Application => (spec.application, 0),
            Alike::ApplicationAndBatch => (spec.application, spec.batch),
        }
    }

    fn tried_key(&self, job: &Seen<'_>) -> usize {
        match self.settings.profiles {
            Profiles::Application => job.spec.application,
            Profiles::Job => job.id,
        }
    }

    fn ask(&mut self, job: &Seen<'_>, furthest: &BTreeMap<Recipe, u64>, setting: &Setting) -> Ask {
        let tried = self.tried.get(&self.tried_key(job)).copied().unwrap_or(0);
        let recipe = self.recipe(job.spec);
        let growth_factor = self.settings.growth_factor;
        let offers = self.offers(job, setting);
        let Some(first) = offers.first().copied() else {
            return Ask { points: Vec::new(), attained_ms: 0, size: Size::AtLeast(0) };
        };
        let one = first.rate / f64::from(first.gpus);
        let points = points(offers, tried.max(first.gpus), growth_factor, one);
        let ms = |units: u64| whole(units as f64 / one);
        let attained = milli(job.done);
        let size = match self.history.size(&recipe, attained, furthest.get(&recipe).copied().unwrap_or(0)) {
            _ if self.settings.ends == Ends::Declared => Size::Predicted(ms(milli(job.profile.declared_total()))),
            Size::Predicted(total) => Size::Predicted(ms(total)),
            Size::AtLeast(total) => Size::AtLeast(ms(total)),
        };
        Ask { points, attained_ms: ms(attained), size }
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
}

impl Rule for Ours {
    fn finished(&mut self, _id: usize, spec: &Spec, done: f64) {
        self.history.ended(self.recipe(spec), milli(done));
    }

    fn decide(&mut self, _now_s: u64, jobs: &[Seen<'_>], setting: &Setting) -> Vec<Grant> {
        let mut furthest: BTreeMap<Recipe, u64> = BTreeMap::new();
        for job in jobs {
            let most = furthest.entry(self.recipe(job.spec)).or_default();
            *most = (*most).max(milli(job.done));
            let tried = self.tried.entry(self.tried_key(job)).or_default();
            *tried = (*tried).max(job.grant.gpus());
        }
        let asks: Vec<Ask> = jobs.iter().map(|job| self.ask(job, &furthest, setting)).collect();
        let candidates: Vec<Job<'_>> = jobs.iter().zip(&asks).map(|(job, ask)| candidate(job, ask, setting)).collect();
        let rules = Rules {
            stickiness_permille: self.settings.stickiness_permille,
            horizon_restarts: self.settings.horizon_restarts,
            unknown_factor: self.settings.unknown_factor,
            unknown_ms: self.settings.unknown_s * 1000,
        };
        let shares = share(&candidates, setting.gpus(), &rules);
        let held: Vec<&[(u32, u32)]> = jobs.iter().map(|job| job.grant.nodes.as_slice()).collect();
        let wanted: Vec<u32> = shares.iter().map(|share| share.gpus).collect();
        let placed = place(&held, &wanted, setting.nodes, setting.gpus_per_node);
        let batch = |choice: u32| (self.settings.batch == Batch::Picked).then_some(choice);
        placed.into_iter().zip(shares).map(|(nodes, share)| Grant { nodes, batch: batch(share.choice) }).collect()
    }
}

fn candidate<'a>(job: &Seen<'_>, ask: &'a Ask, setting: &Setting) -> Job<'a> {
    Job {
        id: job.id as u64,
        points: &ask.points,
        attained_ms: ask.attained_ms,
        size: ask.size,
        held: job.grant.gpus(),
        restart_ms: u64::from(setting.restart_s) * 1000,
    }
}

/// What was tried is known; beyond, up to `growth_factor` times that, a job is taken to scale perfectly until it is seen.
fn points(offers: &[Offer], tried: u32, growth_factor: u32, one: f64) -> Vec<Point> {
    let most = tried.saturating_mul(growth_factor);
    let known = offers.iter().rev().find(|offer| offer.gpus <= tried).or(offers.first());
    let rate = |offer: &Offer| match known {
        Some(known) if offer.gpus > known.gpus => known.rate * f64::from(offer.gpus) / f64::from(known.gpus),
        _ => offer.rate,
    };
    let point = |offer: &Offer| Point { gpus: offer.gpus, choice: offer.batch, speed: whole(1000.0 * rate(offer) / one) };
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

/// Thousandths.
fn milli(units: f64) -> u64 {
    whole(units * 1000.0)
}

/// To the nearest whole number; what is below 0 is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, which is what is meant")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}
