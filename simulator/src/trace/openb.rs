//! Alibaba's openb lists of pods (cluster-trace-gpu-v2023).
//!
//! A pod lives on one node. It is submitted at `creation_time`. Its run time is `deletion_time - scheduled_time`; a pod that
//! was never scheduled has only its life (`deletion_time - creation_time`), which stands in; what began and
//! ended within one second ran for a millisecond. Lists without times (the
//! multigpu ones) give everything at 0 without a run time. The classes of service become priorities, Guaranteed and
//! latency-sensitive 100, Burstable 50, best effort 0, which is ours: the published packing experiment drops them.

use crate::Error;

use super::TraceJob;
use super::input::Lines;
use super::table::{Columns, Row, Table};

pub const PODS: Columns = Columns {
    format: "openb",
    needed: &["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"],
    optional: &["gpu_spec", "qos", "creation_time", "deletion_time", "scheduled_time"],
    separator: ',',
    header: true,
};

const CPU: &str = "write thousandths of a core, at most 100000000";
const MEMORY: &str = "write MiB, at most 1073741824";
const MOST_CPU: u32 = 100_000_000;
const MOST_MEMORY: u32 = 1 << 30;

/// The file as a table of pods, in the file's order.
pub fn pods(lines: Lines) -> Result<Table<TraceJob>, Error> {
    Table::new(lines, PODS, Box::new(pod))
}

fn pod(row: &Row<'_>) -> Result<TraceJob, Error> {
    let (gpus, gpu_milli) = devices(row)?;
    let cpu = row.whole("cpu_milli", 0, MOST_CPU, CPU)?;
    let memory = row.whole("memory_mib", 0, MOST_MEMORY, MEMORY)?;
    let (submit_ms, duration_ms) = times(row)?;
    Ok(TraceJob {
        name: row.text("name")?.to_owned(),
        submit_ms,
        duration_ms,
        gpus,
        gpus_per_node: (gpus > 0).then_some(gpus),
        gpu_milli,
        cpu_milli: cpu.into(),
        memory_mib: memory.into(),
        classes: classes(row.get("gpu_spec")),
        recipe: format!("{gpus}x{gpu_milli}-{cpu}m-{memory}Mi"),
        priority: priority(row)?,
        ..TraceJob::default()
    })
}

fn devices(row: &Row<'_>) -> Result<(u32, u32), Error> {
    let gpus = row.whole("num_gpu", 0, 64, "write the number of GPUs, at most 64: a pod lives on one node")?;
    let milli = row.whole("gpu_milli", 0, 1000, "write thousandths of each GPU, at most 1000")?;
    match (gpus, milli) {
        (0, 0) | (1, 1..) | (2.., 1000) => Ok((gpus, milli)),
        (0, _) => Err(row.wrong("gpu_milli", "a pod with num_gpu 0 has gpu_milli 0")),
        (1, _) => Err(row.wrong("gpu_milli", "a pod with a GPU has gpu_milli 1 to 1000")),
        _ => Err(row.wrong("gpu_milli", "only a pod with one GPU may share it; write 1000")),
    }
}

/// Submission and run time.
fn times(row: &Row<'_>) -> Result<(u64, Option<u64>), Error> {
    if row.get("creation_time").is_empty() {
        return Ok((0, None));
    }
    let created = row.ms("creation_time")?;
    if row.get("deletion_time").is_empty() {
        return Ok((created, None));
    }
    let deleted = row.ms("deletion_time")?;
    if deleted < created {
        return Err(row.wrong("deletion_time", "it is before creation_time"));
    }
    let started = if row.get("scheduled_time").is_empty() { created } else { row.ms("scheduled_time")? };
    if started < created || started > deleted {
        return Err(row.wrong("scheduled_time", "it is not between creation_time and deletion_time"));
    }
    Ok((created, Some((deleted - started).max(1))))
}

fn priority(row: &Row<'_>) -> Result<i32, Error> {
    match row.get("qos") {
        "LS" | "Guaranteed" => Ok(100),
        "Burstable" => Ok(50),
        "BE" | "BestEffort" | "" => Ok(0),
        _ => Err(row.wrong("qos", "write LS, Guaranteed, Burstable or BE")),
    }
}

fn classes(spec: &str) -> Vec<(String, u32)> {
    let mut names: Vec<&str> = spec.split('|').filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| (name.to_owned(), 1000)).collect()
}
