//! The executable of all parts. Each subcommand is a part with its own `Args` and `run`, or a command of [`client`];
//! no logic lives here.

mod client;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use tidegate_runtime::program::{self, end, fail, on_runtime};
use tidegate_runtime::{exit, telemetry};
use tidegate_simulator::command::Ended;
use tokio::runtime::Builder;

/// It needs less memory and less CPU for a burst of pods (`docs/results.md`, "Placing pods on a cluster").
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Makes one GPU do the work of two or three.
#[derive(Parser, Debug)]
#[command(name = "tidegate", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    #[command(flatten)]
    Part(Part),
    /// Runs one unit of `up`, so that it outlives `up`. Without a runtime: there is one for every process that `up` runs.
    #[command(hide = true)]
    Shim(tidegate_local::shim::Args),
    /// Replays traces in virtual time under the same engine and its peers' rules.
    Simulate(tidegate_simulator::command::Args),
    #[command(flatten)]
    Client(client::Command),
}

/// What runs until a signal ends it.
#[derive(Subcommand, Debug)]
enum Part {
    /// Shares this machine's GPUs between training jobs and models.
    Up(tidegate_local::Args),
    /// The front door: takes requests, forms batches, picks replicas.
    Router(tidegate_router::Args),
    /// Facts about the GPUs of this node: metrics, JSON, and the `GpuNode` status on Kubernetes.
    NodeAgent(tidegate_node_agent::Args),
    /// Schedules the pods of a Kubernetes cluster on its GPUs.
    Operator(tidegate_operator::Args),
    /// The model server: one model on one device.
    Replica(tidegate_replica::Args),
    /// Plays a day of requests against a running server.
    #[command(hide = true)]
    Load(tidegate_load::Args),
}

impl Part {
    /// The node agent answers a scrape now and then and has threads of its own for the driver: one thread is enough.
    fn runtime(&self) -> Builder {
        match self {
            Self::NodeAgent(_) => Builder::new_current_thread(),
            Self::Up(_) | Self::Router(_) | Self::Operator(_) | Self::Replica(_) | Self::Load(_) => Builder::new_multi_thread(),
        }
    }
}

fn main() -> ExitCode {
    match program::arguments::<Cli>() {
        Ok(cli) => perform(cli.command),
        Err(code) => code,
    }
}

fn perform(command: Command) -> ExitCode {
    match command {
        Command::Shim(args) => end(tidegate_local::shim::run(args)),
        Command::Simulate(args) => simulate(&args),
        Command::Part(part) => {
            telemetry::init("info");
            on_runtime(part.runtime(), async { end(run(part).await) })
        }
        Command::Client(command) => on_runtime(Builder::new_multi_thread(), async {
            match client::run(command).await {
                Err(e) if !e.is_closed_pipe() => fail(&e.to_string(), e.code()),
                Ok(()) | Err(_) => ExitCode::SUCCESS,
            }
        }),
    }
}

/// Computes alone: no runtime, no signals.
fn simulate(args: &tidegate_simulator::command::Args) -> ExitCode {
    match tidegate_simulator::command::run(args, &mut std::io::stdout().lock()) {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Missed) => ExitCode::from(1),
        Err(e) => fail(&e.to_string(), e.code()),
    }
}

async fn run(part: Part) -> Result<(), exit::Error> {
    program::run(|token| async {
        match part {
            Part::Up(args) => tidegate_local::run(args, token).await,
            Part::Router(args) => tidegate_router::run(args, token).await,
            Part::NodeAgent(args) => tidegate_node_agent::run(args, token).await,
            Part::Operator(args) => tidegate_operator::run(args, token).await,
            Part::Replica(args) => tidegate_replica::run(args, token).await,
            Part::Load(args) => tidegate_load::run(args, token).await,
        }
    })
    .await
}
