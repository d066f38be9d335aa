//! The hidden subcommand `tidegate load`.

use std::io::Write;
use std::path::PathBuf;

use tidegate_runtime::exit;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::play::{Error, Options, play};
use crate::report::Report;
use crate::script::Script;

/// Plays a day of requests against a running server and reports what became of them.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The load script.
    #[arg(long)]
    pub script: PathBuf,
    /// The server's front door.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub target: String,
    /// The same seed sends the same requests at the same times.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Print one JSON object on standard output instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Stretch (above 1) or shorten (below 1) the day; rates stay.
    #[arg(long, default_value_t = 1.0)]
    pub duration_scale: f64,
    /// Play only this model; may be given several times.
    #[arg(long)]
    pub only: Vec<String>,
}

/// Live figures go to the log once in so many seconds.
const LOG_EVERY_SECONDS: u64 = 5;

/// Plays the day to its end, or until `shutdown`; then prints the report. Requests in flight at a
/// shutdown are waited for.
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<(), exit::Error> {
    let Args { script, target, seed, json, duration_scale, only } = args;
    let script = Script::read(&script).map_err(|e| exit::Error::Usage(e.to_string()))?;
    let (live, figures) = watch::channel(Report::default());
    let options = Options { target, seed, duration_scale, only, live: Some(live), phase_ends: Vec::new() };
    let (played, ()) = tokio::join!(play(&script, options, &shutdown), log_figures(figures));
    let report = played.map_err(|e| match e {
        Error::Script(_) | Error::Option(_) => exit::Error::Usage(e.to_string()),
        Error::Unreachable { .. } => exit::Error::failed("play the day", e),
    })?;
    print(&report, json).map_err(|e| exit::Error::failed("print the report", e))
}

/// Until the day is over and its sender is gone.
async fn log_figures(mut figures: watch::Receiver<Report>) {
    let mut logged_s = 0;
    while figures.changed().await.is_ok() {
        let report = figures.borrow_and_update().clone();
        if report.elapsed_ms / 1000 < logged_s + LOG_EVERY_SECONDS {
            continue;
        }
        logged_s = report.elapsed_ms / 1000;
        let totals = &report.totals;
        tracing::info!(
            second = logged_s,
            sent = totals.requests_sent,
            answered = totals.answered,
            refused = totals.refused,
            failed = totals.failed,
            lost = totals.lost,
            late = totals.late,
            in_flight = totals.unfinished,
            "load"
        );
    }
}

fn print(report: &Report, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)
    } else {
        write!(out, "{report}")
    }
}
