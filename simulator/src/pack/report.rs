//! What came out of packing, over all seeds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::world::Curve;
use super::{Experiment, Lists, MixSource, PolicyName};

/// One seed's run.
pub(super) struct Run {
    pub(super) curve: Curve,
    pub(super) decisions: usize,
    pub(super) cpu: Duration,
}

/// Figures of a rule on a pair of lists.
#[derive(Serialize, Clone, Debug)]
pub struct Report {
    pub policy: PolicyName,
    /// Where our rule's mix is from; absent for other rules.
    pub mix: Option<MixSource>,
    pub nodes: usize,
    pub gpus: f64,
    /// Rows of the list of pods.
    pub pods: usize,
    /// Rows left out by `--skip-bad`, each with its line.
    pub skipped_rows: Vec<String>,
    pub arrive_percent: u32,
    pub seeds: Vec<u64>,
    /// GPU allocated once `arrive_percent` has come by, percent of the cluster's; mean over seeds.
    pub allocation_percent_mean: f64,
    /// Standard deviation over seeds (of a sample).
    pub allocation_percent_sd: f64,
    pub unallocated_gpus_mean: f64,
    /// Pods by CPU second of choosing and placing; equal nodes are rated once, over all seeds. None if the
    /// runs were over before the system's clock of CPU time moved (some count in ticks of milliseconds).
    pub decisions_per_s: Option<f64>,
    /// Mean allocation by percent arrived.
    pub allocation_percent_by_arrived: BTreeMap<usize, f64>,
}

impl Report {
    pub(super) fn new(lists: &Lists, experiment: &Experiment<'_>, runs: &[Run]) -> Self {
        let last = usize::try_from(experiment.arrive).unwrap_or(usize::MAX);
        let ends: Vec<f64> = runs.iter().filter_map(|run| at(&run.curve, last)).collect();
        let gpus = lists.gpu_milli() as f64 / 1000.0;
        let cpu: f64 = runs.iter().map(|run| run.cpu.as_secs_f64()).sum();
        let decisions: usize = runs.iter().map(|run| run.decisions).sum();
        Self {
            policy: experiment.policy,
            mix: (experiment.policy == PolicyName::Tidegate).then_some(experiment.mix),
            nodes: lists.nodes.len(),
            gpus,
            pods: lists.pods.len(),
            skipped_rows: lists.skipped.clone(),
            arrive_percent: experiment.arrive,
            seeds: experiment.seeds.to_vec(),
            allocation_percent_mean: mean(&ends),
            allocation_percent_sd: deviation(&ends),
            unallocated_gpus_mean: gpus * (100.0 - mean(&ends)) / 100.0,
            decisions_per_s: (cpu > 0.0).then(|| decisions as f64 / cpu),
            allocation_percent_by_arrived: means(runs),
        }
    }

    /// Mean allocation once `arrived` percent has come by.
    pub fn allocation_at(&self, arrived: usize) -> Option<f64> {
        self.allocation_percent_by_arrived.range(..=arrived).next_back().map(|(_, &allocation)| allocation)
    }
}

/// The value at a percentage; between pods, the last before it.
fn at(curve: &Curve, percent: usize) -> Option<f64> {
    curve.iter().take(percent.saturating_add(1)).rev().find_map(|value| *value)
}

fn means(runs: &[Run]) -> BTreeMap<usize, f64> {
    let longest = runs.iter().map(|run| run.curve.len()).max().unwrap_or(0);
    let mean_at = |percent| {
        let values: Vec<f64> = runs.iter().filter_map(|run| run.curve.get(percent).copied().flatten()).collect();
        (!values.is_empty()).then(|| (percent, mean(&values)))
    };
    (0..longest).filter_map(mean_at).collect()
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}", self.policy).to_lowercase();
        writeln!(f, "{name}: {} nodes, {} GPUs, {} rows of pods, {} seeds", self.nodes, self.gpus, self.pods, self.seeds.len())?;
        if !self.skipped_rows.is_empty() {
            writeln!(f, "  left out {} rows:", self.skipped_rows.len())?;
            self.skipped_rows.iter().try_for_each(|row| writeln!(f, "    {row}"))?;
        }
        writeln!(
            f,
            "  allocated at {} % arrived   {:.2} % (sd {:.2})",
            self.arrive_percent, self.allocation_percent_mean, self.allocation_percent_sd
        )?;
        writeln!(f, "  GPUs not allocated         {:.1}", self.unallocated_gpus_mean)?;
        match self.decisions_per_s {
            Some(decisions) => writeln!(f, "  decisions per CPU second   {decisions:.0}"),
            None => writeln!(f, "  decisions per CPU second   too few to measure"),
        }
    }
}
