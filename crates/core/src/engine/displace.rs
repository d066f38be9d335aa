//! Taking devices from running work: whom, and how few of them.
//!
//! Victims in order: replicas that nothing needs, then work that is ending anyway, then what overstays its welcome; then, of the
//! queue with the lower priority of its own first, elastic jobs above their minimum, then whole jobs, then replicas; among equals
//! the least lost work, the lower priority, the younger. The shortest prefix of that order after which the claimant fits is found
//! by doubling and halving, then every victim that turns out not to be needed is let go again. All of it is tried on the books
//! and kept or undone whole.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::books::Amounts;
use crate::claim;
use crate::plan::{Claimant, Reason};
use crate::quota::NodeIx;
use crate::state::{Discipline, HOUR_MS, Job, JobSpec, Phase, Seat};
use crate::time::At;

use super::desk::Lists;
use super::gang::Gang;
use super::rights::{self, Right};
use super::round::{Round, firm, loosen_replica, shift_from};

/// Who wants devices.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub by: Claimant,
    /// The job's slot; absent for a model.
    pub job: Option<u32>,
    pub queue: NodeIx,
    pub spec: Arc<JobSpec>,
}

impl Want {
    pub fn gang(&self) -> Gang<'_> {
        Gang { spec: &self.spec, queue: self.queue, own_only: !self.spec.preemptible }
    }
}

/// Why nobody was displaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// All that may be taken together is not enough, where it is; or there is nothing.
    TooFew,
    /// It is, but for the cap on evictions.
    Cap,
}

/// What one victim would give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Give {
    /// One worker of a job that can go on without it.
    Worker {
        job: u32,
        seat: Seat,
    },
    /// All that the job still has.
    Job(u32),
    Replica(u32),
}

/// Order of victims of one queue, cheapest first: tier, lost work, priority, youth; `Give` for determinism.
type Rank = (u8, u64, i32, Reverse<At>, Reverse<usize>);

const SURPLUS: u8 = 0;
const ENDING: u8 = 1;
const OVERSTAYED: u8 = 2;
const SHRINK: u8 = 3;
const EVICT: u8 = 4;
const REPLICA: u8 = 5;

/// Costs of victims whose stop is not cheap begin here.
const LEAST_DEAR: u64 = 1 << 62;

#[derive(Clone, Copy, Debug)]
struct Unit {
    rank: Rank,
    give: Give,
    right: Right,
    lost_ms: u64,
}

/// Units tried for one claimant at most: beyond, somebody else is asked at the next decision.
const MAX_UNITS: usize = 4_096;

/// The books while units are tried: what each touched job would keep, and which replicas would end.
#[derive(Default)]
struct Trial {
    kept: BTreeMap<u32, Vec<Seat>>,
    /// Of those, who has them on other devices.
    moved: BTreeSet<u32>,
    given: Vec<Unit>,
}

