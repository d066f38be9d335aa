//! What the engine must know of the API's objects, read from them without asking anybody: pure, and small enough to keep for
//! every pod of a cluster.

pub mod adopted;
pub mod adoption;
mod annotation;
pub(crate) mod beside;
pub mod claimed;
pub mod device;
pub mod device_claim;
mod gang;
pub mod group;
pub mod model;
mod needs;
pub mod node;
pub mod pod;
mod pointer;
mod ports;
pub mod priority;
mod requests;
pub mod seat;
pub mod selection;
pub(crate) mod share;
mod template;
pub mod training;
pub mod volume;

pub use adopted::AdoptedFacts;
pub use adoption::Adoptions;
pub use annotation::shown;
pub use beside::{Beside, BesideKind, DeviceKind, DeviceObject};
pub use gang::Gang;
pub use model::ModelFacts;
pub use needs::Needs;
pub use node::NodeFacts;
pub use pod::{PodFacts, PodKey, PodPhase};
pub use ports::HostPort;
pub use training::TrainingFacts;
