//! Invariants on random event sequences.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Push { rows: u32, length: u32, shape: i64, alone: bool, timeout: Option<Micros> },
    Next { ready: u32 },
    Expire,
    Remove { nth: usize },
    Answered,
    Lost,
    Serving(bool),
    Pass(Micros),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1u32..6, 1u32..40, 0i64..2, prop::bool::weighted(0.1), prop::option::of(1_000u64..200_000))
            .prop_map(|(rows, length, shape, alone, timeout)| Event::Push { rows, length, shape, alone, timeout }),
        4 => (0u32..3).prop_map(|ready| Event::Next { ready }),
        2 => Just(Event::Expire),
        1 => (0usize..8).prop_map(|nth| Event::Remove { nth }),
        2 => Just(Event::Answered),
        1 => Just(Event::Lost),
        1 => prop::bool::weighted(0.8).prop_map(Event::Serving),
        4 => (0u64..30_000).prop_map(Event::Pass),
    ]
}

fn limits() -> Limits {
    Limits { max_rows: 8, max_tokens: Some(120), max_requests: 12, max_bytes: 4_000, slo_us: 100_000, cold_start_us: 400_000 }
}

/// The queue with everything that happened to its requests.
struct World {
    queue: ModelQueue<u64>,
    now: Micros,
    serving: bool,
    accepted: BTreeSet<u64>,
    left: BTreeSet<u64>,
    running: Vec<Vec<Entry<u64>>>,
}

impl World {
    fn new() -> Self {
        let queue = ModelQueue::new(limits());
        Self { queue, now: 1_000_000, serving: true, accepted: BTreeSet::new(), left: BTreeSet::new(), running: vec![] }
    }

    fn supply(&self, ready: u32) -> Supply {
        let free_at = if self.serving { vec![self.now, self.now + 5_000] } else { vec![] };
        Supply { free_at, ready: if self.serving { ready } else { 0 } }
    }

    fn leave(&mut self, id: u64) {
        assert!(self.accepted.contains(&id), "{id} was never let in");
        assert!(self.left.insert(id), "{id} left twice");
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Push { rows, length, shape, alone, timeout } => self.push(rows, length, shape, alone, timeout),
            Event::Next { ready } => self.next(ready),
            Event::Expire => {
                for entry in self.queue.expire(self.now) {
                    self.leave(entry.id);
                }
                assert!(self.queue.entries.keys().all(|key| key.0 > self.now), "someone waits past the deadline");
            }
            Event::Remove { nth } => {
                let item = self.queue.entries.values().nth(nth).map(|e| e.item);
                for entry in self.queue.remove_if(|other| Some(*other) == item) {
                    self.leave(entry.id);
                }
            }
            Event::Answered => {
                if let Some(batch) = self.running.pop() {
                    let rows = batch.iter().map(|e| e.rows).sum();
                    self.queue.answered(self.now, batch.len(), rows, Some(2_000 + 500 * u64::from(rows)));
                    for entry in batch {
                        self.leave(entry.id);
                    }
                }
            }
            Event::Lost => {
                for mut entry in self.running.pop().unwrap_or_default() {
                    entry.attempts += 1;
                    self.queue.push_back(entry);
                }
            }
            Event::Serving(serving) => {
                self.serving = serving;
                self.queue.set_serving(serving);
                let patience = limits().cold_start_us;
                let held = |e: &Entry<u64>| e.woken && e.deadline >= e.arrived + e.timeout.map_or(patience, |t| t.min(patience));
                assert!(serving || self.queue.entries.values().all(held));
            }
            Event::Pass(us) => self.now += us,
        }
    }

    fn push(&mut self, rows: u32, length: u32, shape: i64, alone: bool, timeout: Option<Micros>) {
        let bytes = tokens(rows, length) * 8;
        let offer = Offer { item: self.now, rows, length, bytes, shape: vec![shape], alone, arrived: self.now, timeout };
        let supply = self.supply(1);
        match self.queue.push(self.now, offer, &supply) {
            Ok(id) => assert!(self.accepted.insert(id), "{id} was given twice"),
            Err((Refusal::QueueFull { .. }, _)) => {
                assert!(self.queue.len() >= limits().max_requests || self.queue.bytes + bytes > limits().max_bytes);
            }
            Err((Refusal::TooLarge, _)) => assert!(rows > 8 || tokens(rows, length) > 120),
            Err((Refusal::DeadlineCannotBeMet { .. }, _)) => assert!(self.serving && self.queue.fit().samples() > 0),
        }
        // Those put back after a lost batch are in addition to the limits: they were let in before.
        let back: u64 = self.queue.entries.values().filter(|e| e.attempts > 0).map(|e| e.bytes).sum();
        assert!(self.queue.bytes <= limits().max_bytes + back);
    }

    fn next(&mut self, ready: u32) {
        let ready = if self.serving { ready } else { 0 };
        let head = self.queue.entries.keys().next().copied();
        let Next::Batch(batch) = self.queue.next(self.now, ready) else { return };
        assert!(ready > 0 && !batch.is_empty());
        assert_eq!(Some((batch[0].deadline, batch[0].id)), head, "the earliest deadline always goes");
        let rows: u32 = batch.iter().map(|e| e.rows).sum();
        let longest = batch.iter().map(|e| e.length).max().unwrap();
        assert!(rows <= 8 && tokens(rows, longest) <= 120, "limits: {batch:?}");
        assert!(batch.iter().all(|e| e.shape == batch[0].shape), "shapes agree");
        assert!(batch.len() == 1 || batch.iter().all(|e| !e.alone));
        self.running.push(batch);
    }
}

