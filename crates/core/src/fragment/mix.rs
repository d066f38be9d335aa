//! The work that we usually get, prepared so that the fragmentation of a node is a few additions.

use serde::{Deserialize, Serialize};

use super::{ClassSet, Gpus, Shape, WHOLE};

/// Weights of all shapes add up to this at most.
const PPM: u64 = 1_000_000;

/// CPU for a GPU while nothing is known: the mean of Alibaba's 2023 list is 10.9 CPUs.
const CPU_MILLI_PER_GPU: u64 = 10_000;

/// Free CPU reaches a fifth further than the mean need says, as light work can be chosen for what is left.
/// 105 to 140 change no list of Alibaba's by more than half a point, 115 to 130 by a tenth.
const REACH_PERCENT: u64 = 120;

/// Pressure beyond this (thousandths) does not count, so that one rare class does not drown the rest of the score.
const MOST_PRESSURE: u64 = 2000;

/// What work usually asks for: shapes with weights, by GPU class.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// Index: class.
    classes: Vec<ClassMix>,
    /// Thousandths of a CPU that a GPU's work needs in the mean; 0: not known.
    cpu_milli_per_gpu: u64,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
struct ClassMix {
    groups: Vec<Group>,
    /// Thousandths; 1000: demand bound to this class has the same share of all demand as the class has of all GPUs.
    pressure: u64,
}

/// Shapes with equal needs of GPU.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
struct Group {
    gpus: u16,
    /// Thousandths of each.
    milli: u16,
    /// `(CPU need in thousandths, weight in millionths of this need and all smaller ones)`, ascending.
    by_cpu: Vec<(i64, u64)>,
}

impl Mix {
    /// A mix of `shapes` with their counts (any unit) for classes that have `class_gpus` GPUs each.
    ///
    /// The weight of a shape is `count / (GPUs x thousandths)^2`, normalised; work without GPUs weighs nothing, as
    /// it cannot use one.
    pub fn new(shapes: &[(Shape, u64)], class_gpus: &[u64]) -> Self {
        let weights = weights(shapes);
        let classes = (0u16..).zip(class_gpus).map(|(class, &gpus)| {
            let allowed = shapes.iter().zip(&weights).filter(|((shape, _), _)| has(shape.classes, class));
            ClassMix {
                groups: groups(allowed.map(|(&(shape, _), &weight)| (shape, weight))),
                pressure: pressure(shapes, class, gpus, class_gpus),
            }
        });
        Self { classes: classes.collect(), cpu_milli_per_gpu: cpu_per_gpu(shapes) }
    }

    /// Idle GPU that the mix cannot use on a node of `class` with `cpu_milli` and `free` left, in 10^-9 GPUs.
    pub(super) fn fragment(&self, class: u16, cpu_milli: i64, free: &(impl Iterator<Item = u16> + Clone)) -> u64 {
        let idle: u64 = free.clone().map(u64::from).sum();
        let Some(class) = self.classes.get(usize::from(class)).filter(|_| idle > 0) else { return idle * PPM };
        let reach = u64::from(WHOLE) * REACH_PERCENT / 100;
        let fed = u64::try_from(cpu_milli).unwrap_or(0).saturating_mul(reach) / self.cpu_milli_per_gpu();
        let usable: u64 = class.groups.iter().map(|group| group.usable(cpu_milli, free.clone(), fed)).sum();
        (idle * PPM).saturating_sub(usable)
    }

    /// How much of the demand is bound to `class`, thousandths of the class's share of all GPUs, at most 2000.
    pub fn pressure(&self, class: u16) -> u64 {
        self.classes.get(usize::from(class)).map_or(0, |class| class.pressure)
    }

    /// Thousandths of a CPU that usually go with a GPU.
    pub fn cpu_milli_per_gpu(&self) -> u64 {
        if self.cpu_milli_per_gpu == 0 { CPU_MILLI_PER_GPU } else { self.cpu_milli_per_gpu }
    }
}

