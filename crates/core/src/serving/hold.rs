//! Whether a ready replica should wait a moment for one more request.
//!
//! A batch normally leaves as soon as a replica is ready. Clients in a closed loop break that: all of
//! them come back within a millisecond of their answers, the first of them leaves alone, the others
//! wait for it, and batches of 1 and 31 alternate for ever. Waiting pays when the requests still
//! missing are few and close, because their joining saves one batch's fixed cost:
//!
//! ```text
//!   hold while   min(waiting, missing) * expected wait for the next  <  base of t(n) = base + per_row * n
//! ```
//!
//! *Missing* is how many fewer requests are in the system now than lately at most: in a closed loop the
//! clients that are about to return, at a low rate none. The expected wait is the lower quartile
//! of the last gaps, or just after a batch was answered that of the times until the first client came
//! back: the pace inside a burst, whatever lies between bursts, even if a burst is of two.
//!
//! **Guarantees**: the holds before one batch last at most [`LIMIT`] of that batch's own time, end
//! [`PATIENCE`] expected waits (a quarter of `base` at least) after the last sign of life, and never eat
//! into the earliest deadline.

use super::{Micros, ServiceTimeFit};

/// All holds before one batch, as a divisor of its service time: a quarter at most is lost when nobody comes.
const LIMIT: u64 = 4;
/// How many expected waits without an arrival end a hold: of exponential gaps a third is longer, inside a burst next to none.
/// The floor is for schedulers and timers, which make pauses of a millisecond in the fastest burst.
const PATIENCE: u64 = 4;
/// Gaps, and batches, that are remembered.
const MEMORY: usize = 8;

/// The last few values of something.
#[derive(Clone, Debug, Default, PartialEq)]
struct Recent {
    values: [u64; MEMORY],
    seen: usize,
}

impl Recent {
    fn push(&mut self, value: u64) {
        if let Some(slot) = self.values.get_mut(self.seen % MEMORY) {
            *slot = value;
        }
        self.seen += 1;
    }

    fn held(&self) -> &[u64] {
        self.values.get(..self.seen.min(MEMORY)).unwrap_or_default()
    }

    /// The lower quartile; nothing while empty.
    fn quartile(&self) -> Option<u64> {
        let mut sorted = self.held().to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 4).copied()
    }

    fn max(&self) -> u64 {
        self.held().iter().copied().max().unwrap_or(0)
    }
}

/// What could leave now.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Requests and rows of the batch.
    pub requests: u32,
    pub rows: u32,
    /// Requests in the system: waiting and being answered.
    pub outstanding: u32,
    /// The earliest deadline in the batch.
    pub deadline: Micros,
}

/// What is remembered of arrivals and completions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hold {
    gaps: Recent,
    returns: Recent,
    peaks: Recent,
    peak: u64,
    last_arrival: Option<Micros>,
    last_completion: Option<Micros>,
    since: Option<Micros>,
}

impl Hold {
    /// A request arrived; `outstanding` counts it.
    pub fn arrived(&mut self, now: Micros, outstanding: u32) {
        if let Some(last) = self.last_arrival {
            self.gaps.push(now.saturating_sub(last));
        }
        if let Some(completion) = self.last_completion
            && self.last_arrival.is_none_or(|arrival| arrival < completion)
        {
            self.returns.push(now.saturating_sub(completion));
        }
        self.last_arrival = Some(now);
        self.peak = self.peak.max(u64::from(outstanding));
    }

    /// A batch was answered.
    pub fn completed(&mut self, now: Micros) {
        self.last_completion = Some(now);
        self.peaks.push(std::mem::take(&mut self.peak));
    }

    /// A batch left: the next hold starts anew.
    pub fn dispatched(&mut self) {
        self.since = None;
    }

