//! `simulate pack`: one pod after another onto a fixed cluster; nothing ever leaves, nothing is tried again.
//!
//! The experiment of FGD (Weng et al., "Beware of Fragmentation", USENIX ATC'23) and its rules, beside ours:
//! how much of a cluster's GPU is allocated once pods that ask for `--arrive` percent of it have come by.
//!
//! ```text
//!   openb      node and pod lists as Alibaba published them
//!   arrivals   seeded: the order of pods (shuffled, cloned or thinned out) and of nodes
//!   world      nodes fill up; equal nodes are scored once
//!   rules      the published rules: random, DotProd, Clustering, Packing, BestFit, FGD
//!   ours       `tidegate_core::fragment`, the mix learned from the pods seen so far
//!   report     mean and deviation over seeds
//! ```
//!
//! Every pod that fits somewhere is placed, at once and for good. No rule sees a pod before it comes. FGD knows the
//! mix of the whole list beforehand, as published ("yesterday's workload"); ours learns it unless told otherwise.

mod arrivals;
pub mod clock;
pub mod openb;
mod ours;
mod report;
mod rules;
mod seeds;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::Error;
pub use openb::Lists;
pub use report::Report;
pub use seeds::Seeds;

/// `tidegate simulate pack`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// List of nodes: name, CPU, memory, GPUs, model.
    #[arg(long, value_name = "CSV")]
    pub nodes: PathBuf,
    /// List of pods: name, CPU, memory, GPUs, thousandths of each, models that will do.
    #[arg(long, value_name = "CSV")]
    pub pods: PathBuf,
    /// How the lists are written.
    #[arg(long, value_enum, default_value = "openb")]
    pub format: Format,
    /// Who chooses the node.
    #[arg(long, value_enum, default_value = "tidegate")]
    pub policy: PolicyName,
    /// Where the policy `tidegate` has its idea of usual work from.
    #[arg(long, value_enum, default_value = "seen")]
    pub mix: MixSource,
    /// GPU that pods ask for in all, in percent of the cluster: pods are cloned or left out at random.
    #[arg(long, value_name = "PERCENT", default_value_t = 130, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub arrive: u32,
    /// Seeds of the order of arrival: `42..51` (both included) or `1,2,3`.
    #[arg(long, default_value = "42..51")]
    pub seeds: Seeds,
    /// Leaves out rows that do not parse, and counts them.
    #[arg(long)]
    pub skip_bad: bool,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}

/// A format of lists.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Alibaba's cluster-trace-gpu-v2023.
    Openb,
}

/// A rule that chooses a node for a pod.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PolicyName {
    /// Published: least growth of fragmentation, ties by node name.
    Fgd,
    /// Published: least CPU and GPU left.
    Bestfit,
    /// Published: any node, any GPU.
    Random,
    /// Published: Tetris' dot product.
    Dotprod,
    /// Published: pods of equal GPU need together.
    Clustering,
    /// Published: shared GPUs first, then free GPUs of nodes in use.
    Packing,
    /// Ours.
    Tidegate,
}

/// Where ours has its mix of usual work from.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MixSource {
    /// Learned from the pods that have come by: nothing is known beforehand.
    Seen,
    /// Counted over the list of pods beforehand, as published FGD does.
    List,
}

/// One experiment: what is packed, by whom, how often.
#[derive(Clone, Copy, Debug)]
pub struct Experiment<'a> {
    pub policy: PolicyName,
    pub mix: MixSource,
    /// Percent of the cluster's GPU.
    pub arrive: u32,
    pub seeds: &'a [u64],
}

/// Reads the lists and packs; `cpu_time` tells CPU time spent so far (see [`clock`]).
pub fn run(args: &Args, cpu_time: fn() -> Duration) -> Result<Report, Error> {
    let Args { nodes, pods, format: Format::Openb, policy, mix, arrive, seeds, skip_bad, json: _ } = args;
    let lists = Lists::read(nodes, pods, *skip_bad)?;
    pack(&lists, &Experiment { policy: *policy, mix: *mix, arrive: *arrive, seeds: &seeds.0 }, cpu_time)
}

/// Packs lists that were read already.
pub fn pack(lists: &Lists, experiment: &Experiment<'_>, cpu_time: fn() -> Duration) -> Result<Report, Error> {
    if lists.gpu_milli() == 0 {
        return Err(Error::Usage(
            "--nodes: no node has a GPU, so there is nothing to allocate; name a list with GPU nodes".into(),
        ));
    }
    let pods_ask_for_gpu = lists.pods.iter().any(|pod| pod.gpu_milli() > 0);
    if !pods_ask_for_gpu {
        return Err(Error::Usage("--pods: no pod asks for a GPU, so the load never arrives; name a list with GPU pods".into()));
    }
    let mut world = world::World::new(lists, experiment);
    let mut runs = Vec::with_capacity(experiment.seeds.len());
    for &seed in experiment.seeds {
        let arrivals = arrivals::Arrivals::new(lists, experiment.arrive, seed);
        let start = cpu_time();
        let curve = world.run(&arrivals, seed);
        runs.push(report::Run { curve, decisions: arrivals.pods.len(), cpu: cpu_time().saturating_sub(start) });
    }
    Ok(Report::new(lists, experiment, &runs))
}

#[cfg(test)]
mod tests;
