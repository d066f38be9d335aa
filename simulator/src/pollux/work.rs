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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pollux::testing::application;

    #[test]
    fn a_run_changes_its_rate_at_the_ends_of_epochs_and_takes_the_batch_it_is_told() {
        let run = Run { application: Arc::new(application(&[40.0, 100.0])), batch: 8 };
        assert!((run.total() - 100.0).abs() < 1e-12);
        assert_eq!([0.0, 40.0, 100.0].map(|done| run.next_change(done)), [Some(40.0), Some(100.0), None]);
        let held = |batch| Held { nodes: vec![(0, 2)], batch };
        // 4 samples per GPU take half a second; 16 samples take one and are worth 4 / 3.
        assert!((run.rate(&held(None), 0.0) - 2.0).abs() < 1e-9);
        assert!((run.rate(&held(Some(16)), 0.0) - 4.0 / 3.0).abs() < 1e-9);
        assert!(run.rate(&Held::default(), 0.0).abs() < 1e-12);
    }
}
