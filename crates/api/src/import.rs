//! Other schedulers' manifests to ours. Each importer writes what our own validation accepts, or nothing, and tells in a line
//! each what it could not carry over.

pub mod kueue;
