//! How long a training step takes, by placement and batch per GPU, interpolated between what was measured.
//!
//! Up to 4 nodes every placement was measured and only the batch per GPU is interpolated. Beyond, the authors interpolate
//! linearly between (nodes, GPUs, batch per GPU) over a triangulation of all measurements; here the triangles are spelled
//! out: along a row of equal node count between neighbouring GPU counts, and between two rows at an equal GPU count, or in
//! a fan at the corners where only one row reaches. Assumes measurements for at least one node count.

use std::collections::BTreeMap;
use std::path::Path;

use super::table::{Line, Table};
use crate::Error;

/// Seconds of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// With the exchange of gradients.
    pub step_s: f64,
    /// The exchange of gradients alone; what remains is what a step costs that only accumulates.
    pub sync_s: f64,
}

impl Step {
    fn between(self, other: Self, share: f64) -> Self {
        let mix = |from: f64, to: f64| from + (to - from) * share;
        Self { step_s: mix(self.step_s, other.step_s), sync_s: mix(self.sync_s, other.sync_s) }
    }
}

/// Steps by batch per GPU, ascending.
#[derive(Clone, Debug, Default)]
struct Column(Vec<(f64, Step)>);

/// All measurements of one application.
#[derive(Clone, Debug, Default)]
pub struct Throughput {
    /// By the digits of the placement.
    exact: BTreeMap<u64, Column>,
    /// By nodes, then by GPUs.
    rows: BTreeMap<u32, BTreeMap<u32, Column>>,
    /// Smallest and largest batch per GPU that was measured.
    pub local_batches: (u32, u32),
}

impl Column {
    /// Linear between measurements, and onwards past the ends.
    fn at(&self, local: f64) -> Option<Step> {
        let after = self.0.partition_point(|(batch, _)| *batch < local).clamp(1, self.0.len().saturating_sub(1).max(1));
        let (low, from) = *self.0.get(after - 1)?;
        let Some((high, to)) = self.0.get(after) else { return Some(from) };
        Some(from.between(*to, (local - low) / (high - low)))
    }

    fn push(&mut self, local: u32, step: Step) {
        self.0.push((f64::from(local), step));
    }

    /// Ascending, and measurements at the same batch as their mean.
    fn settle(&mut self) {
        self.0.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut means: Vec<(f64, Step, f64)> = Vec::new();
        for (local, step) in self.0.drain(..) {
            match means.last_mut().filter(|mean| mean.0 >= local) {
                Some(mean) => {
                    mean.2 += 1.0;
                    mean.1 = mean.1.between(step, 1.0 / mean.2);
                }
                None => means.push((local, step, 1.0)),
            }
        }
        self.0 = means.into_iter().map(|(local, step, _)| (local, step)).collect();
    }
}

impl Throughput {
    /// Reads `placements.csv` and `scalability.csv` of an application's folder.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let mut found = Self { local_batches: (u32::MAX, 0), ..Self::default() };
        for line in Table::read(&folder.join("placements.csv"))?.lines() {
            found.add_placement(line)?;
        }
        for line in Table::read(&folder.join("scalability.csv"))?.lines() {
            let nodes = line.number("num_nodes", |nodes| (1..=1000).contains(&nodes), "a number of nodes, 1 to 1000")?;
            let gpus = line.number("num_replicas", |gpus| gpus >= nodes, "a number of GPUs, at least one on each node")?;
            let (local, step) = measured(line)?;
            found.rows.entry(nodes).or_default().entry(gpus).or_default().push(local, step);
        }
        found.exact.values_mut().chain(found.rows.values_mut().flat_map(BTreeMap::values_mut)).for_each(Column::settle);
        if found.rows.is_empty() {
            return Err(Error::Usage(format!("{}: placements.csv and scalability.csv hold no measurement", folder.display())));
        }
        Ok(found)
    }

    fn add_placement(&mut self, line: Line<'_>) -> Result<(), Error> {
        let remedy = "GPUs on each node as digits 1 to 9, for instance 31";
        let digits: u64 = line.number("placement", |digits| digits > 0, remedy)?;
        let placement: Vec<u32> = line.text("placement")?.chars().filter_map(|digit| digit.to_digit(10)).collect();
        if placement.contains(&0) {
            return Err(line.wrong("placement", remedy));
        }
        let (local, step) = measured(line)?;
        self.local_batches = (self.local_batches.0.min(local), self.local_batches.1.max(local));
        self.exact.entry(digits).or_default().push(local, step);
        let row = self.rows.entry(u32::try_from(placement.len()).unwrap_or(u32::MAX)).or_default();
        row.entry(placement.iter().sum()).or_default().push(local, step);
        Ok(())
    }

    /// The step at so many GPUs on each node, in any rotation, and a batch per GPU. `None` for no GPU.
    pub fn step(&self, placement: &[u32], local_batch: u32) -> Option<Step> {
        let local = f64::from(local_batch);
        let gpus = placement.iter().sum();
        if let Some(column) = (placement.len() <= 8).then(|| self.exact.get(&rotated(placement))).flatten() {
            return column.at(local);
        }
        self.interpolated(u32::try_from(placement.len()).ok()?, gpus, local)
    }

    fn interpolated(&self, nodes: u32, gpus: u32, local: f64) -> Option<Step> {
        let (first, last) = (*self.rows.keys().next()?, *self.rows.keys().next_back()?);
        let nodes = nodes.clamp(first, last);
        let (low, from) = self.rows.range(..=nodes).next_back()?;
        let (high, to) = self.rows.range(nodes..).next()?;
        if low == high {
            return along(from, f64::from(gpus), local);
        }
        let share = f64::from(nodes - low) / f64::from(high - low);
        let (most_low, least_high) = (f64::from(*from.keys().next_back()?), f64::from(*to.keys().next()?));
        let wanted = f64::from(gpus);
        let (at_low, at_high) = if wanted > most_low {
            (most_low, most_low + (wanted - most_low) / share)
        } else if wanted < least_high {
            (least_high - (least_high - wanted) / (1.0 - share), least_high)
        } else {
            (wanted, wanted)
        };
        Some(along(from, at_low, local)?.between(along(to, at_high, local)?, share))
    }
}

