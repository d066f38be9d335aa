//! Microsoft's Philly trace as Pollux's authors condensed it. Not sorted; local time without a zone.
//!
//! A virtual cluster is the finest owner that the file knows, and cluster and GPU count the finest recipe. A job has a
//! run time, not a status: failed and killed jobs ran as long as they ran.

use crate::Error;

use super::TraceJob;
use super::input::Lines;
use super::table::{Columns, Row, Table};
use super::time;

pub const COLUMNS: Columns = Columns {
    format: "philly",
    needed: &["timestamp", "duration", "num_gpus", "cluster"],
    optional: &[],
    separator: ',',
    header: true,
};

/// The file as a table of jobs.
pub fn table(lines: Lines) -> Result<Table<TraceJob>, Error> {
    Table::new(lines, COLUMNS, Box::new(job))
}

fn job(row: &Row<'_>) -> Result<TraceJob, Error> {
    let submit =
        time::parse(row.get("timestamp")).ok_or_else(|| row.wrong("timestamp", "write a time such as 2017-10-09 07:01:55"))?;
    let gpus = row.gpus("num_gpus", 1)?;
    let cluster = row.text("cluster")?;
    Ok(TraceJob {
        name: format!("philly-{}", row.number),
        submit_ms: submit,
        duration_ms: Some(row.duration_ms("duration")?),
        gpus,
        gpu_milli: 1000,
        queue: cluster.to_owned(),
        owner: cluster.to_owned(),
        recipe: format!("{gpus}-gpu"),
        ..TraceJob::default()
    })
}
