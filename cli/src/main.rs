//! The one executable. Each subcommand is a part with its own `Args` and `run`; no logic lives here.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate_runtime::{exit, shutdown, telemetry};
use tokio_util::task::TaskTracker;

/// Makes one GPU do the work of two or three.
#[derive(Parser, Debug)]
#[command(name = "tidegate", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The front door: takes requests, forms batches, picks replicas.
    Router(tidegate_router::Args),
    /// The model server: one model on one device.
    Replica(tidegate_replica::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = if e.use_stderr() { 64 } else { 0 };
            drop(e.print());
            return ExitCode::from(code);
        }
    };
    telemetry::init("info");
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => match runtime.block_on(run(cli.command)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                tracing::error!("{e}");
                ExitCode::from(e.code())
            }
        },
        Err(e) => {
            tracing::error!("start the runtime: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), exit::Error> {
    let tasks = TaskTracker::new();
    let token = shutdown::on_signal(&tasks)?;
    let done = match command {
        Command::Router(args) => tidegate_router::run(args, token.clone()).await,
        Command::Replica(args) => tidegate_replica::run(args, token.clone()).await,
    };
    token.cancel();
    tasks.close();
    tasks.wait().await;
    done
}
