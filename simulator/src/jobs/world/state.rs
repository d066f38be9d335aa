//! How far one job is: work done, work safe in a checkpoint, and since when it waits or runs.
//!
//! Work is counted lazily: [`State::advance`] brings it up to a moment, with the rate that held since the last one.

use crate::jobs::{Held, Ms, Work};

/// Work this close to the total counts as all of it (milliseconds are whole, work is not).
const CLOSE: f64 = 1e-6;

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    waiting_since: Option<Ms>,
    pub held: Option<Held>,
    pub started: Ms,
    /// Work is counted up to here; in the future while it restarts.
    pub counted_to: Ms,
    pub done: f64,
    pub rate: f64,
    pub checkpoint_at: Option<Ms>,
    checkpoint_done: f64,
    /// Changes at each start, stop and aim: events of another epoch are void.
    pub epoch: u32,
}

impl State {
    pub fn wait(&mut self, now: Ms) {
        self.waiting_since = Some(now);
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// How long it waited.
    pub fn stop_waiting(&mut self, now: Ms) -> Ms {
        self.waiting_since.take().map_or(0, |since| now - since)
    }

    /// Begins on `held`, works after `restart`. What was done so far is what its checkpoint holds.
    pub fn start(&mut self, now: Ms, restart: Ms, held: Held) {
        self.held = Some(held);
        self.started = now;
        self.counted_to = now + restart;
        self.checkpoint_at = Some(now + restart);
        self.checkpoint_done = self.done;
    }

    /// Counts work and checkpoints up to `now`. `every` as in [`crate::jobs::Costs`].
    pub fn advance(&mut self, now: Ms, every: Ms) {
        if self.held.is_none() || now <= self.counted_to {
            return;
        }
        if let Some(last) = self.checkpoint_at.filter(|_| every > 0) {
            let at = last + (now - last) / every * every;
            if at > last {
                self.checkpoint_done = self.done + self.rate * seconds(at.saturating_sub(self.counted_to));
                self.checkpoint_at = Some(at);
            }
        }
        self.done += self.rate * seconds(now - self.counted_to);
        self.counted_to = now;
    }

    /// Forgets what is younger than the last checkpoint; how long that took, in milliseconds.
    pub fn fall_back(&mut self, now: Ms, every: Ms) -> Ms {
        let Some(at) = self.checkpoint_at.filter(|_| every > 0) else { return 0 };
        self.done = self.checkpoint_done;
        now.saturating_sub(at)
    }

    /// Of the restart paid for, what a stop at `now` saves.
    pub fn restart_left(&self, now: Ms) -> Ms {
        self.counted_to.saturating_sub(now)
    }

    pub fn is_done(&self, work: &dyn Work) -> bool {
        self.done + CLOSE >= work.total()
    }

    pub fn done_ppm(&self, work: &dyn Work) -> u32 {
        let part = (self.done / work.total().max(CLOSE)).clamp(0.0, 1.0);
        u32::try_from(whole_ms(part * 1e6)).unwrap_or(1_000_000)
    }
}

fn seconds(span: Ms) -> f64 {
    span as f64 / 1000.0
}

/// A span rounded up to whole milliseconds, 0 for what is below.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 below; a float saturates above")]
pub(super) fn whole_ms(span: f64) -> Ms {
    span.max(0.0).ceil() as Ms
}
