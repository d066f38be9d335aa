//! `cargo xtask scenario NAME [--json]`: plays a scenario, prints its figures, exits with 1 when something that must
//! hold does not.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tidegate_tests::scenario::figures::Figures;
use tidegate_tests::scenario::run::{Name, Settings, run};
use tidegate_tests::scenario::{promises, table};

#[derive(Parser)]
struct Args {
    /// Which scenario.
    name: Name,
    /// Print exactly one JSON object.
    #[arg(long)]
    json: bool,
    /// Of arrivals and of kills.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Write a picture of the page in the evening of the day; needs `chromium`. With `tide` only.
    #[arg(long, value_name = "PNG")]
    picture: Option<PathBuf>,
    /// No model promises to answer sooner than this: for a slow machine, or a debug build. With `cluster` only.
    #[arg(long, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    slo_ms: Option<u32>,
    /// How much longer the day is than its script. With `cluster` only.
    #[arg(long, value_name = "TIMES", value_parser = stretch)]
    stretch: Option<f64>,
}

/// A quicker day than the script's leaves no time for containers to start.
fn stretch(text: &str) -> Result<f64, String> {
    let times: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (1.0..=20.0).contains(&times) { Ok(times) } else { Err("give a number from 1 to 20".to_owned()) }
}

fn main() -> Result<ExitCode> {
    let Args { name, json, seed, picture, slo_ms, stretch } = Args::parse();
    // On a cluster this thread enters the cluster's network, and no other one would be on it.
    let mut runtime = match name {
        Name::Cluster => tokio::runtime::Builder::new_current_thread(),
        Name::Tide | Name::Crash => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build().context("start the runtime")?;
    let figures = runtime.block_on(run(&Settings { name, seed, picture, slo_ms, stretch }))?;
    print(&figures, json)?;
    let broken = match name {
        Name::Tide => promises::broken_in_tide(&figures),
        Name::Crash => promises::broken_in_crash(&figures),
        Name::Cluster => promises::broken_in_cluster(&figures),
    };
    for promise in &broken {
        eprintln!("does not hold: {promise}");
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(figures: &Figures, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if !json {
        return Ok(table::write(&mut out, figures)?);
    }
    serde_json::to_writer(&mut out, figures)?;
    Ok(writeln!(out)?)
}
