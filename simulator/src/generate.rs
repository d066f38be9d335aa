//! Seeded synthetic traces in the formats that [`crate::trace`] and the studies read (`tidegate simulate generate`), for
//! whoever does not have the public ones.
//!
//! Each generator states which figures of which trace its distributions were fitted to, and its test holds it to them.
//! Guarantee: equal kind, count and seed give equal bytes. What a generator leaves out (users, failures, correlation between
//! queues) a study cannot find in it, so figures on synthetic traces are never printed beside published ones.

mod curves;
mod draw;
pub mod kueue;
pub mod openb;
pub mod philly;
pub mod pollux;
pub mod servegen;
mod serving;
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
The folder that `generate all` writes serves the studies `fgd` (the default list alone), `pollux`, `philly`, `lyra` and `tide`: `simulate
study NAME --data DIR`. Nothing is printed as published there, and bars that are published figures give way to the peers' rule on the
same data. The studies `kueue-*`, `production-1300` and `scale` need no data. Each file serves `simulate jobs` or `simulate pack`.";

/// In a folder of `generate all`: says that nothing in it is measured.
const MARK: &str = "SYNTHETIC";

/// Whether a data folder is one of `generate all`.
pub fn is_synthetic(data: &Path) -> bool {
    data.join(MARK).is_file()
}

/// `tidegate simulate generate`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = STUDIES)]
pub struct Args {
    /// Which trace.
    pub kind: Kind,
    /// Rows to write: jobs, nodes, pods or windows; as many as the public trace has, if not given. For `all`, Philly's jobs, and of
    /// the other lists of jobs, pods and nodes the same part.
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

/// The folder that `simulate study --data` takes; `jobs` of Philly, and of the other lists the same part.
pub fn all(jobs: Option<u32>, seed: u64, folder: &Path) -> Result<(), Error> {
    if folder.as_os_str() == "-" {
        return Err(Error::Usage("--out: `generate all` writes a folder; name one, for instance --out synthetic".to_owned()));
    }
    let philly = jobs.unwrap_or(Kind::Philly.rows());
    let part = f64::from(philly) / f64::from(Kind::Philly.rows());
    let rows = |kind: Kind, load: f64| scaled(kind.rows(), part * load);
    let files = [
        (Kind::Philly, philly, "philly/philly.csv.gz"),
        (Kind::OpenbNodes, rows(Kind::OpenbNodes, 1.0), "openb/openb_node_list_gpu_node.csv"),
        (Kind::OpenbPods, rows(Kind::OpenbPods, 1.0), "openb/openb_pod_list_default.csv"),
        (Kind::Tiresias, Kind::Tiresias.rows(), "tiresias/60_job.csv"),
        (Kind::KueueGenerator, rows(Kind::KueueGenerator, 1.0), "kueue/generator.yaml"),
    ];
    for (kind, rows, name) in files {
        file(kind, rows, seed, &folder.join(name))?;
    }
    for (load, name) in [(0.5, "workloads-0.5"), (1.0, "workloads"), (1.5, "workloads-1.5"), (2.0, "workloads-2.0")] {
        for n in 1..=8 {
            let path = folder.join(format!("pollux/{name}/workload-{n}.csv"));
            file(Kind::Pollux, rows(Kind::Pollux, load), seed.wrapping_add(n), &path)?;
        }
    }
    for curve in &curves::CURVES {
        for (name, text) in curve.files() {
            save(&folder.join("pollux/traces").join(curve.name).join(name), |out| out.write_all(text.as_bytes()))?;
        }
    }
    serving(seed, &folder.join("servegen"), &folder.join("splitwise"))?;
    let mark = format!("Written by `tidegate simulate generate all --seed {seed}`: nothing here was measured.\n");
    save(&folder.join(MARK), |out| out.write_all(mark.as_bytes()))
}

fn serving(seed: u64, servegen: &Path, splitwise: &Path) -> Result<(), Error> {
    let windows = Kind::Servegen.rows();
    save(&servegen.join("derived_total_rate.csv"), |out| servegen::write_family(windows, seed, out))?;
    save(&servegen.join("derived_length_hist.csv"), |out| serving::write_lengths(seed, out))?;
    save(&servegen.join("m-small-trace.tar.gz"), |out| serving::write_clients(windows, seed, out))?;
    save(&splitwise.join("perf_model.csv"), serving::write_times)
}

/// A part of `rows`, but enough of them for a study to have something to do.
fn scaled(rows: u32, part: f64) -> u32 {
    const LEAST: f64 = 24.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
    let scaled = (f64::from(rows) * part).round().clamp(LEAST, f64::from(MOST)) as u32;
    scaled
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
