//! Nodes that fill up, and the choice of a node for each pod.
//!
//! Promises: every pod that fits somewhere is placed; the best rating wins, among equals the first node in the seed's
//! order. Ratings depend on the state of a node alone, so equal nodes are rated once, and a node is rated again for a
//! shape only when it changed.

mod state;

use std::collections::HashMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use tidegate_core::fragment::{Gpus, Shape};

use super::arrivals::Arrivals;
use super::openb::{Lists, Pod};
use super::rules::{Rating, Rule, Taken};
use super::{Experiment, PolicyName};
use state::{Known, StateIx};
pub(super) use state::{State, host_bit};

/// What was allocated by load: index is percent arrived, value percent allocated (mean of the pods that round to it).
pub(super) type Curve = Vec<Option<f64>>;

/// A cluster under one rule.
pub(super) struct World<'a> {
    lists: &'a Lists,
    /// Absent: any node will do.
    rule: Option<Box<dyn Rule + 'a>>,
    known: Known,
    memo: HashMap<(StateIx, usize), Option<Rating>>,
    nodes: Vec<Slot>,
    /// Index: shape, then node.
    rated: Vec<Vec<Rated>>,
}

/// A node's place in the order of ties.
#[derive(Clone, Copy)]
struct Slot {
    state: StateIx,
    memory_mib: i64,
}

/// The rating of a node for a shape, and the state it is of.
#[derive(Clone, Copy)]
struct Rated {
    state: StateIx,
    rating: Option<Rating>,
}

impl<'a> World<'a> {
    pub(super) fn new(lists: &'a Lists, experiment: &Experiment<'_>) -> Self {
        let rule = super::rules::rule(lists, experiment);
        debug_assert!(rule.is_some() || experiment.policy == PolicyName::Random);
        Self { lists, rule, known: Known::default(), memo: HashMap::new(), nodes: Vec::new(), rated: Vec::new() }
    }

    /// Empties the cluster and lets all pods come by.
    pub(super) fn run(&mut self, arrivals: &Arrivals, seed: u64) -> Curve {
        self.clear(arrivals);
        let mut rng = StdRng::seed_from_u64(seed);
        let (capacity, mut arrived, mut allocated) = (self.lists.gpu_milli(), 0, 0);
        let mut sums: Vec<(f64, u32)> = Vec::new();
        for pod in arrivals.pods.iter().filter_map(|&pod| self.lists.pods.get(pod)) {
            arrived += pod.gpu_milli();
            if self.place(pod, &mut rng) {
                allocated += pod.gpu_milli();
            }
            add(&mut sums, arrived, allocated, capacity);
        }
        sums.iter().map(|&(sum, count)| (count > 0).then(|| sum / f64::from(count))).collect()
    }

    fn clear(&mut self, arrivals: &Arrivals) {
        let nodes = arrivals.nodes.iter().filter_map(|&node| self.lists.nodes.get(node));
        self.nodes = nodes.map(|node| Slot { state: self.known.add(State::empty(node)), memory_mib: node.memory_mib }).collect();
        if self.rule.as_mut().is_some_and(|rule| rule.start()) {
            self.memo.clear();
        }
        self.forget();
    }

    fn forget(&mut self) {
        let unknown = Rated { state: StateIx::UNKNOWN, rating: None };
        self.rated = vec![vec![unknown; self.nodes.len()]; self.lists.shapes.len()];
    }

    fn place(&mut self, pod: &Pod, rng: &mut StdRng) -> bool {
        let Some(&shape) = self.lists.shapes.get(pod.shape) else { return false };
        if self.rule.as_mut().is_some_and(|rule| rule.saw(&shape)) {
            self.memo.clear();
            self.forget();
        }
        let found = if self.rule.is_some() { self.best(pod, &shape) } else { self.any(pod, &shape, rng) };
        found.is_some_and(|(node, device)| self.take(node, device, pod, &shape))
    }

    fn best(&mut self, pod: &Pod, shape: &Shape) -> Option<(usize, Option<usize>)> {
        let Self { rule: Some(rule), known, memo, nodes, rated, .. } = self else { return None };
        let mut best: Option<(usize, Rating)> = None;
        for (at, (slot, rated)) in nodes.iter().zip(rated.get_mut(pod.shape)?).enumerate() {
            if rated.state != slot.state {
                let rate = || known.get(slot.state).and_then(|state| rule.rate(state, shape));
                let rating = *memo.entry((slot.state, pod.shape)).or_insert_with(rate);
                *rated = Rated { state: slot.state, rating };
            }
            let rating = rated.rating.filter(|_| slot.memory_mib >= pod.memory_mib);
            if let Some(rating) = rating.filter(|rating| best.is_none_or(|(_, best)| rating.key > best.key)) {
                best = Some((at, rating));
            }
        }
        best.map(|(at, rating)| (at, rating.device))
    }

    fn any(&self, pod: &Pod, shape: &Shape, rng: &mut StdRng) -> Option<(usize, Option<usize>)> {
        let fits =
            |slot: &Slot| slot.memory_mib >= pod.memory_mib && self.known.get(slot.state).is_some_and(|state| state.fits(shape));
        let nodes = self.nodes.iter().enumerate();
        let (at, slot) = nodes.filter(|(_, slot)| fits(slot)).choose(rng)?;
        let Gpus::Fraction(milli) = shape.gpus else { return Some((at, None)) };
        let devices = self.known.get(slot.state)?.free().iter().enumerate();
        let device = devices.filter(|(_, free)| **free >= milli).map(|(device, _)| device).choose(rng);
        Some((at, device))
    }

    fn take(&mut self, node: usize, device: Option<usize>, pod: &Pod, shape: &Shape) -> bool {
        let keep = self.rule.as_ref().map_or(Taken::default(), |rule| rule.keeps());
        let Some(slot) = self.nodes.get_mut(node) else { return false };
        let Some(after) = self.known.get(slot.state).and_then(|state| state.after(shape, device, keep)) else { return false };
        slot.state = self.known.add(after);
        slot.memory_mib -= pod.memory_mib;
        true
    }
}

fn add(sums: &mut Vec<(f64, u32)>, arrived: u64, allocated: u64, capacity: u64) {
    let percent = usize::try_from((arrived * 200 + capacity) / (2 * capacity)).unwrap_or(0);
    if sums.len() <= percent {
        sums.resize(percent + 1, (0.0, 0));
    }
    // Rounded to two decimals before the mean is taken, as published.
    let share = (allocated as f64 * 10_000.0 / capacity as f64).round() / 100.0;
    if let Some((sum, count)) = sums.get_mut(percent) {
        *sum += share;
        *count += 1;
    }
}
