//! Public job traces as one stream of [`TraceJob`]s in the order of submission.
//!
//! ```text
//!   input     a file or a stream, plain or gzip, into lines
//!   table     lines into rows with named columns and checked numbers
//!   philly | pollux | tiresias | gavel | openb    one table format each
//!   kueue     Kueue's performance generator: sets of workloads, unrolled
//! ```
//!
//! Guarantees: no input makes a reader panic, and memory is bounded by the longest line wherever the format is sorted
//! by itself (Pollux, Tiresias, Gavel, the Kueue generator). Philly and openb are not sorted, so they are read whole
//! first. A row that does not parse is named by file, line, column and remedy; the [`Bad`] tally says whether it stops
//! the run. Reading stops for good at what is no row: a wrong header, a file that is cut off.

mod gavel;
pub(crate) mod input;
pub mod kueue;
mod openb;
mod order;
mod philly;
mod pollux;
pub(crate) mod table;
pub(crate) mod tally;
pub(crate) mod time;
mod tiresias;

#[cfg(test)]
use std::io::Read;
use std::path::Path;

use clap::ValueEnum;

use crate::Error;
use input::Lines;
pub use tally::Bad;

/// One submitted job, whatever the trace. Amounts are of the whole job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceJob {
    /// As in the trace, or made of its row; unique where the trace's names are.
    pub name: String,
    /// Since the trace's own zero; for Philly since midnight before its first job.
    pub submit_ms: u64,
    /// How long it runs on what it asks for. Absent: the trace does not say (Pollux: the curves of `recipe` do; openb
    /// lists without times).
    pub duration_ms: Option<u64>,
    /// Devices, each with `gpu_milli` of it. 0: needs none.
    pub gpus: u32,
    /// How many of them must share a node. Absent: any split will do.
    pub gpus_per_node: Option<u32>,
    /// Share of each device in thousandths; 1000 is a whole one, 0 none.
    pub gpu_milli: u32,
    /// Thousandths of a core; 0: the trace does not say.
    pub cpu_milli: u64,
    /// MiB; 0: the trace does not say.
    pub memory_mib: u64,
    /// GPU classes that will do, and speed in thousandths of the class that `duration_ms` is for. Empty: any.
    pub classes: Vec<(String, u32)>,
    /// Whose quota (a virtual cluster, a Kueue queue). Empty: the trace has none.
    pub queue: String,
    /// Who; as fine as the trace goes.
    pub owner: String,
    /// What kind of job: model, application, or the shape of the request.
    pub recipe: String,
    /// More is sooner.
    pub priority: i32,
    /// Global batch size in samples.
    pub batch_size: Option<u32>,
}

/// A job trace's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Format {
    /// `timestamp,duration,num_gpus,gpu_time,cluster` (`gpu_time` is not needed).
    Philly,
    /// `name,time,application,num_replicas,batch_size`.
    Pollux,
    /// `job_id,num_gpu,submit_time,iterations,model_name,duration,interval`.
    Tiresias,
    /// Ten tab-separated fields without a header; `simulation_throughputs.json[.gz]` lies beside the file.
    Gavel,
    /// Pods: `name,cpu_milli,memory_mib,num_gpu,gpu_milli` and, where known, `gpu_spec,qos` and times.
    Openb,
    /// YAML of Kueue's `test/performance/scheduler` generator.
    KueueGenerator,
}

/// Jobs by submission, equal times in the file's order. Ends after the first error.
pub struct Jobs<'a>(Box<dyn Iterator<Item = Result<TraceJob, Error>> + 'a>);

impl Iterator for Jobs<'_> {
    type Item = Result<TraceJob, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// Opens a trace. Bad rows go to `bad`.
pub fn jobs<'a>(path: &Path, format: Format, bad: &'a mut Bad) -> Result<Jobs<'a>, Error> {
    let speeds = if format == Format::Gavel { Some(gavel::Throughputs::beside(path)?) } else { None };
    read(Lines::open(path)?, format, speeds, bad)
}

/// For tests: as [`jobs`], from any stream; `label` stands for the file's name in errors. Gavel's throughputs are those beside `label`.
#[cfg(test)]
pub(crate) fn jobs_from<'a>(
    stream: impl Read + 'static,
    label: &Path,
    format: Format,
    bad: &'a mut Bad,
) -> Result<Jobs<'a>, Error> {
    let speeds = if format == Format::Gavel { Some(gavel::Throughputs::beside(label)?) } else { None };
    read(Lines::new(label, stream)?, format, speeds, bad)
}

fn read(lines: Lines, format: Format, speeds: Option<gavel::Throughputs>, bad: &mut Bad) -> Result<Jobs<'_>, Error> {
    Ok(Jobs(match format {
        Format::Philly => Box::new(order::from_midnight(order::sorted(philly::table(lines)?.rows(bad))?)),
        Format::Openb => Box::new(order::sorted(openb::pods(lines)?.rows(bad))?),
        Format::Pollux => Box::new(pollux::table(lines)?.rows(bad)),
        Format::Tiresias => Box::new(tiresias::table(lines)?.rows(bad)),
        Format::Gavel => Box::new(gavel::table(lines, speeds.unwrap_or_default())?.rows(bad)),
        Format::KueueGenerator => Box::new(kueue::parse(lines)?.jobs().map(Ok)),
    }))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
