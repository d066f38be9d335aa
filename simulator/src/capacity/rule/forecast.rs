//! The rate to be ready for: the highest of the last minutes, or yesterday's at this time of day corrected by today's
//! trend, whichever is more. Only the past is read.

use std::collections::VecDeque;

use super::super::{Ms, Observed};

const WINDOW_MS: Ms = 600_000;
const DAY: usize = 144;

/// What is remembered of one model's traffic: the last rounds, and two days in windows of ten minutes.
pub struct Forecast {
    recent: VecDeque<Observed>,
    rounds: usize,
    trend_limit: f64,
    /// Highest rate by window; the last is the running one.
    windows: VecDeque<f64>,
    /// Index since the start of the running window.
    running: u64,
}

impl Forecast {
    /// Remembers `rounds` rounds.
    pub fn new(rounds: usize, trend_limit: f64) -> Self {
        let windows = VecDeque::from([0.0]);
        Self { recent: VecDeque::new(), rounds: rounds.max(1), trend_limit, windows, running: 0 }
    }

    /// Traffic of the round that ended at `now`.
    pub fn observe(&mut self, now: Ms, observed: Observed) {
        self.recent.push_back(observed);
        while self.recent.len() > self.rounds {
            self.recent.pop_front();
        }
        while self.running < now.saturating_sub(1) / WINDOW_MS {
            self.running += 1;
            self.windows.push_back(0.0);
        }
        while self.windows.len() > 2 * DAY {
            self.windows.pop_front();
        }
        if let Some(last) = self.windows.back_mut() {
            *last = last.max(observed.rate_rps);
        }
    }

    /// Requests per second to be ready for now and in the next minutes.
    pub fn rate_rps(&self) -> f64 {
        let recent = self.recent.iter().map(|observed| observed.rate_rps).fold(0.0, f64::max);
        recent.max(self.yesterday().unwrap_or(0.0))
    }

    /// The highest burstiness of the last minutes.
    pub fn burst(&self) -> f64 {
        self.recent.iter().map(|observed| observed.burst).sum::<f64>() / self.recent.len().max(1) as f64
    }

    /// Yesterday's running and next window times today's last hour against yesterday's.
    fn yesterday(&self) -> Option<f64> {
        if self.trend_limit < 1.0 {
            return None;
        }
        let running = self.windows.len().checked_sub(1)?;
        let then = running.checked_sub(DAY)?;
        let high = [then, then + 1].iter().filter_map(|at| self.windows.get(*at)).copied().fold(0.0, f64::max);
        let hour = |to: usize| (to.saturating_sub(6)..to).filter_map(|at| self.windows.get(at)).sum::<f64>();
        let (today, before) = (hour(running), hour(then));
        let trend = if before > 0.0 { today / before } else { 1.0 };
        Some(high * trend.clamp(1.0 / self.trend_limit, self.trend_limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rate: impl Fn(u64) -> f64, minutes: u64) -> Forecast {
        let mut forecast = Forecast::new(20, 1.3);
        for minute in 1..=minutes {
            let observed = Observed { rate_rps: rate(minute), burst: 1.0, late_share: 0.0 };
            forecast.observe(minute * 60_000, observed);
        }
        forecast
    }

    #[test]
    fn a_fall_is_believed_after_the_hold_and_not_before() {
        let rate = |minute| if minute <= 60 { 100.0 } else { 40.0 };
        assert!((after(rate, 70).rate_rps() - 100.0).abs() < 1e-9);
        assert!((after(rate, 81).rate_rps() - 40.0).abs() < 1e-9);
    }

    #[test]
    fn yesterdays_peak_is_awaited_before_it_comes() {
        let rate = |minute: u64| if (600..660).contains(&(minute % 1440)) { 300.0 } else { 100.0 };
        let forecast = after(rate, 1440 + 591);
        assert!((forecast.rate_rps() - 300.0).abs() < 1e-9, "{}", forecast.rate_rps());
        assert!((after(rate, 1440 + 560).rate_rps() - 100.0).abs() < 1e-9);
    }
}
