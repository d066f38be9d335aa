//! The node agent alone, for the nodes of a cluster: the same part as `tidegate node-agent`, in an executable that is a small part of
//! that one. What a process maps of its executable is memory of each node.

use std::process::ExitCode;

use clap::Parser;
use tidegate_node_agent::Args;
use tidegate_runtime::{program, telemetry};
use tokio::runtime::Builder;

/// Facts about the GPUs of this node: metrics, JSON, and the `GpuNode` status on Kubernetes.
#[derive(Parser, Debug)]
#[command(name = "tidegate-node-agent", version, about)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    let Cli { args } = match program::arguments() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    telemetry::init("info");
    program::on_runtime(Builder::new_current_thread(), async {
        program::end(program::run(|token| tidegate_node_agent::run(args, token)).await)
    })
}
