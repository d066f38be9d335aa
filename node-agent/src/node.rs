//! The machine as the agent knows it. Pure: readings, events and the time are arguments; the threads of [`crate::collect`]
//! and the tasks of [`crate::run`] feed it under one lock, and metrics, JSON and status are read from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tidegate_nvml::{Driver, Event, Fault, GpuUuid, Identity, Reading, Topology};

use crate::gpu::{Gpu, Now};
use crate::health::{Cause, State, Transition};
use crate::pods::{Owners, Place};
use crate::saved::Remembered;
use crate::view::facts;

/// GPUs that were seen and are gone are remembered, so that a loss stays visible; above so many the oldest is forgotten.
const MOST_GPUS: usize = 64;

/// Events of GPUs that have not introduced themselves; more at once are a storm that goes on, and is heard then.
const MOST_EARLY: usize = 64;

/// Times that the machine is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Between two readings of a GPU.
    pub interval: Duration,
    /// A call that has not returned for so long hangs.
    pub call_timeout: Duration,
}

impl Times {
    /// A longer pause between readings is a gap that no sample stands for.
    fn longest_step(self) -> Duration {
        self.interval * 3 + self.call_timeout
    }

    /// A reading that is older is shown no more: a value that stands still looks like a fact.
    pub fn stale(self) -> Duration {
        self.longest_step()
    }
}

/// What the agent counts of itself.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Readings that succeeded.
    pub readings: u64,
    /// Readings that failed, by category of the fault.
    pub failed: BTreeMap<&'static str, u64>,
    /// Seconds spent in readings.
    pub reading_seconds: f64,
    /// Times that NVML was opened.
    pub opened: u64,
    /// Answers of the kubelet.
    pub kubelet_answers: u64,
    /// Failures of the kubelet, by category.
    pub kubelet_errors: BTreeMap<&'static str, u64>,
    /// When the kubelet last answered.
    pub kubelet_answered: Option<Duration>,
    /// Writes of the `GpuNode` status.
    pub status_writes: u64,
    /// Those that failed.
    pub status_errors: u64,
}

/// Why NVML is closed where nothing is wrong: not yet looked, or no GPUs here.
const NO_FAULT: [&str; 3] = ["starting", "no_library", "no_devices"];

/// A reading in progress: of which GPU and since when.
#[derive(Clone, Debug)]
struct Call {
    gpu: Option<GpuUuid>,
    since: Duration,
}

