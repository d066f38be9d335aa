//! The queue with replicas and clients in virtual time: what throughput its decisions give.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::serving::{float, whole};

/// A weight-bound model: a batch of 32 costs about three single ones.
fn service(rows: u32) -> Micros {
    5_500 + 450 * u64::from(rows)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrives,
    Completes(usize),
    Alarm,
}

struct Bench {
    queue: ModelQueue<()>,
    /// By (time, order).
    future: BTreeMap<(Micros, u64), Happening>,
    order: u64,
    running: Vec<Option<(Micros, Vec<Entry<()>>)>>,
    sizes: Vec<usize>,
    latencies: Vec<Micros>,
    refused: usize,
}

impl Bench {
    fn new(replicas: usize, max_rows: u32) -> Self {
        let limits =
            Limits { max_rows, max_tokens: None, max_requests: 1_000, max_bytes: u64::MAX, slo_us: 250_000, cold_start_us: 0 };
        Self {
            queue: ModelQueue::new(limits),
            future: BTreeMap::new(),
            order: 0,
            running: vec![None; replicas],
            sizes: vec![],
            latencies: vec![],
            refused: 0,
        }
    }

    fn at(&mut self, time: Micros, what: Happening) {
        self.order += 1;
        self.future.insert((time, self.order), what);
    }

    fn supply(&self, now: Micros) -> Supply {
        let mut free_at: Vec<Micros> = self.running.iter().map(|r| r.as_ref().map_or(now, |(at, _)| *at)).collect();
        free_at.sort_unstable();
        Supply { ready: count(self.running.iter().filter(|r| r.is_none()).count()), free_at }
    }

    /// Runs until `end`. `returns` tells when the nth client of an answered batch sends its next request.
    fn run(&mut self, end: Micros, returns: impl Fn(u64) -> Option<Micros>) {
        while let Some(((now, _), what)) = self.future.pop_first() {
            if now > end {
                return;
            }
            match what {
                Happening::Arrives => self.arrive(now),
                Happening::Completes(replica) => self.complete(now, replica, &returns),
                Happening::Alarm => {}
            }
            self.refused += self.queue.expire(now).len();
            self.dispatch(now);
        }
    }

    fn arrive(&mut self, now: Micros) {
        let offer = Offer { item: (), rows: 1, length: 1, bytes: 8, shape: vec![], alone: false, arrived: now, timeout: None };
        let supply = self.supply(now);
        self.refused += usize::from(self.queue.push(now, offer, &supply).is_err());
    }

    fn complete(&mut self, now: Micros, replica: usize, returns: &impl Fn(u64) -> Option<Micros>) {
        let Some((_, batch)) = self.running[replica].take() else { return };
        let rows = count(batch.len());
        self.queue.answered(now, batch.len(), rows, Some(service(rows)));
        for (nth, entry) in batch.iter().enumerate() {
            self.latencies.push(now - entry.arrived);
            if let Some(pause) = returns(nth as u64) {
                self.at(now + pause, Happening::Arrives);
            }
        }
    }

    fn dispatch(&mut self, now: Micros) {
        while let Some(free) = self.running.iter().position(Option::is_none) {
            let ready = self.supply(now).ready;
            match self.queue.next(now, ready) {
                Next::Batch(batch) => {
                    self.sizes.push(batch.len());
                    let done = now + service(count(batch.len()));
                    self.running[free] = Some((done, batch));
                    self.at(done, Happening::Completes(free));
                }
                // Real timers fire up to a millisecond late.
                Next::Wait { until: Some(at) } => return self.at(at.max(now) + 1_000, Happening::Alarm),
                Next::Wait { until: None } => return,
            }
        }
    }

    /// Answers per second after the first second.
    fn per_second(&self, end: Micros) -> u64 {
        self.latencies.len() as u64 * 1_000_000 / end
    }

    fn percentile(&self, percent: usize) -> Micros {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[sorted.len() * percent / 100]
    }
}

/// A deterministic sequence without visible pattern.
fn noise(n: u64) -> u64 {
    n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33
}

fn closed_loop(clients: u64, replicas: usize) -> Bench {
    let mut bench = Bench::new(replicas, 32);
    for client in 0..clients {
        bench.at(client * 90, Happening::Arrives);
    }
    // Half a millisecond there and back, then one client after the other, with jitter.
    bench.run(10_000_000, |nth| Some(500 + nth * 80 + noise(nth) % 60));
    bench
}

