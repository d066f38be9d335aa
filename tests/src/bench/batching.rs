//! `bench batching`: does the way through router, batch and replica keep what batching gains?
//!
//! This server, unpaced, in a closed loop of c = 1, 8 and 32 clients over HTTP/1.1 keep-alive (JSON, one row a request),
//! against bare tract in one process with batches of 1, 8 and 32. Both are measured in turn in each round, so that a noisy
//! machine is noisy for both; rates are medians of the rounds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::bare::Bare;
use super::figures::{Figures, Sample, round};
use super::machine::Machine;
use super::models::{Subject, prepare};
use super::server::Server;
use super::table;

/// Clients at once, and rows of a bare batch.
const CONCURRENCY: [usize; 3] = [1, 8, 32];
/// Where the two are compared.
const COMPARED_AT: usize = 32;
/// Of bare tract's rate on fat.onnx; the rest may go to HTTP, JSON, batching and gRPC.
const GOAL_PERCENT: f64 = 85.0;

/// Arguments.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Print exactly one JSON object.
    #[arg(long)]
    pub json: bool,
    /// The executable to measure. Default: beside this one.
    #[arg(long)]
    pub tidegate: Option<PathBuf>,
    /// Folder for the prepared models, kept. Default: the cache folder.
    #[arg(long)]
    pub work: Option<PathBuf>,
    /// Rounds of all measurements.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Measure only this model: `fat` or `minilm`.
    #[arg(long)]
    pub model: Option<String>,
}

/// Everything, as `--json` prints it.
#[derive(Serialize, Clone, Debug)]
pub struct Report {
    pub bench: &'static str,
    pub machine: Machine,
    pub rounds: u32,
    pub seconds: u32,
    pub encoding: &'static str,
    pub models: Vec<ModelReport>,
    /// On fat.onnx at c = 32, in percent of bare tract at batch 32; absent when fat.onnx was not measured.
    pub fat_share_percent: Option<f64>,
    pub goal_percent: f64,
    pub goal_met: Option<bool>,
}

/// One model.
#[derive(Serialize, Clone, Debug)]
pub struct ModelReport {
    pub model: &'static str,
    pub about: String,
    pub bare: Vec<Row>,
    pub server: Vec<Row>,
    pub share_at: usize,
    pub share_percent: f64,
}

/// One concurrency (or batch size).
#[derive(Serialize, Clone, Debug)]
pub struct Row {
    pub c: usize,
    #[serde(flatten)]
    pub figures: Figures,
}

/// The report as text: a table, or one JSON object.
pub async fn run(args: Args) -> Result<String> {
    let Args { json, tidegate, work, rounds, seconds, model } = args;
    let machine = Machine::look();
    let tidegate = tidegate.map_or_else(beside_this, Ok)?;
    let work = work.map_or_else(cache, Ok)?;
    let mut subjects = tokio::task::spawn_blocking(move || prepare(&work)).await??;
    subjects.retain(|subject| model.as_ref().is_none_or(|wanted| wanted == subject.name));
    ensure!(!subjects.is_empty(), "--model: must be `fat` or `minilm`");
    let mut models = Vec::new();
    for subject in subjects {
        eprintln!("measuring {}", subject.about);
        models.push(measure(&tidegate, &subject, rounds, Duration::from_secs(u64::from(seconds))).await?);
    }
    let fat_share_percent = models.iter().find(|model| model.model == "fat").map(|model| model.share_percent);
    let report = Report {
        bench: "batching",
        machine,
        rounds,
        seconds,
        encoding: "HTTP/1.1 keep-alive, JSON, one row a request",
        models,
        fat_share_percent,
        goal_percent: GOAL_PERCENT,
        goal_met: fat_share_percent.map(|share| share >= GOAL_PERCENT),
    };
    if json { serde_json::to_string(&report).context("encode the report") } else { Ok(table::render(&report)) }
}

/// The samples of all rounds at one concurrency.
struct Measured {
    c: usize,
    bare: Vec<Sample>,
    server: Vec<Sample>,
}

async fn measure(tidegate: &Path, subject: &Subject, rounds: u32, time: Duration) -> Result<ModelReport> {
    let bare = Bare::load(&subject.onnx).with_context(|| format!("load {}", subject.onnx.display()))?;
    let mut server = Server::start(tidegate, subject).await?;
    let mut measured = CONCURRENCY.map(|c| Measured { c, bare: Vec::new(), server: Vec::new() });
    for _ in 0..rounds {
        for Measured { c, bare: of_bare, server: of_server } in &mut measured {
            let (bare, subject, rows) = (bare.clone(), subject.clone(), *c);
            of_bare.push(tokio::task::spawn_blocking(move || bare.measure(&subject, rows, time)).await??);
            of_server.push(server.measure(*c, time).await?);
        }
    }
    server.stop().await?;
    let row = |c, samples: &[Sample]| Row { c, figures: Figures::of(samples) };
    let (bare, server): (Vec<Row>, Vec<Row>) = measured.iter().map(|m| (row(m.c, &m.bare), row(m.c, &m.server))).unzip();
    let rate = |rows: &[Row]| rows.iter().find(|row| row.c == COMPARED_AT).map_or(0.0, |row| row.figures.req_per_s);
    let share_percent = round(100.0 * rate(&server) / rate(&bare).max(f64::MIN_POSITIVE));
    Ok(ModelReport { model: subject.name, about: subject.about.clone(), bare, server, share_at: COMPARED_AT, share_percent })
}

fn beside_this() -> Result<PathBuf> {
    let this = std::env::current_exe().context("find this executable")?;
    let tidegate = this.with_file_name("tidegate");
    ensure!(
        tidegate.is_file(),
        "{} is not there; build it (cargo build --release --workspace) or give --tidegate",
        tidegate.display()
    );
    Ok(tidegate)
}

/// The same rule as `cargo xtask` and `tidegate up`.
fn cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("TIDEGATE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("tidegate")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/tidegate")));
    folder.context("no cache folder: give --work, or set TIDEGATE_CACHE or HOME")
}