impl Round<'_> {
    /// Makes room and places the claimant's gang, or changes nothing.
    pub(super) fn displace(&mut self, want: &Want) -> Result<Vec<Seat>, Denied> {
        let units = self.units(want);
        if units.is_empty() {
            return Err(Denied::TooFew);
        }
        let mark = self.desk.books.mark();
        let count = self.shortest(want, &units).ok_or(Denied::TooFew)?;
        let units = self.needed(want, units.into_iter().take(count).collect());
        let mut trial = self.give(&units);
        let placed = self.desk.books.place_gang(want.gang());
        let victims = trial.given.iter().filter(|unit| unit.rank.0 > ENDING);
        let mut named: Vec<Give> = victims.map(|unit| whole(unit.give)).collect();
        named.sort_unstable();
        named.dedup();
        let yields = trial.given.iter().any(|unit| unit.right == Right::Yield);
        let allowed =
            placed.map_err(|_| Denied::TooFew).and_then(|seats| self.denied_by_cap(named.len(), yields).map_or(Ok(seats), Err));
        if allowed.is_err() {
            self.desk.books.rollback(mark);
            return allowed;
        }
        if self.state.policy.consolidate {
            self.rehome_victims(&mut trial);
        }
        self.carry(want, &trial, named.len());
        allowed
    }

    /// Whether the cap on evictions refuses so many victims. What is done only when jobs are put in order does not wait for
    /// the cap: next time the order is another one.
    pub(super) fn denied_by_cap(&mut self, victims: usize, only_in_order: bool) -> Option<Denied> {
        if victims <= self.evictions_left() {
            return None;
        }
        self.state.eviction_cap_reached |= !only_in_order;
        Some(if only_in_order { Denied::TooFew } else { Denied::Cap })
    }

    /// Who would stop altogether and fits elsewhere moves.
    fn rehome_victims(&mut self, trial: &mut Trial) {
        for (ix, keep) in trial.kept.iter_mut().filter(|(_, keep)| keep.is_empty()) {
            let runs = self.state.jobs.at(*ix).and_then(Job::run).is_some_and(|run| run.stop.is_none());
            if runs && let Some(seats) = self.place_again(*ix) {
                *keep = seats;
                trial.moved.insert(*ix);
            }
        }
    }

    /// The length of the shortest prefix that makes room; the books are as before.
    fn shortest(&mut self, want: &Want, units: &[Unit]) -> Option<usize> {
        let mut low = 0;
        let mut high = 1;
        while !self.is_enough(want, units.get(..high.min(units.len()))?) {
            if high >= units.len() {
                return None;
            }
            low = high;
            high *= 2;
        }
        let mut high = high.min(units.len());
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.is_enough(want, &units[..middle]) { high = middle } else { low = middle }
        }
        Some(high)
    }

    /// Drops units that are not needed, large runs of them first.
    fn needed(&mut self, want: &Want, mut units: Vec<Unit>) -> Vec<Unit> {
        let mut chunk = units.len().div_ceil(2);
        while chunk > 0 && units.len() > 1 {
            let mut at = units.len();
            while at > 0 {
                let from = at.saturating_sub(chunk);
                let rest: Vec<Unit> = units[..from].iter().chain(&units[at.min(units.len())..]).copied().collect();
                if self.is_enough(want, &rest) {
                    units = rest;
                }
                at = from;
            }
            chunk /= 2;
        }
        units
    }

    fn is_enough(&mut self, want: &Want, units: &[Unit]) -> bool {
        if units.is_empty() {
            return false;
        }
        let mark = self.desk.books.mark();
        self.give(units);
        let fits = self.desk.books.place_gang(want.gang()).is_ok();
        self.desk.books.rollback(mark);
        fits
    }

    /// Changes the books as if the units had been told to end; those whose queue would fall below its guarantee are left.
    fn give(&mut self, units: &[Unit]) -> Trial {
        let mut trial = Trial::default();
        for unit in units {
            let mark = self.desk.books.mark();
            let job = match unit.give {
                Give::Job(ix) | Give::Worker { job: ix, .. } => Some(ix),
                Give::Replica(_) => None,
            };
            let before = job.and_then(|ix| trial.kept.get(&ix).cloned());
            let taken = self.give_one(&mut trial, unit);
            if taken.is_some_and(|taken| self.holds_after(unit.right, &taken)) {
                trial.given.push(*unit);
            } else {
                self.desk.books.rollback(mark);
                match (job, before) {
                    (Some(ix), Some(kept)) => drop(trial.kept.insert(ix, kept)),
                    (Some(ix), None) => drop(trial.kept.remove(&ix)),
                    (None, _) => {}
                }
            }
        }
        trial
    }

    /// What was taken, seat by seat.
    fn give_one(&mut self, trial: &mut Trial, unit: &Unit) -> Option<Vec<Amounts>> {
        let (job, keep) = match unit.give {
            Give::Replica(ix) => {
                loosen_replica(self.state, self.desk, ix);
                let replica = self.state.replicas.at(ix)?;
                return Some(vec![self.desk.books.amounts(&replica.ask, replica.seat.node, replica.seat.mask)]);
            }
            Give::Job(ix) => (ix, Vec::new()),
            Give::Worker { job: ix, seat } => {
                let job = self.state.jobs.at(ix)?;
                let mut kept = trial.kept.get(&ix).cloned().unwrap_or_else(|| firm(job).to_vec());
                let at = kept.iter().rposition(|other| *other == seat)?;
                let least = job.spec.groups.get(usize::from(seat.group))?.min as usize;
                if kept.iter().filter(|other| other.group == seat.group).count() <= least {
                    return None;
                }
                kept.remove(at);
                (ix, kept)
            }
        };
        let spec = &self.state.jobs.at(job)?.spec;
        let from = trial.kept.get(&job).cloned().or_else(|| self.state.jobs.at(job).map(|job| firm(job).to_vec()))?;
        let given = super::desk::given_up(&from, &keep);
        let asks = super::desk::Desk::asks(spec, &given);
        let taken: Vec<Amounts> = asks.map(|(ask, seat)| self.desk.books.amounts(ask, seat.node, seat.mask)).collect();
        if taken.is_empty() {
            return None;
        }
        shift_from(self.state, self.desk, job, &from, &keep);
        trial.kept.insert(job, keep);
        Some(taken)
    }

    /// What was tried is ordered: the books say it already.
    fn carry(&mut self, want: &Want, trial: &Trial, victims: usize) {
        let now = self.state.now;
        self.displaced = true;
        self.state.evictions.extend(std::iter::repeat_n(now, victims));
        for (ix, keep) in &trial.kept {
            let Some(unit) = trial
                .given
                .iter()
                .find(|unit| unit.give == Give::Job(*ix) || matches!(unit.give, Give::Worker { job, .. } if job == *ix))
            else {
                continue;
            };
            if let Some(job) = self.state.jobs.at_mut(*ix).filter(|_| unit.rank.0 != ENDING) {
                job.disruptions.retain(|at| now.since(*at) < HOUR_MS);
                job.disruptions.push(now);
            }
            let from = self.state.jobs.at(*ix).map_or(0, |job| firm(job).len());
            let reason = if trial.moved.contains(ix) {
                Reason::Moved { by: want.by.clone(), lost_ms: unit.lost_ms }
            } else {
                reason(want, unit, u32::try_from(from).unwrap_or(u32::MAX), u32::try_from(keep.len()).unwrap_or(u32::MAX))
            };
            self.note_stop(*ix, keep.clone(), reason);
        }
        for unit in &trial.given {
            if let Give::Replica(ix) = unit.give {
                let surplus = (unit.right == Right::Surplus).then(|| self.surplus_reason(ix)).flatten();
                self.note_replica_stop(ix, surplus.unwrap_or_else(|| reason(want, unit, 1, 0)));
            }
        }
    }

    /// All that may be taken, cheapest first.
    fn units(&mut self, want: &Want) -> Vec<Unit> {
        let need = self.desk.books.need(&want.spec);
        let mut units: Vec<Unit> = self.desk.surplus.iter().filter_map(|ix| self.unit_of_surplus(want, *ix)).collect();
        let mut later: Option<At> = None;
        let due = want.job.is_some_and(|by| self.is_reserved(by));
        let others = self.desk.fair.is_some() || rights::is_owed(&self.desk.books, want.queue, &need);
        for lists in &self.desk.queues {
            let Some(node) = lists.node else { continue };
            let across = if node == want.queue || !others { None } else { self.across(want.queue, node, &need) };
            // Most queues owe nothing: their jobs are not looked at one by one.
            if !due && across.is_none() && (node != want.queue || !self.may_give_inside(want, lists)) {
                continue;
            }
            for ix in &lists.holders {
                let may = |job: &&Job| want.job != Some(*ix) && job.spec.preemptible;
                let Some(job) = self.state.jobs.at(*ix).filter(may) else { continue };
                let right = if due && rights::overstays(self.state, job) {
                    Some(Right::Overstayed)
                } else if node == want.queue {
                    let by_shares = self.state.shares(&job.spec) && self.state.takes_part(&want.spec);
                    let within = rights::within(want.spec.priority, job);
                    let within = within.filter(|right| *right != Right::ShrinkOnly || !by_shares);
                    let yields = within == Some(Right::ShrinkOnly) && rights::yields(self.state, self.desk, want.job, *ix, job);
                    if yields { Some(Right::Yield) } else { within }
                } else {
                    across
                };
                if let Some(right) = right.filter(|right| *right != Right::ShrinkOnly || job.spec.is_elastic()) {
                    let protected = job.protected_until(self.state.now).filter(|_| right != Right::Overstayed);
                    match protected {
                        Some(until) => later = Some(later.map_or(until, |at| at.min(until))),
                        None => self.units_of_job(*ix, job, right, &mut units),
                    }
                }
            }
            for ix in &lists.replicas {
                units.extend(self.unit_of_replica(want, *ix, if node == want.queue { Some(Right::Priority) } else { across }));
            }
        }
        if let Some(at) = later.filter(|at| *at < At(u64::MAX)) {
            match want.job {
                Some(_) => self.desk.wakes.retry(at),
                None => self.desk.model_retry = Some(self.desk.model_retry.map_or(at, |known| known.min(at))),
            }
        }
        let rules = &self.desk.rules;
        units.sort_by_cached_key(|unit| (unit.rank.0.min(SHRINK), rules.of_victim(want, unit.right), unit.rank, unit.give));
        units.truncate(MAX_UNITS);
        units
    }

    /// Whether anybody in the claimant's own queue may stand lower, be elastic, or yield.
    fn may_give_inside(&self, want: &Want, lists: &Lists) -> bool {
        let lower = lists.priorities.keys().next().is_some_and(|lowest| *lowest < want.spec.priority);
        let claim = want.job.and_then(|ix| self.desk.claims.get(&ix));
        let yields =
            self.desk.ranked && claim.zip(lists.weakest).is_some_and(|(waiter, weakest)| claim::outweighs(*waiter, weakest, 0));
        lower || lists.elastic > 0 || yields || !lists.replicas.is_empty()
    }

    fn units_of_job(&self, ix: u32, job: &Job, right: Right, units: &mut Vec<Unit>) {
        let (kept, ending) = match &job.phase {
            Phase::Waiting { keep, .. } => (keep.as_slice(), true),
            Phase::Running(run) => (run.kept(), run.stop.is_some()),
            Phase::Finished(_) => return,
        };
        if kept.is_empty() {
            return;
        }
        let lost_ms = if ending { 0 } else { job.lost_work_ms(self.state.now) };
        let rank = |tier: u8, order: usize| (tier, lost_ms, job.spec.priority, Reverse(job.submitted), Reverse(order));
        let tier = |tier: u8| if ending { ENDING } else { tier };
        if job.spec.is_elastic() {
            let groups = (0_u16..)
                .zip(&job.spec.groups)
                .filter(|(number, group)| kept.iter().filter(|seat| seat.group == *number).count() > group.min as usize);
            let shrinkable: Vec<u16> = groups.map(|(number, _)| number).collect();
            let seats = kept.iter().enumerate().filter(|(_, seat)| shrinkable.contains(&seat.group));
            units.extend(seats.map(|(at, seat)| Unit {
                rank: rank(tier(SHRINK), at),
                give: Give::Worker { job: ix, seat: *seat },
                right,
                lost_ms,
            }));
        }
        if right.may_end() {
            let whole = if right == Right::Overstayed { OVERSTAYED } else { EVICT };
            let mut rank = rank(tier(whole), 0);
            rank.1 = self.evict_cost(job, lost_ms);
            units.push(Unit { rank, give: Give::Job(ix), right, lost_ms });
        }
    }

    /// Orders whole jobs among victims: the least lost work, or what [`crate::policy::Policy::evict_longest`] says.
    fn evict_cost(&self, job: &Job, lost_ms: u64) -> u64 {
        if !self.state.policy.evict_longest {
            return lost_ms;
        }
        let now = self.state.now;
        let discipline = self.state.queues.get(&job.spec.queue).map(|queue| queue.discipline);
        let cheap = job.run().is_some_and(|run| claim::is_cheap(now.since(run.since), job.stop_cost_ms(now)));
        if cheap && lost_ms > 0 && discipline == Some(Discipline::Responsive) {
            LEAST_DEAR - 1 - self.state.expected_left_ms(job, 50).min(LEAST_DEAR - 1)
        } else {
            lost_ms.saturating_add(LEAST_DEAR)
        }
    }

    /// What a model does not need is anybody's, whatever the queue.
    fn unit_of_surplus(&self, want: &Want, ix: u32) -> Option<Unit> {
        let replica = self.state.replicas.at(ix).filter(|replica| replica.stop.is_none())?;
        let mut devices = self.state.devices_of(&replica.seat);
        let suits = devices
            .any(|device| want.spec.groups.iter().any(|group| group.ask.class_suits(&device.class, device.part.is_some())));
        let priority = self.state.models.get(&replica.model)?.spec.priority;
        let rank = (SURPLUS, 0, priority, Reverse(replica.since), Reverse(ix as usize));
        let own = want.by == Claimant::Model(replica.model.clone());
        (suits && !own).then_some(Unit { rank, give: Give::Replica(ix), right: Right::Surplus, lost_ms: 0 })
    }

    /// A drained replica loses no work.
    fn unit_of_replica(&self, want: &Want, ix: u32, right: Option<Right>) -> Option<Unit> {
        let spare = self.desk.surplus.contains(&ix);
        let replica = self.state.replicas.at(ix).filter(|replica| replica.stop.is_none() && !spare)?;
        let model = self.state.models.get(&replica.model)?;
        let own = want.by == Claimant::Model(replica.model.clone());
        let lower = want.spec.priority > model.spec.priority;
        let right = right.filter(|right| !own && (*right != Right::Priority || lower))?;
        let rank = (REPLICA, 0, model.spec.priority, Reverse(replica.since), Reverse(0));
        Some(Unit { rank, give: Give::Replica(ix), right, lost_ms: 0 })
    }
}

/// The victim, whatever part of it is given.
fn whole(give: Give) -> Give {
    match give {
        Give::Worker { job, .. } => Give::Job(job),
        other => other,
    }
}

fn reason(want: &Want, unit: &Unit, from: u32, to: u32) -> Reason {
    let (by, lost_ms) = (want.by.clone(), unit.lost_ms);
    match unit.right {
        Right::Quota { .. } => Reason::Reclaim { by, from, to, lost_ms },
        Right::Fair { .. } => Reason::FairShare { by, from, to, lost_ms },
        Right::Priority | Right::ShrinkOnly | Right::Surplus => Reason::Preempt { by, from, to, lost_ms },
        Right::Overstayed => Reason::Overstayed { by, lost_ms },
        Right::Yield => Reason::Yield { by, lost_ms },
    }
}