    /// Until when `candidate` should wait; nothing: it should leave now.
    pub fn until(&mut self, now: Micros, candidate: Candidate, fit: &ServiceTimeFit) -> Option<Micros> {
        let service = fit.predict(candidate.rows)?;
        let missing = self.peaks.max().max(self.peak).saturating_sub(u64::from(candidate.outstanding));
        let (wait, sign_of_life) = self.expectation()?;
        let needed = missing.min(u64::from(candidate.requests));
        if needed == 0 || needed.saturating_mul(wait) >= fit.base_us() {
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let slack_ends = candidate.deadline.saturating_sub(service + service / LIMIT);
        let limit = (since + service / LIMIT).min(slack_ends);
        let patience = wait.saturating_mul(PATIENCE).max(fit.base_us() / LIMIT);
        let until = sign_of_life.saturating_add(patience).min(limit);
        let expected = now.max(sign_of_life.saturating_add(wait));
        (until > now && expected <= limit).then_some(until)
    }

    /// The usual wait for the next arrival, and the moment that it counts from.
    fn expectation(&self) -> Option<(Micros, Micros)> {
        let arrival = self.last_arrival?;
        match self.last_completion {
            Some(completion) if completion > arrival => Some((self.returns.quartile()?, completion)),
            _ => Some((self.gaps.quartile()?, arrival)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5.5 ms and 0.5 ms a row.
    fn fit() -> ServiceTimeFit {
        let mut fit = ServiceTimeFit::default();
        for rows in [1, 32, 1, 32, 16, 8, 4] {
            fit.observe(rows, 5_500 + 500 * u64::from(rows));
        }
        fit
    }

    fn candidate(requests: u32, outstanding: u32) -> Candidate {
        Candidate { requests, rows: requests, outstanding, deadline: 1_000_000_000 }
    }

    /// Eight clients come back 0.1 ms apart after each batch.
    fn closed_loop() -> (Hold, Micros) {
        let mut hold = Hold::default();
        let mut now = 0;
        for _ in 0..8 {
            for client in 1..=8 {
                now += 100;
                hold.arrived(now, client);
            }
            now += 9_500;
            hold.completed(now);
        }
        (hold, now)
    }

    #[test]
    fn the_first_client_to_return_waits_for_the_others() {
        let (mut hold, now) = closed_loop();
        hold.arrived(now + 100, 1);
        let until = hold.until(now + 100, candidate(1, 1), &fit()).unwrap();
        assert!((now + 500..=now + 1_600).contains(&until), "{} us", until - now);
    }

    #[test]
    fn a_straggler_s_batch_waits_for_those_just_answered() {
        let (mut hold, now) = closed_loop();
        assert!(hold.until(now, candidate(3, 3), &fit()).is_some());
    }

    #[test]
    fn once_all_are_back_nobody_waits() {
        let (mut hold, now) = closed_loop();
        for client in 1..=8u32 {
            hold.arrived(now + 100 * u64::from(client), client);
        }
        assert_eq!(hold.until(now + 800, candidate(8, 8), &fit()), None);
    }

    #[test]
    fn a_hold_ends_when_nobody_comes() {
        let (mut hold, now) = closed_loop();
        hold.arrived(now + 100, 1);
        let until = hold.until(now + 100, candidate(1, 1), &fit()).unwrap();
        assert_eq!(hold.until(until, candidate(1, 1), &fit()), None);
    }

    #[test]
    fn at_a_low_rate_a_request_leaves_at_once() {
        let mut hold = Hold::default();
        for n in 0..50u64 {
            let now = n * 50_000;
            hold.arrived(now, 1 + u32::from(n % 5 == 0));
            assert_eq!(hold.until(now, candidate(1, 1), &fit()), None, "request {n}");
            hold.dispatched();
            hold.completed(now + 6_000);
        }
    }

    #[test]
    fn a_hold_never_eats_into_the_deadline() {
        let (mut hold, now) = closed_loop();
        hold.arrived(now + 100, 1);
        let tight = Candidate { deadline: now + 6_100, ..candidate(1, 1) };
        assert_eq!(hold.until(now + 100, tight, &fit()), None);
    }

    #[test]
    fn holds_before_one_batch_last_at_most_a_quarter_of_its_time() {
        let (mut hold, now) = closed_loop();
        // Arrivals that always come just before patience ends, but never all of those missing.
        let (start, mut now) = (now + 100, now + 100);
        hold.arrived(now, 1);
        while let Some(until) = hold.until(now, candidate(1, 1), &fit()) {
            assert!(until <= start + 6_000 / LIMIT);
            now = until;
            hold.arrived(now - 1, 1);
        }
        assert!(now > start);
    }
}
