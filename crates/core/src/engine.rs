//! The engine: facts in, plan out.
//!
//! ```text
//!   State   all that is known and remembered: serialised, it is the snapshot
//!   Desk    derived from it, kept as it changes: free capacity, quota usage, who waits in which order
//! ```
//!
//! `Desk` is never serialised; a restored engine makes it anew, and the property tests compare the two after every step.

mod admission;
mod apply;
mod barred;
mod consolidate;
mod desk;
mod displace;
mod elastic;
mod fairness;
mod gang;
mod impossible;
mod jobs;
mod models;
mod observed;
mod overcommit;
mod past;
mod predict;
mod repair;
mod reserve;
mod rights;
mod round;
mod rules;
mod shares;
mod wakes;
mod wishes;

pub use desk::Block;
pub use impossible::Impossible;
pub use past::Past;

use thiserror::Error;

use crate::books::Books;
use crate::event::Event;
use crate::names::{JobName, Namespace, QueueName};
use crate::plan::{Action, Plan};
use crate::state::{State, VERSION};
use crate::time::At;
use desk::Desk;

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
#[derive(Clone, Debug)]
pub struct Engine {
    state: State,
    desk: Desk,
}

impl Default for Engine {
    fn default() -> Self {
        Self::from(State::default())
    }
}

impl PartialEq for Engine {
    fn eq(&self, other: &Self) -> bool {
        self.state == other.state
    }
}

impl Eq for Engine {}

impl Engine {
    /// Takes in one fact.
    pub fn apply(&mut self, at: At, event: Event) {
        self.state.advance(at);
        apply::apply(&mut self.state, &mut self.desk, event);
        self.desk.books.commit();
        self.desk.mark_free(&mut self.state);
    }

    /// Decides what to do now. Nothing changed and nothing is due: an empty plan, at once.
    pub fn decide(&mut self, now: At) -> Plan {
        self.state.advance(now);
        let due = self.state.wake_at.is_some_and(|at| at <= self.state.now);
        if !self.state.dirty && !due {
            return Plan { actions: Vec::new(), wake_at: self.state.wake_at };
        }
        let actions = round::run(&mut self.state, &mut self.desk);
        self.desk.books.commit();
        self.desk.mark_free(&mut self.state);
        self.desk.note_rates(&mut self.state);
        self.state.dirty = false;
        self.state.wake_at = round::next_wake(&self.state, &self.desk);
        Plan { actions, wake_at: self.state.wake_at }
    }

    /// Whether a decision now would look at anything.
    pub fn is_due(&self, now: At) -> bool {
        self.state.dirty || self.state.wake_at.is_some_and(|at| at <= now)
    }

    /// What the engine knows.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Free capacity and quota usage.
    pub fn books(&self) -> &Books {
        &self.desk.books
    }

    /// Why a waiting job did not start at the last decision that looked at it.
    pub fn blocked(&self, job: &JobName) -> Option<&Block> {
        self.desk.blocked(self.state.jobs.ix(job)?)
    }

    /// The job of a queue that is looked at first, of those that wait and may start, as far as the last decision found out.
    pub fn first_waiting(&self, queue: &QueueName) -> Option<&JobName> {
        let kinds = &self.desk.queues.iter().find(|lists| lists.name == *queue)?.waiting;
        let goes = kinds.iter().filter(|(kind, _)| !self.desk.is_barred(**kind));
        let (.., ix) = goes.filter_map(|(_, turns)| turns.first()).min()?;
        self.state.jobs.name(*ix)
    }

    /// Why a queue takes no work of a namespace; `None`: it does.
    pub fn refuses_namespace(&self, queue: &QueueName, namespace: &Namespace) -> Option<String> {
        admission::refuses(&self.state, &self.desk, queue, namespace)
    }

    /// Whether quota, or fairness, gives a waiting job the right to take from work of another queue.
    pub fn may_reclaim(&self, job: &JobName, from: &QueueName) -> bool {
        let books = &self.desk.books;
        let Some(job) = self.state.jobs.get(job) else { return false };
        let (Some(mine), Some(theirs)) = (books.tree.node(&job.spec.queue), books.tree.node(from)) else { return false };
        let need = books.need(&job.spec);
        let fair = self.desk.fair.as_ref();
        let by_share = || fair.and_then(|fair| fair.across(books, mine, theirs, &need));
        rights::across(books, mine, theirs, &need).or_else(by_share).is_some()
    }

    /// Actions that were ordered and have no outcome yet, in order. A world that restarts carries them out again.
    pub fn outstanding(&self) -> impl Iterator<Item = &Action> {
        self.state.actions.values()
    }

    /// Makes the next decision look, though nothing has changed and nothing is due.
    pub fn mark_dirty(&mut self) {
        self.state.dirty = true;
    }

    /// The whole state as versioned JSON.
    pub fn snapshot(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.state)
    }

    /// The engine of which `snapshot` was taken.
    pub fn restore(snapshot: &str) -> Result<Self, RestoreError> {
        let found = version_of(snapshot)?;
        if found != VERSION {
            return Err(RestoreError::Version { found });
        }
        Ok(Self::from(serde_json::from_str::<State>(snapshot).map_err(RestoreError::Unreadable)?))
    }

    /// Whether the derived part says what the state says; for tests.
    pub fn is_consistent(&self) -> Result<(), String> {
        self.desk.compare(&self.state)
    }
}

/// What version a text says that it has.
fn version_of(text: &str) -> Result<u32, RestoreError> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_str(text).map_err(RestoreError::Unreadable)?;
    Ok(version)
}

impl From<State> for Engine {
    fn from(mut state: State) -> Self {
        state.index_devices();
        let desk = Desk::of(&state);
        Self { state, desk }
    }
}
