//! Who is next and who has more than its part: dominant shares, and what is left over divided like water.
//!
//! Two measures. The *dominant share* (Kueue's, `pkg/cache/scheduler/fair_sharing.go`) says how far a queue is into what is not its own and needs no
//! knowledge of demand. *Fair shares* (KAI's) divide a capacity among those who ask, level by level of the tree.
//!
//! **Guarantees.** Shares of one level sum up to the capacity or to all requests, whichever is less (short of it by less
//! than one unit); nobody gets more than it asks for; of two siblings of equal priority, guarantee and request the heavier
//! never gets less.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{NodeIx, ResourceIx, Tree};

/// How far a node is into what its parent could lend: `max over kinds of borrowed * 1000 / lendable(parent)`, over its weight.
///
/// Ordered: less is to be served first, more is to give back first.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DominantShare {
    borrowed: i64,
    lendable: i64,
    weight_milli: u32,
    /// The kind of the largest ratio; absent: nothing is borrowed.
    pub kind: Option<u16>,
}

impl DominantShare {
    /// The weighted ratio in parts per million, rounded down, for people; comparisons are exact.
    pub fn ppm(&self) -> u64 {
        let parts = i128::from(self.borrowed) * 1_000_000_000;
        let whole = i128::from(self.lendable) * i128::from(self.weight_milli);
        u64::try_from(parts.checked_div(whole).unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

impl Ord for DominantShare {
    fn cmp(&self, other: &Self) -> Ordering {
        let whole = |share: &Self| u128::from(share.lendable.max(1).unsigned_abs()) * u128::from(share.weight_milli.max(1));
        let parts = |share: &Self| u128::from(share.borrowed.max(0).unsigned_abs());
        ratio(parts(self), whole(self), parts(other), whole(other))
    }
}

impl PartialOrd for DominantShare {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `a / b` against `c / d` without rounding: as continued fractions, so that nothing overflows. `b` and `d` are above 0.
fn ratio(mut a: u128, mut b: u128, mut c: u128, mut d: u128) -> Ordering {
    let mut flipped = false;
    loop {
        // The larger remainder is the larger ratio, and its inverse the smaller: no remainder is the least of all.
        let (rest, other) = (a % b, c % d);
        let order = (a / b).cmp(&(c / d)).then((rest > 0).cmp(&(other > 0)));
        if order != Ordering::Equal || rest == 0 {
            return if flipped { order.reverse() } else { order };
        }
        (a, b, c, d) = (b, rest, d, other);
        flipped = !flipped;
    }
}

impl Tree {
    /// The dominant share of a node if `extra` were added to it. `kinds[r]` is the kind of resource `r`: classes of GPU are one
    /// kind, as Kueue sums up flavors; empty: each resource is its own kind.
    ///
    /// Costs one walk to the root per resource of a borrowed kind.
    pub fn dominant_share(&self, node: NodeIx, extra: &[(ResourceIx, i64)], kinds: &[u16]) -> DominantShare {
        let weight_milli = self.queue(node).map_or(1000, |queue| queue.weight_milli);
        let mut most = DominantShare { borrowed: 0, lendable: 1, weight_milli, kind: None };
        let Some(parent) = self.parent(node) else { return most };
        let kind = |resource: ResourceIx| kinds.get(usize::from(resource)).copied().unwrap_or(resource);
        for resource in 0..self.resources() {
            let first = (0..resource).all(|earlier| kind(earlier) != kind(resource));
            if !first {
                continue;
            }
            let alike = (resource..self.resources()).filter(|other| kind(*other) == kind(resource));
            let borrowed = alike.clone().fold(0_i64, |sum, other| sum.saturating_add(self.borrowed(node, other, extra)));
            if borrowed == 0 {
                continue;
            }
            let lendable = alike.fold(0_i64, |sum, other| sum.saturating_add(self.potential_available(parent, other)));
            let share = DominantShare { borrowed, lendable, weight_milli, kind: Some(kind(resource)) };
            if lendable > 0 && (most.kind.is_none() || share > most) {
                most = share;
            }
        }
        most
    }

    fn borrowed(&self, node: NodeIx, resource: ResourceIx, extra: &[(ResourceIx, i64)]) -> i64 {
        let more = extra.iter().filter(|(asked, _)| *asked == resource).map(|(_, amount)| *amount);
        let usage = more.fold(self.usage(node, resource), i64::saturating_add);
        usage.saturating_sub(self.guaranteed(node, resource)).max(0)
    }

    /// The fair share of every node in one resource, by position of the node.
    ///
    /// From the root down, each node's share is divided among its children: first `min(guaranteed, requestable)`, then by
    /// weight. `requests[n]` is what the work at node `n` itself asks for, running or waiting; `claims` gives each node's
    /// priority bucket and weight (after decay, [`super::decay::weight_after_usage`]); `capacity` is what there is to divide,
    /// `unit` the grain, 1000 for whole GPUs.
    pub fn fair_shares(&self, resource: ResourceIx, capacity: i64, unit: i64, requests: &[i64], claims: &[Standing]) -> Vec<i64> {
        let wanted = self.requestable(resource, requests);
        let get = |values: &[i64], node: NodeIx| values.get(node.0 as usize).copied().unwrap_or(0);
        let mut shares = vec![0_i64; self.len()];
        if let Some(share) = shares.get_mut(self.root().0 as usize) {
            *share = capacity.min(get(&wanted, self.root()));
        }
        for node in self.bottom_up().iter().rev().copied() {
            let children = self.children(node);
            let own = get(requests, node);
            let below: Vec<Claim> = children
                .iter()
                .map(|child| {
                    let standing = claims.get(child.0 as usize).copied().unwrap_or_default();
                    Claim { deserved: self.guaranteed(*child, resource), request: get(&wanted, *child), standing }
                })
                .collect();
            let parts = water_fill(get(&shares, node).saturating_sub(own).max(0), unit, &below);
            for (child, part) in children.iter().zip(parts) {
                if let Some(share) = shares.get_mut(child.0 as usize) {
                    *share = part;
                }
            }
        }
        shares
    }

    /// What each node may ask for: its own work and that below, no more than its quota and borrowing limit allow.
    pub fn requestable(&self, resource: ResourceIx, requests: &[i64]) -> Vec<i64> {
        let mut wanted: Vec<i64> = (0..self.len()).map(|node| requests.get(node).copied().unwrap_or(0).max(0)).collect();
        for node in self.bottom_up().iter().copied() {
            let limit = self.quota(node, resource).borrowing_limit;
            let most = limit.map_or(i64::MAX, |limit| self.guaranteed(node, resource).saturating_add(limit));
            let asked = wanted.get(node.0 as usize).copied().unwrap_or(0).min(most);
            if let Some(slot) = wanted.get_mut(node.0 as usize) {
                *slot = asked;
            }
            if let Some(slot) = self.parent(node).and_then(|parent| wanted.get_mut(parent.0 as usize)) {
                *slot = slot.saturating_add(asked);
            }
        }
        wanted
    }
}

/// A queue among its siblings.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Higher buckets are filled before lower ones get anything beyond what they deserve.
    pub priority: i32,
    /// Any unit; 0 gets only what nobody of the bucket with a weight wants.
    pub weight: u64,
}

impl Default for Standing {
    fn default() -> Self {
        Self { priority: 0, weight: 1000 }
    }
}

/// What one of the siblings may have and asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub deserved: i64,
    pub request: i64,
    pub standing: Standing,
}

/// Divides `capacity` in grains of `unit`: everyone gets `min(deserved, request)`, then the rest goes by weight among those
/// who want more, bucket by bucket from the highest priority (KAI, `docs/fairness`).
///
/// Too little for what is deserved is divided in proportion to it. What is less than a unit stays undivided, unless it is all
/// that somebody still asks for.
pub fn water_fill(capacity: i64, unit: i64, claims: &[Claim]) -> Vec<i64> {
    let unit = unit.max(1);
    let due: Vec<i64> = claims.iter().map(|claim| claim.deserved.min(claim.request).max(0)).collect();
    let all = due.iter().fold(0_i64, |sum, due| sum.saturating_add(*due));
    let mut shares = vec![0_i64; claims.len()];
    if all > capacity {
        let weights: Vec<u64> = due.iter().map(|due| due.unsigned_abs()).collect();
        let everyone: Vec<usize> = (0..claims.len()).collect();
        pour(capacity, unit, &everyone, &weights, &due, &mut shares);
        return shares;
    }
    shares.clone_from(&due);
    let mut left = capacity - all;
    let asked: Vec<i64> = claims.iter().map(|claim| claim.request.max(0)).collect();
    let weights: Vec<u64> = claims.iter().map(|claim| claim.standing.weight).collect();
    let mut buckets: Vec<i32> = claims.iter().map(|claim| claim.standing.priority).collect();
    buckets.sort_unstable_by(|a, b| b.cmp(a));
    buckets.dedup();
    for priority in buckets {
        let of = |weighs: bool| {
            let inside =
                claims.iter().map(move |claim| claim.standing.priority == priority && (claim.standing.weight > 0) == weighs);
            inside.enumerate().filter(|(_, inside)| *inside).map(|(at, _)| at).collect::<Vec<usize>>()
        };
        left = pour(left, unit, &of(true), &weights, &asked, &mut shares);
        let alike = vec![1; claims.len()];
        left = pour(left, unit, &of(false), &alike, &asked, &mut shares);
    }
    shares
}

/// Pours `left` over `who` by weight until everyone is full or nothing is left; returns what is left.
///
/// Whoever is full first, by need over weight, is served first, so that one pass is exact; those who do not get full
/// share the rest in units, and what remains of it goes to the largest remainders.
fn pour(mut left: i64, unit: i64, who: &[usize], weights: &[u64], asked: &[i64], shares: &mut [i64]) -> i64 {
    let at = |values: &[i64], who: usize| values.get(who).copied().unwrap_or(0);
    let weight = |who: usize| u128::from(weights.get(who).copied().unwrap_or(0).max(1));
    let need = |shares: &[i64], who: usize| at(asked, who).saturating_sub(at(shares, who)).max(0);
    let mut open: Vec<usize> = who.iter().copied().filter(|who| need(shares, *who) > 0).collect();
    open.sort_by(|a, b| {
        let of = |who: usize| u128::from(need(shares, who).unsigned_abs());
        ratio(of(*a), weight(*a), of(*b), weight(*b))
    });
    let mut total: u128 = open.iter().map(|who| weight(*who)).sum();
    let mut full = 0;
    for who in &open {
        let needed = need(shares, *who);
        // need / w <= left / total
        let part = u128::from(left.max(0).unsigned_abs()) * weight(*who);
        if u128::from(needed.unsigned_abs()) * total > part {
            break;
        }
        give(shares, *who, needed, &mut left);
        total -= weight(*who);
        full += 1;
    }
    let open = open.get(full..).unwrap_or(&[]);
    let mut remainders: Vec<(u128, usize)> = Vec::with_capacity(open.len());
    let units = u128::from((left / unit).max(0).unsigned_abs());
    for who in open {
        let part = units * weight(*who);
        let whole = i64::try_from(part / total.max(1)).unwrap_or(0).saturating_mul(unit);
        give(shares, *who, whole.min(need(shares, *who)), &mut left);
        remainders.push((part % total.max(1), *who));
    }
    // Largest remainder first; of equals the first in the list.
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut progress = true;
    while progress {
        progress = false;
        for (_, who) in &remainders {
            let more = need(shares, *who).min(unit);
            if more > 0 && more <= left {
                give(shares, *who, more, &mut left);
                progress = true;
            }
        }
    }
    left
}

fn give(shares: &mut [i64], who: usize, amount: i64, left: &mut i64) {
    if let Some(share) = shares.get_mut(who) {
        *share += amount;
        *left -= amount;
    }
}
