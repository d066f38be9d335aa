//! `bench agent|batching|cluster [--json]`: the benchmarks of the workspace. Standard output carries results only.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate_tests::bench::{agent, batching, cluster};

#[derive(Parser)]
#[command(about = "Benchmarks of the workspace")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// What the node agent costs.
    Agent(agent::Args),
    /// This server, unpaced, against bare tract in one process.
    Batching(batching::Args),
    /// Placing many pods on many nodes, beside kube-scheduler.
    Cluster(cluster::Args),
}

/// One thread: the client should leave the cores to what is measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let text = match Cli::parse().bench {
        Bench::Agent(args) => agent::run(args).await,
        Bench::Batching(args) => batching::run(args).await,
        Bench::Cluster(args) => cluster::run(args).await,
    };
    let printed = match text {
        Ok(text) => writeln!(std::io::stdout(), "{text}").map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
