//! A training job and its attempts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::State;
use crate::ask::Ask;
use crate::names::{Namespace, QueueName};
use crate::plan::{ActionId, Reason};
use crate::time::At;

/// The window of [`JobSpec::max_disruptions_per_hour`].
pub const HOUR_MS: u64 = 3_600_000;

/// What a user asked for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobSpec {
    pub queue: QueueName,
    /// Where it was submitted.
    #[serde(default)]
    pub namespace: Namespace,
    pub priority: i32,
    /// Who submitted it, and what kind of run it is: run times of the past are remembered by both.
    pub owner: String,
    pub recipe: String,
    /// Workers by role; all groups at their minimum or nothing.
    pub groups: Vec<Group>,
    /// Where the groups stand to each other.
    pub spread: Option<Spread>,
    /// May be stopped for others; only then may it use what its queue borrows.
    pub preemptible: bool,
    /// Not stopped for others before it ran this long.
    pub min_runtime_ms: u64,
    /// Stops for others in any hour, at most.
    pub max_disruptions_per_hour: u32,
    /// What a restart costs each worker beside the work since the checkpoint.
    pub restart_ms: u64,
    /// Failures in a row after which it is failed.
    pub backoff_limit: u32,
    /// A gang of which not all workers were seen running by then is stopped and waits again.
    pub gang_timeout_ms: u64,
    /// The user's estimate of its run time at its smallest size.
    pub expected_ms: Option<u64>,
    /// Speed by workers of all groups, ascending by workers; several choices may stand for one size. Empty: linear.
    pub speedup: Vec<SpeedPoint>,
}

/// How fast a job is at one size.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpeedPoint {
    pub workers: u32,
    /// In thousandths of one worker.
    pub speed_milli: u32,
    /// Which of the job's own settings (a batch size, say) it needs for that: told to it when it starts.
    #[serde(default)]
    pub choice: Option<u32>,
}

impl SpeedPoint {
    /// A point of a job that leaves no choice.
    pub fn new(workers: u32, speed_milli: u32) -> Self {
        Self { workers, speed_milli, choice: None }
    }
}

/// Workers of one role.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub name: String,
    /// Workers: never fewer while it runs, never more.
    pub min: u32,
    pub max: u32,
    pub ask: Ask,
    pub spread: Option<Spread>,
}

/// A wish to be close together.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spread {
    /// `island`, `node`, or a label key of the pool's topology.
    pub level: String,
    /// Rather wait than be apart.
    pub required: bool,
}

/// A worker's place.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// The job's group.
    pub group: u16,
    /// Slot of the node.
    pub node: u32,
    /// Its devices on that node, by bit.
    pub mask: u64,
    /// MIG slices of its one device.
    pub slices: u8,
}

impl Seat {
    /// It uses more devices than are known to be its own: others held them when it was seen.
    pub fn lacks_devices(&self, ask: &Ask) -> bool {
        self.mask.count_ones() < ask.devices()
    }
}

impl JobSpec {
    /// One group of `min` to `max` workers that may be stopped for others.
    pub fn workers(queue: impl Into<QueueName>, min: u32, max: u32, ask: Ask) -> Self {
        Self {
            queue: queue.into(),
            namespace: Namespace::default(),
            priority: 0,
            owner: String::new(),
            recipe: String::new(),
            groups: vec![Group { name: String::new(), min, max, ask, spread: None }],
            spread: None,
            preemptible: true,
            min_runtime_ms: 0,
            max_disruptions_per_hour: u32::MAX,
            restart_ms: 0,
            backoff_limit: 6,
            gang_timeout_ms: 600_000,
            expected_ms: None,
            speedup: Vec::new(),
        }
    }

    /// Workers of all groups: the fewest and the most.
    pub fn size(&self) -> (u32, u32) {
        self.groups.iter().fold((0, 0), |(min, max), group| (min.saturating_add(group.min), max.saturating_add(group.max)))
    }

    /// Whether these seats are enough of every group.
    pub fn is_gang(&self, seats: &[Seat]) -> bool {
        let of_group = |number: u16| seats.iter().filter(|seat| seat.group == number).count();
        (0_u16..).zip(&self.groups).all(|(number, group)| of_group(number) >= group.min as usize)
    }

