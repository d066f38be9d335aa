//! Events on objects: what `kubectl describe` shows of decisions. Each is written when something has changed, so that there is
//! nothing to aggregate.

use super::Write;
use crate::facts::PodKey;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The kind of the object that it is about.
    pub kind: &'static str,
    pub uid: String,
    pub warning: bool,
    /// A word in `PascalCase`.
    pub reason: &'static str,
    /// What was done, or tried.
    pub action: &'static str,
    pub text: String,
}

impl Note {
    /// A pod was bound.
    pub(super) fn bound(uid: &str, pod: &PodKey, node: &str) -> Self {
        let text = format!("Successfully assigned {pod} to {node}");
        Self { kind: "Pod", uid: uid.to_owned(), warning: false, reason: "Scheduled", action: "Binding", text }
    }

    /// A pod is told to end for that reason.
    pub(super) fn ended(uid: &str, why: &str) -> Self {
        Self { kind: "Pod", uid: uid.to_owned(), warning: true, reason: "Preempted", action: "Evicting", text: why.to_owned() }
    }

    /// A pod waits.
    pub(super) fn refused(uid: &str, why: &str) -> Self {
        Self {
            kind: "Pod",
            uid: uid.to_owned(),
            warning: true,
            reason: "FailedScheduling",
            action: "Scheduling",
            text: why.to_owned(),
        }
    }

    pub(super) fn about(self, object: &PodKey) -> Write {
        Write::Note { object: object.clone(), note: Box::new(self) }
    }
}
