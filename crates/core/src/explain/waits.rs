//! Why a job waits.

use crate::ask::Amount;
use crate::cluster::Holder;
use crate::engine::{Block, Engine};
use crate::eta;
use crate::names::JobName;
use crate::state::{Discipline, EVICTION_WINDOW_MS, Group, HOUR_MS, Job, JobSpec, Phase, Seat, State};
use crate::time::At;

use super::look::{self, Look};
use super::{Explanation, claims, counter, quota, words};

/// A waiting job and what the last decision found out about it.
pub(super) struct Waiting<'a> {
    engine: &'a Engine,
    name: &'a JobName,
    ix: u32,
    job: &'a Job,
    block: Option<Block>,
}

/// Explains a waiting job.
pub(super) fn explain(engine: &Engine, name: &JobName, now: At) -> Explanation {
    let mut answer = Explanation { status: format!("job/{name} waits"), ..Explanation::default() };
    let Some(mut waiting) = Waiting::of(engine, name) else { return answer };
    if waiting.halted().is_none() && (waiting.block.is_none() || engine.state().dirty) {
        let mut tried = engine.clone();
        tried.mark_dirty();
        let starts = counter::starts(&tried.decide(now), name);
        if starts {
            answer.because.push("its turn has come: the next decision starts it".to_owned());
            return answer;
        }
        waiting.block = tried.blocked(name).cloned();
    }
    answer.because.push(waiting.cause());
    if waiting.halted().is_none() {
        answer.because.extend(waiting.details(now));
        answer.would_change.extend(counter::of_job(engine, name, waiting.block.as_ref(), now));
    }
    answer.because.extend(quota::spent(engine.state(), engine.books(), &waiting.spec().queue));
    answer.because.extend(stops(waiting.job, now));
    if !waiting.job.is_unwanted()
        && let Some(eta) = eta::of(engine, name, now)
    {
        match eta.at {
            Some(at) => answer.would_change.push(format!(
                "starts at about {}, as things stand; this {}",
                words::clock(at, now),
                eta.rests_on.words()
            )),
            None => {
                answer
                    .because
                    .push(format!("no start is foreseen within {}, as things stand", words::span(eta.until.since(now))));
            }
        }
    }
    answer
}

/// How often it was stopped for others, and when last.
pub(super) fn stops(job: &Job, now: At) -> Option<String> {
    let recent = job.disruptions.iter().filter(|at| now.since(**at) < HOUR_MS).count();
    let last = job.disruptions.last().filter(|_| recent > 0)?;
    Some(format!(
        "it was stopped for others {recent} time(s) in the last hour, the last time {} ago",
        words::span(now.since(*last))
    ))
}

impl<'a> Waiting<'a> {
    pub fn of(engine: &'a Engine, name: &'a JobName) -> Option<Self> {
        let ix = engine.state().jobs.ix(name)?;
        let job = engine.state().jobs.at(ix).filter(|job| matches!(job.phase, Phase::Waiting { .. }))?;
        Some(Self { engine, name, ix, job, block: engine.blocked(name).cloned() })
    }