/// The machine.
#[derive(Debug)]
pub struct Node {
    pub times: Times,
    /// Unix time of the beginning.
    pub began_unix: f64,
    pub gpus: BTreeMap<GpuUuid, Gpu>,
    pub driver: Option<Driver>,
    /// Why there are no GPUs: category and words. Absent while NVML is open.
    pub closed: Option<(&'static str, String)>,
    pub topology: Topology,
    pub owners: Owners,
    pub own: Own,
    /// Another number after the driver went away.
    pub load: u32,
    /// Changes with every change of health.
    pub health_version: u64,
    /// Of the time before this process, GPUs that have not shown themselves yet.
    pub remembered: Remembered,
    /// GPUs by index of which no event will be heard, with the fault's category.
    pub deaf: Vec<(u32, &'static str)>,
    /// GPUs by index that cannot be opened, and why.
    pub unreadable: BTreeMap<u32, Fault>,
    /// How many GPUs the driver counts.
    expected: u32,
    /// Another number after every opening of NVML.
    session: u32,
    /// Events of GPUs that have not introduced themselves yet, with their times: a GPU that comes up sick says so at once.
    early: Vec<(Event, Duration)>,
    /// Sets of facts that cannot be seen, as they were said.
    said: BTreeSet<String>,
    calls: BTreeMap<u32, Call>,
}

impl Node {
    /// Time begins at `began_unix`, in seconds of Unix time.
    pub fn new(times: Times, began_unix: f64) -> Self {
        Self {
            times,
            began_unix,
            gpus: BTreeMap::new(),
            driver: None,
            closed: Some(("starting", "NVML has not been opened yet".into())),
            topology: Topology::default(),
            owners: Owners::default(),
            own: Own::default(),
            load: 0,
            health_version: 0,
            remembered: Remembered::default(),
            deaf: Vec::new(),
            unreadable: BTreeMap::new(),
            expected: 0,
            session: 0,
            early: Vec::new(),
            said: BTreeSet::new(),
            calls: BTreeMap::new(),
        }
    }

    /// The driver went away: what is opened next is another load of it, whose GPUs were reset and whose counters begin anew.
    pub fn renewed(&mut self) {
        self.load += 1;
    }

    /// NVML is open; the driver counts so many GPUs, which introduce themselves one by one.
    pub fn opened(&mut self, driver: Driver, topology: Topology, count: u32) {
        self.session += 1;
        self.own.opened += 1;
        let before = self.remembered.driver.take();
        if before.is_some() && before.as_ref() != driver.driver.known() {
            // It was replaced while nobody looked.
            self.renewed();
        }
        (self.driver, self.topology, self.closed, self.expected) = (Some(driver), topology, None, count);
        self.unreadable.clear();
        self.early.clear();
        self.calls.clear();
    }

    /// NVML is not open. GPUs that were there cannot be seen.
    pub fn closed(&mut self, category: &'static str, why: &str, at: Duration) {
        self.closed = Some((category, why.to_owned()));
        self.calls.clear();
        let load = self.load;
        self.each(|gpu| gpu.missing(Cause::DriverGone, why, load, at));
    }

    /// A GPU can be read.
    pub fn introduce(&mut self, identity: &Identity) {
        if !self.gpus.contains_key(&identity.uuid) && self.gpus.len() >= MOST_GPUS {
            self.forget_one();
        }
        let gpu = self.gpus.entry(identity.uuid.clone()).or_insert_with(|| Gpu::new(identity.clone()));
        if let Some(health) = self.remembered.gpus.remove(&identity.uuid) {
            gpu.health = health;
            self.health_version += 1;
        }
        (gpu.identity, gpu.seen) = (identity.clone(), self.session);
        let is_its = |(event, _): &(Event, Duration)| event.gpu.as_ref() == Some(&identity.uuid);
        let (its, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.early).into_iter().partition(is_its);
        self.early = others;
        for (event, at) in its {
            self.event(&event, at);
        }
    }

    /// A GPU does not even tell its UUID.
    pub fn unreadable(&mut self, index: u32, fault: Fault) {
        self.unreadable.insert(index, fault);
    }

    /// Of GPUs that were there before, those that the driver does not count any more. Known when all have introduced
    /// themselves.
    pub fn mark_missing(&mut self, at: Duration) {
        let (load, session) = (self.load, self.session);
        let here = self.gpus.values().filter(|gpu| gpu.seen == session).count() + self.unreadable.len();
        if self.closed.is_some() || here < self.expected as usize {
            return;
        }
        self.each(|gpu| {
            if gpu.seen == session {
                return None;
            }
            gpu.missing(Cause::OffTheBus, "the driver does not count it any more", load, at)
        });
    }

    /// Whether a GPU is lost: only a new opening of NVML finds one that came back.
    pub fn misses_any(&self) -> bool {
        !self.unreadable.is_empty() || self.worst() == State::Lost
    }

    /// A call about the GPU with this index begins.
    pub fn calling(&mut self, index: u32, at: Duration) {
        let gpu = self.gpus.values().find(|gpu| gpu.identity.index == index).map(|gpu| gpu.identity.uuid.clone());
        self.calls.insert(index, Call { gpu, since: at });
    }

    /// It has returned.
    pub fn returned(&mut self, index: u32) {
        self.calls.remove(&index);
    }

    /// A reading with the places of its processes, or why there was none.
    pub fn observe(
        &mut self,
        uuid: &GpuUuid,
        reading: Result<(Reading, HashMap<u32, Place>), Fault>,
        took: Duration,
        at: Duration,
    ) -> Option<Transition> {
        self.own.reading_seconds += took.as_secs_f64();
        let load = self.load;
        match reading {
            Ok((reading, places)) => {
                self.own.readings += 1;
                let now = Now { load, at, longest: self.times.longest_step() };
                if self.gpus.get(uuid).is_some_and(|gpu| gpu.reading.is_none()) {
                    self.say_what_is_not_seen(uuid, &reading);
                }
                let owners = std::mem::take(&mut self.owners);
                let change = self.with(uuid, |gpu| gpu.observe(reading, &places, &owners, now));
                self.owners = owners;
                change
            }
            Err(fault) => {
                *self.own.failed.entry(fault.category()).or_default() += 1;
                self.with(uuid, |gpu| gpu.failed(fault, load, at))
            }
        }
    }

    /// The driver reports something by itself.
    pub fn event(&mut self, event: &Event, at: Duration) -> Option<Transition> {
        let (load, uuid) = (self.load, event.gpu.as_ref()?);
        if !self.gpus.contains_key(uuid) && self.early.len() < MOST_EARLY {
            self.early.push((event.clone(), at));
        }
        self.with(uuid, |gpu| gpu.event(event, load, at))
    }

    /// Looks for calls that hang, and for GPUs that nobody reads because another call hangs. To be called about once a
    /// second, also while nothing else happens.
    pub fn look(&mut self, at: Duration) {
        let (load, timeout, stale) = (self.load, self.times.call_timeout, self.times.stale());
        let hung: BTreeSet<GpuUuid> = self.hung_calls(at).filter_map(|call| call.gpu.clone()).collect();
        self.each(|gpu| {
            let unread = gpu.health.state() != State::Lost
                && gpu.fault.is_none()
                && gpu.reading.as_ref().is_some_and(|(_, read)| at.saturating_sub(*read) > stale);
            let why = if hung.contains(&gpu.identity.uuid) {
                format!("a call to the driver has not returned for more than {timeout:?}")
            } else if unread {
                format!("it was not read for more than {stale:?}")
            } else {
                return None;
            };
            gpu.missing(Cause::NotAnswering, why, load, at)
        });
    }

    /// How many calls hang.
    pub fn hung(&self, at: Duration) -> usize {
        self.hung_calls(at).count()
    }

    /// When the last reading of the GPU that was read longest ago was; absent without any.
    pub fn oldest_reading(&self) -> Option<Duration> {
        self.gpus.values().filter_map(|gpu| gpu.reading.as_ref().map(|(_, at)| *at)).min()
    }

    /// The worst health of all GPUs.
    pub fn worst(&self) -> State {
        self.gpus.values().map(|gpu| gpu.health.state()).max().unwrap_or_default()
    }

    /// The same, and sick when there is a driver that cannot be used: what it has is not seen.
    pub fn health(&self) -> State {
        let broken = self.closed.as_ref().is_some_and(|(category, _)| !NO_FAULT.contains(category));
        if broken { self.worst().max(State::Sick) } else { self.worst() }
    }

    fn hung_calls(&self, at: Duration) -> impl Iterator<Item = &Call> {
        self.calls.values().filter(move |call| at.saturating_sub(call.since) > self.times.call_timeout)
    }

    fn with(&mut self, uuid: &GpuUuid, f: impl FnOnce(&mut Gpu) -> Option<Transition>) -> Option<Transition> {
        let gpu = self.gpus.get_mut(uuid)?;
        let change = f(gpu);
        if let Some(Transition { from, to }) = &change {
            self.health_version += 1;
            let why: Vec<&str> = gpu.health.findings().map(|(_, finding)| finding.evidence.as_str()).collect();
            tracing::info!(gpu = %uuid, from = from.word(), to = to.word(), why = why.join("; "), "the health of a GPU changed");
        }
        change
    }

    fn each(&mut self, f: impl Fn(&mut Gpu) -> Option<Transition>) {
        let all: Vec<GpuUuid> = self.gpus.keys().cloned().collect();
        for uuid in all {
            self.with(&uuid, &f);
        }
    }

    /// Once for each kind of GPU: what it does not tell, and why.
    fn say_what_is_not_seen(&mut self, uuid: &GpuUuid, reading: &Reading) {
        let silent = facts::silent(reading);
        let unsupported: Vec<&str> = silent.iter().filter(|(_, why)| why.is_none()).map(|(what, _)| *what).collect();
        let failed: Vec<String> = silent.iter().filter_map(|(what, why)| Some(format!("{what}: {}", (*why)?))).collect();
        let (unsupported, failed) = (unsupported.join(", "), failed.join(", "));
        if !silent.is_empty() && self.said.len() < MOST_GPUS && self.said.insert(format!("{unsupported}; {failed}")) {
            tracing::info!(gpu = %uuid, unsupported, failed, "some facts of this kind of GPU cannot be seen");
        }
    }

    /// Makes room: of the GPUs that are gone the one that was read longest ago goes.
    fn forget_one(&mut self) {
        let gone = self.gpus.values().filter(|gpu| gpu.seen != self.session);
        let oldest = gone.min_by_key(|gpu| gpu.reading.as_ref().map(|(_, at)| *at)).map(|gpu| gpu.identity.uuid.clone());
        if let Some(uuid) = oldest {
            self.gpus.remove(&uuid);
        }
    }
}
