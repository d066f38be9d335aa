//! `cargo xtask scenario NAME [--json]`: plays a scenario, prints its figures, exits with 1 when something that must
//! hold does not.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde_json::Value;
use tidegate_tests::scenario::figures::Figures;
use tidegate_tests::scenario::promises;
use tidegate_tests::scenario::run::{Name, run};

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
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Args { name, json, seed } = Args::parse();
    let figures = run(name, seed).await?;
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
    let value = serde_json::to_value(figures)?;
    match value {
        Value::Object(fields) if !json => {
            for (name, value) in fields {
                writeln!(out, "{name:<36} {value}")?;
            }
        }
        value => writeln!(out, "{value}")?,
    }
    Ok(())
}
