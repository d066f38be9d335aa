//! The engine: facts in, plan out.

mod apply;
mod decide;
mod jobs;
mod models;
mod reclaim;

use thiserror::Error;

use crate::event::Event;
use crate::plan::{Action, Plan};
use crate::state::{State, VERSION};
use crate::time::At;

/// A snapshot that cannot be restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// Not a snapshot.
    #[error("the snapshot cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Another version's snapshot.
    #[error("the snapshot has version {found}, this engine reads version {VERSION}")]
    Version {
        /// What it says.
        found: u32,
    },
}

/// The scheduler. See the crate's documentation for what it guarantees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    state: State,
}

impl Engine {
    /// Takes in one fact.
    pub fn apply(&mut self, at: At, event: Event) {
        self.state.advance(at);
        self.state.apply(event);
        self.state.mark_free();
    }

    /// Decides what to do now. Nothing changed and nothing is due: an empty plan, at once.
    pub fn decide(&mut self, now: At) -> Plan {
        self.state.advance(now);
        let due = self.state.wake_at.is_some_and(|at| at <= self.state.now);
        if !self.state.dirty && !due {
            return Plan { actions: Vec::new(), wake_at: self.state.wake_at };
        }
        let actions = decide::run(&mut self.state);
        self.state.mark_free();
        self.state.dirty = false;
        self.state.wake_at = decide::next_wake(&self.state);
        Plan { actions, wake_at: self.state.wake_at }
    }

    /// What the engine knows.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Actions that were ordered and have no outcome yet, in order. A world that restarts carries them out again.
    pub fn outstanding(&self) -> impl Iterator<Item = &Action> {
        self.state.actions.values()
    }

    /// Makes the next decision look at everything.
    pub fn mark_all_dirty(&mut self) {
        self.state.dirty = true;
    }

    /// The whole state as versioned JSON.
    pub fn snapshot(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.state)
    }

    /// The engine of which `snapshot` was taken.
    pub fn restore(snapshot: &str) -> Result<Self, RestoreError> {
        #[derive(serde::Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(snapshot).map_err(RestoreError::Unreadable)?;
        if version != VERSION {
            return Err(RestoreError::Version { found: version });
        }
        Ok(Self { state: serde_json::from_str(snapshot).map_err(RestoreError::Unreadable)? })
    }
}

impl From<State> for Engine {
    fn from(state: State) -> Self {
        Self { state }
    }
}
