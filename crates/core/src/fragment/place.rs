//! The score of one placement, and the GPU to use for a fraction.

use std::cmp::Reverse;

use super::{Ask, BUCKETS, Gpus, Mix, NodeView, Shape, WHOLE, fragment};

/// 10^-9 GPUs in a bucket: 0.04 GPUs, the width near zero of the published `int(100 x sigmoid(change))`.
/// 0.03 to 0.06 are alike on Alibaba's lists; wider ones lose sight of scarce classes.
const BUCKET: i64 = 40_000_000;

/// 10^-9 GPUs that a unit (a thousandth) of class pressure costs: 0.1 GPU at pressure 1.
const PRESSURE: i64 = 100_000;

/// How good a placement is; greater is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Score {
    /// Lowered fragmentation, 0 to [`BUCKETS`] - 1.
    pub bucket: u16,
    /// What stays free on the node, CPU counted as the GPU it usually feeds, in thousandths of a GPU: best fit.
    pub slack: Reverse<u64>,
}

/// Where to put an ask on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub score: Score,
    /// The GPU for a fraction, an index into [`NodeView::free`]; whole GPUs are any that are wholly free.
    pub device: Option<usize>,
}

/// Scores `ask` on `node`; nothing if it does not fit. Among GPUs of a node that score alike the fullest is taken, then the
/// first.
pub fn place(mix: &Mix, node: &NodeView<'_>, ask: &Ask) -> Option<Placement> {
    let shape = &ask.shape;
    if shape.cpu_milli > node.cpu_milli || node.memory_mib.is_some_and(|free| ask.memory_mib > free) || !is_class(node, shape) {
        return None;
    }
    let rate = Rate { mix, node, before: fragment(mix, node), cpu_milli: node.cpu_milli - shape.cpu_milli };
    match shape.gpus {
        Gpus::None => Some(Placement { score: rate.score(0, &node.free.iter().copied()), device: None }),
        Gpus::Whole(gpus) => whole(&rate, gpus),
        Gpus::Fraction(milli) => fraction(&rate, milli),
    }
}

fn is_class(node: &NodeView<'_>, shape: &Shape) -> bool {
    shape.gpus == Gpus::None || (node.class < 64 && shape.classes & (1 << node.class) != 0)
}

fn whole(rate: &Rate<'_>, gpus: u16) -> Option<Placement> {
    let free = rate.node.free;
    if free.iter().filter(|&&free| free == WHOLE).count() < usize::from(gpus) {
        return None;
    }
    let after = free.iter().scan(gpus, |left, &free| {
        let taken = *left > 0 && free == WHOLE;
        *left -= u16::from(taken);
        Some(if taken { 0 } else { free })
    });
    let pressure = rate.mix.pressure(rate.node.class);
    Some(Placement { score: rate.score(pressure, &after), device: None })
}

fn fraction(rate: &Rate<'_>, milli: u16) -> Option<Placement> {
    let free = rate.node.free;
    let pressure = rate.mix.pressure(rate.node.class);
    let fits = |&(device, &left): &(usize, &u16)| left >= milli && !free.iter().take(device).any(|&other| other == left);
    let mut best: Option<Placement> = None;
    for (device, _) in free.iter().enumerate().filter(fits) {
        let after = free.iter().enumerate().map(|(index, &left)| if index == device { left - milli } else { left });
        let score = rate.score(pressure, &after);
        let left = |device: Option<usize>| device.and_then(|device| free.get(device));
        if best.is_none_or(|best| score > best.score || score == best.score && left(Some(device)) < left(best.device)) {
            best = Some(Placement { score, device: Some(device) });
        }
    }
    best
}

/// What all GPUs of the node that may be chosen have in common.
struct Rate<'a> {
    mix: &'a Mix,
    node: &'a NodeView<'a>,
    /// Fragmentation before.
    before: u64,
    /// CPU left after.
    cpu_milli: i64,
}

impl Rate<'_> {
    fn score(&self, pressure: u64, after: &(impl Iterator<Item = u16> + Clone)) -> Score {
        let idle: u64 = after.clone().map(u64::from).sum();
        let fragment = self.mix.fragment(self.node.class, self.cpu_milli, after);
        let gain = signed(self.before) - signed(fragment) - signed(pressure) * PRESSURE;
        let bucket = (gain.div_euclid(BUCKET) + i64::from(BUCKETS / 2)).clamp(0, i64::from(BUCKETS) - 1);
        let cpu = u64::try_from(self.cpu_milli).unwrap_or(0).saturating_mul(u64::from(WHOLE)) / self.mix.cpu_milli_per_gpu();
        Score { bucket: u16::try_from(bucket).unwrap_or(0), slack: Reverse(idle.saturating_add(cpu)) }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX / 4)
}
