//! The queue of one model: bounded, earliest deadline first, honest at the door.
//!
//! A request that cannot be answered by its deadline is refused when it comes, not served late: the
//! fitted service time, the work with earlier deadlines and the replicas' state tell. The deadline is
//! arrival + SLO. With no serving replica it is arrival + max(SLO, cold-start budget): the request is
//! *held* while a replica starts, and counted apart as woken. A client may ask for less, never for more.
//!
//! **Guarantees** (tested on random event sequences): every accepted request leaves exactly once: in a
//! batch, expired, or removed; no batch exceeds the limits; a request that finds an idle replica and an
//! empty queue is always let in, so that a fit that became too pessimistic is corrected by new samples.

mod admission;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod virtual_time;

use std::collections::BTreeMap;

use super::batch::{self, Key, tokens};
use super::hold::{Candidate, Hold};
use super::{Micros, ServiceTimeFit};

/// What the model's owner allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a batch.
    pub max_rows: u32,
    /// Rows times the longest row of a batch.
    pub max_tokens: Option<u32>,
    /// Requests that may wait, and the bytes of their tensors.
    pub max_requests: usize,
    pub max_bytes: u64,
    pub slo_us: Micros,
    /// How long a request may be held while no replica serves; the SLO if that is longer.
    pub cold_start_us: Micros,
}

/// A request at the door.
#[derive(Clone, Debug)]
pub struct Offer<T> {
    pub item: T,
    pub rows: u32,
    /// Length of its rows where they are padded to a common one; 1 elsewhere.
    pub length: u32,
    pub bytes: u64,
    /// Dimensions that must agree inside a batch; equal shapes, equal vectors.
    pub shape: Vec<i64>,
    /// Must not share a batch.
    pub alone: bool,
    pub arrived: Micros,
    /// The client's own wish, from arrival.
    pub timeout: Option<Micros>,
}

/// A request that waits or leaves.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// Unique in its queue, in order of arrival.
    pub id: u64,
    pub item: T,
    pub rows: u32,
    pub length: u32,
    pub bytes: u64,
    pub shape: Vec<i64>,
    pub alone: bool,
    pub arrived: Micros,
    pub timeout: Option<Micros>,
    pub deadline: Micros,
    /// It waited while no replica served.
    pub woken: bool,
    /// Times that it was sent and lost, as the sender counts.
    pub attempts: u32,
    /// Let in without a promise, to an idle replica.
    probe: bool,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many requests or bytes wait. They need about so long.
    QueueFull { retry_after: Micros },
    /// Its answer would come so much after now, and that is too late.
    DeadlineCannotBeMet { needs: Micros },
    /// It alone exceeds a batch.
    TooLarge,
}

/// What the replicas can promise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// For each serving replica when it is expected to be free, soonest first.
    pub free_at: Vec<Micros>,
    /// Replicas that would take a batch now.
    pub ready: u32,
}

/// What to do next.
#[derive(Clone, Debug)]
pub enum Next<T> {
    /// Nothing, until something happens or this time comes.
    Wait { until: Option<Micros> },
    /// Send these together, in the order of their deadlines. Never empty.
    Batch(Vec<Entry<T>>),
}

/// The waiting requests of one model.
#[derive(Clone, Debug)]
pub struct ModelQueue<T> {
    limits: Limits,
    entries: BTreeMap<Key, Entry<T>>,
    next_id: u64,
    rows: u64,
    tokens: u64,
    bytes: u64,
    in_flight: u32,
    serving: bool,
    hold: Hold,
    fit: ServiceTimeFit,
}

