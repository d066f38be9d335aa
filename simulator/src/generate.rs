//! Seeded synthetic traces in the formats that [`crate::trace`] and the studies read (`tidegate simulate generate`), for
//! whoever does not have the public ones.
//!
//! Each generator states which figures of which trace its distributions were fitted to, and its test holds it to them.
//! Guarantee: equal kind, count and seed give equal bytes. What a generator leaves out (users, failures, correlation between
//! queues) a study cannot find in it, so figures on synthetic traces are never printed beside published ones.

mod draw;
pub mod kueue;
pub mod openb;
pub mod philly;
pub mod pollux;
pub mod servegen;
pub mod tiresias;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::Error;

/// Most rows in one file.
const MOST: u32 = 100_000_000;

/// What can be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Training jobs of 15 virtual clusters over 16 weeks.
    Philly,
    /// Nodes with GPUs.
    OpenbNodes,
    /// Pods that share and fill GPUs.
    OpenbPods,
    /// Request rate of one model in windows of 600 s.
    Servegen,
    /// Elastic training jobs over 8 hours.
    Pollux,
    /// Training jobs of a small testbed.
    Tiresias,
    /// YAML for Kueue's performance generator.
    KueueGenerator,
    /// One of each in a folder, named as the public traces are.
    All,
}

/// Which studies can be done on synthetic data.
const STUDIES: &str = "\
The folder that `generate all` writes serves the studies `philly` and `lyra` (`simulate study philly --data DIR`), and each file serves
`simulate jobs` or `simulate pack`. The studies `kueue-*`, `production-1300` and `scale` need no data. `fgd`, `pollux` and `tide` need
measurements that are not made up here: published results, training curves, token lengths and times.";

/// `tidegate simulate generate`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = STUDIES)]
pub struct Args {
    /// Which trace.
    pub kind: Kind,
    /// Rows to write: jobs, nodes, pods or windows; as many as the public trace has, if not given.
    #[arg(long, visible_alias = "rows", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    pub jobs: Option<u32>,
    /// Equal seeds give equal files.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Where to: a file, gzipped if its name ends in .gz; `-` is standard output. For `all`, a folder.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub out: PathBuf,
}

impl Kind {
    /// Rows of the public trace.
    pub fn rows(self) -> u32 {
        match self {
            Self::Philly => 82_247,
            Self::OpenbNodes => 1213,
            Self::OpenbPods => 8152,
            Self::Servegen => 2016,
            Self::Pollux => 160,
            Self::Tiresias => 60,
            Self::KueueGenerator => 15_000,
            Self::All => 0,
        }
    }

    /// Writes `rows` rows.
    pub fn write(self, rows: u32, seed: u64, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Philly => philly::write(rows, seed, out),
            Self::OpenbNodes => openb::write_nodes(rows, seed, out),
            Self::OpenbPods => openb::write_pods(rows, seed, out),
            Self::Servegen => servegen::write(rows, seed, out),
            Self::Pollux => pollux::write(rows, seed, out),
            Self::Tiresias => tiresias::write(rows, seed, out),
            Self::KueueGenerator => kueue::write(rows, out),
            Self::All => Ok(()),
        }
    }
}

/// Carries out the command.
/// Standard output is `console`.
pub fn run(args: &Args, console: &mut dyn Write) -> Result<(), Error> {
    let Args { kind, jobs, seed, out } = args;
    if *kind == Kind::All {
        return all(*jobs, *seed, out);
    }
    let rows = jobs.unwrap_or(kind.rows());
    if out.as_os_str() == "-" {
        let written = kind.write(rows, *seed, console).and_then(|()| console.flush());
        return written.map_err(|source| Error::Write { path: out.clone(), source });
    }
    file(*kind, rows, *seed, out)
}

/// The folder that `simulate study --data` takes, as far as jobs, nodes and request rates go.
fn all(jobs: Option<u32>, seed: u64, folder: &Path) -> Result<(), Error> {
    if jobs.is_some() {
        return Err(Error::Usage(
            "--jobs: `generate all` writes as many rows as the public traces have; leave it out".to_owned(),
        ));
    }
    if folder.as_os_str() == "-" {
        return Err(Error::Usage("--out: `generate all` writes a folder; name one, for instance --out synthetic".to_owned()));
    }
    let files = [
        (Kind::Philly, "philly/philly.csv.gz"),
        (Kind::OpenbNodes, "openb/openb_node_list_gpu_node.csv"),
        (Kind::OpenbPods, "openb/openb_pod_list_default.csv"),
        (Kind::Tiresias, "tiresias/60_job.csv"),
        (Kind::KueueGenerator, "kueue/generator.yaml"),
    ];
    for (kind, name) in files {
        file(kind, kind.rows(), seed, &folder.join(name))?;
    }
    save(&folder.join("servegen/derived_total_rate.csv"), |out| servegen::write_family(Kind::Servegen.rows(), seed, out))?;
    for n in 1..=8 {
        file(
            Kind::Pollux,
            Kind::Pollux.rows(),
            seed.wrapping_add(n),
            &folder.join(format!("pollux/workloads/workload-{n}.csv")),
        )?;
    }
    Ok(())
}

fn file(kind: Kind, rows: u32, seed: u64, path: &Path) -> Result<(), Error> {
    save(path, |out| kind.write(rows, seed, out))
}

/// Writes a file, gzipped if its name says so, in a folder that is made if need be.
fn save(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let wrong = |source| Error::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(wrong)?;
    }
    let mut out = BufWriter::new(File::create(path).map_err(wrong)?);
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut out = GzEncoder::new(out, Compression::default());
        return write(&mut out).and_then(|()| out.finish()?.flush()).map_err(wrong);
    }
    write(&mut out).and_then(|()| out.flush()).map_err(wrong)
}

#[cfg(test)]
mod tests;
