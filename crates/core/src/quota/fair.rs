//! Fair shares (KAI's): a capacity divided among those who ask like water, level by level of the tree.
//!
//! **Guarantees.** Shares of one level sum up to the capacity or to all requests, whichever is less (short of it by less
//! than one unit); nobody gets more than it asks for; of two siblings of equal priority, guarantee and request the heavier
//! never gets less.

use serde::{Deserialize, Serialize};

use super::{NodeIx, ResourceIx, Tree};

impl Tree {
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
        // need / weight, multiplied out: both have at most 64 bits.
        let of = |who: usize| u128::from(need(shares, who).unsigned_abs());
        (of(*a) * weight(*b)).cmp(&(of(*b) * weight(*a)))
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