    /// Of these seats, as many of each group as it may have, the first ones.
    pub fn within_limits(&self, seats: &[Seat]) -> Vec<Seat> {
        let mut left: Vec<u32> = self.groups.iter().map(|group| group.max).collect();
        let allowed = |seat: &&Seat| match left.get_mut(usize::from(seat.group)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        };
        seats.iter().filter(allowed).copied().collect()
    }

    /// The first group that has fewer of these seats than it can use.
    pub fn growing_group(&self, seats: &[Seat]) -> Option<usize> {
        let has = |number: u16| seats.iter().filter(|seat| seat.group == number).count();
        (0_u16..).zip(&self.groups).position(|(number, group)| has(number) < group.max as usize)
    }

    /// Whether it can use more workers than it needs.
    pub fn is_elastic(&self) -> bool {
        self.groups.iter().any(|group| group.max > group.min)
    }

    /// Speed of this many workers, in thousandths of one; between two points of the curve it is a straight line.
    pub fn speed_milli(&self, workers: u32) -> u64 {
        let linear = u64::from(workers) * 1000;
        let Some(last) = self.speedup.last() else { return linear };
        let at = |size: u32| self.fastest(size).map_or(0, |point| u64::from(point.speed_milli));
        if workers >= last.workers {
            return at(last.workers);
        }
        let below = self.speedup.iter().rfind(|point| point.workers <= workers).map_or(0, |point| point.workers);
        let Some(above) = self.speedup.iter().find(|point| point.workers >= workers) else { return linear };
        let span = u64::from(above.workers.saturating_sub(below)).max(1);
        let rise = at(above.workers).saturating_sub(at(below));
        at(below) + rise * u64::from(workers - below) / span
    }

    /// What the job is told to choose with this many workers: as at the fastest point of the largest size that is not above.
    pub fn choice(&self, workers: u32) -> Option<u32> {
        let size = self.speedup.iter().rfind(|point| point.workers <= workers).or(self.speedup.first())?.workers;
        self.fastest(size)?.choice
    }

    /// The fastest point of a size; of equals the smaller choice.
    fn fastest(&self, workers: u32) -> Option<&SpeedPoint> {
        let points = self.speedup.iter().filter(|point| point.workers == workers);
        points.max_by_key(|point| (point.speed_milli, std::cmp::Reverse(point.choice)))
    }
}

/// A job.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Shared with all jobs that ask for the same.
    pub spec: Arc<JobSpec>,
    /// What it becomes once it holds nothing: other workers than those that it has.
    #[serde(default)]
    pub next_spec: Option<Arc<JobSpec>>,
    pub submitted: At,
    pub phase: Phase,
    /// Where it stands among the waiting of its queue and priority, lower first: set when it begins to wait.
    pub turn: u64,
    /// The number of the last attempt; 0 before the first.
    pub attempts: u32,
    /// Failures since the last new checkpoint.
    pub failures: u32,
    /// Attempts in a row of which a node would not take a worker in.
    #[serde(default)]
    pub refusals: u32,
    pub progress: Progress,
    /// When it was last stopped for others, newest last, within the last hour.
    pub disruptions: Vec<At>,
    /// How long it has waited before its attempts, the present wait left out.
    pub waited_ms: u64,
    /// What its ended attempts ran, and the present one until its curve changed, in milliseconds at its smallest size.
    pub served_ms: u64,
    /// A person's wishes.
    pub paused: bool,
    pub cancelled: bool,
    pub removed: bool,
}

/// How far it got.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub step: u64,
    pub checkpoint_step: u64,
    pub checkpoint_at: Option<At>,
    /// How far it is by its own word, in millionths of all its work.
    pub done_ppm: Option<u32>,
}

/// Where it stands.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Holds nothing, except `keep` for the moment between two attempts.
    Waiting {
        since: At,
        not_before: Option<At>,
        keep: Vec<Seat>,
    },
    Running(Run),
    Finished(End),
}

/// One attempt.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub attempt: u32,
    /// Worker i runs on `seats[i]`.
    pub seats: Vec<Seat>,
    pub since: At,
    /// As history had it when it was started.
    pub expected_end: At,
    /// Set when its workers were seen running; until then it is assumed.
    pub observed: bool,
    pub stop: Option<Stop>,
    /// It was let in ahead of a job that has a reservation from then on; it goes first if it overstays.
    pub backfilled_until: Option<At>,
    /// Up to when what it ran is in [`Job::served_ms`] already: its curve changed then. Before `since`: nothing is.
    #[serde(default)]
    pub counted: At,
}