    fn state(&self) -> &'a State {
        self.engine.state()
    }

    fn spec(&self) -> &'a JobSpec {
        &self.job.spec
    }

    /// What binds, in one sentence.
    pub fn cause(&self) -> String {
        if let Some(halted) = self.halted() {
            return halted;
        }
        let queue = &self.spec().queue;
        if let Some(problem) = self.engine.books().broken.get(queue) {
            return problem.clone();
        }
        if !self.state().queues.contains_key(queue) {
            return format!("queue {queue} does not exist: create it or name another");
        }
        if self.block.as_ref().is_some_and(Block::is_barred) {
            return self.blocked();
        }
        if let Some(head) = self.behind() {
            let why = Self::of(self.engine, head).map_or_else(String::new, |head| head.blocked());
            return format!("queue {queue} is strict first in, first out: job/{head} goes first ({why})");
        }
        self.blocked()
    }

    /// What a person or its own failures hold it back by.
    fn halted(&self) -> Option<String> {
        let job = self.job;
        let Phase::Waiting { not_before, keep, .. } = &job.phase else { return None };
        if job.removed || job.cancelled {
            return Some("it was ended by a person".to_owned());
        }
        if job.paused {
            return Some("paused by a person; `resume` lets it run".to_owned());
        }
        if let Some(at) = not_before.filter(|at| *at > self.state().now) {
            let (failures, limit) = (job.failures, job.spec.backoff_limit);
            let how = match job.refusals {
                0 => format!("failed ({failures} in a row, limit {limit})"),
                times => format!("was not taken in by a node, whose room had gone to others ({times} in a row)"),
            };
            let seconds = at.since(self.state().now).div_ceil(1000);
            return Some(format!("attempt {} {how}; the next starts in {seconds} s", job.attempts));
        }
        (!keep.is_empty()).then(|| format!("it restarts on the {} worker(s) that it kept", keep.len()))
    }

    /// The job that goes first in a strict queue.
    fn behind(&self) -> Option<&'a JobName> {
        let queue = self.state().queues.get(&self.spec().queue)?;
        let head = self.engine.first_waiting(&self.spec().queue).filter(|_| queue.discipline == Discipline::StrictFifo)?;
        (head != self.name).then_some(head)
    }

    /// The group that could not be placed, as far as is known.
    fn group(&self) -> Option<&'a Group> {
        let index = match self.block {
            Some(Block::Capacity { group, .. }) => group,
            _ => 0,
        };
        self.spec().groups.get(index)
    }

    fn blocked(&self) -> String {
        let Some(group) = self.group() else { return "it has no workers".to_owned() };
        let look = Look::at(self.engine, &group.ask, Some(self.ix));
        match &self.block {
            Some(Block::Quota { .. }) => {
                let first = quota::refusing(self.engine.books(), self.spec()).into_iter().next();
                first.unwrap_or_else(|| self.by_quota())
            }
            Some(Block::EvictionCap) => "the cap on evictions per minute is reached".to_owned(),
            Some(Block::Spread { level }) => {
                format!("{} workers would fit, but not in one {level} as it requires", group.min)
            }
            Some(Block::Queue(problem) | Block::Namespace(problem)) => problem.clone(),
            Some(Block::Impossible(why)) => why.to_string(),
            Some(Block::Behind(head)) => format!("job/{head} goes first"),
            Some(Block::Capacity { .. }) | None => self.by_devices(group, &look),
        }
    }

    /// The quota refused a placement, though not the least that the job counts as.
    fn by_quota(&self) -> String {
        let Some(Block::Quota { at, resource, need, available }) = &self.block else { return String::new() };
        format!(
            "queue {at} allows {} more {}, one worker here would count as {}",
            words::number(resource, *available),
            words::unit(resource),
            words::number(resource, *need)
        )
    }

    fn by_devices(&self, group: &Group, look: &Look) -> String {
        let need = words::need(group);
        let free = match group.ask.amount {
            Amount::None => return format!("needs {need}, no node has that much free"),
            Amount::Whole(_) => format!("{} of {} are free", look.free, look.all),
            Amount::MemoryMib(_) | Amount::Milli(_) | Amount::Slice { .. } | Amount::Mig(_) => {
                format!("none of {} has that free", look.all)
            }
        };
        let mut holders = claims::holders(self.engine, &group.ask);
        holders.remove(&Holder::Job(self.ix));
        let mut who = claims::names(self.state(), &holders);
        if look.kept > 0 {
            who.push(format!("reservations ({} device(s))", look.kept));
        }
        if who.is_empty() {
            return format!("needs {need}, {free}");
        }
        format!("needs {need}, {free}; {} hold the rest", words::list(&who))
    }

    /// Everything else that binds or may.
    fn details(&self, now: At) -> Vec<String> {
        let mut told = Vec::new();
        let cause = self.cause();
        told.extend(
            quota::refusing(self.engine.books(), self.spec()).into_iter().filter(|level| !cause.contains(level.as_str())),
        );
        if matches!(self.block, Some(Block::Capacity { .. } | Block::Spread { .. } | Block::EvictionCap | Block::Impossible(_))) {
            told.extend(self.places());
            told.extend(self.reservations(now));
            if let Some(group) = self.group() {
                told.extend(claims::protected(self.engine, self.name, &group.ask, now));
            }
        }
        told.extend(self.cap(now));
        told.extend(self.before());
        told
    }

    /// The best placements that were refused.
    fn places(&self) -> Vec<String> {
        let Some(group) = self.group() else { return Vec::new() };
        let look = Look::at(self.engine, &group.ask, Some(self.ix));
        let mut told = Vec::new();
        if let Some(Block::Capacity { fit, need, .. }) = self.block
            && need > 1
            && group.ask.devices() > 1
        {
            told.push(format!("there is room for {fit} of {need} workers"));
        }
        told.extend(
            look::best_node(self.engine, self.name, group, &look)
                .filter(|_| group.ask.devices() != 1 || !group.ask.is_exclusive()),
        );
        told.extend(look::best_domains(self.engine, self.name, self.spec(), group));
        let needed = group.min.saturating_mul(group.ask.devices());
        if look.by_class.len() > 1 && group.min > 1 && look.free >= needed {
            let free: Vec<String> = look.by_class.iter().map(|(class, free)| format!("{free} {class}")).collect();
            told.push(format!("its workers run on one class together: {} are free", free.join(" and ")));
        }
        told
    }

    /// What is promised to it, and what is promised to others before it.
    fn reservations(&self, now: At) -> Vec<String> {
        let mut told = Vec::new();
        for (ix, reservation) in &self.state().reservations {
            let (devices, nodes) = self.promised(&reservation.seats);
            let when = words::clock(reservation.at, now);
            if *ix == self.ix {
                told.push(format!(
                    "it has a reservation: {devices} device(s) on {nodes} from {when}, when what holds them is expected to have ended"
                ));
            } else if let Some(name) = self.state().jobs.name(*ix).filter(|_| self.overlaps(&reservation.seats)) {
                let left = self.state().expected_left_ms(self.job, self.state().policy.predict_percent as usize);
                told.push(format!(
                    "{devices} device(s) on {nodes} are kept for job/{name} until {when}; this job would be let in before if it were done by then, it is expected to take {}",
                    words::span(left)
                ));
            }
        }
        told
    }

    fn promised(&self, seats: &[Seat]) -> (u32, String) {
        let mut nodes: Vec<String> = seats.iter().map(|seat| look::node_name(self.state(), seat.node)).collect();
        nodes.sort();
        nodes.dedup();
        (seats.iter().map(|seat| seat.mask.count_ones()).sum(), words::list(&nodes))
    }

    /// Whether devices that are promised to another would do for this job.
    fn overlaps(&self, seats: &[Seat]) -> bool {
        let nodes = self.engine.books().cluster.nodes();
        let suits = |seat: &Seat| {
            let node = nodes.get(seat.node as usize);
            self.spec().groups.iter().any(|group| node.is_some_and(|node| node.eligible(&group.ask) & seat.mask != 0))
        };
        seats.iter().any(suits)
    }

    fn cap(&self, now: At) -> Option<String> {
        let first = self.state().evictions.first().filter(|_| self.state().eviction_cap_reached)?;
        Some(format!(
            "{} stops were ordered in the last minute, the policy's cap is {}; the next is allowed in {}",
            self.state().evictions.len(),
            self.state().policy.max_evictions_per_minute,
            words::span(first.plus(EVICTION_WINDOW_MS).since(now))
        ))
    }

    /// Jobs of its queue that wait before it.
    fn before(&self) -> Option<String> {
        let key = |ix: u32, job: &Job| (-i64::from(job.spec.priority), job.turn, ix);
        let waits =
            |job: &Job| matches!(job.phase, Phase::Waiting { .. }) && !job.is_unwanted() && job.spec.queue == self.spec().queue;
        let mine = key(self.ix, self.job);
        let before = self.state().jobs.slots().filter(|(ix, _, job)| waits(job) && key(*ix, job) < mine).count();
        (before > 0).then(|| format!("{before} job(s) wait before it (higher priority, or older)"))
    }
}
