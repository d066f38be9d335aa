//! Developers' chores behind `cargo xtask`.
//!
//! ```text
//! cargo xtask test            all that needs no cluster: prerequisites, build, Rust tests, Python tests, scenarios
//! cargo xtask test --quick    the Rust and Python tests that need no outside program beside cargo and python3
//! cargo xtask test --cluster  the tests on a real API server and kubelet, which are built first; needs Go and root
//! cargo xtask test --all      `test`, then `test --cluster`, with one count
//! cargo xtask scenario NAME   `tide`, `crash` or, on a cluster, `cluster` and `beside`; --json prints exactly one JSON object
//! cargo xtask bench NAME      `agent`, `batching`, `cluster` or `engine`; --json likewise
//! cargo xtask docs            writes the tables of the documentation that are made from the code
//! ```
//!
//! Standard output carries results only; what cargo and the chores say goes to standard error.

mod args;
mod cache;
mod cargo;
mod command;
mod controlplane;
mod docs;
mod prerequisites;
mod previous;
mod python_tests;
mod tally;
mod test;

use std::process::ExitCode;

use args::{Beside, Chore};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let chore = match args::parse(&words) {
        Ok(chore) => chore,
        Err(problem) => {
            eprintln!("{problem}\n\n{}", args::USAGE);
            return ExitCode::from(64);
        }
    };
    let done = match chore {
        Chore::Help => {
            eprintln!("{}", args::USAGE);
            Ok(ExitCode::SUCCESS)
        }
        Chore::Docs => docs::run().map(|()| ExitCode::SUCCESS),
        Chore::Test(tiers) => test::run(tiers),
        Chore::Program { binary, arguments } => cargo::run_program(binary, &arguments, &[]),
        Chore::OnCluster { beside, binary, arguments } => {
            let environment = match beside {
                Beside::Rivals => prerequisites::on_cluster(),
                Beside::Example => prerequisites::example(),
            };
            environment.and_then(|environment| cargo::run_program(binary, &arguments, &environment))
        }
        Chore::Bench { target, arguments } => cargo::run_bench(target, &arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
