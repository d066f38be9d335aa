//! Commands that are one request and one sentence back.

use reqwest::Method;
use tidegate_api::view::Done;

use super::http::{Client, Error, Server};
use super::out;
use super::target::{self, Target};

/// Arguments of `delete`.
#[derive(clap::Args, Debug)]
pub struct DeleteArgs {
    /// `job/NAME`, `model/NAME`, `queue/NAME` or `pool/NAME`.
    #[arg(value_name = "KIND/NAME", value_parser = target::described)]
    target: Target,
    #[command(flatten)]
    server: Server,
}

/// Arguments of `pause` and `resume`.
#[derive(clap::Args, Debug)]
pub struct TargetArgs {
    /// `job/NAME` or `model/NAME`.
    #[arg(value_name = "KIND/NAME", value_parser = target::workload)]
    target: Target,
    #[command(flatten)]
    server: Server,
}

/// Arguments of `cancel`.
#[derive(clap::Args, Debug)]
pub struct CancelArgs {
    /// `job/NAME`.
    #[arg(value_name = "job/NAME", value_parser = target::job)]
    target: Target,
    #[command(flatten)]
    server: Server,
}

/// Arguments of `drain`.
#[derive(clap::Args, Debug)]
pub struct DrainArgs {
    /// `gpu/ID`, as `tidegate top` lists it.
    #[arg(value_name = "gpu/ID", value_parser = target::gpu)]
    target: Target,
    /// Lets the device be used again.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    server: Server,
}

pub async fn delete(DeleteArgs { target, server }: DeleteArgs) -> Result<(), Error> {
    say(&server, Method::DELETE, &path(&target)).await
}

/// `verb` is the last part of the path.
pub async fn act(TargetArgs { target, server }: TargetArgs, verb: &str) -> Result<(), Error> {
    say(&server, Method::POST, &format!("{}/{verb}", path(&target))).await
}

pub async fn cancel(CancelArgs { target, server }: CancelArgs) -> Result<(), Error> {
    act(TargetArgs { target, server }, "cancel").await
}

pub async fn drain(DrainArgs { target, undo, server }: DrainArgs) -> Result<(), Error> {
    let verb = if undo { "undrain" } else { "drain" };
    act(TargetArgs { target, server }, verb).await
}

fn path(target: &Target) -> String {
    format!("/api/v1/{}/{}", target.kind.path(), target.name)
}

async fn say(server: &Server, method: Method, path: &str) -> Result<(), Error> {
    let done: Done = Client::new(server)?.call(method, path).await?;
    out::print(&format!("{}\n", done.message))
}