/// Between the GPU counts of one row.
fn along(row: &BTreeMap<u32, Column>, gpus: f64, local: f64) -> Option<Step> {
    let below = row.iter().take_while(|(count, _)| f64::from(**count) <= gpus).last().or_else(|| row.iter().next())?;
    let above = row.iter().find(|(count, _)| f64::from(**count) >= gpus).or_else(|| row.iter().next_back())?;
    let (low, high) = (f64::from(*below.0), f64::from(*above.0));
    let share = if high > low { (gpus - low) / (high - low) } else { 0.0 };
    Some(below.1.at(local)?.between(above.1.at(local)?, share))
}

/// The digits of the smallest rotation: placements were measured once for all rotations.
fn rotated(placement: &[u32]) -> u64 {
    let number = |from: usize| {
        let turned = placement.iter().cycle().skip(from).take(placement.len());
        turned.fold(0u64, |digits, gpus| digits * 10 + u64::from(*gpus))
    };
    (0..placement.len()).map(number).min().unwrap_or(0)
}

fn measured(line: Line<'_>) -> Result<(u32, Step), Error> {
    let local = line.number("local_bsz", |local| local > 0, "a batch per GPU, at least 1")?;
    let seconds = |value: f64| value.is_finite() && value >= 0.0;
    let step_s = line.number("step_time", |value| seconds(value) && value > 0.0, "seconds, more than 0")?;
    let sync_s = line.number("sync_time", seconds, "seconds, 0 or more")?;
    Ok((local, Step { step_s, sync_s }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn measured(placements: &str, scalability: &str) -> Throughput {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        write("placements.csv", format!("placement,local_bsz,step_time,sync_time\n{placements}"));
        write("scalability.csv", format!("num_nodes,num_replicas,local_bsz,step_time,sync_time\n{scalability}"));
        Throughput::read(folder.path()).unwrap()
    }

    fn step_s(throughput: &Throughput, placement: &[u32], local: u32) -> f64 {
        throughput.step(placement, local).unwrap().step_s
    }

    #[test]
    fn a_measured_placement_is_found_in_any_rotation_and_linear_in_the_batch() {
        let throughput = measured("1,4,1,0\n14,4,2,0\n14,8,4,0\n", "");
        assert!((step_s(&throughput, &[4, 1], 6) - 3.0).abs() < 1e-12);
        assert!((step_s(&throughput, &[1, 4], 8) - 4.0).abs() < 1e-12);
    }

    #[test]
    fn between_rows_the_count_of_gpus_is_kept_and_corners_are_reached() {
        // step_s = GPUs + 100 x nodes: linear, so that every interpolation must return it.
        let rows = ["4,4,1,404,0", "4,16,1,416,0", "6,6,1,606,0", "6,24,1,624,0"].join("\n");
        let throughput = measured("1,1,1,0\n", &rows);
        for (placement, wanted) in [(vec![2; 5], 510.0), (vec![4; 5], 520.0), (vec![1; 5], 505.0), (vec![3, 3, 4, 4, 4], 518.0)] {
            assert!((step_s(&throughput, &placement, 1) - wanted).abs() < 1e-9, "{placement:?}");
        }
    }

    #[test]
    fn no_gpus_make_no_step() {
        assert_eq!(Throughput::default().step(&[1], 1), None);
    }
}
