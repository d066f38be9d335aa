//! Head-room by error budget: a model that spends little of its share of late requests gets less, one that overspends
//! gets more. Routers count late and refused requests, so a live system knows both.

use super::super::{Ms, Observed};

/// After so long, half of what was late is forgiven.
const HALF_LIFE_MS: f64 = 2.0 * 86_400_000.0;
/// Until so long, the factor is near 1: too little is known.
const LEARN_MS: f64 = 86_400_000.0;

/// Requests and late ones of one model, decayed.
pub struct Budget {
    /// Share of requests that may be late.
    allowed: f64,
    requests: f64,
    late: f64,
    first: Option<Ms>,
    last: Ms,
}

impl Budget {
    pub fn new(allowed: f64) -> Self {
        Self { allowed, requests: 0.0, late: 0.0, first: None, last: 0 }
    }

    /// Traffic of the round that ended at `now`.
    pub fn observe(&mut self, now: Ms, observed: Observed) {
        let span_s = now.saturating_sub(self.last) as f64 / 1000.0;
        let keep = (-(span_s * 1000.0) / HALF_LIFE_MS * std::f64::consts::LN_2).exp();
        self.first.get_or_insert(now);
        self.last = now;
        let requests = observed.rate_rps * span_s;
        self.requests = self.requests * keep + requests;
        self.late = self.late * keep + requests * observed.late_share;
    }

    /// What to multiply head-room by: a quarter with nothing spent, 1 at three quarters of the budget, at most 3.
    pub fn factor(&self) -> f64 {
        let Some(first) = self.first.filter(|_| self.allowed > 0.0 && self.requests > 0.0) else { return 1.0 };
        let spent = self.late / (self.requests * self.allowed);
        let wished = (0.25 + spent).min(3.0);
        let known = (self.last.saturating_sub(first) as f64 / LEARN_MS).min(1.0);
        1.0 + (wished - 1.0) * known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_days(late_share: f64) -> f64 {
        let mut budget = Budget::new(0.001);
        for minute in 0..3 * 1440 {
            budget.observe(minute * 60_000, Observed { rate_rps: 10.0, burst: 1.0, late_share });
        }
        budget.factor()
    }

    #[test]
    fn an_unspent_budget_quarters_the_head_room_and_an_overspent_one_trebles_it() {
        assert!((after_days(0.0) - 0.25).abs() < 1e-6);
        assert!((after_days(0.000_75) - 1.0).abs() < 1e-3);
        assert!((after_days(0.01) - 3.0).abs() < 1e-6);
    }

    #[test]
    fn nothing_is_known_at_first() {
        let mut budget = Budget::new(0.001);
        budget.observe(0, Observed { rate_rps: 10.0, burst: 1.0, late_share: 1.0 });
        assert!((budget.factor() - 1.0).abs() < 1e-9);
    }
}
