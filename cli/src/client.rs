//! The commands that speak to a running `up` over its HTTP API (`tidegate_api::view` has the routes), and
//! `crd`, `import` and `gpus`, which need none. Each module is one command; texts are made by pure functions of the views.

mod apply;
mod control;
mod crd;
mod eta;
mod explain;
mod gpus;
mod http;
mod import;
mod logs;
mod out;
mod snapshot;
mod table;
mod target;
mod top;
mod what_if;

use clap::Subcommand;

pub use http::Error;

/// Commands of a user, beside the parts that run.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Creates or changes what the manifests describe.
    Apply(apply::Args),
    /// Removes a job, model, queue or pool; what runs of it is stopped.
    Delete(control::DeleteArgs),
    /// Stops a job at a checkpoint, or a model, until it is resumed.
    Pause(control::TargetArgs),
    /// Lets a paused job or model go on.
    Resume(control::TargetArgs),
    /// Ends a job for good.
    Cancel(control::CancelArgs),
    /// Moves everything off a device and keeps it empty.
    Drain(control::DrainArgs),
    /// Shows what a job's worker wrote.
    Logs(logs::Args),
    /// Tells why a job or model runs, waits or shrank, and what would change it.
    Explain(explain::Args),
    /// Tells when waiting jobs are expected to start.
    Eta(eta::Args),
    /// Tells what changes of quota, nodes or jobs would do, and changes nothing.
    WhatIf(what_if::Args),
    /// Prints the engine's whole state, for `--snapshot` or a bug report.
    Snapshot(snapshot::Args),
    /// Shows devices, models and jobs as they change.
    Top(top::Args),
    /// Shows the GPUs of this machine, and what is wrong with them.
    Gpus(tidegate_node_agent::gpus::Args),
    /// Turns another scheduler's manifests into ours.
    Import(import::Args),
    /// Prints the custom resource definitions for `kubectl apply -f -`.
    Crd(crd::Args),
}

/// Runs one command to its end.
pub async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Apply(args) => apply::run(args).await,
        Command::Delete(args) => control::delete(args).await,
        Command::Pause(args) => control::act(args, "pause").await,
        Command::Resume(args) => control::act(args, "resume").await,
        Command::Cancel(args) => control::cancel(args).await,
        Command::Drain(args) => control::drain(args).await,
        Command::Logs(args) => logs::run(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Eta(args) => eta::run(args).await,
        Command::WhatIf(args) => what_if::run(args).await,
        Command::Snapshot(args) => snapshot::run(args).await,
        Command::Top(args) => top::run(args).await,
        Command::Gpus(args) => gpus::run(&args),
        Command::Import(args) => import::run(args),
        Command::Crd(args) => crd::run(args),
    }
}
