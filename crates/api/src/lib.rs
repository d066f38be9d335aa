//! The words that Tidegate's parts share.
//!
//! * [`kinds`]: what a user writes, as Kubernetes custom resources of the group `tidegate.dev/v1alpha1`.
//!   `tidegate up` reads the same YAML that a cluster would accept, and the same CEL rules refuse it.
//! * [`labels`]: labels and annotations by which other pods take part.
//! * [`manifest`]: YAML documents to validated objects, with errors that name file, field, value and remedy.
//! * [`convert`]: kinds to the engine's own types.
//! * [`import`]: other schedulers' manifests to ours, and what of them is lost.
//! * [`quantity`]: Kubernetes' quantities as whole numbers.
//! * [`control`] and [`inference`]: gRPC between a world, its routers and its replicas.
//! * [`model_info`]: what a model file says of itself.
//! * [`view`]: what `up` shows of itself as JSON, to the page, to the command line and to scripts.
//! * [`eta`]: when waiting jobs are expected to start.
//! * [`what_if`]: changes in words, and the request that asks what they would do.

pub mod contract;
pub mod convert;
pub mod eta;
pub mod import;
pub mod kinds;
pub mod labels;
pub mod manifest;
pub mod model_info;
pub mod quantity;
pub mod view;
pub mod what_if;

/// `tidegate.control.v1`, between a world and its routers and replicas.
#[expect(clippy::pedantic, clippy::allow_attributes, reason = "generated code")]
pub mod control {
    tonic::include_proto!("tidegate.control.v1");
}

/// The Open Inference Protocol, version 2.
#[expect(clippy::pedantic, clippy::allow_attributes, reason = "generated code")]
pub mod inference {
    tonic::include_proto!("inference");
}
