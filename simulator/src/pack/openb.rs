//! Node and pod lists as Alibaba published them (cluster-trace-gpu-v2023, "openb").
//!
//! Promises: a row is either right or reported with its line; classes and shapes are numbered in the order of
//! their first appearance. Columns are found by name, so shorter lists (`multigpu*.csv`) do as well.

mod rows;

use std::path::Path;

use tidegate_core::fragment::{ANY_CLASS, Gpus, Shape};

use crate::Error;
use rows::Row;

/// GPUs on a node, at most.
pub const MOST_GPUS: u8 = 16;

/// Thousandths of a CPU, or MiB: beyond this a row is absurd (a million CPUs, 1 EiB).
const ABSURD: i64 = 1_000_000_000;

const NODE_COLUMNS: &[&str] = &["sn", "cpu_milli", "memory_mib", "gpu", "model"];

/// `gpu_spec` may be left out.
const POD_COLUMNS: &[&str] = &["cpu_milli", "memory_mib", "num_gpu", "gpu_milli"];

/// One node, empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub cpu_milli: i64,
    pub memory_mib: i64,
    pub gpus: usize,
    /// Index into [`Lists::classes`].
    pub class: u16,
}

/// One pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Index into [`Lists::shapes`].
    pub shape: usize,
    pub memory_mib: i64,
    gpu_milli: u64,
    /// Of each GPU.
    pub each_milli: u64,
}

impl Pod {
    /// Thousandths of a GPU that it asks for in all.
    pub fn gpu_milli(&self) -> u64 {
        self.gpu_milli
    }
}

/// What is packed onto what.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    pub nodes: Vec<Node>,
    pub pods: Vec<Pod>,
    pub classes: Vec<String>,
    pub shapes: Vec<Shape>,
    /// Rows left out, one line each.
    pub skipped: Vec<String>,
}

impl Lists {
    /// Reads both lists. Rows that do not parse stop it, or are left out if `skip_bad`.
    pub fn read(nodes: &Path, pods: &Path, skip_bad: bool) -> Result<Self, Error> {
        let mut lists = Self::default();
        rows::each(nodes, NODE_COLUMNS, skip_bad, &mut lists, Self::add_node)?;
        rows::each(pods, POD_COLUMNS, skip_bad, &mut lists, Self::add_pod)?;
        Ok(lists)
    }

    /// Thousandths of a GPU on all nodes.
    pub fn gpu_milli(&self) -> u64 {
        self.nodes.iter().map(|node| node.gpus as u64 * 1000).sum()
    }

    /// GPUs by class.
    pub fn class_gpus(&self) -> Vec<u64> {
        let gpus = |class| self.nodes.iter().filter(|node| usize::from(node.class) == class).map(|node| node.gpus as u64).sum();
        (0..self.classes.len()).map(gpus).collect()
    }

    /// How many pods have each shape.
    pub fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.shapes.len()];
        for pod in &self.pods {
            counts.iter_mut().skip(pod.shape).take(1).for_each(|count| *count += 1);
        }
        counts
    }

    fn add_node(&mut self, row: &Row<'_>) -> Result<(), Error> {
        let gpus = row.number("gpu", 0, i64::from(MOST_GPUS), "a node has 0 to 16 GPUs")?;
        let model = row.text("model")?;
        let class = self.class(model, row)?;
        self.nodes.push(Node {
            name: row.text("sn")?.to_owned(),
            cpu_milli: row.number("cpu_milli", 1, ABSURD, "thousandths of a CPU, 1 to 10^9")?,
            memory_mib: row.number("memory_mib", 0, ABSURD, "MiB, 0 to 10^9")?,
            gpus: usize::try_from(gpus).unwrap_or(0),
            class,
        });
        Ok(())
    }

    fn class(&mut self, model: &str, row: &Row<'_>) -> Result<u16, Error> {
        let known = self.classes.iter().position(|class| class == model);
        let at = known.unwrap_or_else(|| {
            self.classes.push(model.to_owned());
            self.classes.len() - 1
        });
        if at >= 63 {
            return Err(row.wrong("model", model, "one of at most 63 different models"));
        }
        u16::try_from(at).map_err(|_| row.wrong("model", model, "one of at most 63 different models"))
    }

    fn add_pod(&mut self, row: &Row<'_>) -> Result<(), Error> {
        let shape = self.shape(row)?;
        let (gpu_milli, each_milli) = (shape.gpus.milli(), u64::from(shape.gpus.each().1));
        let memory_mib = row.number("memory_mib", 0, ABSURD, "MiB, 0 to 10^9")?;
        let at = self.shapes.iter().position(|known| *known == shape).unwrap_or_else(|| {
            self.shapes.push(shape);
            self.shapes.len() - 1
        });
        self.pods.push(Pod { shape: at, memory_mib, gpu_milli, each_milli });
        Ok(())
    }

    fn shape(&self, row: &Row<'_>) -> Result<Shape, Error> {
        let cpu_milli = row.number("cpu_milli", 0, ABSURD, "thousandths of a CPU, 0 to 10^9")?;
        let gpus = row.number("num_gpu", 0, i64::from(MOST_GPUS), "a pod has 0 to 16 GPUs, as many as a node can have")?;
        let milli = row.number("gpu_milli", 0, 1000, "thousandths of a GPU, 0 to 1000")?;
        let small = |value: i64| u16::try_from(value).unwrap_or(0);
        let gpus = match (gpus, milli) {
            (0, 0) => Gpus::None,
            (1, 1..1000) => Gpus::Fraction(small(milli)),
            (1.., 1000) => Gpus::Whole(small(gpus)),
            _ => return Err(row.wrong("gpu_milli", &milli.to_string(), "0 without GPUs, 1 to 1000 with one, 1000 with more")),
        };
        let classes = if gpus == Gpus::None { ANY_CLASS } else { self.allowed(row)? };
        Ok(Shape { cpu_milli, gpus, classes })
    }

    fn allowed(&self, row: &Row<'_>) -> Result<u64, Error> {
        let spec = row.optional("gpu_spec");
        if spec.is_empty() {
            return Ok(ANY_CLASS);
        }
        spec.split('|').try_fold(0, |set, model| match self.classes.iter().position(|class| class == model) {
            Some(class) => Ok(set | 1 << class),
            None => Err(row.wrong("gpu_spec", spec, "models of the node list with bars between, or empty for any")),
        })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod tests_support;