impl Group {
    fn usable(&self, cpu_milli: i64, free: impl Iterator<Item = u16>, fed: u64) -> u64 {
        let (mut fit, mut milli) = (0u32, 0u32);
        for free in free {
            // Without branches and checks, as this is the innermost loop; a node has far fewer than 4 million GPUs.
            let fits = u32::from(free >= self.milli);
            fit = fit.wrapping_add(fits);
            milli = milli.wrapping_add(fits * u32::from(free));
        }
        if fit < u32::from(self.gpus) {
            return 0;
        }
        let below = self.by_cpu.iter().take_while(|(cpu, _)| *cpu <= cpu_milli).last();
        below.map_or(0, |(_, weight)| weight * u64::from(milli).min(fed))
    }
}

fn has(classes: ClassSet, class: u16) -> bool {
    class < 64 && classes & (1 << class) != 0
}

fn weights(shapes: &[(Shape, u64)]) -> Vec<u64> {
    let raw: Vec<u128> = shapes.iter().map(|&(shape, count)| raw_weight(shape.gpus, count)).collect();
    let sum = raw.iter().sum::<u128>().max(1);
    raw.iter().map(|raw| u64::try_from(raw * u128::from(PPM) / sum).unwrap_or(0)).collect()
}

fn raw_weight(gpus: Gpus, count: u64) -> u128 {
    let milli = u128::from(gpus.milli());
    // 10^9: no weight is rounded to nothing for work of up to 64 GPUs.
    if milli == 0 { 0 } else { u128::from(count) * 1_000_000_000_000 / (milli * milli) }
}

fn groups(shapes: impl Iterator<Item = (Shape, u64)>) -> Vec<Group> {
    let mut all: Vec<(u16, u16, i64, u64)> = shapes
        .filter(|&(shape, weight)| shape.gpus != Gpus::None && weight > 0)
        .map(|(shape, weight)| (shape.gpus.each().0, shape.gpus.each().1, shape.cpu_milli, weight))
        .collect();
    all.sort_unstable();
    let mut groups: Vec<Group> = Vec::new();
    for (gpus, milli, cpu, weight) in all {
        match groups.last_mut().filter(|group| group.gpus == gpus && group.milli == milli) {
            Some(group) => {
                let below = group.by_cpu.last().map_or(0, |(_, weight)| *weight);
                group.by_cpu.push((cpu, below + weight));
            }
            None => groups.push(Group { gpus, milli, by_cpu: vec![(cpu, weight)] }),
        }
    }
    groups
}

/// Demand bound to `class` over all demand, over the class's share of all GPUs. Work that may use several of the
/// classes puts an equal part on each; work that may use any puts none.
fn pressure(shapes: &[(Shape, u64)], class: u16, gpus: u64, class_gpus: &[u64]) -> u64 {
    let demand = |&(shape, count): &(Shape, u64)| u128::from(shape.gpus.milli()) * u128::from(count) * 64;
    let all: u128 = shapes.iter().map(demand).sum();
    let bound = shapes.iter().filter(|(shape, _)| shape.classes != super::ANY_CLASS && has(shape.classes, class));
    let bound: u128 = bound.map(|shape| demand(shape) / u128::from(shape.0.classes.count_ones().max(1))).sum();
    let capacity: u128 = class_gpus.iter().map(|&gpus| u128::from(gpus)).sum();
    let share_ppm = (bound * u128::from(PPM)).checked_div(all).unwrap_or(0);
    let pressure = (share_ppm * capacity).checked_div(u128::from(gpus) * 1000).unwrap_or(0);
    u64::try_from(pressure).unwrap_or(MOST_PRESSURE).min(MOST_PRESSURE)
}

fn cpu_per_gpu(shapes: &[(Shape, u64)]) -> u64 {
    let sum = |each: fn(&Shape) -> u64| {
        let with_gpu = shapes.iter().filter(|(shape, _)| shape.gpus != Gpus::None);
        with_gpu.fold(0u128, |sum, (shape, count)| sum.saturating_add(u128::from(each(shape)) * u128::from(*count)))
    };
    let (cpu, gpu) = (sum(|shape| shape.cpu_milli.unsigned_abs()), sum(|shape| shape.gpus.milli()));
    let mean = cpu.saturating_mul(u128::from(WHOLE)).checked_div(gpu).unwrap_or(0);
    u64::try_from(mean).unwrap_or(u64::MAX)
}
