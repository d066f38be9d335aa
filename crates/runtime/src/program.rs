//! From `main` to the exit code: what every executable of ours does around a part.

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{exit, shutdown};

/// A command line that cannot be read.
const USAGE: u8 = 64;

/// The command line; else how the process ends, once it was told what is wrong, or the help that it asked for.
pub fn arguments<A: Parser>() -> Result<A, ExitCode> {
    A::try_parse().map_err(|e| {
        let code = if e.use_stderr() { USAGE } else { 0 };
        drop(e.print());
        ExitCode::from(code)
    })
}

/// Runs `work` to its end, or says why there can be no runtime.
pub fn on_runtime(mut runtime: Builder, work: impl Future<Output = ExitCode>) -> ExitCode {
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(e) => fail(&format!("start the runtime: {e}"), 1),
    }
}

/// Runs a part until it ends or a signal ends it.
pub async fn run<F>(part: impl FnOnce(CancellationToken) -> F) -> Result<(), exit::Error>
where
    F: Future<Output = Result<(), exit::Error>>,
{
    let tasks = TaskTracker::new();
    let token = shutdown::on_signal(&tasks)?;
    let done = part(token.clone()).await;
    token.cancel();
    tasks.close();
    tasks.wait().await;
    done
}

/// How the process ends.
pub fn end(done: Result<(), exit::Error>) -> ExitCode {
    done.map_or_else(|e| fail(&e.to_string(), e.code()), |()| ExitCode::SUCCESS)
}

/// The last words of a process, for people and for logs alike.
pub fn fail(text: &str, code: u8) -> ExitCode {
    eprintln!("tidegate: {text}");
    ExitCode::from(code)
}
