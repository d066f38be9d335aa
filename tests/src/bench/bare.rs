//! The ceiling: tract in one process, one thread, batches that are full from the start.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, IntoTValue, TypedRunnableModel};

use super::figures::Sample;
use super::machine::cpu_since;
use super::models::Subject;

/// The same one plan for all shapes that the replica runs.
#[derive(Clone, Debug)]
pub struct Bare(Arc<TypedRunnableModel>);

impl Bare {
    pub fn load(onnx: &Path) -> Result<Self> {
        let typed = tract_onnx::onnx().model_for_path(onnx)?.into_typed()?.into_decluttered()?;
        Ok(Self(typed.into_optimized()?.into_runnable()?))
    }

    /// Batch after batch of `rows` for `time`. Blocks the thread.
    pub fn measure(&self, subject: &Subject, rows: usize, time: Duration) -> Result<Sample> {
        let began = Instant::now();
        let this = [std::process::id()];
        let before = cpu_since(Duration::ZERO, &this)?;
        let mut latencies = Vec::new();
        while began.elapsed() < time {
            let started = Instant::now();
            let inputs = subject.tensors(rows)?.into_iter().map(IntoTValue::into_tvalue).collect();
            self.0.run(inputs)?;
            latencies.push(started.elapsed());
        }
        let batches = u64::try_from(latencies.len())?;
        let rows_done = batches * u64::try_from(rows)?;
        let elapsed = began.elapsed();
        let cpu = cpu_since(before, &this)?;
        Ok(Sample { requests: rows_done, elapsed, cpu, busy: latencies.iter().sum(), batches, rows: rows_done, latencies })
    }
}
