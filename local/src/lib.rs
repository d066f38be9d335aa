//! stub

pub mod devices;
pub mod shim;
pub mod unit;
pub mod units;

use tidegate_runtime::exit::Error;
use tokio_util::sync::CancellationToken;

/// Arguments.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {}

/// Runs until `shutdown`.
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Error> {
    let Args {} = args;
    shutdown.cancelled().await;
    Ok(())
}
