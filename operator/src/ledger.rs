//! History that outlives the operator: what the engine has learned, and what was decided, for people.
//!
//! ```text
//!   World ── lines, now and then the past ──> Journal ──> Keeper ── batches ──> ledger (SQLite or PostgreSQL)
//!     ▲                                                     │
//!     └────────────── what was learned before ──────────────┘
//! ```
//!
//! **Promise.** Scheduling never waits for the ledger: the journal takes what it is given and drops the oldest lines beyond a bound,
//! the keeper tries again. Objects are the truth for what runs; without a ledger, or with an empty one, only estimates are worse and
//! the past use of queues begins anew. Who has led the ledger before can write no more once the next one has taken it.

mod journal;
mod keeper;
mod metrics;

use std::sync::Arc;

use parking_lot::RwLock;
use tidegate_runtime::ledger::{Keep, Ledger, Place};

pub use journal::Journal;
pub use keeper::Keeper;
pub use metrics::Metrics;

/// Where the ledger is, and how much it keeps.
#[derive(Clone, Debug)]
pub struct Settings {
    pub place: Place,
    pub keep: Keep,
}

/// The open ledger, for those who read it. Empty while there is none, or this process does not lead.
pub type Shelf = Arc<RwLock<Option<Ledger>>>;

/// By what a line is found: lives of one unit (`gang/team/night#2`) are found by the unit's name.
fn subject(planned: &str) -> &str {
    planned.split_once('#').map_or(planned, |(name, _)| name)
}

#[cfg(test)]
mod tests;