proptest! {
    #[test]
    fn every_request_let_in_leaves_exactly_once_and_no_limit_is_exceeded(events in prop::collection::vec(event(), 1..300)) {
        let mut world = World::new();
        for event in events {
            world.apply(&event);
        }
        while !world.running.is_empty() {
            world.apply(&Event::Answered);
        }
        for entry in world.queue.drain() {
            world.leave(entry.id);
        }
        prop_assert_eq!(&world.accepted, &world.left);
        prop_assert_eq!((world.queue.rows, world.queue.tokens, world.queue.bytes, world.queue.in_flight), (0, 0, 0, 0));
    }

    #[test]
    fn among_rows_of_one_length_no_later_deadline_overtakes(
        requests in prop::collection::vec((1u32..6, 50_000u64..100_000), 1..12),
    ) {
        let mut world = World::new();
        for (rows, timeout) in requests {
            world.push(rows, 1, 0, false, Some(timeout));
        }
        while !world.queue.is_empty() {
            let Next::Batch(batch) = world.queue.next(world.now, 1) else { panic!("nothing holds it: {:?}", world.queue) };
            let latest = batch.iter().map(|e| e.deadline).max().unwrap();
            prop_assert!(world.queue.entries.keys().all(|key| key.0 >= latest));
        }
    }
}

fn offer(length: u32, arrived: Micros) -> Offer<u64> {
    Offer { item: 0, rows: 1, length, bytes: 8, shape: vec![], alone: false, arrived, timeout: None }
}

fn busy(now: Micros) -> Supply {
    Supply { free_at: vec![now + 1_000], ready: 0 }
}

#[test]
fn rows_of_similar_length_leave_together() {
    let mut queue = ModelQueue::new(Limits { max_rows: 4, max_tokens: None, ..limits() });
    for (at, length) in [(0, 10), (1, 120), (2, 12), (3, 118), (4, 11), (5, 9)] {
        queue.push(at, offer(length, at), &busy(at)).unwrap();
    }
    let lengths = |next: Next<u64>| match next {
        Next::Batch(batch) => batch.iter().map(|e| e.length).collect::<Vec<_>>(),
        Next::Wait { .. } => vec![],
    };
    assert_eq!(lengths(queue.next(10, 1)), [10, 12, 11, 9]);
    assert_eq!(lengths(queue.next(10, 1)), [120, 118]);
}

#[test]
fn a_request_that_would_be_late_is_refused_at_once_and_one_for_an_idle_replica_is_not() {
    let mut queue = ModelQueue::new(limits());
    for _ in 0..4 {
        queue.answered(0, 0, 8, Some(90_000));
        queue.answered(0, 0, 1, Some(60_000));
    }
    queue.push(0, offer(1, 0), &busy(0)).unwrap();
    let slow = Supply { free_at: vec![80_000], ready: 0 };
    assert!(matches!(queue.push(0, offer(1, 0), &slow), Err((Refusal::DeadlineCannotBeMet { needs: 140_000.. }, _))));

    let mut slower = ModelQueue::new(limits());
    slower.answered(0, 0, 1, Some(300_000));
    let idle = Supply { free_at: vec![0], ready: 1 };
    slower.push(0, offer(1, 0), &idle).unwrap();
    assert!(slower.expire(0).is_empty(), "a probe is not expired by the same pessimistic fit");
    assert!(matches!(slower.next(0, 1), Next::Batch(_)));
}

#[test]
fn without_replicas_requests_are_held_for_the_cold_start_budget() {
    let mut queue = ModelQueue::new(limits());
    queue.push(0, offer(1, 0), &Supply::default()).unwrap();
    assert_eq!(queue.held(), 1);
    assert!(queue.expire(399_999).is_empty());
    assert_eq!(queue.expire(400_000).len(), 1);
}

#[test]
fn losing_the_last_replica_holds_those_who_wait() {
    let mut queue = ModelQueue::new(limits());
    queue.push(0, offer(1, 0), &busy(0)).unwrap();
    queue.set_serving(false);
    assert!(queue.expire(200_000).is_empty());
    queue.set_serving(true);
    match queue.next(200_000, 1) {
        Next::Batch(batch) => assert!(batch[0].woken),
        Next::Wait { .. } => panic!("a replica is ready"),
    }
}
