//! Kueue's quotas (`kueue.x-k8s.io`, v1beta1 and v1beta2) as `Queue`s.
//!
//! ```text
//!   documents -> read -> tree -> quotas, weights, told -> write
//!   YAML         spec    order   one Queue each            YAML with comments
//! ```
//!
//! * A Cohort, written down or only named, becomes an inner Queue; a ClusterQueue a Queue below it.
//! * Trees of cohorts share nothing with each other in Kueue, and Tidegate's pool has no limit of its own: the Queue at the top
//!   of each tree gets borrowing and lending limits of 0. In a ClusterQueue only what it lists can be borrowed: the Queue borrows
//!   no GPUs of a class that it does not list.
//! * A LocalQueue has no counterpart: it is told which label its pods get.
//!
//! **Promises.** The Queues depend on the objects alone, whatever the order of files and documents. What it writes is accepted by
//! [`crate::manifest::parse`] and is a tree. Nothing is widened in silence: what is not carried over is told in a line that
//! names file, document, object, field and remedy.

mod cycles;
mod documents;
mod draft;
mod names;
mod quotas;
mod read;
mod spec;
mod told;
mod tree;
mod weights;
mod write;

use crate::manifest::Problems;

pub use names::queue_of;

/// One file: what errors call it, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub text: String,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Queues, parents before children, each below comments on what it lost. Empty if there was no Cohort and no ClusterQueue.
    pub yaml: String,
    /// The same remarks, one a line, without line breaks in them.
    pub told: Vec<String>,
}

/// Reads Kueue's manifests; either all that is wrong with them is told, or they are carried over.
pub fn import(files: &[File]) -> Result<Imported, Problems> {
    let mut problems = Vec::new();
    let input = read::read(files, &mut problems);
    let plan = tree::plan(&input, &mut problems);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    write::write(plan)
}

#[cfg(test)]
mod tests;