impl<T> ModelQueue<T> {
    /// An empty queue without replicas.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            next_id: 0,
            rows: 0,
            tokens: 0,
            bytes: 0,
            in_flight: 0,
            serving: false,
            hold: Hold::default(),
            fit: ServiceTimeFit::default(),
        }
    }

    /// Other limits from now on. Those who wait keep their deadlines.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Tells whether any replica serves. When the last one is gone, everyone who waits is held.
    pub fn set_serving(&mut self, serving: bool) {
        if self.serving && !serving {
            let waiting = std::mem::take(&mut self.entries);
            for (_, mut entry) in waiting {
                self.make_held(&mut entry);
                self.entries.insert((entry.deadline, entry.id), entry);
            }
        }
        self.serving = serving;
    }

    /// Lets a request in, or gives it back with the reason.
    pub fn push(&mut self, now: Micros, offer: Offer<T>, supply: &Supply) -> Result<u64, (Refusal, T)> {
        self.set_serving(!supply.free_at.is_empty());
        let deadline = self.deadline(offer.arrived, offer.timeout);
        let probe = match self.admit(now, &offer, deadline, supply) {
            Ok(probe) => probe,
            Err(refusal) => return Err((refusal, offer.item)),
        };
        let id = self.next_id;
        self.next_id += 1;
        let Offer { item, rows, length, bytes, shape, alone, arrived, timeout } = offer;
        let woken = !self.serving;
        self.insert(Entry { id, item, rows, length, bytes, shape, alone, arrived, timeout, deadline, woken, attempts: 0, probe });
        self.hold.arrived(now, self.outstanding());
        Ok(id)
    }

    /// Puts back a request that was sent and not answered. Its deadline stays, unless no replica is left.
    pub fn push_back(&mut self, mut entry: Entry<T>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        entry.probe = false;
        if !self.serving {
            self.make_held(&mut entry);
        }
        self.insert(entry);
    }

    /// A batch leaves if a replica is ready for it and waiting does not pay.
    pub fn next(&mut self, now: Micros, ready_replicas: u32) -> Next<T> {
        let expiry = self.next_expiry();
        if ready_replicas == 0 || self.entries.is_empty() {
            return Next::Wait { until: expiry };
        }
        let selection = batch::select(&self.entries, &self.limits);
        // With a second replica idle those still missing do not wait for this batch.
        if !selection.complete
            && ready_replicas == 1
            && let Some(until) = self.hold_until(now, &selection)
        {
            return Next::Wait { until: Some(expiry.map_or(until, |e| e.min(until))) };
        }
        self.hold.dispatched();
        let batch: Vec<Entry<T>> = selection.keys.iter().filter_map(|key| self.take(*key)).collect();
        self.in_flight += count(batch.len());
        Next::Batch(batch)
    }

    /// Takes out those who cannot be answered in time any more.
    pub fn expire(&mut self, now: Micros) -> Vec<Entry<T>> {
        let horizon = now.saturating_add(self.quickest());
        let late: Vec<Key> =
            self.entries.range(..=(horizon, u64::MAX)).filter(|(key, e)| !e.probe || key.0 <= now).map(|(key, _)| *key).collect();
        late.into_iter().filter_map(|key| self.take(key)).collect()
    }

    /// Takes out those that nobody waits for any more.
    pub fn remove_if(&mut self, gone: impl Fn(&T) -> bool) -> Vec<Entry<T>> {
        let keys: Vec<Key> = self.entries.iter().filter(|(_, e)| gone(&e.item)).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| self.take(key)).collect()
    }

    /// Empties the queue.
    pub fn drain(&mut self) -> Vec<Entry<T>> {
        self.remove_if(|_| true)
    }

    /// A batch of `rows` came back with answers for `requests` after `service`. Those put back with
    /// [`push_back`](Self::push_back) are not counted in `requests`.
    pub fn answered(&mut self, now: Micros, requests: usize, rows: u32, service: Option<Micros>) {
        self.in_flight = self.in_flight.saturating_sub(count(requests));
        if let Some(service) = service {
            self.fit.observe(rows, service);
        }
        self.hold.completed(now);
    }

    /// `requests` that were sent are given up: neither answered nor put back.
    pub fn forget(&mut self, requests: u32) {
        self.in_flight = self.in_flight.saturating_sub(requests);
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Requests that wait because no replica serves.
    pub fn held(&self) -> usize {
        if self.serving { 0 } else { self.entries.len() }
    }

    /// Requests that were sent and have not come back.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The measured service time.
    pub fn fit(&self) -> &ServiceTimeFit {
        &self.fit
    }

    fn outstanding(&self) -> u32 {
        count(self.entries.len()).saturating_add(self.in_flight)
    }

    fn hold_until(&mut self, now: Micros, selection: &batch::Selection) -> Option<Micros> {
        let deadline = selection.keys.first()?.0;
        let requests = count(selection.keys.len());
        let candidate = Candidate { requests, rows: selection.rows, outstanding: self.outstanding(), deadline };
        self.hold.until(now, candidate, &self.fit)
    }

    fn deadline(&self, arrived: Micros, timeout: Option<Micros>) -> Micros {
        let promise = if self.serving { self.limits.slo_us } else { self.limits.slo_us.max(self.limits.cold_start_us) };
        arrived.saturating_add(timeout.map_or(promise, |wish| wish.min(promise)))
    }

    fn make_held(&self, entry: &mut Entry<T>) {
        let patience = self.limits.slo_us.max(self.limits.cold_start_us);
        let allowed = entry.timeout.map_or(patience, |wish| wish.min(patience));
        entry.deadline = entry.deadline.max(entry.arrived.saturating_add(allowed));
        entry.woken = true;
    }

    /// The shortest time in which any request can be answered.
    fn quickest(&self) -> Micros {
        self.fit.predict(1).unwrap_or(0)
    }

    fn next_expiry(&self) -> Option<Micros> {
        self.entries.values().next().map(|e| if e.probe { e.deadline } else { e.deadline.saturating_sub(self.quickest()) })
    }

    fn insert(&mut self, entry: Entry<T>) {
        self.rows += u64::from(entry.rows);
        self.tokens += tokens(entry.rows, entry.length);
        self.bytes += entry.bytes;
        self.entries.insert((entry.deadline, entry.id), entry);
    }

    fn take(&mut self, key: Key) -> Option<Entry<T>> {
        let entry = self.entries.remove(&key)?;
        self.rows -= u64::from(entry.rows);
        self.tokens -= tokens(entry.rows, entry.length);
        self.bytes -= entry.bytes;
        Some(entry)
    }
}

/// A length as a count.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
