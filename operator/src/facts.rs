//! What the engine must know of the API's objects, read from them without asking anybody: pure, and small enough to keep for
//! every pod of a cluster.

pub mod node;
pub mod pod;
mod requests;
mod selection;

pub use node::NodeFacts;
pub use pod::{Gang, PodFacts, PodKey, PodPhase};
