//! `cargo xtask scenario NAME [--json]`: plays a scenario, prints its figures, exits with 1 when something that must
//! hold does not, and with 75 when the machine itself stood still for so long that this says nothing.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;
use tidegate_tests::beside;
use tidegate_tests::scenario::run::{Name, Settings, run};
use tidegate_tests::scenario::{promises, table};
use tokio::runtime::Builder;

/// Something did not hold, and the machine had stood still; `EX_TEMPFAIL`.
const VOID: u8 = 75;

#[derive(Parser)]
struct Args {
    /// Which scenario.
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// A day on one box, undisturbed.
    Tide {
        #[command(flatten)]
        day: Day,
        /// Write a picture of the page in the evening of the day; needs `chromium`.
        #[arg(long, value_name = "PNG")]
        picture: Option<PathBuf>,
    },
    /// The same with kills.
    Crash(Day),
    /// The day of `tide` on a real kubelet, every part in a container; needs the programs that `cargo xtask` builds for it.
    Cluster {
        #[command(flatten)]
        day: Day,
        /// No model promises to answer sooner than this: for a slow machine, or a debug build.
        #[arg(long, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u32).range(1..))]
        slo_ms: Option<u32>,
        /// How much longer the day is than its script.
        #[arg(long, value_name = "TIMES", value_parser = stretch)]
        stretch: Option<f64>,
    },
    /// On a cluster beside kube-scheduler; needs the programs that `cargo xtask` builds for it.
    Beside(Beside),
}

/// A quicker day than the script's leaves no time for containers to start.
fn stretch(text: &str) -> Result<f64, String> {
    let times: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (1.0..=20.0).contains(&times) { Ok(times) } else { Err("give a number from 1 to 20".to_owned()) }
}

#[derive(clap::Args)]
struct Day {
    /// Print exactly one JSON object.
    #[arg(long)]
    json: bool,
    /// Of arrivals and of kills.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

#[derive(clap::Args)]
struct Beside {
    /// Print exactly one JSON object.
    #[arg(long)]
    json: bool,
    /// Of what ends in each wave.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    #[arg(long, default_value_t = 40)]
    nodes: u32,
    /// Let kube-scheduler place pods with GPUs too, which can then be booked twice for a moment.
    #[arg(long)]
    rival_gpus: bool,
}

fn main() -> Result<ExitCode> {
    match Args::parse().scenario {
        Scenario::Tide { day, picture } => on_one_box(Name::Tide, &day, picture),
        Scenario::Crash(day) => on_one_box(Name::Crash, &day, None),
        Scenario::Cluster { day, slo_ms, stretch } => {
            let settings = Settings { name: Name::Cluster, seed: day.seed, picture: None, slo_ms, stretch };
            // This thread enters the cluster's network, and no other one would be on it.
            play(&settings, day.json, Builder::new_current_thread())
        }
        Scenario::Beside(beside) => beside_another(&beside),
    }
}

fn on_one_box(name: Name, day: &Day, picture: Option<PathBuf>) -> Result<ExitCode> {
    let settings = Settings { name, seed: day.seed, picture, slo_ms: None, stretch: None };
    play(&settings, day.json, Builder::new_multi_thread())
}

fn play(settings: &Settings, json: bool, mut runtime: Builder) -> Result<ExitCode> {
    let figures = runtime.enable_all().build()?.block_on(run(settings))?;
    print(&figures, json, |out| table::write(out, &figures))?;
    let broken = match settings.name {
        Name::Tide => promises::broken_in_tide(&figures),
        Name::Crash => promises::broken_in_crash(&figures),
        Name::Cluster => promises::broken_in_cluster(&figures),
    };
    Ok(unless_void(figures.void, &broken))
}

fn unless_void(void: bool, broken: &[String]) -> ExitCode {
    let code = ended(broken);
    if void && !broken.is_empty() {
        eprintln!("the machine itself stood still meanwhile: that says nothing; play it again");
        return ExitCode::from(VOID);
    }
    code
}

/// On one thread: it enters the cluster's network.
fn beside_another(args: &Beside) -> Result<ExitCode> {
    let Beside { json, seed, minutes, nodes, rival_gpus } = *args;
    let lasts = Duration::from_secs(minutes * 60);
    let settings = beside::Settings { nodes, lasts, seed, rival_gpus, ..beside::Settings::default() };
    let figures = Builder::new_current_thread().enable_all().build()?.block_on(beside::run(&settings))?;
    print(&figures, json, |out| figures.write(out))?;
    Ok(unless_void(figures.void, &figures.broken()))
}

fn ended(broken: &[String]) -> ExitCode {
    for promise in broken {
        eprintln!("does not hold: {promise}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(
    figures: &impl Serialize,
    json: bool,
    table: impl FnOnce(&mut std::io::StdoutLock<'static>) -> std::io::Result<()>,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if !json {
        return Ok(table(&mut out)?);
    }
    serde_json::to_writer(&mut out, figures)?;
    Ok(writeln!(out)?)
}