#[test]
fn a_closed_loop_of_32_clients_keeps_its_batches_full() {
    let bench = closed_loop(32, 1);
    let bare = 32 * 1_000_000 / service(32);
    let got = bench.per_second(10_000_000);
    assert!(got * 100 >= bare * 85, "{got}/s of {bare}/s, batches {:?}", &bench.sizes[..40]);
    let mean = bench.sizes.iter().sum::<usize>() / bench.sizes.len();
    assert!(mean >= 30, "mean batch {mean}");
}

#[test]
fn pauses_of_a_busy_scheduler_inside_a_burst_do_not_break_it() {
    let mut bench = Bench::new(1, 32);
    for client in 0..32 {
        bench.at(client * 90, Happening::Arrives);
    }
    // Eight at once, then nobody for 0.7 ms.
    bench.run(10_000_000, |nth| Some(400 + nth / 8 * 700));
    let (got, bare) = (bench.per_second(10_000_000), 32 * 1_000_000 / service(32));
    assert!(got * 100 >= bare * 85, "{got}/s of {bare}/s, batches {:?}", &bench.sizes[..40]);
}

#[test]
fn closed_loops_of_few_and_of_many_clients_lose_little_either() {
    for (clients, replicas) in [(1, 1), (2, 1), (8, 1), (24, 1), (48, 1), (64, 1), (64, 2), (64, 4), (128, 4)] {
        let bench = closed_loop(clients, replicas);
        let rows = (clients / replicas as u64).clamp(1, 32);
        let bare = replicas as u64 * rows * 1_000_000 / service(u32::try_from(rows).unwrap());
        let got = bench.per_second(10_000_000);
        assert!(got * 100 >= bare * 75, "{clients} clients, {replicas} replicas: {got}/s of {bare}/s, {:?}", &bench.sizes[..60]);
    }
}

#[test]
fn a_single_client_never_waits_for_others() {
    let bench = closed_loop(1, 1);
    assert_eq!(bench.percentile(99), service(1));
}

/// Arrivals at a mean distance of `gap`, exponentially distributed.
fn open_loop(gap: f64, replicas: usize) -> Bench {
    let mut bench = Bench::new(replicas, 32);
    let mut time = 0;
    for n in 0.. {
        let uniform = (float(noise(n * 7 + 3) % 1_000_000) + 1.0) / 1_000_001.0;
        time += whole(-gap * uniform.ln());
        if time > 10_000_000 {
            break;
        }
        bench.at(time, Happening::Arrives);
    }
    bench.run(11_000_000, |_| None);
    bench
}

#[test]
fn an_open_loop_below_capacity_is_answered_quickly_and_nothing_is_refused() {
    for (gap, p99) in [(50_000.0, 15_000), (5_000.0, 25_000), (1_500.0, 35_000), (1_000.0, 50_000)] {
        let bench = open_loop(gap, 1);
        assert_eq!(bench.refused, 0, "a request every {gap} us");
        let got = bench.percentile(99);
        assert!(got <= p99, "a request every {gap} us: p99 {got} us");
    }
}

#[test]
fn an_overload_is_refused_early_and_the_rest_is_in_time() {
    // About twice what a replica can answer.
    let bench = open_loop(300.0, 1);
    let late = bench.latencies.iter().filter(|l| **l > 250_000).count();
    let answered = bench.latencies.len();
    assert!(late * 100 <= answered, "{late} of {answered} late");
    assert!(bench.per_second(10_000_000) * 100 >= 90 * 32 * 1_000_000 / service(32), "{answered} answered");
    assert!(bench.refused > 1_000);
}

#[test]
fn the_queue_of_waiting_requests_is_worked_off_in_order() {
    let mut seen = VecDeque::new();
    let mut queue = ModelQueue::new(Bench::new(1, 4).queue.limits);
    for n in 0..10u64 {
        let offer = Offer { item: n, rows: 1, length: 1, bytes: 0, shape: vec![], alone: false, arrived: n, timeout: None };
        queue.push(n, offer, &Supply { free_at: vec![n], ready: 0 }).unwrap();
    }
    while let Next::Batch(batch) = queue.next(20, 1) {
        seen.extend(batch.into_iter().map(|e| e.item));
    }
    assert!(seen.into_iter().eq(0..10));
}
