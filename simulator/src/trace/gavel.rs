//! Gavel's traces: work in steps, and a table of steps per second by GPU class that turns them into time.
//!
//! `duration_ms` is for V100; the other classes get their speed relative to it, and a class on which the job does not
//! run (0 steps per second: it does not fit) is not listed. Sharing a GPU with another job is not read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::Error;

use super::TraceJob;
use super::input::Lines;
use super::table::{Columns, Row, TEN_YEARS_S, Table, in_order};

pub const COLUMNS: Columns = Columns {
    format: "gavel",
    needed: &[
        "job_type",
        "command",
        "working_directory",
        "steps_argument",
        "needs_data",
        "total_steps",
        "gpus",
        "priority_weight",
        "slo",
        "arrival",
    ],
    optional: &[],
    separator: '\t',
    header: false,
};

/// The class that durations are for.
const REFERENCE: &str = "v100";
const CLASSES: [&str; 3] = ["v100", "p100", "k80"];
/// Bytes of the throughput table; the published one has 2.2 MB.
const MOST: u64 = 64 << 20;

/// Steps per second alone on a GPU: class -> `('job type', GPUs)` -> rate.
#[derive(Default)]
pub struct Throughputs(BTreeMap<String, BTreeMap<String, f64>>);

#[derive(Deserialize)]
#[serde(transparent)]
struct File(BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>>);

impl Throughputs {
    /// The table in the trace's folder.
    pub fn beside(trace: &Path) -> Result<Self, Error> {
        let names = ["simulation_throughputs.json", "simulation_throughputs.json.gz"];
        let found = names.map(|name| trace.with_file_name(name)).into_iter().find(|path| path.is_file());
        match found {
            Some(path) => Self::parse(Lines::open(&path)?),
            None => Err(Error::Usage(format!(
                "{}: a gavel trace counts steps; put Gavel's simulation_throughputs.json (or .json.gz) into its folder",
                trace.display()
            ))),
        }
    }

    fn parse(lines: Lines) -> Result<Self, Error> {
        let (path, text) = lines.rest(MOST)?;
        let file: File = serde_json::from_str(&text).map_err(|error| not_a_table(path, &error))?;
        let alone = |(job, rates): (String, BTreeMap<String, Value>)| Some((job, rates.get("null")?.as_f64()?));
        Ok(Self(file.0.into_iter().map(|(class, jobs)| (class, jobs.into_iter().filter_map(alone).collect())).collect()))
    }

    fn rate(&self, class: &str, job: &str) -> Option<f64> {
        self.0.get(class)?.get(job).copied().filter(|rate| rate.is_finite() && *rate > 0.0)
    }
}

fn not_a_table(path: PathBuf, error: &serde_json::Error) -> Error {
    Error::Layout {
        path,
        line: error.line() as u64,
        field: "throughputs".to_owned(),
        found: error.to_string(),
        remedy: "take the file of Gavel's repository unchanged: class -> \"('job type', GPUs)\" -> \"null\" -> steps per second"
            .to_owned(),
    }
}

/// The file as a table of jobs.
pub fn table(lines: Lines, rates: Throughputs) -> Result<Table<TraceJob>, Error> {
    Table::new(lines, COLUMNS, in_order("arrival", Box::new(move |row| job(row, &rates))))
}

fn job(row: &Row<'_>, rates: &Throughputs) -> Result<TraceJob, Error> {
    let gpus = row.gpus("gpus", 1)?;
    let kind = row.text("job_type")?;
    let steps = row.whole("total_steps", 1, u32::MAX, "write the number of steps, above 0")?;
    let key = format!("('{kind}', {gpus})");
    let unknown = "the throughput table has no V100 rate for this job type with so many GPUs; add it there";
    let rate = rates.rate(REFERENCE, &key).ok_or_else(|| row.wrong("job_type", unknown))?;
    let seconds = f64::from(steps) / rate;
    if seconds > TEN_YEARS_S {
        return Err(row.wrong("total_steps", "at this job's rate that is over ten years"));
    }
    let classes = CLASSES
        .iter()
        .filter_map(|class| Some(((*class).to_owned(), u32::try_from(thousandths(rates.rate(class, &key)? / rate)).ok()?)));
    let weight = row.whole("priority_weight", 0, 1_000_000, "write a whole weight, at most 1000000")?;
    Ok(TraceJob {
        name: format!("gavel-{}", row.number),
        submit_ms: row.ms("arrival")?,
        duration_ms: Some(thousandths(seconds).max(1)),
        gpus,
        gpu_milli: 1000,
        classes: classes.collect(),
        recipe: kind.to_owned(),
        priority: i32::try_from(weight).unwrap_or(i32::MAX),
        batch_size: batch(kind),
        ..TraceJob::default()
    })
}

/// `ResNet-18 (batch size 128)` -> 128.
fn batch(kind: &str) -> Option<u32> {
    kind.split_once("(batch size ")?.1.strip_suffix(')')?.parse().ok()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn thousandths(value: f64) -> u64 {
    (value * 1000.0).round() as u64
}
