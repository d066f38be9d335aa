//! How good a choice is, in 56 bits, lower is better: 8 bits of fragmentation, 48 bits of best fit.

use super::candidates::is_boundless;
use super::choose::Choice;
use super::free::NodeFree;
use crate::ask::Ask;
use crate::fragment::Mix;

/// The score of placing one worker so.
pub fn score(ask: &Ask, node: &NodeFree, choice: &Choice, _mix: &Mix) -> u64 {
    let milli: u64 = node.free.iter().map(|free| u64::from(*free)).sum();
    let taken = choice.claim(ask, node);
    let left = milli.saturating_sub(u64::from(taken.milli) * u64::from(taken.mask.count_ones()));
    let cpu = if is_boundless(&node.spec) { 0 } else { u64::try_from(node.cpu_milli).unwrap_or(0).saturating_sub(ask.cpu_milli) };
    (left.min(0xFF_FFFF) << 24) | (cpu / 100).min(0xFF_FFFF)
}
