//! Pure decisions: which work runs on which device, and how requests are packed.
//!
//! ```text
//!            facts                          actions with reasons
//!   world ---------> Engine::apply    Engine::decide ------------> world
//!     ^                      \          /                            |
//!     |                       [ State ] <--> snapshot (JSON)         |
//!     +----------------- outcomes, observations <--------------------+
//! ```
//!
//! No clock, no I/O, no randomness, no environment: time is an argument. A world (one box, a cluster,
//! virtual time) differs only in how it observes and carries out.
//!
//! **Guarantees**, tested on random event sequences: a restored snapshot equals the engine it was taken
//! of; a decision with everything marked dirty is the same decision; no device is over-committed, even
//! while work ends; a job runs with all its workers or none; every action has a reason.
//!
//! **Assumptions**: events of one thing arrive in the order in which they happened; a world carries out
//! an action only after those it names in `after` are done.

pub mod arena;
pub mod ask;
pub mod books;
pub mod claim;
pub mod claims;
pub mod cluster;
pub mod demand;
pub mod elastic;
pub mod engine;
pub mod eta;
pub mod event;
pub mod explain;
pub mod fragment;
pub mod history;
pub mod holdings;
pub mod labels;
pub mod mig;
pub mod names;
pub mod node;
pub mod plan;
pub mod policy;
pub mod quota;
pub mod serving;
pub mod state;
pub mod time;
pub mod what_if;

pub use engine::Engine;
pub use event::{Event, JobExit, Outcome};
pub use plan::{Action, ActionId, ActionKind, Plan, Reason};
pub use state::State;
pub use time::At;
