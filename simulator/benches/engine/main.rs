//! `cargo xtask bench engine [--json]`: what a decision of the engine costs, by time, by allocations and by instructions.
//!
//! A *cycle* is one `decide` with every queue dirty and no cached verdicts, on a busy cluster with hundreds of waiting gangs
//! ([`place`]). Decisions per second are starts and stops over CPU time in `apply` and `decide` at steady arrivals. Instructions are
//! counted by callgrind and do not depend on the machine's speed; without valgrind they are absent. Everything is seeded.
#![expect(clippy::unwrap_used, reason = "a failed benchmark should say where")]

mod allocations;
mod instructions;
mod place;

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use clap::Parser;
use serde::Serialize;
use tidegate_simulator::pack::clock::thread_cpu_time;

use place::Place;

/// Steps of steady arrivals that decisions per second are measured over.
const STEPS: u32 = 2000;
/// Cycles that instructions are counted over: fewer than are timed, as a program runs fifty times slower in valgrind.
const COUNTED: u32 = 100;

#[derive(Parser)]
#[command(about = "What a decision of the engine costs")]
struct Args {
    /// Cluster sizes in GPUs, in nodes of eight.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000], value_parser = clap::value_parser!(u32).range(256..=1_000_000))]
    gpus: Vec<u32>,
    /// Cycles measured at each size.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    cycles: u32,
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[arg(long)]
    json: bool,
    /// Runs the cycles that valgrind counts, and prints nothing.
    #[arg(long, hide = true)]
    counted: bool,
    /// Cargo says so to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize)]
struct Report {
    machine: String,
    seed: u64,
    cycles: u32,
    sizes: Vec<Size>,
    /// Why instructions are absent, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_instructions: Option<String>,
}

#[derive(Serialize)]
struct Size {
    gpus: u32,
    running_jobs: usize,
    waiting_jobs: usize,
    decisions_per_s: f64,
    cycle_us_p50: f64,
    cycle_us_p99: f64,
    allocations_per_cycle: f64,
    allocated_bytes_per_cycle: f64,
    instructions_per_cycle: Option<f64>,
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    if args.counted {
        let mut place = Place::new(args.gpus[0], args.seed);
        for _ in 0..args.cycles {
            cycle(&mut place);
        }
        return Ok(());
    }
    let mut no_instructions = None;
    let sizes = args.gpus.iter().map(|gpus| measure(&args, *gpus, &mut no_instructions)).collect();
    let report = Report { machine: machine(), seed: args.seed, cycles: args.cycles, sizes, no_instructions };
    let text = if args.json { serde_json::to_string_pretty(&report).unwrap() } else { table(&report) };
    writeln!(std::io::stdout(), "{}", text.trim_end())
}

fn measure(args: &Args, gpus: u32, no_instructions: &mut Option<String>) -> Size {
    let mut place = Place::new(gpus, args.seed);
    let (from, mut decisions) = (thread_cpu_time(), 0);
    for _ in 0..STEPS {
        place.replace_one();
        let plan = place.decide();
        decisions += place.carry_out(plan);
    }
    let cpu = thread_cpu_time().saturating_sub(from);
    let mut took = Vec::new();
    let mut made = allocations::Made::default();
    for _ in 0..args.cycles {
        let (nanos, here) = cycle(&mut place);
        took.push(nanos);
        made += here;
    }
    took.sort_unstable();
    let quantile = |percent: usize| took[(took.len() * percent).div_ceil(100).max(1) - 1] as f64 / 1e3;
    let counted = instructions::per_cycle(gpus, args.seed, COUNTED);
    let instructions_per_cycle = counted.map_err(|why| *no_instructions = Some(why)).ok();
    Size {
        gpus,
        running_jobs: place.running(),
        waiting_jobs: place.waiting(),
        decisions_per_s: f64::from(decisions) / cpu.as_secs_f64(),
        cycle_us_p50: quantile(50),
        cycle_us_p99: quantile(99),
        allocations_per_cycle: made.count as f64 / f64::from(args.cycles),
        allocated_bytes_per_cycle: made.bytes as f64 / f64::from(args.cycles),
        instructions_per_cycle,
    }
}

/// One cycle after an end and an arrival: nanoseconds, and what it allocated.
fn cycle(place: &mut Place) -> (u128, allocations::Made) {
    place.replace_one();
    place.forget();
    let (from, before) = (Instant::now(), allocations::made());
    let plan = place.decide();
    let measured = (from.elapsed().as_nanos(), allocations::made() - before);
    place.carry_out(plan);
    measured
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).and_then(|rest| rest.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{}, {cores} cores, {}", model.map_or("unknown", |(_, model)| model), std::env::consts::ARCH)
}

fn table(report: &Report) -> String {
    let mut text = format!("{}; seed {}; {} cycles each\n", report.machine, report.seed, report.cycles);
    writeln!(
        text,
        "{:>9} {:>8} {:>8} {:>12} {:>12} {:>12} {:>10} {:>10} {:>14}",
        "GPUs", "running", "waiting", "decisions/s", "cycle us p50", "p99", "allocs", "bytes", "instructions"
    )
    .unwrap();
    for size in &report.sizes {
        let instructions = size.instructions_per_cycle.map_or_else(|| "-".to_owned(), |count| format!("{count:.0}"));
        writeln!(
            text,
            "{:>9} {:>8} {:>8} {:>12.0} {:>12.1} {:>12.1} {:>10.0} {:>10.0} {instructions:>14}",
            size.gpus,
            size.running_jobs,
            size.waiting_jobs,
            size.decisions_per_s,
            size.cycle_us_p50,
            size.cycle_us_p99,
            size.allocations_per_cycle,
            size.allocated_bytes_per_cycle
        )
        .unwrap();
    }
    if let Some(why) = &report.no_instructions {
        writeln!(text, "no instructions counted: {why}").unwrap();
    }
    text
}
