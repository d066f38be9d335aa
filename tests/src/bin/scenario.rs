//! `cargo xtask scenario NAME [--json]`: plays a scenario, prints its figures, exits with 1 when something that must
//! hold does not.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
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
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Args { name, json, seed, picture } = Args::parse();
    let figures = run(&Settings { name, seed, picture }).await?;
    print(&figures, json)?;
    let broken = match name {
        Name::Tide => promises::broken_in_tide(&figures),
        Name::Crash => promises::broken_in_crash(&figures),
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