/// An attempt that was told to end.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub action: ActionId,
    pub since: At,
    /// What the next attempt starts on.
    pub keep: Vec<Seat>,
    pub reason: Reason,
}

/// How it ended for good.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Succeeded { at: At },
    Failed { at: At },
    Cancelled { at: At },
}

impl Job {
    /// A job that was just submitted.
    pub fn new(spec: impl Into<Arc<JobSpec>>, at: At) -> Self {
        Self {
            spec: spec.into(),
            next_spec: None,
            submitted: at,
            phase: Phase::Waiting { since: at, not_before: None, keep: Vec::new() },
            turn: at.0,
            attempts: 0,
            failures: 0,
            refusals: 0,
            progress: Progress::default(),
            disruptions: Vec::new(),
            waited_ms: 0,
            served_ms: 0,
            paused: false,
            cancelled: false,
            removed: false,
        }
    }

    /// The running attempt.
    pub fn run(&self) -> Option<&Run> {
        match &self.phase {
            Phase::Running(run) => Some(run),
            Phase::Waiting { .. } | Phase::Finished(_) => None,
        }
    }

    /// Whether a person wants it not to run.
    pub fn is_unwanted(&self) -> bool {
        self.paused || self.cancelled || self.removed
    }

    /// Device-milliseconds that stopping it now loses: work since the checkpoint (or the start), and the restart.
    pub fn lost_work_ms(&self, now: At) -> u64 {
        let Some(run) = self.run() else { return 0 };
        let since = self.progress.checkpoint_at.map_or(run.since, |at| at.max(run.since));
        let devices: u64 = run.seats.iter().map(|seat| u64::from(seat.mask.count_ones().max(1))).sum();
        now.since(since).saturating_add(self.spec.restart_ms).saturating_mul(devices)
    }

    /// Thousandths of devices that a seat of it takes.
    pub fn seat_milli(&self, state: &State, seat: &Seat) -> u64 {
        let group = self.spec.groups.get(usize::from(seat.group));
        group.map_or(0, |group| state.devices_of(seat).map(|device| u64::from(group.ask.milli_on(device))).sum())
    }

    /// How long it has run, in milliseconds at its smallest size: what history remembers once it has succeeded.
    pub fn served_ms(&self, now: At) -> u64 {
        let least = self.spec.speed_milli(self.spec.size().0).max(1);
        let running = self.run().filter(|run| run.observed).map_or(0, |run| {
            let workers = u32::try_from(run.seats.len()).unwrap_or(u32::MAX);
            now.since(run.since.max(run.counted)).saturating_mul(self.spec.speed_milli(workers)) / least
        });
        self.served_ms.saturating_add(running)
    }

    /// How long it has waited in all.
    pub fn waited_ms(&self, now: At) -> u64 {
        match &self.phase {
            Phase::Waiting { since, .. } => self.waited_ms.saturating_add(now.since(*since)),
            Phase::Running(_) | Phase::Finished(_) => self.waited_ms,
        }
    }

    /// What a stop now would cost each worker: work since the checkpoint (or the start), and the restart.
    pub fn stop_cost_ms(&self, now: At) -> u64 {
        let Some(run) = self.run() else { return 0 };
        let since = self.progress.checkpoint_at.map_or(run.since, |at| at.max(run.since));
        now.since(since).saturating_add(self.spec.restart_ms)
    }

    /// Until when it may not be stopped for others, if that is later than now: its least run time, and its stops of the last hour.
    /// The end of time if it never may.
    pub fn protected_until(&self, now: At) -> Option<At> {
        let run = self.run()?;
        let least = run.since.plus(self.spec.min_runtime_ms);
        if self.spec.max_disruptions_per_hour == u32::MAX {
            return Some(least).filter(|at| *at > now);
        }
        let recent = self.disruptions.iter().filter(|at| now.since(**at) < HOUR_MS);
        let spent = recent.clone().count() >= self.spec.max_disruptions_per_hour as usize;
        let next = spent.then(|| recent.min().map_or(At(u64::MAX), |at| at.plus(HOUR_MS)));
        [Some(least), next].into_iter().flatten().filter(|at| *at > now).max()
    }
}

impl Run {
    /// What it holds once a stop in progress is over; all of it when there is none.
    pub fn kept(&self) -> &[Seat] {
        self.stop.as_ref().map_or(&self.seats, |stop| &stop.keep)
    }
}
