//! What people and other parts ask of the world.

use std::sync::Arc;

use serde::Serialize;
use tidegate_core::plan::{Action, ActionKind};
use tidegate_core::time::At;
use tokio::sync::oneshot;

use super::{SHOWN, Scene, World};
use crate::facts::PodKey;
use crate::index::{Known, Refused, Report};

/// A question, and where the answer goes.
#[derive(Debug)]
pub enum Ask {
    /// A copy of everything, to be asked further.
    Scene(oneshot::Sender<Box<Scene>>),
    /// As what the engine knows a pod.
    Known(PodKey, oneshot::Sender<Option<Known>>),
    /// What was decided, the newest last.
    Plans(oneshot::Sender<Vec<Arc<Planned>>>),
    /// What a worker reports; the choice that is best for its job now.
    Progress(Report, oneshot::Sender<Result<Option<u32>, Refused>>),
}

/// One decision, for people.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub at_ms: u64,
    pub action: &'static str,
    pub subject: String,
    /// Nodes, one for each worker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    pub reason: String,
    pub category: &'static str,
}

impl Planned {
    pub fn of(action: &Action, at: At) -> Self {
        let nodes = match &action.kind {
            ActionKind::StartJob { workers, .. } => workers.iter().map(|worker| worker.node.to_string()).collect(),
            ActionKind::StartReplica { place, .. } => vec![place.node.to_string()],
            ActionKind::StopJob { .. } | ActionKind::StopReplica { .. } => Vec::new(),
        };
        Self {
            at_ms: at.0,
            action: action.kind.word(),
            subject: action.kind.subject(),
            nodes,
            reason: action.reason.to_string(),
            category: action.reason.category(),
        }
    }
}

impl World {
    /// Whoever asked may have gone: then nobody hears the answer.
    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Scene(to) => drop(to.send(Box::new(self.scene()))),
            Ask::Known(pod, to) => drop(to.send(self.index.known_as(&pod))),
            Ask::Plans(to) => drop(to.send(self.shown.iter().cloned().collect())),
            Ask::Progress(report, to) => {
                let answer = self.index.progress(&report, &self.engine);
                let answer = answer.map(|(events, choice)| {
                    self.tell(events);
                    choice
                });
                // Whoever asked may have gone.
                to.send(answer).ok();
            }
        }
    }

    pub(super) fn show(&mut self, planned: Planned) {
        let planned = Arc::new(planned);
        self.write_line(&planned);
        self.shown.push_back(planned);
        if self.shown.len() > SHOWN {
            self.shown.pop_front();
        }
    }

    /// Whether the same was decided before and is still shown: what is only observed is decided again and again.
    pub(super) fn is_shown(&self, action: &Action) -> bool {
        let planned = Planned::of(action, At::default());
        self.shown.iter().any(|shown| Planned { at_ms: 0, ..Planned::clone(shown) } == planned)
    }
}
