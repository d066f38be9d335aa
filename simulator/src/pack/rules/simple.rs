//! The published rules without a view of the future.

use tidegate_core::fragment::{Gpus, Shape, WHOLE};

use super::{Rating, Rule, Taken};
use crate::pack::world::{State, host_bit};

/// The greatest node, by which CPU and GPU are made comparable.
const MOST_CPU_MILLI: f64 = 128_000.0;
const MOST_GPU_MILLI: f64 = 8000.0;

/// Least CPU and GPU left.
pub(super) struct BestFit;

impl Rule for BestFit {
    fn rate(&self, node: &State, shape: &Shape) -> Option<Rating> {
        rated(node, shape, |need| {
            let cpu = (node.cpu_milli - shape.cpu_milli) as f64 / MOST_CPU_MILLI;
            let gpu = (node.idle() as f64 - need) / MOST_GPU_MILLI;
            whole(100.0 * (1.0 - 0.5 * cpu - 0.5 * gpu))
        })
    }
}

/// Where little of what the pod needs is left.
pub(super) struct DotProduct;

impl Rule for DotProduct {
    fn rate(&self, node: &State, shape: &Shape) -> Option<Rating> {
        rated(node, shape, |need| {
            let cpu = node.cpu_milli as f64 / MOST_CPU_MILLI * (shape.cpu_milli as f64 / MOST_CPU_MILLI);
            let gpu = node.idle() as f64 / MOST_GPU_MILLI * (need / MOST_GPU_MILLI);
            whole(100.0 * (1.0 - f64::midpoint(cpu, gpu)))
        })
    }
}

/// Pods of equal need together; among such nodes the fuller.
pub(super) struct Clustering;

impl Rule for Clustering {
    fn rate(&self, node: &State, shape: &Shape) -> Option<Rating> {
        rated(node, shape, |_| {
            let used = 25.0 * (MOST_GPU_MILLI - node.idle() as f64) / MOST_GPU_MILLI;
            let kind = host_bit(shape.gpus);
            let together = match node.hosts {
                _ if kind == 0 => return 0,
                hosts if hosts == kind => 75.0,
                hosts if hosts & kind != 0 => 50.0,
                0 => 25.0,
                _ => 0.0,
            };
            whole(used + together)
        })
    }

    fn keeps(&self) -> Taken {
        Taken { hosts: true, ..Taken::default() }
    }
}

/// Rests of shared GPUs first, then free GPUs of nodes in use, then empty nodes.
pub(super) struct Packing;

impl Rule for Packing {
    fn rate(&self, node: &State, shape: &Shape) -> Option<Rating> {
        rated(node, shape, |_| packing(node, shape))
    }
}

fn packing(node: &State, shape: &Shape) -> i64 {
    let gpus = i64::try_from(node.free().len()).unwrap_or(0);
    let least = |milli| node.free().iter().copied().filter(|&free| free >= milli).min().unwrap_or(WHOLE);
    match shape.gpus {
        Gpus::None => 0,
        _ if node.free().iter().all(|&free| free == WHOLE) => (33 - gpus).max(gpus),
        Gpus::Fraction(milli) if least(milli) < WHOLE => (100 - i64::from(least(milli)) / 10).max(50),
        Gpus::Fraction(_) => 49,
        Gpus::Whole(used) => (50 - i64::from(used)).max(33),
    }
}

/// A rating by `score` of the GPU needed; a fraction goes to the GPU with the least rest that suffices.
fn rated(node: &State, shape: &Shape, score: impl Fn(f64) -> i64) -> Option<Rating> {
    if !node.fits(shape) {
        return None;
    }
    let device = match shape.gpus {
        Gpus::Fraction(milli) => {
            let fit = node.free().iter().enumerate().filter(|(_, free)| **free >= milli);
            fit.min_by_key(|(device, free)| (**free, *device)).map(|(device, _)| device)
        }
        _ => None,
    };
    Some(Rating { key: (score(shape.gpus.milli() as f64), 0), device })
}

#[expect(clippy::cast_possible_truncation, reason = "scores are 0 to 100, and the published rules cut them")]
pub(super) fn whole(score: f64) -> i64 {
    score as i64
}
