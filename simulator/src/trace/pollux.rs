//! Pollux's workloads. They name an application and what a user would ask for; how long that takes, its curves say.

use crate::Error;

use super::TraceJob;
use super::input::Lines;
use super::table::{Columns, Row, Table, in_order};

pub const COLUMNS: Columns = Columns {
    format: "pollux",
    needed: &["name", "time", "application", "num_replicas", "batch_size"],
    optional: &[],
    separator: ',',
    header: true,
};

/// The file as a table of jobs.
pub fn table(lines: Lines) -> Result<Table<TraceJob>, Error> {
    Table::new(lines, COLUMNS, in_order("time", Box::new(job)))
}

fn job(row: &Row<'_>) -> Result<TraceJob, Error> {
    Ok(TraceJob {
        name: row.text("name")?.to_owned(),
        submit_ms: row.ms("time")?,
        gpus: row.gpus("num_replicas", 1)?,
        gpu_milli: 1000,
        recipe: row.text("application")?.to_owned(),
        batch_size: Some(row.whole("batch_size", 1, 1 << 30, "write the samples of one step over all GPUs, above 0")?),
        ..TraceJob::default()
    })
}
