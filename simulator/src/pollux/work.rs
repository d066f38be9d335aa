//! A training job of the traces as work in virtual time (`jobs`): statistical iterations at a rate that changes by epoch.

use std::sync::Arc;

use super::application::Application;
use crate::jobs::{Held, Work};

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    pub application: Arc<Application>,
    /// Its own global batch, used unless it is told another.
    pub batch: u32,
}

impl Work for Run {
    fn total(&self) -> f64 {
        self.application.total()
    }

    fn rate(&self, held: &Held, done: f64) -> f64 {
        let placement: Vec<u32> = held.nodes.iter().map(|(_, gpus)| *gpus).collect();
        let batch = held.batch.unwrap_or(self.batch);
        let fits = self.application.fits(batch, held.gpus());
        if fits { self.application.rate(&placement, batch, self.application.epoch_at(done)) } else { 0.0 }
    }

    fn next_change(&self, done: f64) -> Option<f64> {
        Some(self.application.end_of(self.application.epoch_at(done))).filter(|end| *end > done)
    }
}
