//! Tiresias' testbed trace. `interval` repeats the difference of two submit times and is not read; `iterations` is what
//! `duration` was made of.

use crate::Error;

use super::TraceJob;
use super::input::Lines;
use super::table::{Columns, Row, Table, in_order};

pub const COLUMNS: Columns = Columns {
    format: "tiresias",
    needed: &["job_id", "num_gpu", "submit_time", "model_name", "duration"],
    optional: &[],
    separator: ',',
    header: true,
};

/// The file as a table of jobs.
pub fn table(lines: Lines) -> Result<Table<TraceJob>, Error> {
    Table::new(lines, COLUMNS, in_order("submit_time", Box::new(job)))
}

fn job(row: &Row<'_>) -> Result<TraceJob, Error> {
    Ok(TraceJob {
        name: row.text("job_id")?.to_owned(),
        submit_ms: row.ms("submit_time")?,
        duration_ms: Some(row.duration_ms("duration")?),
        gpus: row.gpus("num_gpu", 1)?,
        gpu_milli: 1000,
        recipe: row.text("model_name")?.to_owned(),
        ..TraceJob::default()
    })
}
