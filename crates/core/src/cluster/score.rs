//! How good a choice is, in 49 bits, lower is better: the bucket of fragmentation, then best fit (see [`crate::fragment`]).

use super::free::NodeFree;
use crate::ask::{Amount, Ask};
use crate::fragment::{self, ANY_CLASS, BUCKETS, Gpus, Mix, NodeView, Placement, Shape};
use crate::names::Class;

/// CPU beyond this is all alike: one box does not say what it has.
const MOST_CPU_MILLI: i64 = 1_000_000_000;

/// Memory of a device, for what a share of unknown devices is to the mix.
const USUAL_DEVICE_MIB: u64 = 81_920;

/// What an ask is to the mix.
pub fn shape(ask: &Ask, classes: &[Class]) -> Shape {
    let gpus = match ask.amount {
        Amount::None => Gpus::None,
        Amount::Whole(devices) => Gpus::Whole(u16::try_from(devices).unwrap_or(u16::MAX)),
        Amount::Milli(milli) | Amount::Slice { milli, .. } => fraction(u64::from(milli)),
        Amount::MemoryMib(mib) => fraction((mib * 1000).div_ceil(USUAL_DEVICE_MIB)),
        Amount::Mig(profile) => fraction(u64::from(profile.milli())),
    };
    let suits = classes.iter().take(64).enumerate().filter(|(_, class)| ask.class_suits(class, false));
    let set = if ask.classes.is_empty() { ANY_CLASS } else { suits.map(|(at, _)| 1 << at).sum() };
    Shape { cpu_milli: i64::try_from(ask.cpu_milli).unwrap_or(i64::MAX).min(MOST_CPU_MILLI), gpus, classes: set }
}

fn fraction(milli: u64) -> Gpus {
    let milli = u16::try_from(milli.clamp(1, 1000)).unwrap_or(1000);
    if milli == 1000 { Gpus::Whole(1) } else { Gpus::Fraction(milli) }
}

/// The best placement of a shape on a node of which `free` is left.
pub fn place(shape: &Shape, node: &NodeFree, class: u16, free: &[u16], mix: &Mix) -> Option<Placement> {
    let view = NodeView { cpu_milli: node.cpu_milli.min(MOST_CPU_MILLI), memory_mib: None, class, free };
    // The class was looked at before; devices of several classes on one node are rated as the first.
    let shape = Shape { classes: ANY_CLASS, ..*shape };
    fragment::place(mix, &view, &fragment::Ask { shape, memory_mib: 0 })
}

/// The score as a number: lower is better.
pub fn key(placement: Option<&Placement>) -> u64 {
    let Some(placement) = placement else { return (1 << 49) - 1 };
    let bucket = u64::from(BUCKETS - 1 - placement.score.bucket.min(BUCKETS - 1));
    bucket << 41 | placement.score.slack.0.min((1 << 41) - 1)
}
