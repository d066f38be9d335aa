//! Who is let in: a forecast of when the answer would come.

use std::ops::Bound;

use super::{Micros, ModelQueue, Offer, Refusal, Supply};
use crate::serving::batch::tokens;
use crate::serving::{float, whole};

impl<T> ModelQueue<T> {
    /// Whether a request is let in, and then whether as a probe: to an idle replica, without a promise.
    pub(super) fn admit(&self, now: Micros, offer: &Offer<T>, deadline: Micros, supply: &Supply) -> Result<bool, Refusal> {
        let over_tokens = self.limits.max_tokens.is_some_and(|max| tokens(offer.rows, offer.length) > u64::from(max));
        if offer.rows > self.limits.max_rows || over_tokens {
            return Err(Refusal::TooLarge);
        }
        if self.entries.len() >= self.limits.max_requests || self.bytes.saturating_add(offer.bytes) > self.limits.max_bytes {
            let drained = self.answer_at(now, self.rows, 1, supply).unwrap_or(now + 1_000_000);
            return Err(Refusal::QueueFull { retry_after: drained.saturating_sub(now) });
        }
        if supply.ready > 0 && self.entries.is_empty() {
            return Ok(deadline < now.saturating_add(self.fit.predict(offer.rows).unwrap_or(0)));
        }
        match self.answer_at(now, self.rows_before(deadline), offer.rows, supply) {
            Some(at) if at > deadline => Err(Refusal::DeadlineCannotBeMet { needs: at.saturating_sub(now) }),
            _ => Ok(false),
        }
    }

    /// When a request of `rows` behind `ahead` rows would be answered. Unknown without replicas or samples.
    fn answer_at(&self, now: Micros, ahead: u64, rows: u32, supply: &Supply) -> Option<Micros> {
        let full_rows = self.usual_batch_rows();
        let full = self.fit.predict(full_rows)?;
        let replicas = supply.free_at.len() as u64;
        let batches = ahead / u64::from(full_rows);
        let rounds = batches.checked_div(replicas)?;
        let free_at = usize::try_from(batches % replicas).ok().and_then(|at| supply.free_at.get(at)).copied()?;
        // Behind a full batch there is overload: later arrivals will have filled this one when it leaves.
        let beside = if batches > 0 { full_rows } else { u32::try_from(ahead).unwrap_or(full_rows) };
        let last = self.fit.predict(beside.saturating_add(rows).min(full_rows.max(rows)))?;
        Some(free_at.max(now).saturating_add(rounds.saturating_mul(full)).saturating_add(last))
    }

    /// Rows that fill a batch: the limit, or fewer where the rows that wait are long.
    fn usual_batch_rows(&self) -> u32 {
        let max_rows = self.limits.max_rows.max(1);
        let (Some(max_tokens), true) = (self.limits.max_tokens, self.rows > 0) else { return max_rows };
        let mean_length = (float(self.tokens) / float(self.rows)).max(1.0);
        let fitting = whole((f64::from(max_tokens) / mean_length).floor());
        u32::try_from(fitting).unwrap_or(max_rows).clamp(1, max_rows)
    }

    /// Rows that would leave before a request with this deadline.
    fn rows_before(&self, deadline: Micros) -> u64 {
        match self.entries.last_key_value() {
            Some((last, _)) if last.0 > deadline => {
                let earlier = (Bound::Unbounded, Bound::Included((deadline, u64::MAX)));
                self.entries.range(earlier).map(|(_, e)| u64::from(e.rows)).sum()
            }
            _ => self.rows,
        }
    }
}
