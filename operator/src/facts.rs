//! What the engine must know of the API's objects, read from them without asking anybody: pure, and small enough to keep for
//! every pod of a cluster.

mod gang;
pub mod node;
pub mod pod;
mod quantity;
mod requests;
mod selection;

pub use gang::Gang;
pub use node::NodeFacts;
pub use pod::{PodFacts, PodKey, PodPhase};
