//! A copy of what there is, so that people's questions are answered beside the world's task and not on it.

use std::sync::Arc;

use tidegate_api::view::Span;
use tidegate_core::Engine;
use tidegate_core::time::At;

use super::{Planned, World};

/// Everything at one moment.
#[derive(Debug)]
pub struct Scene {
    pub at: At,
    /// When this operator began to act.
    pub since: At,
    pub engine: Engine,
    /// What was decided, the newest last.
    pub shown: Vec<Arc<Planned>>,
    /// Who held GPUs and does not any more, the last to end last.
    pub ended: Vec<Arc<Span>>,
}

impl World {
    pub(super) fn scene(&self) -> Scene {
        Scene {
            at: self.now(),
            since: self.since,
            engine: self.engine.clone(),
            shown: self.shown.iter().cloned().collect(),
            ended: self.spans.iter().cloned().collect(),
        }
    }
}
