//! Which replica takes the next batch.
//!
//! The least-loaded endpoint that is neither draining nor in back-off; ties go to the one that has
//! waited longest, then to the smaller name, so that the same events give the same choice. An endpoint
//! that failed is avoided for a time that doubles with each failure in a row.
//!
//! A replica gets one batch at a time ([`DEPTH`]). A second one waiting inside it would hide the gap
//! between two batches (about 0.3 ms of a 20 ms batch), but its requests could neither be joined by
//! later ones nor leave with another replica that becomes free first, and their deadline would be spent
//! where nobody sees it.

use std::collections::BTreeMap;

use super::{Micros, Supply};

/// Batches that a replica may have at once.
pub const DEPTH: u32 = 1;
/// First back-off after a failure. A restarted replica on the same address is found again at this pace.
const BACKOFF_US: Micros = 100_000;
/// Doublings at most: 1.6 s, so that a replica that came back is not forgotten.
const BACKOFF_DOUBLINGS: u32 = 4;

/// One replica as seen from here.
#[derive(Clone, Debug, Default, PartialEq)]
struct Endpoint {
    draining: bool,
    /// No longer configured; kept until its last batch came back.
    gone: bool,
    outstanding: u32,
    free_at: Micros,
    last_start: Micros,
    failures: u32,
    backoff_until: Micros,
}

impl Endpoint {
    fn serves(&self, now: Micros) -> bool {
        !self.draining && !self.gone && self.backoff_until <= now
    }
}

/// The replicas of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoints {
    by_id: BTreeMap<String, Endpoint>,
}

impl Endpoints {
    /// The full set from now on, as (replica, draining). What is known of those that stay is kept.
    pub fn replace<'a>(&mut self, endpoints: impl IntoIterator<Item = (&'a str, bool)>) {
        for endpoint in self.by_id.values_mut() {
            endpoint.gone = true;
        }
        for (id, draining) in endpoints {
            let endpoint = self.by_id.entry(id.to_owned()).or_default();
            endpoint.gone = false;
            endpoint.draining = draining;
        }
        self.by_id.retain(|_, e| !e.gone || e.outstanding > 0);
    }

    /// What can be promised now.
    pub fn supply(&self, now: Micros) -> Supply {
        let serving = self.by_id.values().filter(|e| e.serves(now));
        let mut free_at: Vec<Micros> = serving.map(|e| if e.outstanding < DEPTH { now } else { e.free_at.max(now) }).collect();
        free_at.sort_unstable();
        Supply { free_at, ready: self.ready(now) }
    }

    /// Replicas that would take a batch now.
    pub fn ready(&self, now: Micros) -> u32 {
        let count = self.by_id.values().filter(|e| e.serves(now) && e.outstanding < DEPTH).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The replica for the next batch.
    pub fn pick(&self, now: Micros) -> Option<&str> {
        let ready = self.by_id.iter().filter(|(_, e)| e.serves(now) && e.outstanding < DEPTH);
        ready.min_by_key(|(id, e)| (e.outstanding, e.last_start, *id)).map(|(id, _)| id.as_str())
    }

    /// A batch went to `id` and should be back at `free_at`.
    pub fn started(&mut self, id: &str, now: Micros, free_at: Micros) {
        if let Some(endpoint) = self.by_id.get_mut(id) {
            endpoint.outstanding += 1;
            endpoint.last_start = now;
            endpoint.free_at = free_at;
        }
    }

    /// A batch came back, whatever the model said of it.
    pub fn finished(&mut self, id: &str) {
        self.returned(id, |endpoint| endpoint.failures = 0);
    }

    /// A batch was lost with the connection, or the replica refused it.
    pub fn failed(&mut self, id: &str, now: Micros) {
        self.returned(id, |endpoint| {
            let pause = BACKOFF_US << endpoint.failures.min(BACKOFF_DOUBLINGS);
            endpoint.failures = endpoint.failures.saturating_add(1);
            endpoint.backoff_until = now.saturating_add(pause);
        });
    }

    /// When the next back-off ends, if one is running.
    pub fn next_change(&self, now: Micros) -> Option<Micros> {
        self.by_id.values().filter(|e| !e.gone && !e.draining && e.backoff_until > now).map(|e| e.backoff_until).min()
    }

    fn returned(&mut self, id: &str, then: impl FnOnce(&mut Endpoint)) {
        let Some(endpoint) = self.by_id.get_mut(id) else { return };
        endpoint.outstanding = endpoint.outstanding.saturating_sub(1);
        then(endpoint);
        if endpoint.gone && endpoint.outstanding == 0 {
            self.by_id.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Endpoints {
        let mut endpoints = Endpoints::default();
        endpoints.replace([("a", false), ("b", false), ("c", true)]);
        endpoints
    }

    #[test]
    fn a_busy_or_draining_replica_gets_nothing() {
        let mut endpoints = three();
        assert_eq!(endpoints.pick(1), Some("a"));
        endpoints.started("a", 1, 500);
        assert_eq!(endpoints.pick(1), Some("b"));
        endpoints.started("b", 2, 400);
        assert_eq!(endpoints.pick(3), None);
        assert_eq!(endpoints.supply(3), Supply { free_at: vec![400, 500], ready: 0 });
    }

    #[test]
    fn of_two_idle_replicas_the_one_that_waited_longer_is_next() {
        let mut endpoints = three();
        endpoints.started("a", 10, 20);
        endpoints.finished("a");
        assert_eq!(endpoints.pick(30), Some("b"));
        endpoints.started("b", 30, 40);
        endpoints.finished("b");
        assert_eq!(endpoints.pick(50), Some("a"));
    }

    #[test]
    fn a_failed_replica_is_avoided_for_a_time_that_doubles() {
        let mut endpoints = Endpoints::default();
        endpoints.replace([("a", false)]);
        for pause in [100_000, 200_000, 400_000] {
            endpoints.started("a", 0, 1);
            endpoints.failed("a", 1_000);
            assert_eq!((endpoints.pick(1_000 + pause - 1), endpoints.pick(1_000 + pause)), (None, Some("a")));
            assert_eq!(endpoints.next_change(1_000), Some(1_000 + pause));
        }
        endpoints.started("a", 2_000_000, 2_000_001);
        endpoints.finished("a");
        endpoints.started("a", 2_000_000, 2_000_001);
        endpoints.failed("a", 2_000_000);
        assert_eq!(endpoints.next_change(2_000_000), Some(2_100_000));
    }

    #[test]
    fn a_replica_that_left_and_came_back_still_owes_its_batch() {
        let mut endpoints = three();
        endpoints.started("a", 1, 500);
        endpoints.replace([("b", false)]);
        endpoints.replace([("a", false)]);
        assert_eq!(endpoints.pick(2), None);
        endpoints.finished("a");
        assert_eq!(endpoints.pick(3), Some("a"));
    }

    #[test]
    fn a_replica_that_left_is_forgotten_with_its_last_batch() {
        let mut endpoints = three();
        endpoints.started("a", 1, 500);
        endpoints.replace([]);
        assert_eq!(endpoints.by_id.len(), 1);
        endpoints.finished("a");
        assert!(endpoints.by_id.is_empty());
    }
}
