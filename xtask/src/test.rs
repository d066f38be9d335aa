//! `cargo xtask test`: the tests of some tiers, one after the other, with one count at the end.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;

use crate::args::Tier;
use crate::tally::{self, Tally};
use crate::{cargo, command, prerequisites, previous, python_tests};

/// The whole-system runs that are tests too: each ends with 1 when something that must hold does not.
const SCENARIOS: [&str; 2] = ["tide", "crash"];

/// With this code a scenario says that the machine stood still, so that what did not hold says nothing.
const VOID: i32 = 75;
/// A machine that stands still each time is no machine to test on.
const MOST_PLAYS: u32 = 2;

/// Those that need the feature `cluster`.
const CLUSTER_TESTS: [&str; 12] = [
    "bad_input",
    "beside",
    "cluster_table",
    "faults",
    "gpu_parts",
    "kubelet",
    "ledger",
    "models",
    "named_gpus",
    "operator",
    "real_node",
    "upgrade",
];

/// Runs the tests of these tiers; one that cannot run keeps no other from it. The last line says how many passed and failed.
pub fn run(tiers: &[Tier]) -> Result<ExitCode> {
    let began = Instant::now();
    let mut steps = Steps::default();
    for tier in tiers {
        steps.tier(*tier);
    }
    if tiers.contains(&Tier::Cluster) && steps.total.failed == 0 {
        previous::keep()?;
    }
    steps.report(began)
}

/// What was run, and its count.
#[derive(Default)]
struct Steps {
    lines: Vec<String>,
    total: Tally,
}

impl Steps {
    fn tier(&mut self, tier: Tier) {
        match prerequisites::prepare(tier) {
            Ok(environment) if self.take("build", cargo::build().map(|()| Tally::default())) => self.all(tier, &environment),
            Ok(_) => {}
            Err(missing) => missing.iter().for_each(|what| self.add(&format!("prerequisite {what}"), Tally::one(false))),
        }
    }

    fn all(&mut self, tier: Tier, environment: &[(&'static str, PathBuf)]) {
        let name = if tier == Tier::Cluster { "Rust tests on a real cluster" } else { "Rust tests" };
        self.take(name, tally::run(rust_tests(tier).envs(environment.iter().cloned()), tally::of_runner));
        if tier != Tier::Cluster {
            self.take("training scripts' tests", python_tests::run());
        }
        if tier == Tier::Usual {
            for name in SCENARIOS {
                self.take(&format!("scenario {name}"), scenario(name));
            }
        }
    }

    /// Counts a step. Whether nothing failed in it.
    fn take(&mut self, name: &str, result: Result<Tally>) -> bool {
        let tally = result.unwrap_or_else(|error| {
            eprintln!("xtask: {name}: {error:#}");
            Tally::one(false)
        });
        self.add(name, tally);
        tally.failed == 0
    }

    fn add(&mut self, name: &str, tally: Tally) {
        self.total += tally;
        self.lines.push(format!("{name}: {} passed, {} failed", tally.passed, tally.failed));
    }

    fn report(&self, began: Instant) -> Result<ExitCode> {
        eprintln!("\n{}\ntook {} s", self.lines.join("\n"), began.elapsed().as_secs());
        writeln!(std::io::stdout(), "{} passed, {} failed", self.total.passed, self.total.failed)?;
        Ok(if self.total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Features of `tidegate-tests` add the tests that need outside programs. They change no dependency.
fn rust_tests(tier: Tier) -> Command {
    let mut cargo = cargo::whole_workspace("test");
    cargo.arg("--no-fail-fast");
    match tier {
        Tier::Quick => &mut cargo,
        Tier::Usual => cargo.args(["--features", "tidegate-tests/outside"]),
        Tier::Cluster => {
            let tests = CLUSTER_TESTS.iter().flat_map(|test| ["--test", test]);
            if let Some(build) = previous::build().filter(|_| std::env::var_os(previous::VARIABLE).is_none()) {
                cargo.env(previous::VARIABLE, build);
            }
            cargo.args(["--features", "tidegate-tests/cluster"]).args(tests)
        }
    };
    cargo
}

/// One scenario as one test; played again when the machine itself stood still meanwhile. What it prints goes to standard error, so that
/// standard output has the count alone.
fn scenario(name: &str) -> Result<Tally> {
    let mut play = Command::new(cargo::built("scenario")?);
    play.arg(name);
    let mut ended = command::status(&mut play)?;
    for _ in 1..MOST_PLAYS {
        if ended.code() == Some(VOID) {
            ended = command::status(&mut play)?;
        }
    }
    Ok(Tally::one(ended.success()))
}
